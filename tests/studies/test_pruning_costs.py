"""What a damaged file of costs, or a folder of something else, does to the study of pruning."""

from dataclasses import asdict, replace

import pytest

from lad_eval.attention.pruning.fastv import FastV
from lad_eval.errors import UserError
from lad_eval.files.documents import write_json
from lad_eval.studies.pruning.measurements import COSTS, PruningCost, read_costs, read_layers

FACTS = {"model": {"model": "a"}, "task": "b", "queries": 16, "device": "cpu"}
UNPRUNED = PruningCost(None, None, 85, 0.1, 1.0, 1.0, 1.0)
PRUNED = PruningCost("fastv", 0.25, 37, 0.05, 0.5, None, 0.6)
WHOLE = {"facts": FACTS, "costs": [asdict(UNPRUNED), asdict(PRUNED)]}
LESS = {"pruner": "fastv", "keep": 0.25}


def test_stored_costs_are_read_whatever_the_device(tmp_path):
    assert read_costs(FACTS, [FastV()], [0.25], tmp_path) == []
    write_json(tmp_path / COSTS, WHOLE)
    assert read_costs({**FACTS, "device": "cuda:0"}, [FastV()], [0.25], tmp_path) == [UNPRUNED, PRUNED]
    assert read_costs({**FACTS, "task": "c"}, [FastV()], [0.25], tmp_path) == []
    assert read_costs(FACTS, [FastV()], [0.25, 0.5], tmp_path) == []


def test_costs_of_an_earlier_version_are_measured_again(tmp_path):
    earlier = [{name: value for name, value in asdict(PRUNED).items() if name != "pruner"}]
    write_json(tmp_path / COSTS, {"facts": FACTS, "costs": earlier})
    assert read_costs(FACTS, [FastV()], [0.25], tmp_path) == []


@pytest.mark.parametrize(
    "change",
    [{"facts": [1]}, {"facts": None}, {"costs": None}, {"costs": [1]}, {"costs": [LESS]}, {"costs": [{**LESS, "time": "a"}]}],
)
def test_costs_that_are_damaged_are_named_with_the_cure(tmp_path, change):
    write_json(tmp_path / COSTS, {**WHOLE, **change})
    with pytest.raises(UserError, match=r"costs\.json .*\. Delete it and run without --stored"):
        read_costs(FACTS, [FastV()], [0.25], tmp_path)


def test_a_file_cut_off_is_named_with_the_cure(tmp_path):
    (tmp_path / COSTS).write_text('{"facts"')
    with pytest.raises(UserError, match=r"it is not JSON, so it is damaged\. Delete it and run without --stored"):
        read_costs(FACTS, [FastV()], [0.25], tmp_path)


def test_folders_of_something_else_are_not_layers(tmp_path):
    (tmp_path / "learned/fastv/layer-old").mkdir(parents=True)
    assert read_layers({"model": "a"}, replace(FastV(), trend="exp"), [], tmp_path) == {}
