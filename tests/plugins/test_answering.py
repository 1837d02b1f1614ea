"""Models as another harness's model arguments name them."""

import pytest

from lad_eval.errors import UserError
from lad_eval.models.registry import load_model
from lad_eval.plugins.answering import Answering
from lad_eval.plugins.calibrated import CalibratedMethod
from lad_eval.plugins.documents import open_task
from lad_eval.tasks.registry import load_task

TASK = "scenes_random_n2"


@pytest.mark.parametrize("method", ["generate", "vanilla"])
def test_a_model_behind_a_server_answers(stand_in, tmp_path, method):
    arguments = {"pretrained": "openai:served", "base_url": stand_in.url, "method": method, "concurrency": "2"}
    answering = Answering.from_arguments({**arguments, "store": tmp_path})
    rows = open_task(TASK).rows[:3]
    replies = answering.replies(rows)
    assert all(reply in row["identifiers"] for reply, row in zip(replies, rows, strict=True))
    assert len(stand_in.bodies) == 3
    assert answering.device.type == "cpu"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "lad"}, "lad needs attention, and openai:served gives log-probabilities and replies only"),
        ({"method": "vanilla", "timeout": "long"}, "timeout must be a number, not 'long'"),
        ({"method": "vanilla", "base_url": "somewhere"}, "--base-url must be the address of a server"),
    ],
)
def test_what_a_server_cannot_do_is_refused_before_anything_is_sent(stand_in, arguments, message):
    with pytest.raises(UserError, match=message):
        Answering.from_arguments({"pretrained": "openai:served", "base_url": stand_in.url, **arguments})
    assert stand_in.bodies == []


def test_a_task_that_is_refused_is_refused_before_another_is_run(tmp_path, monkeypatch):
    answering = Answering(pretrained="lad-tiny", method="lad", store=tmp_path)
    monkeypatch.setattr(CalibratedMethod, "answer", lambda *_: pytest.fail("a question was run"))
    with pytest.raises(UserError, match="scenes_count_n4 has texts to choose from"):
        answering.replies([*open_task(TASK).rows[:1], *open_task("scenes_count_n4").rows[:1]])


def test_texts_are_not_for_methods_that_read_attention(tmp_path):
    with pytest.raises(UserError, match="scenes_count_n4 has texts to choose from, and lad reads attention"):
        CalibratedMethod(load_model("lad-tiny"), load_task("scenes_count_n4"), "lad", tmp_path / "store")
    assert not list(tmp_path.iterdir()), "nothing was run"
