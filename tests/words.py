"""Names that say too little, or say it in words of an earlier version, and class names that stand for several things.

`python -m tests.words` lists them in the package. Only names are read (of functions, classes, arguments, attributes and
variables), no comments and no texts.
"""

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lad_eval"

# A word of a name, wherever it stands in it -> what to write instead.
WORDS = {
    "afresh": "overwrite",
    "apart": "distinct",
    "beside": "a temporary path",
    "borrow": "reuse",
    "borrowed": "reused",
    "changer": "mask transform",
    "circumstances": "environment, run metadata",
    "hush": "logging setup",
    "leg": "condition run",
    "legs": "condition runs",
    "lineup": "resolve_methods",
    "looked": "evidence, forward pass",
    "mend": "repair, or what exactly is put right",
    "mended": "repaired",
    "neighbour": "sibling run",
    "neighbours": "sibling runs",
    "sight": "evidence, forward pass",
    "silence": "no answer; logging setup",
    "spoilt": "consumed",
    "standing": "significance",
    "standings": "significance",
    "strangers": "unknown names",
    "tap": "attention hook",
    "taps": "attention hooks",
    "told": "a noun for what it holds",
    "verdict": "check result",
    "worded": "prompt variant",
    "wording": "prompt variant",
    "wordings": "prompt variants",
}

# A whole name -> what to write instead.
NAMES = {
    "album": "image bundle, captioned images",
    "answered": "condition results",
    "asked": "plan index, or what exactly was planned or run",
    "found": "a noun for what it holds",
    "given": "a noun for what it holds",
    "kept": "a noun for what it holds",
    "leads": "is_main_process",
    "leave_at_once": "fail_fast",
    "library": "run index",
    "line_up": "resolve_methods",
    "look": "run, forward",
    "need": "requirement",
    "own": "a noun for what it holds",
    "sheet": "document",
    "together": "barrier",
    "views": "orders",
    "world": "distributed context",
}

# Names that stored files hold, and so must stay: file -> names.
STORED = {"regression/baseline.py": {"asked"}}


def words_of(name):
    """ "_told_apart" -> told, apart; "LADModel" -> lad, model."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def names_in(tree):
    """(line, name) of whatever the code defines; names that it only uses are those of others, or found where they are defined."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case ast.alias(asname=str(name)):
                yield node.lineno, name


def faults_in(source):
    """(line, name, word, what to write instead), by line."""
    faults = []
    for line, name in names_in(ast.parse(source)):
        plain = name.strip("_").lower()
        words = [plain] if plain in NAMES else [word for word in words_of(name) if word in WORDS]
        faults += [(line, name, word, NAMES.get(word) or WORDS[word]) for word in words]
    return sorted(set(faults))


def word_faults():
    """One line per name in a word of an earlier version."""
    return [
        f"{path.relative_to(ROOT)}:{line}: {name}: instead of {word!r} write: {instead}."
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, name, word, instead in faults_in(path.read_text(encoding="utf-8"))
        if name not in STORED.get(path.relative_to(PACKAGE).as_posix(), ())
    ]


def classes_by_name(sources):
    """Class name -> places that define it, from (place, source) pairs; classes inside functions and classes count too."""
    places = defaultdict(list)
    for place, source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{place}:{node.lineno}")
    return places


def class_faults():
    """One line per class name that stands for several classes of the package."""
    sources = ((path.relative_to(ROOT), path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py")))
    return [
        f"{places[0]}: class {name}: the name is taken by {', '.join(places[1:])}; give each class a name of its own."
        for name, places in classes_by_name(sources).items()
        if len(places) > 1
    ]


def package_faults():
    """One line per fault."""
    return [*word_faults(), *class_faults()]


if __name__ == "__main__":
    faults = package_faults()
    sys.stdout.write("".join(f"{fault}\n" for fault in faults))
    sys.exit(bool(faults))
