"""Finding files below a folder that others may change meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def below(folder: Path, wanted: Callable[[str], bool]) -> list[Path]:
    """Paths below a folder, sorted, whose names are wanted; links to folders are not followed.

    Folders that cannot be read, or are gone when it is their turn, are passed over, as `Path.rglob` does not do.
    """
    return sorted(Path(place, name) for place, folders, files in os.walk(folder) for name in (*folders, *files) if wanted(name))


def named(folder: Path, name: str) -> list[Path]:
    """Paths below a folder, sorted, with one name."""
    return below(folder, lambda other: other == name)
