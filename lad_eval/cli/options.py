"""Options that several commands share, and their parsers."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lad_eval.cli.console import print_table
from lad_eval.cli.own import own_methods
from lad_eval.errors import UnknownNameError, did_you_mean
from lad_eval.files.documents import parse
from lad_eval.methods import DEFAULT_METHODS
from lad_eval.tasks.search import include
from lad_eval.terminal import write, write_json

if TYPE_CHECKING:
    from lad_eval.run.folder.rows import Row


RESULTS = Path("results/runs")
_NOT_IN_BRACKETS = re.compile(r",(?![^()]*\))")


class ImagePreparation(str, Enum):
    """How images reach the model."""

    protocol = "protocol"
    native = "native"
    pad = "pad"


Model = Annotated[
    str, typer.Option("--model", "-m", help="`lad-tiny`, a folder, a hub id, `random:<family>`, or `openai:<name>` of a server.")
]
Tasks = Annotated[str, typer.Option("--tasks", "-t", help="Tasks, groups, globs or YAML files, separated by commas.")]
Methods = Annotated[
    str | None,
    typer.Option(
        "--methods",
        help="Methods, globs, `field` or file.py:Class, separated by commas; `lad-eval ls methods`.",
        show_default=",".join(DEFAULT_METHODS),
    ),
]


def _include(folders: list[Path] | None) -> list[Path] | None:
    include(folders or ())
    return folders


IncludePath = Annotated[
    list[Path] | None,
    typer.Option(
        "--include-path",
        metavar="DIR",
        help="A folder of task definitions, found by name like the bundled ones; may be repeated.",
        callback=_include,
        is_eager=True,
        file_okay=False,
    ),
]
SomeTasks = Annotated[str | None, typer.Option("--tasks", "-t", help="Only these tasks, groups or globs, separated by commas.")]
SomeMethods = Annotated[str | None, typer.Option("--methods", help="Only these methods or globs, separated by commas.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else to stdout.")]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        help="Columns of the table, separated by commas: accuracy, interval, rstd, consistency, flip, osi, ckld, rsd, "
        "bias-score, d-same, d-cross, delta, unparsable, passes, needs, group. --json has all figures.",
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only warnings.")]
Reported = Annotated[bool, typer.Option("--reported", help="Show published results of the same model below ours, marked.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the bootstrap and of `random:` models.", min=0)]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub model.")]
Adapter = Annotated[str | None, typer.Option("--adapter", help="Folder or hub id of a PEFT adapter to merge into the model.")]
BatchSize = Annotated[str, typer.Option("--batch-size", help="Requests per pass, or auto: as many as are useful and fit.")]
Dtype = Annotated[str, typer.Option("--dtype", help="float32, bfloat16, float16, or auto: float32 on the CPU, else bfloat16.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, mps, or auto: a GPU if there is one.")]
DeviceMap = Annotated[
    str | None,
    typer.Option("--device-map", metavar="auto", help="auto: spread a model over all GPUs of the machine (needs accelerate)."),
]
Attention = Annotated[str | None, typer.Option("--attn", help="sdpa, flash_attention_2, ...; default: the model's.")]
PreparedAs = Annotated[
    ImagePreparation,
    typer.Option("--image-preparation", help="protocol: 336 x 336, bicubic; native: as the model prefers; pad: to squares."),
]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with a hub model.")]
Date = Annotated[str, typer.Option("--date", help="YYYY-MM-DD: the date for chat templates that print today's date.")]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", metavar="URL", help="Server of `openai:NAME`: http://localhost:8000/v1; key in OPENAI_API_KEY."),
]
Concurrency = Annotated[int | None, typer.Option("--concurrency", help="Requests to the server at once; default: 8.", min=1)]
Timeout = Annotated[
    float | None, typer.Option("--timeout", metavar="SECONDS", help="To wait for an answer of the server; default: 600.")
]
ExtraBody = Annotated[
    str | None, typer.Option("--extra-body", metavar="JSON", help="Further fields of every request to the server, as an object.")
]
Runs = Annotated[Path, typer.Option("--runs", "--output-path", help="The folder of all runs.", file_okay=False)]
Studies = Annotated[bool, typer.Option("--studies", help="Also show runs that `lad-eval study` made for its tables.")]
Run = Annotated[
    Path, typer.Argument(help="A run folder: results/runs/<model>/<task>/<hash>, or a folder above it that holds only one run.")
]


def listed(text: str, what: str) -> list[str]:
    """The names in `text`, once each, in its order.

    Raises:
        typer.BadParameter: there is none.
    """
    if what == "methods":
        text = own_methods(text)
    names = list(dict.fromkeys(name.strip() for name in _NOT_IN_BRACKETS.split(text) if name.strip()))
    if not names:
        where = "--help" if what == "columns" else f"`lad-eval ls {what}`"
        raise typer.BadParameter(f"--{what} names none; {where} lists them.")
    return names


def json_object(text: str | None) -> dict[str, Any] | None:
    """Parses `--extra-body`.

    Raises:
        typer.BadParameter: it is not a JSON object.
    """
    if text is None:
        return None
    try:
        value = parse(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"--extra-body takes a JSON object, such as '{{\"repetition_penalty\": 1.0}}', not {text!r}.")
    return value


def limit_of(text: str | None) -> int | float | None:
    """Parses `--limit`: a number of samples, or a share of them below 1, as in lm-eval; None: all.

    Raises:
        typer.BadParameter: it is neither.
    """
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if 0 < number < 1:
        return number
    if number >= 1 and number.is_integer():
        return int(number)
    raise typer.BadParameter(f"--limit takes a number of samples (100) or a share of them (0.1), not {text!r}.")


def is_glob(name: str) -> bool:
    """Whether a name on the command line is a glob; one in brackets is not."""
    return "(" not in name and any(mark in name for mark in "*?[")


def expanded(names: Iterable[str], known: Iterable[str], kind: str) -> list[str]:
    """The names with every glob replaced by its matches, once each; a name in brackets is not a glob.

    The known names are listed only if there is a glob, since that may load other packages.

    Raises:
        UnknownNameError: a glob matches nothing.
    """
    chosen: list[str] = []
    for name in names:
        if not is_glob(name):
            chosen.append(name)
            continue
        known = list(known)
        fitting = fnmatch.filter(known, name)
        if not fitting:
            raise UnknownNameError(kind, name, known)
        chosen += fitting
    return list(dict.fromkeys(chosen))


def columns_of(text: str | None, methods: Iterable[str] = ()) -> tuple[str, ...]:
    """Parses `--columns`; empty for the default ones, unless `methods` name a set of methods.

    Raises:
        UserError: a column does not exist.
    """
    from lad_eval.methods import METHOD_SETS
    from lad_eval.report.render import SET_COLUMNS, check_columns

    names = () if text is None else tuple(listed(text, "columns"))
    check_columns(names)
    if text is None and not METHOD_SETS.keys().isdisjoint(methods):
        return SET_COLUMNS
    return names


def show_rows(rows: Sequence[Row], form: str, columns: Sequence[str] = ()) -> None:
    """Prints rows as `form`, an entry of `report.render.FORMATS`; `columns` as for `report.render.render`."""
    from lad_eval.report.render import render, rich_tables

    if form == "rich":
        print_table(lambda width: rich_tables(rows, width, columns))
        return
    text = render(rows, form, columns)
    if form == "json":
        write_json(text)
    else:
        write(text + "\n")


# Values of lm-eval's `--model` that leave the model itself to `--model_args`.
_CLASSES = ("hf", "hf-multimodal", "huggingface", "lad-eval", "lad_eval")
_MODEL_ARGS = {
    "pretrained": "model",
    "model": "model",
    "revision": "revision",
    "dtype": "dtype",
    "device": "device",
    "device_map": "device_map",
    "attn_implementation": "attn_implementation",
    "attn": "attn_implementation",
    "batch_size": "batch_size",
    "image_preparation": "image_preparation",
    "trust_remote_code": "trust_remote_code",
    "base_url": "base_url",
    "num_concurrent": "concurrency",
    "concurrency": "concurrency",
    "timeout": "timeout",
}
_BOOLEANS = {"true": True, "false": False}


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Makes a YAML file's values the defaults of the command, so that the command line takes precedence.

    Raises:
        typer.BadParameter: the file cannot be read, or has a key that is not an option of the command.
    """
    if path is None:
        return None
    from lad_eval.errors import UserError
    from lad_eval.tasks.files import read_yaml

    try:
        values = read_yaml(path)
    except UserError as error:
        raise typer.BadParameter(str(error)) from None
    options = {parameter.name: parameter for parameter in context.command.params if parameter.name != "config"}
    defaults: dict[str, Any] = {}
    for key, value in values.items():
        name = {"output_path": "runs"}.get(str(key).replace("-", "_"), str(key).replace("-", "_"))
        if name not in options:
            raise typer.BadParameter(f"{path}: {key} is not an option of this command.{did_you_mean(name, [*map(str, options)])}")
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            value = ",".join(value)
        if isinstance(value, dict | list):
            raise typer.BadParameter(f"{path}: {key} must be one value, or a list of names.")
        if value is not None:
            defaults[name] = value if isinstance(value, bool) else str(value)
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="A YAML file of options (model: ..., tasks: [...]); command-line options override it.",
        callback=read_config,
        is_eager=True,
        dir_okay=False,
    ),
]


