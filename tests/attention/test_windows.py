"""Windows of a vision tower in one attention call give the features that they give one by one."""

import pytest
import torch

from lad_eval.attention import windows
from lad_eval.attention.windows import NAME, attend_within_windows, batch_windows
from lad_eval.models.huggingface import HuggingFaceVLM
from lad_eval.models.random import load_random


def features(model, grids):
    grid = torch.tensor(grids)
    size = model.config.vision_config.patch_size**2 * 3 * model.config.vision_config.temporal_patch_size
    pixels = torch.randn(int(grid.prod(-1).sum()), size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return torch.cat(list(model.get_image_features(pixel_values=pixels, image_grid_thw=grid).pooler_output))


@pytest.mark.parametrize(
    "grids",
    [[(1, 24, 24)], [(1, 24, 24)] * 3, [(1, 20, 14)], [(1, 20, 14), (1, 8, 8), (1, 2, 34)]],
    ids=["even", "three", "odd", "mixed"],
)
def test_features_are_those_of_windows_one_by_one(grids):
    model, _ = load_random("qwen2.5-vl", seed=1)
    one_by_one = features(model, grids)
    assert batch_windows(model)
    torch.testing.assert_close(features(model, grids), one_by_one, rtol=1e-5, atol=1e-6)


def test_equal_windows_are_one_call(monkeypatch):
    model, _ = load_random("qwen2.5-vl", seed=1)
    calls, attend = [], torch.nn.functional.scaled_dot_product_attention

    def counted(query, *rest, **options):
        calls.append(tuple(query.shape))
        return attend(query, *rest, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    features(model, [(1, 24, 24)])
    before, depth = len(calls), model.config.vision_config.depth
    calls.clear()
    batch_windows(model)
    features(model, [(1, 24, 24)])
    assert before > len(calls) == depth
    windows_of = {shape[0] for shape in calls}
    assert windows_of == {1, 36}  # of 4 x 4 patches, and the layers without windows


def test_windows_do_not_see_each_other():
    query, key, value = torch.randn(3, 1, 2, 10, 4, generator=torch.Generator().manual_seed(0))
    boundaries = torch.tensor([0, 3, 4, 7, 10])
    answer, _ = attend_within_windows(torch.nn.Identity(), query, key, value, None, cu_seq_lens_q=boundaries, scaling=0.3)
    for start, end in zip(boundaries[:-1].tolist(), boundaries[1:].tolist(), strict=True):
        scores = (query[0, :, start:end] @ key[0, :, start:end].transpose(1, 2) * 0.3).softmax(dim=-1)
        torch.testing.assert_close(answer[0, start:end], (scores @ value[0, :, start:end]).transpose(0, 1))


def test_lengths_are_read_once_for_all_layers_and_not_taken_for_those_of_another_tensor():
    windows._lengths.clear()
    for count in range(3, 9):
        boundaries = torch.arange(0, 4 * count, 4)
        assert windows._window_lengths(boundaries) == windows._window_lengths(boundaries) == [4] * (count - 1)
    assert len(windows._lengths) == windows._REMEMBERED


def test_other_towers_and_other_implementations_are_left_alone():
    for family, attention in (("llava-1.5", "sdpa"), ("qwen2-vl", "sdpa"), ("qwen2.5-vl", "eager")):
        model, _ = load_random(family, attn_implementation=attention)
        assert not batch_windows(model)
        assert model.config.vision_config._attn_implementation == attention


def test_the_fingerprint_does_not_change():
    (model, processor), (other, _) = (load_random("qwen2.5-vl", seed=1) for _ in range(2))
    batched = HuggingFaceVLM(model, processor, name="m", weights="w")
    assert model.config.vision_config._attn_implementation == NAME
    assert model.config.get_text_config()._attn_implementation == "sdpa"
    assert batched.fingerprint["attn_implementation"] == "sdpa"
    assert model.config.to_dict() == other.config.to_dict()
