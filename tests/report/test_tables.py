import csv
import io
import json

import pytest

from lad_eval.errors import UserError
from lad_eval.report.render import FORMATS, render
from lad_eval.run.folder.rows import COLUMNS, Row, is_same_model, rows_of


def row(**changes):
    values = {
        "model": "lad-tiny", "task": "scenes_random_n4", "method": "vanilla", "samples": 500, "permutations": 5,
        "accuracy": 61.24,
        "accuracy_std": 2.5, "accuracy_low": 58.96, "accuracy_high": 63.4, "rstd": 12.0, "consistency": 30.25, "unparsable": 0,
        "forward_passes": 1.0,
    }  # fmt: skip
    return Row(**{**values, **changes})


METRICS = {
    "model": "m",
    "task": "t",
    "limit": 20,
    "methods": {
        "vanilla": {
            "samples": 20, "permutations": 5, "accuracy": {"value": 50.0, "std": 1.0, "low": 45.0, "high": 55.0},
            "rstd": {"value": None}, "consistency": {"value": 10.0}, "unparsable": 3, "forward_passes": 1.0,
        },
        "lad": {
            "samples": 20, "permutations": 5, "accuracy": {"value": 90.0, "std": 1.0, "low": 85.0, "high": 95.0},
            "rstd": {"value": 2.0}, "consistency": {"value": 80.0}, "unparsable": 0, "forward_passes": 1.0,
        },
    },
}  # fmt: skip


def test_json_has_exactly_the_documented_keys_and_every_figure_unrounded():
    (document,) = json.loads(render([row()], "json"))
    assert tuple(document) == COLUMNS
    assert document["accuracy"] == 61.24


def test_a_figure_that_is_not_defined_is_null_in_json_and_a_dash_for_people():
    rows = rows_of(METRICS)
    assert json.loads(render(rows, "json"))[0]["rstd"] is None
    assert "–" in render(rows, "md").splitlines()[4]


def test_rows_keep_the_asked_order_and_skip_what_is_not_stored():
    assert [r.method for r in rows_of(METRICS, ["lad", "pride", "vanilla"])] == ["lad", "vanilla"]


def test_rows_of_a_part_of_the_task_are_marked_for_people():
    for form in ("rich", "md", "latex"):
        assert "20* " in render(rows_of(METRICS), form)
        assert "500* " not in render([row()], form)
        assert "--limit" not in render([row()], form)


def test_csv_reads_back():
    (back,) = csv.DictReader(io.StringIO(render([row()], "csv")))
    assert back["accuracy"] == "61.24"
    assert tuple(back) == COLUMNS


def test_markdown_has_one_table_a_task_in_the_order_of_the_rows_and_all_models_in_it():
    rows = [row(), row(model="b"), row(task="a_task"), row(method="lad")]
    text = render(rows, "md")
    assert [line for line in text.splitlines() if line.startswith("#")] == ["### scenes_random_n4", "### a_task"]
    first = text.split("### a_task")[0]
    assert [line.split("|")[1].strip() for line in first.splitlines() if line.startswith("| ")][1:] == [
        "lad-tiny",
        "b",
        "lad-tiny",
    ]
    assert "61.2 ± 2.5" in first
    assert "[59.0, 63.4]" in first


def test_the_terminal_shows_a_block_a_task_and_model():
    text = render([row(), row(model="b")], "rich")
    assert text.index("scenes_random_n4 · lad-tiny · 500 samples x 5 orders") < text.index("scenes_random_n4 · b")


def test_the_terminal_table_fits_80_columns():
    widest = row(
        method="permutation-average", accuracy=100.0, accuracy_std=12.5, accuracy_low=98.0, accuracy_high=100.0, rstd=57.7
    )
    assert max(len(line.rstrip()) for line in render([widest], "rich").splitlines()) <= 80


