import json
import logging
import os
import re
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lad_eval.errors import DataError, EvidenceError, UnknownNameError, UserError
from lad_eval.evidence.store import EvidenceStore, read_evidence
from lad_eval.evidence.table import Evidence
from lad_eval.methods import LAD, make_method
from lad_eval.metrics import Predictions, summarise
from lad_eval.run.collect import collect
from lad_eval.run.execute import Interrupted, run_tasks
from lad_eval.run.folder.files import ResultsError, read_run_json
from lad_eval.run.folder.rows import COLUMNS
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import load_task
from tests.run.conftest import METHODS, MODEL, TASK, only_run, settings

pytestmark = pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")

REQUESTS = 4 * 2 + 5 * 2  # N = 2: the two orders are each other's cyclic shifts


def stop():
    raise KeyboardInterrupt


def test_the_example_of_the_readme(model):
    task = load_task(TASK)
    evidence = collect(model, task, limit=4, show_progress=False)
    lad = LAD().calibrate(evidence.calibration)
    accuracy = (lad.predict(evidence.test) == evidence.test.gold_position).mean()
    assert 0 <= accuracy <= 1
    assert (len(evidence.test), len(evidence.calibration)) == (8, 10)
    assert not set(evidence.test.sample_id) & set(evidence.calibration.sample_id)


def test_collect_asks_only_what_the_methods_need(counted, tmp_path):
    task = load_task("scenes_random_n4")
    asked = counted()
    assert len(collect(asked, task, methods=["vanilla"], limit=1, show_progress=False)) == 5
    assert len(asked.asked) == 5
    evidence = collect(asked, task, methods=[make_method("permutation-average")], limit=1, show_progress=False)
    assert (
        len(make_method("permutation-average").predict(evidence)) == len(evidence) == len(plan(task, limit=1, orders=["cyclic"]))
    )


def test_collect_with_a_store_repeats_nothing(counted, tmp_path):
    task = load_task(TASK)
    asked = counted(stop_after=6, how=stop)
    with pytest.raises(KeyboardInterrupt):
        collect(asked, task, limit=4, store=tmp_path, show_progress=False)
    rest = counted()
    evidence = collect(rest, task, limit=4, store=tmp_path, show_progress=False)
    assert sorted(asked.asked + rest.asked) == sorted(evidence.key)
    assert isinstance(evidence, Evidence)
    assert len(evidence) == REQUESTS


def test_one_pass_serves_all_methods_and_the_log_says_what_each_would_have_cost(counted, tmp_path, caplog):
    asked = counted()
    logging.getLogger("lad_eval").propagate = True
    with caplog.at_level(logging.INFO, "lad_eval"):
        rows = run_tasks(settings(tmp_path))
    assert [row.method for row in rows] == list(METHODS)
    assert len(asked.asked) == len(set(asked.asked)) == REQUESTS
    assert re.search(rf"{TASK}: 18 requests run in \d+ s, for 6 methods \(one by one they would need 78\)\.", caplog.text)
    assert [row.forward_passes for row in rows] == [1, 1, 1, 1, 1, 2]