def model_options(text: str, model: str) -> dict[str, Any]:
    """Arguments of `evaluate` from lm-eval's `--model_args`.

    Args:
        text: "pretrained=org/name,dtype=bfloat16".
        model: what `--model` says: the model itself, or one of lm-eval's names for its model classes.

    Raises:
        UserError: an argument is unknown, has no value or a wrong one, or the model is named twice.
    """
    from lad_eval.models.base import check_batch_size

    options: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise typer.BadParameter(f"--model_args takes name=value, separated by commas, not {part!r}.")
        if key not in _MODEL_ARGS:
            raise typer.BadParameter(f"--model_args: unknown argument {key!r}.{did_you_mean(key, _MODEL_ARGS)}")
        options[_MODEL_ARGS[key]] = value
    if "trust_remote_code" in options:
        options["trust_remote_code"] = _choice(options, "trust_remote_code", _BOOLEANS)
    if "image_preparation" in options:
        _choice(options, "image_preparation", dict.fromkeys(choice.value for choice in ImagePreparation))
    if "batch_size" in options:
        options["batch_size"] = check_batch_size(options["batch_size"])
    for name, kind in (("concurrency", int), ("timeout", float)):
        if name in options:
            options[name] = _number(options[name], name, kind)
    if "model" not in options and model in _CLASSES:
        raise typer.BadParameter(f"--model {model} needs --model_args pretrained=<folder or hub id>.")
    if "model" in options and model not in (*_CLASSES, options["model"]):
        raise typer.BadParameter(
            f"--model {model} and --model_args pretrained={options['model']} name two models; give one of them."
        )
    return options


def _number(text: str, name: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise typer.BadParameter(f"--model_args: {name} is a number, not {text!r}.") from None


def _choice(options: Mapping[str, Any], name: str, known: Mapping[str, Any]) -> Any:
    value = str(options[name])
    if value.lower() not in known:
        raise typer.BadParameter(f"--model_args: {name} is {' or '.join(known)}, not {value!r}.")
    return known[value.lower()]
