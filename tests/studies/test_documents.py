import csv
import io

import numpy as np
import pytest

from lad_eval.errors import UserError
from lad_eval.metrics import UNPARSABLE, Predictions
from lad_eval.report.charts import draw
from lad_eval.report.forms import comma_separated
from lad_eval.report.panels import Chart, DensityPlot, HeatMap, LinePlot, Series
from lad_eval.report.table import Table, figure, p_value
from lad_eval.studies.document import StudyDocument
from lad_eval.studies.lad import STUDY_PARTS
from lad_eval.studies.lad.family import families, task_family
from lad_eval.studies.lad.figures import confusion_shares, mean_by_position
from lad_eval.studies.lad.tables import against_plain
from lad_eval.studies.output import StudyReport, page
from lad_eval.studies.requirement import Requirement, merged
from lad_eval.studies.tables import mark_notes, measured

ORDERS = np.array([[0, 1], [1, 0]])


def answers(predicted, gold_image):
    """Predictions of samples with two images under both orders; `predicted` has a row a sample."""
    samples = len(predicted)
    perm = np.tile(ORDERS, (samples, 1))
    gold = np.array([list(order).index(image) for image in gold_image for order in ORDERS])
    names = np.repeat([f"s{i}" for i in range(samples)], 2)
    return Predictions(names, np.tile([0, 1], samples), gold, np.ravel(predicted), perm)


def test_confusion_by_hand():
    # gold image 0: positions 0, 1; answered 0 both times. Gold image 1: positions 1, 0; answered 0 and nothing.
    table = answers([[0, 0], [0, UNPARSABLE]], [0, 1])
    assert confusion_shares(table).tolist() == [[50, 0], [100, 0]]


def test_profiles_by_hand():
    values = np.array([[0.8, 0.2], [0.6, 0.4]])
    found = mean_by_position(values, np.array([0, 0]))
    assert found[0] == pytest.approx([0.7, 0.3])
    assert np.isnan(found[1]).all()


def test_best_and_ties():
    right = answers([[0, 1]] * 40, [0] * 40)
    one_off = answers([[0, 1]] * 39 + [[1, 1]], [0] * 40)
    biased = answers([[0, 0]] * 40, [0] * 40)
    cells = {name: cell for name, (_, cell) in measured({"a": right, "b": one_off, "c": biased}, seed=0).items()}
    assert (cells["a"].best, cells["a"].tied) == (True, False)
    assert (cells["b"].best, cells["b"].tied) == (False, True)  # one discordant sample: p = 1
    assert (cells["c"].best, cells["c"].tied) == (False, False)
    assert cells["c"].value == 50


def test_marks_say_what_they_could_not_show():
    # One of 40 samples differs, by half its orders: gains of 50 points once, else 0; standard deviation 50 / sqrt(40) = 7.906;
    # detectable: 2.802 * 7.906 / sqrt(40) = 3.50.
    right, one_off = answers([[0, 1]] * 40, [0] * 40), answers([[0, 1]] * 39 + [[1, 1]], [0] * 40)
    worse = answers([[0, 0]] * 40, [0] * 40)
    notes = mark_notes([{"a": right, "b": one_off, "c": worse}, {"a": right, "b": worse, "c": worse}])
    assert "of a row with † from the best: 3.5 / – points" in notes[1]
    few = {"a": answers([[0, 1]] * 6, [0] * 6), "b": answers([[0, 0]] * 6, [0] * 6), "c": answers([[1, 1]] * 6, [0] * 6)}
    assert mark_notes([few])[1] == "With 6 samples no difference can be significant: † says nothing here."  # 2 * 2 / 2**6
    seven = {name: answers([[0, int(name == "a")]] * 7, [0] * 7) for name in "abc"}
    assert len(mark_notes([seven])) == 1  # 2 * 2 / 2**7 = 0.031
    assert not any(cell.tied for _, cell in measured(seven, seed=0).values())


def test_against_the_plain_answer():
    plain = answers([[0, 0]] * 7, [0] * 7)
    better = answers([[0, 1]] * 7, [0] * 7)
    table = against_plain("t", {"vanilla": plain, "lad": better, "same": plain}, seed=0)
    lad, same = table.rows
    assert lad[1] == figure(50, 50, 50)
    assert lad[4:6] == (7, 0)
    assert lad[6] == p_value(2 * 2 / 2**7)  # McNemar 2 / 2**7, Holm of two
    assert same[4:7] == (0, 0, p_value(1.0))


