"""The documentation is true: its snippets run, its links lead somewhere, its reference of keys is the code's."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from PIL import Image
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from lad_eval.cli.main import app, invoke
from lad_eval.methods import METHODS
from lad_eval.run.folder.rows import COLUMNS
from lad_eval.tasks.sources import SOURCES, options_of
from lad_eval.tasks.spec import TaskSpec
from lad_eval.version import __version__

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
RUN = [
    "add-a-method.md",
    "add-a-model.md",
    "add-a-task.md",
    "evidence.md",
    "metrics.md",
    "pruning.md",
    "ranker.md",
]


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


@pytest.mark.slow
def test_the_readmes_snippets_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, colour in zip("abcd", ("red", "green", "blue", "white"), strict=True):
        Image.new("RGB", (40, 40), colour).save(f"{name}.jpg")
    for snippet in re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S):
        exec(compile(snippet.replace("limit=100", "limit=5"), "README.md", "exec"), {"__name__": "docs"})


def commands(page):
    """The lines of a page's bash blocks that call `lad-eval`, without their remarks, as words."""
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            call = re.search(r"(?:^|&& |-m lad_eval|\| )\s*(?:lad-eval|(?<=-m lad_eval)) (.*)", line)
            if call:
                yield shlex.split(re.sub(r"<[^>]*>", "NAME", call[1]), comments=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_those_of_the_code(page):
    """Every command and option that a page shows exists; what stands for a name is not looked up."""
    group = typer.main.get_command(app)
    for words in commands(page):
        with group.make_context("lad-eval", list(words), resilient_parsing=True) as context:
            name, command, rest = group.resolve_command(context, list(words))
            while hasattr(command, "commands") and rest:
                name, command, rest = command.resolve_command(context, rest)
            command.make_context(name, [word for word in rest if word != "..."], parent=context, resilient_parsing=True)


@pytest.mark.slow
def test_the_readmes_commands_run(tmp_path, monkeypatch):
    """Those that need neither a network nor another harness, on the embedded model and few samples."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for index in range(16):
        Image.new("RGB", (40, 40), (16 * index, 255 - 16 * index, 128)).save(tmp_path / "pictures" / f"{index}.png")
    captions = {f"{index}.png": f"colour number {index}" for index in range(16)}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (task,) = re.findall(r"^```yaml\n(.*?)^```", readme, re.M | re.S)
    (tmp_path / "my_pictures.yaml").write_text(task)
    for name in "abc":
        Image.new("RGB", (40, 40)).save(f"{name}.jpg")
    assert invoke(["run", "-m", "lad-tiny", "-t", "scenes_random_n4", "--limit", "3", "-q"]) == 0
    ran = []
    for words in commands(ROOT / "README.md"):
        if {"vlmeval", "lmms-eval", "lm-eval", "data", "check"} & set(words) or "coco_random_n4" in " ".join(words):
            continue
        words = [{"NAME": "lad-tiny", "100": "3"}.get(word, word) for word in words]
        words = ["results/runs/lad-tiny/scenes_random_n4" if "NAME" in word else word for word in words]
        if words[0] == "run" and "--limit" not in words:
            words += ["--limit", "3"]
        if words[0] == "study":
            smaller = {"lad": ["--only", "table4"], "pruning": ["--keep", "0.25"], "key-space": ["--layers", "0"], "capl": []}
            words += ["--limit", "4" if words[1] == "key-space" else "2", *smaller[words[1]]]
        if "scenes_main" in words:
            words[words.index("scenes_main")] = "scenes_random_n4"
        assert invoke(words) == 0, words
        ran.append(words[0])
    assert {"run", "demo", "report", "compare", "validate", "score", "leaderboard", "study"} <= set(ran)


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
    text = text_of("command-line.md")
    assert [name for name in typer.main.get_command(app).commands if f"`{name}`" not in text] == []


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["version"], cited["license"]) == (__version__, "Apache-2.0")
