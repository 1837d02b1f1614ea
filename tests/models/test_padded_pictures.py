"""Pictures padded to squares, and the visual tokens that show the padding."""

from __future__ import annotations

import types
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from lad_eval.attention.spans import Spans
from lad_eval.cli.main import invoke
from lad_eval.errors import UnsupportedModelError
from lad_eval.models.inputs.padding import mean_colour, pad_to_square, padding_share
from lad_eval.models.vlmeval.padding import PaddingOfClass
from lad_eval.models.vlmeval.prompts import Messages
from tests.models.requests import Noise, make_requests

COLOUR = (122, 116, 104)
WIDE, TALL, SQUARE = (80, 40), (30, 61), (48, 48)


@dataclass(frozen=True)
class Padded:
    """A picture of noise that was padded before it is handed over."""

    noise: Noise

    @property
    def digest(self):
        return f"padded-{self.noise.digest}"

    def load(self):
        return pad_to_square(self.noise.load(), COLOUR)


def showing(request, *sources):
    return replace(request, images=sources)


def test_a_square_in_the_mean_colour_by_hand():
    picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(1, 4, 3))
    square = np.asarray(pad_to_square(picture, (7, 8, 9)))
    assert square.shape == (4, 4, 3)
    assert square[1].tolist() == np.asarray(picture)[0].tolist(), "of an odd rest the smaller part lies above"
    for row in (0, 2, 3):
        assert square[row].tolist() == [[7, 8, 9]] * 4
    tall = picture.transpose(Image.Transpose.TRANSPOSE)
    assert np.array_equal(np.asarray(pad_to_square(tall, (7, 8, 9))), square.transpose(1, 0, 2))
    already = Image.new("RGB", (5, 5))
    assert pad_to_square(already, (7, 8, 9)) is already


@pytest.mark.parametrize(
    ("mean", "colour"),
    [
        ([0.48145466, 0.4578275, 0.40821073], (122, 116, 104)),
        ((0.5, 0.5, 0.5), (127, 127, 127)),
        ([0.0, 1.0, 2.0], (0, 255, 255)),
        (None, COLOUR),
        ([0.5], COLOUR),
    ],
)
def test_mean_colours(mean, colour):
    assert mean_colour(types.SimpleNamespace(image_mean=mean)) == colour
    assert mean_colour(types.SimpleNamespace()) == COLOUR


def test_two_thirds_of_a_picture_of_400_x_130_are_padding():
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    owner = torch.tensor([[-1, *[0] * 576, -1]])
    span = torch.tensor([[[1, 577]]])
    options = {"return_tensors": "pt"}

    def take(images, **given):
        return processor(images[0], **given)

    padded = padding_share(take, options, [[(130, 400)]], Spans(span, span, owner), lambda image: pad_to_square(image, COLOUR))
    cells = (padded[0, 1:577] > 0.5).reshape(24, 24)
    assert int(cells.sum()) == 384
    assert cells[:8].all()
    assert cells[16:].all()
    assert not padding_share(take, options, [[(130, 400)]], Spans(span, span, owner)).any(), "cropped, and not padded"


class TestClassOfVLMEvalKit:
    """What a class does to pictures is seen in the pixels that its model would be given."""

    def made(self, tmp_path, **options):
        """A class that prepares pictures with CLIP's image processor, and a message with two pictures for it."""
        from transformers import LlavaImageProcessor

        processor = LlavaImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, **options)
        message = [{"type": "text", "value": "which?"}]
        for name, size in (("wide", (400, 130)), ("square", (336, 336))):
            Image.new("RGB", size, "red").save(tmp_path / f"{name}.png")
            message.append({"type": "image", "value": str(tmp_path / f"{name}.png")})
        shown = []

        def generate(handler, message):
            pictures = [Image.open(part["value"]) for part in message if part["type"] == "image"]
            shown.append([picture.size for picture in pictures])
            handler.prepare_inputs(torch.zeros(1, 4), dict(processor(pictures, return_tensors="pt")))

        return message, generate, shown

    def test_its_padding_is_found_token_by_token_and_once_for_sizes(self, tmp_path):
        message, generate, shown = self.made(tmp_path, do_pad=True)
        padding = PaddingOfClass("a class", None)
        owner = torch.tensor([[-1, *[0] * 576, *[1] * 576, -1]])
        span = torch.tensor([[[1, 577], [577, 1153]]])
        share = padding.of(message, generate)(Spans(span, span, owner))[0]
        first, second = (share[1:577] > 0.5).reshape(24, 24), share[577:1153]
        assert int(first.sum()) == 384
        assert first[:8].all()
        assert first[16:].all()
        assert not second.any()
        assert float(share[0] + share[-1]) == 0
        padding.of(message, generate)
        assert shown == [[(400, 130), (336, 336)]] * 2

    def test_that_it_does_not_pad_is_proved(self, tmp_path):
        message, generate, _ = self.made(tmp_path, do_pad=False)
        owner = torch.tensor([[0] * 5 + [1] * 7])  # no square grid is needed where nothing is padded
        span = torch.tensor([[[0, 5], [5, 12]]])
        assert not PaddingOfClass("a class", None).of(message, generate)(Spans(span, span, owner)).any()

    def test_without_pixels_nothing_is_proved(self, tmp_path):
        message, _, _ = self.made(tmp_path)

        def generate(handler, message):
            handler.prepare_inputs(torch.zeros(1, 4), {})

        with pytest.raises(UnsupportedModelError, match=r"a class does not show the pixels .* leave trend out"):
            PaddingOfClass("a class", None).of(message, generate)


