"""Requests to a server: what may succeed later is tried again, what cannot is one line for the user."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from threading import Event, Lock
from typing import Any, TypeVar

import httpx2

from lad_eval.errors import UserError, first_line
from lad_eval.files.documents import parse
from lad_eval.models.server.address import Address
from lad_eval.models.server.faults import GARBLED, QUOTA, Fault, connection_fault, duration, refusal_cure

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

TRIES = 8
"""Times that a request is sent before it is given up; answers that ask to wait do not count."""
PATIENCE = 900.0
"""Seconds without any usable answer after which a server is given up; at least two time-outs."""
_LONGEST_PAUSE = 60.0
_LONGEST_WAIT = 3600.0
_CONNECTING = 10.0
_LATER = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_SHOWN = 300
_SAID_EVERY = 30.0
"""Seconds without a usable answer, and between two lines about that."""


class ServerError(UserError):
    """A server that cannot be reached or does not serve a request."""


class RequestRefusedError(ServerError):
    """A request that the server refuses, and would refuse again.

    Attributes:
        status: HTTP status code.
        reason: the server's own words.
    """

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class GarbledError(Exception):
    """An answer that is not as the protocol says; it may be right if the request is sent again."""


class Client:
    """Sends requests from several threads.

    Connection faults, time-outs, overload and garbled answers are tried again after pauses that double. A server that asks to
    wait (`Retry-After`) is obeyed by all threads.

    Args:
        address: of the server.
        connections: at most that many at once.
        timeout: seconds to wait for an answer.
        pause: seconds before the second try.
    """

    def __init__(self, address: Address, *, connections: int, timeout: float, pause: float = 1.0) -> None:
        self._address, self._timeout, self._pause = address, timeout, pause
        headers = {} if address.key is None else {"Authorization": f"Bearer {address.key}"}
        self._http = httpx2.Client(
            headers={**headers, "Content-Type": "application/json"},
            timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECTING)),
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
        )
        self._closing = Event()
        self._lock = Lock()
        self._open_at = 0.0
        self._said_at: float | None = None
        self._answered_at = time.monotonic()

    @property
    def url(self) -> str:
        """The server's base URL, for messages."""
        return self._address.url

    def stop(self) -> None:
        """Ends the pauses of all threads: they raise `ServerError` instead of trying again."""
        self._closing.set()

    def resume(self) -> None:
        """Allows requests again after `stop`."""
        self._closing.clear()
        with self._lock:
            self._answered_at = time.monotonic()

    def get(self, path: str, read: Callable[[Any], T], *, tries: int = 3) -> T:
        """What `read` makes of the answer to a GET request, None where that is not JSON; see `post`."""
        return self._tried("GET", path, None, lambda content: read(_parsed_or_none(content)), tries)

    def post(self, path: str, body: bytes, read: Callable[[Any], T]) -> T:
        """What `read` makes of the server's JSON answer.

        Args:
            path: below the base URL.
            body: JSON.
            read: raises GarbledError where the answer is not as expected; the request is then sent again.

        Raises:
            RequestRefusedError: the server refuses the request.
            ServerError: the server cannot be reached, is overloaded, or gives garbled answers, for too long.
        """
        return self._tried("POST", path, body, lambda content: read(_parsed(content)), TRIES)

    def _tried(self, method: str, path: str, content: bytes | None, read: Callable[[bytes], T], tries: int) -> T:
        tried = held = 0
        began = time.monotonic()
        while True:
            self._wait_for_turn()
            delay: float | None = None
            try:
                response = self._http.request(method, f"{self.url}{path}", content=content)
            except httpx2.TimeoutException:
                fault = Fault(f"gave no answer within {self._timeout:g} s")
            except httpx2.TransportError as error:
                fault = connection_fault(error, self.url)
            except httpx2.DecodingError as error:
                fault = Fault(f"gave garbled answers (damaged compression: {first_line(error)})", GARBLED)
            except httpx2.HTTPError as error:
                raise ServerError(f"{self.url} cannot be used: {self._address.hide_key(first_line(error))}.") from error
            else:
                if response.is_success:
                    try:
                        result = read(response.content)
                    except GarbledError as garbled:
                        fault = Fault(f"gave garbled answers ({self._address.hide_key(str(garbled))[:_SHOWN]})", GARBLED)
                    else:
                        with self._lock:
                            self._answered_at = time.monotonic()
                        return result
                else:
                    delay = self._checked(response)
                    fault = Fault(f"answered {response.status_code} ({self._reason(response)})")
            words = self._address.hide_key(fault.words)
            if delay is not None:
                held += 1
                self._hold(delay or self._growing_pause(held), began, words)
                continue
            tried += 1
            if fault.lasting:
                raise ServerError(f"{self.url} {words}; {fault.cure}.")
            if tried == tries or (tried > 1 and self._idle(began) > max(PATIENCE, 2 * self._timeout)):
                raise ServerError(f"{self.url} {words} in {tried} tries; {fault.cure}, then give the same command again.")
            self._say(f"{words}; it is tried again, up to {tries} times", began)
            if self._closing.wait(self._growing_pause(tried)):
                raise ServerError(f"{self.url} {words}.")

    def _say(self, what: str, began: float) -> None:
        """Tells the user why nothing comes: at the first fault, then now and then while there is no usable answer."""
        idle = self._idle(began)
        now = time.monotonic()
        with self._lock:
            first = self._said_at is None
            if self._said_at is not None and (idle < _SAID_EVERY or now < self._said_at + _SAID_EVERY):
                return
            self._said_at = now
        # Equal lines appear once per command, so that each of these must differ.
        since = "" if first else f" (no usable answer for {idle:.0f} s)"
        _LOG.warning("%s %s%s.", self.url, what, since, extra={"once": (self.url, now)})

    def _growing_pause(self, times: int) -> float:
        """Seconds after a fault that came so many times; random, so that the threads do not all come back at once."""
        return min(self._pause * 2.0 ** (times - 1), _LONGEST_PAUSE) * random.uniform(0.75, 1.25)

    def _wait_for_turn(self) -> None:
        """Returns once no answer asks to wait any more."""
        while True:
            with self._lock:
                left = self._open_at - time.monotonic()
            if left <= 0 and not self._closing.is_set():
                return
            if self._closing.wait(max(left, 0)):
                raise ServerError(f"{self.url} gets no more requests.")

    def _hold(self, seconds: float, began: float, fault: str) -> None:
        """Lets all threads wait, as the server asks.

        Raises:
            ServerError: it asks for more than an hour, or has answered nothing for long.
        """
        if seconds > _LONGEST_WAIT:
            raise ServerError(f"{self.url} {fault} and asks to wait {duration(seconds)}; give the same command again then.")
        with self._lock:
            self._open_at = max(self._open_at, time.monotonic() + seconds)
        if (idle := self._idle(began)) > PATIENCE:
            raise ServerError(
                f"{self.url} {fault} and has answered nothing for {idle / 60:.0f} min; try a lower --concurrency, or later."
            )

        self._say(f"{fault}; all requests wait {duration(seconds)}", began)

    def _idle(self, began: float) -> float:
        """Seconds without a usable answer to any thread, since a request began."""
        with self._lock:
            return time.monotonic() - max(self._answered_at, began)

    def _checked(self, response: httpx2.Response) -> float | None:
        """Seconds that the server asks to wait; None where it does not.

        Raises:
            RequestRefusedError: sending the request again is of no use.
        """
        status, reason = response.status_code, self._reason(response)
        if status in _LATER and QUOTA not in response.text:
            delay = retry_after(response.headers.get("Retry-After"))
            return delay if delay is not None else 0.0 if status == HTTPStatus.TOO_MANY_REQUESTS else None
        words = f"{self.url} refused a request with {status} ({reason}); {refusal_cure(response)}."
        raise RequestRefusedError(words, status, reason)

    def _reason(self, response: httpx2.Response) -> str:
        """The server's words in one line; its status where it has none."""
        try:
            document = parse(response.content, constants=True)
            error = document.get("error", document.get("detail", document.get("message", "")))
            words = str(error.get("message", error) if isinstance(error, dict) else error)
        except (ValueError, AttributeError):
            words = response.text
        line = self._address.hide_key(" ".join(words.split())).rstrip(".")
        return line[:_SHOWN] or response.reason_phrase or "without a reason"


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds to wait, from a header that holds seconds or a date; None where it holds neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        date = date if date.tzinfo is not None else date.replace(tzinfo=timezone.utc)
        seconds = (date - (now or datetime.now(timezone.utc))).total_seconds()
    return max(seconds, 0.0) if seconds < float("inf") else None


def _parsed(content: bytes) -> Any:
    try:
        return parse(content, constants=True)
    except ValueError as error:
        raise GarbledError("not JSON") from error


def _parsed_or_none(content: bytes) -> Any:
    try:
        return _parsed(content)
    except GarbledError:
        return None
