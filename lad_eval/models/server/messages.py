"""Requests as chat messages: the images in displayed order as PNG, then the question."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from lad_eval.data.decoding import as_rgb
from lad_eval.models.base import ImagePreparation
from lad_eval.models.inputs.cache import CACHE_BYTES, ByteLRU
from lad_eval.models.inputs.preparation import ImageCache
from lad_eval.tasks.request import showing

if TYPE_CHECKING:
    from lad_eval.tasks.request import ImageSource, Request

IMAGE_FORMAT = "png"
"""Lossless: the server decodes the pixels that a local model's processor would be given."""
_COMPRESSION = 1  # of zlib; the default takes three times as long for a tenth less


class Messages:
    """Makes the messages of requests; used by several threads.

    Args:
        preparation: of the images, as for a local model.
        extra: further fields of every request, such as `{"chat_template_kwargs": {"enable_thinking": false}}`.
    """

    def __init__(self, preparation: ImagePreparation, extra: Mapping[str, Any] | None = None) -> None:
        self._images = ImageCache(preparation)
        self._extra = dict(extra or {})
        self._urls: ByteLRU[str, str] = ByteLRU(CACHE_BYTES, len)
        self._encoding: dict[str, Lock] = {}
        self._lock = Lock()

    def body(self, request: Request, model: str, **fields: Any) -> dict[str, Any]:
        """The body of a chat completion.

        Args:
            request: images and question.
            model: the server's name of it.
            fields: `max_tokens`, `temperature`, ...

        Raises:
            DataError: an image cannot be read.
        """
        with showing(request.sample_id):
            images = [{"type": "image_url", "image_url": {"url": self._url(source)}} for source in request.images]
        content = [*images, {"type": "text", "text": request.question}]
        return {"model": model, "messages": [{"role": "user", "content": content}], **fields, **self._extra}

    def _url(self, source: ImageSource) -> str:
        """An image as a data URL. Threads that need the same image at once wait for one of them."""
        digest = source.digest
        with self._lock:
            lock = self._encoding.setdefault(digest, Lock())
        with lock:
            url = self._urls.get(digest)
            if url is None:
                url = self._encoded(source)
                self._urls.put(digest, url)
        with self._lock:
            self._encoding.pop(digest, None)
        return url

    def _encoded(self, source: ImageSource) -> str:
        image = self._images.prepare(as_rgb(source.load()))
        file = io.BytesIO()
        image.save(file, format=IMAGE_FORMAT, compress_level=_COMPRESSION)
        return f"data:image/{IMAGE_FORMAT};base64,{base64.b64encode(file.getvalue()).decode()}"