def test_a_model_sees_squares_and_its_layout_says_which_tokens_are_padding(vlm):
    model = vlm("llava-1.5", image_preparation="pad")
    requests = make_requests(3, 2)
    sources = [(Noise(1, WIDE), Noise(2, TALL), Noise(3, SQUARE)), (Noise(4, SQUARE), Noise(5, TALL), Noise(6, TALL))]
    requests = [showing(request, *row) for request, row in zip(requests, sources, strict=True)]
    batch = model._prepare(requests)
    colour = mean_colour(model.processor.image_processor)
    for source in sources[0]:
        assert np.array_equal(model._prepare.images.get(source).image, pad_to_square(source.load(), colour))
    shares = [[batch.layout.padding_share[b, batch.spans.owner[b] == image] for image in range(3)] for b in range(2)]
    side = int(len(shares[0][0]) ** 0.5)
    wide, tall = (shares[0][image].reshape(side, side) for image in range(2))
    assert wide[0].min() > 0.5
    assert wide[side // 2].max() < 0.5
    assert tall[:, 0].min() > 0.5
    assert tall[:, side // 2].max() < 0.5
    assert not shares[0][2].any()
    assert not shares[1][0].any()
    torch.testing.assert_close(shares[1][1], shares[0][1])
    assert not batch.layout.padding_share[~batch.layout.visual].any()


def test_evidence_is_that_of_pictures_padded_beforehand(vlm):
    requests = [showing(request, Noise(1, WIDE), Noise(2, TALL), Noise(3, SQUARE)) for request in make_requests(3, 2)]
    beforehand = [replace(request, images=tuple(Padded(source) for source in request.images)) for request in requests]
    padded = vlm("llava-1.5", image_preparation="pad")
    assert mean_colour(padded.processor.image_processor) == COLOUR
    native = vlm("llava-1.5", image_preparation="native")
    made = padded.evidence(requests).log_probs
    np.testing.assert_allclose(made, native.evidence(beforehand).log_probs, atol=1e-6)
    assert np.abs(made - native.evidence(requests).log_probs).max() > 1e-3


def test_it_is_part_of_the_fingerprint(vlm):
    fingerprints = [vlm("llava-1.5", image_preparation=name).fingerprint for name in ("protocol", "native", "pad")]
    assert [fingerprint["image_preparation"] for fingerprint in fingerprints] == ["protocol", "native", "pad"]
    assert len({str(fingerprint) for fingerprint in fingerprints}) == 3


def test_where_tokens_are_not_one_square_the_padding_is_refused_when_it_is_asked_for(vlm):
    model = vlm("qwen2.5-vl", image_preparation="pad")
    requests = [showing(request, Noise(1, WIDE), Noise(2, TALL), Noise(3, SQUARE)) for request in make_requests(3, 1)]
    assert len(model.evidence(requests)) == 1
    with pytest.raises(UnsupportedModelError, match=r"pads these pictures, and it is unknown which visual tokens show padding"):
        _ = model._prepare(requests).layout.padding_share


def test_a_narrow_picture_is_a_square_and_no_longer_too_narrow(vlm):
    model = vlm("qwen2.5-vl", image_preparation="pad")
    requests = [showing(request, Noise(1, (1093, 5)), Noise(2, SQUARE)) for request in make_requests(2, 1)]
    assert model._prepare.size_faults(requests) == []


def test_vlmevalkits_classes_are_given_squares():
    messages = Messages("pad")  # whose files go with it
    message = messages.of(showing(make_requests(2, 1)[0], Noise(1, WIDE), Noise(2, SQUARE)))
    with Image.open(message[0]["value"]) as wide, Image.open(message[1]["value"]) as square:
        assert wide.size == (80, 80)
        assert np.array_equal(wide.convert("RGB"), pad_to_square(Noise(1, WIDE).load(), COLOUR))
        assert square.size == SQUARE


def test_a_run_is_told_so(tmp_path, capsys):
    command = ["run", "-m", "random:llava-1.5", "-t", "scenes_main", "--limit", "2", "--methods", "vanilla", "-q"]
    assert invoke([*command, "--runs", str(tmp_path), "--image-preparation", "pad"]) == 0
    assert any('"image_preparation": "pad"' in path.read_text() for path in tmp_path.rglob("*.json"))
    assert invoke([*command, "--runs", str(tmp_path), "--image-preparation", "square"]) == 2
    assert "'pad'" in capsys.readouterr().err
