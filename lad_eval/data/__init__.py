"""Data sets on disk: what they are made of, where they lie, how they get there.

`dataset` describes one and holds the registry, `home` remembers where each lies, `download` fetches and `archives` unpacks.
`tasks/sources/` turns what lies there into samples. Nothing here knows of tasks or models' answers.
"""

from __future__ import annotations

from lad_eval.data.dataset import DATASETS, DataFile, DataSet, PrepareOptions, load_dataset, remember, root_of

__all__ = ["DATASETS", "DataFile", "DataSet", "PrepareOptions", "load_dataset", "remember", "root_of"]
