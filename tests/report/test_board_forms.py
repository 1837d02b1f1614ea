"""The leaderboard's forms: the same figures everywhere, safe text, marks with their legend."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest

from lad_eval.errors import UserError
from lad_eval.metrics import Significance
from lad_eval.report.forms import terminal
from lad_eval.report.leaderboard_forms import FORMATS, Board, BoardLine, TaskFigures, render_board, table_of

BEST, TIED, WORSE = Significance(True, 1, 1), Significance(False, 0.4, 0.4), Significance(False, 0.001, 0.002)


def cell(accuracy, **changes):
    return TaskFigures(accuracy, 5.0, 80.25, **{"samples": 20, "permutations": 5, "unparsable": 0, "passes": 1.0, **changes})


@pytest.fixture
def board():
    return Board(
        tasks=("x_n4", "y"),
        lines=(
            BoardLine("a|<b>&_", "lad", {"x_n4": cell(91.04, significance=BEST), "y": cell(70, mark="a", passes=4.0)}),
            BoardLine("a|<b>&_", "pride", {"x_n4": cell(90, significance=TIED, unparsable=3)}),
            BoardLine("c", "vanilla", {"x_n4": cell(40, significance=WORSE), "y": TaskFigures(None, None, None)}),
            BoardLine("M (reported)", "lad", {"y": TaskFigures(94.9, 4.2, None)}, reported=True),
        ),
        marks={"a": "bfloat16"},
        notes=("a note\non two lines",),
    )


@pytest.mark.parametrize("form", ["rich", "md", "latex", "html"])
def test_people_see_every_figure_mark_and_note(board, form):
    text = render_board(board, form)
    dagger = r"$^{\dagger}$" if form == "latex" else "†"
    for expected in (
        "91.0",
        f"90.0{dagger}",
        "70.0 [a]",
        "40.0",
        "94.9",
        "[a]",
        "bfloat16",
        "a note on two lines",
        "3 of 100 replies",
    ):
        assert expected in text or expected in text.replace("\\", "")
    assert f"40.0{dagger}" not in text
    assert f"91.0{dagger}" not in text


def test_the_best_is_bold(board):
    assert "**91.0**" in render_board(board, "md")
    assert r"\textbf{91.0}" in render_board(board, "latex")
    assert "<strong>91.0</strong>" in render_board(board, "html")
    text = terminal(table_of(board))
    assert any("91.0" in text.plain[span.start : span.end] for span in text.spans if span.style == "bold")


def test_markdown_is_one_table_of_equal_rows(board):
    lines = [line for line in render_board(board, "md").splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3 + 2 * 3 + 1}
    assert r"a\|\<b\>&_" in lines[2]
    assert render_board(board, "md").startswith("<!-- Written by")


def test_latex_escapes_and_has_as_many_cells_in_every_row(board):
    rows = [line for line in render_board(board, "latex").splitlines() if line.endswith(r"\\")]
    assert all(len(re.findall(r"(?<!\\)&", row)) == 8 for row in rows[1:])
    assert r"a|$<$b$>$\&\_ & lad & 1--4" in rows[2]
    assert r"\multicolumn{3}{c}{x\_n4}" in rows[0]


def test_html_is_well_formed_and_escaped(board):
    class Parser(HTMLParser):
        open: list[str] = []  # noqa: RUF012
        text = ""

        def handle_starttag(self, tag, attrs):
            self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

        def handle_data(self, data):
            self.text += data

    parser = Parser()
    parser.feed(render_board(board, "html"))
    assert parser.open == []
    assert "a|<b>&_" in parser.text


def test_csv_and_json_have_every_figure_unrounded(board):
    table = list(csv.DictReader(io.StringIO(render_board(board, "csv"))))
    assert [row["x_n4.accuracy"] for row in table] == ["91.04", "90", "40", ""]
    assert (table[1]["x_n4.tied"], table[1]["x_n4.p_holm"], table[0]["x_n4.best"]) == ("True", "0.4", "True")
    document = json.loads(render_board(board, "json"))
    assert [line["tasks"].keys() for line in document] == [{"x_n4", "y"}, {"x_n4"}, {"x_n4", "y"}, {"y"}]
    assert document[0]["tasks"]["x_n4"]["accuracy"] == 91.04
    theirs = document[3]["tasks"].pop("y")
    assert document[3] == {
        "model": "M (reported)",
        "label": "M (reported)",
        "limit": None,
        "calibrated_on": None,
        "method": "lad",
        "reported": True,
        "tasks": {},
    }
    assert (theirs["accuracy"], theirs["rstd"], theirs["consistency"], theirs["samples"], theirs["best"]) == (
        94.9,
        4.2,
        None,
        None,
        False,
    )


def test_tasks_that_do_not_fit_side_by_side_stand_below_each_other(board):
    narrow = terminal(table_of(board), 60).plain
    assert max(map(len, narrow.partition("\n\nBold")[0].splitlines())) <= 60
    assert narrow.count("Model") == 2
    assert terminal(table_of(board), 140).plain.count("Model") == 1


def test_no_marks_no_legend(board):
    plain = Board(("y",), (BoardLine("m", "lad", {"y": cell(5)}),))
    assert "Bold" not in render_board(plain, "rich")
    with pytest.raises(UserError, match=r"Unknown format 'xml'\. Choose from rich, md, latex, html, csv, json"):
        render_board(plain, "xml")
    assert set(FORMATS) == {"rich", "md", "latex", "html", "csv", "json"}
