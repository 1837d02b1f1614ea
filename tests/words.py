"""Names and phrases that say too little, or say it in words of an earlier version, and class names that stand for several things.

`python -m tests.words` lists them: names (of functions, classes, arguments, attributes and variables) and class names of the
package, and phrases of its comments and texts and of the pages.
"""

import ast
import io
import re
import sys
import tokenize
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lad_eval"

# A word of a name, wherever it stands in it -> what to write instead.
WORDS = {
    "afresh": "overwrite",
    "apart": "distinct",
    "ask": "run, evaluate, call",
    "asks": "runs, evaluates, calls",
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

# A phrase of a comment, a text or a page -> what to write instead.
PHRASES = {
    "afresh": "again",
    "anew": "again",
    "beside": "next to, in addition to",
    "goes on where": "resumes where",
    "goes on from there": "resumes from there",
    "in silence": "silently",
    "looked at": "checked, read",
    "mend": "fix, cure",
    "mended": "fixed",
    "out of reach": "unreachable, cannot be recorded",
    "spoilt": "damaged",
    "told": "stated, distinguished",
    "was asked": "was run, was evaluated",
    "were asked": "were run, were evaluated",
    "wording": "prompt, template",
    "wordings": "prompt variants",
}
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**/*.md")

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


def prose_of(source):
    """(line, text) of every comment and of every string that has a space: docstrings, messages, titles."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield from enumerate(node.value.split("\n"), node.lineno)


def phrases_in(lines):
    """(line, phrase, what to write instead) of (line, text) pairs, by line."""
    return sorted(
        (number, phrase, instead)
        for number, text in lines
        for phrase, instead in PHRASES.items()
        if re.search(rf"(?<![\w-]){phrase}(?![\w-])", text, re.IGNORECASE)
    )


def phrase_faults():
    """One line per phrase of an earlier version in the package and in the pages."""
    sources = {path: list(prose_of(path.read_text(encoding="utf-8"))) for path in sorted(PACKAGE.rglob("*.py"))}
    pages = {
        path: list(enumerate(path.read_text(encoding="utf-8").split("\n"), 1))
        for page in PAGES
        for path in sorted(ROOT.glob(page))
    }
    return [
        f"{path.relative_to(ROOT)}:{line}: instead of {phrase!r} write: {instead}."
        for path, lines in {**sources, **pages}.items()
        for line, phrase, instead in phrases_in(lines)
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
    return [*word_faults(), *class_faults(), *phrase_faults()]


if __name__ == "__main__":
    faults = package_faults()
    sys.stdout.write("".join(f"{fault}\n" for fault in faults))
    sys.exit(bool(faults))
