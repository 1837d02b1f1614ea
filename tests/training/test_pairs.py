"""Pairs: balanced over positions, or refused."""

from __future__ import annotations

import re

import pytest

from lad_eval.errors import DataError
from lad_eval.training.pairs import AnswerPair, PairSet, balanced, check_balance, counts_table, position_counts, quota


def pair(chosen, rejected, number=0):
    return AnswerPair("task", f"s{number}", (0, 1, 2), f"{chosen}-{rejected}-{number}", chosen, rejected)


EVERY = [(chosen, rejected) for chosen in range(3) for rejected in range(3) if chosen != rejected]


def test_a_quota_is_the_same_for_every_position_and_gives_as_many_as_are_wanted():
    assert [quota(wanted, 3) for wanted in (1, 6, 7, 12)] == [1, 1, 2, 2]
    assert quota(200, 4) == 17


def test_the_first_pairs_of_each_position_are_taken():
    many = [pair(*cell, number) for number in range(4) for cell in EVERY] + [pair(2, 0, 9)]
    chosen = balanced(many, 2)
    assert position_counts(chosen, 3) == [[0, 2, 2], [2, 0, 2], [2, 2, 0]]
    assert {found.sample_id for found in chosen} == {"s0", "s1"}


def test_a_position_with_more_than_three_times_its_share_is_refused():
    even = [pair(*cell) for cell in EVERY]
    check_balance(even, 3)
    check_balance([*even, *(pair(2, 0, number) for number in range(1, 5))], 3)  # 5 of 10: half is allowed of N = 3
    with pytest.raises(DataError, match="6 of 11 pairs prefer position 3 to position 1, more than the 50 %"):
        check_balance([*even, *(pair(2, 0, number) for number in range(1, 6))], 3)
    with pytest.raises(DataError, match="1 of 1 pairs prefer position 2 to position 1, more than the 75 %"):
        check_balance([pair(1, 0)], 2)
    with pytest.raises(DataError, match="No pair was found"):
        check_balance([], 3)


def test_a_set_is_read_as_it_was_written(tmp_path):
    made = PairSet((pair(2, 0), pair(0, 1)), 3, {"chosen": {"name": "capl"}}, 12, 2000)
    made.save(tmp_path)
    assert PairSet.load(tmp_path) == made
    assert re.findall(r"\d+", counts_table(made.counts).splitlines()[1]) == ["1", "0", "1", "0"]
    (tmp_path / "pairs.json").write_text((tmp_path / "pairs.json").read_text().replace('"chosen": 2', '"chosen": 1'))
    with pytest.raises(DataError, match=r"it is damaged or was changed\. Make it with `lad-eval capl answers`"):
        PairSet.load(tmp_path)