def test_the_files_of_a_run_tell_the_same_story(counted, tmp_path):
    counted()
    rows = run_tasks(settings(tmp_path))
    folder = only_run(tmp_path)
    metrics = read_run_json(folder / "metrics.json")
    assert folder.name == metrics["run"]
    assert folder.parts[-3:-1] == ("random-qwen2.5-vl", TASK)
    assert metrics["counts"]["asked"] == metrics["counts"]["answered"] == REQUESTS
    assert metrics["counts"]["unparsable"] == dict.fromkeys(METHODS, 0)
    assert metrics["forward_passes"] == {"evaluated": 8, "calibration": 10, "all": REQUESTS}
    assert metrics["methods"]["lad"]["calibration_passes"] == 10
    assert metrics["methods"]["vanilla"]["calibration_passes"] == 0
    assert (metrics["dtype"], metrics["device"], metrics["attention_implementation"]) == ("float32", "cpu", "sdpa")
    assert metrics["versions"]["torch"]
    assert set(metrics["lad_eval"]) == {"commit", "dirty"}
    assert {p.name for p in folder.iterdir() if not p.name.startswith(".")} == {
        "spec.json", "task.json", "plan.json", "evidence.parquet", "predictions.parquet", "metrics.json",
    }  # fmt: skip

    table = pd.read_parquet(folder / "predictions.parquet")
    assert len(table) == len(METHODS) * 8
    for row in rows:
        mine = table[table.method == row.method]
        assert row.accuracy == pytest.approx(100 * mine.correct.mean())
        order = np.array([o.split() for o in mine.order], dtype=int)
        again = summarise(Predictions(mine.sample_id.to_numpy(str), mine.permutation, mine.gold_position, mine.position, order))
        assert (row.accuracy_low, row.accuracy_high, row.consistency) == (
            again.accuracy_low,
            again.accuracy_high,
            again.consistency,
        )
        assert tuple(row.as_dict()) == COLUMNS


def test_figures_are_those_of_the_methods_used_by_hand(counted, tmp_path, model):
    counted()
    rows = {row.method: row for row in run_tasks(settings(tmp_path))}
    evidence = collect(model, load_task(TASK), limit=4, show_progress=False)
    for name in METHODS:
        right = make_method(name).calibrate(evidence.calibration).predict(evidence.test) == evidence.test.gold_position
        assert rows[name].accuracy == pytest.approx(100 * right.mean())


