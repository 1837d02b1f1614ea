"""Calibration on another task, and answers taken from runs that hold them already."""

import pytest

from lad_eval.cli.console import log_to_stderr
from lad_eval.errors import DataError
from lad_eval.evidence.files import EvidenceHeader, read_parquet, write_parquet
from lad_eval.methods import make_method
from lad_eval.models.registry import load_model
from lad_eval.run import execute
from lad_eval.run.collect import collect
from lad_eval.run.execute import run_tasks
from lad_eval.run.folder.files import read_run_json
from lad_eval.run.results import rescore
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.task import Task
from tests.run.conftest import TASK, settings

pytestmark = pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")
OTHER = "scenes_adversarial_n2"


def runs(out):
    return {path.parent.name: read_run_json(path) for path in out.rglob("metrics.json")}


@pytest.mark.slow
def test_random_to_adversarial_and_back_with_lad_tiny(tmp_path, monkeypatch):
    model = load_model("lad-tiny", device="cpu")
    monkeypatch.setattr(execute, "load_model", lambda *_, **__: model)
    how = {"model": "lad-tiny", "methods": ("vanilla", "lad"), "limit": 3}
    pair = ("scenes_random_n4", "scenes_adversarial_n4")
    for tasks, on in (((pair[0],), pair[1]), ((pair[1],), pair[0])):
        rows = run_tasks(settings(tmp_path, tasks=tasks, calibrate_on=on, **how))
        assert [(row.task, row.calibrated_on) for row in rows] == [(tasks[0], on)] * 2
        (metrics,) = (m for m in runs(tmp_path).values() if m["task"] == tasks[0])
        assert metrics["calibration"]["transferred"] is True
        assert metrics["calibration"]["task"] == on
        assert len(metrics["calibration"]["samples"]) == 5
        assert all(on.split("_")[1] in sample for sample in metrics["calibration"]["samples"])
        evidence = collect(model, load_task(tasks[0]), limit=3, calibrate_on=on, show_progress=False)
        right = make_method("lad").calibrate(evidence.calibration).predict(evidence.test) == evidence.test.gold_position
        assert rows[1].accuracy == pytest.approx(100 * right.mean())


def test_a_run_that_calibrates_elsewhere_is_another_run_and_asks_only_what_no_run_has(counted, tmp_path):
    own, other = counted(), None
    run_tasks(settings(tmp_path, methods=("lad",)))
    run_tasks(settings(tmp_path, tasks=(OTHER,), methods=("lad",)))
    other = counted()
    run_tasks(settings(tmp_path, methods=("lad",), calibrate_on=OTHER))
    assert len(own.asked) == 2 * (8 + 10)
    assert not other.asked
    transferred = [m for m in runs(tmp_path).values() if m["calibration"]["transferred"]]
    assert len(runs(tmp_path)) == 3
    assert [m["counts"]["answered"] for m in transferred] == [18]
    folder = next(p.parent for p in tmp_path.rglob("metrics.json") if p.parent.name == transferred[0]["run"])
    assert rescore(folder)["calibration"] == transferred[0]["calibration"]
    assert read_run_json(folder / "spec.json")["digests"]["calibration_task"] == OTHER


def test_why_the_model_is_run_again_is_said_once_for_all_tasks_and_conditions(counted, tmp_path, monkeypatch, capsys):
    asked = {"tasks": (TASK, OTHER), "methods": ("vanilla", "sofa")}
    run_tasks(settings(tmp_path, **asked))
    changed = counted()
    monkeypatch.setattr(type(changed), "fingerprint", property(lambda self: {**self.inner.fingerprint, "machine": "other"}))
    log_to_stderr(quiet=False)
    run_tasks(settings(tmp_path, **asked))
    assert changed.asked
    lines = [line for line in capsys.readouterr().err.splitlines() if "is run again" in line]
    assert len(lines) == 1
    assert "because machine is missing and 'other' (there, and now)" in lines[0]


def test_what_was_taken_from_another_run_gives_the_same_figures(counted, tmp_path):
    counted()
    run_tasks(settings(tmp_path, limit=3))
    rest = counted()
    rows = run_tasks(settings(tmp_path, limit=4))
    assert len(rest.asked) == 2
    assert rows == run_tasks(settings(tmp_path / "whole", limit=4))


def test_a_damaged_neighbour_and_one_of_another_model_are_passed_over(counted, tmp_path, model):
    counted()
    run_tasks(settings(tmp_path, limit=2, methods=("vanilla",)))
    run_tasks(settings(tmp_path, limit=3, methods=("vanilla",)))
    folders = sorted(path.parent for path in tmp_path.rglob("spec.json"))
    (folders[0] / "evidence.parquet").write_bytes(b"nothing")
    evidence = read_parquet(folders[1] / "evidence.parquet")
    other = EvidenceHeader({**model.fingerprint, "dtype": "float16"}, {}, evidence.n_candidates, evidence.n_layers)
    write_parquet(folders[1] / "evidence.parquet", evidence, other)
    rest = counted()
    run_tasks(settings(tmp_path, limit=4, methods=("vanilla",)))
    assert len(rest.asked) == 8


def test_afresh_takes_nothing(counted, tmp_path):
    counted()
    run_tasks(settings(tmp_path, limit=3, methods=("vanilla",)))
    rest = counted()
    run_tasks(settings(tmp_path, limit=4, methods=("vanilla",), overwrite="always"))
    assert len(rest.asked) == 8


def test_its_own_task_is_no_transfer(counted, tmp_path):
    counted()
    run_tasks(settings(tmp_path, methods=("lad",)))
    run_tasks(settings(tmp_path, methods=("lad",), calibrate_on=TASK))
    assert len(runs(tmp_path)) == 1


def test_a_task_of_another_size_is_refused_before_anything_is_asked(counted, tmp_path):
    asked = counted()
    with pytest.raises(DataError, match=rf"^{TASK} cannot be calibrated on scenes_random_n4: it has 2 candidates"):
        run_tasks(settings(tmp_path, calibrate_on="scenes_random_n4"))
    assert not asked.asked


class NotedSource:
    """The scenes, with something to tell."""

    def __init__(self, source):
        self.fingerprint, self.samples = source.fingerprint, source.samples

    def notes(self):
        return ["2 rows left out: no output"]

    def counts(self):
        return {"rows": 12, "left out: no output": 2}


def test_notes_and_counts_of_the_data_are_kept_with_the_figures(counted, tmp_path, monkeypatch):
    task = load_task(TASK)
    monkeypatch.setattr(execute, "load_task", lambda name, **_: Task(task.spec, NotedSource(task.source)))
    counted()
    rows = run_tasks(settings(tmp_path, methods=("vanilla",)))
    (metrics,) = runs(tmp_path).values()
    assert metrics["notes"] == ["2 rows left out: no output"]
    assert metrics["data"] == {"rows": 12, "left out: no output": 2}
    assert rows[0].notes == ("2 rows left out: no output",)
