"""Image spans, for images of unequal sizes and in tiles, against processing every image by itself."""

from __future__ import annotations

import pytest
import torch

from lad_eval.attention.spans import _widen, cut_spans, image_spans, image_token_id
from lad_eval.errors import UnsupportedModelError
from lad_eval.models.random import FAMILIES

TILED = ("llava-next", "internvl", "idefics3", "smolvlm")


def tokens_alone(lab, processor, token, size, seed):
    """Image tokens of one image: a prompt of two copies of it, halved (one family treats a lone image in its own way)."""
    image = {"type": "image", "image": lab.picture(size, seed)}
    inputs = processor.apply_chat_template(
        [[{"role": "user", "content": [image, image, {"type": "text", "text": "?"}]}]],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    return int((inputs["input_ids"] == token).sum()) // 2


@pytest.mark.parametrize("family", FAMILIES)
def test_spans_equal_those_of_images_processed_alone(lab, family):
    model, processor = lab.load(family)
    token = image_token_id(model)
    inputs = lab.prepare(processor, lab.ROWS)
    spans = image_spans(model, processor, inputs, 3)
    assert spans.length == inputs["input_ids"].shape[1]
    for b, (sizes, _) in enumerate(lab.ROWS):
        row, alone = inputs["input_ids"][b], []
        for i, (size, (start, end)) in enumerate(zip(sizes, spans.image[b].tolist(), strict=True)):
            alone.append(tokens_alone(lab, processor, token, size, 10 * b + i))
            assert int((row[start:end] == token).sum()) == alone[-1]
            assert row[start] == token
            assert row[end - 1] == token
        assert sum(alone) == int((row == token).sum())
        if family in TILED:
            assert len(set(alone)) > 1, "the sizes must give different numbers of tiles"
    ends = torch.stack([spans.image, spans.delimited])
    assert (ends[..., 1:, 0] >= ends[..., :-1, 1]).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rows_spans_do_not_depend_on_its_batch(lab, family):
    model, processor = lab.load(family)
    barrier = image_spans(model, processor, lab.prepare(processor, lab.ROWS), 3)
    for b, row in enumerate(lab.ROWS):
        alone = image_spans(model, processor, lab.prepare(processor, [row]), 3)
        shift = barrier.length - alone.length
        assert torch.equal(barrier.image[b : b + 1], alone.image + shift)
        assert torch.equal(barrier.delimited[b : b + 1], alone.delimited + shift)


DELIMITERS = {
    "qwen2.5-vl": (["<|vision_start|>"], ["<|vision_end|>"]),
    "internvl": (["<img>"], ["</img>"]),
    "gemma3": (["<start_of_image>"], ["<end_of_image>"]),
    "mistral3": ([], ["[IMG_END]"]),
    "llava-1.5": ([], []),
    "llava-onevision": ([], []),
    "paligemma": ([], []),
}


@pytest.mark.parametrize("family", DELIMITERS)
def test_delimiters(lab, family):
    model, processor = lab.load(family)
    inputs = lab.prepare(processor, lab.ROWS)
    spans = image_spans(model, processor, inputs, 3)
    for row, plain, delimited in zip(inputs["input_ids"], spans.image.tolist(), spans.delimited.tolist(), strict=True):
        for (start, end), (first, last) in zip(plain, delimited, strict=True):
            tokens = processor.tokenizer.convert_ids_to_tokens(row.tolist())
            assert (tokens[first:start], tokens[end:last]) == DELIMITERS[family]


@pytest.mark.parametrize("end", ["bos_token_id", "eos_token_id", "pad_token_id"])
def test_tokens_that_begin_end_or_fill_up_a_text_delimit_no_image(lab, end):
    _, processor = lab.load("gemma3")
    tokenizer = processor.tokenizer
    start, stop = tokenizer.convert_tokens_to_ids(["<start_of_image>", "<end_of_image>"])
    token = image_token_id(lab.load("gemma3")[0])
    edge, word = getattr(tokenizer, end), tokenizer.encode("x", add_special_tokens=False)[0]
    assert word not in tokenizer.all_special_ids
    assert edge in tokenizer.all_special_ids

    def widened(before, after):
        ids = torch.tensor([[word, *([before, token, token, after, word] * 3)]])
        spans = cut_spans(ids, token, [[2, 2, 2]], tokenizer)
        return (spans.delimited - spans.image).tolist()

    assert widened(start, stop) == [[[-1, 1]] * 3]
    assert widened(edge, stop) == [[[0, 1]] * 3]
    assert widened(start, edge) == [[[-1, 0]] * 3]
    assert widened(edge, edge) == [[[0, 0]] * 3]


@pytest.mark.parametrize("family", FAMILIES)
def test_visual_tokens_are_known_exactly(lab, family):
    model, processor = lab.load(family)
    inputs = lab.prepare(processor, lab.ROWS)
    spans = image_spans(model, processor, inputs, 3)
    assert torch.equal(spans.owner >= 0, inputs["input_ids"] == image_token_id(model))
    for row, ranges in zip(spans.owner, spans.image.tolist(), strict=True):
        for image, (start, end) in enumerate(ranges):
            assert set(row[start:end].tolist()) <= {image, -1}
            assert (row == image).nonzero()[[0, -1], 0].tolist() == [start, end - 1]
    longer = spans.extended(2)
    assert longer.length == spans.length + 2
    assert longer.owner[:, -2:].eq(-1).all()
    assert torch.equal(longer.membership("cpu")[:, :-2], spans.membership("cpu"))


def test_qwen_tokens_by_hand(lab):
    # 56 x 84 pixels are 2 x 3 tokens of 28 x 28 pixels; 84 x 84 are 9; each between <|vision_start|> and <|vision_end|>.
    model, processor = lab.load("qwen2.5-vl")
    inputs = lab.prepare(processor, [([(84, 56), (84, 84)], "?")])
    spans = image_spans(model, processor, inputs, 2)
    start = int((inputs["input_ids"][0] == image_token_id(model)).nonzero()[0, 0])
    assert spans.image.tolist() == [[[start, start + 6], [start + 8, start + 17]]]
    assert spans.delimited.tolist() == [[[start - 1, start + 7], [start + 7, start + 18]]]


def test_membership_by_hand(lab):
    model, processor = lab.load("qwen2.5-vl")
    spans = image_spans(model, processor, lab.prepare(processor, lab.ROWS), 3)
    member = spans.membership("cpu")
    assert member.shape == (2, spans.length, 6)
    for b in range(2):
        for k, (start, end) in enumerate([*spans.image[b].tolist(), *spans.delimited[b].tolist()]):
            assert member[b, :, k].nonzero()[:, 0].tolist() == list(range(start, end))


def test_one_flat_list_of_images_means_tiles_for_onevision(lab):
    model, processor = lab.load("llava-onevision")
    images = [lab.picture(size, i) for i, size in enumerate(lab.UNEQUAL)]
    inputs = processor(text=["<image><image><image>?"], images=images, return_tensors="pt", return_text_replacement_offsets=True)
    spans = image_spans(model, processor, inputs, 3)
    alone = [
        int((processor(text=["<image>"], images=[image], return_tensors="pt")["input_ids"] == image_token_id(model)).sum())
        for image in images
    ]
    assert (spans.image[0, :, 1] - spans.image[0, :, 0]).tolist() == alone
    assert len(set(alone)) > 1


def test_crops_of_an_image_lie_in_its_span(lab):
    model, processor = lab.load("gemma3")
    options = {
        "do_pan_and_scan": True,
        "pan_and_scan_min_crop_size": 16,
        "pan_and_scan_max_num_crops": 4,
        "pan_and_scan_min_ratio_to_activate": 1.2,
    }
    inputs = lab.prepare(processor, [([(96, 96), (256, 64)], "?")], **options)
    (first, second) = image_spans(model, processor, inputs, 2).image[0].tolist()
    row = inputs["input_ids"][0]
    count = [int((row[start:end] == image_token_id(model)).sum()) for start, end in (first, second)]
    assert count == [4, 4 * 5]  # the second image is 4 times as wide as high: itself and 4 crops


def test_without_offsets_the_grid_tells(lab):
    model, processor = lab.load("qwen2.5-vl")
    inputs = lab.prepare(processor, lab.ROWS)
    told = image_spans(model, processor, inputs, 3)
    silent = {name: value for name, value in inputs.items() if name != "text_replacement_offsets"}
    assert torch.equal(image_spans(model, processor, silent, 3).image, told.image)


def test_without_offsets_or_grid_one_size_is_needed(lab):
    model, processor = lab.load("internvl")
    inputs = lab.prepare(processor, [(lab.EQUAL, "?"), (lab.EQUAL, "Caption: more")])
    told = image_spans(model, processor, inputs, 3)
    silent = {name: value for name, value in inputs.items() if name != "text_replacement_offsets"}
    assert torch.equal(image_spans(model, processor, silent, 3, image_sizes=[lab.EQUAL] * 2).image, told.image)
    with pytest.raises(UnsupportedModelError, match="how many tokens each image became; prepare all images at one size"):
        image_spans(model, processor, silent, 3, image_sizes=[lab.UNEQUAL] * 2)
    with pytest.raises(UnsupportedModelError, match="InternVLProcessor does not say"):
        image_spans(model, processor, silent, 3)


def test_right_padding_is_an_error(lab):
    model, processor = lab.load("llava-1.5")
    inputs = lab.prepare(processor, lab.ROWS, padding_side="right")
    with pytest.raises(UnsupportedModelError, match="padded on the right; set the tokenizer's padding_side to 'left'"):
        image_spans(model, processor, inputs, 3)


def test_another_number_of_images_is_an_error(lab):
    model, processor = lab.load("llava-1.5")
    with pytest.raises(UnsupportedModelError, match="48 image tokens, which are not those of 4 images"):
        image_spans(model, processor, lab.prepare(processor, lab.ROWS), 4)


def test_a_configuration_without_image_token_is_an_error():
    from transformers import LlamaConfig

    with pytest.raises(UnsupportedModelError, match="llama is not supported: its configuration names no image token"):
        image_token_id(LlamaConfig())


S, T, I = 7, 8, 9  # noqa: E741 - two special tokens and the image token


@pytest.mark.parametrize(
    ("row", "spans", "wide"),
    [
        ([1, S, I, T, S, I, T, 1], [(2, 3), (5, 6)], [(1, 4), (4, 7)]),
        ([S, S, I, T, S, S, I, T], [(2, 3), (6, 7)], [(0, 4), (4, 8)]),  # two deep, and to both ends of the row
        ([S, I, S, I, S], [(1, 2), (3, 4)], [(0, 2), (2, 4)]),  # a token between two images belongs to one of them
        ([T, I, S, I, T], [(1, 2), (3, 4)], [(1, 2), (3, 4)]),  # not the same token for every image
        ([2, I, 2, I, 2], [(1, 2), (3, 4)], [(1, 2), (3, 4)]),  # not special
        ([S, I, I, S], [(1, 2), (2, 3)], [(1, 2), (2, 3)]),  # adjacent images
    ],
)
def test_spans_widen_together(row, spans, wide):
    assert _widen(spans, row, frozenset({S, T})) == wide
