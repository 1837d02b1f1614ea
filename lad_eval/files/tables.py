"""Our own Parquet tables: the file's metadata holds a document and a digest of all values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lad_eval.errors import DamagedError, first_line
from lad_eval.files.documents import CHECKSUM, parse

_KEY = b"lad_eval"


def write_table(path: Path, table: Any, document: Mapping[str, Any], **options: Any) -> None:
    """Writes an arrow table with a document in its metadata.

    Args:
        path: of the file.
        table: a `pyarrow.Table`; its other metadata is kept.
        document: JSON-serialisable.
        options: of `pyarrow.parquet.write_table`.

    Raises:
        OSError: the file cannot be written.
    """
    import pyarrow.parquet as pq

    sealed = {**document, CHECKSUM: _digest(table, document)}
    metadata = {**(table.schema.metadata or {}), _KEY: json.dumps(sealed, sort_keys=True).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path, **options)


def read_table(path: Path, *, cure: str, columns: list[str] | None = None) -> tuple[Any, dict[str, Any] | None]:
    """An arrow table, and the document written with it (None for a file of another origin).

    Args:
        path: of the file.
        cure: what the user can do about a damaged one, a sentence.
        columns: to read, without checking the digest; None: all.

    Raises:
        DamagedError: the file cannot be read, or its values are not those that were written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            table = pq.read_table(pa.PythonFile(file, mode="r"), columns=columns)
        metadata = (table.schema.metadata or {}).get(_KEY)
        parsed = None if metadata is None else parse(metadata)
        document: dict[str, Any] = parsed if isinstance(parsed, dict) else {}
        stored = document.pop(CHECKSUM, None)
        whole = stored is None or columns is not None or stored == _digest(table, document)
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing; {cure}") from error
    except Exception as error:  # a damaged file may make the library fail in any way
        raise DamagedError(f"{path} is damaged, it cannot be read ({first_line(error)}); {cure}") from error
    if not whole:
        raise DamagedError(f"{path} is damaged: it does not hold what was written; {cure}")
    return table, document or None


def _digest(table: Any, document: Mapping[str, Any]) -> str:
    """Hex digest of the document and of names, order and values of all columns, however they are encoded."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for name in table.column_names:
        digest.update(f"\n{name}\n".encode())
        _feed(digest, table.column(name).combine_chunks())
    return digest.hexdigest()


def _feed(digest: Any, array: Any) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    digest.update(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_null(array.type):
        return
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        digest.update(pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        _feed(digest, array.flatten())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        digest.update(pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        digest.update("".join(text or "" for text in array.to_pylist()).encode())
    elif pa.types.is_boolean(kind):
        digest.update(pc.fill_null(array, False).to_numpy(zero_copy_only=False).astype("u1").tobytes())
    else:
        values = pc.fill_null(array, 0).to_numpy(zero_copy_only=False)
        digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
