"""A benchmark for the hub, read back with the hub's own libraries."""

import functools

import datasets
import pytest
import yaml
from huggingface_hub import DatasetCard
from PIL import Image, ImageChops

from lad_eval.cli.main import invoke
from lad_eval.data import blink
from lad_eval.data.dataset import PrepareOptions
from lad_eval.report.benchmark import write_benchmark
from lad_eval.report.card import CardError
from lad_eval.run.progress import progress as shown_progress
from lad_eval.tasks.registry import load_task
from tests.data.hub_files import write_blink

SCENES = "{version: 1, source: scenes, candidates: 3, samples: 4, calibration: {samples: 2}}"


@pytest.fixture
def scenes(tmp_path):
    (tmp_path / "few.yaml").write_text(SCENES)
    return load_task(tmp_path / "few.yaml")


@pytest.fixture
def own(tmp_path):
    """A task on the user's own files."""
    (tmp_path / "images").mkdir()
    for i in range(12):
        Image.new("RGB", (6, 4), (20 * i, 0, 90)).save(tmp_path / "images" / f"p{i}.{'png' if i % 2 else 'bmp'}")
    lines = "".join(f"p{i}.{'png' if i % 2 else 'bmp'},picture {i}\n" for i in range(12))
    (tmp_path / "captions.csv").write_text(f"image,caption\n{lines}")
    (tmp_path / "own.yaml").write_text("{source: folder, candidates: 2, data: {images: images, captions: captions.csv}}")
    return load_task(tmp_path / "own.yaml")


@pytest.fixture
def progress():
    return functools.partial(shown_progress, shown=False)


def read(folder, task, split, cache):
    return datasets.load_dataset(str(folder), task, split=split, cache_dir=str(cache))


def test_datasets_reads_back_what_the_task_shows(scenes, tmp_path, progress):
    folder = tmp_path / "out"
    written = write_benchmark([scenes], folder, progress, dataset="owner/few")
    assert (written.samples, written.without_images) == (4, ())
    rows = read(folder, "few", "test", tmp_path / "cache")
    samples = list(scenes.samples("test"))
    assert [row["id"] for row in rows] == [sample.id for sample in samples]
    for row, sample in zip(rows, samples, strict=True):
        for shown, image in zip(row["images"], sample.images, strict=True):
            assert ImageChops.difference(shown, image.load()).getbbox() is None
        for k, order in enumerate(scenes.orders):
            request = scenes.request(sample, order)
            assert row["questions"][k] == request.question
            assert row["image_orders"][k] == row["option_orders"][k] == list(order.order)
            assert row["answers"][k] == request.identifiers[request.gold_position]
            assert row["option_orders"][k][row["identifiers"].index(row["answers"][k])] == row["answer"]
    learned = read(folder, "few", "calibration", tmp_path / "cache")
    assert [row["id"] for row in learned] == [sample.id for sample in scenes.samples("calibration")]
    assert [row["option_orders"] for row in learned] == [[[0, 1, 2], [2, 0, 1], [1, 2, 0]]] * 2


def test_texts_to_choose_from_have_orders_of_their_own(tmp_path, progress):
    text = SCENES.replace("candidates: 3", "candidates: 4, setting: count, prompt: choices, vary: both")
    (tmp_path / "count.yaml").write_text(text)
    task = load_task(tmp_path / "count.yaml")
    write_benchmark([task], tmp_path / "out", progress, dataset="owner/count")
    for row, sample in zip(read(tmp_path / "out", "count", "test", tmp_path / "cache"), task.samples(), strict=True):
        assert row["options"] == list(sample.options)
        assert row["image_orders"] != row["option_orders"]
        for k, arrangement in enumerate(task.arrangements(sample)):
            shown = [row["images"][image] for image in row["image_orders"][k]]
            request = task.request(sample, *arrangement)
            assert all(ImageChops.difference(a, b.load()).getbbox() is None for a, b in zip(shown, request.images, strict=True))
            right = row["option_orders"][k][row["identifiers"].index(row["answers"][k])]
            assert row["options"][right] == sample.options[sample.gold] == row["options"][row["answer"]]


