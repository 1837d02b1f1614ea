import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pandas as pd
import pytest

from lad_eval.data import mmiu
from lad_eval.data.dataset import PrepareOptions
from lad_eval.data.mmiu import MMIU, REPOSITORY, REVISION, TASKS, place, read_rows
from lad_eval.errors import DataError
from tests.data.mmiu_files import FOLDERS, row, rows, write_all, write_pictures, write_questions

OFFLINE = PrepareOptions(download=False)


def test_every_file_of_the_pinned_revision_has_its_address_as_the_hubs_own_library_gives_it():
    assert [f.url for f in MMIU.files] == [
        huggingface_hub.hf_hub_url(REPOSITORY, file.path, repo_type="dataset", revision=REVISION) for file in MMIU.files
    ]
    assert len(MMIU.files) == 8
    assert set(FOLDERS) == set(TASKS)
    assert {f"{folder}.zip" for folder in FOLDERS.values()} == {
        f.path for f in MMIU.files if f.path.endswith("zip") and f.required
    }


def test_a_local_copy_is_unpacked_into_folders_of_the_zips_names(tmp_path, progress):
    told = rows(3)
    root = write_all(tmp_path / "copy", told)
    assert not MMIU.status(root).ready
    MMIU.prepare(root, OFFLINE, progress)
    for each in told:
        for path in each["input_image_path"]:
            assert (root / path).is_file()
    assert MMIU.status(root).ready
    unpacked = [label for label, *_ in progress.told]
    assert unpacked == [f"unpacking {stem}.zip" for stem in mmiu.NEEDED]


def test_pictures_that_are_there_already_need_no_zip(tmp_path, progress):
    write_questions(tmp_path, rows(2))
    write_pictures(tmp_path, rows(2))
    MMIU.prepare(tmp_path, OFFLINE, progress)
    assert progress.told == []
    lines = MMIU.status(tmp_path).lines
    assert "Low-level-semantic.zip: unpacked to Low-level-semantic/" in lines
    assert "forensic_detection_blink: 2 rows, all images there" in lines


def test_zips_with_their_own_folder_inside_and_zips_of_other_tasks_are_unpacked_too(tmp_path, progress):
    told = rows(2)
    root = write_all(tmp_path, told)
    (inside := root / "Low-level-semantic.zip").rename(plain := root / "plain.zip")
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(inside, "w") as new:
        for name in old.namelist():
            new.writestr(f"Low-level-semantic/{name}", old.read(name))
    plain.unlink()
    with zipfile.ZipFile(root / "3D-spatial.zip", "w") as out:
        out.writestr("point_tracking/point_tracking_0_0.jpg", b"picture")
    MMIU.prepare(root, OFFLINE, progress)
    assert MMIU.status(root).ready
    assert (root / "3D-spatial" / "point_tracking" / "point_tracking_0_0.jpg").is_file()


def test_what_is_missing_is_told_with_address_and_place(tmp_path, progress):
    with pytest.raises(
        DataError, match=r"all\.parquet is missing \(questions, options and answers of all tasks\): get it from https"
    ):
        MMIU.prepare(tmp_path, OFFLINE, progress)
    write_questions(tmp_path, rows(2))
    with pytest.raises(DataError) as caught:
        MMIU.prepare(tmp_path, OFFLINE, progress)
    url = f"https://huggingface.co/datasets/{REPOSITORY}/resolve/{REVISION}/Low-level-semantic.zip"
    assert str(caught.value) == (
        f"{tmp_path}/Low-level-semantic.zip is missing (pictures of the tasks in this package), and so 20 pictures, as "
        f"Low-level-semantic/forensic_detection_blink/forensic_detection_blink_0_0.jpg: get it from {url} and put it there, "
        "then run the same command again. Or unpack it yourself into Low-level-semantic/."
    )
    status = MMIU.status(tmp_path)
    assert not status.ready
    other = url.replace("Low-level", "High-level-obj")
    assert f"High-level-obj-semantic.zip: missing (pictures of the tasks in this package); it comes from {other}" in status.lines


def test_missing_images_and_outputs_are_counted_and_never_hidden(tmp_path, progress):
    told = rows(3)
    told[0]["output"] = None
    root = write_all(tmp_path, told, without=told[1]["input_image_path"][:1])
    MMIU.prepare(root, OFFLINE, progress)
    assert f"{told[0]['task']}: 3 rows, 1 with missing images, 1 without output" in MMIU.status(root).lines
    faults = MMIU.verify(root, progress)
    assert faults == [
        f"{root}/all.parquet: 18 rows, not 11698 as published.",
        f"{root}/all.parquet: {told[0]['task']} row 0 has no output.",
        f"{root / told[1]['input_image_path'][0]}: no such image.",
    ]


def test_unpacked_pictures_with_some_missing_do_without_a_network(tmp_path, progress, caplog):
    told = rows(3)
    write_questions(tmp_path, told)
    write_pictures(tmp_path, told)
    (tmp_path / told[1]["input_image_path"][2]).unlink()
    MMIU.prepare(tmp_path, OFFLINE, progress)
    assert "Low-level-semantic: 1 of 30 pictures are missing, as forensic_detection_forgerynet_1_2.jpg; rows" in caplog.text
    assert MMIU.status(tmp_path).ready


