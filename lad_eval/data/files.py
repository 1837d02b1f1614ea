"""Writing files of data sets: as `lad_eval.files.atomic` does."""

from lad_eval.files.atomic import sweep, temporary_path, write_text

__all__ = ["sweep", "temporary_path", "write_text"]
