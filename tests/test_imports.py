"""Imports point one way: between the rooms of the package, and between the files of a room."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lad_eval"
# From left to right: a room may import those before it. Rooms of one line do not import each other.
ROOMS = [
    {"errors", "extras", "terminal", "version"},
    {"names", "parameters", "registry"},
    {"files"},
    {"data"},
    {"tasks"},
    {"attention"},
    {"evidence"},
    {"methods"},
    {"models"},
    {"metrics"},
    {"run"},
    {"plugins", "ranking", "report", "training"},
    {"evaluation", "regression"},
    {"studies"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(ROOMS) for name in names}


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path, modules):
    """Modules of ours that a file imports, wherever the statement stands: in a function and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from (name for name in [inner if inner in modules else node.module] if name in modules)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)


def circle(modules):
    """The modules of an import circle; empty where there is none."""
    graph = {name: {other for other in imported(path, modules) if other != name} for name, path in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_files_import_each_other_in_a_circle():
    assert circle(MODULES) == []


def test_a_circle_hidden_in_a_function_is_found(tmp_path):
    (tmp_path / "a.py").write_text("def late():\n    from lad_eval.b import thing\n")
    (tmp_path / "b.py").write_text("import lad_eval.a\n")
    assert set(circle({"lad_eval.a": tmp_path / "a.py", "lad_eval.b": tmp_path / "b.py"})) == {"lad_eval.a", "lad_eval.b"}


@pytest.mark.parametrize("name", [name for name in MODULES if name != "lad_eval"])
def test_imports_between_rooms_point_one_way(name):
    here = name.split(".")[1]
    assert here in RANK, f"{here} has no place in the order of the rooms"
    others = {other.split(".")[1] for other in imported(MODULES[name], MODULES) if other != "lad_eval"} - {here}
    assert [other for other in sorted(others) if RANK[other] >= RANK[here]] == []


def test_no_room_but_methods_asks_what_kind_a_method_is():
    """A method decides by itself; whoever switches on its class would have to know every method that others add."""
    kinds = {
        node.name
        for name, path in MODULES.items()
        if name.startswith("lad_eval.methods.")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and name != "lad_eval.methods.conformance"
    }
    assert {"LAD", "Generate", "PriDeOriginal", "Majority"} <= kinds
    switches = [
        f"{name}:{node.lineno}"
        for name, path in MODULES.items()
        if not name.startswith("lad_eval.methods")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("isinstance", "issubclass")
        and kinds & {inner.id for inner in ast.walk(node.args[1]) if isinstance(inner, ast.Name)}
    ]
    assert switches == []
