"""Downloads files: resumable, checked and atomic; where that fails, the error says what to do by hand."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lad_eval.data.dataset import DataFile, Progress
from lad_eval.errors import DataError
from lad_eval.files.documents import read_json, write_json

TIMEOUT_SECONDS = 60.0
# Waits before the next try after one without progress; after one with progress they start from the first again.
PATIENCE_SECONDS = (1.0, 2.0, 5.0, 10.0)

_CHUNK = 1 << 20
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_HEX64 = re.compile(r'"?([0-9a-fA-F]{64})"?')


class ChecksumError(DataError):
    """A file whose content is not what its publisher offers."""


def fetch(
    file: DataFile, root: Path, progress: Progress, *, download: bool = True, headers: Mapping[str, str] | None = None
) -> Path:
    """The file below `root`, downloaded if it is not there.

    A broken transfer resumes where it stopped, at once or, after the process was killed, in the next call; the file gets
    its name only when it is complete and its checksum is right. The bytes so far are in the same folder, as `<name>.part`.

    Args:
        download: False: nothing is downloaded.
        headers: further request headers.

    Raises:
        DataError: it is not there and cannot be fetched, or what is there has the wrong size; the text names file, url and place.
        ChecksumError: what was fetched is not what was published; it is removed.
    """
    target = root / file.path
    if target.is_file():
        if file.bytes is not None and (size := target.stat().st_size) != file.bytes:
            raise DataError(f"{target} has {size} bytes, not {file.bytes}: remove it to have it fetched again{_where(file)}.")
        return target
    if not download or file.url is None:
        raise missing(file, root)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _Transfer(file, target, dict(headers or {})).run(progress)
    except OSError as error:
        raise _disk(target, error) from None
    return target


def missing(file: DataFile, root: Path, reason: str = "") -> DataError:
    """The error for a missing file: which one, where to get it, where to put it."""
    how = f" {file.manual}" if file.manual else ""
    get = f"get it from {file.url} and put it there" if file.url else "put it there"
    return DataError(f"{root / file.path} is missing ({file.purpose}){reason}: {get}, then run the same command again.{how}")


def check(path: Path, file: DataFile, progress: Progress) -> str | None:
    """What is wrong with the content of a file that should be `file`, in one line; None if size and checksum are right."""
    size = path.stat().st_size
    if file.bytes is not None and size != file.bytes:
        return f"{path} has {size} bytes, not {file.bytes}"
    for kind in ("sha256", "md5"):
        expected = getattr(file, kind)
        if expected is not None:
            digest = _digest(path, kind, progress)
            return None if digest == expected.lower() else f"{path} has {kind} {digest}, not {expected.lower()}"
    return None


@dataclass
class _Transfer:
    """The transfer of one file."""

    file: DataFile
    target: Path
    headers: dict[str, str]
    total: int | None = None
    published: str | None = None
    tag: str | None = None
    begun: bool = False
    part: Path = field(init=False)
    note: Path = field(init=False)

    def __post_init__(self) -> None:
        self.part = self.target.with_name(self.target.name + ".part")
        self.note = self.target.with_name(self.target.name + ".part.json")
        self.total = self.file.bytes
        if not self.part.is_file():
            return
        # A part from another address, or perhaps of another version, is not continued.
        note: dict[str, Any] = {}
        with contextlib.suppress(DataError):
            note = read_json(self.note, error=DataError)
        self.tag, self.published = note.get("tag"), note.get("sha256")
        if note.get("url") != self.file.url or not (self.tag or self.file.sha256 or self.file.md5):
            self.part.unlink()

    def run(self, progress: Progress) -> None:
        waits = list(PATIENCE_SECONDS)
        while True:
            before = self._have()
            fault = self._try(progress)
            if fault is None:
                break
            if self._have() > before:
                waits = list(PATIENCE_SECONDS)
            elif not waits:
                raise missing(self.file, self._root(), self._outcome(fault))
            else:
                time.sleep(waits.pop(0))
        self._finish(progress)

    def _try(self, progress: Progress) -> str | None:
        """One connection: what broke it, or None when the file is complete.

        Raises:
            DataError: trying again cannot help.
        """
        have = self._have()
        if self.total is not None and have == self.total and have:
            return None
        try:
            with _open(self._request(have), self._redirected) as answer:
                start = self._begin(answer, have)
                label = self.file.name
                with progress(label, self.total or 0, start, unit="bytes") as advance, self.part.open("ab") as out:
                    while chunk := answer.read(_CHUNK):
                        out.write(chunk)
                        advance(len(chunk))
        except urllib.error.HTTPError as error:
            if error.code == 416 and have:
                # The file is complete: the process was killed between the last byte and the renaming.
                if self.tag and error.headers.get("Content-Range") == f"bytes */{have}":
                    return None
                self.part.unlink()
                return "the partial download no longer matches the file"
            if error.code in _AGAIN:
                return f"the server said {error.code} {error.reason}"
            raise missing(self.file, self._root(), f", and its server said {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            if not self.begun:
                # Nothing was ever received: there is no network, and waiting does not help.
                raise missing(self.file, self._root(), self._outcome(_plain(error.reason))) from None
            return _plain(error.reason)
        except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            return _plain(error)
        have = self._have()
        if self.total is not None and have != self.total:
            if have > self.total:
                self.part.unlink()
            return f"it ended at {have} of {self.total} bytes"
        return None

    def _request(self, have: int) -> urllib.request.Request:
        assert self.file.url is not None
        if urlsplit(self.file.url).scheme not in ("http", "https"):
            raise DataError(f"{self.file.url}: only http and https addresses are fetched.")
        request = urllib.request.Request(self.file.url, headers={"User-Agent": "lad-eval", **self.headers})
        if have:
            request.add_header("Range", f"bytes={have}-")
            if self.tag:
                request.add_header("If-Range", self.tag)
        return request

    def _begin(self, answer: Any, have: int) -> int:
        """Reads the response's headers; returns the offset of the bytes that follow."""
        self.begun = True
        length = answer.headers.get("Content-Length")
        start = have if answer.status == 206 else 0
        if answer.status == 206 and not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-"):
            self.part.unlink()
            raise http.client.HTTPException("the server sent a part other than the one requested")
        if not start and self.part.exists():
            self.part.unlink()
        if length is not None and not answer.headers.get("Content-Encoding"):
            total = start + int(length)
            if self.file.bytes is not None and total != self.file.bytes:
                raise DataError(
                    f"{self.file.url} has {total} bytes, not {self.file.bytes} as published: it has changed; see whether a newer "
                    "version of lad_eval knows it."
                )
            self.total = total
        # Only a strong validator says that two parts are of one file.
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        self.tag = None if tag is None or tag.startswith("W/") else tag
        note = {"url": self.file.url, "tag": self.tag, "sha256": self.published}
        write_json(self.note, note)
        return start

    def _redirected(self, headers: Any) -> None:
        """The hub of Hugging Face gives a file's SHA-256 where it redirects to the store of large files."""
        if digest := _HEX64.fullmatch(str(headers.get("X-Linked-ETag", ""))):
            self.published = digest[1].lower()

    def _finish(self, progress: Progress) -> None:
        expected = self.file if self.file.sha256 or self.file.md5 or not self.published else None
        known = expected or DataFile(self.file.path, self.file.url, "", "", self.file.bytes, sha256=self.published)
        if fault := check(self.part, known, progress):
            self.part.unlink()
            self.note.unlink(missing_ok=True)
            raise ChecksumError(
                f"{fault.replace(str(self.part), str(self.target))}: what came from {self.file.url} is damaged or has changed; "
                "it was removed. Run the same command again, or fetch it by other means and put it there."
            )
        self.part.replace(self.target)
        self.note.unlink(missing_ok=True)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _root(self) -> Path:
        return self.target.parents[self.file.path.count("/")]

    def _outcome(self, fault: str) -> str:
        so_far = f"; {self._have()} bytes are kept" if self._have() else ""
        return f", and could not be fetched ({fault}{so_far})"


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects as usual, exposes their headers, and sends no credentials to another host."""

    def __init__(self, seen: Any) -> None:
        self._seen = seen

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        self._seen(headers)
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            following.remove_header("Authorization")
        return following


def _open(request: urllib.request.Request, seen: Any) -> Any:
    return urllib.request.build_opener(_Redirects(seen)).open(request, timeout=TIMEOUT_SECONDS)


def _digest(path: Path, kind: str, progress: Progress) -> str:
    total = hashlib.new(kind, usedforsecurity=False)
    with progress(f"checking {path.name}", path.stat().st_size, unit="bytes") as advance, path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            total.update(chunk)
            advance(len(chunk))
    return total.hexdigest()


def _where(file: DataFile) -> str:
    return f" from {file.url}" if file.url else ""


def _plain(reason: object) -> str:
    if isinstance(reason, OSError) and reason.strerror:
        return os.strerror(reason.errno) if reason.errno and reason.errno > 0 else reason.strerror
    return str(reason) or type(reason).__name__


def _disk(target: Path, error: OSError) -> DataError:
    full = " Free some room; the same command resumes where it stopped." if error.errno == errno.ENOSPC else ""
    return DataError(f"{error.filename or target}: cannot be written: {error.strerror or error}.{full}")
