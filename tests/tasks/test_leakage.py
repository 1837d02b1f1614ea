"""What is evaluated is not calibrated on, whatever its file is called."""

import json
import logging
import shutil

import pytest

from lad_eval import load_model
from lad_eval.errors import DataError
from lad_eval.methods import make_method
from lad_eval.plugins.calibrated import CalibratedMethod
from lad_eval.run.collect import collect
from lad_eval.tasks.leakage import choose_distinct, content_digest, shared_pictures
from lad_eval.tasks.plan import calibration_samples, plan
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.sources.base import NamedPicture, Picture
from lad_eval.tasks.validate import validate
from tests.tasks.conftest import numbered_album


def right(samples):
    return [content_digest(sample.images[sample.gold]) for sample in samples]


def calibrated(made):
    keys = {*made.calibration}
    return list(dict.fromkeys(request.sample_id for request in made.requests if request.key in keys))


def test_no_more_candidates_are_looked_at_than_needed():
    looked = []

    def candidates():
        for number in range(9):
            looked.append(number)
            yield number

    choice = choose_distinct(candidates(), lambda number: number in (0, 2), 3)
    assert (choice.chosen, choice.passed_over, looked) == ((1, 3, 4), (0, 2), [0, 1, 2, 3, 4])
    assert choice.filled == (1, 3, 4)
    assert choose_distinct([0, 1, 2], lambda number: number != 1, 2).filled == (1, 0)
    assert choose_distinct([0], lambda number: False, 0).chosen == ()


def test_a_named_picture_is_known_by_its_content_too(tmp_path):
    numbered_album(tmp_path, 1)
    shutil.copy(tmp_path / "p000.png", tmp_path / "copy.png")
    one, two = NamedPicture(tmp_path / "p000.png"), NamedPicture(tmp_path / "copy.png")
    assert one.digest != two.digest
    assert content_digest(one) == content_digest(two) == Picture(tmp_path / "copy.png").digest


def copied(album, tmp_path, copies, **keys):
    """A task on 30 pictures, some of which are then made copies of others: {copy: original}."""
    path = album(30, **keys)
    for copy, original in copies.items():
        shutil.copy(tmp_path / "photos" / original, tmp_path / "photos" / copy)
    return path


def splits(path):
    task = load_task(path)
    return [s.id for s in task.source.samples("test")], [s.id for s in task.source.samples("calibration")]


def test_a_folder_passes_over_copies_and_keeps_the_rest_of_its_draw(album, tmp_path):
    test, before = splits(album(30))
    path = copied(album, tmp_path, {before[1]: test[3], before[4]: test[20]})
    after = splits(path)
    assert after[0] == test
    assert after[1][:3] == [before[0], before[2], before[3]]
    assert not {*after[1]} & {*test, before[1], before[4]}
    task = load_task(path)
    learned, notes = calibration_samples(task, list(task.samples()))
    assert not {*right(learned)} & {*right(task.samples())}
    assert len(learned) == 5
    assert calibrated(plan(task, calibration=True)) == after[1]
    assert not any("passed over" in note for note in notes)
    problems = validate(path)
    assert len(problems) == 2
    assert all("are the same picture; remove one and its caption." in problem for problem in problems)


def test_a_folder_of_copies_refuses_to_calibrate_and_is_measured_without(album, tmp_path):
    test, before = splits(album(30))
    path = copied(album, tmp_path, dict(zip(before[:4], test[:4], strict=True)))
    task = load_task(path)
    with pytest.raises(DataError) as caught:
        plan(task, calibration=True)
    assert (
        f"album: 1 calibration sample has a right picture that is evaluated under another name (first {before[0]!r}, the same"
        in str(caught.value)
    )
    assert f"as {test[0]!r}), so that 4 are left of 5; remove the copies" in str(caught.value)
    assert len(plan(task).evaluated) == 22 * 5
    # The copies of the first samples are no copies of what a limit leaves, and the other way round.
    with pytest.raises(DataError, match="evaluated under another name"):
        plan(task, limit=1, calibration=True)


def test_few_pictures_share_wrong_candidates_which_is_noted_with_their_number(album, caplog):
    path = album(12)
    task = load_task(path)
    made = plan(task, calibration=True)
    shown = {split: {r.digest for s in task.samples(split) for r in s.images} for split in ("test", "calibration")}
    count = len(shown["test"] & shown["calibration"])
    assert count > 3
    line = f"{count} pictures are shown in calibration samples and in evaluated ones, never as the right one of both."
    assert made.notes == (line,)
    assert plan(task).notes == ()
    assert shared_pictures(list(task.samples("calibration")), list(task.samples())) == count
    with caplog.at_level(logging.WARNING):
        assert validate(path) == []
    assert f"album.yaml: {line}" in caplog.text


def test_pictures_apart_are_not_noted(album):
    assert plan(load_task(album(30)), calibration=True).notes == ()
    for name in ("scenes_random_n4", "scenes_adversarial_n8"):
        assert plan(load_task(name), limit=20, calibration=True).notes == ()


