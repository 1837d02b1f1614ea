"""Requests of several sets of identifiers in one collection, on a tiny random model."""

from dataclasses import replace

import numpy as np
import pytest

from lad_eval.data.mmiu import REVISION
from lad_eval.errors import UserError
from lad_eval.models.registry import load_model
from lad_eval.run.collect import collect, in_batches
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import load_task
from tests.data.mmiu_files import options, row, write_pictures, write_questions

TASK = "visual_quality_assessment_ve_lol_l"
TURNED = "A: the second image\nB: the first image\n"


@pytest.fixture(scope="module")
def model():
    return load_model("random:qwen2.5-vl", device="cpu", dtype="float32")


@pytest.fixture
def task(tmp_path):
    told = [row(TASK, i, options=TURNED if i % 2 else options(2)) for i in range(9)]
    write_questions(tmp_path, told)
    write_pictures(tmp_path, told)
    path = tmp_path / "own.yaml"
    path.write_text(
        "source: mmiu\nsetting: given\ncandidates: 2\nidentifiers: A..\nprompt: verbatim\n"
        f"data: {{task: {TASK}, revision: {REVISION}, root: {tmp_path}, text: [question]}}\n"
    )
    return load_task(path)


def test_rows_of_different_letters_are_asked_in_calls_of_their_own(model, task):
    asked = plan(task, calibration=True).requests
    assert {r.identifiers for r in asked} == {("A", "B"), ("B", "A")}
    with pytest.raises(UserError, match="must have the same number of images and the same identifiers"):
        model.evidence(asked)
    barrier = collect(model, task, show_progress=False)
    assert sorted(barrier.key.tolist()) == sorted(r.key for r in asked)
    for request in asked:
        alone = model.evidence([request])
        found = barrier.select_keys([request.key])
        np.testing.assert_allclose(found.log_probs, alone.log_probs, atol=1e-4)
        assert found.gold_position.tolist() == [request.gold_position]


def test_the_letters_are_scored_in_the_order_of_the_positions(model, task):
    """The same pictures and text under turned names: the columns change places and nothing else."""
    (plain, *_) = [r for r in plan(task).requests if r.identifiers == ("A", "B")]
    turned = replace(plain, identifiers=("B", "A"))
    first, second = (next(in_batches(model, [r])) for r in (plain, turned))
    np.testing.assert_allclose(first.log_probs, second.log_probs[:, ::-1], atol=1e-6)
    assert first.key.tolist() != second.key.tolist()


class OnlyEvidence:
    """A model of one's own that does not divide requests into batches."""

    name = "own"

    def __init__(self, inner):
        self.inner, self.calls = inner, []

    @property
    def fingerprint(self):
        return self.inner.fingerprint

    def evidence(self, requests):
        self.calls.append(len(requests))
        return self.inner.evidence(requests)


def test_a_model_need_not_make_batches(model, task, monkeypatch):
    monkeypatch.setattr("lad_eval.run.collect.REQUESTS_A_CALL", 4)
    own = OnlyEvidence(model)
    found = collect(own, task, show_progress=False)
    expected = collect(model, task, show_progress=False)
    assert found.key.tolist() == expected.key.tolist()
    np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=1e-4)
    assert own.calls == [4, 4, 2, 4, 4]
