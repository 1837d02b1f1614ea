"""Rows of evidence made from numbers, for the tests of the store."""

import json
from pathlib import Path

import numpy as np

from lad_eval.evidence.store import EvidenceStore
from lad_eval.evidence.table import Evidence

PRINT = {"model": "m", "dtype": "float32", "sizes": (336, 336)}


STORED = json.loads(json.dumps(PRINT))


def rows(numbers, N=3, L=2, *, looked=True, delimited=True, **columns):
    """Rows whose content follows from their numbers; attention as a recorder gives it, in float32."""
    numbers = list(numbers)
    draws = [np.random.default_rng(i) for i in numbers]
    shape = (len(numbers), L, N)

    def spans():
        return np.array([d.random((L, N)) for d in draws]).reshape(shape).astype(np.float32).astype(np.float64)

    given = {
        "log_probs": np.array([np.log(d.dirichlet(np.ones(N))) for d in draws]).reshape(-1, N),
        "attention": spans() if looked else None,
        "gold_position": [i % N for i in numbers],
        "sample_id": [f"sämple {i // 2}" for i in numbers],
        "attention_delimited": spans() if looked and delimited else None,
        "perm": np.array([d.permutation(N) for d in draws]).reshape(-1, N),
        "split": ["calibration" if i % 5 == 0 else "test" for i in numbers],
        "key": [f"{i:032x}" for i in numbers],
        "forward_passes": [1 + i % 3 for i in numbers],
        "seconds": [d.random() for d in draws],
        "fingerprint": PRINT,
    }
    return Evidence.from_arrays(**{**given, **columns})


def equal(a, b):
    assert a.fingerprint == b.fingerprint or a.fingerprint == json.loads(json.dumps(b.fingerprint))
    for name in vars(a):
        left, right = getattr(a, name), getattr(b, name)
        if name not in ("fingerprint", "probes") and left is not None:
            np.testing.assert_array_equal(left, right, err_msg=name)
            assert left.dtype.kind == right.dtype.kind
    assert a.probes == b.probes == {}
    return (a.attention is None) == (b.attention is None)


def keys(numbers):
    return {f"{i:032x}" for i in numbers}


def names(folder):
    return sorted(p.name for p in Path(folder).iterdir() if not p.name.startswith("."))


def store(folder, **more):
    return EvidenceStore(folder, PRINT, **more)
