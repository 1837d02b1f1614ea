"""A method behind another harness: the answers of `lad-eval run`, nothing asked twice, learned once."""

import logging
from pathlib import Path

import pandas as pd
import pytest

from lad_eval.attention.interventions import LearnedState
from lad_eval.errors import EvidenceError, UnknownNameError, UserError
from lad_eval.models.registry import load_model
from lad_eval.plugins.calibrated import CalibratedMethod
from lad_eval.run.execute import Settings, run_tasks
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import load_task

TASK = "scenes_random_n2"
SAMPLES = 6
METHODS = (
    "vanilla",
    "pride",
    "lad",
    "permutation-average",
    "average-random",
    "average-cyclic+lad",
    "fastv(keep=0.25)",
    "fastv(keep=0.25)+lad",
    "fastv(keep=0.25, trend=mean)+lad",
)

pytestmark = pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")


class Counted:
    """A model that remembers what it was asked, and may be killed."""

    def __init__(self, model, stop_after=None):
        self.inner, self.stop_after, self.asked = model, stop_after, []
        self.name, self.fingerprint = model.name, model.fingerprint

    def evidence_batches(self, requests):
        for batch in self.inner.evidence_batches(requests):
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            self.asked += batch.key.tolist()
            yield batch


@pytest.fixture(scope="module")
def tiny():
    return load_model("lad-tiny", batch_size=4, device="cpu")


@pytest.fixture(scope="module")
def task():
    return load_task(TASK)


@pytest.fixture(scope="module")
def requests(task):
    asked = plan(task, limit=SAMPLES)
    by_key = {request.key: request for request in asked.requests}
    return [by_key[key] for key in asked.evaluated]


def method(model, task, name, store):
    return CalibratedMethod(model, task, name, store, show_progress=False)


@pytest.mark.slow
def test_every_method_answers_as_a_run_does(tiny, task, requests, tmp_path):
    settings = Settings(
        "lad-tiny", (TASK,), METHODS, limit=SAMPLES, batch_size=4, device="cpu", out=tmp_path / "runs", quiet=True
    )
    run_tasks(settings)
    (file,) = (tmp_path / "runs").rglob("predictions.parquet")
    told = pd.read_parquet(file)
    for name in METHODS:
        rows = told[told["method"] == name].set_index("key")["position"]
        answers = method(tiny, task, name, tmp_path / "harness").answer(requests)
        assert answers == [rows[request.key] for request in requests], name


def test_no_more_orders_are_asked_than_the_method_reads(tiny, tmp_path):
    task = load_task("scenes_random_n4")
    asked = plan(task, limit=1, orders=("random",))
    request = next(request for request in asked.requests if request.key == asked.evaluated[1])
    for name, count in (("average-random(k=3)", 3), ("permutation-average", 4), ("majority", 4), ("vanilla", 1)):
        model = Counted(tiny)
        [position] = method(model, task, name, tmp_path / name).answer([request])
        assert len(model.asked) == count
        assert 0 <= position < 4


def test_one_by_one_is_as_all_at_once(tiny, task, requests, tmp_path):
    barrier = method(tiny, task, "lad", tmp_path).answer(requests)
    alone = method(tiny, task, "lad", tmp_path / "other")
    assert [alone.answer([request])[0] for request in requests] == barrier
    assert alone.answer([]) == []


def test_nothing_is_asked_twice_by_methods_calls_or_processes(tiny, task, requests, tmp_path):
    model = Counted(tiny)
    first = method(model, task, "lad", tmp_path)
    first.answer(requests[:7])
    first.answer(requests + requests)
    method(model, task, "pride", tmp_path).answer(requests)
    calibration = len(plan(task, limit=1, calibration=True).calibration)
    assert len(model.asked) == len({*model.asked}) == len(requests) + calibration

    folder, answers = first.folder, first.answer(requests)
    del first
    again = Counted(tiny)
    later = method(again, task, "lad", tmp_path)
    assert later.folder == folder
    assert later.answer(requests) == answers
    assert again.asked == []


