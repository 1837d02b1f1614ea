"""What a user brings to a command: methods of a file, folders of tasks."""

import pytest

from lad_eval.cli.main import invoke
from lad_eval.methods import METHODS
from lad_eval.tasks import registry

METHOD = """
from lad_eval.methods import EvidenceMethod

class Last(EvidenceMethod):
    \"\"\"The last position.\"\"\"
    name = "own-last-{n}"
    def _scores(self, evidence):
        return evidence.log_probs * 0 + range(evidence.n_candidates)
"""
TASK = "source: scenes\ncandidates: 3\nsamples: 4\n"


@pytest.fixture(autouse=True)
def as_a_process_of_its_own(monkeypatch):
    """A command adds names for as long as its process lasts; other tests must not see them."""
    for table in ("_entries", "_origins", "_values"):
        monkeypatch.setattr(METHODS, table, dict(getattr(METHODS, table)))


def test_a_method_of_a_file_is_run_and_joined(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(METHOD.format(n=1))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "own_n3.yaml").write_text(TASK)
    words = ["--model", "random:llava-1.5", "--tasks", "own_n3", "--include-path", "tasks", "--runs", "runs", "--quiet", "--json"]
    assert invoke(["run", *words, "--methods", "vanilla,instruction+mine.py:Last"]) == 0
    assert '"instruction+own-last-1"' in capsys.readouterr().out
    assert invoke(["score", "runs", "--methods", "mine.py:Last", "--json"]) == 0
    assert '"own-last-1"' in capsys.readouterr().out
    assert invoke(["run", *[w for w in words if w not in ("--include-path", "tasks")]]) == 2
    assert "Unknown task 'own_n3'." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "named", "says"),
    [
        (None, "sp ace.py:Last", "'sp ace.py:Last' has a space in its path, which --methods cannot parse; rename the file"),
        (None, "mine.py:Last", "No such file: mine.py; --methods takes file.py:Class."),
        ("1 / 0", "mine.py:Last", "mine.py cannot be loaded: ZeroDivisionError: division by zero."),
        ("", "mine.py:Last", "mine.py has no 'Last'; write --methods mine.py:<name of the class>."),
        (
            "class Last: name = 'own-2'",
            "mine.py:Last",
            "the method 'own-2' must be a subclass of lad_eval.methods.Method",
        ),
        (
            METHOD.replace("own-last-{n}", "lad"),
            "mine.py:Last",
            "the method name 'lad' is taken by lad_eval; choose another name.",
        ),
        *(
            (METHOD.replace("own-last-{n}", name), "mine.py:Last", f"the method name {name!r} is taken by lad_eval")
            for name in ("sofa", "fastv", "generate", "majority", "instruction")
        ),
        (METHOD.replace("own-last-{n}", "own_last"), "mine.py:Last", "must be named with hyphens, 'own-last'"),
        ("raise SystemExit(3)", "mine.py:Last", "mine.py cannot be loaded: SystemExit: 3."),
    ],
)
def test_faults_of_a_file_are_one_line(tmp_path, capsys, monkeypatch, code, named, says):
    monkeypatch.chdir(tmp_path)
    if code is not None:
        (tmp_path / "mine.py").write_text(code)
    assert invoke(["run", "--model", "random:llava-1.5", "--tasks", "scenes_random_n4", "--methods", named]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_the_task_index_is_built_once_a_command(capsys, monkeypatch):
    built = []
    build = registry._build
    monkeypatch.setattr(registry, "_build", lambda folders: built.append(folders) or build(folders))
    assert invoke(["ls", "tasks"]) == 0
    assert len(built) == 1


def test_a_method_needs_no_docstring(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(METHOD.format(n=3).replace('"""The last position."""', ""))
    words = ["--model", "random:llava-1.5", "--tasks", "scenes_random_n2", "--limit", "1", "--quiet", "--json"]
    assert invoke(["run", *words, "--methods", "mine.py:Last"]) == 0
    assert '"own-last-3"' in capsys.readouterr().out


def test_a_run_that_no_longer_knows_a_method_of_a_file_says_that_its_row_goes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(METHOD.format(n=9))
    words = ["run", "--model", "random:llava-1.5", "--tasks", "scenes_random_n2", "--limit", "1", "--runs", "runs", "--quiet"]
    before = dict(METHODS._entries), dict(METHODS._origins), dict(METHODS._values)
    assert invoke([*words, "--methods", "mine.py:Last"]) == 0
    METHODS._entries, METHODS._origins, METHODS._values = before  # as in a process that has not read the file
    capsys.readouterr()
    assert invoke([*words, "--methods", "vanilla"]) == 0
    errors = capsys.readouterr().err
    assert "holds figures of own-last-9, which are not known methods here; they are left out of its tables from now on." in errors
    assert invoke([*words, "--methods", "vanilla"]) == 0
    assert "own-last-9" not in capsys.readouterr().err, "they are gone, and nothing is to be said"
    assert invoke([*words, "--methods", "mine.py:Last"]) == 0
    assert "own-last-9" in capsys.readouterr().out
