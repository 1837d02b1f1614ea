"""Evidence as bytes: lines of JSON while it grows, a Parquet file when it is whole.

A JSONL file begins with a header line that says what made the rows; a row a line follows. Log-probabilities and seconds are
written so that the same float64 comes back, attention as base64 of little-endian float32: the recorder's precision, an eighth
of the time and half of the space that decimal numbers would take.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lad_eval.errors import EvidenceError
from lad_eval.evidence import Evidence

FORMAT = 1
PARQUET = "evidence.parquet"
JSONL = "evidence.jsonl"
_SCALARS = ("key", "sample_id", "split", "gold_position", "forward_passes", "seconds")
_VECTORS = ("perm", "log_probs")
_ATTENTION = ("attention", "attention_delimited")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Header:
    """What made the rows of a file, and their shape: N candidates, L layers (0: no attention)."""

    fingerprint: Mapping[str, Any]
    task: Mapping[str, Any]
    candidates: int
    layers: int

    def document(self) -> dict[str, Any]:
        return {"format": FORMAT, **vars(self)}

    @classmethod
    def of(cls, document: Any, path: Path) -> Header:
        """A header from JSON.

        Raises:
            EvidenceError: it is no header, or that of a later format.
        """
        try:
            version = document["format"]
            if version == FORMAT:
                return cls(document["fingerprint"], document["task"], document["candidates"], document["layers"])
        except (TypeError, KeyError, IndexError):
            raise EvidenceError(
                f"{path} does not begin with a header, so what made its rows is unknown; move it away and run again."
            ) from None
        raise EvidenceError(f"{path} has evidence format {version}, and this version of lad_eval reads {FORMAT}.")


@dataclass
class Scan:
    """A JSONL file as it was found.

    Attributes:
        header: None if the file has nothing whole in it.
        rows: the whole rows, in order, numbers as JSON has them.
        end: bytes up to the end of the last whole line, its line break not counted.
        size: bytes in all.
        damaged: numbers of the lines that are not whole, from 1.
    """

    header: Header | None = None
    rows: list[Row] = field(default_factory=list)
    end: int = 0
    size: int = 0
    damaged: list[int] = field(default_factory=list)


def lines(evidence: Evidence) -> bytes:
    """The rows as lines of JSON.

    Raises:
        EvidenceError: a value is not finite.
    """
    columns: dict[str, list[Any]] = {name: getattr(evidence, name).tolist() for name in (*_SCALARS, *_VECTORS)}
    for name in _ATTENTION:
        array = getattr(evidence, name)
        same = name == "attention_delimited" and evidence.attention is not None and np.array_equal(array, evidence.attention)
        if array is None or same:
            continue
        if not np.isfinite(array).all():
            raise EvidenceError(f"{name} is not finite; it cannot be stored.")
        columns[name] = [base64.b64encode(row.tobytes()).decode() for row in array.astype("<f4")]
    try:
        return b"".join(
            json.dumps(dict(zip(columns, row, strict=True)), allow_nan=False).encode() + b"\n"
            for row in zip(*columns.values(), strict=True)
        )
    except ValueError:
        raise EvidenceError("log_probs or seconds are not finite; they cannot be stored.") from None


def header_line(header: Header) -> bytes:
    return json.dumps(header.document(), sort_keys=True).encode() + b"\n"


def scan(path: Path) -> Scan:
    """Reads a JSONL file, whole lines only.

    Raises:
        EvidenceError: rows stand below a header that cannot be read.
    """
    content = path.read_bytes()
    found = Scan(size=len(content))
    position = 0
    for number, line in enumerate(content.split(b"\n"), start=1):
        start, position = position, position + len(line) + 1
        if not line:
            continue
        document = _json(line)
        if found.header is None and not found.damaged and document is not None:
            found.header = Header.of(document, path)
        elif document is None or found.header is None or not _is_row(document, found.header):
            found.damaged.append(number)
            if found.header is None and document is not None:
                raise EvidenceError(
                    f"{path}: its first line, which says what made the rows, is damaged; move it away and run again."
                )
            continue
        else:
            found.rows.append(document)
        found.end = start + len(line)
    return found


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _is_row(row: Any, header: Header) -> bool:
    """Whether a line that is JSON is also a whole row; the arrays' lengths tell."""
    if not isinstance(row, dict) or not all(name in row for name in (*_SCALARS, *_VECTORS)):
        return False
    letters = 4 * -(-4 * header.layers * header.candidates // 3)
    spans = [name for name in _ATTENTION if name in row]
    return (
        all(isinstance(row[name], list) and len(row[name]) == header.candidates for name in _VECTORS)
        and all(isinstance(row[name], str) and len(row[name]) == letters for name in spans)
        and ("attention" in spans) == bool(header.layers)
    )


def evidence_of(rows: Sequence[Row], header: Header) -> Evidence:
    """Rows as a table."""
    shape = (len(rows), header.layers, header.candidates)
    attention: dict[str, npt.NDArray[np.float64] | None] = dict.fromkeys(_ATTENTION)
    if header.layers:
        for name in _ATTENTION:
            joined = b"".join(base64.b64decode(row.get(name) or row["attention"]) for row in rows)
            attention[name] = np.frombuffer(joined, dtype="<f4").reshape(shape).astype(np.float64)
    columns = {name: [row[name] for row in rows] for name in (*_SCALARS, *_VECTORS)}
    return _table({**columns, **attention}, header)


def _table(columns: Mapping[str, Any], header: Header) -> Evidence:
    return Evidence.from_arrays(
        columns["log_probs"],
        columns["attention"],
        columns["gold_position"],
        columns["sample_id"],
        attention_delimited=columns["attention_delimited"],
        perm=columns["perm"],
        split=columns["split"],
        key=columns["key"],
        forward_passes=columns["forward_passes"],
        seconds=columns["seconds"],
        fingerprint=header.fingerprint,
    )


def write_parquet(path: Path, evidence: Evidence, header: Header) -> None:
    """A Parquet file: a row a request; lists of fixed length for what is an array, attention flattened from [L, N]."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(getattr(evidence, name).tolist()) for name in _SCALARS}
    columns["perm"] = _lists(pa, evidence.perm)
    columns["log_probs"] = _lists(pa, evidence.log_probs)
    for name in _ATTENTION:
        array = getattr(evidence, name)
        if array is not None:
            columns[name] = _lists(pa, array.reshape(len(evidence), -1).astype(np.float32))
    table = pa.table(columns).replace_schema_metadata({"lad_eval": json.dumps(header.document(), sort_keys=True)})
    pq.write_table(table, path, compression="zstd", use_dictionary=["sample_id", "split"])


def _lists(pa: Any, array: npt.NDArray[Any]) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])


def _read_table(path: Path, columns: list[str] | None = None) -> tuple[Any, Header]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=columns)
        return table, Header.of(json.loads((table.schema.metadata or {}).get(b"lad_eval", b"null")), path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise EvidenceError(f"{path} cannot be read ({_first_line(error)}); move it away and run again.") from None


def read_parquet(path: Path) -> Evidence:
    """The rows of a file that `write_parquet` wrote.

    Raises:
        EvidenceError: the file is damaged or of another origin.
    """
    table, header = _read_table(path)
    columns: dict[str, Any] = {name: table.column(name).to_pylist() for name in _SCALARS}
    for name in (*_VECTORS, *_ATTENTION):
        columns[name] = None
        if name in table.column_names:
            flat = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
            shape = (len(table), header.candidates) if name in _VECTORS else (len(table), header.layers, header.candidates)
            columns[name] = flat.reshape(shape)
    return _table(columns, header)


def files_of(folder: Path) -> list[Path]:
    """Files of evidence: the finished one, a single process's, the ranks' in order."""
    ranks = {path: path.suffixes[0].removeprefix(".rank") for path in folder.glob("evidence.rank*.jsonl")}
    in_order = sorted((path for path, rank in ranks.items() if rank.isdigit()), key=lambda path: int(ranks[path]))
    return [path for path in (folder / PARQUET, folder / JSONL, *in_order) if path.exists()]


def keys_of(file: Path) -> tuple[Header | None, list[str]]:
    """Header and keys of a file of either kind; no header if nothing whole is in it.

    Raises:
        EvidenceError: the file is damaged beyond single lines.
    """
    if file.name == PARQUET:
        table, header = _read_table(file, ["key"])
        return header, table.column("key").to_pylist()
    found = scan(file)
    return found.header, [row["key"] for row in found.rows]


def first_of_each(parts: Iterable[Evidence]) -> Evidence:
    """All parts joined; of equal keys the first row stays.

    Raises:
        EvidenceError: the parts do not belong together, or there are none.
    """
    joined = Evidence.concatenate(list(parts))
    seen: set[str] = set()
    fresh = []
    for key in joined.key.tolist():
        fresh.append(key not in seen)
        seen.add(key)
    return joined if all(fresh) else joined.select(np.asarray(fresh))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
