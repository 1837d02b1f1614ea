"""How many tokens stay, and which, worked by hand."""

from __future__ import annotations

import pytest
import torch

from lad_eval.attention.pruning.keep import group_sizes, highest, token_counts
from lad_eval.attention.pruning.schedule import HIMAP, PYRAMIDDROP, SPARSEVLM
from lad_eval.errors import UnsupportedModelError

GROUPS = torch.tensor([[-1, 0, 0, 0, -1, 1, 1], [-1, -1, 0, 0, 1, 1, 1]])


def test_sizes_of_groups():
    assert group_sizes(GROUPS).tolist() == [[3, 2], [2, 3]]
    assert group_sizes(GROUPS.clamp(max=0)).tolist() == [[5], [5]]
    assert group_sizes(torch.full((2, 3), -1)).tolist() == [[0], [0]]
    assert group_sizes(GROUPS, 3).tolist() == [[3, 2, 0], [2, 3, 0]]


def test_a_number_of_tokens_survives_as_a_share():
    for size in range(1, 700):
        numbers = torch.arange(size + 1)
        assert torch.equal(token_counts(numbers.double() / size, torch.full((size + 1,), size)), numbers)


def test_shares_are_rounded_down():
    assert token_counts(torch.tensor([[0.25, 0.5]]).double(), torch.tensor([[7, 5]])).tolist() == [[1, 2]]


def test_the_first_of_equal_scores_stay_in_every_group():
    scores = torch.tensor([[9.0, 1.0, 2.0, 2.0, 9.0, 0.5, 0.5], [9.0, 9.0, 0.0, 0.0, 3.0, 4.0, 4.0]])
    kept = highest(scores, GROUPS, torch.tensor([[2, 1], [1, 2]]))
    assert kept.int().tolist() == [[0, 0, 1, 1, 0, 1, 0], [0, 0, 1, 0, 0, 1, 1]]
    per_prompt = highest(scores, GROUPS.clamp(max=0), torch.tensor([[3], [3]]))
    assert per_prompt.int().tolist() == [[0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1]]
    equal = highest(torch.ones(2, 7), GROUPS.clamp(max=0), torch.tensor([[2], [4]]))
    assert equal.int().tolist() == [[0, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1, 0]]


def test_none_and_all_stay():
    scores = torch.rand(2, 7, generator=torch.Generator().manual_seed(0))
    assert not highest(scores, GROUPS, torch.zeros(2, 2, dtype=torch.long)).any()
    assert torch.equal(highest(scores, GROUPS, torch.full((2, 2), 9)), GROUPS >= 0)


def test_scores_that_are_no_numbers_are_refused_where_they_count():
    scores = torch.zeros(2, 7)
    scores[0, 0] = torch.nan  # a token of no group
    highest(scores, GROUPS, torch.ones(2, 2, dtype=torch.long))
    scores[1, 5] = torch.nan
    with pytest.raises(UnsupportedModelError, match="The scores to prune visual tokens by are not numbers; try dtype"):
        highest(scores, GROUPS, torch.ones(2, 2, dtype=torch.long))


@pytest.mark.parametrize(
    ("schedule", "layers", "counts"),
    [
        (PYRAMIDDROP, (2, 10, 20), [184, 92, 46]),
        (SPARSEVLM, (3, 7, 16), [303, 110, 36]),
        (HIMAP, (2, 8), [115, 90]),
    ],
)
def test_schedules_are_the_published_ones_for_the_published_model(schedule, layers, counts):
    assert schedule.layers(32, layers[0]) == layers
    sizes = torch.tensor([[576]])
    assert [int(token_counts(share, sizes)) for share in schedule.shares(128 / sizes.double())] == counts


@pytest.mark.parametrize("schedule", [PYRAMIDDROP, SPARSEVLM, HIMAP])
def test_schedules_reach_from_no_tokens_to_all(schedule):
    mean = torch.linspace(0, 1, 41).double()
    shares = torch.stack(schedule.shares(mean))
    assert not shares[:, 0].any()
    assert (shares[:, -1] == 1).all()
    assert (shares.diff(dim=1) > 0).all(), "more is kept where more is asked for"
    assert (shares.diff(dim=0)[:, 1:-1] < 0).all(), "later stages keep less"


def test_schedules_of_other_depths():
    assert PYRAMIDDROP.layers(28, 2) == (2, 9, 18)
    assert PYRAMIDDROP.layers(6, 2) == (2, 3, 4)
    assert PYRAMIDDROP.layers(4, 2) == (2, 3)
    assert PYRAMIDDROP.layers(3, 2) == (2,)
    for schedule in (PYRAMIDDROP, SPARSEVLM, HIMAP):
        for depth in range(2, 80):
            for first in range(1, depth):
                layers = schedule.layers(depth, first)
                assert layers[0] == first
                assert list(layers) == sorted(set(layers))
                assert layers[-1] < depth
