"""What any harness shares that has our tasks answered by models of others."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from lad_eval.errors import UserError
from lad_eval.evidence.replies import UNKNOWN_PASSES, UNPARSABLE, Reply, row_of
from lad_eval.plugins.documents import data_uri, open_task, request_of
from lad_eval.plugins.replying import check_orders, decided_positions, reply_method, requests_behind
from lad_eval.plugins.scoring import answers_table
from lad_eval.tasks.sources.base import Picture

TASK = "scenes_random_n4"


def decoded(uri):
    kind, _, content = uri.removeprefix("data:image/").partition(";base64,")
    return kind, base64.b64decode(content)


def saved(path, mode="RGB", **options):
    noise = np.random.default_rng(0).integers(0, 256, (8, 12, len(mode)), dtype=np.uint8)
    Image.fromarray(noise, mode).save(path, **options)
    return Picture(path)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_file_whose_pixels_are_taken_as_they_are_is_sent_as_it_is(tmp_path, name):
    picture = saved(tmp_path / name)
    kind, content = decoded(data_uri(picture))
    assert content == picture.path.read_bytes()
    assert kind == {"a.jpg": "jpeg", "a.png": "png"}[name]


def test_other_pictures_are_sent_as_our_models_are_shown_them(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    pictures = [saved(tmp_path / "alpha.png", "RGBA"), saved(tmp_path / "a.bmp"), saved(tmp_path / "t.jpg", exif=turned)]
    for picture in pictures:
        kind, content = decoded(data_uri(picture))
        assert kind == "png"
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), np.asarray(picture.load()))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("lad", "lad needs attention and log-probs, and models of inspect_ai give replies only: use generate,"),
        ("majority", "majority needs log-probs, and"),
        ("sofa+generate", "sofa+generate needs a change of the model"),
        ("labelled-names+generate", "labelled-names+generate puts text between the images, which tasks of inspect_ai do not"),
        ("generat", "Unknown method 'generat'. Did you mean 'generate'"),
    ],
)
def test_methods_that_need_more_than_replies_are_refused(name, fault):
    with pytest.raises(UserError) as caught:
        reply_method(name, "inspect_ai")
    assert fault in str(caught.value)


def test_a_task_in_one_order_refuses_votes_over_orders(tmp_path, monkeypatch):
    monkeypatch.setattr(type(open_task(TASK).task), "permutable", False)
    check_orders(reply_method("generate", "inspect_ai"), TASK)
    with pytest.raises(UserError, match="runs unpermuted"):
        check_orders(reply_method("majority+generate", "inspect_ai"), TASK)


@pytest.mark.parametrize(("name", "orders"), [("generate", 1), ("majority+generate", 4)])
def test_answers_are_those_of_the_method(name, orders):
    method = reply_method(name, "inspect_ai")
    documents = open_task(TASK).samples[0]
    asked = {request.key: request for document in documents for request in requests_behind(document, method)}
    right = {key: request.identifiers[request.gold_position] for key, request in asked.items()}
    assert all(len(requests_behind(document, method)) == orders for document in documents)
    rows = [row_of(request, Reply(key, (right[key],), UNKNOWN_PASSES, 0.0)) for key, request in asked.items()]
    assert decided_positions(documents, method, rows) == [document["gold"] for document in documents]
    mute = [{**row, "texts": ["None of them."]} for row in rows]
    assert decided_positions(documents, method, mute) == [UNPARSABLE] * len(documents)


def test_texts_are_listed_in_every_order_and_known_by_their_request(tmp_path):
    """The options keep their letters, so that only the request says which order of the images a reply belongs to."""
    path = tmp_path / "count.yaml"
    path.write_text(
        "source: scenes\nsetting: count\ncandidates: 4\nsamples: 2\nidentifiers: A..\nprompt: choices\nvary: images\n"
        "permutations: {count: 3}\ncalibration: {samples: 1}\n"
    )
    method = reply_method("cot", "inspect_ai")
    documents = open_task(str(path)).samples[0]
    assert [(d["orders"], d["images"], d["order"]) for d in documents] == [(3, 3, [0, 1, 2, 3])] * 3
    asked = [request for document in documents for request in requests_behind(document, method)]
    assert all("\nA. 1\nB. 2\nC. 3\nD. 4\n" in request.question and "<think>" in request.question for request in asked)
    rows = [
        row_of(request, Reply(request.key, (f"<think>so</think> {letter}",), UNKNOWN_PASSES, 0.0))
        for request, letter in zip(asked, "BDA", strict=True)
    ]
    assert decided_positions(documents, method, rows) == [1, 3, 0]
    with pytest.raises(UserError, match="only `lad-eval run` shows in several orders"):
        check_orders(reply_method("majority+generate", "inspect_ai"), str(path))


def test_prompts_are_the_methods():
    document = open_task(TASK).rows[1]
    plain, cot = (requests_behind(document, reply_method(name, "inspect_ai"))[0] for name in ("generate", "cot"))
    assert plain == request_of(document)
    assert "Think step by step" in cot.question
    assert plain.caption in cot.question
    assert cot.images == plain.images


def test_a_table_of_answers():
    documents = [{"order": [2, 0, 1], "gold": 1, "identifiers": ["1", "2", "3"]}] * 2
    assert answers_table(documents, [0, UNPARSABLE]).splitlines()[2:] == ["| 2 0 1 | 2 | 1 |", "| 2 0 1 | 2 | - |"]