def test_what_was_answered_before_a_kill_counts(tiny, task, requests, tmp_path):
    stopped = Counted(tiny, stop_after=8)
    with pytest.raises(KeyboardInterrupt):
        method(stopped, task, "vanilla", tmp_path).answer(requests)
    again = Counted(tiny)
    method(again, task, "vanilla", tmp_path).answer(requests)
    assert not {*again.asked} & {*stopped.asked}
    assert len(again.asked) + len(stopped.asked) == len(requests)


def test_a_run_goes_on_from_what_a_harness_asked(tiny, task, requests, tmp_path):
    kept = method(tiny, task, "lad", tmp_path)
    kept.answer(requests)
    folder = kept.folder
    assert folder.parent.parts[-2:] == ("lad-tiny", TASK)
    assert (folder / "spec.json").is_file()
    assert (folder / "evidence.jsonl").is_file()


def test_the_learned_state_is_stored_and_used(tiny, task, requests, tmp_path, caplog):
    first = method(tiny, task, "pride", tmp_path)
    answers = first.answer(requests)
    state = first.state_path
    assert state.suffix == ".safetensors"
    assert state.is_file()

    second = method(tiny, task, "pride", tmp_path)
    second.calibrate()
    assert second.answer(requests) == answers

    state.write_bytes(b"junk")
    with caplog.at_level(logging.WARNING, logger="lad_eval"):
        assert method(tiny, task, "pride", tmp_path).answer(requests) == answers
    assert "not the saved state of a method, or is damaged; save one with Method.save. It is learned again." in caplog.text
    assert state.read_bytes() != b"junk"


def test_a_trend_is_learned_once_and_by_one_process(tiny, task, requests, tmp_path, monkeypatch, caplog):
    name = "fastv(keep=0.25, trend=exp)+vanilla"
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"trend=exp\) must be calibrated, which several processes would each do separately"):
        method(tiny, task, name, tmp_path).answer(requests[:1])
    monkeypatch.delenv("WORLD_SIZE")
    first = method(tiny, task, name, tmp_path)
    answers = first.answer(requests[:4])
    assert "late tokens are preferred" in caplog.text
    (file,) = first.folder.glob("learned.fastv.safetensors")
    assert file.parent.parent.name == "conditions"
    state = LearnedState.load(file, "fastv")
    assert state.passes == 2 * len(state.sample_ids) == 100
    written = file.stat().st_mtime_ns
    del first
    assert method(tiny, task, name, tmp_path).answer(requests[:4]) == answers
    assert file.stat().st_mtime_ns == written


def test_settings_have_states_of_their_own(tiny, task, tmp_path):
    from lad_eval.methods import make_method

    plain = method(tiny, task, "lad", tmp_path).state_path
    changed = method(tiny, task, make_method("lad", top_k=1), tmp_path).state_path
    assert plain.parent == changed.parent
    assert plain != changed


def test_calibration_samples_are_not_answered(tiny, task, tmp_path):
    asked = plan(task, limit=1, calibration=True)
    learned_from = [request for request in asked.requests if request.split == "calibration"]
    with pytest.raises(EvidenceError, match="evaluated samples were also calibrated on"):
        method(tiny, task, "lad", tmp_path).answer(learned_from)


def test_faults_are_told_before_anything_is_asked(tiny, task, tmp_path):
    with pytest.raises(UnknownNameError, match=r"Unknown method 'ladd'\. Did you mean 'lad'"):
        CalibratedMethod(tiny, task, "ladd", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match="Cannot write to the results folder"):
        CalibratedMethod(tiny, task, "lad", Path(tmp_path / "file"))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("generate", "generate reads the model's replies rather than evidence; use `lad-eval run`"),
        ("instruction+sofa+lad", r"instruction\+sofa changes the prompt or the model, which the harness controls"),
        ("instruction+lad", "instruction changes the prompt or the model, which the harness controls; use `lad-eval run`"),
    ],
)
def test_what_needs_another_question_or_replies_is_refused(tiny, task, tmp_path, name, fault):
    with pytest.raises(UserError, match=fault):
        method(tiny, task, name, tmp_path)


def test_a_method_that_is_calibrated_elsewhere_is_refused(tiny, task, tmp_path):
    first = method(tiny, task, "pride", tmp_path)
    first.calibrate()
    with pytest.raises(ValueError, match="pride is calibrated already, perhaps on another task"):
        CalibratedMethod(tiny, task, first.method, tmp_path)