def test_columns_are_chosen_by_name():
    figures = {"flip": 12.34, "osi": 0.456, "ckld": 0.1234, "rsd": 0.5, "bias_score": 0.25}
    lines = render([row(**figures)], "rich", ["osi", "accuracy", "ckld", "rsd", "bias-score", "osi"]).splitlines()
    assert lines[2].split() == ["Method", "OSI", "±", "std", "CKLD", "RSD", "score"]
    assert lines[4].split() == ["vanilla", "0.46", "61.2", "±", "2.5", "0.123", "0.50", "0.25"]
    assert "12.3" in render([row(**figures)], "md")
    with pytest.raises(UserError, match=r"Unknown column 'ost'\. Choose from accuracy, .*Did you mean 'osi'"):
        render([row()], "rich", ["ost"])


def test_the_same_order_control_says_what_is_not_known():
    shown = ["d-same", "d-cross", "delta"]
    rows = [row(method="vanilla", d_cross=70.0), row(method="self-consistency", d_same=20.0, d_cross=75.0, delta=55.0)]
    lines = render(rows, "rich", shown).splitlines()
    assert [line.split() for line in lines[4:6]] == [["vanilla", "–", "70.0", "–"], ["self-consistency", "20.0", "75.0", "55.0"]]
    assert "vanilla: each order was answered once, so how much answers differ within one is not known" in " ".join(lines)
    assert "answered once" not in render(rows, "rich", ["d-cross"])
    assert "answered once" not in render(rows[1:], "rich", shown)


def test_replies_without_an_answer_have_a_column_where_there_are_any():
    assert "Unpar" not in render([row(), row(unparsable=None)], "rich")
    assert "Unpar-" in render([row(), row(unparsable=3)], "rich")
    assert "Unpar-" in render([row()], "rich", ["unparsable"])


def test_a_run_of_an_earlier_version_has_dashes_for_figures_that_it_lacks():
    lines = [line for line in render(rows_of(METRICS), "rich").splitlines() if line.startswith(("vanilla", "lad"))]
    assert [line.split()[-4:] for line in lines] == [["–", "–", "3", "1"], ["–", "–", "0", "1"]]


def test_latex_escapes_what_latex_would_read():
    assert r"lad\_tiny" in render([row(model="lad_tiny")], "latex")


def test_notes_of_the_data_stand_below_the_tables_once_each_and_are_no_markup():
    rows = rows_of({**METRICS, "notes": ["2 rows left out: [red]no output[/red]", "unpermuted"]})
    for form in ("rich", "md", "latex"):
        text = render(rows, form).replace("\\", "")
        assert text.count("t: 2 rows left out: [red]no output[/red]") == text.count("t: unpermuted") == 1


def test_a_note_of_several_tasks_and_models_stands_below_the_tables_once_and_names_the_tasks():
    tasks = [{**METRICS, "task": task, "model": model, "notes": ["2 rows left out"]} for task in "tuv" for model in "mn"]
    rows = [row for metrics in tasks for row in rows_of(metrics)]
    for form in ("rich", "md", "latex"):
        notes = [line.lstrip("%- ") for line in render(rows, form).splitlines() if "left out" in line]
        assert notes == ["t, u, v: 2 rows left out"]


@pytest.mark.parametrize(("samples", "said"), [(1, "1 sample: "), (3, "3 samples: "), (4, "4 samples: "), (5, None)])
def test_intervals_of_very_few_samples_are_said_to_say_little(samples, said):
    rows = [row(task=task, method=m, samples=samples) for task in ("t", "u") for m in ("vanilla", "lad")] + [row(task="large")]
    for form in ("rich", "md", "latex"):
        notes = [line.lstrip("%- ") for line in render(rows, form).splitlines() if "the intervals mean little" in line]
        assert notes == ([f"t, u: {said}the intervals mean little; run more samples."] if said else [])


