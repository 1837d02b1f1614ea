"""Settings of the process that a model on the CPU runs in."""

import ctypes
from types import SimpleNamespace

import pytest
import torch

from lad_eval.models import device
from lad_eval.models.device import reuse_freed_memory


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
