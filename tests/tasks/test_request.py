import hashlib
import json
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_eval.tasks.request import Permutation, Request, Sample


@dataclass(frozen=True)
class Card:
    digest: str


def sample(n=4, gold=1, id="s1"):
    return Sample(id=id, images=tuple(Card(f"digest{i}") for i in range(n)), caption="c", gold=gold)


orders = st.permutations(range(4)).map(lambda order: Permutation(tuple(order)))


@given(orders, st.integers(0, 3))
def test_the_gold_image_stands_at_the_gold_position(order, gold):
    asked = sample(gold=gold)
    request = Request.of(asked, order, "q", ("1", "2", "3", "4"))
    assert request.images[request.gold_position] == asked.images[gold]
    assert request.permutation.inverse.apply(request.images) == asked.images


@given(orders, orders)
def test_keys_are_equal_exactly_where_the_displayed_order_is(a, b):
    first, second = (Request.of(sample(), order, "q", ("1", "2", "3", "4")) for order in (a, b))
    assert (first.key == second.key) == (a == b)


def test_the_key_is_a_digest_of_the_content_worked_out_by_hand():
    request = Request.of(sample(2), Permutation((1, 0)), "q é", ("A", "B"))
    content = '["s1", ["digest1", "digest0"], "q \\u00e9", ["A", "B"]]'
    assert json.loads(content)[2] == "q é"
    assert request.key == hashlib.sha256(content.encode()).hexdigest()[:32]


@pytest.mark.parametrize(
    "change",
    [{"sample_id": "s2"}, {"question": "other"}, {"identifiers": ("A", "B", "C", "D")}, {"images": sample().images[::-1]}],
)
def test_every_part_of_the_content_changes_the_key(change):
    request = Request.of(sample(), Permutation.identity(4), "q", ("1", "2", "3", "4"))
    assert replace(request, **change).key != request.key


@given(st.lists(st.text(), min_size=2, max_size=2), st.lists(st.text(), min_size=2, max_size=2))
def test_parts_cannot_run_into_each_other(a, b):
    def key(parts):
        return Request.of(sample(id=parts[0]), Permutation.identity(4), parts[1], ("1", "2", "3", "4")).key

    assert (key(a) == key(b)) == (a == b)


def test_half_of_a_surrogate_pair_in_a_caption_does_not_stop_a_run():
    assert len(Request.of(sample(), Permutation.identity(4), "\ud83d", ("1", "2", "3", "4")).key) == 32


@pytest.mark.parametrize("gold", [-1, 4])
def test_a_gold_index_must_be_an_image(gold):
    with pytest.raises(ValueError, match="not an index of 4 images"):
        sample(gold=gold)
