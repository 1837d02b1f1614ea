"""What a model runs on and with: device, dtype, attention implementation, threads."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch

from lad_eval.errors import UserError

_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}
_ATTENTION = ("sdpa", "eager", "flash_attention_2", "flash_attention_3")
SMALL_MODEL_PARAMETERS = 10_000_000

# Of malloc.h, with values in bytes. Larger allocations are mapped one by one: glibc itself moves this up to 32 MiB.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_FREED_BYTES, _MAPPED_BYTES = 512 * 2**20, 32 * 2**20


def resolve_device(device: str) -> torch.device:
    """Device of a name; "auto" is a GPU if there is one (the local rank's own when several processes run), else the CPU.

    Raises:
        UserError: no such device here.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % count) if count else torch.device("cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise UserError(f"Unknown device {device!r}: use auto, cpu, cuda, cuda:<index> or mps.") from None
    if resolved.type == "cuda" and not count:
        raise UserError(f"Device {device!r} is not available: PyTorch {torch.__version__} sees no GPU here; use --device cpu.")
    if resolved.type == "cuda" and (resolved.index or 0) >= count:
        raise UserError(f"Device {device!r} does not exist: there are {count} GPUs, cuda:0 to cuda:{count - 1}.")
    if resolved.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("Device 'mps' is not available on this machine; use --device cpu.")
    return resolved


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Dtype of a name; "auto" is float32 on the CPU and bfloat16 elsewhere (float16 where a GPU has no bfloat16).

    Raises:
        UserError: no such dtype.
    """
    if dtype == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.float16 if device.type == "cuda" and not torch.cuda.is_bf16_supported() else torch.bfloat16
    if dtype not in _DTYPES:
        raise UserError(f"Unknown dtype {dtype!r}: use auto, float32, bfloat16 or float16.")
    return _DTYPES[dtype]


def check_device_map(name: str | None, device: str) -> None:
    """Refuses a device map that cannot be used.

    Raises:
        UserError: it is not "auto", a device is named besides, several processes run, or accelerate is not installed.
    """
    if name is None:
        return
    if name != "auto":
        raise UserError(f"Unknown device map {name!r}: use auto, or leave --device-map out.")
    if device != "auto":
        raise UserError(f"--device-map auto chooses the devices itself; leave out --device {device}.")
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise UserError("--device-map auto takes all GPUs of a machine; start one process per node with it.")
    if find_spec("accelerate") is None:
        raise UserError("--device-map needs the package accelerate; install it with `pip install accelerate`.")


def check_attention(name: str | None) -> None:
    """Refuses an attention implementation whose last row cannot be read.

    Raises:
        UserError: it is none of those, nor a kernel of the hub ("org/name").
    """
    if name is not None and name not in _ATTENTION and "/" not in name:
        raise UserError(f"Unknown attention implementation {name!r}: use {', '.join(_ATTENTION)} or leave it out.")


def to_device(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The tensor on a device, in `dtype` if it holds floating-point numbers.

    A copy to a GPU is made from pinned memory, so that the CPU goes on meanwhile, and numbers are converted there: torch converts
    before it copies otherwise, on the CPU and to memory that is not pinned.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device, dtype if tensor.is_floating_point() else None, non_blocking=True)


def concatenated(tensors: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """The tensors in one, along the first dimension; in pinned memory if they are to be copied to a GPU."""
    first = tensors[0]
    if device.type != "cuda" or first.device.type != "cpu":
        return torch.cat(list(tensors))
    rows = sum(len(tensor) for tensor in tensors)
    pinned = torch.empty((rows, *first.shape[1:]), dtype=first.dtype, pin_memory=True)
    return torch.cat(list(tensors), out=pinned)


def spare_threads(model: Any) -> None:
    """Runs a very small model on the CPU with one thread, for this process, unless OMP_NUM_THREADS says otherwise.

    Its matrices are too small to share: threads wait for each other, and on a machine that is busy otherwise they
    wait for a long time.
    """
    small = sum(parameter.numel() for parameter in model.parameters()) < SMALL_MODEL_PARAMETERS
    if small and model.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def reuse_freed_memory(model: Any) -> None:
    """Lets glibc keep the memory that a model on the CPU has freed, for this process, unless the environment sets its limits.

    Otherwise it may give the memory of a layer's tensors back to the system after each layer and fetch it again for the next one,
    page by page. Whether it does depends on what else happens to be allocated, so that of two equal processes one took a third
    longer. Other C libraries are left as they are.
    """
    set_by_user = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys()
    if model.device.type != "cpu" or set_by_user or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or not _is_glibc():
        return
    process = ctypes.CDLL(None)
    process.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
    process.mallopt(_M_TRIM_THRESHOLD, _FREED_BYTES)


def _is_glibc() -> bool:
    name = "CS_GNU_LIBC_VERSION"
    return sys.platform == "linux" and name in os.confstr_names and bool(os.confstr(name))
