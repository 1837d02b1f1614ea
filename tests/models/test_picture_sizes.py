"""Pictures that an image processor refuses: named with their sample, the limit and the mend, before any work is done."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from lad_eval.cli.main import invoke
from lad_eval.errors import PictureError
from lad_eval.models.inputs.sizes import size_faults
from tests.models.requests import Noise, make_requests

NARROW = (1093, 5)
LIMIT = (
    "is refused by the model's image processor: absolute aspect ratio must be smaller than 200, got 218.6; use another picture"
)


def with_images(request, *sizes):
    images = tuple(Noise(number, size) for number, size in enumerate(sizes))
    return replace(request, images=images)


@pytest.mark.parametrize("family", ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"])
def test_a_picture_beyond_the_limit_is_named_before_the_model_runs(vlm, family, monkeypatch):
    model = vlm(family, batch_size=1)
    requests = make_requests(2, 6)
    requests[4] = with_images(requests[4], (56, 56), NARROW)

    def never(*batch, **options):
        raise AssertionError("the model ran")

    monkeypatch.setattr(model, "_pass", never)
    with pytest.raises(PictureError, match=rf"^Sample s4: image 1 \(1093 x 5 pixels\) {LIMIT}"):
        model.evidence(requests)
    with pytest.raises(PictureError, match=r"^Sample s4: image 1"):
        model.generate(requests)


def test_the_protocol_takes_every_size(vlm):
    model = vlm("qwen2.5-vl", image_preparation="protocol")
    requests = [with_images(request, NARROW, (5, 1093)) for request in make_requests(2, 2)]
    assert len(model.evidence(requests)) == 2


def test_what_the_processor_raises_in_the_middle_is_named_too(vlm):
    """A picture whose size is not known beforehand."""

    class Sizeless:
        digest = "sizeless"

        def load(self):
            return Noise(1, NARROW).load()

    model = vlm("qwen2.5-vl", batch_size=2)
    requests = make_requests(2, 2)
    requests[1] = replace(requests[1], images=(requests[1].images[0], Sizeless()))
    with pytest.raises(PictureError, match=rf"^Sample s1: image 1 \(1093 x 5 pixels\) {LIMIT}"):
        model.evidence(requests)


def test_only_the_extremes_are_tried_and_every_refused_picture_is_found():
    tried = []

    def processor(images):
        [[image]] = images
        tried.append(image.size)
        if max(image.size) / min(image.size) > 10:
            raise ValueError("too\nnarrow.")
        if min(image.size) < 4:
            raise TypeError

    sizes = [(40, 30 + n) for n in range(50)] + [(100, 5), (5, 100), (90, 5), (3, 3), (3, 4)]
    [request] = make_requests(2, 1)
    requests = [replace(with_images(request, size, (40, 40)), sample_id=f"{size}") for size in sizes]
    known = set()
    faults = size_faults(processor, requests, {}, known)
    assert {fault.sample for fault in faults} == {"(100, 5)", "(5, 100)", "(90, 5)", "(3, 3)", "(3, 4)"}
    assert "processor: too narrow; use another picture, or --image-preparation protocol" in str(
        next(fault for fault in faults if fault.sample == "(100, 5)")
    )
    assert "processor: TypeError; use" in str(next(fault for fault in faults if fault.sample == "(3, 3)"))
    assert len(tried) < 15
    tried.clear()
    assert len(size_faults(processor, requests, {}, known)) == 5
    assert len(tried) == 5  # those that are accepted are not tried again
    assert size_faults(processor, requests[:50], {}, set()) == []


def test_running_out_of_memory_is_not_the_pictures_fault():
    def processor(images):
        raise MemoryError

    with pytest.raises(MemoryError):
        size_faults(processor, [with_images(*make_requests(2, 1), (4, 4), (4, 4))], {}, set())


def test_a_run_ends_in_one_line(tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(12):
        Image.new("RGB", (64 + number, 48), (20 * number, 0, 0)).save(photos / f"{number}.png")
    captions = {f"{number}.png": f"picture {number}" for number in range(12)}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    task = tmp_path / "photos.yaml"
    task.write_text(
        "source: folder\ncandidates: 2\ncalibration: {samples: 2}\nsamples: 2\ndata: {images: photos, captions: captions.json}\n"
    )
    command = ["run", "-m", "random:qwen2.5-vl", "-t", str(task), "--methods", "vanilla", "--runs", str(tmp_path / "out"), "-q"]
    assert invoke([*command, "--image-preparation", "native"]) == 0
    for path in photos.iterdir():
        Image.new("RGB", NARROW, (5 * int(path.stem), 0, 0)).save(path)
    capsys.readouterr()
    assert invoke([*command, "--image-preparation", "native"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: Sample ")
    assert f"(1093 x 5 pixels) {LIMIT}" in error
    assert error.count("\n") == 1
    assert invoke(command) == 0
