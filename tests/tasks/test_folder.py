import contextlib
import hashlib
import json
import logging
import shutil
import unicodedata

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lad_eval.cli.main import invoke
from lad_eval.data.retrieval.embeddings import load_embeddings, own_folder
from lad_eval.errors import DataError, NotPreparedError
from lad_eval.tasks.files import SpecError
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.sources.base import Picture
from lad_eval.tasks.sources.folder import FolderSource
from lad_eval.tasks.validate import validate
from tests.data.coco_files import coco_caption, draw, tiny_clip


def names(samples):
    return [[image.path.name for image in sample.images] for sample in samples]


def both(task):
    return list(task.samples("test")), list(task.samples("calibration"))


def test_a_task_of_three_lines_of_data_goes_through_to_requests(album):
    task = load_task(album())
    made = plan(task, orders=("identity", "cyclic"), calibration=True)
    assert len(made.evaluated) == (30 - 8) * 5
    first = made.requests[0]
    assert first.images[first.gold_position].path.name == first.sample_id
    assert first.images[0].load().size == (24, 16)


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_every_picture_is_an_anchor_once_and_samples_are_well_formed(album, n):
    test, calibration = both(load_task(album(40, n)))
    anchors = [s.id for s in test + calibration]
    assert len(set(anchors)) == len(anchors) == 40 - max(5, 2 * n) + 5
    for sample in test + calibration:
        shown = [image.path.name for image in sample.images]
        assert len(set(shown)) == n
        assert shown[sample.gold] == sample.id
        assert sample.caption == f"picture number {int(sample.id[1:4])}"


def test_pictures_of_calibration_are_not_shown_in_test_where_there_are_enough(album):
    test, calibration = both(load_task(album(30)))
    assert not {n for s in names(test) for n in s} & {n for s in names(calibration) for n in s}
    assert len(test) == 22


def test_few_pictures_keep_the_answers_apart_and_say_so(album, caplog):
    with caplog.at_level(logging.WARNING):
        test, calibration = both(load_task(album(12)))
    assert "12 images are too few to keep those of calibration apart" in caplog.text
    assert (len(test), len(calibration)) == (7, 5)
    assert not {s.id for s in test} & {s.id for s in calibration}


def test_the_right_answer_stands_at_every_place_once_in_every_n_samples(album):
    golds = [s.gold for s in load_task(album(60)).samples()]
    blocks = [tuple(golds[i : i + 4]) for i in range(0, len(golds), 4)]
    assert all(sorted(block) == [0, 1, 2, 3] for block in blocks)
    assert len(set(blocks)) > 4


def test_the_draw_is_the_same_again_and_another_with_another_seed(album):
    path = album()
    first = names(both(load_task(path))[0])
    assert names(both(load_task(path))[0]) == first
    assert names(both(load_task(album(data="seed: 1")))[0]) != first


def test_a_limit_only_shortens(album):
    task = load_task(album())
    assert list(task.samples("test", 7)) == list(task.samples("test"))[:7]
    assert len(list(load_task(album(extra="samples: 9")).samples("test"))) == 9


def test_captions_that_say_the_same_are_never_candidates_together(album):
    captions = {f"p{i:03}.png": ["A dog.", "a  dog", "A DOG", f"thing {i}"][i % 4] for i in range(40)}
    test, calibration = both(load_task(album(40, captions=captions)))
    for sample in test + calibration:
        dogs = [image for image in sample.images if "dog" in captions[image.path.name].lower()]
        assert len(dogs) <= 1


def test_the_fingerprint_is_of_content_and_not_of_place(album, tmp_path):
    path = album()
    before = load_task(path).fingerprint
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("photos", "captions.json", "album.yaml"):
        shutil.copytree(tmp_path / name, moved / name) if name == "photos" else shutil.copy(tmp_path / name, moved / name)
    assert load_task(moved / "album.yaml").fingerprint == before
    Image.new("RGB", (24, 16), "black").save(moved / "photos" / "p003.png")
    assert load_task(moved / "album.yaml").fingerprint["data"] != before["data"]
    told = json.loads((tmp_path / "captions.json").read_text())
    (tmp_path / "captions.json").write_text(json.dumps({**told, "p003.png": "something else"}))
    assert load_task(path).fingerprint["data"] != before["data"]


def test_a_pictures_digest_is_that_of_its_bytes_read_once(album, tmp_path):
    album()
    picture = Picture(tmp_path / "photos" / "p001.png")
    content = picture.path.read_bytes()
    assert picture.digest == hashlib.sha256(content).hexdigest()
    picture.path.unlink()
    assert picture.digest == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_picture_is_read_as_rgb(tmp_path, mode):
    path = tmp_path / "x.tiff"
    Image.new(mode, (5, 4)).save(path)
    assert (Picture(path).load().mode, Picture(path).load().size) == ("RGB", (5, 4))


def test_a_photo_is_turned_the_way_its_camera_was(tmp_path):
    path = tmp_path / "x.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 3)).save(path, exif=exif)
    assert Picture(path).load().size == (3, 6)


