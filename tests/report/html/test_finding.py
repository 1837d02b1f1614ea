"""The sentences that a report opens with, from figures given by hand."""

import itertools

import pytest

from lad_eval.metrics import paired_test
from lad_eval.report.html.finding import finding_of, short_of
from lad_eval.report.html.page import sentences_across
from lad_eval.report.html.text import share_text, shares_text

S = 100


def figure(
    accuracy, *, recall=(), low=None, high=None, consistency=50.0, p=0.0005, passes=1.0, unparsable=0, orders=5, samples=S
):
    return {
        "samples": samples,
        "permutations": orders,
        "accuracy": {
            "value": accuracy,
            "std": 1.0,
            "low": accuracy if low is None else low,
            "high": accuracy if high is None else high,
        },
        "rstd": {"value": 1.0},
        "consistency": {"value": consistency},
        "position_test": {"statistic": 1.0, "p_value": p},
        "recall": list(recall),
        "unparsable": unparsable,
        "forward_passes": passes,
    }


def metrics(methods, p_values=None, *, model="m", task="t", candidates=4):
    """`p_values` by pair of names; others 0.001."""
    known = p_values or {}
    tests = {}
    for a, b in itertools.combinations(methods, 2):
        tests.setdefault(a, {})[b] = known.get((a, b), 0.001)
    return {
        "model": model,
        "task": task,
        "candidates": candidates,
        "limit": None,
        "methods": methods,
        "tests": {"accuracy": tests},
    }


def told(document):
    finding = finding_of(document)
    return finding, [plain(finding.title), *(plain("".join(part.text for part in sentence)) for sentence in finding.sentences)]


def plain(text):
    return text.replace("\N{NO-BREAK SPACE}", " ")


VANILLA = figure(54.4, recall=(30.0, 0.0, 92.0, 96.0), consistency=25.0)
LAD = figure(98.6, recall=(98.0, 93.2, 99.0, 100.0), consistency=98.0, p=0.4)


def test_lad_helps():
    finding, lines = told(metrics({"vanilla": VANILLA, "lad": LAD}))
    assert lines == [
        "Right 54 % of the time; with LAD 99 %.",
        "When the right image is at position 2, it is found 0 % of the time; with LAD, 93 %.",
        "In 75 of 100 questions the answer changes with the order; with LAD, in 2.",
    ]
    assert (finding.base, finding.other, finding.helps) == ("vanilla", "lad", True)
    assert [(plain(part.text), part.method) for part in finding.headline if part.method] == [("54 %", "vanilla"), ("99 %", "lad")]
    assert plain(short_of(metrics({"vanilla": VANILLA, "lad": LAD}), finding)) == "54 → 99 %"


def test_lad_does_not_help():
    even = {**LAD, "accuracy": {"value": 56.0, "low": 50.0, "high": 60.0}}
    finding, lines = told(metrics({"vanilla": VANILLA, "lad": even}, {("vanilla", "lad"): 0.2}))
    assert lines[0] == "Right 54 % of the time; with LAD 56 %, no significant difference."
    assert finding.helps is False
    worse = {**LAD, "accuracy": {"value": 40.0, "low": 38.0, "high": 42.0}}
    finding, lines = told(metrics({"vanilla": VANILLA, "lad": worse}))
    assert lines[0] == "Right 54 % of the time; with LAD only 40 %."
    assert finding.helps is False


def test_another_method_helps_where_lad_does_not():
    even = {**LAD, "accuracy": {"value": 56.0, "low": 50.0, "high": 60.0}}
    pride = {**LAD, "accuracy": {"value": 73.0, "low": 70.0, "high": 76.0}}
    finding, lines = told(metrics({"vanilla": VANILLA, "pride": pride, "lad": even}, {("vanilla", "lad"): 0.2}))
    assert lines[0] == "Right 54 % of the time; with pride 73 %."
    assert finding.other == "pride"


def test_a_method_better_than_lad_is_named_with_its_cost():
    orders = {**LAD, "accuracy": {"value": 99.6, "low": 99.0, "high": 100.0}, "forward_passes": 4.0}
    _, lines = told(metrics({"vanilla": VANILLA, "lad": LAD, "permutation-average": orders}))
    assert lines[-1] == "Most accurate here: permutation-average, 99.6 %, at 4 passes per question."
    _, lines = told(
        metrics({"vanilla": VANILLA, "lad": LAD, "permutation-average": orders}, {("lad", "permutation-average"): 0.3})
    )
    assert not lines[-1].startswith("Most accurate")


def test_a_gain_is_corrected_for_the_number_of_methods():
    """0.03 alone is significant; of two methods Holm makes it 0.06."""
    methods = {"vanilla": VANILLA, "lad": {**LAD, "accuracy": {"value": 60.0}}, "sofa": {**LAD, "accuracy": {"value": 58.0}}}
    alone = {name: methods[name] for name in ("vanilla", "lad")}
    assert finding_of(metrics(alone, {("vanilla", "lad"): 0.03})).helps is True
    both = metrics(methods, {("vanilla", "lad"): 0.03, ("vanilla", "sofa"): 0.04})
    assert finding_of(both).helps is False


