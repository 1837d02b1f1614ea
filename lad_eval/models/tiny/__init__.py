"""The embedded model `lad-tiny`: a model organism of position bias. See MODEL_CARD.md in this folder."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

NAME = "lad-tiny"


def folder() -> Path:
    """The folder that holds configuration, processor and weights, as `from_pretrained` reads them."""
    return Path(str(files(__name__))) / "checkpoint"
