import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_eval.tasks.prompts import PROMPTS, identifiers, prompt_problem, question


def test_the_retrieval_prompt_is_the_papers_word_for_word():
    assert question("retrieval", "A dog.", identifiers("1..", 4)) == (
        "Given 4 images indexed from 1 to 4, identify the image that best matches the provided caption. "
        "Respond with the index number only and nothing else.\nCaption: A dog.\nAnswer: "
    )


def test_a_template_may_use_every_field():
    template = "{n} from {first} to {last}: {identifiers}. {{literally}} {caption}"
    assert question(template, "x", ("A", "B", "C")) == "3 from A to C: A, B, C. {literally} x"


@given(st.text())
def test_a_caption_stands_as_it_is_whatever_braces_it_has(caption):
    assert question("Q {caption} A", caption, ("1", "2")) == f"Q {caption} A"


@pytest.mark.parametrize("name", PROMPTS)
def test_every_named_prompt_can_be_used(name):
    assert prompt_problem(name) is None


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("retrival", "unknown prompt 'retrival'. Did you mean 'retrieval'?"),
        ("xyz", "unknown prompt 'xyz'. There are retrieval, choices, verbatim; a template needs {caption}."),
        ("Which image is it?", "the template lacks {caption}"),
        ("Which of {n}?", "the template lacks {caption}"),
        ("{caption} {colour}", "a template may use {n}, {first}, {last}, {identifiers}, {caption}, {options}, not {colour}"),
        ("{caption!r}", "not {caption!r}"),
        ("{n:03} {caption}", "not {n:03}"),
        ("{} {caption}", "not {}"),
        ("{caption.__class__}", "not {caption.__class__}"),
        ("{caption} {", "not a template"),
        ("{caption} }", "write {{ and }} for braces"),
    ],
)
def test_an_unusable_prompt_is_told_and_refused(prompt, problem):
    assert problem in str(prompt_problem(prompt))
    with pytest.raises(ValueError):
        question(prompt, "x", ("1", "2"))


@given(st.text(max_size=30))
def test_a_prompt_without_problem_can_be_filled_in(prompt):
    if prompt_problem(prompt) is None:
        assert "a caption" in question(prompt, "a caption", ("1", "2"))


def test_verbatim_shows_the_samples_text_and_nothing_else():
    text = "Which image is darker?\nA: {the first image}\nB: the second image\n"
    assert question("verbatim", text, ("A", "B")) == text


def test_a_wording_changes_the_parts_of_a_known_prompt():
    plain = question("retrieval", "a dog", ("1", "2"))
    told = question("retrieval", "a dog", ("1", "2"), ["instruction"])
    assert question("retrieval", "a dog", ("1", "2"), []) == plain
    asked, _, rest = plain.partition(" Respond with the index number only")
    assert told.startswith(asked)
    assert told.endswith("Respond with the index number only" + rest)
    assert "shuffled" in told
    cot = question("retrieval", "a dog", ("1", "2"), ["instruction", "cot"])
    assert cot.startswith(asked)
    assert "shuffled" in cot
    assert "</think>" in cot
    assert "number only" not in cot


def test_a_wording_stands_before_a_template_whose_parts_are_not_known():
    text = question("Which one? {caption}", "a {dog}", ("1", "2"), ["instruction", "cot"]).split("\n")
    assert ["shuffled" in text[0], "<think>" in text[1], text[2]] == [True, True, "Which one? a {dog}"]
