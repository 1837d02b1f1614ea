"""Interventions that learn: calibrated once, stored beside the answers under them, never mixed with others."""

import shutil
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from examples.lad_eval_example.lad_eval_example.evened import Evened
from lad_eval.attention.interventions import INTERVENTIONS, LearnedState, Sofa, parse_intervention
from lad_eval.errors import EvidenceError, UserError
from lad_eval.evidence.store import read_evidence
from lad_eval.methods import make_method
from lad_eval.run.collect import calibrate_intervention, collect
from lad_eval.run.execute import Interrupted, run_tasks
from lad_eval.run.folder.files import ResultsError, read_run_json
from lad_eval.run.results import rescore
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.sources.scenes import ScenesSource
from tests.run.conftest import only_run, settings

pytestmark = [pytest.mark.usefixtures("example"), pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")]
TASK = "scenes_random_n4"
CONDITION, FILE = "conditions/evened", "learned.evened.safetensors"


def run(out, *methods, **changes):
    return run_tasks(settings(out, **{"tasks": (TASK,), "methods": methods, "limit": 2, **changes}))


def test_an_intervention_learns_before_it_is_asked_and_its_state_lies_beside_its_answers(counted, tmp_path):
    model = counted()
    run(tmp_path / "plain", "vanilla", "lad")
    plain = only_run(tmp_path / "plain")
    assert not model.calibrations
    run(tmp_path / "all", "vanilla", "lad", "evened", "evened+lad", "evened(strength=2)", "carefully+evened")
    folder = only_run(tmp_path / "all")
    assert folder.name == plain.name, "a run is named before anything is learned"
    labels = [label for label, _ in model.calibrations]
    assert sorted(labels) == ["evened", "evened", "evened(strength=2.0)"], "once for each prompt variant and set of parameters"
    # The plain condition is as without the others.
    one, other = read_evidence(plain), read_evidence(folder)
    assert one.fingerprint == other.fingerprint
    np.testing.assert_array_equal(one.log_probs, other.select_keys(one.key.tolist()).log_probs)
    told = read_run_json(plain / "metrics.json"), read_run_json(folder / "metrics.json")
    assert told[0]["methods"]["lad"] == told[1]["methods"]["lad"]

    state = LearnedState.load(folder / CONDITION / FILE, "evened")
    task = load_task(TASK)
    learned_from = plan(task, limit=2, calibration=True).calibration_requests()
    assert state.sample_ids == tuple(sorted({request.sample_id for request in learned_from}))
    assert state.passes == len(learned_from) == 5 * 4, "each sample under its cyclic shifts"
    evened = read_evidence(folder / CONDITION)
    assert evened.fingerprint["intervention"] == {"name": "evened", "strength": 0.5, "learned": state.digest}
    methods = told[1]["methods"]
    assert methods["evened"]["condition"]["intervention"]["learned"] == state.digest
    assert [methods[name]["calibration_passes"] for name in ("vanilla", "lad", "evened", "evened+lad")] == [0, 20, 20, 40]
    assert told[1]["counts"]["calibration_samples"] == 5
    # What was learned is the mean attention to each position that the model pays as it is.
    plain_rows = one.calibration
    expected = plain_rows.attention.mean(axis=(0, 1))
    np.testing.assert_allclose(state.arrays["attention"], expected, rtol=1e-4)
    assert np.abs(evened.test.attention.mean(axis=(0, 1)) - expected).max() > 1e-6


def test_its_state_is_used_again_when_a_run_goes_on_or_asks_more(counted, tmp_path):
    first = counted(stop_after=3, how=stop)
    with pytest.raises(Interrupted):
        run(tmp_path, "evened")
    state = only_run(tmp_path) / CONDITION / FILE
    content = state.read_bytes()
    again = counted()
    rows = run(tmp_path, "evened")
    assert len(first.calibrations) == 1
    assert not again.calibrations
    assert len(first.asked) + len(again.asked) == 2 * 5
    for file in (only_run(tmp_path) / CONDITION).glob("evidence*"):
        file.unlink()
    anew = counted()
    assert run(tmp_path, "evened") == rows
    assert (len(anew.asked), anew.calibrations) == (10, [])
    assert state.read_bytes() == content
    # Another run of the model on the task: the same calibration samples, so that neither is learned nor run again.
    more = counted()
    run(tmp_path, "evened", limit=3)
    assert (len(more.asked), more.calibrations) == (5, [])
    assert len(states := [LearnedState.load(path, "evened") for path in tmp_path.rglob(FILE)]) == 2
    assert states[0] == states[1]
    always = counted()
    run(tmp_path, "evened", overwrite="always")
    assert (len(always.asked), len(always.calibrations)) == (10, 1)


def stop():
    raise KeyboardInterrupt


def test_interrupted_while_it_learns_it_learns_again(counted, tmp_path, monkeypatch):
    model = counted()
    monkeypatch.setattr(model, "calibrated", lambda *_: stop())
    with pytest.raises(Interrupted, match=r"scenes_random_n4 \(evened\) was not yet calibrated; the same command resumes"):
        run(tmp_path, "evened")
    assert not list(tmp_path.rglob("learned.*"))
    rows = run(tmp_path, "evened", **{}) if counted() else None
    assert rows[0].method == "evened"


def test_figures_are_decided_again_without_a_model_and_never_from_another_state(counted, tmp_path):
    counted()
    run(tmp_path, "vanilla", "evened+lad", "evened+generate")
    folder = only_run(tmp_path)
    metrics = read_run_json(folder / "metrics.json")
    assert rescore(tmp_path)["methods"] == metrics["methods"]
    assert rescore(tmp_path, ["evened+pride"])["methods"]["evened+pride"]["calibration_passes"] == 40

    place = folder / CONDITION / FILE
    whole = place.read_bytes()
    state = LearnedState.load(place, "evened")
    other = LearnedState.of(
        "evened", {"attention": state.arrays["attention"] * 2}, state.sample_ids, state.images, origin=state.origin, passes=20
    )
    other.save(place)
    with pytest.raises(ResultsError, match=r"answers under another evened: learned is '.*' and '.*' \(answers, and learned\)"):
        rescore(tmp_path)
    with pytest.raises(EvidenceError, match="was made under another fingerprint: intervention"):
        run(tmp_path, "evened+lad")
    place.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for again in (lambda: rescore(tmp_path), lambda: run(tmp_path, "evened+lad")):
        with pytest.raises(UserError, match=r"learned\.evened\.safetensors is not the learned state .* or is damaged"):
            again()
    place.unlink()
    with pytest.raises(ResultsError, match="lacks what evened learned"):
        rescore(tmp_path)
    run(tmp_path, "evened+lad")
    assert LearnedState.load(place, "evened") == state, "learned again, it is the same"


def test_a_state_of_other_parameters_another_task_or_other_samples_is_refused(counted, tmp_path):
    counted()
    run(tmp_path, "evened", "evened(strength=2)")
    first, second = (only_run(tmp_path) / "conditions" / name for name in ("evened", "evened-strength-2.0"))
    shutil.copy(first / FILE, second / FILE)
    with pytest.raises(EvidenceError, match=r"was learned from something else \(differs in parameters\); move it away"):
        run(tmp_path, "evened(strength=2)")
    with pytest.raises(EvidenceError, match=r"differs in parameters"):
        rescore(tmp_path)
    run(tmp_path / "n3", "evened", tasks=("scenes_random_n2",))
    there = only_run(tmp_path / "n3") / CONDITION
    shutil.copy(first / FILE, there / FILE)
    with pytest.raises(EvidenceError, match=r"differs in requests\)"):
        run(tmp_path / "n3", "evened", tasks=("scenes_random_n2",))


def test_several_learn_of_the_unchanged_model_once_and_are_stored_part_by_part(counted, tmp_path):
    model = counted()
    run(tmp_path, "evened", "sofa+evened", "evened+sofa")
    assert [label for label, _ in model.calibrations] == ["evened"], "what it learns alone is what it learns beside others"
    folder = only_run(tmp_path) / "conditions"
    states = [LearnedState.load(folder / name / FILE, "evened") for name in ("evened", "sofa-evened", "evened-sofa")]
    assert states[0] == states[1] == states[2]
    under = [read_evidence(folder / name) for name in ("sofa-evened", "evened-sofa")]
    assert [part["name"] for part in under[0].fingerprint["intervention"]["parts"]] == ["sofa", "evened"]
    assert under[1].fingerprint["intervention"]["parts"][0]["learned"] == states[0].digest
    assert rescore(tmp_path, ["evened+sofa"])["methods"]["evened+sofa"]["calibration_passes"] == 20


def test_it_learns_from_the_task_that_is_calibrated_on(counted, tmp_path):
    model = counted()
    run(tmp_path, "evened", calibrate_on="scenes_adversarial_n4")
    [(_, keys)] = model.calibrations
    other = load_task(TASK, calibrate_on="scenes_adversarial_n4")
    assert keys == list(plan(other, limit=2, calibration=True).calibration)
    assert keys != list(plan(load_task(TASK), limit=2, calibration=True).calibration)
    assert read_run_json(only_run(tmp_path) / "metrics.json")["calibration"]["task"] == "scenes_adversarial_n4"


def test_evidence_is_collected_in_python_with_and_without_a_store(model, tmp_path):
    task = load_task(TASK)
    options = {"methods": ["evened"], "limit": 2, "show_progress": False}
    alone = collect(model, task, **options)
    stored = collect(model, task, store=tmp_path, **options)
    assert alone.fingerprint == stored.fingerprint
    assert LearnedState.load(tmp_path / FILE, "evened").digest == stored.fingerprint["intervention"]["learned"]
    np.testing.assert_allclose(collect(model, task, store=tmp_path, **options).log_probs, alone.log_probs, atol=1e-6)
    with model.under(Sofa()):
        nested = [collect(model, task, store=tmp_path / "nested", **options) for _ in range(2)]
    assert [part["name"] for part in nested[1].fingerprint["intervention"]["parts"]] == ["sofa", "evened"]
    np.testing.assert_array_equal(nested[0].log_probs, nested[1].log_probs)


@dataclass(frozen=True)
class Demanding(Evened):
    """Wants more samples than most tasks give."""

    name: ClassVar[str] = "demanding"

    @property
    def calibration_samples(self):
        return 6


def test_more_samples_are_taken_where_the_split_has_them_and_too_few_are_noted_once(counted, tmp_path, monkeypatch):
    for table in ("_entries", "_origins", "_values"):
        monkeypatch.setattr(INTERVENTIONS, table, dict(getattr(INTERVENTIONS, table)))
    INTERVENTIONS.add("demanding", Demanding, "tests")
    counted()
    assert not run(tmp_path / "enough", "demanding+lad")[0].notes
    (state,) = (tmp_path / "enough").rglob("learned.demanding.safetensors")
    samples = LearnedState.load(state, "demanding").sample_ids
    assert len(samples) == 6
    metrics = read_run_json(only_run(tmp_path / "enough") / "metrics.json")
    assert metrics["methods"]["demanding+lad"]["calibration_passes"] == 6 * 4 + 5 * 4, "the decision learns from the task's 5"

    monkeypatch.setattr(ScenesSource, "further_calibration", lambda source: iter(()))
    few = "source: scenes\ncandidates: 3\nsamples: 2\ncalibration: {samples: %d}\ndata: {calibration_samples: 5}\n"
    for count in (5, 6):
        (tmp_path / f"own{count}_n3.yaml").write_text(few % count)
    methods = ("demanding", "demanding+lad", "vanilla", "evened")
    rows = run(tmp_path / "noted", *methods, tasks=(str(tmp_path / "own5_n3.yaml"),))
    says = "demanding was calibrated on 5 samples and needs at least 6; give the task's calibration split more."
    assert read_run_json(only_run(tmp_path / "noted") / "metrics.json")["notes"] == [says]
    assert {row.notes for row in rows} == {(says,)}
    assert rescore(tmp_path / "noted")["notes"] == [says]
    with pytest.raises(UserError, match=r"own6_n3: the calibration split has 5 samples, but the task needs 6; lower") as caught:
        run(tmp_path / "few", "evened", tasks=(str(tmp_path / "own6_n3.yaml"),))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("family", ["llava-1.5", "gemma3", "qwen3.5"])
def test_it_works_whatever_the_family(tmp_path, family):
    rows = run(tmp_path, "vanilla", "evened(strength=2)", "sofa+evened+lad", model=f"random:{family}", limit=1)
    folder = only_run(tmp_path)
    plain, evened = (read_evidence(folder / place) for place in (".", "conditions/evened-strength-2.0"))
    assert np.abs(evened.select_keys(plain.key.tolist()).log_probs - plain.log_probs).max() > 1e-6
    assert len(rows) == len(rescore(tmp_path)["methods"]) == 3


def test_on_the_embedded_model_positions_get_a_more_even_share_of_attention(tmp_path):
    run(tmp_path, "vanilla", "evened", model="lad-tiny", limit=10)
    folder = only_run(tmp_path)
    plain, evened = (read_evidence(folder / place).test.attention.mean(axis=(0, 1)) for place in (".", CONDITION))
    assert evened.std() < plain.std()


def test_neither_states_nor_answers_of_another_run_serve_where_they_differ(counted, tmp_path):
    counted()
    run(tmp_path / "runs", "evened")
    place = only_run(tmp_path / "runs") / CONDITION / FILE
    state = LearnedState.load(place, "evened")

    def saved(to, **origin):
        doubled = {name: values * [2, 1, 1, 1] for name, values in state.arrays.items()}
        made_from = {**state.origin, **origin}
        LearnedState.of("evened", doubled, state.sample_ids, state.images, origin=made_from, passes=20).save(to)

    saved(place, requests="others")
    model = counted()
    run(tmp_path / "runs", "evened", limit=3)
    [longer] = [path.parent for path in (tmp_path / "runs").rglob(FILE) if path != place]
    assert len(model.calibrations) == 1, "what other samples taught is not taken"
    assert len(model.asked) == 5, "learned again it is the same, and so are the answers"
    for file in longer.glob("evidence*"):
        file.unlink()
    saved(longer / FILE)
    again = counted()
    run(tmp_path / "runs", "evened", limit=3)
    assert (again.calibrations, len(again.asked)) == ([], 15), "answers under another state are not taken"


def test_a_model_that_cannot_be_calibrated_on_is_one_line(model):
    class Closed:
        name, fingerprint = "closed", {"model": "closed"}

    with pytest.raises(UserError, match=r"closed cannot be run under evened\(strength=1.0\), which learns from the model's"):
        calibrate_intervention(Closed(), parse_intervention("evened(strength=1)"), [])


def test_evaluated_samples_and_pictures_are_refused(model):
    asked = plan(load_task(TASK), limit=2, calibration=True, distinct=True)
    learned = calibrate_intervention(model, make_method("evened").condition.intervention, asked.intervention_requests)
    test = [request for request in asked.requests if request.split == "test"]
    learned.check_disjoint([r.sample_id for r in test], [image.digest for r in test for image in r.images])
    with pytest.raises(EvidenceError, match=r"1 evaluated samples were also calibrated on by evened"):
        learned.check_disjoint([learned.learned.sample_ids[0]], [])
