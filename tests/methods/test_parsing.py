import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_eval.methods.replying import parse_reply
from lad_eval.tasks.prompts import identifiers

FOUR = identifiers("1..", 4)


@pytest.mark.parametrize(
    ("reply", "position"),
    [
        ("2", 1),
        ("2.", 1),
        (" **2** ", 1),
        ("(2)", 1),
        ("Image 2", 1),
        ("Image-2", 1),
        ("The 2 images", 1),
        ("=2", 1),
        ("I cannot tell", None),
        ("Failed to obtain answer", None),
        ("The answer is 2, since image 2 shows a dog.", 1),
        ("Answer: 4\n", 3),
        ("", None),
        ("none of them", None),
        ("two", None),
        ("5", None),
        ("0", None),
        ("-1", None),
        ("2.5", None),
        ("1,2", None),
        ("1 or 2", None),
        ("Image 2 of 4", None),
        ("2 (out of 5)", None),
        ("22", None),
        ("2nd", None),
        ("x2", None),
        ("1-2", None),
        ("02", None),
    ],
)
def test_numbers(reply, position):
    assert parse_reply(reply, FOUR) == position


@pytest.mark.parametrize(
    ("style", "reply", "position"),
    [
        ("A..", "B", 1),
        ("A..", "Answer: B.", 1),
        ("A..", "(B)", 1),
        ("A..", "b", None),
        ("A..", "B. The second image", 1),
        ("A..", "The answer is image C", 2),
        ("A..", "A dog is in image B", 1),
        ("A..", "A dog", None),
        ("A..", "B, or C", None),
        ("A..", "E", None),
        ("A..", "A or B", None),
        ("A..", "A red dog is shown in B", 1),
        ("A..", "A", 0),
        ("A..", "Bee", None),
        ("A..", "B's", None),
        ("A..", "A Dalmatian on a sofa", None),
        ("A..", "A Dalmatian, so C", 2),
        ("A..", "A OR B", None),
        ("A..", "A B", None),
        ("a..", "a b", None),
        ("I..", "I II", None),
        ("I..", "I Cannot Tell", None),
        ("a..", "b", 1),
        ("I..", "III", 2),
        ("I..", "I think it is IV", 3),
        ("I..", "I", 0),
        ("I..", "image II", 1),
        ("I..", "I think so", None),
        ("first..", "second", 1),
        ("first..", "The Second image.", 1),
        ("first..", "twenty-first", None),
        ("first..", "first, then second", None),
    ],
)
def test_names_of_other_styles(style, reply, position):
    assert parse_reply(reply, identifiers(style, 4)) == position


def test_a_longer_name_is_not_a_shorter_one():
    names = identifiers("first..", 22)
    assert parse_reply("the twenty-first", names) == 20
    assert parse_reply("the first", names) == 0


@pytest.mark.parametrize(
    ("reply", "position"),
    [
        ("<think>Image 1 is a cat, image 2 a dog.</think>\n2", 1),
        ("Image 1 is a cat.</think> 3", 2),
        ("<think>one</think>1<think>no</think>2", 1),
        ("<think>It must be 2", None),
        ("<think>It must be 2</think>", None),
        ("2", 1),
        ("<think>1</think> 2 or 3", None),
        ("<think>1</think><think>2", None),
    ],
)
def test_what_follows_a_thought_counts(reply, position):
    assert parse_reply(reply, FOUR, thoughtful=True) == position


@given(st.text(max_size=40), st.sampled_from(["1..", "A..", "a..", "I..", "first.."]), st.booleans())
def test_never_anything_but_a_position_or_none(reply, style, thoughtful):
    assert parse_reply(reply, identifiers(style, 5), thoughtful=thoughtful) in {None, 0, 1, 2, 3, 4}


@given(st.integers(1, 12), st.sampled_from(["1..", "A..", "a..", "I..", "first.."]))
def test_every_identifier_is_known_again(k, style):
    names = identifiers(style, 12)
    assert parse_reply(names[k - 1], names) == k - 1
