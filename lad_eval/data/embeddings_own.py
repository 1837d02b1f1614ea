"""Embeddings of pictures of one's own: kept in the user's data folder, found again by the pictures' folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from lad_eval.data.dataset import Progress
from lad_eval.data.embeddings import BATCH_SIZE, Captioned, Embeddings, Encoder, are_of, embed, encoder_folder, load_embeddings
from lad_eval.data.home import home
from lad_eval.errors import NotPreparedError


def own_folder(images: Path, encoder: str) -> Path:
    """Where the embeddings of the pictures of a folder are kept."""
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
    """Embeds pictures and captions of one's own; what is done already is not done again.

    Args:
        images: folder of the pictures, by which their embeddings are found again.
        paths: of the pictures, by name.
        captions: one of every picture, by name.
        encoder: CLIP or SigLIP model.
        progress: shows how far it is.
        batch_size: pictures the encoder sees at once.

    Raises:
        DataError: as `embeddings.embed`.
    """
    return embed(_items(paths, captions), encoder, own_folder(images, encoder.name), progress, batch_size=batch_size)


def load_own(
    images: Path, paths: Mapping[str, Path], captions: Mapping[str, str], encoder: str, *, captions_file: Path
) -> Embeddings:
    """What `embed_own` made of just these pictures and captions.

    Raises:
        NotPreparedError: nothing, or of others; the text has the command.
        DataError: it is damaged.
    """
    folder = own_folder(images, encoder)
    command = f"run `lad-eval data embed {images} {captions_file} --encoder {encoder}`"
    try:
        if are_of(folder, _items(paths, captions)):
            return load_embeddings(folder)
    except FileNotFoundError:
        raise NotPreparedError(f"{images}: there are no embeddings by {encoder} to choose hard negatives; {command}.") from None
    raise NotPreparedError(f"{images}: pictures or captions have changed since they were embedded by {encoder}; {command}.")


def _items(paths: Mapping[str, Path], captions: Mapping[str, str]) -> list[Captioned]:
    return [Captioned(name, paths[name], captions[name]) for name in sorted(captions)]
