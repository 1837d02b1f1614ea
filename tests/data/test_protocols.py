"""The released code's draws to the last digit, the paper's laws, and calibration that touches neither."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_eval.data.retrieval.mining import Miner
from lad_eval.data.retrieval.protocols import SPARE, Order, TooFewCandidatesError, TooFewImagesError, official, plain, strict
from lad_eval.errors import DataError
from tests.data.coco_files import coco_name, turning

COUNT = 40
NAMES = [coco_name(number) for number in range(COUNT)]
CATEGORIES = {coco_name(i): frozenset({i % 7 + 1, i % 3 + 81}) for i in range(COUNT) if i != 13}
CAPTIONS = {name: f"thing {number} on a table" for number, name in enumerate(NAMES)}
MINER = Miner(NAMES, turning(COUNT, 16, 2.1), turning(COUNT, 16, 3.7), CATEGORIES)
MINER_OF_ALL = Miner(MINER.names, MINER.images, MINER.texts)

# What `data/build_eval_dataset.py` of github.com/brightXian/LAD, c704b9d, wrote for these pictures, embeddings and categories:
# numbers of the pictures in displayed order, and the place of the right one, by (setting, N, n_seq, pool).
RELEASED = {
    ("random", 4, 6, 30): [
        ([0, 16, 4, 38], 3),
        ([12, 0, 1, 9], 1),
        ([14, 23, 21, 12], 1),
        ([5, 4, 14, 25], 3),
        ([8, 2, 22, 0], 1),
        ([18, 30, 21, 25], 1),
    ],
    ("adversarial", 4, 6, 30): [
        ([8, 33, 30, 35], 0),
        ([15, 9, 37, 12], 3),
        ([18, 1, 19, 20], 2),
        ([22, 21, 2, 20], 2),
        ([15, 0, 14, 16], 0),
        ([28, 26, 27, 4], 2),
    ],
    ("random", 2, 5, 40): [([20, 25], 1), ([23, 5], 0), ([8, 26], 0), ([15, 3], 1), ([8, 39], 1)],
    ("adversarial", 2, 5, 40): [([6, 31], 0), ([3, 23], 1), ([8, 35], 1), ([5, 28], 1), ([39, 10], 1)],
    ("random", 8, 4, 30): [
        ([19, 33, 16, 21, 2, 38, 22, 1], 5),
        ([9, 22, 12, 14, 18, 30, 5, 1], 2),
        ([0, 5, 9, 21, 37, 30, 8, 22], 0),
        ([18, 12, 37, 19, 38, 25, 6, 22], 1),
    ],
    ("adversarial", 8, 4, 30): [
        ([38, 12, 5, 27, 7, 28, 30, 21], 2),
        ([22, 15, 23, 18, 4, 26, 21, 2], 0),
        ([33, 20, 5, 28, 27, 23, 37, 4], 3),
        ([9, 33, 8, 16, 30, 26, 4, 35], 2),
    ],
}


def numbers(draws):
    return [([int(name[-10:-4]) for name in draw.images], draw.index) for draw in draws]


@pytest.mark.parametrize(("setting", "candidates", "n_seq", "pool"), RELEASED)
def test_official_is_what_the_released_code_wrote(setting, candidates, n_seq, pool):
    drawn = official(list(reversed(list(CATEGORIES))), Order(setting, candidates, n_seq, 1, pool), MINER)
    assert numbers(drawn.test) == RELEASED[setting, candidates, n_seq, pool]


def simple(names, setting, candidates, samples, pool_size, seed, mine):
    """The released procedure with its lists drawn out, one sample after the other."""
    generator = random.Random(seed)
    pool = generator.sample(sorted(names), min(pool_size, len(names)))
    for mode in ("random", "adversarial"):
        made = []
        for _ in range(samples):
            anchor = generator.sample(pool, candidates)[0]
            if mode == "random":
                wrong = generator.sample([name for name in pool if name != anchor], candidates - 1)
            else:
                wrong = mine([anchor], pool, candidates - 1)[0] if setting == "adversarial" else [""] * (candidates - 1)
            shown = [anchor, *wrong]
            generator.shuffle(shown)
            made.append((tuple(shown), shown.index(anchor)))
        if mode == setting:
            return made
    raise AssertionError


@settings(max_examples=40)
@given(
    setting=st.sampled_from(["random", "adversarial"]),
    candidates=st.integers(2, 6),
    samples=st.integers(1, 12),
    pool=st.integers(12, 60),
    seed=st.integers(0, 10**6),
)
def test_official_draws_as_the_procedure_drawn_out(setting, candidates, samples, pool, seed):
    order = Order(setting, candidates, samples, 0, pool, seed)
    try:
        expected = simple(CATEGORIES, setting, candidates, samples, pool, seed, MINER)
    except TooFewCandidatesError:
        with pytest.raises(TooFewCandidatesError):
            official(list(CATEGORIES), order, MINER)
        return
    assert [(d.images, d.index) for d in official(list(CATEGORIES), order, MINER).test] == expected


def test_official_peculiarities_are_kept():
    names = list(CATEGORIES)
    draws = official(names, Order("random", 4, 30, 1, 34), MINER).test
    anchors = [draw.anchor for draw in draws]
    assert len(set(anchors)) < len(anchors)  # an anchor returns
    fewer = official(names, Order("random", 4, 10, 1, 34), MINER).test
    assert fewer == draws[:10]  # the random setting is drawn first
    few, more = (official(names, Order("adversarial", 4, n, 1, 34), MINER).test for n in (10, 30))
    assert few != more[:10]  # the adversarial one after it


@pytest.mark.parametrize("calibration", [1, 3, 5])
@pytest.mark.parametrize("setting", ["random", "adversarial"])
def test_calibration_changes_no_official_draw(setting, calibration):
    orders = [Order(setting, 3, 8, c, 30) for c in (1, calibration)]
    one, two = (official(list(CATEGORIES), order, MINER) for order in orders)
    assert one.test == two.test


def test_calibration_takes_pictures_outside_the_pool_where_there_are_enough():
    drawn = official(list(CATEGORIES), Order("adversarial", 3, 12, 5, 26), MINER)
    inside = {name for draw in drawn.test for name in draw.images}
    outside = {name for draw in drawn.calibration for name in draw.images}
    assert not inside & outside
    assert len({draw.anchor for draw in drawn.calibration}) == len(drawn.calibration) == min(SPARE, 39 - 26)


def test_few_pictures_keep_the_right_answers_apart_and_say_so(caplog):
    drawn = {s: official(list(CATEGORIES), Order(s, 4, 12, 5), MINER) for s in ("random", "adversarial")}
    evaluated = {draw.anchor for each in drawn.values() for draw in each.test}
    learned = {draw.anchor for each in drawn.values() for draw in each.calibration}
    assert not evaluated & learned
    assert len(drawn["random"].calibration) == 5
    assert "39 images are too few for separate calibration images" in caplog.text


def test_too_few_pictures_are_told_in_one_line():
    with pytest.raises(TooFewImagesError, match="39 images are too few for 40 samples; lower `samples:`"):
        official(list(CATEGORIES), Order("random", 4, 40, 5), MINER)
    with pytest.raises(TooFewImagesError, match="4 images are too few for 4 candidates"):
        official(NAMES[:4], Order("random", 4, 2, 5), MINER)
    with pytest.raises(TooFewImagesError, match="calibration samples of other images: only"):
        official(list(CATEGORIES), Order("random", 4, 36, 30), MINER)
    with pytest.raises(DataError, match="can be its hard negatives, but 37 are needed"):
        official(list(CATEGORIES), Order("adversarial", 38, 5, 1), MINER)


@pytest.mark.parametrize("draw", [lambda o, m: official(list(CATEGORIES), o, m), lambda o, m: strict(NAMES, CAPTIONS, o, m)])
def test_calibration_of_a_small_album_finds_its_hard_negatives_elsewhere(draw, caplog):
    def scarce(anchors, pool, k):
        if len(pool) < 20:
            raise TooFewCandidatesError(f"{len(pool)} are too few")
        return MINER_OF_ALL(anchors, pool, k)

    order = Order("adversarial", 3, 8, 5, 26)
    drawn, usual = draw(order, scarce), draw(order, MINER_OF_ALL)
    assert drawn.test == usual.test
    assert [each.anchor for each in drawn.calibration] == [each.anchor for each in usual.calibration]
    assert {name for each in drawn.calibration for name in each.images} & {each.anchor for each in drawn.test}
    assert "Calibration takes hard negatives from the test's images too. 1" in caplog.text


def both_strict(**changes):
    order = {"candidates": 4, "samples": 12, "calibration": 3, "pool_size": 28, **changes}
    miner = Miner(MINER.names, MINER.images, MINER.texts, CATEGORIES, rule="identical")
    return [strict(list(CATEGORIES), CAPTIONS, Order(s, **order), miner) for s in ("random", "adversarial")]


def test_strict_keeps_what_the_paper_says():
    for drawn in both_strict():
        anchors = [draw.anchor for draw in (*drawn.test, *drawn.calibration)]
        assert len(set(anchors)) == len(anchors)
        for draw in (*drawn.test, *drawn.calibration):
            assert len(set(draw.images)) == 4
            assert len({plain(CAPTIONS[name]) for name in draw.images}) == 4
    for draw in both_strict()[1].test:
        assert all(CATEGORIES[name] != CATEGORIES[draw.anchor] for name in draw.images if name != draw.anchor)


def test_strict_asks_the_same_anchors_whatever_the_setting_and_the_size():
    few = [draw.anchor for draw in both_strict()[0].test]
    assert [draw.anchor for draw in both_strict()[1].test] == few
    assert [draw.anchor for draw in both_strict(candidates=3)[0].test] == few
    assert [draw.anchor for draw in both_strict(samples=5)[1].test] == few[:5]
    assert both_strict(samples=5)[1].test == both_strict()[1].test[:5]
    assert [draw.anchor for draw in both_strict(seed=1)[0].test] != few


def test_strict_shows_no_calibration_picture_in_a_test_sample():
    for drawn in both_strict(pool_size=20_000, candidates=3):  # a fifth is kept for calibration
        shown = {name for draw in drawn.test for name in draw.images}
        assert not shown & {name for draw in drawn.calibration for name in draw.images}


def test_strict_keeps_the_first_of_pictures_with_one_caption():
    captions = {**CAPTIONS, NAMES[5]: "A dog.", NAMES[9]: " a DOG"}
    drawn = strict(NAMES, captions, Order("random", 3, 100, 2), MINER)
    shown = {name for draw in (*drawn.test, *drawn.calibration) for name in draw.images}
    assert NAMES[5] in shown
    assert NAMES[9] not in shown


def test_strict_draws_tests_from_the_given_pool_only():
    drawn = strict(NAMES, CAPTIONS, Order("random", 3, 100, 2), MINER, pool=NAMES[:15])
    assert {draw.anchor for draw in drawn.test} == set(NAMES[:15])
    assert {name for draw in drawn.test for name in draw.images} <= set(NAMES[:15])
    assert not {name for draw in drawn.calibration for name in draw.images} & set(NAMES[:15])


@pytest.mark.parametrize("caption", ["A dog", "a dog.", "  A  dog . "])
def test_plain_leaves_out_what_makes_no_other_caption(caption):
    assert plain(caption) == "a dog"


def test_twenty_six_of_a_thousand_anchors_return_on_coco():
    # What is drawn depends on the number of pictures only: COCO val2014 has 40,137 with categories.
    names = [f"{number:06}" for number in range(40_137)]
    drawn = official(names, Order("random", 4, 1000, 5), MINER)
    assert len({draw.anchor for draw in drawn.test}) == 1000 - 26
    assert len(drawn.calibration) == SPARE
    pool = {name for draw in drawn.test for name in draw.images}
    assert not pool & {name for draw in drawn.calibration for name in draw.images}
