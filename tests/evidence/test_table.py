import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_eval.errors import EvidenceError
from lad_eval.evidence.table import Evidence, difference, fingerprint_digest


def table(n=6, N=3, L=2, seed=0, **columns):
    draw = np.random.default_rng(seed)
    given = {
        "log_probs": np.log(draw.dirichlet(np.ones(N), n)),
        "attention": draw.random((n, L, N)),
        "gold_position": draw.integers(0, N, n),
        "sample_id": [f"s{i // 2}" for i in range(n)],
        "attention_delimited": draw.random((n, L, N)),
        "perm": np.array([draw.permutation(N) for _ in range(n)]).reshape(n, N),
        "split": ["test", "calibration"] * (n // 2) + ["test"] * (n % 2),
        "key": [f"k{seed}-{i}" for i in range(n)],
        "forward_passes": draw.integers(1, 4, n),
        "seconds": draw.random(n),
        "fingerprint": {"model": "m", "dtype": "float32"},
    }
    return Evidence.from_arrays(**{**given, **columns})


def same(a, b):
    for name in vars(a):
        left, right = getattr(a, name), getattr(b, name)
        if not (left == right if name == "fingerprint" or left is None or right is None else np.array_equal(left, right)):
            return False
    return True


def test_log_probs_and_gold_positions_are_enough():
    evidence = Evidence.from_arrays([[0.0, -1.0], [-2.0, -3.0], [-1.0, -1.0]], gold_position=[0, 1, 1])
    assert (len(evidence), evidence.n_candidates, evidence.n_layers) == (3, 2, 0)
    assert evidence.attention is None is evidence.attention_delimited
    assert evidence.sample_id.tolist() == ["0", "1", "2"]
    assert evidence.perm.tolist() == [[0, 1]] * 3
    assert evidence.split.tolist() == ["test"] * 3
    assert evidence.forward_passes.tolist() == [1, 1, 1]
    assert len(evidence.calibration) == 0


def test_the_span_with_delimiters_defaults_to_the_one_without():
    evidence = table(attention_delimited=None)
    assert np.array_equal(evidence.attention_delimited, evidence.attention)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"log_probs": np.zeros(6)}, "log_probs must have shape [n, N] with N >= 2, not [6]."),
        ({"log_probs": np.zeros((6, 1))}, "not [6, 1]."),
        ({"log_probs": [[0.0, 1.0], [1.0]]}, "log_probs must be an array of numbers, every row of equal length."),
        ({"log_probs": [["a", "b"]]}, "log_probs must be an array of numbers"),
        ({"log_probs": np.full((6, 3), -np.inf)}, "log_probs must be finite."),
        ({"log_probs": np.full((6, 3), np.nan)}, "log_probs must be finite."),
        ({"gold_position": None}, "gold_position is missing: it must have shape [6]."),
        ({"gold_position": [0] * 5}, "gold_position must have shape [6] as log_probs has 6 rows, not [5]."),
        ({"gold_position": [3] * 6}, "gold_position must lie in 0..2."),
        ({"gold_position": [-1] * 6}, "gold_position must lie in 0..2."),
        ({"gold_position": [0.5] * 6}, "gold_position must hold whole numbers."),
        ({"gold_position": [np.nan] * 6}, "gold_position must hold whole numbers."),
        ({"sample_id": ["a"]}, "sample_id must have shape [6]"),
        ({"split": ["test"] * 7}, "split must have shape [6]"),
        ({"split": "validation"}, "split must be 'test' or 'calibration', not 'validation'."),
        ({"key": ["k"]}, "key must have shape [6]"),
        ({"seconds": [1.0]}, "seconds must have shape [6]"),
        ({"forward_passes": [[1]]}, "forward_passes must have shape [6]"),
        ({"perm": [[0, 1]] * 6}, "perm must have shape [6, 3], not [6, 2]."),
        ({"perm": [[0, 1, 1]] * 6}, "every row of perm must be a permutation of 0..N-1."),
        (
            {"attention": np.zeros((6, 3)), "attention_delimited": None},
            "attention must have shape [6, L, 3] with L >= 1, not [6, 3].",
        ),
        ({"attention": np.zeros((6, 0, 3)), "attention_delimited": None}, "L >= 1, not [6, 0, 3]."),
        ({"attention": np.zeros((5, 2, 3)), "attention_delimited": None}, "attention must have shape [6, L, 3]"),
        ({"attention": np.zeros((6, 2, 4)), "attention_delimited": None}, "attention must have shape [6, L, 3]"),
        ({"attention": np.full((6, 2, 3), np.nan)}, "attention must be finite and not negative."),
        ({"attention_delimited": np.full((6, 2, 3), -1.0)}, "attention_delimited must be finite and not negative."),
        (
            {"attention_delimited": np.zeros((6, 3, 3))},
            "attention and attention_delimited differ in shape: [6, 2, 3] and [6, 3, 3].",
        ),
        ({"attention": None}, "attention_delimited needs attention, which is missing."),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_line(columns, says):
    with pytest.raises(EvidenceError) as caught:
        table(**columns)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_rows_are_allowed_where_shapes_fit():
    empty = Evidence.from_arrays(np.zeros((0, 4)), np.zeros((0, 3, 4)), gold_position=[])
    assert (len(empty), empty.n_candidates, empty.n_layers) == (0, 4, 3)


