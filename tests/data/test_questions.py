"""BLINK and MuirBench are unpacked from Parquet files of their form, and every difference from what is published is refused."""

from dataclasses import replace

import huggingface_hub
import pyarrow as pa
import pytest
from pyarrow import parquet

from lad_eval.data import blink, muirbench
from lad_eval.data.blink import BLINK, PARTS
from lad_eval.data.dataset import PrepareOptions
from lad_eval.data.muirbench import MUIRBENCH, PART
from lad_eval.data.questions import read_rows
from lad_eval.errors import DataError, NotPreparedError
from tests.data.hub_files import blink_row, muir_rows, picture, write_blink, write_muirbench

OFFLINE = PrepareOptions(download=False)


def test_every_file_of_the_pinned_revisions_has_the_address_that_the_hubs_own_library_gives_it():
    for dataset in (BLINK, MUIRBENCH):
        repository = dataset.repository
        assert len(repository.revision) == 40
        assert [file.url for file in dataset.files] == [
            huggingface_hub.hf_hub_url(repository.id, file.path, repo_type="dataset", revision=repository.revision)
            for file in dataset.files
        ]


def test_the_published_counts_are_those_of_the_papers():
    assert sum(muirbench.PUBLISHED.options.values()) == muirbench.PUBLISHED.rows == 2 * muirbench.PUBLISHED.unanswerable == 2600
    for known in blink.PUBLISHED.values():
        assert sum(known.answers.values()) == known.rows


def test_blinks_images_are_unpacked_and_its_rows_read_back(tmp_path, progress):
    dataset = write_blink(tmp_path)
    assert not dataset.status(tmp_path).ready
    dataset.prepare(tmp_path, OFFLINE, progress)
    assert dataset.status(tmp_path).ready
    rows = read_rows(dataset, tmp_path, "Jigsaw")
    told = [blink_row("Jigsaw", number) for number in range(1, 10)]
    assert [(row.id, row.prompt, row.answer) for row in rows] == [(r["idx"], r["prompt"], r["answer"][1]) for r in told]
    assert [(tmp_path / image).read_bytes() for image in rows[0].images] == [
        picture(f"val_Jigsaw_1_{k}")["bytes"] for k in (1, 2, 3)
    ]
    assert dataset.verify(tmp_path, progress) == []


def test_a_killed_preparation_goes_on_and_the_files_may_go_afterwards(tmp_path, progress):
    dataset = write_blink(tmp_path)
    dataset.prepare(tmp_path, OFFLINE, progress)
    one = tmp_path / read_rows(dataset, tmp_path, "Jigsaw")[0].images[0]
    other = tmp_path / read_rows(dataset, tmp_path, "Jigsaw")[0].images[1]
    before = other.stat().st_ino
    one.write_bytes(b"half")
    (tmp_path / "lad_eval" / "Jigsaw.json").unlink()
    dataset.prepare(tmp_path, OFFLINE, progress)
    assert one.read_bytes() == picture("val_Jigsaw_1_1")["bytes"]
    assert other.stat().st_ino == before
    (tmp_path / "Jigsaw" / "val-00000-of-00001.parquet").unlink()
    dataset.prepare(tmp_path, OFFLINE, progress)
    one.write_bytes(b"damaged")
    assert dataset.verify(tmp_path, progress) == [f"{one}: cannot be read: it is damaged or no image."]


def test_a_copy_with_the_wrong_answers_is_refused_before_anything_is_unpacked(tmp_path, progress):
    dataset = write_blink(tmp_path, erratum="ACA")
    with pytest.raises(DataError, match=r"has the answers of before 3 September 2025, most of which are wrong; remove this copy"):
        dataset.prepare(tmp_path, OFFLINE, progress)
    assert not (tmp_path / "pictures").exists()
    with pytest.raises(DataError, match="3 rows, not 134 as published"):
        replace(dataset, erratum_rows=134, wrong_answers=blink.WRONG_ANSWERS).prepare(tmp_path, OFFLINE, progress)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rows": 132}, "9 rows, not 132"),
        ({"images": 3}, "rows of 4 images, not 3"),
        ({"answers": {"A": 9}}, "answers A 2, B 2, C 2, D 3, not A 9"),
    ],
)
def test_blink_with_other_counts_is_refused(tmp_path, progress, changed, said):
    dataset = write_blink(tmp_path)
    published = {**dataset.published, "Forensic_Detection": dataset.published["Forensic_Detection"]._replace(**changed)}
    with pytest.raises(DataError, match=f"BLINK, Forensic_Detection: not as published: {said}"):
        replace(dataset, published=published).prepare(tmp_path, OFFLINE, progress)
    assert not (tmp_path / "lad_eval" / "Forensic_Detection.json").exists()


