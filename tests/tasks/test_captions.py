"""Captions in every form that people have them."""

import codecs
import contextlib
import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_eval.errors import DataError
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.sources.captioned_images import FORMATS, decoded, read_captions
from tests.tasks.conftest import numbered_album

SEVERAL = {
    "a.png": ("a dog, asleep", "the dog; tired", 'it "sleeps"'),
    "b.png": ("two | three", "été", "ein Löwe"),
    "c.png": ("only one",),
}
FIRST = {name: texts[:1] for name, texts in SEVERAL.items()}
PAIRS = [(name, text) for name, texts in SEVERAL.items() for text in texts]


def table(rows, delimiter=",", header=()):
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows([header, *rows] if header else rows)
    return out.getvalue()


def coco(order=1):
    images = [{"id": 7 * i, "file_name": name, "width": 3} for i, name in enumerate(SEVERAL)]
    captions = [
        {"id": i, "image_id": 7 * [*SEVERAL].index(name), "caption": f" {text}\n"} for i, (name, text) in enumerate(PAIRS)
    ]
    return json.dumps({"info": {}, "licenses": [], "images": images, "annotations": captions[::order]})


def karpathy(**keys):
    images = [
        {
            "filename": name,
            "split": "test",
            "imgid": i,
            "sentids": [0],
            "sentences": [{"tokens": text.split(), "raw": text, "imgid": i, "sentid": k} for k, text in enumerate(texts)],
            **keys,
        }
        for i, (name, texts) in enumerate(SEVERAL.items())
    ]
    return json.dumps({"images": images, "dataset": "flickr8k"})


def lines(name="image", text="caption"):
    return "".join(json.dumps({"x": 1, name: n, text: t}) + "\n" for n, t in PAIRS)


def token(reverse=False):
    rows = [f"{name}#{i}\t{text}\n" for name, texts in SEVERAL.items() for i, text in enumerate(texts)]
    return "".join(rows[::-1] if reverse else rows)


SAY_ALL = {
    "object.json": json.dumps({name: list(texts) for name, texts in SEVERAL.items()}),
    "mixed.json": json.dumps({n: t[0] if len(t) == 1 else {"captions": list(t), "licence": "BY"} for n, t in SEVERAL.items()}),
    "objects.json": json.dumps([{"image": name, "caption": text, "id": 3} for name, text in PAIRS]),
    "blip.json": json.dumps([{"image": name, "caption": list(texts), "image_id": name} for name, texts in SEVERAL.items()]),
    "path.json": json.dumps([{"path": name, "text": text} for name, text in PAIRS]),
    "filename.json": json.dumps([{"filename": name, "sentence": text} for name, text in PAIRS]),
    "wrapped.json": json.dumps({"version": 1, "data": [{"file_name": name, "caption": text} for name, text in PAIRS]}),
    "annotations.json": json.dumps({"annotations": [{"file_name": name, "caption": text} for name, text in PAIRS]}),
    "pairs.json": json.dumps(PAIRS),
    "coco.json": coco(),
    "coco_reversed.json": coco(-1),
    "karpathy.json": karpathy(),
    "lines_in.json": lines(),
    "lines.jsonl": lines(),
    "metadata.jsonl": lines("file_name", "text"),
    "lines.ndjson": "\n" + lines("img", "sentences"),
    "comma.csv": table(PAIRS, header=("image", "caption")),
    "crlf.csv": table(PAIRS, header=("image", "caption")).replace("\n", "\r\n"),
    "metadata.csv": table([(1, t, n) for n, t in PAIRS], header=("licence", "text", "file_name")),
    "shouted.csv": table(PAIRS, header=("Image_Name", " Caption ")),
    "semicolon.csv": table(PAIRS, ";", ("filename", "caption")),
    "excel.csv": "sep=;\n" + table(PAIRS, ";", ("filename", "caption")),
    "wide.csv": table(
        [(n, *t, *[""] * (3 - len(t))) for n, t in SEVERAL.items()], header=("image", "caption_0", "caption_1", "caption_2")
    ),
    "headless.csv": table(PAIRS),
    "headless_semicolon.csv": table(PAIRS, ";"),
    "unquoted.csv": "image,caption\n" + "".join(f"{name},{text}\n" for name, text in PAIRS),
    "numbered.csv": table([(f"{n}#{i}", t) for n, ts in SEVERAL.items() for i, t in enumerate(ts)]),
    "header.tsv": table(PAIRS, "\t", ("image", "caption")),
    "headless.tsv": table(PAIRS, "\t"),
    "tabs.txt": table(PAIRS, "\t"),
    "captions.txt": table(PAIRS, ",", ("image", "caption")),
    "Flickr8k.token.txt": token(),
    "results_20130124.token": token(reverse=True).replace("c.png#0\tonly one\n", "") + "c.png#0\tonly one\n",
    "results.csv": "image_name| comment_number| comment\n"
    + "".join(f"{n}| {i}| {t}\n" for n, ts in SEVERAL.items() for i, t in enumerate(ts)).replace("c.png| 0| ", "c.png| 0   "),
}


