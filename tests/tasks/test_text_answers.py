"""Options that are texts or some of the images: displayed orders, requests, and what a task refuses."""

import math
from dataclasses import dataclass, field, replace

import pytest

from lad_eval.errors import DataError, UserError
from lad_eval.tasks.leakage import right_picture
from lad_eval.tasks.plan import plan
from lad_eval.tasks.prompts import question
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.request import Bound, Permutation, Request, Sample, draw_arrangements
from lad_eval.tasks.spec import TaskSpec
from lad_eval.tasks.task import Task


@dataclass(frozen=True)
class Named:
    """An image that is only a name."""

    digest: str


def pictures(names):
    return tuple(map(Named, names))


def names_of(images):
    return "".join(image.digest[-1] for image in images)


COUNTS = ("none", "one", "two", "three")
TEXTS = Sample("t", pictures("abcd"), "How many?", 2, options=COUNTS, fixed=(0,))
REFERENCE = Sample("r", pictures("rxyz"), "Which is like the first?", 1, options=(1, 2, 3))
WITH_NONE = Sample("m", pictures("xyz"), "Which is red?", 3, options=(0, 1, 2, "None of these"))


@dataclass
class Listed:
    """A source of given samples."""

    test: list
    calibration: list = field(default_factory=list)
    fingerprint: str = "f"

    def samples(self, split, limit=None):
        yield from getattr(self, split)[:limit]


def task_of(*test, learned=(), **keys):
    values = {
        "name": "t",
        "source": "scenes",
        "candidates": len(test[0].choices),
        "prompt": "choices",
        "identifiers": "A..",
        **keys,
    }
    return Task(TaskSpec(**values), Listed(list(test), list(learned)))


def numbered(sample, count, split="test"):
    """Samples that differ in their pictures."""
    return [
        replace(
            sample,
            id=f"{sample.id}-{split}-{i}",
            split=split,
            images=pictures(f"{split}{i}{image.digest}" for image in sample.images),
        )
        for i in range(count)
    ]


def test_what_moves_is_every_free_image_or_the_images_to_choose_from():
    assert (TEXTS.kind, TEXTS.movable) == ("texts", (1, 2, 3))
    assert (REFERENCE.kind, REFERENCE.movable) == ("images", (1, 2, 3))
    assert (WITH_NONE.kind, WITH_NONE.movable) == ("mixed", (0, 1, 2))
    plain = Sample("p", pictures("ab"), "x", 0)
    assert (plain.kind, plain.movable, plain.choices) == ("images", (0, 1), (0, 1))


def test_an_image_and_its_letter_move_together_and_the_reference_stays():
    order = Permutation((2, 0, 1))
    made = Request.of(REFERENCE, order, "q", ("A", "B", "C"))
    assert names_of(made.images) == "rzxy"
    assert made.gold_position == order.position_of(1) == 2
    assert [made.images[place].digest for place in made.places] == ["z", "x", "y"]
    assert made.options == ("image 2", "image 3", "image 4")  # the first of the letters is always the first free place
    assert made.reordered(Permutation((1, 2, 0))) == Request.of(REFERENCE, Permutation((1, 2, 0)), "q", ("A", "B", "C"))


def test_texts_move_over_the_letters_and_images_by_their_own_order():
    order, images = Permutation((3, 1, 0, 2)), Permutation((2, 0, 1))
    made = Request.of(TEXTS, order, "q", ("A", "B", "C", "D"), images)
    assert made.options == ("three", "one", "none", "two")
    assert names_of(made.images) == "adbc"
    assert (made.gold_position, made.places) == (3, None)
    with pytest.raises(UserError, match="texts as options"):
        made.reordered(Permutation.identity(4))


def test_a_text_among_images_takes_its_letter_and_no_place():
    made = Request.of(WITH_NONE, Permutation((3, 2, 0, 1)), "q", ("A", "B", "C", "D"))
    assert made.options == ("None of these", "image 1", "image 2", "image 3")
    assert names_of(made.images) == "zxy"
    assert (made.gold_position, made.places) == (0, None)


def test_the_key_holds_the_options_in_displayed_order_and_the_fixed_images():
    orders = [
        (order, images)
        for order in (Permutation((0, 1, 2, 3)), Permutation((1, 0, 2, 3)))
        for images in (None, Permutation((1, 0, 2)))
    ]
    keys = {Request.of(TEXTS, order, "the same text", ("A", "B", "C", "D"), images).key for order, images in orders}
    other = replace(TEXTS, images=pictures("zbcd"))
    keys.add(Request.of(other, Permutation.identity(4), "the same text", ("A", "B", "C", "D")).key)
    assert len(keys) == 5


