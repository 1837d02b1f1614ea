"""Whether a model of the Hugging Face hub can be had here, found out before anything heavy is imported."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies

from lad_eval.checkpoints import ADAPTER_CONFIG
from lad_eval.errors import UserError

_CONFIGS = ("config.json", ADAPTER_CONFIG)


def hub_has_address() -> bool:
    """Whether the hub's name resolves here, or a proxy is set that may resolve it."""
    from huggingface_hub.constants import ENDPOINT

    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def check_at_hand(name: str, revision: str | None) -> None:
    """Refuses a model that is neither in the local cache nor on a hub that can be reached.

    Raises:
        UserError: it is not.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    if any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in _CONFIGS):
        return
    if constants.HF_HUB_OFFLINE or not hub_has_address():
        raise UserError(unreachable(name))


def unreachable(name: str) -> str:
    """What is wrong where a model is neither here nor to be fetched."""
    return (
        f"{name} is not in the local cache and the hub cannot be reached: download it on a machine with a network "
        f"(`hf download {name} --local-dir <folder>`) and pass that folder as the model."
    )
