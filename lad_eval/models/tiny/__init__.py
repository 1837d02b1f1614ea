"""The embedded models, lad-tiny and lad-tiny-relations: model organisms. See MODEL_CARD.md in this folder."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

NAME = "lad-tiny"
RELATIONS = "lad-tiny-relations"
FOLDERS = {NAME: "checkpoint", RELATIONS: "relations"}


def folder(name: str = NAME) -> Path:
    """The folder that holds configuration, processor and weights of an embedded model, as `from_pretrained` reads them."""
    return Path(str(files(__name__))) / FOLDERS[name]
