"""The documentation is true: its snippets run, its links lead somewhere, its reference of keys is the code's."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from lad_eval.methods import METHODS
from lad_eval.report.rows import COLUMNS
from lad_eval.tasks.sources import SOURCES, options_of
from lad_eval.tasks.spec import TaskSpec

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
RUN = ["add-a-method.md", "add-a-model.md", "add-a-task.md", "evidence.md", "metrics.md", "ranker.md"]


def text_of(page):
    return (DOCS / page).read_text(encoding="utf-8")


def without_code(text):
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def anchors(page):
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def fields(model, prefix=""):
    """Every key of a pydantic model with its default, keys of inner models dotted."""
    found = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= fields(field.annotation, f"{prefix}{name}.")
        else:
            default = field.default_factory() if field.default_factory else field.default
            found[prefix + name] = default
    return found


def documented(text):
    """{key: default as written} of the first table in a text."""
    table = re.search(r"^\| key \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.M).group(1)
    rows = [re.split(r" *\| *", line.strip("| ")) for line in table.splitlines()]
    return {row[0].strip("`"): row[1] for row in rows}


def assert_same(written, model, prose=()):
    real = fields(model)
    assert written.keys() == real.keys()
    for key, default in written.items():
        if key in prose:
            continue
        if default == "required":
            assert real[key] is PydanticUndefined, key
        elif default == "none":
            assert real[key] is None, key
        else:
            is_tuple = isinstance(real[key], tuple)
            assert yaml.safe_load(default.strip("`")) == (list(real[key]) if is_tuple else real[key]), key


@pytest.mark.parametrize("page", RUN)
def test_snippets_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "docs"}
    snippets = re.findall(r"^```python\n(.*?)^```", text_of(page), re.M | re.S)
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, page, "exec"), names)
    printed = capsys.readouterr().out
    for expected in re.findall(r"^prints\n\n```text\n(.*?)^```", text_of(page), re.M | re.S):
        assert expected in printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} is missing"
        if anchor:
            assert anchor in anchors(there), f"{target} has no such heading"


def test_every_page_is_in_a_table_of_contents():
    for folder in (DOCS, DOCS / "decisions"):
        contents = (folder / "README.md").read_text(encoding="utf-8")
        assert [page.name for page in folder.glob("*.md") if page.name != "README.md" and f"({page.name})" not in contents] == []


def test_task_keys_are_those_of_the_code():
    assert_same(documented(text_of("add-a-task.md")), TaskSpec, prose=("name", "samples"))


@pytest.mark.parametrize("source", SOURCES)
def test_source_options_are_those_of_the_code(source):
    _, _, after = text_of("add-a-task.md").partition(f"`data:` of `source: {source}`")
    assert_same(documented(after), options_of(source))


def test_every_method_and_parameter_is_described():
    text = text_of("methods.md")
    for name, entry in METHODS.items():
        assert f"| `{name}` |" in text
        assert all(f"`{parameter}`" in text for parameter in entry.method.parameters)


def test_json_rows_have_the_documented_keys():
    rows = re.search(r"^```json\n(.*?)^```", text_of("command-line.md"), re.M | re.S).group(1)
    assert tuple(yaml.safe_load(rows)[0]) == COLUMNS


def test_every_command_is_named():
    import typer

    from lad_eval.cli.main import app

    text = text_of("command-line.md")
    assert [name for name in typer.main.get_command(app).commands if f"`{name}`" not in text] == []
