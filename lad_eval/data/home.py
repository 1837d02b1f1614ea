"""Where data sets lie: said once to `lad-eval data prepare`, remembered for every later run."""

from __future__ import annotations

import os
from pathlib import Path

from lad_eval.errors import DataError, NotPreparedError
from lad_eval.files.documents import read_json, write_json

VARIABLE = "LAD_EVAL_DATA"


def home() -> Path:
    """The folder that remembers: `$LAD_EVAL_DATA`, else `lad_eval` in the user's cache folder (`$XDG_CACHE_HOME`, `~/.cache`)."""
    if own := os.environ.get(VARIABLE):
        return Path(own).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path there is invalid and to be ignored.
    return (Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache") / "lad_eval"


def default_root(name: str) -> Path:
    """Where a data set goes when the user names no folder and none is remembered."""
    return home() / name


def remember(name: str, root: Path) -> None:
    """Writes down that a data set lies at `root`.

    Raises:
        DataError: the note cannot be written.
    """
    note = _note(name)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, {"format": 1, "name": name, "root": str(root.absolute())})
    except OSError as error:
        raise DataError(f"{note}: cannot be written: {error.strerror}; set {VARIABLE} to a folder that can.") from None


def remembered(name: str) -> Path | None:
    """Where a data set was prepared, whether or not it is still there; None: nowhere.

    Raises:
        DataError: the note is damaged.
    """
    note = _note(name)
    if not note.exists():
        return None
    root = read_json(note, what=f"where {name} lies", cure=f"Remove it, then {_mend(name)}", error=DataError).get("root")
    if not isinstance(root, str) or "\0" in root:
        raise DataError(f"{note} is damaged; remove it, then {_mend(name)}")
    return Path(root)


def root_of(name: str) -> Path:
    """The folder of a prepared data set.

    Raises:
        NotPreparedError: it was not prepared, or the folder is gone; the text has the command to run.
    """
    root = remembered(name)
    if root is None:
        raise NotPreparedError(f"The data set {name!r} is not prepared; {_mend(name)}")
    if not root.is_dir():
        raise NotPreparedError(f"The data set {name!r} was prepared in {root}, which is gone; {_mend(name)}")
    return root


def _note(name: str) -> Path:
    return home() / f"{name}.json"


def _mend(name: str) -> str:
    return f"run `lad-eval data prepare {name} --root <folder>`."
