"""Keeps the libraries' chatter from drowning what a run says."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from functools import cache
from typing import Any

logger = logging.getLogger(__name__)


def hush_libraries(*, quiet: bool) -> None:
    """Lets only errors of the libraries through; call before torch is imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # Of a process that does not come torch prints its own stack, many times over; we say it in one line.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    if quiet or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for module in ("transformers", "torch", "torchvision", "accelerate", "huggingface_hub"):
        warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")


def plain_warnings() -> None:
    """Shows every warning as one line without the place in the code, once each text.

    Pillow's are left out: what is wrong with a picture is told by the line about that picture.
    """
    warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
    warnings.showwarning = _show


@cache
def _say_once(text: str) -> None:
    logger.warning("%s", text)


def _show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    _say_once(" ".join(str(message).split()))
