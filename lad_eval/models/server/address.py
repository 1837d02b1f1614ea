"""Where a server is, and the key to it, which comes from the environment and is written nowhere."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from lad_eval.errors import UserError

KEY = "OPENAI_API_KEY"
"""Environment variable of the key."""
BASE_URL = "OPENAI_BASE_URL"
"""Environment variable of the base URL where none is given."""
_ENDPOINT = "/chat/completions"


@dataclass(frozen=True)
class Address:
    """A server's base URL, such as `http://localhost:8000/v1`, and the key to it.

    Attributes:
        url: without a slash at the end.
        key: None where the server needs none; hidden in every text.
    """

    url: str
    key: str | None = field(default=None, repr=False)

    def hide_key(self, text: str) -> str:
        """The text without the key, which a server may repeat in its messages."""
        return text if self.key is None else text.replace(self.key, "***")


def check_url(url: str | None) -> str:
    """The base URL, or that of the environment (OPENAI_BASE_URL).

    Raises:
        UserError: there is none, or it is not the address of a server without credentials in it.
    """
    chosen = (url or os.environ.get(BASE_URL) or "").strip()
    if not chosen:
        raise UserError(f"A model behind a server needs its address: --base-url http://localhost:8000/v1, or {BASE_URL}.")
    try:
        parts = urlsplit(chosen)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise UserError("--base-url must be the address of a server, such as http://localhost:8000/v1.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(f"--base-url must hold no key, password or query; put the key into the environment as {KEY}.")
    return chosen.rstrip("/").removesuffix(_ENDPOINT)


def address_of(url: str | None) -> Address:
    """The address of a base URL, with the key in the environment (OPENAI_API_KEY).

    Raises:
        UserError: as `check_url`; or the key has characters that cannot be sent.
    """
    key = (os.environ.get(KEY) or "").strip() or None
    if key is not None and not (key.isascii() and key.isprintable()):
        raise UserError(f"The key in {KEY} holds characters that cannot be part of a key; copy it again.")
    return Address(check_url(url), key)
