"""Options of Flickr8k: `source: flickr8k`."""

from __future__ import annotations

from typing import ClassVar, Literal

from lad_eval.tasks.sources.retrieval import RetrievalOptions


class Flickr8kOptions(RetrievalOptions):
    """Retrieval on Flickr8k's test pictures. The released code draws no samples of it: there is the protocol `strict` only."""

    dataset: ClassVar[str] = "flickr8k"

    protocol: Literal["strict"] = "strict"
