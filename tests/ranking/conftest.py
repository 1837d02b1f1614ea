import pytest

from lad_eval import load_model, load_task
from lad_eval.ranking import Ranker


@pytest.fixture(scope="session")
def model():
    return load_model("lad-tiny")


@pytest.fixture(scope="session")
def ranker(model):
    return Ranker.calibrate(model, "scenes_random_n4")


@pytest.fixture(scope="session")
def samples():
    return list(load_task("scenes_random_n4").samples("test", 6))
