from collections import Counter
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_eval.errors import DataError, UserError
from lad_eval.tasks.plan import RANDOM_ORDERS, displayed_orders, plan
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.request import Permutation, Sample
from lad_eval.tasks.spec import TaskSpec
from lad_eval.tasks.task import Task
from lad_eval.tasks.validate import validate

BOTH = ("identity", "cyclic")


@dataclass(frozen=True)
class Card:
    digest: str


@dataclass(frozen=True)
class Cards:
    """A source of samples given one by one."""

    test: tuple[Sample, ...]
    calibration: tuple[Sample, ...]
    fingerprint: str = "cards"

    def samples(self, split, limit=None):
        return iter(getattr(self, split)[:limit])


def cards(name, n=4, split="test", count=None):
    images = tuple(Card(f"{name}-{i}") for i in range(n if count is None else count))
    return Sample(id=name, images=images, caption=f"card {name}", gold=len(name) % len(images), split=split)


def task(n=4, test=3, kept=5, **keys):
    source = Cards(
        tuple(cards(f"t{'x' * i}", n) for i in range(test)),
        tuple(cards(f"c{'x' * i}", n, "calibration") for i in range(kept)),
    )
    return Task(TaskSpec(name="cards", source="scenes", candidates=n, **keys), source)


def test_the_test_samples_under_every_order_and_nothing_else():
    made = plan(task())
    assert len(made) == len(made.evaluated) == 3 * 5
    assert made.permutation_index == (0, 1, 2, 3, 4) * 3
    assert [str(r.permutation) for r in made.requests] == ["0123", "0312", "1023", "3021", "3012"] * 3
    assert [r.sample_id for r in made.requests[::5]] == ["t", "tx", "txx"]
    assert made.calibration == () == made.cyclic


@settings(max_examples=30)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(1, 3), st.integers(1, 9))
def test_laws_of_every_plan(n, test, calibrated, count):
    asked = task(n, test, calibrated, permutations={"count": count}, calibration={"samples": calibrated})
    made = plan(asked, orders=BOTH, calibration=True)
    by_key = {r.key: r for r in made.requests}
    assert len(by_key) == len(made.requests)
    assert {*made.evaluated, *made.calibration, *(k for shifts in made.cyclic for k in shifts)} == set(by_key)

    assert len(made.evaluated) == len(made.cyclic) == test * len(asked.orders)
    for key, index, shifts in zip(made.evaluated, made.permutation_index, made.cyclic, strict=True):
        assert by_key[key].permutation == asked.orders[index]
        assert [by_key[k].permutation for k in shifts] == list(asked.orders[index].cyclic_shifts())
        assert sorted(by_key[k].gold_position for k in shifts) == list(range(n))
        assert {by_key[k].sample_id for k in shifts} == {by_key[key].sample_id}
        assert by_key[key].split == "test"

    assert Counter(by_key[k].sample_id for k in made.calibration) == {f"c{'x' * i}": n for i in range(calibrated)}
    for i in range(calibrated):
        shown = [by_key[k] for k in made.calibration[i * n : (i + 1) * n]]
        assert [r.gold_position for r in shown] == [(shown[0].gold_position + s) % n for s in range(n)]
        assert shown[0].permutation.order == tuple(range(n))


def test_equal_requests_are_asked_once():
    made = plan(task(2, 3), orders=BOTH)
    assert len(made) == 3 * 2  # both orders of two images are each other's shifts
    assert len(made.evaluated) == 6


def test_what_a_method_would_cost_alone():
    made = plan(task(), orders=BOTH, calibration=True)
    assert made.passes() == 15
    assert made.passes(calibration=True) == 15 + 5 * 4
    # 0312, 1023 and 3021 are three circles, 3012 and 0123 are one: 4 circles of 4 shifts.
    assert made.passes({"cyclic"}) == 3 * 4 * 4
    assert made.passes(BOTH, calibration=True) == len(made) == 48 + 20
    with pytest.raises(ValueError, match="without the orders"):
        plan(task()).passes({"cyclic"})
    with pytest.raises(ValueError, match="or without calibration"):
        plan(task()).passes(calibration=True)


def test_a_limit_only_shortens_and_leaves_calibration():
    whole, short = plan(task(), calibration=True), plan(task(), limit=2, calibration=True)
    assert short.evaluated == whole.evaluated[:10]
    assert short.calibration == whole.calibration
    assert plan(task(), limit=99).evaluated == whole.evaluated
    for limit in (0, -1):
        with pytest.raises(UserError, match="The limit must be at least 1"):
            plan(task(), limit=limit)


def test_the_definition_bounds_the_samples():
    assert len(plan(task(samples=2)).evaluated) == 10
    assert len(plan(task(calibration={"samples": 2}), calibration=True).calibration) == 8


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 20])
def test_shards_share_no_sample_and_miss_none(world_size):
    made = plan(task(), orders=BOTH, calibration=True)
    shards = [made.shard(rank, world_size) for rank in range(world_size)]
    assert sorted(r.key for shard in shards for r in shard) == sorted(r.key for r in made.requests)
    owner = {r.sample_id: rank for rank, shard in enumerate(shards) for r in shard}
    assert all(owner[r.sample_id] == rank for rank, shard in enumerate(shards) for r in shard)
    sizes = Counter(owner.values())
    assert max(sizes.values()) - min(sizes[r] for r in range(world_size)) <= 1
    with pytest.raises(ValueError, match="is not in 0"):
        made.shard(world_size, world_size)