def test_the_hub_reads_the_card_and_eval_yaml_lists_the_tasks(scenes, tmp_path, progress):
    write_benchmark([scenes], tmp_path / "out", progress, dataset="owner/few")
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "apache-2.0"
    assert [config["config_name"] for config in card.data.to_dict()["configs"]] == ["few"]
    assert yaml.safe_load((tmp_path / "out" / "eval.yaml").read_text()) == {
        "name": "few",
        "description": "Position bias of vision-language models: each question is shown under several orders of its images.",
        "evaluation_framework": "lad-eval",
        "tasks": [{"id": "few", "config": "few", "split": "test"}],
    }


def test_the_same_rows_are_not_written_twice_and_other_rows_are(scenes, tmp_path, progress):
    folder = tmp_path / "out"
    file = folder / "few" / "test.parquet"
    write_benchmark([scenes], folder, progress, dataset="owner/few")
    before = file.stat().st_ino
    write_benchmark([scenes], folder, progress, dataset="owner/few")
    assert file.stat().st_ino == before
    (tmp_path / "few.yaml").write_text(SCENES.replace("samples: 4", "samples: 3"))
    write_benchmark([load_task(tmp_path / "few.yaml")], folder, progress, dataset="owner/few")
    assert len(read(folder, "few", "test", tmp_path / "cache")) == 3
    file.write_bytes(b"damaged")
    write_benchmark([load_task(tmp_path / "few.yaml")], folder, progress, dataset="owner/few")
    assert len(read(folder, "few", "test", tmp_path / "cache2")) == 3


def test_the_users_own_pictures_need_a_licence(own, tmp_path, progress):
    with pytest.raises(CardError, match=r"own shows your own pictures; state their licence as the hub names it, --licence"):
        write_benchmark([own], tmp_path / "out", progress, dataset="owner/own")
    write_benchmark([own], tmp_path / "out", progress, dataset="owner/own", licence="cc-by-4.0")
    assert DatasetCard.load(tmp_path / "out" / "README.md").data.license == "cc-by-4.0"
    rows = read(tmp_path / "out", "own", "test", tmp_path / "cache")
    for row, sample in zip(rows, own.samples(), strict=True):
        for shown, image in zip(row["images"], sample.images, strict=True):
            assert shown.format == "PNG"
            assert ImageChops.difference(shown, image.load()).getbbox() is None


def test_images_that_others_publish_are_named_and_not_copied(tmp_path, progress, monkeypatch):
    dataset = write_blink(tmp_path / "data")
    monkeypatch.setattr(blink, "BLINK", dataset)
    dataset.prepare(tmp_path / "data", PrepareOptions(download=False), progress)
    text = "{source: blink, setting: given, candidates: 2, prompt: verbatim, data: {root: data, task: Jigsaw, revision: %s}}"
    (tmp_path / "jigsaw.yaml").write_text(text % dataset.revision)
    task = load_task(tmp_path / "jigsaw.yaml")
    assert write_benchmark([task], tmp_path / "out", progress, dataset="owner/jigsaw").without_images == ("jigsaw",)
    row = read(tmp_path / "out", "jigsaw", "test", tmp_path / "cache")[0]
    sample = next(task.samples())
    assert "images" not in row
    assert row["image_files"] == [image.path.name for image in sample.images]
    assert row["image_digests"] == [image.digest for image in sample.images]
    assert row["image_orders"] == [[0, 1, 2], [0, 2, 1]]
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "other"
    assert "The images are not part of this data set" in card.text


def test_a_folder_with_other_files_is_refused(scenes, tmp_path, progress):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(CardError, match=r"out holds thesis\.tex, which is not of this benchmark; name an empty folder"):
        write_benchmark([scenes], tmp_path / "out", progress, dataset="owner/few")
    with pytest.raises(CardError, match="'few' is not the id of a data set"):
        write_benchmark([scenes], tmp_path / "new", progress, dataset="few")
    with pytest.raises(CardError, match="is a file; name a folder"):
        write_benchmark([scenes], tmp_path / "few.yaml", progress, dataset="owner/few")


def test_command_line(scenes, tmp_path, capsys):
    arguments = ["export", "-f", "benchmark", "--tasks", str(tmp_path / "few.yaml"), "--dataset", "o/n"]
    assert invoke([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "out: 1 task, 4 test samples" in capsys.readouterr().out
    assert invoke(arguments) == 2
    assert "needs --tasks, --dataset owner/name and --out FOLDER" in capsys.readouterr().err
    assert invoke([*arguments, "--methods", "lad", "--out", str(tmp_path / "out")]) == 2
    assert "--format benchmark does not take --methods" in capsys.readouterr().err
