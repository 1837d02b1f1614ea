"""The files that this package writes for itself: written atomically, and read only if their checksum is right.

`atomic` writes files and removes leftovers; `documents` is for JSON, `lines` and `log` for JSON lines, `tables` for Parquet,
`tensors` for safetensors, each with a checksum of the content. Files of earlier versions without one are still read; their
readers check every value. `checkpoints` says which files of a folder determine a model, `lock` lets one process work at a time.
"""
