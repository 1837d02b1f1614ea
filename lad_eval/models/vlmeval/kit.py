"""Importing VLMEvalKit without its side effects."""

from __future__ import annotations

import contextlib
import importlib
import logging
import random
import ssl
import sys
import warnings
from importlib.metadata import packages_distributions, version
from types import ModuleType
from typing import Any

from lad_eval.errors import UserError
from lad_eval.extras import install_command


def kit(module: str) -> ModuleType:
    """A module of VLMEvalKit, such as "vlmeval.config".

    Its import disables gradients, seeds torch's random numbers and disables the verification of TLS certificates, for the whole
    process; all of that is restored.

    Raises:
        UserError: VLMEvalKit is not installed, or cannot be imported.
    """
    if module in sys.modules:
        return sys.modules[module]
    import numpy as np
    import torch

    with contextlib.suppress(ImportError):
        # If it is loaded after VLMEvalKit's packages, torchvision's PNG reader finds another zlib than its own and fails.
        import torchvision.io  # noqa: F401

    grad, state, context = torch.is_grad_enabled(), torch.random.get_rng_state(), ssl._create_default_https_context
    numbers, array_numbers = random.getstate(), np.random.get_state()
    quiet = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # it logs an error where it finds no .env file
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if str(missing.name).partition(".")[0] == "vlmeval":
            raise UserError(
                f"VLMEvalKit is not installed: `{install_command('vlmeval')}`, or install it from its source."
            ) from None
        raise UserError(f"VLMEvalKit cannot be imported: it needs the package {missing.name}.") from missing
    except ImportError as fault:
        raise UserError(f"VLMEvalKit cannot be imported: {fault}") from fault
    finally:
        logging.disable(quiet)
        torch.set_grad_enabled(grad)
        torch.random.set_rng_state(state)
        random.setstate(numbers)
        np.random.set_state(array_numbers)
        ssl._create_default_https_context = context


def kit_version() -> str:
    """`<distribution> <version>` of the imported VLMEvalKit; for a checkout that is not installed, its `__version__`."""
    package = kit("vlmeval")
    written = str(getattr(package, "__version__", "unknown"))
    where = str(getattr(package, "__file__", ""))
    if "site-packages" in where or "dist-packages" in where:
        for name in packages_distributions().get("vlmeval", []):
            return f"{name} {version(name)}"
    return f"source {written}"


def registry() -> dict[str, Any]:
    """`vlmeval.config.supported_VLM`: a partial of a model class by entry name."""
    entries: dict[str, Any] = kit("vlmeval.config").supported_VLM
    return entries
