"""Pictures and definitions made on the spot."""

import json
import textwrap
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def write(tmp_path):
    """Writes a file below the test's folder, indentation taken off."""

    def put(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return put


def numbered_album(folder: Path, count: int) -> dict[str, str]:
    """Writes `count` pictures, none like another, and returns a caption of each."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (24, 16), (i * 7 % 256, i, 255 - i)).save(folder / f"p{i:03}.png")
    return {f"p{i:03}.png": f"picture number {i}" for i in range(count)}


@pytest.fixture
def album(tmp_path):
    """Makes `photos` with `count` pictures, `captions.json` and a task `album.yaml` of three lines of data; returns its path."""

    def make(
        count: int = 30, candidates: int = 4, *, extra: str = "", data: str = "", captions: dict[str, object] | None = None
    ) -> Path:
        numbered = numbered_album(tmp_path / "photos", count)
        told = numbered if captions is None else captions
        (tmp_path / "captions.json").write_text(json.dumps(told))
        path = tmp_path / "album.yaml"
        path.write_text(
            f"source: folder\ncandidates: {candidates}\n{extra}\ndata:\n  images: photos\n  captions: captions.json\n  {data}\n"
        )
        return path

    return make
