"""Unpacks zips: nothing outside the folder, nothing twice; damaged and hostile ones are refused in one line."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from lad_eval.data.dataset import Progress
from lad_eval.errors import DataError

# Pictures hardly shrink in a zip, and JSON about tenfold; an archive that unpacks to far more is a zip bomb.
MOST_TIMES_LARGER = 100
SMALL_BYTES = 64 << 20
MOST_MEMBERS = 1_000_000

_CHUNK = 1 << 20
_ENCRYPTED = 0x1


def unpack(archive: Path, into: Path, progress: Progress) -> int:
    """Unpacks a zip; members that are there with the right size are not unpacked again.

    Every member is written to a temporary file and then renamed, so that a killed process leaves no partial file, and the next
    call continues. All names are checked before the first file is written.

    Returns:
        How many members were written.

    Raises:
        DataError: the zip is damaged, encrypted, has an unsafe or repeated member name or a link, unpacks to far more than a
            data set does, or the disk is too small.
    """
    with _opened(archive) as content:
        members = _checked(archive, content)
        wanted = [member for member in members if not _is_there(into / member.filename, member)]
        _check_room(archive, into, sum(member.file_size for member in wanted))
        done = sum(member.file_size for member in members) - sum(member.file_size for member in wanted)
        total = sum(member.file_size for member in members)
        with progress(f"unpacking {archive.name}", total, done, unit="bytes") as advance:
            for member in wanted:
                _write(archive, content, member, into / member.filename)
                advance(member.file_size)
    return len(wanted)


def differences(archive: Path, into: Path, progress: Progress) -> list[str]:
    """Members that are missing or differ in size or CRC-32 from what the zip says, one line each.

    Raises:
        DataError: as `unpack`.
    """
    problems = []
    with _opened(archive) as content:
        members = _checked(archive, content)
    with progress(f"reading what {archive.name} held", sum(m.file_size for m in members), unit="bytes") as advance:
        for member in members:
            path = into / member.filename
            if not path.is_file():
                problems.append(f"{path}: missing, though {archive.name} holds it")
            elif path.stat().st_size != member.file_size or _crc(path) != member.CRC:
                problems.append(f"{path}: differs from what {archive.name} holds; remove it and prepare again")
            advance(member.file_size)
    return problems


def top_folders(archive: Path) -> set[str]:
    """The first parts of all member names.

    Raises:
        DataError: as `unpack`.
    """
    with _opened(archive) as content:
        return {PurePosixPath(member.filename).parts[0] for member in _checked(archive, content)}


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(archive) as content:
            yield content
    except FileNotFoundError:
        raise DataError(f"{archive}: no such file.") from None
    # zipfile raises NotImplementedError for methods and versions that it cannot unpack, ValueError for impossible fields.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise DataError(
            f"{archive} is not a zip archive or is damaged ({_plain(error)}); remove it, so that it can be fetched again."
        ) from None
    except OSError as error:
        raise DataError(f"{error.filename or archive}: {error.strerror or error}.") from None


def _checked(archive: Path, content: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files in a zip, once all of its members are known to be harmless."""
    members = content.infolist()
    if len(members) > MOST_MEMBERS:
        raise DataError(f"{archive} has {len(members)} members, and no more than {MOST_MEMBERS} are unpacked.")
    for member in members:
        if fault := _fault(member):
            raise DataError(f"{archive} is refused and nothing was unpacked: its member {_shown(member)} {fault}.")
    files = [member for member in members if not member.is_dir()]
    _check_repeated(archive, files)
    size = sum(member.file_size for member in files)
    if size > max(SMALL_BYTES, MOST_TIMES_LARGER * archive.stat().st_size):
        raise DataError(
            f"{archive} is refused: its {archive.stat().st_size} bytes unpack to {size}, which no data set does; fetch it again."
        )
    return files


def _fault(member: zipfile.ZipInfo) -> str | None:
    # orig_filename, because ZipInfo cuts a name at a zero byte.
    name = member.orig_filename
    mode = member.external_attr >> 16
    if "\\" in name or "\0" in name:
        return "has a backslash or a zero byte in its name"
    if name.startswith("/") or PureWindowsPath(name).drive:
        return "names an absolute place"
    if not PurePosixPath(name).parts:
        return "names no file"
    if ".." in PurePosixPath(name).parts:
        return "leads out of the folder"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or another special file"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted"
    return None


def _check_repeated(archive: Path, files: Sequence[zipfile.ZipInfo]) -> None:
    names: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    for member in files:
        path = PurePosixPath(member.filename)
        if path in names:
            raise DataError(f"{archive} is refused: its member {_shown(member)} is there twice.")
        names.add(path)
        folders.update(path.parents)
    if both := names & folders:
        raise DataError(f"{archive} is refused: {str(min(both))!r} is a file and a folder in it.")


def _check_room(archive: Path, into: Path, needed: int) -> None:
    try:
        into.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(into).free
    except OSError as error:
        raise DataError(f"{into}: cannot be written: {error.strerror}.") from None
    if needed > free:
        raise DataError(f"{archive.name} needs {needed / 1e9:.1f} GB in {into}, and {free / 1e9:.1f} GB are free.")


def _write(archive: Path, content: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with content.open(member) as packed, part.open("wb") as out:
            shutil.copyfileobj(packed, out, _CHUNK)
        part.replace(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        part.unlink(missing_ok=True)
        raise DataError(
            f"{archive} is damaged at {_shown(member)} ({_plain(error)}); remove it, so that it can be fetched again."
        ) from None
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(f"{target}: cannot be written: {error.strerror or error}.") from None


def _is_there(path: Path, member: zipfile.ZipInfo) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == member.file_size


def _crc(path: Path) -> int:
    total = 0
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            total = zlib.crc32(chunk, total)
    return total


def _shown(member: zipfile.ZipInfo) -> str:
    name = member.orig_filename
    return repr(name if len(name) <= 80 else name[:77] + "...")


def _plain(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or os.fspath(type(error).__name__)