def test_what_is_missing_is_what_has_no_key_in_order():
    made = plan(task())
    assert made.missing(()) == made.requests
    assert made.missing({r.key for r in made.requests[::2]}) == made.requests[1::2]


def swapped(**splits):
    made = task()
    return Task(made.spec, replace(made.source, **splits))


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (swapped(calibration=()), "the calibration split has 0 samples, but the task needs 5; lower `calibration.samples`"),
        (swapped(calibration=tuple(cards(c) for c in "abcd")), "the calibration split has 4 samples"),
        (
            swapped(calibration=tuple(cards(c) for c in ("a", "b", "t", "tx", "c"))),
            "2 samples are both calibrated on and evaluated, first 't'",
        ),
        (swapped(test=()), "the data has 0 test samples"),
        (task(samples=9), "the data has 3 test samples, but the task needs 9; lower `samples:`."),
        (swapped(test=(cards("a"), cards("b", count=3))), "sample 'b' has 3 images, not 4."),
        (swapped(test=(cards("a"), cards("b", count=5))), "sample 'b' has 5 images, not 4."),
        (swapped(test=(cards("a"), replace(cards("b"), caption=" "))), "sample 'b' has no caption."),
        (swapped(test=(cards("a"), cards("a"))), "two test samples have the id 'a'."),
        (
            swapped(test=(replace(cards("a"), images=(Card("1"), Card("2"), Card("1"), Card("3"))),)),
            "sample 'a' shows one picture twice",
        ),
        (swapped(calibration=(*map(cards, "abcd"), cards("e", count=2))), "sample 'e' has 2 images, not 4."),
    ],
)
def test_data_that_cannot_be_asked_is_told(broken, says):
    with pytest.raises(DataError) as caught:
        plan(broken, calibration=True)
    assert str(caught.value).startswith("cards: ")
    assert says in str(caught.value)


def test_too_little_calibration_does_not_matter_to_methods_without_it():
    assert len(plan(swapped(calibration=()))) == 15


def test_calibration_overlapping_with_samples_beyond_the_limit_is_no_fault():
    assert plan(swapped(calibration=tuple(map(cards, ("a", "b", "c", "d", "txx")))), limit=2, calibration=True)


def test_an_unpermuted_task_has_one_order():
    made = plan(task(permutations={"count": 1, "scheme": "identity"}))
    assert made.permutation_index == (0, 0, 0)


def test_the_bundled_task_counts_as_the_protocol_says():
    made = plan(load_task("scenes_random_n4"), limit=10, orders=BOTH, calibration=True)
    assert (made.passes(), made.passes({"cyclic"}), made.passes(calibration=True)) == (50, 160, 70)
    assert not {r.sample_id for r in made.requests if r.split == "test"} & {
        r.sample_id for r in made.requests if r.split == "calibration"
    }


def test_random_orders_of_every_shown_order():
    made = plan(task(), orders=("identity", "random"))
    by_key = {r.key: r for r in made.requests}
    assert len(made.random) == 15
    for key, keys in zip(made.evaluated, made.random, strict=True):
        orders = [by_key[k].permutation for k in keys]
        assert keys[0] == key
        assert len(set(orders)) == RANDOM_ORDERS == 16
        assert orders == list(by_key[key].permutation.random_orders(16))
        assert orders[:5] == list(by_key[key].permutation.random_orders(5))
    assert len(plan(task(2), orders=["random"]).random[0]) == 2
    assert made.passes(["random"]) == len(made)


def transferred(own, *kept):
    other = Task(TaskSpec(name="others", source="scenes", candidates=4), Cards((), tuple(kept), "other cards"))
    return own.calibrated_on(other)


def test_calibration_samples_of_another_task():
    own = task()
    made = plan(transferred(own, *(cards(c, split="calibration") for c in "abcdefg")), calibration=True)
    shown = [r.sample_id for r in made.requests if r.key in made.calibration]
    assert shown == [c for c in "abcde" for _ in range(4)]
    assert made.evaluated == plan(own).evaluated
    assert not made.notes


def test_samples_that_are_evaluated_too_are_passed_over_by_id_and_by_the_right_picture():
    same_picture = replace(cards("z", split="calibration"), images=(*cards("y").images[:1], *cards("t").images[1:]), gold=1)
    kept = [cards("tx", split="calibration"), same_picture, *(cards(c, split="calibration") for c in "abcde")]
    made = plan(transferred(task(), *kept), calibration=True)
    assert dict.fromkeys(r.sample_id for r in made.requests if r.key in made.calibration) == dict.fromkeys("abcde")
    assert made.notes == ("2 calibration samples of others passed over: evaluated here too.",)
    with pytest.raises(DataError, match=r"of others has 4 samples to calibrate on and 2 that are evaluated here \(first 'tx'\)"):
        plan(transferred(task(), *kept[:-1]), calibration=True)