@pytest.mark.parametrize("name", SAY_ALL)
def test_every_form_says_the_same(tmp_path, name):
    (tmp_path / name).write_text(SAY_ALL[name], encoding="utf-8")
    assert read_captions(tmp_path / name) == SEVERAL


@pytest.mark.parametrize(
    "text", [json.dumps({n: t[0] for n, t in SEVERAL.items()}), json.dumps({n: {"caption": t[0]} for n, t in SEVERAL.items()})]
)
def test_one_caption_a_picture(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    assert read_captions(tmp_path / "c.json") == FIRST


@pytest.mark.parametrize("columns", [("file_name", "text"), ("image", "captions")])
def test_parquet_says_the_same(tmp_path, columns):
    import pyarrow
    import pyarrow.parquet

    values = [list(SEVERAL), [list(texts) for texts in SEVERAL.values()]]
    if columns[1] == "text":
        values = [[name for name, _ in PAIRS], [text for _, text in PAIRS]]
    made = pyarrow.table({columns[0]: values[0], "split": ["test"] * len(values[0]), columns[1]: values[1]})
    pyarrow.parquet.write_table(made, tmp_path / "metadata.parquet")
    assert read_captions(tmp_path / "metadata.parquet") == SEVERAL


def test_parquet_that_cannot_be_used_is_told(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "metadata.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": [{"bytes": b"x", "path": "a.png"}], "text": ["x"]}), path)
    assert "the column image holds dict values, not file names" in refused(path)
    pyarrow.parquet.write_table(pyarrow.table({"id": [1], "label": ["x"]}), path)
    assert "has the columns id, label; expected a name (image, " in refused(path)
    path.write_bytes(b"PAR1 and no more")
    assert "cannot be read as Parquet" in refused(path)


