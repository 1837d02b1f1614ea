"""Requests as chat messages: the images in displayed order as PNG, each after its label if it has one, then the question."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from lad_eval.data.decoding import as_rgb
from lad_eval.models.base import ImagePreparation
from lad_eval.models.inputs.cache import CACHE_BYTES, ByteLRU
from lad_eval.models.inputs.images import ImageCache
from lad_eval.tasks.request import showing

if TYPE_CHECKING:
    from lad_eval.tasks.request import ImageSource, Request

IMAGE_FORMAT = "png"
"""Lossless: the server decodes the pixels that a local model's processor would be given."""
# Of zlib: a third of the default's time, and photographs become smaller.
_COMPRESSION = {"compress_level": 1, "compress_type": zlib.Z_RLE}


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
            parts = [self._part(source) for source in request.images]
        if request.labels:
            labels = (_json({"type": "text", "text": label}) for label in request.labels)
            parts = [part for pair in zip(labels, parts, strict=True) for part in pair]
        content = b", ".join([*parts, _json({"type": "text", "text": request.question})])
        start = _json({"model": model, **fields, **self._extra}).removesuffix(b"}")
        return start + b', "messages": [{"role": "user", "content": [' + content + b"]}]}"

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
        image = self._images.prepare(as_rgb(source.load()))
        file = io.BytesIO()
        image.save(file, format=IMAGE_FORMAT, **_COMPRESSION)
        url = f"data:image/{IMAGE_FORMAT};base64,{base64.b64encode(file.getvalue()).decode()}"
        return _json({"type": "image_url", "image_url": {"url": url}})


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
