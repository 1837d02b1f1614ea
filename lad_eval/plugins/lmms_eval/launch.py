"""Runs lmms-eval's own command on our tasks, with an exit code that says how it went."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lad_eval.errors import UnknownNameError, UserError, near_names
from lad_eval.files.atomic import Scratch
from lad_eval.tasks.registry import groups, load_spec, place_of, resolve, task_names

if TYPE_CHECKING:
    from lad_eval.tasks.spec import TaskSpec


HEADER = "# Written by `lad-eval lmms-eval tasks`; changes here are lost when it is written again.\n"
TAG = "lad_eval"

_CODE = "lad_eval.plugins.lmms_eval"
_TASK = """\
task: {name}
tag: {tag}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {name}.jsonl
test_split: test
output_type: generate_until
process_docs: !function {code}.documents.documents
doc_to_visual: !function {code}.documents.images
doc_to_text: !function {code}.documents.question
doc_to_target: !function {code}.documents.answer
process_results: !function {code}.scoring.results
generation_kwargs:
  max_new_tokens: 16
  temperature: 0
  do_sample: false
metric_list:
{metrics}
cluster_key: sample
num_fewshot: 0
metadata:
  version: {version}
"""
_METRIC = """\
  - metric: {metric}
    aggregation: !function {code}.scoring.{function}
    higher_is_better: {better}
"""


def write_tasks(out: Path, names: Iterable[str] = ()) -> list[str]:
    """Writes tasks and those groups of ours whose tasks are all among them; no data is opened.

    A task can be run as long as lad_eval is installed together with lmms-eval; one of a YAML file also needs that file.

    Args:
        out: the folder, made if it is missing.
        names: as `lad_eval.tasks.registry.resolve` takes them; none: every bundled task.

    Returns:
        The names of the tasks, as lmms-eval knows them.

    Raises:
        UserError: a name is unknown, a definition cannot be used, lmms-eval has another task of that name, or the folder
            holds other files of these names or cannot be written to.
    """
    names_of_tasks = resolve(list(names)) if names else task_names()
    specs = {place_of(name): load_spec(name) for name in names_of_tasks}
    stems = [spec.name for spec in specs.values()]
    if twice := sorted({name for name in stems if stems.count(name) > 1}):
        raise UserError(f"Two tasks have the name {twice[0]!r}; rename one of the files.")
    wanted = {name: members for name, members in groups().items() if {*members} <= {*stems}}
    _check_free([*stems, *wanted])
    files = {f"{spec.name}.yaml": HEADER + _yaml(spec) for spec in specs.values()}
    files |= {f"{name}.yaml": HEADER + _group(name, members) for name, members in wanted.items()}
    files |= {f"{spec.name}.jsonl": _stub(place, spec) for place, spec in specs.items()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            path = out / file
            if path.suffix == ".yaml" and path.exists() and not path.read_text(encoding="utf-8").startswith(HEADER):
                raise UserError(f"{path} is not a file of ours; choose another folder.")
            path.write_text(text, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot write to {out}: {getattr(error, 'strerror', None) or error}.") from error
    return stems


def _stub(place: str, spec: TaskSpec) -> str:
    return json.dumps({"task": place, "definition": spec.digest}) + "\n"


def _yaml(spec: TaskSpec) -> str:
    metrics = [("accuracy", "accuracy", "true"), ("accuracy_std", "accuracy_std", "false"), ("rstd", "rstd", "false")]
    metrics += [("consistency", "consistency", "true"), ("unparsable", "unparsable", "false")]
    metrics += [(f"recall_{k}", "accuracy", "true") for k in range(1, spec.candidates + 1)]
    lines = "".join(
        _METRIC.format(metric=metric, function=function, better=better, code=_CODE) for metric, function, better in metrics
    )
    return _TASK.format(name=spec.name, tag=TAG, code=_CODE, metrics=lines.rstrip("\n"), version=spec.version)


def _group(name: str, members: Iterable[str]) -> str:
    return f"group: {name}\ntask:\n" + "".join(f"  - {member}\n" for member in members)


def names_in_lmms_eval() -> frozenset[str]:
    """Names of tasks and groups that an installed lmms-eval brings, read from its files; none where it is not installed."""
    installed = find_spec("lmms_eval")
    if installed is None or installed.origin is None:
        return frozenset()
    names = set()
    for path in (Path(installed.origin).parent / "tasks").rglob("*.yaml"):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key in ("task", "group", "tag"):
                names.add(value.partition("#")[0].strip().strip("\"'"))
    return frozenset(names)


def _check_free(names: Iterable[str]) -> None:
    """Refuses a name that lmms-eval has: of two it would take its own, without a word."""
    if taken := sorted(names_in_lmms_eval().intersection(names)):
        raise UserError(f"lmms-eval has a task named {taken[0]!r} of its own; copy yours to a file of another name.")


NEAR = 0.8
"""Likeness from which an unknown task is taken for one of ours, misspelt."""

MODEL = "lad_eval"
"""Our model's name in lmms-eval."""

