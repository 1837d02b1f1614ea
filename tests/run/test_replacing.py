"""`--overwrite always`: a run that is started over is lost only when the new one is there."""

import pytest

from lad_eval.errors import Interrupted, UserError
from lad_eval.files.documents import write_json
from lad_eval.run.execute import run_tasks
from lad_eval.run.folder.replacing import replacing, set_aside, settle
from tests.run.conftest import only_run, settings

pytestmark = pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.fixture
def finished(counted, tmp_path):
    model = counted()
    run_tasks(settings(tmp_path, methods=("vanilla", "lad", "sofa", "generate"), limit=2))
    return model, only_run(tmp_path)


@pytest.mark.parametrize(
    ("methods", "says"),
    [
        (("vanilla", "lad(layers=90-99)"), "layers 90-99 reach past the last layer"),
        (("vanilla", "fastv(layer=90)"), "90"),
        (("fastv(layer=90)",), "90"),
    ],
)
def test_a_request_that_is_refused_leaves_the_run_as_it_was(finished, tmp_path, methods, says):
    _, folder = finished
    before = contents(folder)
    with pytest.raises(UserError, match=says) as caught:
        run_tasks(settings(tmp_path, methods=methods, limit=2, overwrite="always"))
    assert "\n" not in str(caught.value)
    assert contents(folder) == before


def test_so_does_a_model_that_cannot_be_changed_or_calibrated(finished, tmp_path, monkeypatch):
    model, folder = finished
    before = contents(folder)
    monkeypatch.delattr(model, "under")
    with pytest.raises(UserError, match="its attention cannot be recorded"):
        run_tasks(settings(tmp_path, methods=("vanilla", "sofa"), limit=2, overwrite="always"))
    assert contents(folder) == before


def test_interrupted_before_an_answer_the_old_run_stays_and_after_one_the_new(finished, counted, tmp_path):
    def stop():
        raise KeyboardInterrupt

    _, folder = finished
    before = contents(folder)
    model = counted()
    model.inner = type("Stops", (), {"evidence_batches": lambda *_: stop(), "fingerprint": model.inner.fingerprint})()
    with pytest.raises(Interrupted):
        run_tasks(settings(tmp_path, methods=("vanilla",), limit=2, overwrite="always"))
    assert contents(folder) == before
    counted(stop_after=1, how=stop)
    with pytest.raises(Interrupted):
        run_tasks(settings(tmp_path, methods=("vanilla", "lad"), limit=2, overwrite="always"))
    assert "metrics.json" not in contents(folder)
    assert not list(folder.rglob("*.replaced"))
    rest = counted()
    run_tasks(settings(tmp_path, methods=("vanilla", "lad"), limit=2))
    assert rest.asked, "the new run goes on"


def test_where_there_was_no_run_what_was_answered_before_the_refusal_stays(counted, tmp_path):
    model = counted()
    with pytest.raises(UserError, match="reach past the last layer"):
        run_tasks(settings(tmp_path, methods=("lad(layers=90-99)",), limit=2, overwrite="always"))
    asked = len(model.asked)
    assert asked > 0
    run_tasks(settings(tmp_path, methods=("lad",), limit=2))
    assert len(model.asked) == asked


def test_what_others_put_there_stays(tmp_path):
    write_json(tmp_path / "spec.json", {})
    write_json(tmp_path / "metrics.json", {})
    (tmp_path / "notes.txt").write_text("")
    set_aside(tmp_path)
    with replacing(tmp_path):
        write_json(tmp_path / "spec.json", {"new": 1})
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["notes.txt", "spec.json"]


@pytest.mark.parametrize("answered", [False, True])
def test_after_a_killed_process_the_run_with_answers_stays(tmp_path, answered):
    (tmp_path / "conditions" / "sofa").mkdir(parents=True)
    for name in ("spec.json", "metrics.json", "evidence.jsonl", "conditions/sofa/plan.json"):
        (tmp_path / name).write_text("old")
    old = contents(tmp_path)
    set_aside(tmp_path)
    assert not {"spec.json", "metrics.json", "evidence.jsonl", "conditions"} & {path.name for path in tmp_path.iterdir()}
    (tmp_path / "spec.json").write_text("new")
    if answered:
        (tmp_path / "conditions" / "sofa").mkdir(parents=True)
        (tmp_path / "conditions" / "sofa" / "replies.greedy-16.jsonl").write_text("new")
    settle(tmp_path)
    now = contents(tmp_path)
    assert now == ({"spec.json": b"new", "conditions/sofa/replies.greedy-16.jsonl": b"new"} if answered else old)


def test_killed_while_it_was_set_aside_it_is_put_back(tmp_path):
    for name in ("spec.json", "metrics.json", "evidence.jsonl"):
        (tmp_path / name).write_text("old")
    old = contents(tmp_path)
    for name in ("spec.json", "metrics.json"):  # the first that are renamed
        (tmp_path / name).rename(tmp_path / f"{name}.replaced")
    settle(tmp_path)
    assert contents(tmp_path) == old