@pytest.mark.parametrize("images", [[{"bytes": None, "path": "a.png"}], [None], ["a.png"], 3])
def test_a_file_whose_columns_hold_something_else_is_refused(tmp_path, progress, images):
    dataset = write_muirbench(tmp_path, muir_rows())
    path = tmp_path / dataset.files[0].path
    table = parquet.read_table(path)
    column = table.schema.get_field_index("image_list")
    parquet.write_table(table.slice(0, 1).set_column(column, "image_list", pa.array([images])), path)
    with pytest.raises(DataError, match=r"MuirBench, muirbench: near row 1, its Parquet file holds something else"):
        dataset.prepare(tmp_path, OFFLINE, progress)


def test_the_real_counts_refuse_a_small_file(tmp_path, progress):
    write_blink(tmp_path)
    with pytest.raises(DataError, match="3 rows, not 134 as published"):
        BLINK.prepare(tmp_path, OFFLINE, progress)
    write_muirbench(tmp_path)
    with pytest.raises(DataError, match=r"MuirBench, muirbench: not as published: rows: 64, not 2600; images: 176, not 11264"):
        MUIRBENCH.prepare(tmp_path, OFFLINE, progress)


def test_muirbench_is_one_index_of_five_files(tmp_path, progress):
    dataset = write_muirbench(tmp_path)
    dataset.prepare(tmp_path, OFFLINE, progress)
    rows, told = read_rows(dataset, tmp_path, PART), muir_rows()
    assert [(row.id, row.part, row.options) for row in rows] == [(r["idx"], r["task"], tuple(r["options"])) for r in told]
    assert [len(row.images) for row in rows] == [len(r["image_list"]) for r in told]
    assert dataset.verify(tmp_path, progress) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "Chess"}, "rows by task: Chess 1, Counting 15"),
        ({"options": ["Two", "Three", "None of the choices provided"]}, "rows by number of options: 3 1, 4 63, not 4 64"),
        ({"image_relation": "Temporal"}, "rows by relation: Narrative 0, Temporal 17, not Narrative 0, Temporal 16"),
        ({"image_list": [picture("x")]}, "images: 175, not 176; row t0 has 2 markers for 1 images"),
        ({"counterpart_idx": "t1-"}, "row t0 has no twin that differs in being answerable"),
        ({"answer": "C"}, "rows without an answer: 33, not 32"),
    ],
)
def test_muirbench_with_other_counts_is_refused(tmp_path, progress, change, said):
    counts = write_muirbench(tmp_path).published
    rows = muir_rows()
    write_muirbench(tmp_path, [{**rows[0], **change}, *rows[1:]])
    with pytest.raises(DataError, match="MuirBench, muirbench: not as published") as caught:
        replace(MUIRBENCH, published=counts).prepare(tmp_path, OFFLINE, progress)
    assert said in str(caught.value)


def test_what_is_missing_or_of_another_form_is_named(tmp_path, progress):
    with pytest.raises(DataError, match=r"val-00000-of-00001\.parquet is missing \(which shows whether .*\): get it from https"):
        BLINK.prepare(tmp_path, OFFLINE, progress)
    with pytest.raises(NotPreparedError, match=r"Jigsaw\.json is missing; run `lad-eval data prepare blink --root"):
        read_rows(BLINK, tmp_path, "Jigsaw")
    with pytest.raises(DataError, match="BLINK has no part 'Counting'; there are Forensic_Detection, "):
        read_rows(BLINK, tmp_path, "Counting")
    dataset = write_blink(tmp_path)
    (tmp_path / "Jigsaw" / "val-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"cannot be read as Parquet \(.*\); remove it"):
        dataset.prepare(tmp_path, OFFLINE, progress)
    index = tmp_path / "lad_eval" / f"{PARTS[0]}.json"
    index.write_text(index.read_text().replace("real photograph", "fake photograph", 1))
    with pytest.raises(DataError, match=r"Forensic_Detection\.json"):
        read_rows(dataset, tmp_path, PARTS[0])
