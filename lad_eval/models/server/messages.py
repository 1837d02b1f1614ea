"""Requests as chat messages: the images in displayed order as PNG, each after its label if it has one, then the question."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from lad_eval.models.base import ImagePreparation
from lad_eval.models.inputs.cache import CACHE_BYTES, ByteLRU
from lad_eval.models.inputs.images import ImageCache
from lad_eval.tasks.request import showing

if TYPE_CHECKING:
    from PIL.Image import Image

    from lad_eval.tasks.request import ImageSource, Request

IMAGE_FORMAT = "png"
"""Lossless: the server decodes the pixels that a local model's processor would be given."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB = struct.pack(">5B", 8, 2, 0, 0, 0)  # 8 bits, RGB; the one compression, set of filters and order of rows without interlacing
_UP = 2  # the filter that stores a row as its difference from the row above


class ChatMessages:
    """Makes the messages of requests; used by several threads.

    Args:
        preparation: of the images, as for a local model.
        extra: further fields of every request, such as `{"chat_template_kwargs": {"enable_thinking": false}}`.
    """

    def __init__(self, preparation: ImagePreparation, extra: Mapping[str, Any] | None = None) -> None:
        self._images = ImageCache(preparation)
        self._extra = dict(extra or {})
        self._parts: ByteLRU[str, bytes] = ByteLRU(CACHE_BYTES, len)
        self._encoding: dict[str, Lock] = {}
        self._lock = Lock()

    def body(self, request: Request, model: str, **fields: Any) -> bytes:
        """The body of a chat completion, as JSON; joined from parts, since images are long and shown in several orders.

        Args:
            request: images and question.
            model: the server's name of it.
            fields: `max_tokens`, `temperature`, ...

        Raises:
            DataError: an image cannot be read.
        """
        with showing(request.sample_id):
            images = [self._part(source) for source in request.images]
        start = _json({"model": model, **fields, **self._extra}).removesuffix(b"}")
        start += b', "messages": [{"role": "user", "content": ['
        shown = images
        if request.labels:
            labels = [_json({"type": "text", "text": label}) for label in request.labels]
            shown = [part for pair in zip(labels, images, strict=True) for part in pair]
        # Images are long: they are copied once.
        parts = [start, *(part for one in shown for part in (one, b", "))]
        return b"".join([*parts, _json({"type": "text", "text": request.question}), b"]}]}"])

    def _part(self, source: ImageSource) -> bytes:
        """An image as a part of a message. Threads that need the same image at once wait for one of them."""
        digest = source.digest
        with self._lock:
            lock = self._encoding.setdefault(digest, Lock())
        with lock:
            part = self._parts.get(digest)
            if part is None:
                part = self._encoded(source)
                self._parts.put(digest, part)
        with self._lock:
            self._encoding.pop(digest, None)
        return part

    def _encoded(self, source: ImageSource) -> bytes:
        png = encode_png(self._images.read(source).image)
        start = f'{{"type": "image_url", "image_url": {{"url": "data:image/{IMAGE_FORMAT};base64,'.encode()
        return b"".join((start, base64.b64encode(png), b'"}}'))


def encode_png(image: Image) -> bytes:
    """An image in RGB as PNG (ISO/IEC 15948).

    Pillow's encoder tries five filters on every row, and no other thread runs meanwhile. One filter takes 40 % of that time, and
    files of photographs are an eighth larger.
    """
    pixels = np.asarray(image).reshape(image.height, -1)
    rows = np.empty((image.height, 1 + pixels.shape[1]), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])
    # Repetitions of a byte and Huffman codes: searching for longer repetitions takes twice as long and gains little.
    compressor = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    data = compressor.compress(rows.data) + compressor.flush()
    header = struct.pack(">2I", image.width, image.height) + _RGB
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
