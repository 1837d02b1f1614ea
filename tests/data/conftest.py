"""Data sets of these tests are remembered in a folder of each test's own, and nothing waits for a network."""

from contextlib import contextmanager

import pytest

from lad_eval.data import download


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    monkeypatch.setenv("LAD_EVAL_DATA", str(folder))
    monkeypatch.setattr(download, "PATIENCE_SECONDS", (0.0, 0.0))
    return folder


class Shown:
    """A progress that keeps what it was told."""

    def __init__(self):
        self.told = []

    @contextmanager
    def __call__(self, label, total, done=0, *, unit="requests"):
        counts = [done]
        self.told.append((label, total, counts, unit))
        yield counts.append


@pytest.fixture
def progress():
    return Shown()