MARKED = {"utf-8-sig": b"", "utf-16": b"", "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE, "utf-32": b""}


@pytest.mark.parametrize("encoding", MARKED)
@pytest.mark.parametrize("name", ["semicolon.csv", "coco.json", "metadata.jsonl", "Flickr8k.token.txt"])
def test_unicode_with_a_byte_order_mark_is_read(tmp_path, encoding, name):
    (tmp_path / name).write_bytes(MARKED[encoding] + SAY_ALL[name].encode(encoding))
    assert read_captions(tmp_path / name) == SEVERAL


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_told_by_its_zeros(encoding):
    assert decoded("image,caption\r\né.png,ein Löwe\r".encode(encoding), "x") == "image,caption\né.png,ein Löwe\n"


@given(st.binary(max_size=60))
def test_any_bytes_are_text_or_a_line(content):
    with contextlib.suppress(DataError):  # and nothing else
        assert isinstance(decoded(content, "x"), str)


@pytest.mark.parametrize("suffix", FORMATS)
@given(st.text(st.sampled_from('[]{}":,;|\t\n#0a. \\é\0') | st.characters(), max_size=60))
def test_any_text_is_captions_or_a_line(tmp_path_factory, suffix, text):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(DataError):  # and nothing else
        assert all(isinstance(name, str) and texts and all(texts) for name, texts in read_captions(path).items())


def refused(path):
    with pytest.raises(DataError) as caught:
        read_captions(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("c.xlsx", "", "must end in .json, .jsonl, .ndjson, .csv, .tsv, .txt, .token or .parquet."),
        ("c.json", "{", "not JSON"),
        ("c.json", "", "not JSON"),
        ("c.json", "[]", "holds no caption"),
        ("c.json", "{}", "holds no caption"),
        ("c.json", "3", "c.json is a number; expected {image: caption}, {image: [captions]}"),
        ("c.json", '"x"', "c.json is text; expected"),
        ("c.json", '["a.png"]', "c.json is a list of text; expected"),
        ("c.json", '[{"id": 3, "title": "x"}]', "entry 0 has the keys id, title; expected a name (image, file_name,"),
        ("c.json", '{"data": [{"id": 3}]}', "'data' of c.json: entry 0 has the keys id; expected"),
        ("c.json", '{"info": {"year": 3}, "categories": [{"id": 3}]}', "is an object with the keys info, categories; expected"),
        ("c.json", '{"a": 3}', "is an object with the keys a; expected"),
        ("c.json", '{"a.png": 3}', "a.png: its caption must be text, not 3."),
        ("c.json", '{"a.png": ["x", 3]}', "a.png: its caption must be text, not 3."),
        ("c.json", '{"a.png": ""}', "a.png has no caption."),
        ("c.json", '{"a.png": null}', "a.png has no caption."),
        ("c.json", '{"a.png": []}', "a.png has no caption."),
        ("c.json", '{"a.png": {"licence": "BY"}}', "a.png has no caption."),
        ("c.json", '{"a.png": "x", "a.png": "y"}', "a.png is given twice; give its captions as a list."),
        ("c.json", '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}', "holds no caption."),
        (
            "instances.json",
            '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"id": 1, "image_id": 1, "bbox": []}]}',
            "entry 0 of annotations has the keys id, image_id, bbox; expected image_id and caption. COCO's captions are in",
        ),
        (
            "c.json",
            '{"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": "x"}]}',
            "entry 0 of images has the keys id",
        ),
        ("c.json", "[" * 100_000, "nested too deeply"),
        ("c.jsonl", '{"image": "a.png"}\n', "a.png has no caption."),
        ("c.jsonl", '{"image": "a.png", "caption": "x"}\n{"caption": "x"}\n', "line 2 has the keys caption; expected a name"),
        ("c.jsonl", '{"image": 3, "caption": "x"}\n', "an image's name must be text, not 3"),
        ("c.jsonl", "[1]\n", "line 1 is a list of a number; expected an object"),
        ("c.jsonl", "{\n", "line 1: not JSON"),
        ("c.csv", "id,label\n1,one\n", "the first line has the columns id, label; expected a name (image, file_name,"),
        ("c.csv", "image\na.png\n", "the first line has the columns image; expected a name"),
        ("c.csv", "image,caption,x\na.png,one, two,3\n", "line 2: too many fields; put a caption with ',' in quotes."),
        ("c.csv", "image,caption\na.png\n", "a.png has no caption."),
        ("c.csv", "image,caption\n,x\n", "line 2: names no image."),
        ("c.csv", "", "holds no caption"),
        ("c.csv", 'image,caption\na.png,"one\nb.png,two\nc.png,three\n', "a quotation mark opens a cell and is not closed"),
        ("c.token", "a.png#0\tx\nb.png x\n", "line 2: expected <image>#<number><tab><caption>"),
        ("c.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer, not the file itself"),
    ],
)
def test_a_file_that_cannot_be_used_is_described_in_one_line(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    assert says in refused(tmp_path / name).replace(f"{tmp_path}/", "")


def test_a_missing_file_and_latin_1_are_told(tmp_path):
    (tmp_path / "captions.csv").write_bytes("image,caption\né.png,x\n".encode("latin-1"))
    assert "not UTF-8 text (byte 14 is 0xe9); if it is in Latin-1 or Windows-1252, save it as UTF-8." in refused(
        tmp_path / "captions.csv"
    )
    assert "no such captions file. Did you mean 'captions.csv'?" in refused(tmp_path / "caption.csv")
    (tmp_path / "x.json").write_bytes(codecs.BOM_UTF16_LE + b"{")
    assert "begins like UTF-16 but is not" in refused(tmp_path / "x.json")


def test_a_caption_in_quotes_may_have_line_breaks(tmp_path):
    (tmp_path / "c.csv").write_text('image,caption\na.png,"one\ntwo"\n')
    assert read_captions(tmp_path / "c.csv") == {"a.png": ("one\ntwo",)}


def test_captions_of_images_that_coco_does_not_list_are_passed_over(tmp_path):
    told = json.loads(coco())
    told["images"] = told["images"][:2]
    (tmp_path / "c.json").write_text(json.dumps(told))
    assert read_captions(tmp_path / "c.json") == {name: SEVERAL[name] for name in ("a.png", "b.png")}


def test_karpathys_folders_stand_before_the_names(tmp_path):
    (tmp_path / "c.json").write_text(karpathy(filepath="val2014"))
    assert list(read_captions(tmp_path / "c.json")) == ["val2014/a.png", "val2014/b.png", "val2014/c.png"]


def as_coco(told):
    images = [{"id": i, "file_name": name} for i, name in enumerate(told)]
    return {"images": images, "annotations": [{"id": i, "image_id": i, "caption": text} for i, text in enumerate(told.values())]}


def as_karpathy(told):
    return {
        "images": [{"filepath": "photos", "filename": n, "sentences": [{"raw": t}], "split": "test"} for n, t in told.items()]
    }


FORMS = {
    "c.json": lambda told: json.dumps(told),
    "coco.json": lambda told: json.dumps(as_coco(told)),
    "karpathy.json": lambda told: json.dumps(as_karpathy(told)),
    "list.json": lambda told: json.dumps([{"image": name, "caption": text} for name, text in told.items()]),
    "metadata.jsonl": lambda told: "".join(json.dumps({"file_name": n, "text": t}) + "\n" for n, t in told.items()),
    "metadata.csv": lambda told: table(told.items(), ";", ("file_name", "text")),
    "t.token": lambda told: "".join(f"{name}#0\t{text}\n" for name, text in told.items()),
    "headless.tsv": lambda told: table(told.items(), "\t"),
}


def test_all_forms_make_the_same_samples(tmp_path):
    told = numbered_album(tmp_path / "photos", 30)
    found = {}
    for name, form in FORMS.items():
        (tmp_path / name).write_text(form(told), encoding="utf-8")
        path = tmp_path / "t.yaml"
        path.write_text(f"source: folder\ncandidates: 4\ndata: {{images: photos, captions: {name}}}\n")
        found[name] = load_task(path).fingerprint
    assert len({tuple(each.items()) for each in found.values()}) == 1, found
