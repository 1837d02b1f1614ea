"""Every test runs on the CPU, one thread a worker, and without a network."""

import os

import pytest
from hypothesis import settings

from tests.example import install

settings.register_profile("lad_eval", deadline=None)  # a slow machine is not a failure
settings.load_profile("lad_eval")

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def _no_data_sets(tmp_path_factory):
    """What whoever runs the tests has prepared on this machine is neither read nor changed."""
    os.environ["LAD_EVAL_DATA"] = str(tmp_path_factory.mktemp("data"))


@pytest.fixture
def example(tmp_path_factory, monkeypatch):
    """The package of examples/ is installed, for this process; the folders that another's path would need."""
    places = install(tmp_path_factory.mktemp("site"))
    for place in places:
        monkeypatch.syspath_prepend(place)
    return places


@pytest.fixture
def stand_in(monkeypatch):
    """A server on this machine that speaks chat completions; its address and key are not in the environment."""
    from tests.models.stand_in import StandIn

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with StandIn().running() as server:
        yield server
