"""Sources of samples. A task names one under `source:`; its options model says what `data:` may hold.

To add one: a module here with an options model (`SourceOptions`) that opens the source, and its name below.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lad_eval.tasks.sources.base import SourceOptions

SOURCES = {
    "annotations": "lad_eval.tasks.sources.retrieval:AnnotationsOptions",
    "coco": "lad_eval.tasks.sources.retrieval:CocoOptions",
    "flickr8k": "lad_eval.tasks.sources.retrieval:Flickr8kOptions",
    "folder": "lad_eval.tasks.sources.folder:FolderOptions",
    "mmiu": "lad_eval.tasks.sources.mmiu:MmiuOptions",
    "scenes": "lad_eval.tasks.sources.scenes:ScenesOptions",
}


@functools.cache
def options_of(source: str) -> type[SourceOptions]:
    """The options model of a registered source, imported when it is asked for."""
    module, _, name = SOURCES[source].partition(":")
    options: type[SourceOptions] = getattr(importlib.import_module(module), name)
    return options
