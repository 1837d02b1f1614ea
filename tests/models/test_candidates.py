"""The candidate trie: hand-worked numbers, a slow obvious implementation, and the law that probabilities sum to one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_eval.errors import UserError
from lad_eval.models.inference.candidates import CandidateTrie, common_prefix

VOCABULARY = 12
END_IDS = (0, 7)
TOKENS = [t for t in range(VOCABULARY) if t not in END_IDS]


def digits(n):
    return CandidateTrie(tuple(tuple(int(d) for d in str(k)) for k in range(1, n + 1)))


def slow_log_probs(candidates, logits_after, end_ids):
    """Walks every candidate by itself and looks its valid next tokens up anew at each step."""
    result = []
    for candidate in candidates:
        total = 0.0
        for depth in range(len(candidate) + 1):
            prefix = candidate[:depth]
            going_on = {c[depth] for c in candidates if len(c) > depth and c[:depth] == prefix}
            logits = logits_after(prefix)
            weights = {token: math.exp(logits[token]) for token in going_on}
            if prefix in candidates:
                weights["end"] = sum(math.exp(logits[e]) for e in end_ids)
            chosen = candidate[depth] if depth < len(candidate) else "end"
            total += math.log(weights[chosen] / sum(weights.values()))
        result.append(total)
    return result


def test_single_tokens_are_one_softmax():
    trie = digits(9)
    assert [b.prefix for b in trie.branches] == [()]
    assert trie.prefixes == ()
    assert not trie.needs_end
    logits = np.arange(9.0)[None]
    np.testing.assert_allclose(trie.log_probs([logits]), logits - np.log(np.exp(logits).sum()), rtol=1e-12)


def test_twelve_candidates_by_hand():
    """After "1" the reply may end (two end ids: 1 + 2 of 8), or go on with 0, 1 or 2 (weights 1, 2, 2)."""
    trie = digits(12)
    assert [b.prefix for b in trie.branches] == [(), (1,)]
    after_one = trie.branches[1]
    assert (after_one.tokens, after_one.ends) == ((0, 1, 2), True)
    assert after_one.columns((50, 51)) == [0, 1, 2, 50, 51]
    root = np.zeros((1, 9))
    logits = np.log([[1.0, 2.0, 2.0, 1.0, 2.0]])
    p = np.exp(trie.log_probs([root, logits], end_ids=(50, 51)))[0]
    np.testing.assert_allclose(p, [3 / 72, *[1 / 9] * 8, 1 / 72, 2 / 72, 2 / 72], rtol=1e-12)


def test_from_twenty_on_every_prefix_has_its_own_suffixes():
    trie = digits(25)
    assert {b.prefix: b.tokens for b in trie.branches if b.prefix} == {
        (1,): (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
        (2,): (0, 1, 2, 3, 4, 5),
    }


def test_chains_without_a_choice_cost_nothing():
    trie = CandidateTrie(((1, 2, 3), (4,)))
    assert [b.prefix for b in trie.branches] == [()]
    np.testing.assert_allclose(np.exp(trie.log_probs([np.zeros((1, 2))])), 0.5)


def test_one_candidate_may_be_the_beginning_of_all():
    trie = CandidateTrie(((5,), (5, 6)))
    assert trie.prefixes == ((5,),)
    p = np.exp(trie.log_probs([np.log([[3.0, 1.0]])], end_ids=(0,)))
    np.testing.assert_allclose(p, [[0.25, 0.75]])


def test_an_end_is_never_left_out_silently():
    with pytest.raises(ValueError, match="no end-of-sequence id"):
        CandidateTrie(((5,), (5, 6))).log_probs([np.zeros((1, 1))])


def test_equal_tokens_are_refused():
    with pytest.raises(UserError, match=r"gives candidates 1 and 3 the same tokens \[4\]"):
        CandidateTrie(((4,), (5,), (4,)))


def test_common_prefix():
    assert common_prefix([(1, 2, 3), (1, 2), (1, 2, 4)]) == (1, 2)
    assert common_prefix([(1,), (2,)]) == ()
    assert common_prefix([(1, 2)]) == (1, 2)


token_sequences = st.lists(st.sampled_from(TOKENS), min_size=1, max_size=4).map(tuple)
candidate_sets = st.lists(token_sequences, min_size=2, max_size=25, unique=True)


@settings(max_examples=60)
@given(candidate_sets, st.integers(0, 2**32 - 1))
def test_probabilities_sum_to_one_and_equal_the_slow_walk(candidates, seed):
    trie = CandidateTrie(tuple(candidates))

    def logits_after(prefix):
        return np.random.default_rng([seed, *prefix]).normal(0, 3, VOCABULARY)

    raw = [logits_after(b.prefix)[None, b.columns(END_IDS)] for b in trie.branches]
    found = trie.log_probs(raw, END_IDS)[0]
    assert math.isclose(np.exp(found).sum(), 1.0, rel_tol=1e-9)
    np.testing.assert_allclose(found, slow_log_probs(tuple(candidates), logits_after, END_IDS), atol=1e-9)


@settings(max_examples=20)
@given(candidate_sets, st.floats(-50, 50))
def test_a_constant_on_all_logits_changes_nothing(candidates, constant):
    trie = CandidateTrie(tuple(candidates))
    raw = [np.random.default_rng(i).normal(size=(3, len(b.columns(END_IDS)))) for i, b in enumerate(trie.branches)]
    np.testing.assert_allclose(trie.log_probs(raw, END_IDS), trie.log_probs([r + constant for r in raw], END_IDS), atol=1e-9)
