import json

import pytest
from PIL import Image

from lad_eval.cli.main import invoke
from lad_eval.ranking.demo import Demo, Shown, demonstrate, model_sentence, repaired_sentence
from lad_eval.ranking.picture import draw_demo


@pytest.fixture(scope="module")
def demo(ranker, samples):
    sample = samples[0]
    return demonstrate(ranker, sample.images, sample.caption, right=sample.gold, calibrated_on="scenes_random_n4")


def test_every_image_visits_every_position_and_answers_name_images(demo):
    assert [row.order for row in demo.rows] == [(0, 1, 2, 3), (1, 2, 3, 0), (2, 3, 0, 1), (3, 0, 1, 2)]
    for row in demo.rows:
        assert row.model_image == row.order[row.model_position]
        assert row.repaired_image == row.order[row.repaired_position]
        assert sum(row.attention) == pytest.approx(1)
        assert row.most_attended == (row.attention.index(max(row.attention)), max(row.attention))
    assert demo.repaired_images == [demo.right]
    assert len(demo.model_images) > 1


def test_answers_are_those_of_each_order_asked_alone(demo, ranker, samples):
    for row in demo.rows:
        alone = ranker.rank([samples[0].images[image] for image in row.order], samples[0].caption)
        assert (row.model_position, row.repaired_position) == (alone.plain_best, alone.best)


def made(model, repaired, *, right=0):
    """A demo of three images; `model` and `repaired` are the answered positions of its three orders."""
    orders = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    rows = [Shown(o, m, None, None, r) for o, m, r in zip(orders, model, repaired, strict=True)]
    return Demo("M", "lad", "c", (), right, tuple(rows), "t")


@pytest.mark.parametrize(
    ("model", "repaired", "right", "says", "then"),
    [
        (
            (1, 1, 1),
            (0, 2, 1),
            0,
            "answers position 2 in every order, and so names 3 pictures",
            "LAD names A in every order, the right one.",
        ),
        ((0, 2, 1), (0, 2, 1), 0, "names one picture, A, in every order", "LAD names A in every order, the right one."),
        (
            (0, 1, 1),
            (0, 2, 1),
            1,
            "answers positions 1, 2, 2: it names 2 pictures",
            "LAD names A in every order, but not the right one.",
        ),
        ((1, 1, 1), (1, 1, 0), None, "names 3 pictures", "LAD names 2 pictures too (B, C): it does not repair this question."),
        ((1, 1, 1), (0, 2, 1), None, "names 3 pictures", "LAD names A in every order."),
    ],
)
def test_sentences_say_what_happened(model, repaired, right, says, then):
    demo = made(model, repaired, right=right)
    assert says in model_sentence(demo)
    assert repaired_sentence(demo) == then


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_draws_a_picture(demo, tmp_path, suffix):
    draw_demo(demo, tmp_path / "new" / f"demo{suffix}")
    assert (tmp_path / "new" / f"demo{suffix}").stat().st_size > 5000


def test_the_command_writes_a_picture_and_json(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert invoke(["demo", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["order"] for row in document["orders"]][:2] == [["A", "B", "C", "D"], ["B", "C", "D", "A"]]
    assert {row["repaired"]["image"] for row in document["orders"]} == {document["right"]}
    assert Image.open(tmp_path / "demo.png").width > 800


def test_the_command_takes_images_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for index, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (60, 40 + index), colour).save(f"{index}.png")
    words = ["--images", "0.png", "1.png", "2.png", "--caption", "a [red] square", "--right", "1", "--out", "own.svg"]
    assert invoke(["demo", *words, "--model", "random:qwen2.5-vl"]) == 0
    text = capsys.readouterr().out
    assert '"a [red] square"' in text
    assert "3 pictures in 3 orders · the right one is A\nLAD is calibrated on scenes_random_n3" in text
    assert "C  2.png" in text
    assert (tmp_path / "own.svg").is_file()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--images", "a.png", "b.png"], "--images needs --caption"),
        (["--caption", "x"], "go with --images"),
        (["--images", "a.png", "b.png", "--caption", "x"], "a.png: no such image"),
        (["--images", "a.png", "--caption", "x"], "--images takes 2 to 12 images, not 1"),
        (["--out", "demo.txt"], "a picture ends in .png, .svg, .pdf"),
        (["--model", "lad-tyni"], "Did you mean 'lad-tiny'?"),
        (["--task", "scenes_random_n5"], "Did you mean"),
        (["--sample", "501"], "has 500 test questions"),
        (["--method", "cot"], "does not answer from one pass"),
    ],
)
def test_bad_input_is_one_line(words, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert invoke(["demo", *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert text in lines[0]


def test_the_demo_asks_a_server_only_for_what_it_gives(stand_in, tmp_path, capsys):
    words = ["demo", "--model", "openai:served", "--base-url", stand_in.url, "--out", str(tmp_path / "demo.png"), "--json"]
    assert invoke(words) == 2
    assert "lad needs attention, and openai:served gives log-probabilities and replies only" in capsys.readouterr().err
    assert stand_in.bodies == []
    assert invoke([*words, "--method", "pride"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == "pride"
