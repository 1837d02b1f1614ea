"""File formats of evidence: JSON lines while a run appends to it, a Parquet file when it is complete.

A JSONL file begins with a header line, which says what produced the rows; one row per line follows. Log-probabilities and seconds
are written so that they round-trip as float64, attention as base64 of little-endian float32: the recorder's precision, an eighth
of the time and half of the space of decimal numbers. Every line has a checksum, which also covers the header, and a Parquet file
has a digest of its values; older files without them are read too, with every value checked for its range.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lad_eval.errors import DamagedError, EvidenceError
from lad_eval.evidence.table import Evidence
from lad_eval.files.log import Contents, LogRow, rank_paths, read_log
from lad_eval.files.tables import read_table, write_table

FORMAT = 1
PARQUET = "evidence.parquet"
LOG = "evidence"
"""Name of the logs that become the Parquet file, see `rank_paths`."""
_SCALARS = ("key", "sample_id", "split", "gold_position", "forward_passes", "seconds")
_VECTORS = ("perm", "log_probs")
_ATTENTION = ("attention", "attention_delimited")
_MAPS = ("token_map", "token_grid")
MAX_LOG_PROB = 1e-6
"""Above 0 only by rounding."""
MAX_ATTENTION = 1.01
"""A softmax's sum over tokens, above 1 only by the rounding of half precision."""
_MOST = 2**53
_AGAIN = "move it away and run again."


@dataclass(frozen=True)
class EvidenceHeader:
    """What produced the rows of a file, their shape (N candidates, L layers, 0: no attention), and if they have token maps."""

    fingerprint: Mapping[str, Any]
    task: Mapping[str, Any]
    candidates: int
    layers: int
    token_maps: bool = False

    def document(self) -> dict[str, Any]:
        facts = {name: value for name, value in vars(self).items() if name != "token_maps" or value}
        return {"format": FORMAT, **facts}

    @classmethod
    def for_rows(cls, fingerprint: Mapping[str, Any], task: Mapping[str, Any], evidence: Evidence) -> EvidenceHeader:
        """The header of a file of these rows."""
        return cls(fingerprint, task, evidence.n_candidates, evidence.n_layers, evidence.token_map is not None)

    @classmethod
    def of(cls, document: Any, path: Path) -> EvidenceHeader:
        """A header from JSON.

        Raises:
            DamagedError: it is not a header.
            EvidenceError: it is a header of another format.
        """
        try:
            version = document["format"]
            if version == FORMAT:
                shape = document["candidates"], document["layers"], document.get("token_maps", False)
                return cls(document["fingerprint"], document["task"], *shape)._checked()
        except (TypeError, KeyError, IndexError):
            raise DamagedError(
                f"{path} does not begin with a header, so its rows are of unknown origin; move it away and run again."
            ) from None
        raise EvidenceError(f"{path} has evidence format {version!r}, and this version of lad_eval reads {FORMAT}.")

    def _checked(self) -> EvidenceHeader:
        named = isinstance(self.fingerprint, Mapping) and isinstance(self.task, Mapping)
        counts = is_count(self.candidates) and self.candidates >= 2 and is_count(self.layers)
        if not (named and counts and isinstance(self.token_maps, bool)):
            raise TypeError("no shape")
        return self


def rows_of(evidence: Evidence) -> list[LogRow]:
    """The rows as JSON objects, for a log whose header is `EvidenceHeader.document`.

    Raises:
        EvidenceError: a value is not finite, or out of its column's range.
    """
    check_ranges(evidence)
    columns: dict[str, list[Any]] = {name: getattr(evidence, name).tolist() for name in (*_SCALARS, *_VECTORS)}
    for name in _ATTENTION:
        array = getattr(evidence, name)
        same = name == "attention_delimited" and evidence.attention is not None and np.array_equal(array, evidence.attention)
        if array is None or same:
            continue
        columns[name] = [base64.b64encode(row.tobytes()).decode() for row in array.astype("<f4")]
    if evidence.token_map is not None and evidence.token_grid is not None:
        columns["token_map"] = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in evidence.token_map]
        columns["token_grid"] = evidence.token_grid.tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def check_ranges(evidence: Evidence) -> None:
    """Refuses values that no model can produce.

    Raises:
        EvidenceError: there is such a value.
    """
    if not np.isfinite(evidence.log_probs).all() or not np.isfinite(evidence.seconds).all():
        raise EvidenceError("log_probs or seconds are not finite; they cannot be stored.")
    if (evidence.log_probs > MAX_LOG_PROB).any():
        raise EvidenceError("log_probs must be logarithms of probabilities, at most 0; others cannot be stored.")
    if (evidence.seconds < 0).any() or (evidence.forward_passes < 0).any():
        raise EvidenceError("seconds and forward_passes must not be negative; they cannot be stored.")
    for name in _ATTENTION:
        array = getattr(evidence, name)
        if array is not None and not np.isfinite(array).all():
            raise EvidenceError(f"{name} is not finite; it cannot be stored.")
        if array is not None and ((array < 0) | (array > MAX_ATTENTION)).any():
            raise EvidenceError(f"{name} must lie in 0..1, as shares of a softmax do; it cannot be stored.")


