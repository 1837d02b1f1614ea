"""The embedded model, and a baseline of it on a small task."""

import shutil

import pytest

from lad_eval.methods import LAD
from lad_eval.regression.check import Questions, write
from lad_eval.run import execute
from tests.regression.baselines import METHODS, QUIET, change, define


@pytest.fixture(scope="session")
def tiny():
    from lad_eval.models.registry import load_model

    return load_model("lad-tiny", device="cpu")


@pytest.fixture
def loaded_once(tiny, monkeypatch):
    monkeypatch.setattr(execute, "load_model", lambda name, **options: tiny)


@pytest.fixture(scope="session")
def written(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("baselines")
    task = define(folder / "task.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "load_model", lambda name, **options: tiny)
        write(folder / "tiny.json", QUIET, "the first", Questions((str(task),), METHODS, None))
    return folder


@pytest.fixture
def baseline(written, tmp_path):
    """A copy of the baseline, its evidence and its task, to break."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "tiny.json"
    change(path, lambda document: document["tasks"]["task"].update(task=str(tmp_path / "task.yaml")))
    return path


@pytest.fixture
def broken_lad(monkeypatch):
    """LAD with a sign flipped: the expected bias is added instead of taken away."""
    right = LAD._scores
    monkeypatch.setattr(LAD, "_scores", lambda self, evidence: 2 * evidence.log_probs - right(self, evidence))
