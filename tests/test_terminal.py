"""Text of others on a terminal, in CSV cells, and on consoles that know ASCII only."""

import csv
import io
import json
import logging
import sys

import pytest

from lad_eval.cli.console import log_to_stderr, print_error
from lad_eval.cli.main import invoke
from lad_eval.report.render import render
from lad_eval.run.folder.rows import Row
from lad_eval.terminal import degrade_output, plain_cell, visible, write_json

HOSTILE = "\x1b[31mred\x1b[0m\x07\x08\r\x9b2J\u202egnp.exe\u2066\u200b\ud800"


def row(**changes):
    values = {
        "model": "m", "task": "t", "method": "lad", "samples": 3, "permutations": 2, "accuracy": 50.0, "accuracy_std": 1.0,
        "accuracy_low": 0.0, "accuracy_high": 100.0, "rstd": -0.5, "consistency": 1.0, "unparsable": 0, "forward_passes": 1.0,
    }  # fmt: skip
    return Row(**{**values, **changes})


def test_control_characters_are_shown_and_text_stays():
    assert visible(HOSTILE) == r"\x1b[31mred\x1b[0m\x07\x08\r\x9b2J\u202egnp.exe\u2066\u200b\ud800"
    assert visible("größe — 漢字 👩‍🔬 עברית") == "größe — 漢字 👩‍🔬 עברית"
    assert visible("a\tb\nc") == r"a\tb\nc"
    assert visible("a\tb\nc\x1b", line=False) == "a\tb\nc\\x1b"


@pytest.mark.parametrize("form", ["rich", "md", "latex", "csv"])
def test_tables_obey_no_name_and_no_note(form):
    text = render([row(model=HOSTILE, notes=(f"{HOSTILE}\n{HOSTILE}",))], form)
    assert not [sign for sign in text if (ord(sign) < 32 and sign != "\n") or sign in "\x9b\u202e\u2066\ud800"]
    if form == "latex":
        assert all(line.startswith("%") for line in text.splitlines() if "gnp" in line and "&" not in line)


def test_errors_warnings_and_progress_are_one_line_each(capsys):
    print_error(f"Unknown task {HOSTILE}\n{HOSTILE}.")
    log_to_stderr(quiet=False)
    logging.getLogger("lad_eval").warning("%s\n%s", HOSTILE, "second")
    err = capsys.readouterr().err
    assert err.count("\n") == 2
    assert "\x1b" not in err
    assert err.startswith(r"error: Unknown task \x1b[31mred")


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_text_in_csv_is_no_formula_and_numbers_stay_numbers(sign):
    hostile = f"{sign}HYPERLINK(0)"
    (read,) = csv.DictReader(io.StringIO(render([row(model=hostile)], "csv")))
    assert read["model"].startswith("'")
    assert read["rstd"] == "-0.5"
    assert plain_cell(-3) == -3
    assert plain_cell("a-b") == "a-b"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_console_that_cannot_write_a_sign_gets_a_plainer_one(monkeypatch, encoding):
    console = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", console)
    degrade_output()
    console.write("99.0 ± 0.2† ─ 漢 \udcff\n")
    console.flush()
    text = console.buffer.getvalue().decode(encoding)
    assert (
        text
        == {
            "ascii": "99.0 + 0.2+ - \\u6f22 \\udcff\n",
            "cp1252": "99.0 ± 0.2† - \\u6f22 \\udcff\n",
            "utf-8": "99.0 ± 0.2† ─ 漢 \\udcff\n",
        }[encoding]
    )


def test_json_on_stdout_is_ascii_and_says_the_same(capsys):
    document = {"model": "größe\x1b", "list": [1.5, None]}
    write_json(json.dumps(document, ensure_ascii=False))
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == document


class TestLastResort:
    @pytest.fixture
    def broken(self, monkeypatch):
        """`lad-eval ls` fails in a way that nobody foresaw."""

        def make(error):
            def fail(what):
                raise error

            monkeypatch.setattr("lad_eval.cli.inspect.listing", fail)

        return make

    def test_what_nobody_foresaw_is_one_line_and_code_70(self, broken, capsys, monkeypatch):
        monkeypatch.delenv("LAD_EVAL_DEBUG", raising=False)
        broken(KeyError("layers\nand more\x1b"))
        assert invoke(["ls", "tasks"]) == 70
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("error: This is a bug in lad_eval: KeyError: 'layers")
        assert err.endswith("Run it again with --debug for the traceback, and report it.\n")

    @pytest.mark.parametrize("where", ["before", "behind", "environment"])
    def test_the_traceback_is_there_for_who_asks(self, broken, capsys, monkeypatch, where):
        broken(KeyError("layers"))
        monkeypatch.setenv("LAD_EVAL_DEBUG", "1" if where == "environment" else "0")
        words = {"before": ["--debug", "ls", "tasks"], "behind": ["ls", "tasks", "--debug"], "environment": ["ls", "tasks"]}
        assert invoke(words[where]) == 70
        err = capsys.readouterr().err
        assert "Traceback (most recent call last)" in err
        assert "This is a bug in lad_eval: KeyError: 'layers'" in err

    def test_disks_and_permissions_are_the_users_to_mend(self, broken, capsys):
        broken(PermissionError(13, "Permission denied", "/x/y"))
        assert invoke(["ls", "tasks"]) == 2
        assert capsys.readouterr().err == "error: Cannot use /x/y: Permission denied.\n"
        broken(MemoryError())
        assert invoke(["ls", "tasks"]) == 2
        assert "Out of memory; use a smaller --batch-size or --limit" in capsys.readouterr().err

    def test_a_line_ends_somewhere(self, capsys):
        assert invoke(["run", "-m", "lad-tiny", "-t", "x" * 100_000]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert len(err) < 2100