def test_the_key_of_a_request_on_images_alone_is_that_of_earlier_versions():
    made = Request.of(Sample("s", pictures("ab"), "a dog", 0), Permutation((1, 0)), "Which?", ("1", "2"))
    assert made.key == "7909d1509223e07732793c58f77f0c17"
    assert replace(made, repeat=1).key != made.key


def test_a_sample_whose_parts_do_not_fit_is_refused():
    with pytest.raises(ValueError, match="not an index of 4 options"):
        replace(TEXTS, gold=4)
    with pytest.raises(ValueError, match="different ones"):
        replace(REFERENCE, options=(1, 1, 2))
    with pytest.raises(ValueError, match="different ones"):
        replace(REFERENCE, fixed=(1,))
    with pytest.raises(ValueError, match="do not name 4"):
        replace(TEXTS, identifiers=("A", "B"))


def test_two_draws_are_distinct_and_repeated_only_where_there_are_no_more():
    drawn = draw_arrangements(4, 3, 20, seed=42)
    assert len(set(drawn)) == 20
    assert drawn[0] == (Permutation.identity(4), Permutation.identity(3))
    assert drawn[:5] == draw_arrangements(4, 3, 5, seed=42)
    assert drawn != draw_arrangements(4, 3, 20, seed=43)
    assert len({a.options for a in drawn}) > 10
    assert len({a.images for a in drawn}) == math.factorial(3)
    few = draw_arrangements(1, 2, 5, seed=0)
    assert [a.images.order for a in few] == [(0, 1), (1, 0), (0, 1), (1, 0), (0, 1)]


@pytest.mark.parametrize(("vary", "options", "images"), [("images", 1, 5), ("options", 5, 1), ("both", None, None)])
def test_vary_says_what_other_orders_move(vary, options, images):
    task = task_of(*numbered(TEXTS, 2), vary=vary)
    shown = [task.request(sample, *a) for sample in task.samples() for a in task.arrangements(sample)]
    assert len(shown) == 10
    assert len({r.options for r in shown}) == (options or len({a.options for a in task.arrangements(TEXTS)}))
    assert len({names_of(r.images) for r in shown}) == (images or len({a.images for a in task.arrangements(TEXTS)}))
    assert all(r.options[r.gold_position] == "two" for r in shown)
    if vary == "images":
        assert {r.permutation for r in shown} == {Permutation.identity(4)}


def test_the_plan_names_the_image_orders_and_calibrates_on_shifts_of_the_options():
    task = task_of(*numbered(TEXTS, 2), learned=numbered(TEXTS, 1, "calibration"), vary="images", calibration={"samples": 1})
    planned = plan(task, orders=("cyclic",), calibration=True)
    assert [len(planned.image_orders), len(planned.cyclic), len(planned.cyclic[0])] == [10, 10, 3]
    learned = planned.calibration_requests()
    assert {names_of(r.images) for r in learned} == {"abcd"}
    assert [r.options[0] for r in learned] == ["none", "three", "two", "one"]
    assert sorted(r.gold_position for r in learned) == [0, 1, 2, 3]
    by_key = {r.key: r for r in planned.requests}
    of_first = [by_key[key] for key in planned.cyclic[0]]
    assert [names_of(r.images) for r in of_first] == ["abcd", "adbc", "acdb"]
    assert plan(task_of(*numbered(REFERENCE, 2))).image_orders == ()


def test_the_plan_names_the_clusters_of_samples_that_depend_on_each_other():
    twin, other, single = numbered(TEXTS, 3)
    twins = [replace(sample, cluster="pair") for sample in (twin, other)]
    assert plan(task_of(*twins, single, vary="options")).clusters == (*["pair"] * 10, *[single.id] * 5)
    assert plan(task_of(single, vary="options")).clusters == ()


def test_options_that_speak_of_letters_are_not_calibrated_on():
    learned = numbered(TEXTS, 2, "calibration")
    learned[0] = replace(learned[0], bound=Bound(options="an option names others"))
    task = task_of(*numbered(TEXTS, 2), learned=learned, vary="images", calibration={"samples": 1})
    assert {r.sample_id for r in plan(task, calibration=True).calibration_requests()} == {learned[1].id}


