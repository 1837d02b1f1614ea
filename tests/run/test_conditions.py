"""Methods under conditions and from replies: what a run asks, keeps, shares and decides."""

import json

import numpy as np
import pandas as pd
import pytest

from lad_eval.attention.interventions import Sofa
from lad_eval.errors import UserError
from lad_eval.evidence.replies import Reply
from lad_eval.evidence.store import read_evidence
from lad_eval.evidence.table import Evidence
from lad_eval.methods import PLAIN, EvidenceMethod, PermutationAverage, make_method
from lad_eval.methods.replying import parse_reply
from lad_eval.run.collect import collect
from lad_eval.run.condition_results import read_condition_results
from lad_eval.run.condition_runs import reply_batches
from lad_eval.run.execute import Interrupted, run_tasks
from lad_eval.run.folder.files import ResultsError, read_run_json, write_json
from lad_eval.run.folder.stored import load_run
from lad_eval.run.results import rescore
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import load_task
from tests.run.conftest import TASK, only_run, settings

pytestmark = pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")


MANY = ("vanilla", "instruction+lad", "sofa+pride", "sofa", "generate", "majority+generate", "average-random", "majority")


SHORT = "self-consistency"


def stop():
    raise KeyboardInterrupt


def test_each_condition_is_asked_once_and_kept_apart(counted, tmp_path):
    asked = counted()
    rows = run_tasks(settings(tmp_path, methods=MANY, limit=2))
    assert {row.method for row in rows} == set(MANY)
    # N = 2: 2 samples x 2 orders, each other's shifts; 5 calibration samples x 2.
    assert len(asked.asked) == 4 + 4 + (4 + 10) + (4 + 10)
    folder = only_run(tmp_path)
    assert {path.name for path in (folder / "conditions").iterdir()} == {"instruction", "sofa"}
    plain, variant, soft = (read_evidence(folder / place) for place in (".", "conditions/instruction", "conditions/sofa"))
    assert [len(evidence) for evidence in (plain, variant, soft)] == [4, 14, 14]
    assert not set(plain.key) & set(variant.key)
    assert set(plain.key) < set(soft.key)
    assert soft.fingerprint["intervention"] == {"name": "sofa", "sigma": 0.5, "every": 2, "pairs": "between"}
    assert "intervention" not in variant.fingerprint
    both = soft.select_keys(plain.key.tolist())
    assert np.abs(both.log_probs - plain.log_probs).max() > 1e-6
    metrics = read_run_json(folder / "metrics.json")
    assert metrics["methods"]["sofa+pride"]["condition"]["intervention"]["name"] == "sofa"
    assert metrics["methods"]["vanilla"]["condition"] is None
    assert metrics["methods"]["instruction+lad"]["calibration_passes"] == 10
    assert metrics["methods"]["majority"]["forward_passes"] == 2
    assert metrics["counts"]["asked"] == metrics["counts"]["answered"] + 0 - 4 == 32


def test_the_same_command_asks_nothing_again_and_score_decides_the_same(counted, tmp_path):
    counted()
    first = run_tasks(settings(tmp_path, methods=MANY, limit=2))
    again = counted()
    assert run_tasks(settings(tmp_path, methods=MANY, limit=2)) == first
    (soft,) = run_tasks(settings(tmp_path, methods=("sofa",), limit=2))
    assert soft.as_dict() == next(row for row in first if row.method == "sofa").as_dict() | {
        "p_best": soft.as_dict().get("p_best")
    }
    assert not again.asked
    metrics = read_run_json(only_run(tmp_path) / "metrics.json")
    assert set(metrics["methods"]) == set(MANY)
    decided = rescore(tmp_path)
    assert decided["methods"] == metrics["methods"]
    assert rescore(tmp_path, ["sofa+lad"])["methods"]["sofa+lad"]["calibration_passes"] == 10
    for name, says in [
        ("cot", "has no answers under cot; run again"),
        ("self-consistency", "has no answers under cot"),
        ("generate(max_new_tokens=8)", r"no replies for generate\(max_new_tokens=8\); run again with it among --methods"),
    ]:
        with pytest.raises(UserError, match=says):
            rescore(tmp_path, None if "=" in name else [name], settings=[name] if "=" in name else ())


@pytest.mark.parametrize("after", [2, 6, 10, 26])
def test_interrupted_anywhere_it_goes_on_and_repeats_nothing(counted, tmp_path, after):
    stopped = counted(stop_after=after, how=stop)
    with pytest.raises(Interrupted, match=r"answers, all stored; the same command resumes"):
        run_tasks(settings(tmp_path, methods=MANY, limit=2))
    rest = counted()
    rows = run_tasks(settings(tmp_path, methods=MANY, limit=2))
    assert len(stopped.asked) + len(rest.asked) == 36
    assert [row.accuracy for row in rows if row.method == "vanilla"]


