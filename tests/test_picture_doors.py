"""A picture is the same wherever it comes in: tasks, models, VLMEvalKit, lmms-eval, embeddings and the report."""

import contextlib
import io
import json
import logging

import numpy as np
import pytest
from PIL import Image

from lad_eval.cli.main import invoke
from lad_eval.data.retrieval import embeddings
from lad_eval.data.retrieval.embeddings import Captioned, embed
from lad_eval.errors import PictureError
from lad_eval.files.atomic import write_text
from lad_eval.models.inputs.images import PROTOCOL_SIZE, ImageCache
from lad_eval.models.vlmeval.prompts import Messages
from lad_eval.plugins.lmms_eval import documents
from lad_eval.plugins.vlmevalkit.datasets import Pictures
from lad_eval.report.html import pictures as thumbnails
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.sources.base import NamedPicture, Picture
from lad_eval.tasks.validate import validate
from tests.data.picture_files import EPS, LFS_POINTER

BLACK, WHITE, BLUE = (0, 0, 0), (255, 255, 255), (0, 0, 255)


def left_and_right(left, right):
    """16 x 8 pixels of two colours."""
    colours = np.array([[left, right]], np.uint8)
    return Image.fromarray(np.kron(colours, np.ones((8, 8, 1), np.uint8)))


def write_kinds(folder):
    """One file of each kind, and what each shows, left and right or above and below."""
    folder.mkdir(parents=True, exist_ok=True)
    left_and_right(BLACK, BLUE).save(folder / "plain.png")
    clear = left_and_right(BLACK, BLUE).convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, 8, 8))
    clear.save(folder / "clear.png")
    ramp = np.repeat([[20000, 51400]], 8, axis=1).reshape(1, 16)
    deep = np.repeat(ramp, 8, axis=0)
    Image.fromarray(deep.astype(np.uint16)).save(folder / "deep.png")
    Image.fromarray((deep / 65535).astype(np.float32)).save(folder / "float.tif")
    exif = Image.Exif()
    exif[0x0112] = 3
    left_and_right(BLACK, BLUE).save(folder / "turned.png", exif=exif)
    left_and_right(BLACK, BLUE).save(folder / "moving.gif", save_all=True, append_images=[left_and_right(WHITE, WHITE)])
    return {
        "plain.png": (BLACK, BLUE),
        "clear.png": (WHITE, BLUE),
        "deep.png": ((78, 78, 78), (200, 200, 200)),
        "float.tif": ((78, 78, 78), (200, 200, 200)),
        "turned.png": (BLUE, BLACK),
        "moving.gif": (BLACK, BLUE),
    }


@contextlib.contextmanager
def silent(*_, **__):
    """Progress that is not shown."""
    yield lambda count: None


class Recording:
    """An encoder that keeps what it is shown."""

    name, fingerprint = "recording", "recording"

    def __init__(self):
        self.seen = []

    def images(self, pictures):
        self.seen += [np.asarray(picture) for picture in pictures]
        return np.ones((len(pictures), 2), np.float32)

    def texts(self, captions):
        return np.ones((len(captions), 2), np.float32)


@pytest.fixture
def album(tmp_path):
    """A task on pictures of every kind; returns the path of its definition."""
    shows = write_kinds(tmp_path / "photos")
    for number in range(8):
        left_and_right((9 * number, 0, 0), WHITE).save(tmp_path / "photos" / f"other{number}.png")
    names = [*shows, *(f"other{number}.png" for number in range(8))]
    write_text(tmp_path / "captions.json", json.dumps({name: f"the picture {name}" for name in names}))
    path = tmp_path / "kinds.yaml"
    write_text(
        path,
        "source: folder\nsetting: random\ncandidates: 3\ncalibration: {samples: 2}\n"
        "data: {images: photos, captions: captions.json}\n",
    )
    return path


def request_on(path, folder, name):
    """A request of the task, showing the picture of a name first."""
    for request in plan(load_task(path), calibration=True).requests:
        if request.images[0].path == folder / name:
            return request
    raise AssertionError(f"{name} is shown first in no request")


def test_every_door_shows_the_same_picture(tmp_path):
    folder = tmp_path / "photos"
    shows = write_kinds(folder)
    encoder = Recording()
    embed([Captioned(name, folder / name, name) for name in shows], encoder, tmp_path / "e", silent)
    for place, (name, (left, right)) in enumerate(shows.items()):
        expected = np.asarray(left_and_right(left, right))
        picture = Picture(folder / name)
        assert np.array_equal(picture.load(), expected), name
        assert np.array_equal(NamedPicture(folder / name).load(), expected)
        assert np.array_equal(ImageCache("native").get(picture).image, expected)
        squashed = left_and_right(left, right).resize(PROTOCOL_SIZE, Image.Resampling.BICUBIC)
        assert np.array_equal(ImageCache("protocol").get(picture).image, squashed)
        assert np.array_equal(encoder.seen[place], expected)
        # VLMEvalKit's own classes and data sets read files.
        with Image.open(Pictures(tmp_path / "written").write(picture)) as written:
            assert np.array_equal(written.convert("RGB"), expected)
        with Image.open(io.BytesIO(thumbnails._encoded(picture))) as thumbnail:
            assert np.abs(np.asarray(thumbnail.convert("RGB"))[:, [2, 13]].astype(int) - expected[:, [2, 13]]).max() < 60


