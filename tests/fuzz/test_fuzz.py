"""A slice of `make fuzz`: seconds, always the same draws."""

import pytest

from tests.fuzz import calls, stores
from tests.fuzz.harness import inside, one_model

pytestmark = pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")


@pytest.fixture(scope="module", autouse=True)
def _loaded_once():
    with one_model():
        yield


@pytest.mark.slow
def test_senseless_calls_end_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with inside(tmp_path):
        calls.make(tmp_path)
        found = calls.campaign(tmp_path, 60, seed=2)
    assert found.faults == []
    assert found.refused > 30
    assert found.equal > 5


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    base = tmp_path_factory.mktemp("base")
    stores.make(base)
    return base


@pytest.mark.slow
def test_damaged_stores_give_the_same_figures_or_say_why_not(store, tmp_path):
    found = stores.campaign(store, tmp_path, 40, seed=1)
    assert found.faults == []
    assert found.equal > 10
    assert found.refused + found.reported > 5
