"""The order-free test, on sentences of its own."""

import pytest

from lad_eval.tasks.screen import BOUND_RELATIONS, named_image, named_places, screen

THINGS = ("A dog", "A cat", "A horse")


@pytest.mark.parametrize(
    ("option", "number"),
    [
        ("the first image", 1),
        ("The forth image.", 4),
        ("Image 2", 2),
        ("image #3", 3),
        ("picture (2)", 2),
        ("the 3rd photo", 3),
        ("second  picture", 2),
        ("Image two", 2),
        ("the first image of the dog", None),
        ("2", None),
        ("second", None),
        ("a dog", None),
        ("the north image", None),
        ("both images", None),
    ],
)
def test_an_option_names_an_image_only_if_it_says_nothing_else(option, number):
    assert named_image(option) == number


@pytest.mark.parametrize(
    "question",
    [
        "What animal do all the images show?",
        "<image><image> <image>\nWhat do these photos have in common?",
        "How many people are seen in total?",
        "In order to tell the two apart, what must one see?",
        "Is the left lung larger than the right lung?",
        "What is the right answer, judging by all pictures?",
        "The images show one scene. What has been added to the imagery of 5 cities?",
    ],
)
def test_a_question_about_all_images_is_free(question):
    assert screen(question, THINGS, 3) == (THINGS, ("", ""), "keep")


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("What does the second image show?", "the question names an image by its place"),
        ("What does the forth picture show?", "the question names an image by its place"),
        ("Compare the first and the second images.", "the question names an image by its place"),
        ("What changes in the next frame?", "the question names an image by its place"),
        ("What is in the 2nd photo?", "the question names an image by its place"),
        ("What is in Image 2?", "the question names an image by its number"),
        ("What is in image two?", "the question names an image by its number"),
        ("What is new in picture #3?", "the question names an image by its number"),
        ("What is in the left image?", "the question names a part of the page"),
        ("What is in the top-right panel?", "the question names a part of the page"),
        ("What is the leftmost picture of?", "the question names a part of the page"),
        ("In what order did this happen?", "the question names an order"),
        ("What happened before the door opened?", "the question names an order"),
        ("Put the slides into chronological sequence.", "the question names an order"),
        ("Which image is the odd one out?", "the question asks which image"),
        ("Which of the pictures was taken at night?", "the question asks which image"),
        ("Here is a dog <image> and here a cat <image>. What is alike?", "text stands between the images"),
    ],
)
def test_a_question_that_names_places_is_bound(question, reason):
    assert screen(question, THINGS, 3).bound == (reason, "")


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("A dog in the last photo", "an option names an image by its place"),
        ("Images 1 and 2", "an option names an image by its number"),
        ("It came later", "an option names an order"),
        ("2", "an option is a number or a place"),
        ("3-1-2", "an option is a number or a place"),
        ("the second one", "an option is a number or a place"),
        ("A dog like <image>", "an option holds an image"),
    ],
)
def test_an_option_that_names_places_binds_the_images(option, reason):
    assert screen("What is it?", (*THINGS, option), 3).bound == (reason, "")


@pytest.mark.parametrize(
    "option", ["Both A and C", "A, B and C", "(A) or (B)", "All of the above", "None of the above", "Option B", "all the options"]
)
def test_an_option_that_speaks_of_letters_binds_the_options(option):
    assert screen("What is it?", (*THINGS, option), 3).bound == ("", "an option names others by their letters or places")


@pytest.mark.parametrize(
    "option", ["None of the choices provided", "A dog and a cat", "Vitamin C", "A and only that", "A dog above a cat"]
)
def test_an_option_that_stands_for_itself_may_have_any_letter(option):
    assert screen("What is it?", (*THINGS, option), 3).bound == ("", "")


def test_options_that_are_images_make_a_choice_of_images():
    assert screen("Which shows a dog?", ("the third image", "Image 1", "the forth image"), 4) == ((2, 0, 3), ("", ""), "keep")
    assert screen("<image> Which is like it?", ("<image>", "None of the choices provided", "<image>"), 3) == (
        (1, "None of the choices provided", 2),
        ("", ""),
        "keep",
    )
    assert screen("Which shows a dog?", ("the first image", "None of the above", "Image 2"), 2).bound.options


@pytest.mark.parametrize(
    "options",
    [
        ("the first image", "the first image"),
        ("the first image", "the fifth image"),
        ("the first image", "a dog"),
        ("the first image", "None of these"),
        ("the first image", "Image 2", "None of these", "none"),
    ],
)
def test_options_that_are_images_only_in_part_do_not(options):
    assert screen("What is it?", options, 3).options == options


@pytest.mark.parametrize("relation", sorted(BOUND_RELATIONS))
def test_the_data_may_say_that_the_order_is_content(relation):
    assert screen("What is it?", THINGS, 3, relation).bound.images == f"the images are a sequence ({relation})"
    assert screen("What is it?", ("Image 1", "Image 2"), 3, relation).bound.images
    assert screen("What is it?", THINGS, 3, "Independent").bound.images == ""


@pytest.mark.parametrize(
    ("text", "ordinals", "numbers", "relative"),
    [
        ("Is the second image brighter?", {1}, set(), False),
        ("Which of the second or the third image shares the style of the first image?", {0, 1, 2}, set(), False),
        ("Compare the 2nd large photo with the forth one of the pictures.", {1}, set(), False),
        ("Is picture #3 like image two?", set(), {1, 2}, False),
        ("What changes in the last view?", set(), set(), True),
        ("In the second sentence, which image is meant?", set(), set(), False),
        ("How many of the four images show a dog?", set(), set(), False),
    ],
)
def test_places_are_read_from_a_text(text, ordinals, numbers, relative):
    assert named_places(text) == (ordinals, numbers, relative)


@pytest.mark.parametrize(
    ("question", "options", "classification"),
    [
        ("How many dogs are there in all the images?", ("one", "two"), "keep"),
        ("Which of these is in none of the images?", ("a dog", "a cat"), "keep"),
        ("What does the second image show?", ("a dog", "a cat"), "exclude"),
        ("What do they show?", ("Image 1: a dog, image 2: a cat", "Image 1: a cat, image 2: a dog"), "exclude"),
        ("In what order did this happen?", ("3-1-2", "2-1-3"), "exclude"),
        ("Before the door opened, what happened in the first image?", ("a dog came", "a cat came"), "exclude"),
        ("What happened before the door opened?", ("a dog came", "a cat came"), "borderline"),
        ("Which image shows a dog, and of what colour is it?", ("brown", "black"), "borderline"),
        ("What is on the left image?", ("a dog", "a cat"), "borderline"),
    ],
)
def test_the_classification_tells_answers_that_move_from_hints_of_an_order(question, options, classification):
    screened = screen(question, options, 3)
    assert screened.classification == classification
    assert bool(screened.bound.images) is (classification != "keep")