def test_the_check_reads_no_picture_twice_and_renders_none(album, monkeypatch):
    path = album(12)
    read = []
    whole = type(path).read_bytes
    monkeypatch.setattr(type(path), "read_bytes", lambda self: (read.append(self.name), whole(self))[1])
    plan(load_task(path), calibration=True)
    pictures = [name for name in read if name.endswith(".png")]
    assert len(pictures) == len(set(pictures))
    monkeypatch.setattr("lad_eval.tasks.sources.scenes.draw", None)
    assert plan(load_task("scenes_random_n4"), calibration=True).calibration


def annotation_task(tmp_path, samples, copies=None, calibration=None):
    """An annotation file with a sample a right picture; names are numbers of pictures."""
    numbered_album(tmp_path / "photos", 40)
    for copy, original in (copies or {}).items():
        shutil.copy(tmp_path / "photos" / f"p{original:03}.png", tmp_path / "photos" / f"p{copy:03}.png")

    def write(name, numbers):
        entries = [
            {
                "id": i,
                "image_ids": [f"p{(n + 11 * k) % 40:03}.png" for k in range(3)],
                "index": 0,
                "target": f"p{n:03}.png",
                "caption": f"{n}",
            }
            for i, n in enumerate(numbers)
        ]
        (tmp_path / name).write_text(json.dumps(entries))

    write("a.json", samples)
    extra = ""
    if calibration is not None:
        write("c.json", calibration)
        extra = ", calibration: c.json"
    path = tmp_path / "t.yaml"
    path.write_text(f"source: annotations\nsetting: given\ncandidates: 3\ndata: {{file: a.json, images: photos{extra}}}\n")
    return path


def numbers(ids):
    return [int(each[1:4]) for each in ids]


def test_annotation_files_pass_over_a_picture_that_is_asked_about_under_another_name(tmp_path):
    assert numbers(splits(annotation_task(tmp_path, range(10)))[1]) == [0, 1, 2, 3, 4]
    path = annotation_task(tmp_path, range(10), {8: 1})
    test, calibration = splits(path)
    assert (numbers(calibration), numbers(test)) == ([0, 2, 3, 4, 5], [1, 6, 7, 8, 9])
    assert plan(load_task(path), calibration=True).calibration


def test_a_calibration_file_gives_its_next_sample(tmp_path):
    path = annotation_task(tmp_path, range(10), {25: 3}, calibration=[20, 25, 21, 22, 23, 24])
    made = plan(load_task(path), calibration=True)
    assert numbers(calibrated(made)) == [20, 21, 22, 23, 24]
    assert made.notes[0] == "1 calibration sample passed over: evaluated here too."
    # A limit that leaves the copy's original out changes that.
    assert numbers(calibrated(plan(load_task(path), limit=3, calibration=True))) == [20, 25, 21, 22, 23]
    path = annotation_task(tmp_path, range(10), {25: 3}, calibration=[20, 25, 21, 22, 23])
    with pytest.raises(DataError, match=r"\(first 'p025.png', the same picture as 'p003.png'\), so that 4 are left of 5"):
        plan(load_task(path), calibration=True)


def test_calibration_on_another_task_knows_copies_by_their_content(album, tmp_path):
    own = album(30)
    test, _ = splits(own)
    other = tmp_path / "other"
    numbered_album(other / "photos", 40)
    for i in range(40):
        (other / "photos" / f"p{i:03}.png").rename(other / "photos" / f"q{i:03}.png")
    entries = [
        {
            "id": i,
            "image_ids": [f"q{(i + 9 * k) % 40:03}.png" for k in range(4)],
            "index": 0,
            "target": f"q{i:03}.png",
            "caption": f"{i}",
        }
        for i in range(40)
    ]
    (other / "a.json").write_text(json.dumps(entries[:39]))
    (other / "b.json").write_text(json.dumps(entries[39:]))
    (other / "other.yaml").write_text(
        "source: annotations\nsetting: given\ncandidates: 4\ndata: {file: b.json, images: photos, calibration: a.json}\n"
    )
    task = load_task(own, calibrate_on=other / "other.yaml")
    made = plan(task, calibration=True)
    learned, _ = calibration_samples(task, list(task.samples()))
    assert not {*right(learned)} & {*right(task.samples())}
    assert "calibration samples of other passed over: evaluated here too." in made.notes[0]
    expected = [f"q{i:03}.png" for i in range(39) if f"p{i:03}.png" not in test][:5]
    assert calibrated(made) == expected


def test_the_plugins_calibrate_on_what_a_whole_run_calibrates_on(tmp_path):
    path = annotation_task(tmp_path, range(10), {25: 9}, calibration=[20, 25, 21, 22, 23, 24])
    task, model = load_task(path), load_model("lad-tiny")
    served = CalibratedMethod(model, task, "lad", tmp_path / "runs", show_progress=False)
    served.calibrate()
    expected = make_method("lad").calibrate(collect(model, task, methods=["lad"], show_progress=False).calibration)
    kept = {sample for part in served._evidence._parts for sample in part.sample_id.tolist()}
    assert numbers(sorted(kept)) == [20, 21, 22, 23, 24]
    assert served.method.get_params() == expected.get_params()
