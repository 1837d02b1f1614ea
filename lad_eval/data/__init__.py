"""Data sets on disk: their files, where they are stored, how they are prepared.

`dataset` describes one, holds the registry and remembers the folder of each, `download` fetches and `archives` unpacks.
`tasks/sources/` turns the files into samples. Nothing here depends on tasks or models' answers.
"""

from __future__ import annotations

from lad_eval.data.dataset import DATASETS, DataFile, DataSet, PrepareOptions, load_dataset, remember, root_of

__all__ = ["DATASETS", "DataFile", "DataSet", "PrepareOptions", "load_dataset", "remember", "root_of"]
