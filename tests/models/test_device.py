"""Settings of the process that a model on the CPU runs in."""

import ctypes
from types import SimpleNamespace

import pytest
import torch

from lad_eval.models import device
from lad_eval.models.device import concatenated, reuse_freed_memory, to_device


@pytest.fixture
def limits(monkeypatch):
    """The limits that are set: what `mallopt` is called with."""
    calls = {}
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=calls.__setitem__))
    monkeypatch.setattr(device, "_is_glibc", lambda: True)
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    return calls


def _on(kind):
    return SimpleNamespace(device=torch.device(kind))


def test_freed_memory_stays_with_a_process_whose_model_is_on_the_cpu(limits):
    reuse_freed_memory(_on("cpu"))
    assert limits == {-1: 512 * 2**20, -3: 32 * 2**20}  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h


@pytest.mark.parametrize(
    ("name", "value"),
    [("MALLOC_TRIM_THRESHOLD_", "0"), ("MALLOC_MMAP_THRESHOLD_", "65536"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=0")],
)
def test_limits_of_the_environment_stay(limits, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    reuse_freed_memory(_on("cpu"))
    assert limits == {}


def test_nothing_is_set_on_a_gpu_or_with_another_c_library(limits, monkeypatch):
    reuse_freed_memory(_on("cuda"))
    monkeypatch.setattr(device, "_is_glibc", lambda: False)
    reuse_freed_memory(_on("cpu"))
    assert limits == {}


def test_a_model_that_is_loaded_on_the_cpu_keeps_freed_memory(monkeypatch):
    from lad_eval.models.registry import load_model

    models = []
    monkeypatch.setattr(device, "reuse_freed_memory", models.append)
    model = load_model("random:qwen2.5-vl", device="cpu")
    assert models == [model.model]


class Gpu:
    """Stands in for CUDA: notes copies, makes none."""

    type = "cuda"


class Tensor:
    """Stands in for a tensor on the CPU: notes what is done to it."""

    device = torch.device("cpu")

    def __init__(self, floating):
        self.calls, self._floating = [], floating

    def is_floating_point(self):
        return self._floating

    def pin_memory(self):
        self.calls.append("pinned")
        return self

    def to(self, device, dtype=None, non_blocking=False):
        self.calls.append((device, dtype, non_blocking))
        return self


@pytest.mark.parametrize("floating", [True, False])
def test_a_copy_to_a_gpu_is_pinned_does_not_block_and_is_converted_there(floating):
    gpu, tensor = Gpu(), Tensor(floating)
    to_device(tensor, gpu, torch.bfloat16)
    assert tensor.calls == ["pinned", (gpu, None, True), (gpu, torch.bfloat16 if floating else None, True)]


def test_on_the_cpu_only_the_type_of_number_changes():
    numbers, whole = torch.rand(3), torch.arange(3)
    assert to_device(numbers, torch.device("cpu"), torch.float32) is numbers
    assert to_device(numbers, torch.device("cpu"), torch.bfloat16).dtype == torch.bfloat16
    assert to_device(whole, torch.device("cpu"), torch.bfloat16) is whole


def test_tensors_for_a_gpu_are_concatenated_in_pinned_memory(monkeypatch):
    pinned = []
    empty = torch.empty
    monkeypatch.setattr(
        torch, "empty", lambda shape, *, dtype, pin_memory: pinned.append(pin_memory) or empty(shape, dtype=dtype)
    )
    parts = [torch.rand(2, 3), torch.rand(1, 3)]
    assert torch.equal(concatenated(parts, Gpu()), torch.cat(parts))
    assert pinned == [True]
    assert torch.equal(concatenated(parts, torch.device("cpu")), torch.cat(parts))
    assert pinned == [True]