def test_samples_may_differ_in_their_number_of_images_but_not_under_averages():
    more, fewer = numbered(TEXTS, 2)
    fewer = replace(fewer, fixed=(0, 1))
    task = task_of(more, fewer, vary="images")
    assert [len(order) for order in plan(task).image_orders] == [3] * 5 + [2] * 5
    assert len(plan(task).requests) == 5 + 2  # two images have two orders, shown in turn
    with pytest.raises(UserError, match="different numbers of images that move"):
        plan(task, orders=("cyclic",))
    assert len(plan(task_of(more, fewer, vary="both"), orders=("cyclic",)).cyclic) == 10


def test_repeated_requests_have_keys_of_their_own():
    planned = plan(task_of(*numbered(TEXTS, 2), vary="both", repeats=3))
    assert [len(keys) for keys in planned.repeats] == [3] * 10
    assert [keys[0] for keys in planned.repeats] == list(planned.evaluated)
    assert len({key for keys in planned.repeats for key in keys}) == len(planned.requests) == 30


def test_bound_samples_are_left_out_of_what_they_are_bound_in_and_counted():
    free, second, letters = numbered(TEXTS, 3)
    second = replace(second, bound=Bound(images="the question names an image by its place"))
    letters = replace(letters, bound=Bound(options="an option names others by their letters"))
    left = {vary: task_of(free, second, letters, vary=vary) for vary in ("images", "options", "both")}
    assert [[s.id for s in task.samples()] for task in left.values()] == [[free.id, letters.id], [free.id, second.id], [free.id]]
    assert left["both"].left_out() == {
        "the question names an image by its place": 1,
        "an option names others by their letters": 1,
    }
    assert [s.id for s in task_of(second, free, vary="images").samples("test", 1)] == [free.id]
    single = replace(TEXTS, fixed=(0, 1, 2))
    assert task_of(single, vary="images").left_out() == {"fewer than two images can move": 1}


@pytest.mark.parametrize(
    ("sample", "keys", "fault"),
    [
        (TEXTS, {}, "set `vary:` to images, options or both"),
        (REFERENCE, {"vary": "options"}, "leave out `vary: options`"),
        (TEXTS, {"vary": "both", "candidates": 3}, "has 4 options, not 3"),
        (replace(TEXTS, options=("one", "one ", "two", "three")), {"vary": "both"}, "one text twice"),
        (replace(TEXTS, options=("one", " ", "two", "three")), {"vary": "both"}, "an option without text"),
        (TEXTS, {"vary": "both", "prompt": "retrieval"}, "the prompt does not list them"),
        (replace(TEXTS, options=("one", "\ud800", "two", "three")), {"vary": "both"}, "the option of sample"),
    ],
)
def test_what_a_task_of_texts_lacks_is_one_line(sample, keys, fault):
    with pytest.raises(DataError) as caught:
        plan(task_of(sample, **keys))
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_task_does_not_mix_kinds_of_options():
    images = replace(REFERENCE, options=(0, 1, 2, 3))
    with pytest.raises(DataError, match="make two tasks of them"):
        plan(task_of(TEXTS, images, vary="both"))


def test_a_text_is_told_apart_by_question_and_pictures():
    assert right_picture(REFERENCE) == "y"  # option 1 is image 2
    assert right_picture(TEXTS) == right_picture(replace(TEXTS, gold=1)) != right_picture(replace(TEXTS, caption="Which?"))
    assert right_picture(TEXTS) == right_picture(replace(TEXTS, images=pictures("dcba")))


def test_the_prompt_lists_the_options_by_letter():
    text = question("choices", "How many?", ("A", "B"), (), ("one", "{two}"))
    assert text == (
        "Answer the question about the images with one of the options. Respond with one of A, B only and nothing else."
        "\nQuestion: How many?\nOptions:\nA. one\nB. {two}\nAnswer: "
    )
    reasoned = question("choices", "How many?", ("A", "B"), ("cot", "instruction"), ("one", "two"))
    assert "give one of A, B and nothing else" in reasoned
    assert "index" not in reasoned
    assert "The images and the options stand in a random" in reasoned


def test_scenes_count_what_they_show():
    task = load_task("scenes_count_n4")
    for sample in task.samples("test", 40):
        circles = sum(thing.shape == "circle" for scene in sample.images for thing in (scene.first, scene.second))
        assert sample.options == ("1", "2", "3", "4")
        assert sample.options[sample.gold] == str(circles)
    assert {s.gold for s in task.samples("test", 40)} == {0, 1, 2, 3}
    assert len(task.arrangements(sample)) == 5
