"""The rooms of the package import one way only."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "lad_eval"
# From left to right: a room may import those before it. What stands together in a line may use each other.
ROOMS = [
    {"errors", "terminal"},
    {"checkpoints", "files"},
    {"data"},
    {"tasks"},
    {"attention", "scoring"},
    {"evidence", "evidence_files", "replies", "store", "replies_store"},
    {"methods"},
    {"models"},
    {"metrics"},
    {"report"},
    {"run"},
    {"doctor", "listing", "pages", "plugins", "ranking", "studies"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(ROOMS) for name in names}


def room_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "lad_eval":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lad_eval."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("lad_eval."))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    if path.parent == PACKAGE and path.name == "__init__.py":
        return
    here = room_of(path)
    assert here in RANK, f"{here} has no place in the order of the rooms"
    assert [name for name in imported(path) if name in RANK and RANK[name] > RANK[here]] == []