def test_splits_part_the_rows():
    evidence = table(7)
    assert evidence.test.key.tolist() == ["k0-0", "k0-2", "k0-4", "k0-6"]
    assert evidence.calibration.key.tolist() == ["k0-1", "k0-3", "k0-5"]


@given(st.lists(st.integers(0, 5), max_size=12))
def test_select_takes_every_column_along(rows):
    evidence = table()
    chosen = evidence.select(rows)
    assert len(chosen) == len(rows)
    assert chosen.key.tolist() == [f"k0-{i}" for i in rows]
    for name in ("log_probs", "attention", "attention_delimited", "perm", "gold_position", "sample_id", "seconds"):
        assert np.array_equal(
            getattr(chosen, name), np.stack([getattr(evidence, name)[i] for i in rows]) if rows else getattr(chosen, name)
        )
    assert chosen.fingerprint == evidence.fingerprint


@given(st.lists(st.booleans(), min_size=6, max_size=6))
def test_a_mask_an_index_and_a_slice_say_the_same(mask):
    evidence = table()
    assert same(evidence.select(mask), evidence.select(np.flatnonzero(mask)))
    assert same(evidence.select(slice(1, 4)), evidence.select([1, 2, 3]))


@given(st.lists(st.integers(0, 6), min_size=0, max_size=4).map(sorted))
def test_joining_the_pieces_gives_the_whole(cuts):
    evidence = table()
    edges = [0, *(min(cut, 6) for cut in cuts), 6]
    pieces = [evidence.select(slice(a, b)) for a, b in itertools.pairwise(edges)]
    assert same(Evidence.concatenate(pieces), evidence)


@given(st.permutations([f"k0-{i}" for i in range(6)]), st.integers(0, 6))
def test_keys_choose_their_rows_in_their_order(keys, count):
    chosen = table().select_keys(keys[:count])
    assert chosen.key.tolist() == keys[:count]


def test_of_equal_keys_the_first_row_is_chosen():
    evidence = table(key=["a", "a", "b", "b", "c", "c"])
    assert same(evidence.select_keys(["b", "a"]), evidence.select([2, 0]))


def test_keys_without_rows_are_counted():
    with pytest.raises(EvidenceError, match="2 of 3 requests have no evidence yet; run the model first"):
        table().select_keys(["k0-1", "x", "y"])


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"fingerprint": {"model": "m", "dtype": "bfloat16"}}, "cannot be mixed: dtype is 'float32' and 'bfloat16'."),
        ({"fingerprint": {"model": "m"}}, "dtype is 'float32' and missing"),
        ({"N": 4}, "different numbers of candidates or layers"),
        ({"L": 5}, "different numbers of candidates or layers"),
        ({"attention": None, "attention_delimited": None}, "different numbers of candidates or layers"),
    ],
)
def test_what_does_not_belong_together_is_not_joined(other, says):
    with pytest.raises(EvidenceError) as caught:
        Evidence.concatenate([table(), table(seed=1, **other)])
    assert says in str(caught.value)


def test_joining_nothing_is_refused():
    with pytest.raises(EvidenceError, match="no evidence to join"):
        Evidence.concatenate([])


fingerprints = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2) | st.text(max_size=2) | st.none())


@given(fingerprints, fingerprints)
def test_a_digest_tells_fingerprints_apart_whatever_the_order_of_keys(a, b):
    assert (fingerprint_digest(a) == fingerprint_digest(b)) == (a == b)
    assert fingerprint_digest(dict(reversed(a.items()))) == fingerprint_digest(a)


def test_a_difference_names_every_key_and_shortens_long_values():
    text = difference({"a": 1, "b": "x" * 500, "c": 3}, {"a": 2, "b": "y", "c": 3})
    assert text.startswith("a is 1 and 2, b is 'xxx")
    assert len(text) < 130


@given(fingerprints, fingerprints)
def test_there_is_a_difference_exactly_where_the_digests_differ(a, b):
    assert bool(difference(a, b)) == (fingerprint_digest(a) != fingerprint_digest(b))