MISSING = "lmms-eval is not installed here: pip install 'lad-eval[lmms-eval]', in an environment of its own."


def launch(arguments: Sequence[str]) -> int:
    """lmms-eval with its own flags; those of our tasks that `--tasks` names are written to a temporary folder.

    Returns:
        0; or 1 where lmms-eval failed, which returns 0 then and has said why.

    Raises:
        UserError: lmms-eval is not installed, or a task of ours cannot be used.
    """
    try:
        version("lmms-eval")
    except PackageNotFoundError:
        raise UserError(MISSING) from None
    ours = _our_tasks(arguments)
    unknown_names = [word for word in _others(arguments) if not word.startswith("list")]  # `--tasks list` lists lmms-eval's
    if unknown_names and _value(arguments, "--model") == MODEL and _value(arguments, "--include_path") is None:
        raise UserError(
            f"{unknown_names[0]} is not a task of lad_eval, which `--model {MODEL}` needs; `lad-eval ls tasks` lists them."
        )
    with Scratch("lmms") as folder:
        flags = list(arguments)
        if ours:
            if _value(arguments, "--include_path") is not None:
                raise UserError(
                    "lmms-eval takes one --include_path: write our tasks into that folder with "
                    "`lad-eval lmms-eval tasks --out <folder>`, and run `python -m lmms_eval`."
                )
            names = write_tasks(Path(folder), ours)
            flags = _replaced(flags, "--tasks", ",".join([*names, *_others(arguments)]))
            flags += ["--include_path", folder]
        return _command(flags)


def _command(flags: Sequence[str]) -> int:
    import lmms_eval.__main__ as harness

    failed = False
    evaluate: Any = harness.cli_evaluate_single

    def watched(*arguments: Any) -> Any:
        nonlocal failed
        try:
            return evaluate(*arguments)
        except Exception:
            failed = True
            raise

    before = sys.argv
    sys.argv = ["lmms_eval", *flags]
    harness.cli_evaluate_single = watched
    try:
        harness.cli_evaluate()
    finally:
        sys.argv = before
        harness.cli_evaluate_single = evaluate
    return int(failed)


def _named(arguments: Sequence[str]) -> list[str]:
    return [word.strip() for word in (_value(arguments, "--tasks") or "").split(",") if word.strip()]


def _our_tasks(arguments: Sequence[str]) -> list[str]:
    """Words of `--tasks` that we know; a group of ours stands for its tasks.

    Raises:
        UnknownNameError: a word is near a name of ours, and no name of lmms-eval's.
    """
    ours = [word for word in _named(arguments) if _is_ours(word)]
    known = [*task_names(), *groups()]
    for word in _others(arguments):
        if near_names(word, known, cutoff=NEAR) and word not in names_in_lmms_eval():
            raise UnknownNameError("task", word, known)
    return ours


def _others(arguments: Sequence[str]) -> list[str]:
    return [word for word in _named(arguments) if not _is_ours(word)]


def _is_ours(word: str) -> bool:
    try:
        resolve(word)
    except UnknownNameError:
        return False
    except UserError:
        if Path(word).suffix in (".yaml", ".yml"):
            raise
        return False
    return True


def _value(arguments: Sequence[str], flag: str) -> str | None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(flag, dest="value")
    value: str | None = parser.parse_known_args(list(arguments))[0].value
    return value


def _replaced(arguments: Sequence[str], flag: str, value: str) -> list[str]:
    """The arguments with another value for a flag that stands among them as `--flag value` or `--flag=value`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(flag)
    rest = parser.parse_known_args(list(arguments))[1]
    return [*rest, flag, value]
