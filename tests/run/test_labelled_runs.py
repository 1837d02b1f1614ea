"""Labelled images in a run: one condition for each view, kept apart, joined with plain answers, and scored again."""

import numpy as np
import pytest

from lad_eval.errors import UserError
from lad_eval.evidence.store import read_evidence
from lad_eval.run.collect import collect
from lad_eval.run.execute import run_tasks
from lad_eval.run.folder.files import read_run_json
from lad_eval.run.results import rescore
from tests.run.conftest import only_run, settings

pytestmark = pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")

TASK = "scenes_random_n4"
METHODS = (
    "vanilla",
    "labelled+pride",
    "labelled-places+lad",
    "labelled-places+icr",
    "labelled-names+icr",
    "labelled-names+majority",
    "labelled-places+generate",
    "labelled-places+tied",
    "labelled-places+tied+attention-sorting",
)
FOLDERS = {
    "labelled",
    "labelled-places",
    "labelled-places-probe-caption-na",
    "labelled-names",
    "labelled-names-probe-caption-na",
    "labelled-places-tied",
}


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    from lad_eval.run import execute

    out = tmp_path_factory.mktemp("labelled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "load_model", lambda name, **options: model)
        rows = run_tasks(settings(out, tasks=(TASK,), methods=METHODS, limit=3))
    return only_run(out), {row.method: row for row in rows}


def test_each_view_is_a_condition_of_its_own(finished):
    folder, rows = finished
    assert set(rows) == set(METHODS)
    assert {path.name for path in (folder / "conditions").iterdir()} == FOLDERS
    kept = {name: read_evidence(folder / "conditions" / name) for name in FOLDERS}
    keys = [set(kept[name].key) for name in ("labelled", "labelled-places", "labelled-names")]
    assert not set(read_evidence(folder).key) & set.union(*keys)
    metrics = read_run_json(folder / "metrics.json")["methods"]
    assert metrics["labelled-names+icr"]["condition"]["wordings"] == ["labelled-names"]


def test_positions_are_those_of_the_plain_answers_whatever_moves(finished):
    """So that figures of one table are of the same orders, and can be compared in pairs."""
    folder, _ = finished
    plain = read_evidence(folder)
    every = [(s, *order) for s, order in zip(plain.sample_id.tolist(), plain.perm.tolist(), strict=True)]
    for name in ("labelled", "labelled-places", "labelled-names"):
        rows = read_evidence(folder / "conditions" / name)
        gold = {
            (s, *p): g for s, p, g in zip(rows.sample_id.tolist(), rows.perm.tolist(), rows.gold_position.tolist(), strict=True)
        }
        assert [gold[key] for key in every] == plain.gold_position.tolist()


def test_images_that_keep_their_labels_have_one_answer_under_tied_positions(finished):
    _, rows = finished
    for name in ("labelled-places+tied", "labelled-places+tied+attention-sorting"):
        assert rows[name].consistency == 100


def test_scored_again_the_answers_are_the_same(finished):
    folder, _ = finished
    metrics = read_run_json(folder / "metrics.json")["methods"]
    assert rescore(folder)["methods"] == metrics


def test_collect_gives_the_evidence_of_a_view(model, finished):
    folder, _ = finished
    from lad_eval.tasks.registry import load_task

    evidence = collect(model, load_task(TASK), methods=["labelled-names+lad"], limit=2, show_progress=False)
    kept = read_evidence(folder / "conditions" / "labelled-names").select_keys(evidence.test.key.tolist())
    np.testing.assert_allclose(evidence.test.log_probs, kept.log_probs, atol=1e-5)
    np.testing.assert_allclose(evidence.test.attention, kept.attention, atol=1e-5)


def test_a_model_that_cannot_show_labels_is_refused_before_it_runs(tmp_path):
    with pytest.raises(UserError, match=r"puts all images before the text, so that none can have a label"):
        run_tasks(settings(tmp_path, model="random:llava-1.5", tasks=(TASK,), methods=("vanilla", "labelled+lad"), limit=2))
    assert not list(tmp_path.rglob("*.parquet"))