def test_too_few_samples_to_tell():
    methods = {"vanilla": {**VANILLA, "samples": 4}, "lad": {**LAD, "samples": 4}}
    _, lines = told(metrics(methods, {("vanilla", "lad"): 0.125}))
    assert lines[0] == "Right 54 % of the time; with LAD 99 %, too few samples to tell."
    assert lines[2].startswith("In 3 of 4 questions")


def test_only_vanilla():
    finding, lines = told(metrics({"vanilla": VANILLA}))
    assert lines == [
        "Right 54 % of the time.",
        "When the right image is at position 2, it is found 0 % of the time; at position 4, 96 %.",
        "In 75 of 100 questions the answer changes with the order.",
    ]
    assert (finding.base, finding.other, finding.helps) == ("vanilla", None, None)


def test_without_vanilla():
    finding, lines = told(metrics({"pride": VANILLA, "lad": LAD}))
    assert lines[0] == "With LAD, right 99 % of the time."
    assert (finding.base, finding.other) == (None, "lad")


def test_what_guessing_would_give_is_called_so():
    chance = figure(26.0, low=20.0, high=31.0, recall=(24.0, 25.0, 27.0, 28.0), p=0.6)
    _, lines = told(metrics({"vanilla": chance, "lad": chance}, {("vanilla", "lad"): 1.0}))
    assert lines[0] == "Right 26 % of the time, not shown to be better than guessing; with LAD 26 %, the same."
    assert lines[1] == (
        "No effect of the position was found: the right image is found 24 % to 28 % of the time, "
        "depending on where it is (p = 0.60)."
    )
    assert told(metrics({"vanilla": chance}))[1][0] == "Right 26 % of the time, not shown to be better than guessing."


def test_one_order_says_nothing_of_position():
    once = {**VANILLA, "permutations": 1}
    _, lines = told(metrics({"vanilla": once}))
    assert lines[1:] == ["Every question was evaluated in one order only, so position and content cannot be separated."]


def test_missing_answers_are_not_called_changes():
    _, lines = told(metrics({"vanilla": VANILLA, "lad": {**LAD, "unparsable": 3}}))
    assert lines[2] == "In 75 of 100 questions the answer changes with the order or is missing; with LAD, in 2."


def test_runs_without_tests_claim_nothing():
    document = {**metrics({"vanilla": VANILLA, "lad": LAD}), "tests": {}}
    finding, lines = told(document)
    assert lines[0] == "Right 54 % of the time; with LAD 99 %."
    assert finding.helps is None


def test_no_accuracy_no_finding():
    assert finding_of(metrics({"vanilla": {**VANILLA, "accuracy": {"value": None}}})) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (0.02, "under 0.1 %"),
        (0.3, "0.3 %"),
        (26.5, "27 %"),
        (99.4, "99 %"),
        (99.6, "99.6 %"),
        (99.98, "over 99.9 %"),
        (100.0, "100 %"),
    ],
)
def test_only_none_is_0_and_only_all_is_100(value, text):
    assert plain(share_text(value)) == text


def test_shares_that_differ_look_different():
    assert tuple(map(plain, shares_text(81.6, 82.4))) == ("81.6 %", "82.4 %")
    assert tuple(map(plain, shares_text(50.0, 50.0))) == ("50 %", "50 %")


def test_the_tests_are_those_of_the_run():
    """The stored p-value of a pair is the exact paired test's, whichever method comes first."""
    import numpy as np

    from lad_eval.run.folder.rows import paired_p_values

    a, b = np.array([[True, False], [True, True], [True, True]]), np.array([[False, False], [True, False], [True, True]])
    p = paired_test(a, b)
    assert paired_p_values({"tests": {"accuracy": {"a": {"b": p}}}}) == {("a", "b"): p, ("b", "a"): p}


class TestAcross:
    """One sentence over several runs."""

    def run(self, *methods, model="m", task="t", p=0.001):
        names = ("vanilla", "lad")[: len(methods)]
        document = metrics(dict(zip(names, methods, strict=True)), {("vanilla", "lad"): p}, model=model, task=task)
        return document, finding_of(document)

    def across(self, runs):
        return [plain(sentence) for sentence in sentences_across(runs)]

    def test_one_model(self):
        worse = {**VANILLA, "accuracy": {"value": 28.0}}
        runs = [self.run(VANILLA, LAD), self.run(worse, {**LAD, "accuracy": {"value": 75.0}}, p=0.3)]
        assert self.across(runs) == ["2 runs: right 28 to 54 % of the time; with LAD 75 to 99 %, significantly more in 1 of 2."]

    def test_one_run_needs_none(self):
        assert self.across([self.run(VANILLA, LAD)]) == []

    def test_models_have_a_sentence_each(self):
        runs = [self.run(VANILLA, LAD), self.run(VANILLA, model="n"), self.run(VANILLA, LAD, model="n")]
        assert self.across(runs) == [
            "m: right 54 % of the time; with LAD 99 %, significantly more.",
            "n, 1 of 2 runs: right 54 % of the time; with LAD 99 %, significantly more.",
        ]

    def test_many_models_share_one(self):
        runs = [self.run(VANILLA, LAD, model=f"m{i}") for i in range(9)]
        assert self.across(runs) == ["9 models, 9 runs: right 54 % of the time; with LAD 99 %, significantly more in 9 of 9."]

    def test_vanilla_alone(self):
        assert self.across([self.run(VANILLA), self.run(VANILLA)]) == ["2 runs: right 54 % of the time."]