def scan(path: Path) -> Contents[EvidenceHeader]:
    """Reads the complete lines of a JSONL file.

    Raises:
        DamagedError: the header cannot be read, and lines follow it.
        EvidenceError: it is of another format.
    """
    return read_log(path, EvidenceHeader.of, _is_row)


def _is_row(row: LogRow, header: EvidenceHeader) -> bool:
    """Whether a row has every value, each of its column's type and range."""
    if not all(name in row for name in (*_SCALARS, *_VECTORS)):
        return False
    spans = [name for name in _ATTENTION if name in row]
    return (
        all(isinstance(row[name], str) and row[name] for name in ("key", "split"))
        and isinstance(row["sample_id"], str)
        and row["split"] in ("test", "calibration")
        and is_count(row["gold_position"], header.candidates - 1)
        and is_count(row["forward_passes"])
        and is_number(row["seconds"])
        and row["seconds"] >= 0
        and is_permutation(row["perm"], header.candidates)
        and isinstance(row["log_probs"], list)
        and len(row["log_probs"]) == header.candidates
        and all(is_number(value) and value <= MAX_LOG_PROB for value in row["log_probs"])
        and ("attention" in spans) == bool(header.layers)
        and (bool(header.layers) or not spans)
        and all(_is_attention(row[name], header.layers * header.candidates) for name in spans)
        and (_has_map(row, header.candidates) if header.token_maps else not any(name in row for name in _MAPS))
    )


def is_count(value: Any, most: int = _MOST) -> bool:
    """Whether a value from JSON is a whole number in 0..most."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def is_number(value: Any) -> bool:
    """Whether a value from JSON is a finite number."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= _MOST
    return isinstance(value, float) and math.isfinite(value)


def is_permutation(value: Any, candidates: int) -> bool:
    """Whether a value from JSON is an order of 0..candidates-1."""
    return isinstance(value, list) and all(is_count(v) for v in value) and sorted(value) == list(range(candidates))


def _has_map(row: LogRow, candidates: int) -> bool:
    """Whether a row has a token map, and its grid."""
    grid = row.get("token_grid")
    if not isinstance(grid, list) or len(grid) != candidates:
        return False
    if not all(isinstance(image, list) and len(image) == 3 and all(map(is_count, image)) for image in grid):
        return False
    fits = all(tokens and height * width <= tokens for tokens, height, width in grid)
    return fits and _is_attention(row.get("token_map"), sum(tokens for tokens, _, _ in grid), most=np.inf)


def _is_attention(text: Any, count: int, most: float = MAX_ATTENTION) -> bool:
    if not isinstance(text, str) or len(text) != 4 * -(-4 * count // 3):
        return False
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
    except (binascii.Error, ValueError):
        return False
    return len(values) == count and bool((np.isfinite(values) & (values >= 0) & (values <= most)).all())


def evidence_of(rows: Sequence[LogRow], header: EvidenceHeader) -> Evidence:
    """Rows as an `Evidence` table."""
    shape = (len(rows), header.layers, header.candidates)
    attention: dict[str, npt.NDArray[np.float64] | None] = dict.fromkeys(_ATTENTION)
    if header.layers:
        for name in _ATTENTION:
            joined = b"".join(base64.b64decode(row.get(name) or row["attention"]) for row in rows)
            attention[name] = np.frombuffer(joined, dtype="<f4").reshape(shape).astype(np.float64)
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in (*_SCALARS, *_VECTORS)}
    if header.token_maps:
        columns["token_map"] = [np.frombuffer(base64.b64decode(row["token_map"]), dtype="<f4") for row in rows]
        columns["token_grid"] = [row["token_grid"] for row in rows]
    return _table({**columns, **attention}, header)


