"""Files of a pinned revision of a data set on the hub: addresses, the hub's cache, Parquet rows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lad_eval.data.dataset import DataFile, PrepareOptions, Progress
from lad_eval.data.download import fetch
from lad_eval.errors import DataError, first_line
from lad_eval.files.atomic import temporary_path

_ROWS_AT_ONCE = 16


@dataclass(frozen=True)
class Repository:
    """A data set on the hub, at one commit.

    Attributes:
        id: owner/name.
        revision: the commit, 40 hex digits.
    """

    id: str
    revision: str

    def url(self, path: str) -> str:
        """The address of a file; `HF_ENDPOINT` names another hub."""
        endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
        return f"{endpoint}/datasets/{self.id}/resolve/{self.revision}/{path}"

    def cached(self, path: str) -> Path | None:
        """A file of this revision in the local cache of Hugging Face's tools."""
        import huggingface_hub

        cached = huggingface_hub.try_to_load_from_cache(self.id, path, revision=self.revision, repo_type="dataset")
        return Path(cached) if isinstance(cached, str) else None

    def obtain(self, file: DataFile, root: Path, options: PrepareOptions, progress: Progress) -> Path:
        """The file at its place below the root: there already, copied from the hub's cache, or fetched.

        Raises:
            DataError: it is missing and cannot be fetched.
        """
        target = root / file.path
        cached = None if target.is_file() else self.cached(file.path)
        if cached is None:
            return fetch(file, root, progress, download=options.download)
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_path(target) as temporary:
            temporary.write_bytes(cached.read_bytes())
        return target


def parquet_rows(path: Path, columns: Sequence[str], title: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a Parquet file, some columns only, a few rows in memory at a time.

    Args:
        path: of the file.
        columns: that must be there.
        title: what the file should be, for errors: "MMIU's all.parquet".

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            if lacking := [name for name in columns if name not in file.schema_arrow.names]:
                raise DataError(f"{path} lacks the columns {', '.join(lacking)}: it is not {title}.")
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise DataError(
            f"{path} cannot be read as Parquet ({first_line(error)}); remove it, so that it can be fetched again."
        ) from None
