"""The files that this package writes for itself: written whole or not at all, and read back only if they are what was written.

`atomic` writes and sweeps, `documents` holds JSON, `lines` JSON lines, `tables` Parquet, `tensors` safetensors. Each of the four
stores a checksum of the content. A file of a version that stored none is still read; its reader checks every value.
"""
