"""Methods in a file named on the command line: `--methods my_file.py:MyMethod`."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

from lad_eval.errors import UserError

_TYPED = re.compile(r"([^\s,+()]+\.py):([A-Za-z_]\w*)")
_SPACED = re.compile(r"[^\s,+()]+\s+[^\s,+()]+\.py:[A-Za-z_]\w*")
_CLASSLESS = re.compile(r"[^\s,+()]+\.py(?=\s*(?:[,+(]|$))")


def own_methods(text: str) -> str:
    """The names in `text` with every `file.py:Class` replaced by the name of the method, which is registered for this process.

    Only for names that the user typed, since the file's code is run.

    Raises:
        UserError: there is no such file or class, the file fails, or the method's name is taken.
    """
    if match := _SPACED.search(text):
        raise UserError(f"{match[0]!r} has a space in its path, which --methods cannot parse; rename the file or its folder.")
    if match := _CLASSLESS.search(text):
        raise UserError(f"{match[0]} does not say which class; write --methods {match[0]}:<name of the class>.")
    return _TYPED.sub(lambda match: _registered(match[1], match[2]), text)


def _registered(file: str, attribute: str) -> str:
    from lad_eval.attention.interventions import INTERVENTIONS
    from lad_eval.methods import METHODS
    from lad_eval.tasks.prompts import PROMPT_VARIANTS

    method = getattr(_module(Path(file)), attribute, None)
    if method is None:
        raise UserError(f"{file} has no {attribute!r}; write --methods {file}:<name of the class>.")
    name = getattr(method, "name", None)
    if not isinstance(name, str):
        raise UserError(f"{file}:{attribute} has no name; a method is a subclass of lad_eval.methods.Method with a `name`.")
    if name in {*INTERVENTIONS.built_in, *PROMPT_VARIANTS.built_in}:
        raise UserError(f"{file}:{attribute}: the method name {name!r} is taken by lad_eval; choose another name.")
    METHODS.add(name, method, f"{Path(file).resolve()}:{attribute}")
    return name


def _module(path: Path) -> object:
    if not path.is_file():
        raise UserError(f"No such file: {path}; --methods takes file.py:Class.")
    name = f"_lad_eval_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # the name ends in .py
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code, which may fail in any way
        text = " ".join(str(error).split())[:300].rstrip(".")
        raise UserError(f"{path} cannot be loaded: {type(error).__name__}: {text}.") from error
    return module
