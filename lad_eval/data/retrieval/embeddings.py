"""Embeddings of pictures and captions, stored in parts; those of a user's own pictures are found by the pictures' folder."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from lad_eval.data.dataset import Progress, home
from lad_eval.data.pictures import pixel_treatments, read_picture
from lad_eval.errors import DataError, NotPreparedError, first_line
from lad_eval.files.atomic import temporary_path
from lad_eval.files.documents import parse, read_json, write_json
from lad_eval.files.tensors import read_tensors, tensors_as_bytes

if TYPE_CHECKING:
    from PIL.Image import Image


BATCH_SIZE = 32
PART = 256
"""Pictures per part, so the most that is lost when the process is killed."""

Floats = npt.NDArray[np.float32]
_MANIFEST = "manifest.json"
_FORMAT = 1


class Encoder(Protocol):
    """Embeds pictures and captions into one space, L2-normalised."""

    @property
    def name(self) -> str:
        """As the user gave it."""

    @property
    def fingerprint(self) -> str:
        """What identifies its weights and its preparation of inputs."""

    def images(self, pictures: Sequence[Image]) -> Floats:
        """Float32[b, D]."""

    def texts(self, captions: Sequence[str]) -> Floats:
        """Float32[b, D]."""


@dataclass(frozen=True)
class Captioned:
    """A picture file and its caption."""

    name: str
    path: Path
    caption: str


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings of pictures and of their captions.

    Attributes:
        names: of the pictures.
        images: Float32[n, D], L2-normalised.
        texts: Float32[n, D], L2-normalised.
        fingerprint: hex digest of all that determines them.
    """

    names: tuple[str, ...]
    images: Floats
    texts: Floats
    fingerprint: str


def encoder_folder(folder: Path, encoder: str) -> Path:
    """Where the embeddings of an encoder lie below a folder: by its name, or the last part of a model folder's path."""
    path = Path(encoder).expanduser()
    name = path.resolve().name if path.is_dir() or path.is_absolute() or encoder.startswith(".") else encoder
    return folder / re.sub(r"[^A-Za-z0-9._-]+", "--", name)


def embed(
    items: Sequence[Captioned], encoder: Encoder, folder: Path, progress: Progress, *, batch_size: int = BATCH_SIZE
) -> Embeddings:
    """Embeds what is not embedded yet; may be killed at any moment, and then resumes.

    Args:
        items: pictures with captions, in a fixed order.
        encoder: of both.
        folder: as `encoder_folder` gives it; made if missing.
        progress: shows the progress.
        batch_size: pictures or captions that the encoder takes at once.

    Raises:
        DataError: a picture cannot be read, the folder cannot be written, or the encoder returns NaN or infinite values.
    """
    parts = [items[start : start + PART] for start in range(0, len(items), PART)]
    keys = [_key(encoder.fingerprint, part) for part in parts]
    missing = [(key, part) for key, part in zip(keys, parts, strict=True) if not _whole(folder / f"{key}.safetensors")]
    left = sum(len(part) for _, part in missing)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with progress(f"Embedding with {encoder.name}", len(items), len(items) - left, unit="images") as advance:
            for key, part in missing:
                images, texts = _encoded(part, encoder, batch_size, advance)
                _save(folder / f"{key}.safetensors", part, images, texts)
        manifest = {"format": _FORMAT, "encoder": encoder.name, "fingerprint": encoder.fingerprint, "parts": keys}
        write_json(folder / _MANIFEST, manifest)
        for path in folder.glob("*.safetensors"):
            if path.stem not in keys:
                path.unlink()
    except OSError as error:
        raise DataError(f"{folder}: embeddings cannot be written: {error.strerror or error}.") from None
    return load_embeddings(folder)


def load_embeddings(folder: Path) -> Embeddings:
    """Embeddings that `embed` has finished.

    Raises:
        FileNotFoundError: there are none.
        DataError: they are damaged.
    """
    keys = _manifest(folder)
    parts = []
    for key in keys:
        path = folder / f"{key}.safetensors"
        try:
            parts.append(_load(path))
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path}: embeddings are damaged or gone ({first_line(error)}); prepare the data again.") from None
    names = tuple(itertools.chain.from_iterable(names for names, _, _ in parts))
    digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:32]
    return Embeddings(names, np.concatenate([p[1] for p in parts]), np.concatenate([p[2] for p in parts]), digest)


def embeddings_fingerprint(folder: Path) -> str | None:
    """`Embeddings.fingerprint` without loading them; None if there are none."""
    try:
        return hashlib.sha256("\n".join(_manifest(folder)).encode()).hexdigest()[:32]
    except FileNotFoundError:
        return None


def are_of(folder: Path, items: Sequence[Captioned]) -> bool:
    """Whether finished embeddings are of just these pictures and captions, as far as names, sizes and captions show.

    Raises:
        FileNotFoundError: there are no embeddings.
        DataError: they are damaged, or a picture is missing.
    """
    keys, fingerprint = _read_list(folder)
    return keys == [_key(fingerprint, items[start : start + PART]) for start in range(0, len(items), PART)]


def _manifest(folder: Path) -> list[str]:
    return _read_list(folder)[0]


