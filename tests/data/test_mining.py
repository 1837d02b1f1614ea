"""Blocked mining finds what the loop over all pairs finds, to the last tie."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_eval.data.retrieval import mining
from lad_eval.data.retrieval.mining import Miner
from lad_eval.data.retrieval.protocols import TooFewCandidatesError
from lad_eval.errors import DataError


def obvious(miner, anchors, pool, k):
    """The slow way: every pair, one after the other. None where an anchor has too few."""
    row = {name: number for number, name in enumerate(miner.names)}
    chosen = []
    for anchor in anchors:
        admitted = []
        for name in pool:
            if name == anchor:
                continue
            if miner.categories is not None:
                mine, theirs = miner.categories[anchor], miner.categories[name]
                if (mine <= theirs) if miner.rule == "superset" else (mine == theirs):
                    continue
            if float(np.dot(miner.texts[row[anchor]], miner.texts[row[name]])) >= miner.threshold:
                continue
            admitted.append((name, float(np.dot(miner.images[row[anchor]], miner.images[row[name]]))))
        admitted.sort(key=lambda pair: pair[1], reverse=True)
        if len(admitted) < k:
            return None
        chosen.append([name for name, _ in admitted[:k]])
    return chosen


def make(seed, count, width, *, dtype=np.float32, copies=1, categories=12, rule="superset"):
    """Random data; each vector stands there `copies` times, so that similarities tie exactly."""
    generator = np.random.default_rng(seed)

    def vectors(spread):
        few = generator.normal(size=(-(-count // copies), width)) + spread
        drawn = np.repeat(few, copies, axis=0)[:count][generator.permutation(count)]
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(dtype)

    names = [f"{number}.jpg" for number in range(count)]
    shown = {name: frozenset(map(int, generator.integers(categories, size=generator.integers(0, 4)))) for name in names}
    return Miner(names, vectors(0.2), vectors(1.0), shown if categories > 1 else None, rule=rule)


@settings(max_examples=80)
@given(
    seed=st.integers(0, 10**6),
    width=st.sampled_from([2, 8, 64]),
    copies=st.sampled_from([1, 3, 10]),
    categories=st.sampled_from([1, 4, 30, 150]),
    rule=st.sampled_from(["superset", "identical"]),
    dtype=st.sampled_from([np.float32, np.float16, np.float64]),
    k=st.integers(1, 6),
    first=st.sampled_from([1, 4, 32]),
    share=st.sampled_from([0, 0.5, 1]),
)
def test_equal_to_the_loop_over_all_pairs(seed, width, copies, categories, rule, dtype, k, first, share):
    miner = make(seed, 40, width, dtype=dtype, copies=copies, categories=categories, rule=rule)
    pool = [miner.names[i] for i in np.random.default_rng(seed + 1).permutation(40)[:30]]
    anchors = [*pool[:6], pool[2], *miner.names[:2]]
    enough = [anchor for anchor in anchors if obvious(miner, [anchor], pool, k)]
    with patch.multiple(mining, FIRST=first, SHARE=share):
        assert miner(enough, pool, k) == obvious(miner, enough, pool, k)
        if len(enough) < len(anchors):
            with pytest.raises(TooFewCandidatesError):
                miner(anchors, pool, k)


@pytest.mark.parametrize("bytes_", [1, 3000, 2**28])
def test_the_block_size_does_not_matter(monkeypatch, bytes_):
    miner = make(3, 60, 32, copies=4, rule="identical")
    expected = obvious(miner, miner.names[:25], miner.names, 5)
    monkeypatch.setattr(mining, "BLOCK_BYTES", bytes_)
    assert miner(miner.names[:25], miner.names, 5) == expected


class Compared:
    """Counts the pairs whose captions are compared, call by call."""

    def __init__(self, monkeypatch):
        self.pairs = []
        compare = mining._Pairs._same_caption

        def same_caption(pairs, rows, columns):
            self.pairs.append(len(rows) * len(columns))
            return compare(pairs, rows, columns)

        monkeypatch.setattr(mining._Pairs, "_same_caption", same_caption)


def around(count, same, dtype=np.float32):
    """An anchor "0.jpg" and `count` pictures, ever less similar to it, of which the first `same` have its caption."""
    angles = np.linspace(0, 1.5, count + 1)
    images = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(dtype)
    texts = np.eye(2, dtype=dtype)[(np.arange(count + 1) > same).astype(int)]
    return Miner([f"{number}.jpg" for number in range(count + 1)], images, texts)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("same", "calls"), [(0, 1), (20, 1), (70, 2), (400, 3), (4000, 3)])
def test_more_captions_are_compared_until_they_suffice(monkeypatch, dtype, same, calls):
    miner = around(6000, same, dtype)
    pool = [miner.names[number] for number in np.random.default_rng(0).permutation(6001)]
    compared = Compared(monkeypatch)
    assert miner(["0.jpg"], pool, 3) == obvious(miner, ["0.jpg"], pool, 3)
    if dtype != np.float16:  # where many pictures are equally similar
        assert len(compared.pairs) == calls
        assert compared.pairs == sorted(compared.pairs)
        assert (compared.pairs[-1] == 6001) == (calls == 3)


def test_captions_are_compared_for_few_of_the_pairs(monkeypatch):
    miner = make(5, 4000, 64)
    anchors = [name for name in miner.names if miner.categories[name]][:20]
    compared = Compared(monkeypatch)
    assert miner(anchors, miner.names, 5) == obvious(miner, anchors, miner.names, 5)
    assert sum(compared.pairs) < 0.02 * 20 * 4000


def test_ties_at_the_cut_are_all_compared():
    """Of 1,000 equally similar pictures the first few of the pool are taken, wherever the first look stops."""
    miner = around(40, 5)
    images = np.concatenate([miner.images, np.repeat(miner.images[20:21], 1000, axis=0)])
    texts = np.concatenate([miner.texts, np.repeat(miner.texts[20:21], 1000, axis=0)])
    miner = Miner([f"{number}.jpg" for number in range(len(images))], images, texts)
    pool = miner.names[::-1]
    assert miner(["0.jpg"], pool, 30) == obvious(miner, ["0.jpg"], pool, 30)


def test_too_few_are_counted_in_the_whole_pool():
    miner = around(2500, 2496)
    assert miner(["0.jpg"], miner.names, 4) == obvious(miner, ["0.jpg"], miner.names, 4)
    with pytest.raises(
        TooFewCandidatesError, match=r"^0\.jpg: 4 of the pool's 2501 images can be its hard negatives, but 5 are needed"
    ):
        miner(["0.jpg"], miner.names, 5)


def test_of_equals_the_earlier_in_the_pool_comes_first():
    axes = np.eye(4, dtype=np.float32)
    names = ["a", "b", "c", "d", "e"]
    images = axes[[0, 1, 1, 1, 0]]
    texts = axes[[0, 1, 2, 3, 1]]
    miner = Miner(names, images, texts)
    assert miner(["a"], names, 4) == [["e", "b", "c", "d"]]
    assert miner(["a"], ["d", "c", "a", "b"], 2) == [["d", "c"]]


def test_a_caption_counts_as_the_same_from_the_threshold_on():
    texts = np.array([[1, 0], [0.9, 0.435889894], [0.8999, 0.43609631]], np.float64)
    images = np.ones((3, 1))
    assert Miner(["a", "b", "c"], images, texts)(["a"], ["b", "c"], 1) == [["c"]]


def test_categories_beyond_one_word_of_bits_count():
    shown = {"a": frozenset({1, 200}), "b": frozenset({1, *range(100, 180)}), "c": frozenset({1, 200, 300})}
    miner = Miner(["a", "b", "c"], np.ones((3, 1), np.float32), np.eye(3, dtype=np.float32), shown)
    assert miner(["a"], ["c", "b"], 1) == [["b"]]
    same = Miner(["a", "b", "c"], miner.images, miner.texts, {**shown, "b": shown["a"]}, rule="identical")
    assert same(["a"], ["c", "b"], 1) == [["c"]]


def test_too_few_candidates_name_the_anchor_and_how_many_there_are():
    miner = Miner(["a", "b", "c"], np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), {n: frozenset({1}) for n in "abc"})
    with pytest.raises(TooFewCandidatesError, match=r"a: 0 of .* 3 images can be its hard negatives, but 2 are needed"):
        miner(["a"], ["a", "b", "c"], 2)


def test_a_picture_without_embedding_is_named():
    miner = Miner(["a", "b"], np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    with pytest.raises(DataError, match=r"x\.jpg: there is no embedding"):
        miner(["a"], ["a", "b", "x.jpg"], 1)
    assert miner([], ["a"], 1) == []
