"""What tests of tasks on a folder of images read."""

import pytest

from lad_eval.errors import DataError
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import load_task


def names(samples):
    return [[image.path.name for image in sample.images] for sample in samples]


def both(task):
    return list(task.samples("test")), list(task.samples("calibration"))


def refused(path):
    with pytest.raises(DataError) as caught:
        plan(load_task(path), calibration=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)