def refused(path):
    with pytest.raises(DataError) as caught:
        plan(load_task(path), calibration=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_missing_is_named(album, tmp_path):
    path = album()
    (tmp_path / "captions.json").rename(tmp_path / "caption.json")
    assert "no such captions file. Did you mean 'caption.json'?" in refused(path)
    (tmp_path / "photos").rename(tmp_path / "photo")
    assert "photos: no such folder of images. Did you mean 'photo'?" in refused(path)


@pytest.mark.parametrize(
    ("count", "n", "extra", "says"),
    [
        (5, 4, "", "5 images are too few: calibration takes 5, and none is left to test."),
        (6, 8, "", "6 images with 6 different captions are too few for 8 candidates."),
        (30, 4, "samples: 23", "22 images are left for test samples, not 23; lower `samples:` or leave it out."),
        (30, 4, "setting: given", "has the settings random and adversarial, not 'given'."),
    ],
)
def test_too_little_is_told(album, count, n, extra, says):
    assert says in refused(album(count, n, extra=extra))


def test_one_caption_for_all_is_told(album):
    assert "with 1 different captions are too few" in refused(album(20, captions={f"p{i:03}.png": "same" for i in range(20)}))


def test_wrong_options_are_told_with_file_and_key(album):
    with pytest.raises(SpecError, match=r"album\.yaml: data\.sead: unknown key. Did you mean 'seed'\?"):
        load_task(album(data="sead: 1"))


def test_pictures_without_a_caption_are_left_out_and_reported(album, tmp_path, caplog):
    path = album()
    Image.new("RGB", (3, 3)).save(tmp_path / "photos" / "zz.JPG")
    with caplog.at_level(logging.WARNING):
        load_task(path)
    assert "1 images without a caption are left out, as zz.JPG" in caplog.text


def test_pictures_that_are_not_there_are_left_out_counted_and_noted(album, tmp_path, caplog):
    path = album()
    for name in ("p003.png", "p007.png"):
        (tmp_path / "photos" / name).unlink()
    with caplog.at_level(logging.WARNING):
        task = load_task(path)
    line = "2 of 30 images with a caption are not there and left out, as p003.png."
    assert f"photos: {line}" in caplog.text
    assert task.source.notes() == [line]
    assert len(list(task.samples())) == 28 - 8
    assert validate(path) == []
    for number in range(30):
        (tmp_path / "photos" / f"p{number:03}.png").unlink(missing_ok=True)
    Image.new("RGB", (3, 3)).save(tmp_path / "photos" / "other.png")
    assert "none of the 30 images that it names, as p000.png, is in " in refused(path)
    assert "which holds 1 picture, as other.png." in refused(path)


def test_a_file_that_is_no_picture_is_named_before_any_model_runs(album, tmp_path):
    path = album()
    (tmp_path / "photos" / "p004.png").write_text("<html>")
    assert "p004.png: cannot be read: it is damaged or no image." in refused(path)
    assert any("p004.png: cannot be read" in problem for problem in validate(path))


def test_a_truncated_picture_is_named_when_it_is_read_and_by_validate(album, tmp_path):
    path = album()
    picture = Picture(tmp_path / "photos" / "p004.png")
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    noise.save(picture.path)
    picture.path.write_bytes(picture.path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"p004\.png: cannot be read: it is damaged"):
        picture.load()
    assert len(problems := validate(path)) == 1
    assert "album.yaml: " in problems[0]
    assert "p004.png" in problems[0]


def test_two_files_of_one_picture_are_named(album, tmp_path):
    path = album(12)
    for i in range(1, 12):
        shutil.copy(tmp_path / "photos" / "p000.png", tmp_path / "photos" / f"p{i:03}.png")
    assert "are the same picture; remove one and its caption." in refused(path)
    assert len(validate(path)) == 11


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8), kept=st.floats(0, 1))
def test_any_damage_gives_a_picture_or_a_line(tmp_path, form, changes, kept):
    path = tmp_path / f"x.{form.lower()}"
    Image.effect_noise((20, 12), 90).convert("RGB").save(path, form)
    content = bytearray(path.read_bytes())
    for where, value in changes:
        content[int(where * (len(content) - 1))] = value
    path.write_bytes(content[: int(kept * len(content))])
    picture = Picture(path)
    with contextlib.suppress(DataError):  # and nothing else
        assert picture.load().mode == "RGB"
        assert len(picture.digest) == 64


def test_a_source_can_be_made_without_yaml(album, tmp_path):
    album()
    source = FolderSource(
        images=tmp_path / "photos", captions=tmp_path / "captions.json", candidates=3, samples=None, calibration_samples=2
    )
    assert len(list(source.samples("test"))) == 30 - 6
    assert len(list(source.samples("calibration"))) == 2


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


