import hashlib
import itertools
import random

import pytest

from lad_eval.errors import DataError
from lad_eval.tasks.sources.scenes import (
    COLOURS,
    LEAST_VARIANTS,
    MAX_CANDIDATES,
    RELATION,
    RELATIONS,
    SHAPES,
    Scene,
    ScenesSource,
    Thing,
    draw,
    draw_candidates,
    draw_scene,
)

SPLITS = ("train", "validation", "calibration", "test")
RED = Thing("large", "red", "circle")
BLUE = Thing("small", "blue", "square")


def meanings_of_caption(caption: str) -> tuple[str, ...]:
    """A reader of its own: parses the words of a caption back into the seven attributes."""
    for axis, (forward, backward) in RELATIONS.items():
        for relation, turned in ((forward, False), (backward, True)):
            left, found, right = caption.partition(f" {relation} ")
            if found:
                things = [part.removeprefix("a ").split() for part in (left, right)]
                if turned:
                    things.reverse()
                return (*things[0], *things[1], axis)
    raise AssertionError(caption)


def test_captions_tell_the_same_from_both_ends():
    scene = Scene(RED, BLUE, "vertical")
    assert scene.caption() == "a large red circle above a small blue square"
    assert scene.caption(from_second=True) == "a small blue square below a large red circle"
    assert Scene(RED, BLUE, "horizontal").caption(from_second=True) == "a small blue square right of a large red circle"


@pytest.mark.parametrize("setting", ["random", "adversarial"])
@pytest.mark.parametrize("n", [2, 4, 8, 12])
def test_exactly_one_image_matches_the_caption(setting, n):
    source = ScenesSource(setting=setting, candidates=n, samples=60, calibration_samples=20)
    for split in ("test", "calibration"):
        for sample in source.samples(split):
            told = meanings_of_caption(sample.caption)
            assert [i for i, scene in enumerate(sample.images) if scene.meaning == told] == [sample.gold]
            assert len(sample.images) == n


def test_adversarial_candidates_vary_one_scene_and_random_ones_do_not():
    generator = random.Random(0)
    for split in SPLITS:
        for _ in range(50):
            near = draw_candidates(split, "adversarial", 8, generator)
            assert any(all(a.differences(b) == 1 for b in near if b is not a) for a in near)
            assert len({(s.background, s.jitter) for s in near}) == 1
            far = draw_candidates(split, "random", 8, generator)
            assert all(a.differences(b) > 1 for a, b in itertools.combinations(far, 2))


@pytest.mark.parametrize("n", [3, 5, 11])
def test_relations_are_pairs_and_one_single_scene(n):
    source = ScenesSource(setting="relations", candidates=n, samples=60, calibration_samples=20)
    for split in ("test", "calibration"):
        for sample in source.samples(split):
            meanings = [scene.meaning for scene in sample.images]
            assert [k for k, meaning in enumerate(meanings) if meanings.count(meaning) == 1] == [sample.gold]
            assert sorted(map(meanings.count, meanings)) == [1] + [2] * (n - 1)
            assert {scene.split for scene in sample.images} == {split}
            assert sample.caption == RELATION
            for a, b in itertools.combinations(sample.images, 2):
                assert a.background != b.background if a.meaning == b.meaning else a.differences(b) > 1


def test_the_single_scene_is_at_every_place():
    golds = [s.gold for s in ScenesSource(setting="relations", candidates=5).samples("test")]
    assert all(70 < golds.count(k) < 130 for k in range(5))


def test_training_shares_no_combination_with_the_other_splits():
    generator = random.Random(2)
    combinations = {
        name: {
            frozenset(((s.first.colour, s.first.shape), (s.second.colour, s.second.shape)))
            for s in (draw_scene(name, generator) for _ in range(2000))
        }
        for name in SPLITS
    }
    assert len(combinations["train"]) > 200
    for name in SPLITS[1:]:
        assert not combinations["train"] & combinations[name]


def test_no_scene_is_in_two_splits():
    generator = random.Random(3)
    digests = {name: {draw_scene(name, generator).digest for _ in range(500)} for name in SPLITS}
    assert all(not digests[a] & digests[b] for a, b in itertools.combinations(SPLITS, 2))


