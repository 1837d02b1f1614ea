"""Writing files of data sets: as `lad_eval.files.atomic` does."""

from lad_eval.files.atomic import beside, sweep, write_text

__all__ = ["beside", "sweep", "write_text"]