def test_verify_tells_what_cannot_be_read_at_all_and_what_leads_elsewhere(tmp_path, progress):
    told = rows(2)
    told[0]["input_image_path"] = ["./../x.jpg", *told[0]["input_image_path"][1:]]
    write_questions(tmp_path, told)
    write_pictures(tmp_path, told[1:])
    assert f"{tmp_path}/all.parquet: the image './../x.jpg' leads out of the folder." in MMIU.verify(tmp_path, progress)
    (tmp_path / "all.parquet").write_bytes(b"PAR1 and no more")
    (fault,) = MMIU.verify(tmp_path, progress)
    assert "all.parquet cannot be read as Parquet" in fault


def test_verify_reads_every_picture_and_compares_with_the_zip(tmp_path, progress):
    told = rows(2)
    root = write_all(tmp_path, told)
    MMIU.prepare(root, OFFLINE, progress)
    damaged = root / told[0]["input_image_path"][0]
    damaged.write_bytes(damaged.read_bytes()[:40])
    faults = MMIU.verify(root, progress)
    assert f"{damaged}: differs from what Low-level-semantic.zip holds; remove it and prepare again" in faults
    assert f"{damaged}: cannot be read: it is damaged or no image." in faults
    assert len(faults) == 3
    damaged.unlink()
    MMIU.prepare(root, OFFLINE, progress)
    assert MMIU.verify(root, progress) == [f"{root}/all.parquet: 12 rows, not 11698 as published."]


def test_without_a_single_picture_in_place_it_is_not_prepared(tmp_path, progress):
    told = rows(1)
    write_questions(tmp_path, told)
    for stem in mmiu.NEEDED:
        with zipfile.ZipFile(tmp_path / f"{stem}.zip", "w") as out:
            out.writestr("elsewhere/a.jpg", b"x")
    with pytest.raises(
        DataError, match=r"no row of all\.parquet has its images there; they belong in folders as .*Low-level-semantic"
    ):
        MMIU.prepare(tmp_path, OFFLINE, progress)


def test_rows_are_read_in_order_with_missing_values_told_apart(tmp_path):
    told = [row("forensic_detection_blink", i) for i in range(4)]
    for each, output in zip(told, [None, " B ", "None", float("nan")], strict=True):
        each["output"] = output
    told.insert(1, row("emotion_recognition_expw", 0, context=None, options=None))
    write_questions(tmp_path, told)
    found = read_rows(tmp_path, {"forensic_detection_blink"})
    assert [(r.number, r.output) for r in found] == [(0, None), (1, "B"), (2, None), (3, None)]
    assert found[0].images == tuple(told[0]["input_image_path"])
    assert [r.task for r in read_rows(tmp_path)][1] == "emotion_recognition_expw"
    assert read_rows(tmp_path)[1].context == ""


def test_a_damaged_or_foreign_parquet_file_is_told_in_one_line(tmp_path, capfd):
    path = tmp_path / "all.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"all\.parquet cannot be read as Parquet \(.*\); remove it") as caught:
        read_rows(tmp_path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""
    pd.DataFrame({"task": ["a"], "question": ["b"]}).to_parquet(path)
    with pytest.raises(
        DataError, match=r"lacks the columns options, context, input_image_path, output: it is not MMIU's all\.parquet"
    ):
        read_rows(tmp_path)


@pytest.mark.parametrize("stored", ["/etc/passwd", "../x.jpg", "./a/../../x.jpg", "a\\b.jpg", "", " "])
def test_a_path_that_leads_out_of_the_data_set_is_no_place(tmp_path, stored):
    assert place(tmp_path, stored) is None
    assert place(tmp_path, "./Low-level-semantic/t/t_0_0.jpg") == tmp_path / "Low-level-semantic/t/t_0_0.jpg"


def test_what_is_not_there_is_fetched_and_only_what_is_needed(tmp_path, progress):
    served = write_all(tmp_path / "served", rows(2))
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, form, *args):
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=served))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    near = replace(MMIU, files=tuple(replace(file, url=f"{base}/{file.path}") for file in MMIU.files))
    root = tmp_path / "root"
    root.mkdir()
    try:
        for _ in range(2):
            near.prepare(root, PrepareOptions(), progress)
    finally:
        server.shutdown()
        server.server_close()
    assert near.status(root).ready
    assert asked == ["/all.parquet", *(f"/{stem}.zip" for stem in mmiu.NEEDED)]


def test_files_that_the_hubs_own_tools_fetched_are_used(tmp_path, progress, monkeypatch):
    told = rows(2)
    snapshot = write_all(tmp_path / "hub" / f"datasets--{REPOSITORY.replace('/', '--')}" / "snapshots" / REVISION, told)
    known = huggingface_hub.try_to_load_from_cache
    # The library reads where its cache lies once, when it is imported.
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", partial(known, cache_dir=tmp_path / "hub"))
    root = tmp_path / "root"
    root.mkdir()
    MMIU.prepare(root, OFFLINE, progress)
    assert MMIU.status(root).ready
    assert not list(root.glob("*.zip"))
    assert (root / "all.parquet").read_bytes() == (snapshot / "all.parquet").read_bytes()
