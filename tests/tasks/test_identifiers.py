from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_eval.tasks.prompts import MAX_CANDIDATES, IdentifierStyle, identifiers

STYLES = get_args(IdentifierStyle)
VALUES = {"I": 1, "V": 5, "X": 10, "L": 50}


def roman_value(name):
    """Reads a Roman number: a sign before a greater one is taken away."""
    values = [VALUES[sign] for sign in name]
    return sum(-v if any(v < w for w in values[i + 1 : i + 2]) else v for i, v in enumerate(values))


@pytest.mark.parametrize("style", STYLES)
def test_names_are_distinct_and_a_smaller_n_gives_the_first_of_them(style):
    most = identifiers(style, MAX_CANDIDATES)
    assert len(set(most)) == MAX_CANDIDATES
    assert all(name and name == name.strip() for name in most)
    for n in range(1, MAX_CANDIDATES + 1):
        assert identifiers(style, n) == most[:n]


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("1..", {1: "1", 9: "9", 10: "10", 25: "25"}),
        ("A..", {1: "A", 26: "Z", 27: "AA", 28: "AB", 52: "AZ", 53: "BA"}),
        ("a..", {1: "a", 26: "z", 27: "aa"}),
        ("I..", {4: "IV", 9: "IX", 14: "XIV", 19: "XIX", 40: "XL", 44: "XLIV", 49: "XLIX", 59: "LIX"}),
        ("first..", {1: "first", 12: "twelfth", 20: "twentieth", 21: "twenty-first", 40: "fortieth", 59: "fifty-ninth"}),
    ],
)
def test_names_written_by_hand(style, expected):
    names = identifiers(style, MAX_CANDIDATES)
    assert {k: names[k - 1] for k in expected} == expected


def test_roman_numbers_read_back():
    assert [roman_value(name) for name in identifiers("I..", MAX_CANDIDATES)] == list(range(1, MAX_CANDIDATES + 1))
    assert not any(sign * 4 in name for sign in "IX" for name in identifiers("I..", MAX_CANDIDATES))


def test_lower_case_letters_are_the_upper_case_ones():
    assert [n.upper() for n in identifiers("a..", MAX_CANDIDATES)] == list(identifiers("A..", MAX_CANDIDATES))


@given(st.sampled_from(STYLES), st.integers().filter(lambda n: not 1 <= n <= MAX_CANDIDATES))
def test_numbers_out_of_range_are_refused(style, n):
    with pytest.raises(ValueError, match=f"defined for 1 to {MAX_CANDIDATES} candidates, not {n}"):
        identifiers(style, n)
