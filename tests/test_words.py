"""Names and texts are in the words of the field: `tests.words`, which `make lint` runs."""

import pytest

from tests.words import (
    NAMES,
    PACKAGE,
    PHRASES,
    STORED,
    WORDS,
    class_faults,
    classes_by_name,
    faults_in,
    phrase_faults,
    phrases_in,
    prose_of,
    word_faults,
    words_of,
)


def test_the_package_has_none_of_the_words():
    assert word_faults() == []


def test_a_class_name_stands_for_one_class():
    assert class_faults() == []


def test_classes_are_gathered_by_name_wherever_they_are_defined():
    sources = [("a.py", "class A: ...\ndef f():\n    class B: ..."), ("b.py", "class C:\n    class A: ...")]
    assert classes_by_name(sources) == {"A": ["a.py:1", "b.py:2"], "B": ["a.py:3"], "C": ["b.py:1"]}


@pytest.mark.parametrize(
    ("source", "name", "word"),
    [
        ("found = 1", "found", "found"),
        ("def leg_of(run): ...", "leg_of", "leg"),
        ("def score(views): ...", "views", "views"),
        ("class OtherCircumstances: ...", "OtherCircumstances", "circumstances"),
        ("class A:\n    def __init__(self):\n        self._kept = 1", "_kept", "kept"),
        ("for told in (): ...", "told", "told"),
        ("if (own := 1): ...", "own", "own"),
        ("x = [given for given in ()]", "given", "given"),
        ("x: int\nlooked_at: int = 1", "looked_at", "looked"),
        ("TAPS = ()", "TAPS", "taps"),
        ("lambda asked: 1", "asked", "asked"),
        ("from a import b as sheet", "sheet", "sheet"),
        ("try: ...\nexcept ValueError as told: ...", "told", "told"),
        ("with open('x') as kept: ...", "kept", "kept"),
        ("async def mend(): ...", "mend", "mend"),
    ],
)
def test_a_name_is_refused_wherever_it_is_given_and_its_replacement_named(source, name, word):
    ((_, refused, the_word, instead),) = faults_in(source)
    assert (refused, the_word) == (name, word)
    assert instead == {**WORDS, **NAMES}[word]


@pytest.mark.parametrize(
    "source",
    [
        "legend = 1",
        "unfound = 1",
        "is_kept = 1",  # says what it holds
        "x.found",  # is defined elsewhere
        "f(given=1)",
        '"""told, found and kept"""  # own',
        "world_size = 1",
        "tapered = 1",
    ],
)
def test_other_words_are_left_alone(source):
    assert faults_in(source) == []


def test_the_package_and_the_pages_have_none_of_the_phrases():
    assert phrase_faults() == []


@pytest.mark.parametrize(
    ("source", "line", "phrase"),
    [
        ("x = 1  # told by its hash", 1, "told"),
        ('"""A module.\n\nIt is written anew.\n"""', 3, "anew"),
        ('raise ValueError(\n    f"{x} lies Beside {y}"\n)', 2, "beside"),
    ],
)
def test_a_phrase_is_found_in_comments_and_texts(source, line, phrase):
    ((found_line, refused, instead),) = phrases_in(prose_of(source))
    assert (found_line, refused, instead) == (line, phrase, PHRASES[phrase])


@pytest.mark.parametrize("source", ['x = "told"', "told = 1", "# untold", '"""The task asks for five."""', '"re-told in part"'])
def test_other_texts_are_left_alone(source):
    assert phrases_in(prose_of(source)) == []


def test_names_fall_into_words():
    assert words_of("_told_apart") == ["told", "apart"]
    assert words_of("LADSight") == ["lad", "sight"]
    assert words_of("top2Legs") == ["top", "2", "legs"]


def test_a_word_is_listed_once():
    assert not WORDS.keys() & NAMES.keys()


def test_what_stored_files_hold_is_still_there():
    names = {place: {name for _, name, _, _ in faults_in((PACKAGE / place).read_text())} for place in STORED}
    assert names == STORED
