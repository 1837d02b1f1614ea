"""Runs of tasks whose options are texts, or some of the images only."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lad_eval.errors import UserError
from lad_eval.methods import DEFAULT_METHODS, make_method
from lad_eval.models.base import by_identifiers
from lad_eval.report.trials import read_trials, trial_figures, trial_lines
from lad_eval.run.collect import check_options, collect
from lad_eval.run.execute import run_tasks
from lad_eval.run.folder.stored import load_run
from lad_eval.tasks.facet_probe import facet_probe_orders
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.request import Permutation, Request

from .conftest import only_run, settings

TASK = "scenes_count_n4"


def read_written(lines, path):
    path.write_text("\n".join(lines))
    return read_trials(path)


def with_spec(**keys):
    task = load_task(TASK)
    return replace(task, spec=task.spec.model_copy(update=keys))


def test_a_run_on_texts_has_figures_predictions_and_the_image_orders(counted, tmp_path):
    counted()
    run_tasks(settings(tmp_path, tasks=(TASK,), methods=("vanilla", "pride", "generate"), limit=3))
    folder = only_run(tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["methods"]) == {"vanilla", "pride", "generate"}
    assert metrics["candidates"] == 4
    assert metrics["counts"]["samples"] == 3
    table = pd.read_parquet(folder / "predictions.parquet")
    plan = json.loads((folder / "plan.json").read_text())
    one = table[table.method == "vanilla"]
    assert one.image_order.tolist() == [" ".join(map(str, order)) for order in plan["image_orders"]]
    assert one.image_order.nunique() > 1
    assert one.order.nunique() > 1
    lines = trial_lines(load_run(folder), ["vanilla"])
    (figures,) = trial_figures(read_written(lines, tmp_path / "trials.jsonl"))
    assert 100 * figures.flip == 100 - metrics["methods"]["vanilla"]["consistency"]["value"]
    assert 100 * figures.accuracy == pytest.approx(metrics["methods"]["vanilla"]["accuracy"]["value"])
    assert json.loads(lines[1])["adapter_metadata"]["image_order"] == plan["image_orders"][1]
    # The answer that counts is the option, whichever letter it has.
    by_sample = one.groupby("sample_id")
    same = by_sample["image"].nunique() == 1
    assert metrics["methods"]["vanilla"]["consistency"]["value"] == pytest.approx(100 * same.mean())
    assert (by_sample["gold_image"].nunique() == 1).all()


def test_orders_of_images_alone_give_no_figures_by_position(model, tmp_path, monkeypatch):
    from lad_eval.run import execute

    path = tmp_path / "images.yaml"
    path.write_text(
        "source: scenes\nsetting: count\ncandidates: 4\nsamples: 3\nidentifiers: A..\nprompt: choices\nvary: images\n"
        "calibration: {samples: 1}\npermutations: {count: 3, scheme: facet-probe}\nrepeats: 2\n"
    )
    monkeypatch.setattr(execute, "load_model", lambda name, **options: model)
    methods = ("vanilla", "pride", "permutation-average")
    run_tasks(settings(tmp_path / "runs", tasks=(str(path),), methods=methods))
    folder = only_run(tmp_path / "runs")
    figures = load_run(folder).metrics["methods"]
    for name in methods:
        assert figures[name]["rstd"] == {"value": None, "low": None, "high": None}
        assert figures[name]["recall"] == []
        assert figures[name]["position_test"]["p_value"] is None
        assert figures[name]["accuracy"]["std"] is not None
    plan = json.loads((folder / "plan.json").read_text())
    name = json.loads(trial_lines(load_run(folder), ["vanilla"])[0])["item_id"]
    assert plan["image_orders"][:3] == [list(order.order) for order in facet_probe_orders(name, 3, 3)]
    # Each order is run twice, in other batches; a deterministic model answers both alike.
    assert [len(keys) for keys in plan["repeats"]] == [2] * 9
    for name in ("vanilla", "pride"):
        assert figures[name]["same_order"]["d_same"]["value"] == 0
        assert figures[name]["same_order"]["d_cross"]["value"] == figures[name]["same_order"]["delta"]["value"]
    control = figures["permutation-average"]["same_order"]  # repetitions would need every shift again
    assert control["repeats"] == 1
    assert control["d_same"]["value"] is None
    assert control["d_cross"]["value"] is not None


@pytest.mark.parametrize("name", ["lad", "lad-paper", "raw-attention", "purified-attention", "average-cyclic+lad"])
def test_attention_cannot_point_at_a_text(name):
    with pytest.raises(UserError) as caught:
        check_options(load_task(TASK), [make_method(name)])
    assert "has texts to choose from" in str(caught.value)
    assert "(vanilla, pride, cot), or a task whose options are images" in str(caught.value)
    check_options(
        load_task(TASK), [make_method(other) for other in ("vanilla", "pride", "sofa+vanilla", "pride-original", "cot")]
    )
    check_options(load_task("scenes_random_n4"), [make_method(name)])


def test_each_task_takes_the_default_methods_that_can_answer_it_and_refuses_named_ones(counted, tmp_path, caplog):
    counted()
    caplog.set_level("INFO", logger="lad_eval")
    tasks = (TASK, "scenes_random_n4")
    rows = run_tasks(settings(tmp_path, tasks=tasks, methods=None, limit=1))
    assert [row.method for row in rows if row.task == TASK] == ["vanilla", "pride"]
    assert [row.method for row in rows if row.task != TASK] == list(DEFAULT_METHODS)
    (note,) = [message for message in caplog.messages if "default methods" in message]
    assert note.endswith(f"lad, raw-attention, attention-sorting, purified-attention on {TASK}.")
    with pytest.raises(UserError, match="lad reads attention"):
        run_tasks(settings(tmp_path, tasks=tasks, methods=DEFAULT_METHODS, limit=1))


def test_probes_have_all_images_as_options():
    with pytest.raises(UserError, match="has options other than all of its images, and cc reads probes"):
        check_options(load_task(TASK), [make_method("cc")])
    check_options(load_task("scenes_random_n4"), [make_method("cc")])


def test_a_prior_from_other_letters_needs_options_that_move():
    with pytest.raises(UserError, match="use pride"):
        check_options(with_spec(vary="images"), [make_method("pride-original")])


def test_evidence_of_texts_has_no_attention_and_that_of_references_is_of_the_candidates(model):
    task = load_task("scenes_random_n4")
    (sample,) = task.samples("test", 1)
    order = Permutation((2, 0, 1))
    question = "Which?"
    plain = Request.of(sample, Permutation((0, 3, 1, 2)), question, ("A", "B", "C", "D"))
    fixed = Request.of(replace(sample, options=(1, 2, 3), gold=0), order, question, ("A", "B", "C"))
    assert [image.digest for image in plain.images] == [image.digest for image in fixed.images]
    whole, chosen = model.evidence([plain]), model.evidence([fixed])
    np.testing.assert_allclose(chosen.attention, whole.attention[:, :, 1:], atol=1e-6)
    np.testing.assert_allclose(chosen.attention_delimited, whole.attention_delimited[:, :, 1:], atol=1e-6)
    texts = Request.of(replace(sample, options=("x", "y"), gold=0), Permutation((1, 0)), question, ("A", "B"))
    assert model.evidence([texts]).attention is None


def test_requests_with_other_numbers_of_images_and_repetitions_are_run_apart():
    task = with_spec(vary="both", repeats=2)
    evidence_free = [task.request(sample, *a) for sample in task.samples("test", 4) for a in task.arrangements(sample)]
    fewer = replace(evidence_free[0], images=evidence_free[0].images[:2])
    groups = by_identifiers([*evidence_free, fewer, *(replace(r, repeat=1) for r in evidence_free)])
    assert sorted(map(len, groups)) == [1, 10, 10, 20]
    assert all(len({(r.repeat, len(r.images)) for r in group}) == 1 for group in groups)


def test_samples_with_other_numbers_of_images_are_one_run(model):
    task = load_task(TASK)

    class Fewer(type(task.source)):
        def samples(self, split, limit=None):
            for place, sample in enumerate(super().samples(split, limit)):
                yield replace(sample, images=sample.images[: 2 + place % 2])

    source = Fewer(setting="count", candidates=4, samples=3, calibration_samples=1)
    spec = task.spec.model_copy(update={"samples": 3})
    evidence = collect(model, replace(task, source=source, spec=spec), methods=["vanilla"], show_progress=False)
    assert len(evidence) == 15
    assert len(set(evidence.key.tolist())) == 15


def test_collected_evidence_decides_by_option(model):
    evidence = collect(model, load_task(TASK), methods=["vanilla", "pride"], limit=2, show_progress=False)
    assert evidence.n_candidates == 4
    assert evidence.attention is None
    assert len(evidence.test) == 10
    pride = make_method("pride").calibrate(evidence.calibration)
    np.testing.assert_allclose(np.exp(pride.predict_log_proba(evidence.test)).sum(axis=1), 1)