@pytest.mark.parametrize("disk", ["NFC", "NFD"])
@pytest.mark.parametrize("file", ["NFC", "NFD"])
def test_names_are_found_in_whichever_normal_form_the_disk_has_them(tmp_path, disk, file, caplog):
    (tmp_path / "photos" / unicodedata.normalize(disk, "été")).mkdir(parents=True)
    told = {}
    for i in range(30):
        name = f"été/ö{i:02}.png"
        Image.new("RGB", (24, 16), (i * 7, i, 255 - i)).save(tmp_path / "photos" / unicodedata.normalize(disk, name))
        told[unicodedata.normalize(file, name)] = f"picture {i}"
    (tmp_path / "captions.json").write_text(json.dumps(told))
    (tmp_path / "t.yaml").write_text("source: folder\ncandidates: 4\ndata: {images: photos, captions: captions.json}\n")
    samples = [*both(load_task(tmp_path / "t.yaml"))[0]]
    assert len(samples) == 22
    assert {sample.id for sample in samples} <= told.keys()
    assert caplog.text == ""


def test_a_picture_on_disk_in_another_normal_form_is_not_without_a_caption(album, tmp_path, caplog):
    path = album()
    Image.new("RGB", (3, 3), "red").save(tmp_path / "photos" / unicodedata.normalize("NFD", "ü.png"))
    captions = json.loads((tmp_path / "captions.json").read_text())
    (tmp_path / "captions.json").write_text(json.dumps({**captions, unicodedata.normalize("NFC", "ü.png"): "red"}))
    load_task(path)
    assert "without a caption" not in caplog.text


def test_pictures_of_one_name_in_two_folders_are_two(tmp_path):
    told = {}
    for i in range(30):
        for folder in ("c0", "c1"):
            (tmp_path / "photos" / folder).mkdir(parents=True, exist_ok=True)
            colour = (i * 7, i, 200 if folder == "c0" else 20)
            Image.new("RGB", (24, 16), colour).save(tmp_path / "photos" / folder / f"{i}.png")
            told[f"{folder}/{i}.png"] = f"picture {i} of {folder}"
    (tmp_path / "captions.json").write_text(json.dumps(told))
    (tmp_path / "t.yaml").write_text("source: folder\ncandidates: 4\ndata: {images: photos, captions: captions.json}\n")
    test, calibration = both(load_task(tmp_path / "t.yaml"))
    assert len({sample.id for sample in test}) == 52
    assert {sample.id for sample in (*test, *calibration)} <= told.keys()
    for sample in test:
        assert "/".join(sample.images[sample.gold].path.parts[-2:]) == sample.id


def test_folders_in_front_of_every_name_are_dropped_where_they_are_not_there(album, tmp_path):
    expected = load_task(album()).fingerprint
    told = json.loads((tmp_path / "captions.json").read_text())
    assert load_task(album(captions={f"data/photos/{name}": text for name, text in told.items()})).fingerprint == expected


def hostile(tmp_path, name):
    (tmp_path / "outside").mkdir(exist_ok=True)
    Image.new("RGB", (3, 3), "red").save(tmp_path / "outside" / "1.png")
    return {**{f"p{i:03}.png": f"picture number {i}" for i in range(30)}, name.format(tmp_path): "red"}


@pytest.mark.parametrize(
    "name",
    ["../outside/1.png", "{}/outside/1.png", "p/../../outside/1.png", "..\\outside\\1.png", "C:\\outside\\1.png", "C:1.png"],
)
def test_names_that_lead_out_of_the_folder_are_refused(album, tmp_path, name):
    path = album(captions=hostile(tmp_path, name))
    assert f"captions.json: the name {name.format(tmp_path)!r} leads out of the folder of images" in refused(path)
    assert "allow_outside: true" in refused(path)


@pytest.mark.parametrize("name", ["../outside/1.png", "{}/outside/1.png"])
def test_names_may_lead_out_of_the_folder_where_the_task_allows_it(album, tmp_path, name):
    task = load_task(album(captions=hostile(tmp_path, name), data="allow_outside: true"))
    assert (tmp_path / "outside" / "1.png").samefile(task.source.pictures[name.format(tmp_path)].path)


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 5000, "", " ", ".", "p000.png/x"])
def test_names_that_no_file_can_have_are_told(album, tmp_path, name):
    told = {**{f"p{i:03}.png": f"picture {i}" for i in range(30)}, name: "red"}
    path = album(captions=told)
    if name.strip():
        assert load_task(path).source.notes()[0].startswith("1 of 31 images with a caption are not there and left out")
    else:
        assert "an image's name must be text" in refused(path)


def test_absolute_names_inside_the_folder_and_links_are_followed(album, tmp_path):
    path = album(captions={str(tmp_path / "photos" / f"p{i:03}.png"): f"picture {i}" for i in range(30)})
    assert len(list(load_task(path).samples())) == 22
    (tmp_path / "photos" / "p000.png").rename(tmp_path / "elsewhere.png")
    (tmp_path / "photos" / "p000.png").symlink_to(tmp_path / "elsewhere.png")
    assert len(list(load_task(path).samples())) == 22


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