def test_intervals_that_all_are_points_are_said_to_show_no_spread():
    exact = [row(method=m, accuracy=100.0, accuracy_low=100.0, accuracy_high=100.0) for m in ("vanilla", "lad")]
    published = row(samples=None, permutations=None, accuracy_low=None, accuracy_high=None, reported=True)
    for form in ("rich", "md", "latex"):
        assert render([*exact, published], form).count("scenes_random_n4: Every interval is a point") == 1
        assert "Every interval" not in render([*exact, row(method="pride")], form)
        assert "Every interval" not in render([published], form)


@pytest.mark.parametrize(("passes", "shown"), [(1.0, "1"), (1.15, "1.15"), (16.0, "16"), (3490.4, "3490"), (None, "–")])
def test_passes_are_shown_as_numbers_without_exponents(passes, shown):
    assert f" {shown} |" in render([row(forward_passes=passes)], "md")


def test_a_label_in_brackets_is_no_markup():
    assert "m [fedcba]" in render([row(model="m [fedcba]")], "rich")


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen2.5-VL-3B", True),
        ("qwen2.5-vl-3b-instruct", "Qwen2.5-VL-3B", True),
        ("OpenGVLab/InternVL3-8B-hf", "InternVL3-8B", True),
        ("lmms-lab/LLaVA-OneVision-1.5-8B-Instruct", "LLaVA-OneVision-1.5-8B", True),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2.5-VL-3B", False),
        ("Qwen/Qwen2.5-VL-3B-Instruct-AWQ", "Qwen2.5-VL-3B", False),
        ("Qwen/Qwen2-VL-2B-Instruct", "Qwen2.5-VL-3B", False),
        ("OpenGVLab/InternVL3-8B-Pretrained", "InternVL3-8B", False),
        ("lad-tiny", "Qwen2.5-VL-3B", False),
    ],
)
def test_a_models_published_name_is_known_again(ours, theirs, same):
    assert is_same_model(ours, theirs) is same


@pytest.mark.parametrize("form", FORMATS)
def test_no_rows_are_no_fault(form):
    render([], form)


def test_an_unknown_format_is_named():
    with pytest.raises(UserError, match=r"Unknown format 'html'. Choose from rich, md, latex, csv, json."):
        render([], "html")


def with_tests(accuracies, p):
    """Metrics of a run whose methods have these accuracies, every pair the same p-value but those in `p`."""
    one = METRICS["methods"]["lad"]
    methods = {name: {**one, "accuracy": {**one["accuracy"], "value": value}} for name, value in accuracies.items()}
    names = list(accuracies)
    tests = {a: {b: p.get((a, b), 0.001) for b in names[i + 1 :]} for i, a in enumerate(names[:-1])}
    return {**METRICS, "methods": methods, "tests": {"accuracy": tests}}


def test_what_is_no_worse_than_the_best_is_marked_after_holm():
    """Against lad, the best: 0.03 for pride and 0.001 for vanilla; Holm: 0.001 * 2, 0.03 * 1. With a third of 0.03: 0.03 * 2."""
    metrics = with_tests({"vanilla": 50.0, "lad": 90.0, "pride": 88.0, "a": 87.0}, {("lad", "pride"): 0.03, ("lad", "a"): 0.03})
    assert [r.p_best for r in rows_of(metrics)] == [pytest.approx(0.003), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert [r.p_best for r in rows_of(metrics, ["pride", "lad", "vanilla"])] == [pytest.approx(0.03), None, pytest.approx(0.002)]
    for form in ("rich", "md", "latex"):
        text = render(rows_of(metrics), form).replace(r"$^{\dagger}$", "†")
        assert text.count("†") == 3  # two rows and the legend
        assert "†" not in render(rows_of(metrics, ["pride", "lad", "vanilla"]), form)
    assert json.loads(render(rows_of(metrics), "json"))[2]["p_best"] == pytest.approx(0.06)


def test_where_nothing_was_tested_nothing_is_marked():
    assert [r.p_best for r in rows_of(METRICS)] == [None, None]
    assert rows_of(with_tests({"lad": 90.0}, {}))[0].p_best is None
