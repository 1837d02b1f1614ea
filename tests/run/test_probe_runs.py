"""Probes in a run: asked once for each distinct content, kept, reused, and joined to their questions by position."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lad_eval.errors import UserError
from lad_eval.evidence.store import read_evidence
from lad_eval.methods import make_method
from lad_eval.models.huggingface import HuggingFaceVLM
from lad_eval.run.collect import collect
from lad_eval.run.execute import Interrupted, run_tasks
from lad_eval.run.folder.files import read_run_json
from lad_eval.run.results import rescore
from lad_eval.tasks.plan import plan
from lad_eval.tasks.probes import BlankImage, Probe
from lad_eval.tasks.registry import load_task
from tests.run.conftest import only_run, settings

pytestmark = pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")

TASK = "scenes_random_n4"
ABOUT = pytest.approx(1.2)
METHODS = ("vanilla", "cc", "capcal", "icr", "sofa+capcal", "cc(probe=words)")
# 2 samples x 5 orders; 5 calibration samples x 4 shifts; their words; 3 for all; one a sample; one a row; and under SoFA.
ASKED = 10 + 20 + 20 + 3 + 2 + 10 + 10 + 2


def stop():
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    """The folder of a run, and what the model was asked."""
    from lad_eval.run import execute
    from tests.run.conftest import Counted

    out, asked = tmp_path_factory.mktemp("probes"), Counted(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "load_model", lambda name, **options: asked)
        rows = run_tasks(settings(out, tasks=(TASK,), methods=METHODS, limit=2))
    return only_run(out), asked, rows


def test_a_probe_is_asked_once_for_each_distinct_content(finished):
    folder, asked, rows = finished
    assert len(asked.asked) == len(set(asked.asked)) + 10 + 2 == ASKED  # under SoFA the same requests are asked again
    assert {row.method: row.forward_passes for row in rows} == {
        "vanilla": 1, "cc": 1, "capcal": ABOUT, "icr": 2, "sofa+capcal": ABOUT, "cc(probe=words)": 1,
    }  # fmt: skip
    methods = read_run_json(folder / "metrics.json")["methods"]
    assert {name: figures["calibration_passes"] for name, figures in methods.items()} == {
        "vanilla": 0, "cc": 3, "capcal": 0, "icr": 0, "sofa+capcal": 0, "cc(probe=words)": 40,
    }  # fmt: skip
    assert methods["cc"]["condition"] is None
    grey = read_evidence(folder / "conditions" / "probe-images-grey")
    assert len(grey) == 2
    assert grey.fingerprint["probe"] == {"images": "grey", "caption": "own"}
    assert "intervention" in read_evidence(folder / "conditions" / "sofa-probe-images-grey").fingerprint


def test_probes_are_joined_by_position_in_every_order(finished, model):
    """The key of a blank probe is one for all orders of a sample, so nothing of its order may be taken from it."""
    folder, _, _ = finished
    task = load_task(TASK)
    requests = plan(task, limit=2).requests
    own = model.evidence(requests)
    names = ("capcal", "icr")
    expected = {}
    for name in names:
        method = make_method(name)
        [probe] = method.probes
        blank = [BlankImage(None, r.permutation.inverse.apply(r.images)[0]) for r in requests]
        pictures = [r.images if probe.images == "own" else (image,) * 4 for r, image in zip(requests, blank, strict=True)]
        captions = ["N/A" if probe.caption == "na" else r.caption for r in requests]
        asked = [
            type(r)(r.sample_id, r.permutation, p, r.question.replace(r.caption, c), r.identifiers, 0, "test", c)
            for r, p, c in zip(requests, pictures, captions, strict=True)
        ]
        expected[name] = method.predict_log_proba(own.with_probes({probe.label: model.evidence(asked)}))
    table = pd.read_parquet(folder / "predictions.parquet")
    for name in names:
        stored = np.stack(table[table.method == name].log_proba.to_list())
        np.testing.assert_allclose(stored, expected[name], atol=2e-4)


def test_nothing_is_asked_again_and_score_decides_the_same(finished, counted, tmp_path):
    folder, _, rows = finished
    out = folder.parents[2]
    again = counted()
    assert run_tasks(settings(out, tasks=(TASK,), methods=METHODS, limit=2)) == rows
    run_tasks(settings(out, tasks=(TASK,), methods=("vanilla",), limit=2))  # the others are decided from their files
    assert not again.asked
    metrics = read_run_json(folder / "metrics.json")
    assert set(metrics["methods"]) == set(METHODS)
    assert rescore(folder)["methods"] == metrics["methods"]
    assert rescore(folder, ["cc(alpha=0.5)"])["methods"]["cc(alpha=0.5)"]["calibration_passes"] == 3
    with pytest.raises(UserError, match=r"has no answers under probe\(images=noise\); run again with such a method"):
        rescore(folder, ["capcal(images=noise)"])


def test_probabilities_of_scores_of_attention_are_no_bias_of_the_model(finished):
    figures = read_run_json(finished[0] / "metrics.json")["methods"]
    assert figures["icr"]["bias_score"] is None
    assert figures["vanilla"]["bias_score"] > 0


@pytest.mark.parametrize(
    ("place", "other", "method", "message"),
    [
        ("probe-images-grey", "sofa-probe-images-grey", "capcal", "holds answers under an intervention, and belongs to the unch"),
        ("probe-images-grey", "probe-caption-na", "capcal", "holds answers to other probes: {'caption': 'na', 'images': 'own'}"),
        ("sofa-probe-images-grey", "probe-images-grey", "sofa+capcal", "holds answers under another sofa"),
    ],
)
def test_answers_of_another_condition_are_refused(finished, tmp_path, place, other, method, message):
    folder = Path(shutil.copytree(finished[0], tmp_path / "run"))
    for path in (folder / "conditions" / other).glob("evidence*"):
        shutil.copy(path, folder / "conditions" / place / path.name)
    with pytest.raises(UserError, match=re.escape(message)):
        rescore(folder, [method])


def test_a_shorter_run_of_the_model_takes_the_probes_of_a_longer_one(finished, counted):
    out, again = finished[0].parents[2], counted()
    rows = run_tasks(settings(out, tasks=(TASK,), methods=METHODS, limit=1))
    assert not again.asked
    assert {row.method for row in rows} == set(METHODS)


@pytest.mark.parametrize("after", [36, 60])
def test_an_interrupted_run_repeats_no_probe(finished, counted, tmp_path, after):
    stopped = counted(stop_after=after, how=stop)
    with pytest.raises(Interrupted, match="all stored; the same command resumes"):
        run_tasks(settings(tmp_path, tasks=(TASK,), methods=METHODS, limit=2))
    rest = counted()
    rows = run_tasks(settings(tmp_path, tasks=(TASK,), methods=METHODS, limit=2))
    assert len(stopped.asked) + len(rest.asked) == ASKED
    assert rows == finished[2]


def test_collect_joins_the_probes(finished, model, tmp_path):
    task = load_task(TASK)
    for store in (None, tmp_path, tmp_path):
        rows = collect(model, task, methods=["capcal"], limit=2, store=store, show_progress=False)
        assert rows.probes.keys() == {"probe(images=grey)"}
        assert len(set(rows.probes["probe(images=grey)"].key.tolist())) == 2
        assert len(make_method("capcal").predict(rows)) == 10


@pytest.mark.parametrize("before", [(), ("vanilla",)])
def test_probes_with_the_own_images_are_run_with_their_questions_where_both_are_missing(finished, tmp_path, monkeypatch, before):
    read = []
    plain = HuggingFaceVLM.probed_batches

    def noted(self, groups):
        read.extend(groups)
        return plain(self, groups)

    monkeypatch.setattr(HuggingFaceVLM, "probed_batches", noted)
    if before:
        run_tasks(settings(tmp_path, tasks=(TASK,), methods=before, limit=2))
    rows = run_tasks(settings(tmp_path, tasks=(TASK,), methods=METHODS, limit=2))
    # Calibration requests have probes with words, evaluated ones with N/A.
    assert [len(group) for group in read] == [2] * (20 if before else 30)
    metrics = [read_run_json(folder / "metrics.json") for folder in (only_run(tmp_path), finished[0])]
    assert metrics[0]["session"]["answered"] == ASKED - (10 if before else 0)
    figures = [{row.method: (row.accuracy, row.flip, row.forward_passes) for row in each} for each in (rows, finished[2])]
    assert figures[0] == figures[1]
    assert metrics[0]["counts"] == metrics[1]["counts"]
    assert not run_again(tmp_path, read)


def run_again(out, read):
    """The groups that a second call of the same run reads."""
    done = len(read)
    run_tasks(settings(out, tasks=(TASK,), methods=METHODS, limit=2))
    return read[done:]


def test_a_question_of_the_samples_own_has_no_caption_to_replace():
    task = load_task(TASK)
    verbatim = type(task)(task.spec.model_copy(update={"prompt": "verbatim"}), task.source)
    with pytest.raises(UserError, match=r"asks its samples' own questions.*in which no caption can be replaced"):
        Probe(caption="na").plan(verbatim, plan(verbatim, limit=1))
    assert Probe("grey").plan(verbatim, plan(verbatim, limit=1)).requests


def test_blank_pictures_have_the_size_of_what_they_replace():
    first = next(load_task(TASK).samples("test")).images[0]
    grey, noise = BlankImage(None, first).load(), BlankImage(3, first).load()
    assert grey.size == noise.size == first.load().size
    assert grey.getextrema() == ((128, 128),) * 3
    assert np.asarray(noise).std() > 60
    assert (np.asarray(noise) == np.asarray(BlankImage(3, first).load())).all()
    assert BlankImage(1).load().size == (336, 336)
    assert len({BlankImage(seed, like).digest for seed in (None, 0, 1) for like in (None, first)}) == 6


def test_probes_of_noise_differ_by_position_and_those_with_words_by_calibration_request():
    task = load_task(TASK)
    its_plan = plan(task, limit=2, calibration=True)
    noise = Probe("noise").plan(task, its_plan)
    assert len({image.digest for image in noise.requests[-1].images}) == 4
    assert len(set(noise.evaluated)) == 2
    assert noise.permutation_index == its_plan.permutation_index
    words = Probe(caption="words").plan(task, its_plan)
    asked = {r.key: r for r in words.requests}
    texts = [asked[key].caption for key in words.calibration]
    assert len(set(texts)) == 20
    known = {word for r in its_plan.calibration_requests() for word in r.caption.lower().split()}
    assert {word for text in texts for word in text.split()} <= {*known, "."}
    assert Probe(caption="words").plan(task, its_plan).calibration == words.calibration
