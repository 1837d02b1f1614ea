"""Trials: Facet-Probe's orders and figures to the last digit, and files that both can read."""

import json
import math
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from lad_eval.cli.main import app
from lad_eval.errors import UserError
from lad_eval.report.trials import Trial, read_trials, trial_figures
from lad_eval.tasks.facet_probe import facet_probe_orders, item_seed


def item(answers, name="i", *, correct=None, n=3, **parts):
    """One item's trials; "-" is a reply without an answer."""
    values = {"facet": "option_order", "dataset": "toy", "model": "m", **parts}
    return [
        Trial(**values, item=name, ordering=k, answer=None if a == "-" else a, correct=correct and correct[k], n_choices=n)
        for k, a in enumerate(answers)
    ]


@pytest.mark.parametrize(
    ("name", "n", "orders"),
    [
        ("item-1", 5, "01234 14203 42013 02143 14023 30124"),
        ("mantis::m_20::0006", 4, "0123 0132 3210 0321 2103 1320"),
        ("x", 3, "012 201 120 102 210 021"),
        ("y", 2, "01 10 01 10 01 10"),
    ],
)
def test_an_items_orders_are_facet_probes(name, n, orders):
    assert " ".join(map(str, facet_probe_orders(name, n))) == orders


def test_the_seed_is_the_beginning_of_a_digest_and_long_lists_are_shuffled_until_they_differ():
    assert item_seed("item-1", 5, 6) == 1201210867
    orders = facet_probe_orders("long", 9, 6)
    assert str(orders[0]) == "012345678"
    assert len(set(orders)) == 6
    assert facet_probe_orders("long", 9, 6, seed=43)[1:] != orders[1:]


@pytest.mark.parametrize(
    ("answers", "osi"),
    [
        ("AAAAAA", 0),
        ("AAAAAB", 0.6500224216),
        ("AABAAB", 0.9182958341),
        ("AAABBB", 1),
        ("AABBCC", 1),
        ("AAAABC", 0.7896900821),
        ("AA-B-A", 0.8112781245),
    ],
)
def test_the_parsed_osi_is_facet_probes_to_the_last_digit(answers, osi):
    (figures,) = trial_figures(item(answers))
    assert round(figures.osi_parsed, 10) == osi
    assert str(figures.osi_parsed)[0] != "-"


def test_accuracy_is_of_the_replies_whose_truth_is_known():
    (figures,) = trial_figures(item("AA-B-A", correct=[True, True, None, False, None, True]))
    assert (figures.flip_parsed, figures.accuracy, figures.unparsable) == (1, 0.75, 2)


def test_our_osi_rises_with_disagreement_and_a_mute_model_is_not_perfect():
    (two,), (three,) = (trial_figures(item(answers)) for answers in ("AABAAB", "AAAABC"))
    assert two.osi < three.osi
    assert two.osi_parsed > three.osi_parsed  # their base is the number of answers that occur
    (mute,) = trial_figures(item("------"))
    assert (mute.flip_parsed, mute.osi_parsed, mute.accuracy) == (0, 0, None)
    assert (mute.flip, mute.unparsable) == (1, 6)
    (half,) = trial_figures(item("AAA---"))
    assert (half.flip_parsed, half.flip) == (0, 1)
    assert two.osi == pytest.approx(0.9182958341 * math.log(2) / math.log(3))
    assert trial_figures(item("AAA", n=0))[0].osi is None


