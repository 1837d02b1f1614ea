import random

from lad_eval.tasks.registry import groups, task_names, task_order, tasks_in_order


def sorted_anew(names):
    shuffled = list(names)
    random.Random(0).shuffle(shuffled)
    return sorted(shuffled, key=task_order)


def test_random_before_adversarial_and_n2_before_n12():
    wanted = [f"scenes_{setting}_n{n}" for n in (2, 4, 8, 12) for setting in ("random", "adversarial")]
    assert sorted_anew(wanted) == wanted


def test_families_and_other_names_by_their_text():
    names = [
        "coco_random_n4",
        "flickr8k_adversarial_n4",
        "mmiu_visual_quality",
        "my_pictures",
        "my_pictures10",
        "scenes_random_n2",
    ]
    assert sorted_anew(names) == names
    assert sorted(["t10", "t9", "t"], key=task_order) == ["t", "t9", "t10"]


def test_variants_follow_their_task():
    names = ["scenes_random_n4", "scenes_random_n4-calibration20", "scenes_random_n4-letters", "scenes_adversarial_n4"]
    assert sorted_anew(names) == names


def test_it_is_the_order_of_the_groups_that_name_their_tasks():
    for group in ("scenes_main", "paper", "mmiu", "coco"):
        assert tasks_in_order(reversed(groups()[group])) == groups()[group]
    assert task_names() == tasks_in_order(reversed(task_names()))
    assert tasks_in_order(["b", "scenes_adversarial_n4", "a"]) == ["a", "b", "scenes_adversarial_n4"]
