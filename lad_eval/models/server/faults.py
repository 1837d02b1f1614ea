"""What a failed request means: in words, with the cure, and whether sending it again may help."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

import httpx2

from lad_eval.errors import first_line
from lad_eval.models.server.address import KEY

QUOTA = "insufficient_quota"
"""OpenAI's code of a 429 that no waiting cures."""
RUNS = "see that it runs"
GARBLED = "see that --base-url is the address of its chat completions (usually ending in /v1), and its log"
_TLS_HOSTNAME = frozenset({62, 63, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, EMAIL_MISMATCH, IP_ADDRESS_MISMATCH of OpenSSL
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})


@dataclass(frozen=True)
class Fault:
    """A request that got no usable answer.

    Attributes:
        words: what the server did, a predicate.
        cure: what the user can do.
        lasting: sending it again is of no use.
    """

    words: str
    cure: str = RUNS
    lasting: bool = False


def connection_fault(error: httpx2.TransportError, url: str) -> Fault:
    """A connection to a base URL that failed."""
    words = f"could not be reached ({first_line(error)})"
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            if cause.verify_code in _TLS_HOSTNAME:
                return Fault(words, "give --base-url the host name that its certificate is for", lasting=True)
            return Fault(
                words,
                "put the path of a PEM file with the certificate of its authority, or its own if it is self-signed, into the "
                "environment as SSL_CERT_FILE",
                lasting=True,
            )
        if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
            return Fault(
                words, "it does not speak TLS on this port: see whether --base-url must begin with http://", lasting=True
            )
        if isinstance(cause, socket.gaierror):
            return Fault(words, "see that the host in --base-url is spelt right and known to this network")
    if url.startswith("http://") and isinstance(error, (httpx2.ReadError, httpx2.RemoteProtocolError)):
        return Fault(words, f"{RUNS} and whether --base-url must begin with https://")
    return Fault(words)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def refusal_cure(response: httpx2.Response) -> str:
    """What the user can do about a request that a server refuses."""
    status = response.status_code
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return f"put a valid key into the environment as {KEY}"
    if status == HTTPStatus.NOT_FOUND:
        return "see that --base-url ends as the server says (usually in /v1) and that it serves this model"
    if status == HTTPStatus.PAYMENT_REQUIRED or QUOTA in response.text:
        return "the account's quota or credit is used up: renew it where the key comes from, then give the same command again"
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return "send less: smaller images (--image-preparation protocol), or a task with fewer images"
    if response.is_redirect:
        return "give the address that it points to as --base-url"
    return "see its log"


def duration(seconds: float) -> str:
    """A wait in words, however long."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    hours = seconds / 3600
    return f"{seconds / 60:.0f} min" if hours < 1 else f"{hours:.1f} h" if hours < 1000 else "more than 1,000 h"
