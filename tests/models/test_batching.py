"""Batches in order, prepared ahead, halved when memory does not suffice."""

import threading

import pytest

from lad_eval.models.base import check_batch_size
from lad_eval.models.inference.batching import Batcher, automatic_size, by_length


@pytest.mark.parametrize("ahead", [False, True])
def test_every_item_is_used_once_and_in_order(ahead):
    done = []
    for used in Batcher(3, ahead=ahead).run(range(10), list, lambda batch, prepared: (list(batch), prepared)):
        assert used[0] == used[1]
        done += used[0]
    assert done == list(range(10))


@pytest.mark.parametrize("ahead", [False, True])
def test_what_was_prepared_for_a_batch_too_large_is_prepared_anew(ahead):
    def use(batch, prepared):
        assert list(batch) == prepared
        if len(batch) > 2:
            raise MemoryError
        return prepared

    batcher = Batcher(8, ahead=ahead)
    assert [item for used in batcher.run(range(11), list, use) for item in used] == list(range(11))
    assert batcher.size == 2


def test_the_next_batch_is_prepared_while_this_one_is_used():
    prepared = [threading.Event() for _ in range(3)]

    def prepare(batch):
        prepared[batch[0]].set()
        return batch

    def use(batch, _):
        assert batch[0] == 2 or prepared[batch[0] + 1].wait(timeout=5)
        return batch

    assert len(list(Batcher(1, ahead=True).run(range(3), prepare, use))) == 3


def test_a_fault_while_preparing_ahead_comes_out_and_stops_the_thread():
    def prepare(batch):
        if batch[0] == 4:
            raise ValueError("no such image")
        return batch

    before = threading.active_count()
    with pytest.raises(ValueError, match="no such image"):
        list(Batcher(2, ahead=True).run(range(8), prepare, lambda batch, _: batch))
    assert threading.active_count() == before


def test_longest_first_then_one_group_after_the_other():
    assert by_length([5, 7, 5, 5, 7], ["a", "b", "c", "a", "b"]) == [1, 4, 0, 3, 2]


def test_automatic_sizes():
    assert automatic_size(3000, "cuda") == 5
    assert automatic_size(3000, "cpu") == 1
    assert automatic_size(20, "cpu") == 64
    assert automatic_size(100_000, "cuda") == 1
    assert check_batch_size("7") == 7
