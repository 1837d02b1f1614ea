"""Options of a command from elsewhere than the command line: a YAML file, and lm-eval's `--model_args`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lad_eval.tasks.files import did_you_mean

# What lm-eval calls `--model` where `--model_args` names the model itself.
_CLASSES = ("hf", "hf-multimodal", "huggingface", "lad-eval", "lad_eval")
_MODEL_ARGS = {
    "pretrained": "model",
    "model": "model",
    "revision": "revision",
    "dtype": "dtype",
    "device": "device",
    "attn_implementation": "attn",
    "attn": "attn",
    "batch_size": "batch_size",
    "image_preparation": "image_preparation",
    "trust_remote_code": "trust_remote_code",
}
_BOOLEANS = {"true": True, "false": False}


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Makes a YAML file's values the defaults of the command, so that what the command line says comes before them.

    Raises:
        typer.BadParameter: the file cannot be read, or holds what is not an option of the command.
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
    """Fields of `Settings` that lm-eval's `--model_args` give.

    Args:
        text: "pretrained=org/name,dtype=bfloat16".
        model: what `--model` says: the model itself, or one of lm-eval's names for its model classes.

    Raises:
        UserError: an argument is unknown, has no value or a wrong one, or the model is named twice.
    """
    from lad_eval.models.base import check_batch_size

    given: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise typer.BadParameter(f"--model_args takes name=value, separated by commas, not {part!r}.")
        if key not in _MODEL_ARGS:
            raise typer.BadParameter(f"--model_args: unknown argument {key!r}.{did_you_mean(key, _MODEL_ARGS)}")
        given[_MODEL_ARGS[key]] = value
    if "trust_remote_code" in given:
        given["trust_remote_code"] = _choice(given, "trust_remote_code", _BOOLEANS)
    if "image_preparation" in given:
        _choice(given, "image_preparation", dict.fromkeys(("protocol", "native")))
    if "batch_size" in given:
        given["batch_size"] = check_batch_size(given["batch_size"])
    if "model" not in given and model in _CLASSES:
        raise typer.BadParameter(f"--model {model} needs --model_args pretrained=<folder or hub id>.")
    if "model" in given and model not in (*_CLASSES, given["model"]):
        raise typer.BadParameter(
            f"--model {model} and --model_args pretrained={given['model']} name two models; give one of them."
        )
    return given


def _choice(given: Mapping[str, Any], name: str, known: Mapping[str, Any]) -> Any:
    value = str(given[name])
    if value.lower() not in known:
        raise typer.BadParameter(f"--model_args: {name} is {' or '.join(known)}, not {value!r}.")
    return known[value.lower()]