def test_methods_that_are_added_later_ask_only_what_is_new_and_leave_the_others(counted, tmp_path):
    asked = counted()
    run_tasks(settings(tmp_path, methods=("vanilla",)))
    assert len(asked.asked) == 8
    rows = run_tasks(settings(tmp_path, methods=("lad",)))
    assert [row.method for row in rows] == ["lad"]
    assert len(asked.asked) == len(set(asked.asked)) == REQUESTS
    assert list(read_run_json(only_run(tmp_path) / "metrics.json")["methods"]) == ["vanilla", "lad"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_a_run_that_is_killed_goes_on_and_repeats_nothing(counted, tmp_path):
    counted(stop_after=8, how=lambda: os.kill(os.getpid(), signal.SIGKILL))
    child = os.fork()
    if not child:
        run_tasks(settings(tmp_path))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    folder = only_run(tmp_path)
    assert not (folder / "metrics.json").exists()
    kept = set(read_evidence(folder).key)
    assert kept
    with (folder / "evidence.jsonl").open("ab") as file:
        file.write(b'{"key": "cut o')

    rest = counted()
    rows = run_tasks(settings(tmp_path))
    assert not kept & set(rest.asked)
    assert len(kept) + len(rest.asked) == REQUESTS
    whole = run_tasks(settings(tmp_path / "whole"))
    assert rows == whole


def test_ctrl_c_says_what_is_kept(counted, tmp_path):
    counted(stop_after=8, how=stop)
    with pytest.raises(Interrupted, match=rf"^Interrupted: {TASK} has 8 of 18 answers, all stored; the same command resumes"):
        run_tasks(settings(tmp_path))
    rest = counted()
    run_tasks(settings(tmp_path))
    assert len(rest.asked) == REQUESTS - 8


def test_a_finished_run_asks_nothing_again(counted, tmp_path):
    counted()
    first = run_tasks(settings(tmp_path))
    again = counted()
    assert run_tasks(settings(tmp_path)) == first
    assert not again.asked


def test_overwrite_always_starts_afresh(counted, tmp_path):
    counted()
    run_tasks(settings(tmp_path))
    again = counted()
    run_tasks(settings(tmp_path, methods=("vanilla",), overwrite="always"))
    assert len(again.asked) == 8
    assert list(read_run_json(only_run(tmp_path) / "metrics.json")["methods"]) == ["vanilla"]


def test_overwrite_never_shows_what_is_finished_and_refuses_the_rest(counted, tmp_path):
    asked = counted(stop_after=8, how=stop)
    with pytest.raises(Interrupted):
        run_tasks(settings(tmp_path, overwrite="never"))
    asked = counted()
    with pytest.raises(ResultsError, match=r"is not finished; --overwrite missing resumes it\."):
        run_tasks(settings(tmp_path, overwrite="never"))
    first = run_tasks(settings(tmp_path, methods=("vanilla", "pride")))
    folder = only_run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    asked = counted()
    assert run_tasks(settings(tmp_path, methods=("vanilla", "pride"), overwrite="never", seed=7)) == first
    with pytest.raises(ResultsError, match=r"holds no figures of lad; --overwrite missing adds them"):
        run_tasks(settings(tmp_path, methods=("lad",), overwrite="never"))
    assert not asked.asked
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_two_runs_at_once_are_refused_in_one_line(counted, tmp_path, model):
    counted()
    run_tasks(settings(tmp_path))
    folder = only_run(tmp_path)
    with (
        EvidenceStore(folder, model.fingerprint, task=load_task(TASK).fingerprint),
        pytest.raises(EvidenceError, match=r"Another run is writing to .*; wait until it has ended"),
    ):
        run_tasks(settings(tmp_path))


def test_a_results_folder_of_another_spec_is_refused_and_not_touched(counted, tmp_path):
    asked = counted()
    run_tasks(settings(tmp_path))
    folder = only_run(tmp_path)
    document = read_run_json(folder / "spec.json")
    (folder / "spec.json").write_text(json.dumps({**document, "limit": 99}))
    before = (folder / "metrics.json").read_bytes()
    with pytest.raises(ResultsError, match=r"holds the results of another spec \(differs in limit\)"):
        run_tasks(settings(tmp_path))
    assert (folder / "metrics.json").read_bytes() == before
    run_tasks(settings(tmp_path, overwrite="always"))
    assert read_run_json(folder / "spec.json") == document
    assert len(asked.asked) == 2 * REQUESTS


def test_limit_and_seed_of_the_bootstrap(counted, tmp_path):
    counted()
    run_tasks(settings(tmp_path, limit=3))
    run_tasks(settings(tmp_path, limit=4))
    assert len(list(tmp_path.rglob("spec.json"))) == 2
    one = run_tasks(settings(tmp_path, seed=1))
    other = run_tasks(settings(tmp_path, seed=2))
    assert [row.accuracy for row in one] == [row.accuracy for row in other]
    assert len(list(tmp_path.rglob("spec.json"))) == 2


def test_the_model_is_loaded_once_for_several_tasks(model, monkeypatch, tmp_path):
    loads = []
    monkeypatch.setattr("lad_eval.run.execute.load_model", lambda name, **options: loads.append(name) or model)
    rows = run_tasks(settings(tmp_path, tasks=(TASK, "scenes_adversarial_n2"), methods=("vanilla",), limit=1))
    assert loads == [MODEL]
    assert [row.task for row in rows] == [TASK, "scenes_adversarial_n2"]


def test_a_corrupt_picture_is_one_line_and_the_answers_before_it_are_kept(counted, tmp_path):
    (tmp_path / "photos").mkdir()
    captions = {}
    for i in range(12):
        Image.new("RGB", (40, 40), (20 * i, 255 - 20 * i, 90)).save(tmp_path / "photos" / f"{i:02}.png")
        captions[f"{i:02}.png"] = f"a square of colour {i:02}"
    (tmp_path / "photos" / "captions.json").write_text(json.dumps(captions))
    task = tmp_path / "photos.yaml"
    task.write_text(
        "source: folder\ncandidates: 2\nsamples: 6\ncalibration: {samples: 2}\n"
        "data: {images: photos, captions: photos/captions.json}\n"
    )
    last = list(load_task(task).samples("test"))[-1].images[1]
    whole = last.path.read_bytes()
    last.path.write_bytes(whole[:-40])
    counted()
    for _ in range(2):
        with pytest.raises(DataError, match=rf"{last.path.name}.*cannot be read: it is damaged"):
            run_tasks(settings(tmp_path / "out", tasks=(str(task),), limit=None))
    assert len(read_evidence(only_run(tmp_path / "out")))


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"methods": ("ladd",)}, UnknownNameError, r"Unknown method 'ladd'. Did you mean 'lad'"),
        ({"tasks": ("scenes_random_n3",)}, UnknownNameError, r"Unknown task 'scenes_random_n3'. Did you mean 'scenes_random_n"),
        ({"model": "lad-tini"}, UnknownNameError, r"Unknown model 'lad-tini'. Did you mean 'lad-tiny'"),
        ({"model": "/no/such/model"}, UserError, r"There is no model folder /no/such/model\."),
    ],
)
def test_names_are_checked_before_a_model_is_loaded_or_data_read(monkeypatch, tmp_path, changes, error, text):
    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr("lad_eval.run.execute.load_model", never)
    monkeypatch.setattr("lad_eval.run.execute.load_task", never)
    with pytest.raises(error, match=text):
        run_tasks(settings(tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_missing_data_is_found_before_the_model_is_loaded(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise UserError("not prepared")

    monkeypatch.setattr("lad_eval.run.execute.load_task", fail)
    monkeypatch.setattr("lad_eval.run.execute.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(UserError, match="not prepared"):
        run_tasks(settings(tmp_path))


def test_an_unwritable_results_folder_is_found_before_the_model_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr("lad_eval.run.execute.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="Cannot write to the results folder"):
        run_tasks(settings(tmp_path / "file" / "runs"))


def test_a_run_is_a_studys_until_a_user_asks_for_it(counted, tmp_path):
    counted()
    of = lambda: read_run_json(only_run(tmp_path) / "metrics.json")["study"]  # noqa: E731
    run_tasks(replace(settings(tmp_path), study="lad"))
    assert of() == "lad"
    run_tasks(replace(settings(tmp_path), study="lad"))
    assert of() == "lad"
    run_tasks(settings(tmp_path))
    assert of() is None
    run_tasks(replace(settings(tmp_path), study="lad"))
    assert of() is None


def test_a_share_of_the_samples_is_rounded_up(counted, tmp_path):
    counted()
    rows = run_tasks(replace(settings(tmp_path), limit=0.003))
    assert {(row.samples, row.limit) for row in rows} == {(2, 2)}


def test_the_log_counts_what_is_run_now_apart_from_what_is_stored(counted, tmp_path, caplog):
    counted()
    logging.getLogger("lad_eval").propagate = True

    def says(**changes):
        caplog.clear()
        with caplog.at_level(logging.INFO, "lad_eval"):
            run_tasks(settings(tmp_path, **changes))
        (line,) = [line for line in caplog.messages if line.startswith(f"{TASK}: ")]
        return re.sub(r"in \d+ s", "in 1 s", line)

    assert says(methods=("vanilla",), limit=1) == f"{TASK}: 2 requests run in 1 s, for 1 method."
    # The sample that the shorter run evaluated is taken from there.
    assert says(methods=("vanilla",)) == f"{TASK}: 6 requests run in 1 s, 2 stored before, for 1 method."
    more = f"{TASK}: 10 requests run in 1 s, 8 stored before, for 3 methods (one by one they would need 44)."
    assert says(methods=("lad", "pride")) == more
    nothing = f"{TASK}: no request run, 18 stored before, for 3 methods (one by one they would need 44)."
    assert says(methods=("lad", "pride")) == nothing


def test_a_method_that_decides_all_questions_together_is_marked_below_the_table(tmp_path):
    limited = run_tasks(settings(tmp_path, tasks=(TASK,), methods=("batch-calibration", "vanilla"), limit=2))
    [note] = limited[0].notes
    assert note.startswith("batch-calibration decides all questions of a run together")
    assert note.endswith("and on the whole task they may differ.")
    assert limited[1].notes == ()
