import csv
import io

import numpy as np
import pytest

from lad_eval.errors import UserError
from lad_eval.metrics import UNPARSABLE, Predictions
from lad_eval.studies import STUDIES
from lad_eval.studies.charts import draw
from lad_eval.studies.confusion import confusion
from lad_eval.studies.family import families, family
from lad_eval.studies.measure import measured
from lad_eval.studies.need import Need, merged
from lad_eval.studies.page import page
from lad_eval.studies.render import comma_separated, latex, markdown
from lad_eval.studies.sheet import Chart, Cloud, Line, Lines, Matrix, Measured, Sheet, Table

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
    assert confusion(table).tolist() == [[50, 0], [100, 0]]


def test_best_and_ties():
    right = answers([[0, 1]] * 40, [0] * 40)
    one_off = answers([[0, 1]] * 39 + [[1, 1]], [0] * 40)
    biased = answers([[0, 0]] * 40, [0] * 40)
    cells = {name: cell for name, (_, cell) in measured({"a": right, "b": one_off, "c": biased}, seed=0).items()}
    assert (cells["a"].best, cells["a"].tied) == (True, False)
    assert (cells["b"].best, cells["b"].tied) == (False, True)  # one discordant sample: p = 1
    assert (cells["c"].best, cells["c"].tied) == (False, False)
    assert cells["c"].value == 50


TABLE = Table(
    "A_title",
    ("Method", "Accuracy", "n"),
    (("lad", Measured(99.04, 98.26, 99.6, best=True), 3), ("50 % & more", Measured(97.0, 96.0, 98.0, tied=True), None)),
    ("a note",),
    reported=(("lad (reported)", 94.94, None),),
)
SHEET = Sheet("table4", "Ablation", (TABLE,), missing=("MMIU: no data.",))


def test_markdown():
    text = markdown(SHEET)
    assert text.startswith("## Table 4: Ablation")
    assert "**99.0 [98.3, 99.6]**" in text
    assert "97.0 [96.0, 98.0] †" in text
    assert "Not shown: MMIU: no data." in text


def test_latex_escapes_and_separates_what_is_reported():
    lines = latex(SHEET).splitlines()
    assert r"50 \% \& more & 97.0 {\scriptsize[96.0, 98.0]}$^\dagger$ & – \\" in lines
    assert lines.index(r"lad (reported) & 94.9 & – \\") == len(lines) - 3
    assert lines[-4] == r"\midrule"


def test_csv_has_full_precision_and_intervals():
    rows = list(csv.reader(io.StringIO(comma_separated(TABLE))))
    assert rows[0] == ["Method", "Accuracy", "Accuracy low", "Accuracy high", "n"]
    assert rows[1] == ["lad", "99.04", "98.26", "99.6", "3"]
    assert rows[3] == ["lad (reported)", "94.94", "", "", ""]


def test_page_escapes_and_asks_nothing_of_the_outside():
    hostile = Table("<script>alert(1)</script>", ("</table>",), (("<img src=x onerror=alert(1)>",),))
    html = page([Sheet("table1", "t", (hostile,))], model="<b>m</b>", tasks="t", version="0")
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "<b>m</b>" not in html
    assert 'src="http' not in html
    assert "default-src 'none'" in html


@pytest.mark.parametrize(
    "panel",
    [
        Matrix("m", np.array([[100.0, 0.0], [np.nan, 3.0]]), "x", "y", ("1", "2")),
        Lines("l", (Line("lad", np.array([1.0, 2.0]), np.array([3.0, 4.0])),), "x", "y", log_x=True),
        Cloud("c", np.array([0.1, 0.9]), np.array([0.2, 0.3]), "x", "y"),
    ],
)
def test_charts_are_the_same_twice(panel):
    chart = Chart("c", "t", (panel,), "alt")
    first = draw(chart, "svg")
    assert first == draw(chart, "svg")
    assert first.startswith(b"<?xml")
    assert draw(chart, "pdf").startswith(b"%PDF")


def test_needs_are_merged_by_label():
    needs = merged(
        [Need("t", ("a",)), Need("t", ("b", "a")), Need("t", ("a",), identifiers="A.."), Need("t", calibration_samples=9)]
    )
    assert [(n.label, n.methods) for n in needs] == [("t", ("a", "b")), ("t-letters", ("a",)), ("t-calibration9", ())]


def test_a_changed_task_asks_otherwise():
    task = Need("scenes_random_n4", identifiers="I..", calibration_samples=7).open()
    assert (task.name, task.identifiers) == ("scenes_random_n4-roman-calibration7", ("I", "II", "III", "IV"))
    assert len(list(task.samples("calibration"))) == 7


def test_families():
    assert "scenes" in families()
    assert family("scenes").main()[0] == ("random", 4, "scenes_random_n4")
    with pytest.raises(UserError, match="There is no family of tasks 'cats'; there are "):
        family("cats")


def test_every_study_names_itself():
    assert all(name == study.name and study.title for name, study in STUDIES.items())