def test_an_intervention_has_samples_behind_the_split_of_a_source_without_end():
    own = load_task("scenes_random_n4")
    made = plan(own, limit=2, calibration=True, distinct=True, intervention_samples=25)
    ids = list(dict.fromkeys(request.sample_id for request in made.intervention_requests))
    assert ids == [f"scenes-random-n4-s0-calibration-{number:04d}" for number in range(25)]
    assert len(list(own.source.samples("calibration"))) == 20, "the split, and with it the fingerprint, is what it was"
    shown = {image.digest for request in made.intervention_requests for image in request.images}
    assert not shown & {image.digest for r in made.requests if r.split == "test" for image in r.images}


def test_calibration_samples_apart_show_no_picture_that_is_evaluated():
    distractor = replace(cards("z", split="calibration"), images=(*cards("y").images[:3], cards("t").images[0]), gold=1)
    source = Cards((cards("t"), cards("tx")), (distractor, *(cards(c, split="calibration") for c in "abcdef")))
    own = Task(TaskSpec(name="cards", source="scenes", candidates=4), source)
    near, apart = (plan(own, calibration=True, distinct=strict) for strict in (False, True))
    assert near.calibration_requests()[0].sample_id == "z"
    assert near.notes == ("1 picture is shown in calibration samples and in evaluated ones, never as the right one of both.",)
    assert [r.sample_id for r in apart.calibration_requests()] == [c for c in "abcde" for _ in range(4)]
    assert apart.notes == ("1 calibration sample passed over: shown pictures are evaluated here too.",)
    assert apart.intervention_requests == apart.calibration_requests()
    assert not near.intervention_requests
    more = plan(own, calibration=True, distinct=True, intervention_samples=9)
    assert more.requests == apart.requests, "methods learn from as many as before"
    assert [r.sample_id for r in more.intervention_requests] == [c for c in "abcdef" for _ in range(4)], "all there are"
    fewer = replace(own, source=replace(source, calibration=source.calibration[:5]))
    assert len(plan(fewer, calibration=True).calibration) == 20
    with pytest.raises(DataError) as caught:
        plan(fewer, calibration=True, distinct=True)
    assert str(caught.value) == (
        "cards: only 4 calibration samples show no picture that is evaluated, and an intervention that learns needs 5 of them; "
        "calibrate on another task (--calibrate-on), lower `calibration.samples`, or evaluate fewer samples (--limit)."
    )
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("n", [3, 4])
def test_a_request_in_another_order_is_the_one_that_the_task_would_ask(n):
    own = task(n)
    sample = own.source.test[2]
    orders = Permutation.identity(n).random_orders(6)
    for first in orders:
        for other in orders:
            assert own.request(sample, first).reordered(other) == own.request(sample, other)
            assert own.request(sample, first).reordered(other).key == own.request(sample, other).key
    assert displayed_orders("identity", orders[2]) == (orders[2],)
    assert displayed_orders("cyclic", orders[2]) == orders[2].cyclic_shifts()
    assert displayed_orders("random", orders[2])[:4] == orders[2].random_orders(4)


def test_tasks_that_do_not_fit_cannot_calibrate_each_other():
    own = task()
    with pytest.raises(DataError, match=r"^cards cannot be calibrated on cards: it has 4 candidates, and cards has 3; choose"):
        own.calibrated_on(task(3))
    with pytest.raises(DataError, match=r"their candidates are named 1, 2, 3, 4 and A, B, C, D; choose a task of the same"):
        own.calibrated_on(task(identifiers="A.."))
    assert own.calibrated_on(own) is own


def test_a_definition_may_name_the_task_to_calibrate_on(tmp_path):
    text = "source: scenes\ncandidates: 4\nsamples: 3\ncalibration: {samples: 7, on: NAME}\n"
    paths = {}
    for name, on in (
        ("a", "scenes_adversarial_n4"),
        ("b", "a"),
        ("c", "./a.yaml"),
        ("d", "scenes_adversarial_n44"),
        ("e", "nine"),
    ):
        paths[name] = tmp_path / f"{name}.yaml"
        paths[name].write_text(text.replace("NAME", on))
    (tmp_path / "nine.yaml").write_text("source: scenes\ncandidates: 9\nsamples: 3\n")
    assert load_task(paths["a"]).other.name == "scenes_adversarial_n4"
    assert len(plan(load_task(paths["a"]), calibration=True).calibration) == 28
    assert load_task(paths["b"]).other.name == load_task(paths["c"]).other.name == "a"
    assert load_task(paths["a"], calibrate_on="scenes_random_n4").other.name == "scenes_random_n4"
    with pytest.raises(UserError, match=r"d.yaml: calibration.on: Unknown task 'scenes_adversarial_n44'. Did you mean"):
        load_task(paths["d"])
    assert [p.split(": ", 1)[1] for p in validate(paths["e"])] == [
        "e cannot be calibrated on nine: it has 4 candidates, and nine has 9; choose a task of 4."
    ]