def test_a_document_of_lmms_eval_shows_the_decoded_picture(album, tmp_path):
    shows = write_kinds(tmp_path / "photos")
    seen = set()
    for key, request in documents.open_task(str(album)).requests.items():
        images = documents.images({"task": str(album), "key": key})
        for image, source in zip(images, request.images, strict=True):
            if source.path.name in shows:
                assert np.array_equal(image, left_and_right(*shows[source.path.name])), source
                seen.add(source.path.name)
    assert len(seen) == 5  # the sixth is shown in calibration only


def test_a_message_for_vlmevalkit_shows_the_decoded_picture(album, tmp_path):
    shows = write_kinds(tmp_path / "photos")
    messages = Messages("native")
    for name, (left, right) in shows.items():
        message = messages.of(request_on(album, tmp_path / "photos", name))
        with Image.open(message[0]["value"]) as written:
            assert np.array_equal(written.convert("RGB"), left_and_right(left, right)), name


def test_a_file_is_handed_on_as_it_is_only_where_nothing_is_done_to_it(tmp_path):
    shows = write_kinds(tmp_path / "photos")
    written = Pictures(tmp_path / "written")
    own = [name for name in shows if written.path(Picture(tmp_path / "photos" / name)) == tmp_path / "photos" / name]
    assert own == ["plain.png"]


def test_embeddings_are_made_again_where_pictures_were_decoded_otherwise(tmp_path, monkeypatch):
    shows = write_kinds(tmp_path / "photos")
    items = [Captioned(name, tmp_path / "photos" / name, name) for name in shows]

    def made(chosen):
        encoder = Recording()
        embed(chosen, encoder, tmp_path / "e", silent)
        return len(encoder.seen)

    plain = [item for item in items if item.name in ("plain.png", "turned.png")]
    monkeypatch.setattr(embeddings, "pixel_treatments", lambda path: ())  # as they were made before
    assert made(plain) == 2
    monkeypatch.undo()
    assert made(plain) == 0
    monkeypatch.setattr(embeddings, "pixel_treatments", lambda path: ())
    assert made(items) == 6
    monkeypatch.undo()
    assert made(items) == 6
    assert made(items) == 0


def test_validate_counts_what_is_done_by_kind(album, caplog):
    with caplog.at_level(logging.INFO, "lad_eval"):
        assert validate(album) == []
    assert (
        "kinds.yaml: 1 picture was turned as its EXIF orientation says, 1 picture was flattened on white, 2 pictures were scaled "
        "to 8 bits, 1 picture has several frames and shows its first."
    ) in caplog.text


def test_validate_says_nothing_of_ordinary_pictures(album, tmp_path, caplog):
    for name in write_kinds(tmp_path / "photos"):
        colour = (len(name), ord(name[0]), 7)
        Image.new("RGB", (16, 8), colour).save(tmp_path / "photos" / name)
    with caplog.at_level(logging.INFO, "lad_eval"):
        assert validate(album) == []
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (EPS, "is PostScript (EPS), not a raster picture; save it as PNG or JPEG."),
        (LFS_POINTER, "is a Git LFS pointer, not the picture itself; run `git lfs pull`."),
        (b"", ": the file is empty."),
        (b"\x89PNG\r\n\x1a\n", ": cannot be read: it is damaged or no image."),
    ],
)
def test_a_picture_that_cannot_be_shown_is_one_line_with_its_sample(album, tmp_path, capsys, content, says):
    (tmp_path / "photos" / "other3.png").write_bytes(content)
    with pytest.raises(PictureError) as caught:
        plan(load_task(album), calibration=True)
    assert caught.value.sample is not None
    for command in (["run", "-m", "random:qwen2.5-vl", "-t", album, "--runs", tmp_path / "out"], ["validate", album]):
        assert invoke([str(each) for each in command]) == 2
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert "other3.png" in line
        assert line.endswith(says)
        assert ("Sample " in line) == (command[0] == "run")


def test_a_picture_that_fails_only_when_decoded_is_named_with_its_sample_everywhere(album, tmp_path):
    """The header is whole, so that only whoever shows the picture finds the damage."""
    noise = Image.effect_noise((64, 64), 90)
    noise.save(tmp_path / "photos" / "plain.png")
    content = (tmp_path / "photos" / "plain.png").read_bytes()
    (tmp_path / "photos" / "plain.png").write_bytes(content[:2000])
    request = request_on(album, tmp_path / "photos", "plain.png")
    with pytest.raises(PictureError, match=rf"^Sample {request.sample_id}: .*plain\.png: cannot be read: it is damaged"):
        Messages("native").of(request)