def test_only_replies_need_no_evidence(counted, tmp_path):
    asked = counted()
    rows = run_tasks(settings(tmp_path, methods=("generate",), limit=2))
    folder = only_run(tmp_path)
    assert len(asked.asked) == 4
    assert not (folder / "evidence.parquet").exists()
    assert (folder / "replies.greedy-16.jsonl").exists()
    table = pd.read_parquet(folder / "predictions.parquet")
    missing = int((table.position == -1).sum())
    assert rows[0].unparsable == missing == read_run_json(folder / "metrics.json")["counts"]["unparsable"]["generate"]
    assert (table.correct == (table.position == table.gold_position)).all()
    assert (table[table.position == -1].image == -1).all()
    with pytest.raises(ResultsError, match="no evidence for lad"):
        rescore(tmp_path, ["lad"])
    # methods that are added later find their place
    run_tasks(settings(tmp_path, methods=("vanilla",), limit=2))
    assert set(read_run_json(folder / "metrics.json")["methods"]) == {"vanilla", "generate"}


class Scripted:
    """A model that can only write greedily, and says what it was told to."""

    name, fingerprint = "scripted", {"model": "scripted"}

    def __init__(self, says):
        self.says = says

    def generate(self, requests, *, max_new_tokens=16):
        return [self.says(request) for request in requests]


def test_a_black_box_that_always_says_1_is_right_where_it_stands_first_and_its_majority_is_a_tie(tmp_path, monkeypatch):
    from lad_eval.run import execute

    for says, accuracy, unparsable in (
        (lambda r: "1", 50, 0),
        (lambda r: "none", 0, 4),
        (lambda r: str(r.gold_position + 1), 100, 0),
    ):
        monkeypatch.setattr(execute, "load_model", lambda *_, says=says, **__: Scripted(says))
        out = tmp_path / f"{accuracy}"
        rows = run_tasks(settings(out, methods=("generate", "majority+generate"), limit=2))
        assert [row.accuracy for row in rows] == [accuracy] * 2
        assert [row.unparsable for row in rows] == [unparsable] * 2
        assert [row.forward_passes for row in rows] == [None] * 2, "what a black box spends is not known"


def test_what_a_model_cannot_do_is_one_line(tmp_path, monkeypatch):
    from lad_eval.run import execute

    monkeypatch.setattr(execute, "load_model", lambda *_, **__: Scripted(lambda r: "1"))
    with pytest.raises(UserError, match="scripted writes greedily only; leave out the methods that sample"):
        run_tasks(settings(tmp_path, methods=("self-consistency",), limit=1))
    with pytest.raises(UserError, match="scripted cannot be run under sofa: its attention cannot be recorded"):
        run_tasks(settings(tmp_path, methods=("sofa",), limit=1))


def test_parameters_in_brackets_are_part_of_the_name(counted, tmp_path):
    asked = counted()
    names = ("generate(max_new_tokens=2)", "self-consistency(samples=2, max_new_tokens=3)", "majority+generate")
    rows = run_tasks(settings(tmp_path, methods=names, limit=1))
    assert [row.method for row in rows] == list(names)
    assert rows[0].forward_passes <= 2 < rows[2].forward_passes
    folder = only_run(tmp_path)
    assert {p.name for p in folder.glob("replies.*")} == {"replies.greedy-2.jsonl", "replies.greedy-16.jsonl"}
    stored = read_run_json(folder / "metrics.json")["methods"]
    assert stored[names[1]]["parameters"] == {"samples": 2, "temperature": 0.7, "max_new_tokens": 3, "seed": 42}
    count = len(asked.asked)
    run_tasks(settings(tmp_path, methods=("vanilla",), limit=1))
    assert len(asked.asked) == count + 2, "what is stored stays, and is not run again"
    assert set(read_run_json(folder / "metrics.json")["methods"]) == {*names, "vanilla"}
    assert rescore(tmp_path)["methods"][names[1]] == stored[names[1]]


def test_afresh_forgets_conditions_and_replies(counted, tmp_path):
    counted()
    run_tasks(settings(tmp_path, methods=("sofa", "generate"), limit=1))
    again = counted()
    run_tasks(settings(tmp_path, methods=("vanilla",), limit=1, overwrite="always"))
    assert len(again.asked) == 2
    folder = only_run(tmp_path)
    assert not (folder / "conditions").exists()
    assert not list(folder.glob("replies.*"))


def test_evidence_of_a_condition_is_taken_from_another_run_under_the_same(counted, tmp_path):
    counted()
    run_tasks(settings(tmp_path, methods=("sofa", "instruction"), limit=2))
    rest = counted()
    run_tasks(settings(tmp_path, methods=("sofa", "instruction", "vanilla", "sofa(sigma=0.25)"), limit=3))
    assert len(rest.asked) == 2 + 2 + 6 + 6


def test_draws_do_not_depend_on_what_else_is_asked(model):
    requests = list(plan(load_task(TASK), limit=3).requests)
    drawn = make_method("self-consistency", samples=3, max_new_tokens=4, temperature=2.0).decoding
    barrier = {reply.key: reply for batch in model.reply_batches(requests, drawn) for reply in batch}
    assert all(
        isinstance(reply, Reply) and len(reply.texts) == 3 and 3 <= reply.forward_passes <= 12 for reply in barrier.values()
    )
    assert len({text for reply in barrier.values() for text in reply.texts}) > 6, "draws that are all alike would prove little"
    for request in requests[:2]:
        [[alone]] = list(model.reply_batches([request], drawn))
        assert alone.texts == barrier[request.key].texts


