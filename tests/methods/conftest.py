import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def slow():
    """The slow implementations, by path: test folders are no packages."""
    spec = importlib.util.spec_from_file_location("slow_methods", Path(__file__).with_name("slow.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