def _read_list(folder: Path) -> tuple[list[str], str]:
    """Keys of the parts, and the encoder's fingerprint."""
    path = folder / _MANIFEST
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        document = read_json(path, what="the list of embeddings", cure="Prepare the data again.", error=DataError)
        keys, fingerprint = document["parts"], document["fingerprint"]
    except KeyError:
        raise DataError(f"{path} is damaged; prepare the data again.") from None
    if document.get("format") != _FORMAT or not isinstance(keys, list) or not keys:
        raise DataError(f"{path} is of another version; prepare the data again.")
    # They become names of files.
    if not all(isinstance(key, str) and key.isalnum() for key in keys):
        raise DataError(f"{path} is damaged; prepare the data again.")
    return keys, str(fingerprint)


def _key(fingerprint: str, part: Sequence[Captioned]) -> str:
    try:
        content = [_FORMAT, fingerprint, [_identity(item) for item in part]]
    except OSError as error:
        raise DataError(f"{error.filename}: no such image.") from None
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]


def _identity(item: Captioned) -> list[str | int]:
    """What determines an embedding besides the encoder; treatments of the pixels are included if there are any."""
    return [item.name, item.path.stat().st_size, item.caption, *pixel_treatments(item.path)]


def _encoded(part: Sequence[Captioned], encoder: Encoder, batch_size: int, advance: Any) -> tuple[Floats, Floats]:
    images, texts = [], []
    with ThreadPoolExecutor(max_workers=4) as pool:
        for batch, pictures in _ahead(part, batch_size, pool):
            images.append(encoder.images(pictures))
            texts.append(encoder.texts([item.caption for item in batch]))
            advance(len(batch))
    return np.concatenate(images), np.concatenate(texts)


def _ahead(
    part: Sequence[Captioned], batch_size: int, pool: ThreadPoolExecutor
) -> Iterator[tuple[Sequence[Captioned], list[Image]]]:
    """Batches with their pictures; the next ones are read while the encoder runs."""
    batches = [part[start : start + batch_size] for start in range(0, len(part), batch_size)]
    waiting: list[list[Future[Image]]] = []
    for number, batch in enumerate(batches):
        waiting += [
            [pool.submit(read_picture, item.path) for item in later] for later in batches[number + len(waiting) : number + 2]
        ]
        yield batch, [future.result() for future in waiting.pop(0)]


def _save(path: Path, part: Sequence[Captioned], images: Floats, texts: Floats) -> None:
    if not (np.isfinite(images).all() and np.isfinite(texts).all()):
        raise DataError(f"The encoder returns NaN or infinite values for images around {part[0].name}; choose another one.")
    with temporary_path(path) as temporary:
        metadata = {"names": json.dumps([item.name for item in part])}
        temporary.write_bytes(tensors_as_bytes({"images": images, "texts": texts}, metadata))


def _load(path: Path) -> tuple[list[str], Floats, Floats]:
    tensors, metadata = read_tensors(path)
    names, images, texts = parse(metadata["names"]), tensors["images"], tensors["texts"]
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError("its names are not text")
    if images.ndim != 2 or images.shape[0] != len(names) or images.shape != texts.shape:
        raise ValueError("its parts do not fit each other")
    if not all(array.dtype.kind == "f" and np.isfinite(array).all() for array in (images, texts)):
        raise ValueError("it holds what is not a number")
    return names, images, texts


def _whole(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError, KeyError):
        _load(path)
        return True
    return False


def own_folder(images: Path, encoder: str) -> Path:
    """Where the embeddings of a folder's pictures are stored."""
    digest = hashlib.sha256(str(images.expanduser().resolve()).encode()).hexdigest()[:16]
    return encoder_folder(home() / "embeddings" / digest, encoder)


def embed_own(
    images: Path,
    paths: Mapping[str, Path],
    captions: Mapping[str, str],
    encoder: Encoder,
    progress: Progress,
    *,
    batch_size: int = BATCH_SIZE,
) -> Embeddings:
    """Embeds a user's own pictures and captions; what is done already is not done again.

    Args:
        images: folder of the pictures, by which their embeddings are found.
        paths: of the pictures, by name.
        captions: one per picture, by name.
        encoder: CLIP or SigLIP model.
        progress: shows the progress.
        batch_size: pictures that the encoder takes at once.

    Raises:
        DataError: as `embed`.
    """
    return embed(_items(paths, captions), encoder, own_folder(images, encoder.name), progress, batch_size=batch_size)


def load_own(
    images: Path, paths: Mapping[str, Path], captions: Mapping[str, str], encoder: str, *, captions_file: Path
) -> Embeddings:
    """The embeddings that `embed_own` made of exactly these pictures and captions.

    Raises:
        NotPreparedError: there are none, or they are of other pictures or captions; the text has the command.
        DataError: they are damaged.
    """
    folder = own_folder(images, encoder)
    command = f"lad-eval data embed {images} {captions_file} --encoder {encoder}"
    try:
        if are_of(folder, _items(paths, captions)):
            return load_embeddings(folder)
    except FileNotFoundError:
        raise NotPreparedError(f"{images}: there are no embeddings by {encoder} to choose hard negatives;", command) from None
    raise NotPreparedError(f"{images}: pictures or captions have changed since they were embedded by {encoder};", command)


def _items(paths: Mapping[str, Path], captions: Mapping[str, str]) -> list[Captioned]:
    return [Captioned(name, paths[name], captions[name]) for name in sorted(captions)]