TABLE = Table(
    "A_title",
    ("Method", "Accuracy", "n"),
    (("lad", figure(99.04, 98.26, 99.6, best=True), 3), ("50 % & more", figure(97.0, 96.0, 98.0, tied=True), None)),
    ("a note",),
    reported=(("lad (reported)", 94.94, None),),
)
DOCUMENT = StudyDocument("table4", "Ablation", (TABLE,), missing=("MMIU: no data.",))


def test_markdown():
    text = DOCUMENT.markdown()
    assert text.startswith("## Table 4: Ablation")
    assert "**99.0** [98.3, 99.6]" in text
    assert "97.0† [96.0, 98.0]" in text
    assert "Not shown: MMIU: no data." in text


def test_latex_escapes_and_separates_what_is_reported():
    lines = DOCUMENT.latex().splitlines()
    assert r"50 \% \& more & 97.0$^{\dagger}$ {\scriptsize[96.0, 98.0]} & -- \\" in lines
    theirs = lines.index(r"lad (reported) & 94.9 & -- \\")
    assert (lines[theirs - 1], lines[theirs + 1]) == (r"\midrule", r"\bottomrule")


def test_p_values_and_words():
    table = Table("t", ("p", "word", "n / m"), ((p_value(0.0005), "a < {b}^2~", "1 / 2"), (p_value(0.0412), "\\", "3")))
    text = StudyDocument("table1", "t", (table,)).markdown()
    assert "< 0.001" in text
    assert "0.041" in text
    tex = StudyDocument("table1", "t", (table,)).latex()
    assert r"$<$ 0.001 & a $<$ \{b\}\textasciicircum{}2\textasciitilde{} & 1 / 2 \\" in tex
    assert r"0.041 & \textbackslash{} & 3 \\" in tex
    assert r"\begin{tabular}{rlr}" in tex
    assert comma_separated(table).splitlines()[1].startswith("0.0005,")


def test_csv_has_full_precision_and_intervals():
    rows = list(csv.reader(io.StringIO(comma_separated(TABLE))))
    assert rows[0] == ["Method", "Accuracy", "Accuracy low", "Accuracy high", "n"]
    assert rows[1] == ["lad", "99.04", "98.26", "99.6", "3"]
    assert rows[3] == ["lad (reported)", "94.94", "", "", ""]


def test_page_escapes_and_asks_nothing_of_the_outside():
    hostile = Table("<script>alert(1)</script>", ("</table>",), (("<img src=x onerror=alert(1)>",),))
    html = page(StudyReport("s", "<b>m</b>", "<i>i</i>", "p", "1", (StudyDocument("table1", "t", (hostile,)),)))
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "<b>m</b>" not in html
    assert "<i>i</i>" not in html
    assert 'src="http' not in html
    assert "default-src &#39;none&#39;" in html


@pytest.mark.parametrize(
    "panel",
    [
        HeatMap("m", np.array([[100.0, 0.0], [np.nan, 3.0]]), "x", "y", ("1", "2")),
        LinePlot("l", (Series("lad", np.array([1.0, 2.0]), np.array([3.0, 4.0])),), "x", "y", log_x=True),
        DensityPlot("c", np.array([0.1, 0.9]), np.array([0.2, 0.3]), "x", "y"),
    ],
)
def test_charts_are_the_same_twice(panel):
    chart = Chart("c", "t", (panel,), "alt")
    first = draw(chart, "svg")
    assert first == draw(chart, "svg")
    assert first.startswith(b"<?xml")
    assert draw(chart, "pdf").startswith(b"%PDF")


def test_requirements_are_merged_by_label():
    requirements = merged(
        [
            Requirement("t", ("a",)),
            Requirement("t", ("b", "a")),
            Requirement("t", ("a",), identifiers="A.."),
            Requirement("t", calibration_samples=9),
        ]
    )
    assert [(n.label, n.methods) for n in requirements] == [("t", ("a", "b")), ("t-letters", ("a",)), ("t-calibration9", ())]


def test_a_requirement_is_optional_only_if_all_say_so():
    assert [n.optional for n in merged([Requirement("t", optional=True), Requirement("t"), Requirement("u", optional=True)])] == [
        False,
        True,
    ]


def test_a_changed_task():
    task = Requirement("scenes_random_n4", identifiers="I..", calibration_samples=7).load_task()
    assert (task.name, task.identifiers) == ("scenes_random_n4-roman-calibration7", ("I", "II", "III", "IV"))
    assert len(list(task.samples("calibration"))) == 7


def test_families():
    assert "scenes" in families()
    assert task_family("scenes").main()[0] == ("random", 4, "scenes_random_n4")
    with pytest.raises(UserError, match="Unknown family of tasks 'cats'; there are "):
        task_family("cats")


def test_every_part_names_itself():
    assert all(name == part.name and part.title for name, part in STUDY_PARTS.items())