def _table(columns: Mapping[str, Any], header: EvidenceHeader) -> Evidence:
    if not all(isinstance(text, str) for name in ("key", "sample_id", "split") for text in columns[name]):
        raise EvidenceError("a name is not text.")
    if (columns["attention"] is None) != (header.layers == 0):
        raise EvidenceError("its attention is not that of its layers.")
    evidence = Evidence.from_arrays(
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
    if not header.token_maps:
        return evidence
    grids = np.asarray(columns["token_grid"]).reshape(len(evidence), header.candidates, 3)
    return evidence.with_token_maps(columns["token_map"], grids)


def write_parquet(path: Path, evidence: Evidence, header: EvidenceHeader) -> None:
    """A Parquet file with one row per request; arrays are lists of fixed length, attention flattened from [L, N]."""
    import pyarrow as pa

    columns = {name: pa.array(getattr(evidence, name).tolist()) for name in _SCALARS}
    columns["perm"] = _lists(pa, evidence.perm)
    columns["log_probs"] = _lists(pa, evidence.log_probs)
    for name in _ATTENTION:
        array = getattr(evidence, name)
        if array is not None:
            columns[name] = _lists(pa, array.reshape(len(evidence), -1).astype(np.float32))
    if evidence.token_map is not None and evidence.token_grid is not None:
        columns["token_map"] = pa.array([row.astype(np.float32) for row in evidence.token_map], pa.list_(pa.float32()))
        columns["token_grid"] = _lists(pa, evidence.token_grid.reshape(len(evidence), -1).astype(np.int32))
    write_table(path, pa.table(columns), header.document(), compression="zstd", use_dictionary=["sample_id", "split"])


def _lists(pa: Any, array: npt.NDArray[Any]) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])


def _read(path: Path, columns: list[str] | None = None) -> tuple[Any, EvidenceHeader]:
    table, document = read_table(path, cure=_AGAIN, columns=columns)
    return table, EvidenceHeader.of(document, path)


def read_parquet(path: Path) -> Evidence:
    """The rows of a file that `write_parquet` wrote.

    Raises:
        DamagedError: the file is damaged or of another origin.
    """
    table, header = _read(path)
    try:
        columns: dict[str, Any] = {name: table.column(name).to_pylist() for name in _SCALARS}
        for name in (*_VECTORS, *_ATTENTION):
            columns[name] = None
            if name in table.column_names:
                flat = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
                shape = (len(table), header.candidates) if name in _VECTORS else (len(table), header.layers, header.candidates)
                columns[name] = flat.reshape(shape)
        if header.token_maps:
            columns["token_map"] = [row.values.to_numpy() for row in table.column("token_map")]
            columns["token_grid"] = table.column("token_grid").to_pylist()
        evidence = _table(columns, header)
        check_ranges(evidence)
    except (EvidenceError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DamagedError(f"{path} is damaged: {' '.join(str(error).split()).rstrip('.')}; {_AGAIN}") from error
    return evidence


def files_of(folder: Path) -> list[Path]:
    """Files of evidence: the Parquet file, then a single process's, then the ranks' in order."""
    finished = folder / PARQUET
    return [*([finished] if finished.exists() else []), *rank_paths(folder, LOG)]


def header_of(path: Path) -> EvidenceHeader:
    """The header of a Parquet file; its values are not read.

    Raises:
        DamagedError: the file is damaged or of another origin.
    """
    return _read(path, ["key"])[1]


def first_of_each(parts: Iterable[Evidence]) -> Evidence:
    """All parts concatenated, with the first row of each key.

    Raises:
        EvidenceError: the parts differ in fingerprint or shape, or there are none.
    """
    joined = Evidence.concatenate(list(parts))
    seen: set[str] = set()
    fresh = []
    for key in joined.key.tolist():
        fresh.append(key not in seen)
        seen.add(key)
    return joined if all(fresh) else joined.select(np.asarray(fresh))
