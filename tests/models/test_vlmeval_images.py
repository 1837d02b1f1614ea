"""Image tokens of a prompt divided among its images, or an error: prompts written by hand."""

from types import SimpleNamespace

import pytest
import torch

from lad_eval.errors import UnsupportedModelError
from lad_eval.models.vlmeval.images import ImageFacts, spans_in

TOKENS = {"<image>": 9, "<global-img>": 7, "[IMG_END]": 6, "<fake>": 5, "[IMG_BREAK]": 4}
G, E, F, B, X = 7, 6, 5, 4, 9


class Tokenizer:
    bos_token_id, eos_token_id, pad_token_id, unk_token_id = 1, 2, 3, 0
    all_special_ids = (1, 2, 3, *TOKENS.values())

    def convert_tokens_to_ids(self, token):
        return TOKENS.get(token, self.unk_token_id)


def spans(row, n, *, model_type="unknown", equal=True, processor=None, **inputs):
    model = SimpleNamespace(config=SimpleNamespace(model_type=model_type, image_token_id=X))
    made = SimpleNamespace(tokenizer=Tokenizer(), **(processor or {}))
    found = spans_in(torch.tensor([row]), inputs, [model], made, ImageFacts(n, equal), "kit")
    return [tuple(span) for span in found.image[0].tolist()]


def test_a_run_an_image():
    assert spans([20, X, X, X, 21, X, 22], 2) == [(1, 4), (5, 6)]


def test_neighbours_are_told_apart_by_their_grid():
    merging = {"image_processor": SimpleNamespace(merge_size=2)}
    grid = torch.tensor([[1, 2, 4], [1, 2, 2]])
    assert spans([20, X, X, X, 22], 2, processor=merging, image_grid_thw=grid) == [(1, 3), (3, 4)]
    with pytest.raises(UnsupportedModelError, match="of 3 images"):
        spans([20, X, X, X, 22], 3, processor=merging, image_grid_thw=grid)


def test_the_tiles_of_an_image_end_with_the_whole_picture():
    row = [F, 30, X, X, F, 31, X, X, F, G, X, X, F, 20, F, G, X, X, F]
    assert spans(row, 2, processor={"global_image_tag": "<global-img>"}) == [(2, 12), (16, 18)]
    assert spans(row, 2, processor={"global_image_token": "<global-img>"}) == [(2, 12), (16, 18)]
    # four runs, which would be four images of a run each, were it not for the mark
    with pytest.raises(UnsupportedModelError, match="8 image tokens in 4 runs"):
        spans(row, 4, processor={"global_image_tag": "<global-img>"})


def test_the_rows_of_an_image_end_with_its_mark():
    row = [X, X, B, X, X, E, X, B, X, E, 20]
    assert spans(row, 2, processor={"image_end_token": "[IMG_END]"}) == [(0, 5), (6, 9)]


def test_idefics2_has_equally_many_tiles_an_image():
    tile = [F, X, X]
    splitting = {"image_processor": SimpleNamespace(do_image_splitting=True)}
    row = [*tile * 10, F]
    assert spans(row, 2, model_type="idefics2", equal=False, processor=splitting) == [(1, 15), (16, 30)]
    with pytest.raises(UnsupportedModelError):
        spans(row, 5, model_type="idefics2", processor=splitting)
    whole = {"image_processor": SimpleNamespace(do_image_splitting=False)}
    assert spans([*tile * 2, F], 2, model_type="idefics2", processor=whole) == [(1, 3), (4, 6)]


def test_one_run_of_a_family_with_a_row_of_pixels_an_image():
    row, pixels = [20, X, X, X, X, 21], torch.zeros(2, 3, 4, 4)
    assert spans(row, 2, model_type="llava", pixel_values=pixels) == [(1, 3), (3, 5)]
    for given in (
        {"model_type": "llava", "pixel_values": pixels, "equal": False},
        {"model_type": "llava", "pixel_values": pixels[:1]},
        {"model_type": "other", "pixel_values": pixels},
        {"model_type": "llava"},
    ):
        with pytest.raises(UnsupportedModelError, match="4 image tokens in 1 runs, and nothing says which"):
            spans(row, 2, **given)


def test_a_prompt_without_image_tokens():
    with pytest.raises(UnsupportedModelError, match="holds 0 image tokens in 0 runs"):
        spans([20, 21], 2)
    bare = SimpleNamespace(config=SimpleNamespace(model_type="bare"))
    with pytest.raises(UnsupportedModelError, match="neither its model's configuration nor its processor names an image token"):
        spans_in(torch.tensor([[20]]), {}, [bare], Tokenizer(), ImageFacts(2, True), "kit")
