"""A table in every form: the same figures and marks, and text of any origin stays text."""

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from lad_eval.report.forms import comma_separated, html, latex, markdown, terminal
from lad_eval.report.table import SOFT_HYPHEN, Cell, Table, figure, p_value

HOSTILE = [
    "a|b",
    "<i>&amp;",
    '"quoted", twice',
    "=1+1",
    "[x]",
    "50 % of $3_#~^{\\}",
    "two\nlines",
    "\x1b[31mred",
    "*bold* `code`",
]


@pytest.fixture
def table():
    return Table(
        "Figures of_all",
        ("Method", f"Accu{SOFT_HYPHEN}racy\n(points)", "p", "n"),
        (
            ("lad", figure(91.04, 88.26, 93.5, best=True), p_value(None), 20),
            ("pride", figure(90.0, 85.0, 94.96, tied=True), p_value(0.0412), 20),
            ("vanilla", figure(float("nan")), p_value(0.0004), None),
        ),
        ("A note\non two lines.",),
        reported=(("lad (reported)", 94.94, None, None),),
    )


def test_a_terminal_aligns_breaks_names_and_leaves_room_for_the_dagger(table):
    assert terminal(table, 80).plain.splitlines() == [
        "Figures of_all",
        "                             Accu-",
        "                              racy",
        "Method                    (points)        p   n",
        "───────────────────────────────────────────────",
        "lad             91.0  [88.3, 93.5]        –  20",
        "pride           90.0† [85.0, 95.0]    0.041  20",
        "vanilla                         –   < 0.001   –",
        "lad (reported)               94.9         –   –",
        "",
        "A note on two lines.",
    ]


def test_a_terminal_shows_the_best_bold_and_what_is_reported_dim(table):
    text = terminal(table)
    styled = {style: [text.plain[s.start : s.end].strip() for s in text.spans if s.style == style] for style in ("bold", "dim")}
    assert "91.0  [88.3, 93.5]" in styled["bold"]
    assert not any("90.0" in part for part in styled["bold"])
    assert "94.9" in styled["dim"]


def test_a_narrow_terminal_folds_the_words_and_never_the_figures():
    long = Table("", ("Method", "n"), (("a name of several words", 100), ("another-without-any", 7)))
    assert terminal(long, 20).plain.splitlines() == [
        "Method             n",
        "────────────────────",
        "a name of        100",
        "several words",
        "another-without    7",
        "-any",
    ]
    assert max(map(len, terminal(long, 4).plain.splitlines())) == 8 + 2 + 3  # words in eight columns, figures whole


def test_names_of_methods_are_folded_behind_their_signs_and_stay_apart():
    names = ("instruction+fastv(keep=0.25,layer=3)+lad", "instruction+fastv(keep=0.25,layer=2)+lad", "vanilla")
    folded = terminal(Table("", ("Method", "n"), [(name, 7) for name in names]), 24).plain.splitlines()[2:]
    assert folded == [
        "instruction+fastv(     7",
        "keep=0.25,layer=3)+",
        "lad",
        "instruction+fastv(     7",
        "keep=0.25,layer=2)+",
        "lad",
        "vanilla                7",
    ]


def test_columns_without_names_have_no_rule_and_words_may_be_folded_last():
    listing = Table("", ("", ""), (("lad", "the first of two words"), ("sofa", "short")), fold=-1)
    assert terminal(listing, 20).plain.splitlines() == ["lad   the first of", "      two words", "sofa  short"]


def test_groups_that_do_not_fit_stand_below_each_other_beside_the_first():
    groups = [("", 1), *((f"task_{i}", 2) for i in range(3))]
    wide = Table("", ("Method", *("Acc", "RStd") * 3), (("lad", *(float(i) for i in range(6))),), groups=groups)
    assert terminal(wide, 30).plain.splitlines() == [
        "        task_0     task_1",
        "Method  Acc  RStd  Acc  RStd",
        "────────────────────────────",
        "lad     0.0   1.0  2.0   3.0",
        "",
        "        task_2",
        "Method  Acc  RStd",
        "─────────────────",
        "lad     4.0   5.0",
    ]
    assert terminal(wide, 80).plain.count("Method") == 1
    assert r" & \multicolumn{2}{c}{task\_0} & " in latex(wide)
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5} \cmidrule(lr){6-7}" in latex(wide)
    assert "task_1<br>Acc" in markdown(wide)
    assert '<td colspan="1"></td><th colspan="2" scope="colgroup">task_0</th>' in html(wide)