def test_greedy_replies_are_those_of_generate_and_cost_their_tokens(model):
    requests = list(plan(load_task(TASK), limit=2).requests)
    decoding = make_method("generate", max_new_tokens=3).decoding
    found = {reply.key: reply for batch in reply_batches(model, requests, decoding) for reply in batch}
    assert [found[request.key].texts[0] for request in requests] == model.generate(requests, max_new_tokens=3)
    assert all(1 <= reply.forward_passes <= 3 for reply in found.values())
    assert all(parse_reply(reply.texts[0], ("1", "2")) in (None, 0, 1) for reply in found.values())


def test_figures_of_several_draws_are_their_means(counted, tmp_path):
    counted()
    (row,) = run_tasks(settings(tmp_path, methods=("pride-original",), limit=4))
    stored = read_run_json(only_run(tmp_path) / "metrics.json")["methods"]["pride-original"]
    alone = [rescore(tmp_path, settings=[f"pride-original(repetitions=1, seed={seed})"])["methods"] for seed in (42, 43)]
    first = pd.read_parquet(only_run(tmp_path) / "predictions.parquet")
    (single,) = (figures for name, figures in alone[0].items() if name.startswith("pride-original("))
    assert single["accuracy"]["value"] == pytest.approx(100 * first.correct.mean())
    assert stored["draws"] == 5
    assert row.accuracy == stored["accuracy"]["value"]
    assert row.forward_passes == pytest.approx((3 + 2) / 4)  # one sample of four is drawn, and asked in both orders


def test_evidence_of_one_condition_is_collected_in_python(model):
    task = load_task(TASK)
    soft = collect(model, task, methods=["sofa+lad"], limit=2, show_progress=False)
    plain = collect(model, task, methods=["lad"], limit=2, show_progress=False)
    assert soft.key.tolist() == plain.key.tolist()
    assert soft.fingerprint["intervention"]["name"] == "sofa"
    assert "intervention" not in model.fingerprint
    variant = collect(model, task, methods=[make_method("instruction")], limit=2, show_progress=False)
    assert not set(variant.key) & set(plain.key)
    with pytest.raises(UserError, match=r"different conditions \(sofa and the unchanged question\)"):
        collect(model, task, methods=["sofa+lad", "lad"], limit=2)
    with pytest.raises(UserError, match="generate reads replies"):
        collect(model, task, methods=["generate"], limit=2)


class Shifted(EvidenceMethod):
    """Finds the other shifts of its rows by itself, as a method of one's own may."""

    name = "shifted"
    orders = "cyclic"

    def _scores(self, evidence):
        return PermutationAverage().predict_log_proba(evidence)


def test_a_method_of_ones_own_may_look_at_all_shifts(counted, tmp_path):
    counted()
    task = load_task(TASK)
    run_tasks(settings(tmp_path, methods=("permutation-average",), limit=3))
    folder = only_run(tmp_path)
    answered = read_condition_results(folder, PLAIN, [])
    own, ours = (answered.decide(method).answers for method in (Shifted(), PermutationAverage()))
    assert len(own.position) == 3 * len(task.orders)
    np.testing.assert_allclose(own.log_proba, ours.log_proba, atol=1e-12)
    np.testing.assert_array_equal(own.passes, ours.passes)


def test_batches_are_those_of_the_condition_under_which_they_were_asked_for(model):
    requests = list(plan(load_task(TASK), limit=2).requests)
    decoding = make_method("generate", max_new_tokens=6).decoding
    with model.under(Sofa(sigma=1.0, every=1)):
        inside = model.evidence(requests)
        late, late_replies = model.evidence_batches(requests), model.reply_batches(requests, decoding)
        replies = {reply.key: reply.texts for batch in model.reply_batches(requests, decoding) for reply in batch}
    outside = Evidence.concatenate(list(late)).select_keys(inside.key.tolist())
    np.testing.assert_array_equal(outside.log_probs, inside.log_probs)
    assert outside.fingerprint == inside.fingerprint
    assert np.abs(outside.log_probs - model.evidence(requests).log_probs).max() > 1e-6
    assert {reply.key: reply.texts for batch in late_replies for reply in batch} == replies


def test_a_run_stored_with_the_colon_form_still_scores(tmp_path):
    run_tasks(settings(tmp_path, methods=("vanilla", "sofa(sigma=0.25)"), limit=3))
    run = only_run(tmp_path)
    document = json.loads((run / "metrics.json").read_text())
    text = json.dumps({k: v for k, v in document.items() if k != "checksum"}).replace("sofa(sigma=0.25)", "sofa:sigma=0.25")
    write_json(run / "metrics.json", json.loads(text))
    assert load_run(run).methods == ["vanilla", "sofa(sigma=0.25)"]
    again = rescore(run)
    assert again["methods"]["sofa(sigma=0.25)"]["accuracy"] == document["methods"]["sofa(sigma=0.25)"]["accuracy"]