def test_the_toy_file_has_facet_probes_figures(tmp_path):
    """Two items of three and of two options; the first flips."""
    rows = [("toy::1", 0, [0, 1, 2], "choice-a"), ("toy::1", 1, [1, 0, 2], "choice-b")]
    rows += [("toy::2", 0, [0, 1], "choice-a"), ("toy::2", 1, [1, 0], "choice-a")]
    path = tmp_path / "toy.jsonl"
    path.write_text(
        "\n".join(
            json.dumps(
                {
                    "facet": "option_order",
                    "dataset": "toy",
                    "model": "toy-model",
                    "item_id": name,
                    "ordering_idx": k,
                    "permutation": order,
                    "answer_normalized": answer,
                    "correct": answer == "choice-a",
                }
            )
            for name, k, order, answer in rows
        )
        + "\n\n"
    )
    (figures,) = trial_figures(read_trials(path))
    assert (figures.items, figures.trials) == (2, 4)
    assert (figures.flip_parsed, figures.osi_parsed, figures.accuracy) == (0.5, 0.5, 0.75)


def test_other_spellings_of_an_answer_and_of_its_truth_are_read(tmp_path):
    path = tmp_path / "t.jsonl"
    lines = [{"item_id": 1, "answer_letter": "B", "correct": "Yes"}, {"item_id": 2, "answer": 3, "correct": 0}]
    path.write_text("\n".join(map(json.dumps, [*lines, {"item_id": 3, "correct": "not sure"}])))
    assert [(t.item, t.answer, t.correct) for t in read_trials(path)] == [("1", "B", True), ("2", "3", False), ("3", None, None)]


def test_data_sets_and_models_are_kept_apart():
    trials = [*item("AB", model="a"), *item("AA", model="b"), *item("AB", dataset="other", model="a")]
    assert [(f.group[1:], f.flip) for f in trial_figures(trials)] == [(("other", "a"), 1), (("toy", "a"), 1), (("toy", "b"), 0)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "holds no trials"),
        ("{}", "line 1, is not a trial: it lacks 'item_id'"),
        ("[1]", "line 1, is not a trial: it is not a JSON object"),
        ('{"item_id": 1}\n{"item_id"', "line 2, is not a trial"),
        ('{"item_id": 1, "ordering_idx": "x"}', "line 1, is not a trial: invalid literal"),
        ('{"item_id": 1}\n{"item_id": 1}', "line 2: item '1' has its ordering 0 twice"),
    ],
)
def test_a_file_that_is_none_of_trials_is_one_line(tmp_path, text, fault):
    path = tmp_path / "t.jsonl"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_trials(path)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="Cannot read"):
        read_trials(tmp_path / "none.jsonl")


def test_the_command_prints_the_figures_of_several_files(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(
            "\n".join(json.dumps({"item_id": k, "model": name, "answer": "A", "n_choices": 2}) for k in range(3))
        )
    files = [str(tmp_path / f"{name}.jsonl") for name in "ab"]
    shown = CliRunner().invoke(app, ["trials", *files])
    assert shown.exit_code == 0
    assert "Mean over the rows of flip, parsed: 0.00." in shown.output
    figures = json.loads(CliRunner().invoke(app, ["trials", *files, "--json"]).output)
    assert [(one["group"][2], one["items"], one["flip"], one["osi"]) for one in figures] == [("a", 3, 0, 0), ("b", 3, 0, 0)]


def test_the_command_exports_the_methods_that_a_glob_matches_in_each_run_and_refuses_two_runs_of_a_task(tmp_path, monkeypatch):
    class Run(NamedTuple):
        metrics: dict[str, str]
        methods: list[str]

    runs = [Run({"model": "m", "task": "a"}, ["vanilla", "lad"]), Run({"model": "m", "task": "b"}, ["vanilla"])]
    monkeypatch.setattr("lad_eval.report.html.load.choose", lambda *_: runs)
    monkeypatch.setattr("lad_eval.report.trials.trial_lines", lambda run, names: [f"{run.metrics['task']} {' '.join(names)}"])
    shown = CliRunner().invoke(app, ["export", "--format", "trials", "--methods", "l*,vanilla"])
    assert (shown.exit_code, shown.stdout) == (0, "a lad vanilla\nb vanilla\n")
    runs.append(runs[1])
    refused = CliRunner().invoke(app, ["export", "--format", "trials"])
    assert "several runs on b with m; name one run folder of each task" in str(refused.exception or refused.output)