def test_any_two_colours_meet_in_training_and_in_test():
    for a, b in itertools.product(COLOURS, repeat=2):
        scenes = [Scene(Thing("large", a, x), Thing("small", b, y), "vertical") for x, y in itertools.product(SHAPES, repeat=2)]
        assert {s.split for s in scenes} == {"train", "test"}


def test_every_scene_has_variants_enough_in_its_own_split():
    generator = random.Random(1)
    for split in SPLITS:
        for _ in range(100):
            scene = draw_scene(split, generator)
            variants = scene.variants()
            assert len(variants) >= LEAST_VARIANTS
            assert len({v.meaning for v in variants} | {scene.meaning}) == len(variants) + 1
            assert all(v.split == split and scene.differences(v) == 1 for v in variants)


def test_a_limit_only_shortens_and_seeds_differ():
    source = ScenesSource(setting="random", candidates=4, samples=10, seed=3)
    assert list(source.samples("test", 4)) == list(source.samples("test"))[:4]
    assert len(list(source.samples("test", 99))) == 10
    other = ScenesSource(setting="random", candidates=4, samples=10, seed=4)
    assert source.fingerprint != other.fingerprint
    assert source.fingerprint == ScenesSource(setting="random", candidates=4, samples=10, seed=3).fingerprint


def test_samples_are_the_same_on_every_machine():
    source = ScenesSource(setting="adversarial", candidates=4, samples=500, calibration_samples=20)
    assert source.fingerprint == "424c438e2d6453fff1397510e7fd00ea"


def test_gold_positions_are_spread():
    golds = [s.gold for s in ScenesSource(setting="adversarial", candidates=4).samples("test")]
    assert all(95 < golds.count(k) < 155 for k in range(4))


def test_digest_tells_descriptions_apart_and_equal_ones_not():
    scene = Scene(RED, BLUE, "vertical", "sand", (1, 2, 3, 4))
    assert scene.digest == Scene(RED, BLUE, "vertical", "sand", (1, 2, 3, 4)).digest
    assert scene.digest != Scene(RED, BLUE, "vertical", "sand", (1, 2, 3, 5)).digest
    assert len({v.digest for v in scene.variants()}) == len(scene.variants())


def test_pictures_show_what_is_described():
    picture = Scene(RED, BLUE, "vertical", "white").load()
    assert (picture.size, picture.mode) == ((336, 336), "RGB")
    assert picture.getpixel((168, 92)) == (214, 39, 40)
    assert picture.getpixel((168, 244)) == (31, 78, 200)
    assert picture.getpixel((3, 3)) == (250, 250, 250)
    turned = Scene(RED, BLUE, "horizontal", "slate").load()
    assert turned.getpixel((92, 168)) == (214, 39, 40)


def test_drawing_is_repeatable_and_no_picture_is_shared():
    scene = Scene(RED, BLUE, "vertical")
    first = scene.load()
    first.paste((0, 0, 0), (0, 0, 336, 336))
    assert hashlib.sha256(scene.load().tobytes()).digest() == hashlib.sha256(draw(scene).tobytes()).digest()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"setting": "count", "candidates": 7}, "scenes: 3 pictures show at most 6 circles, not 7"),
        ({"setting": "easy"}, "scenes: setting must be one of random, adversarial, relations, count, not 'easy'"),
        ({"candidates": 13}, f"scenes: candidates must be 2 to {MAX_CANDIDATES}, not 13"),
        ({"candidates": 1}, "scenes: candidates must be 2 to 12, not 1"),
        ({"setting": "relations"}, "scenes: pairs and one single picture are 3, 5, 7, ... candidates, not 4"),
        ({"samples": 0}, "scenes: samples must be positive"),
    ],
)
def test_faults_are_named(change, text):
    with pytest.raises(DataError, match=text):
        ScenesSource(**({"setting": "random", "candidates": 4} | change))


def test_a_source_draws_a_sample_once_however_often_it_is_read(monkeypatch):
    source = ScenesSource(setting="random", candidates=4, samples=6, calibration_samples=2)
    drawn = []
    draw = ScenesSource.draw
    monkeypatch.setattr(ScenesSource, "draw", lambda self, *of: drawn.append(of) or draw(self, *of))
    first = list(source.samples("test", 4))
    assert list(source.samples("test"))[:4] == first
    assert source.fingerprint == ScenesSource(setting="random", candidates=4, samples=6, calibration_samples=2).fingerprint
    assert len(drawn) == 2 * 8
