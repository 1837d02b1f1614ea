"""Sources of samples. A task names one under `source:`; its options model says what `data:` may hold.

To add one: a module here with an options model (`SourceOptions`) that opens the source, and its name below; in another package,
an entry point of the group `lad_eval.sources` that names the options model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lad_eval.registry import Registry

if TYPE_CHECKING:
    from lad_eval.tasks.sources.base import SourceOptions


def _accepted(name: str, value: object) -> type[SourceOptions]:
    from lad_eval.tasks.sources.base import SourceOptions

    if not (isinstance(value, type) and issubclass(value, SourceOptions)):
        raise TypeError(f"the source {name!r} must be a subclass of lad_eval.tasks.sources.base.SourceOptions")
    return value


SOURCES: Registry[type[SourceOptions]] = Registry(
    "source",
    {
        "annotations": "lad_eval.tasks.sources.retrieval:AnnotationsOptions",
        "blink": "lad_eval.tasks.sources.blink:BlinkOptions",
        "coco": "lad_eval.tasks.sources.retrieval:CocoOptions",
        "flickr8k": "lad_eval.tasks.sources.retrieval:Flickr8kOptions",
        "folder": "lad_eval.tasks.sources.folder:FolderOptions",
        "mmiu": "lad_eval.tasks.sources.mmiu:MmiuOptions",
        "muirbench": "lad_eval.tasks.sources.muirbench:MuirBenchOptions",
        "scenes": "lad_eval.tasks.sources.scenes:ScenesOptions",
    },
    group="lad_eval.sources",
    accept=_accepted,
)


def options_of(source: str) -> type[SourceOptions]:
    """The options model of a source, imported when it is first used.

    Raises:
        UnknownNameError: there is no such source.
        RegistryError: it is an installed package's, which cannot be loaded.
    """
    return SOURCES[source]
