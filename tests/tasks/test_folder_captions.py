"""Several captions of an image, and hard negatives by captions and images."""

import json

import numpy as np
import pytest

from lad_eval.cli.main import invoke
from lad_eval.data.retrieval.embeddings import load_embeddings, own_folder
from lad_eval.errors import DataError, NotPreparedError
from lad_eval.tasks.files import SpecError
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import load_task
from tests.data.coco_files import coco_caption, draw, tiny_clip
from tests.tasks.folder_tasks import both, names


def several(count=40, captions=3):
    return {f"p{i:03}.png": [f"picture {i} as said by {k}" for k in range(captions)] for i in range(count)}


def test_of_several_captions_the_first_is_asked_about(album, tmp_path):
    one = {name: texts[0] for name, texts in several().items()}
    expected = load_task(album(40, captions=one)).fingerprint
    assert load_task(album(40, captions=several())).fingerprint == expected
    assert load_task(album(40, captions=several(), data="caption: first")).fingerprint == expected


def test_a_caption_may_be_drawn_for_every_picture_whatever_else_there_is(album):
    drawn = both(load_task(album(40, captions=several(), data="caption: random")))
    captions = {sample.id: sample.caption for sample in (*drawn[0], *drawn[1])}
    assert all(caption in several()[name] for name, caption in captions.items())
    assert {caption[-1] for caption in captions.values()} == {"0", "1", "2"}
    assert names(drawn[0]) == names(both(load_task(album(40, captions=several())))[0])
    reseeded = load_task(album(40, captions=several(), data="caption: random\n  seed: 1"))
    assert any(captions[s.id] != s.caption for s in reseeded.samples() if s.id in captions)


def test_all_captions_are_a_sample_each_round_by_round_and_no_picture_is_in_both_splits(album):
    uneven = {name: texts[: 1 + i % 3] for i, (name, texts) in enumerate(several().items())}
    test, calibration = both(load_task(album(40, captions=uneven, data="caption: all")))
    first, learned = both(load_task(album(40, captions=uneven)))
    assert test[: len(first)] == first
    assert calibration == learned
    anchors = [sample.id.partition("#")[0] for sample in test]
    assert not {*anchors} & {sample.id for sample in calibration}
    assert sorted(sample.caption for sample in test) == sorted(text for name in dict.fromkeys(anchors) for text in uneven[name])
    assert [sample.id for sample in test if sample.id.startswith("p002")] in ([], ["p002.png", "p002.png#2", "p002.png#3"])
    for sample in test:
        assert sample.images[sample.gold].path.name == sample.id.partition("#")[0]
    assert len(plan(load_task(album(40, captions=uneven, data="caption: all"))).evaluated) == len(test) * 5
    with pytest.raises(DataError, match=r"captions are left for test samples, not 999"):
        load_task(album(40, extra="samples: 999", captions=uneven, data="caption: all"))


@pytest.mark.parametrize("choice", ["first", "random", "all"])
def test_pictures_with_any_caption_in_common_are_never_candidates_together(album, choice):
    captions = {f"p{i:03}.png": [f"thing {i}", "A dog." if i % 3 == 0 else f"other {i}", f"x{i // 2}"] for i in range(40)}
    captions = {name: texts if i % 3 == 0 else texts[:2] for i, (name, texts) in enumerate(captions.items())}
    test, calibration = both(load_task(album(40, captions=captions, data=f"caption: {choice}")))
    for sample in test + calibration:
        dogs = [image for image in sample.images if int(image.path.name[1:4]) % 3 == 0]
        assert len(dogs) <= 1


def test_an_unknown_choice_of_captions_is_refused(album):
    with pytest.raises(SpecError, match=r"data\.caption: input should be 'first', 'random' or 'all'"):
        load_task(album(data="caption: second"))


@pytest.fixture
def gallery(tmp_path, monkeypatch):
    """Pictures and captions unlike each other, embedded; makes a task of them in the adversarial setting."""
    monkeypatch.setenv("LAD_EVAL_DATA", str(tmp_path / "home"))
    for number in range(40):
        draw(tmp_path / "photos" / f"{number:02}.jpg", number)
    (tmp_path / "captions.json").write_text(json.dumps({f"{n:02}.jpg": coco_caption(n) for n in range(40)}))
    path = tmp_path / "gallery.yaml"
    data = f"images: photos, captions: captions.json, encoder: {tiny_clip(tmp_path / 'tiny-clip')}"
    path.write_text(f"source: folder\nsetting: adversarial\ncandidates: 4\ndata: {{{data}}}\n")
    return path


def embed_gallery(path):
    photos, captions, encoder = (str(path.parent / name) for name in ("photos", "captions.json", "tiny-clip"))
    return invoke(["data", "embed", photos, captions, "--encoder", encoder, "--quiet"])


def test_hard_negatives_are_the_most_like_of_the_same_split(gallery, capsys):
    with pytest.raises(NotPreparedError, match=r"there are no embeddings by .*; run `lad-eval data embed"):
        load_task(gallery)
    assert embed_gallery(gallery) == 0
    assert "40 images and captions are embedded" in capsys.readouterr().out
    found = load_embeddings(own_folder(gallery.parent / "photos", str(gallery.parent / "tiny-clip")))
    row = {name: number for number, name in enumerate(found.names)}
    test, calibration = both(load_task(gallery))
    assert len(test) == 32
    assert not {n for s in names(test) for n in s} & {n for s in names(calibration) for n in s}
    split = [sample.id for sample in test]
    for sample in test:
        like = found.images[[row[n] for n in split]] @ found.images[row[sample.id]]
        same = found.texts[[row[n] for n in split]] @ found.texts[row[sample.id]] >= 0.9
        expected = [split[i] for i in np.argsort(-like) if split[i] != sample.id and not same[i]][:3]
        shown = [image.path.name for image in sample.images]
        assert sorted(name for name in shown if name != sample.id) == sorted(expected)
        assert shown[sample.gold] == sample.id


def test_hard_negatives_have_no_caption_in_common_with_the_right_picture(gallery):
    shared = {f"{n:02}.jpg": [coco_caption(n), "the same in other words" if n % 4 == 0 else f"only {n}"] for n in range(40)}
    (gallery.parent / "captions.json").write_text(json.dumps(shared))
    assert embed_gallery(gallery) == 0
    for choice in ("first", "all"):
        gallery.write_text(gallery.read_text().replace("data: {", f"data: {{caption: {choice}, ").replace("caption: first, ", ""))
        for sample in (*both(load_task(gallery))[0], *both(load_task(gallery))[1]):
            assert sum(int(image.path.stem) % 4 == 0 for image in sample.images) <= 1


def test_embedding_refuses_names_that_lead_outside(gallery, capsys):
    captions = gallery.parent / "captions.json"
    captions.write_text(json.dumps({**json.loads(captions.read_text()), "../tiny.jpg": "x"}))
    assert embed_gallery(gallery) == 2
    assert "'../tiny.jpg' leads out of the folder" in capsys.readouterr().err


def test_changed_captions_must_be_embedded_again(gallery):
    embed_gallery(gallery)
    captions = gallery.parent / "captions.json"
    captions.write_text(captions.read_text().replace(coco_caption(3), "something else"))
    with pytest.raises(NotPreparedError, match="pictures or captions have changed since they were embedded"):
        load_task(gallery)
    embed_gallery(gallery)
    assert load_task(gallery)