def test_markdown(table):
    title, head, rule, lad, pride, vanilla, theirs, note = [line for line in markdown(table).splitlines() if line]
    assert title == "### Figures of_all"
    assert [cell.strip() for cell in head.split("|")[1:-1]] == ["Method", "Accuracy (points)", "p", "n"]
    assert re.fullmatch(r"\|:-+\|-+:\|-+:\|-+:\|", rule)
    assert "| **91.0** [88.3, 93.5] |" in lad
    assert "| 90.0† [85.0, 95.0] |" in re.sub(" +", " ", pride)
    assert re.sub(" +", " ", vanilla) == "| vanilla | – | < 0.001 | – |"
    assert "94.9" in theirs
    assert note == "- A note on two lines."


def test_latex(table):
    assert latex(table).splitlines() == [
        "% Figures of_all",
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r"Method & Accuracy (points) & p & n \\",
        r"\midrule",
        r"lad & \textbf{91.0} {\scriptsize[88.3, 93.5]} & -- & 20 \\",
        r"pride & 90.0$^{\dagger}$ {\scriptsize[85.0, 95.0]} & 0.041 & 20 \\",
        r"vanilla & -- & $<$ 0.001 & -- \\",
        r"\midrule",
        r"lad (reported) & 94.9 & -- & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
        "% A note on two lines.",
    ]


def test_csv_is_not_rounded_and_has_the_ends_of_intervals(table):
    rows = list(csv.reader(io.StringIO(comma_separated(table))))
    assert rows[0] == ["Method", "Accuracy (points)", "Accuracy (points) low", "Accuracy (points) high", "p", "n"]
    assert rows[1] == ["lad", "91.04", "88.26", "93.5", "", "20"]
    assert rows[4] == ["lad (reported)", "94.94", "", "", "", ""]


def test_html(table):
    text = html(table)
    assert '<tr><th scope="row">lad</th><td><strong>91.0</strong> <span class="interval">[88.3, 93.5]</span></td>' in text
    assert '<td>90.0† <span class="interval">[85.0, 95.0]</span></td>' in text
    assert '<tr class="reported"><th scope="row">lad (reported)</th>' in text
    assert '<p class="note">A note on two lines.</p>' in text
    assert "Figures of_all" not in text  # a page gives the title its own place


class Words(HTMLParser):
    """The texts of the cells of the first column, and the elements that there are."""

    def __init__(self):
        super().__init__()
        self.rows, self.tags, self.inside = [], set(), False

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.inside = dict(attrs).get("scope") == "row"
        if self.inside:
            self.rows.append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.rows[-1] += data


class TestTextOfAnyOrigin:
    @pytest.fixture
    def hostile(self):
        return Table("<b>|_%\n\x1b", ("Name", "n"), [(text, 1) for text in HOSTILE], [f"of {text}" for text in HOSTILE])

    def test_a_terminal_obeys_nothing(self, hostile):
        text = terminal(hostile).plain
        assert "\x1b" not in text
        assert r"\x1b[31mred" in text
        assert r"two\nlines" in text

    def test_markdown_has_equal_rows_and_no_markup(self, hostile):
        text = markdown(hostile)
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len(rows) == 2 + len(HOSTILE)
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
        assert not re.search(r"(?<!\\)[<*`\[]", text)
        assert r"a\|b" in text

    def test_latex_has_equal_rows_and_comments_of_one_line(self, hostile):
        text = latex(hostile)
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len(rows) == 1 + len(HOSTILE)
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {1}
        assert r"50 \% of \$3\_\#\textasciitilde{}\textasciicircum{}\{\textbackslash{}\} & 1 \\" in rows
        assert r"{}[x] & 1 \\" in rows  # \\ of the row before would take [x] for its option
        assert all(line.startswith("%") for line in text.splitlines()[len(rows) + 6 :])

    def test_csv_reads_back_and_is_no_formula(self, hostile):
        names = [row[0] for row in csv.reader(io.StringIO(comma_separated(hostile)))][1:]
        assert names[:3] == HOSTILE[:3]
        assert names[3] == "'=1+1"
        assert names[6:8] == [r"two\nlines", r"\x1b[31mred"]

    def test_html_has_the_texts_and_no_element_of_theirs(self, hostile):
        parser = Words()
        parser.feed(html(hostile))
        assert parser.rows[:6] == HOSTILE[:6]
        assert parser.tags == {"table", "thead", "tbody", "tr", "th", "td", "p"}

    @pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
    def test_latex_compiles(self, hostile, tmp_path):
        source = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + latex(hostile) + "\n\\end{document}\n"
        (tmp_path / "t.tex").write_text(source)
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_a_cell_may_show_other_text_than_its_value():
    table = Table("", ("n",), ((Cell(1500, "1500* x 5"),),))
    assert table.left == [False]
    assert comma_separated(table).splitlines()[1] == "1500"
    assert "1500* x 5" in markdown(table)
