"""Least recently used first out, and never more bytes than the capacity."""

import random
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

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


def test_threads_that_need_one_value_wait_for_the_one_that_makes_it():
    cache, began, going_on, made = ByteLRU(9, len), threading.Event(), threading.Event(), []

    def make():
        made.append(threading.get_ident())
        began.set()
        assert going_on.wait(5)
        return "xx"

    with ThreadPoolExecutor(4) as pool:
        values = [pool.submit(cache.get_or_make, "a", make) for _ in range(4)]
        assert began.wait(5)
        assert cache.get_or_make("b", lambda: "y") == "y", "another value is not held up"
        going_on.set()
        assert [value.result() for value in values] == ["xx"] * 4
    assert len(made) == 1
    assert cache.get_or_make("a", lambda: "never made") == "xx"


def test_a_value_that_could_not_be_made_is_made_by_the_next_who_needs_it():
    cache = ByteLRU(9, len)
    with pytest.raises(ValueError, match="unreadable"):
        cache.get_or_make("a", lambda: int("unreadable"))
    assert cache.get_or_make("a", lambda: "x") == "x"
    assert cache.get_or_make("large", lambda: 10 * "x") == 10 * "x"
    assert len(cache) == 1
