"""Least recently used first out, and never more bytes than the capacity."""

import random
from collections import OrderedDict

import pytest

from lad_eval.models.inputs.cache import ByteLRU


def test_what_was_not_used_for_longest_goes_first():
    cache = ByteLRU(6, len)
    for key in "abc":
        cache.put(key, key * 2)
    assert cache.get("a") == "aa"
    cache.put("d", "dd")
    assert [cache.get(key) for key in "abcd"] == ["aa", None, "cc", "dd"]
    assert (len(cache), cache.held_bytes) == (3, 6)
    cache.clear()
    assert (len(cache), cache.held_bytes, cache.get("a")) == (0, 0, None)


def test_a_value_larger_than_the_capacity_is_not_held_and_drops_no_other():
    cache = ByteLRU(3, len)
    cache.put("a", "xx")
    cache.put("b", "x")
    cache.put("c", "xxxx")
    assert (len(cache), cache.held_bytes, cache.get("a"), cache.get("c")) == (2, 3, "xx", None)
    cache.put("a", "xxxx")
    assert (len(cache), cache.held_bytes, cache.get("a")) == (1, 1, None), "an earlier value would be out of date"


def test_a_value_put_again_counts_once():
    cache = ByteLRU(5, len)
    cache.put("a", "xxx")
    cache.put("b", "x")
    cache.put("a", "xx")
    assert (len(cache), cache.held_bytes, cache.get("a")) == (2, 3, "xx")


@pytest.mark.parametrize("capacity", [0, 1, 7, 40])
def test_as_a_slow_obvious_cache(capacity):
    rng, cache, slow = random.Random(capacity), ByteLRU(capacity, len), OrderedDict()
    for _ in range(2000):
        key = rng.randrange(9)
        if rng.random() < 0.5:
            slow.pop(key, None)
            value = b"x" * rng.randrange(12)
            cache.put(key, value)
            if len(value) <= capacity:
                slow[key] = value
            while sum(map(len, slow.values())) > capacity:
                del slow[next(iter(slow))]
        else:
            if key in slow:
                slow.move_to_end(key)
            assert cache.get(key) == slow.get(key)
        assert (len(cache), cache.held_bytes) == (len(slow), sum(map(len, slow.values())))
