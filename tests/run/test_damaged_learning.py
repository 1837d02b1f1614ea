"""A learned file that is damaged: refused in one line by the methods that need it, and no matter of the others."""

import numpy as np
import pytest

from lad_eval.attention.interventions.learned import LearnedState
from lad_eval.cli.main import invoke
from lad_eval.files.tensors import read_tensors, tensors_as_bytes
from lad_eval.run.folder.files import read_run_json
from tests.run.conftest import only_run

PRUNER = "fastv(trend=exp)"
METHODS = f"vanilla,lad,{PRUNER}+lad"


def run(out, methods, *more):
    return invoke(
        ["run", "-m", "lad-tiny", "-t", "scenes_random_n2", "--limit", "2", "--runs", str(out), "-q", "--methods", methods, *more]
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("pruned")
    assert run(out, METHODS) == 0
    return out


@pytest.fixture
def folder(finished, tmp_path):
    import shutil

    shutil.copytree(finished, tmp_path / "out")
    return only_run(tmp_path / "out")


def rewritten(path, change):
    """The file with other arrays, whole otherwise."""
    arrays, metadata = read_tensors(path)
    path.write_bytes(tensors_as_bytes(change(dict(arrays)), metadata))


def cut(arrays):
    name = next(name for name in arrays if name.startswith("mean/"))
    return {**arrays, name: arrays[name][:-1].copy()}


DAMAGE = {
    "bytes": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "shape": lambda path: rewritten(path, cut),
    "dtype": lambda path: rewritten(path, lambda arrays: {name: values.astype(np.float32) for name, values in arrays.items()}),
    "not finite": lambda path: rewritten(path, lambda arrays: {**arrays, "exponential": arrays["exponential"] * np.nan}),
    "lacking": lambda path: rewritten(path, lambda arrays: {"trend": arrays["trend"]}),
    "of another kind": lambda path: rewritten(path, lambda arrays: {**arrays, "trend": np.array([1.0, 0.0, 100.0])}),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_only_a_method_that_needs_it_is_refused(folder, capsys, kind):
    (path,) = folder.rglob("learned.fastv.safetensors")
    DAMAGE[kind](path)
    damaged = {other: other.read_bytes() for other in path.parent.iterdir()}
    capsys.readouterr()
    assert run(folder.parents[2], "vanilla,lad") == 0
    err = capsys.readouterr().err
    assert str(path) in err
    assert f"remove it, and it is learned again. Until then the run's tables are without {PRUNER}+lad." in err
    assert list(read_run_json(folder / "metrics.json")["methods"]) == ["vanilla", "lad"]
    assert {other: other.read_bytes() for other in path.parent.iterdir()} == damaged, "left as it is"
    assert run(folder.parents[2], f"{PRUNER}+vanilla") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith(f"error: {path} ")
    assert "remove it, and it is learned again." in err


def test_removed_it_is_learned_again_and_fits_the_answers(folder, finished, capsys):
    (path,) = folder.rglob("learned.fastv.safetensors")
    whole = LearnedState.load(path, "fastv")
    path.unlink()
    assert run(folder.parents[2], METHODS) == 0
    assert LearnedState.load(path, "fastv") == whole
    capsys.readouterr()
    stored, now = (read_run_json(only_run(place) / "metrics.json") for place in (finished, folder.parents[2]))
    assert now["methods"] == stored["methods"]


def test_an_unrequested_condition_keeps_its_figures_and_is_not_run(folder, finished, capsys):
    """Its answers are gone but for a few: what is stored under it is neither run again nor written."""
    before = read_run_json(folder / "metrics.json")
    condition = next((folder / "conditions").iterdir())
    then = {path: path.stat().st_mtime_ns for path in condition.iterdir()}
    assert run(folder.parents[2], "lad") == 0
    after = read_run_json(folder / "metrics.json")
    assert after["methods"] == before["methods"]
    assert after["notes"] == before["notes"]
    assert after["counts"] == before["counts"]
    assert {path: path.stat().st_mtime_ns for path in condition.iterdir()} == then
    (condition / "evidence.parquet").unlink()
    assert run(folder.parents[2], "lad") == 0
    assert f"tables are without {PRUNER}+lad." in capsys.readouterr().err
    assert not (condition / "evidence.parquet").exists()
    assert run(folder.parents[2], METHODS) == 0
    assert read_run_json(folder / "metrics.json")["methods"] == before["methods"]
