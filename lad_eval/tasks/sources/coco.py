"""Options of MS-COCO val2014: `source: coco`."""

from __future__ import annotations

from typing import ClassVar

from lad_eval.tasks.sources.retrieval import RetrievalOptions


class CocoOptions(RetrievalOptions):
    """Retrieval on COCO's validation pictures of 2014."""

    dataset: ClassVar[str] = "coco"
