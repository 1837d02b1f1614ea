"""Models under interventions: several at once, what they are told of prompts, and calibration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from lad_eval.attention.hooks import around_attention, attending_layers, observe_attention
from lad_eval.attention.interventions import CalibratedIntervention, Sofa, join_interventions
from lad_eval.attention.layout import PromptLayout
from lad_eval.attention.spans import Spans
from lad_eval.errors import EvidenceError, OutOfMemoryError, UnsupportedModelError, UserError
from lad_eval.evidence.replies import Decoding
from lad_eval.models.inputs.padding import padding_share
from tests.models.requests import make_requests


@dataclass(frozen=True)
class Levelled(CalibratedIntervention):
    """Scales attention's output by the mean norm of queries in calibration; keeps what it was told of prompts."""

    name: ClassVar[str] = "levelled"
    told: ClassVar[list[PromptLayout]] = []

    def _learn(self, model, passes):
        norms: list[float] = []
        for layout, run in passes:

            def note(call, layout=layout):
                norms.extend(call.query.norm(dim=-1).mean(dim=1)[layout.attended].tolist())

            with observe_attention(model, note):
                run()
        return {"norm": [float(np.mean(norms))], "layers": list(attending_layers(model))} if norms else {}

    @contextmanager
    def _attached(self, model, layout, acted) -> Iterator[None]:
        self.told.append(layout)

        def around(call, run):
            output, weights = run(call.query, call.mask)
            acted()
            return output * float(self.learned.arrays["norm"][0]), weights

        with around_attention(model, around):
            yield


def calibration(count):
    requests = make_requests(3, count)
    return [replace(request, split="calibration") for request in requests]


def test_a_model_is_under_several_in_the_order_in_which_they_were_opened(vlm):
    model = vlm("qwen2.5-vl", batch_size=2)
    requests = make_requests(3, 3)
    levelled = model.calibrated(Levelled(), calibration(2)[:1])
    others = [request for request in requests if request.sample_id != calibration(2)[0].sample_id]
    plain = model.evidence(others)
    with model.under(levelled), model.under(Sofa(sigma=1.0, every=1)):
        nested = model.evidence(others)
        told = model.fingerprint["intervention"]
    with model.under(join_interventions([levelled, Sofa(sigma=1.0, every=1)])):
        joined = model.evidence(others)
        assert model.fingerprint["intervention"] == told
    with model.under(levelled):
        alone = model.evidence(others)
    assert told == {"name": "levelled+sofa", "parts": [levelled.facts, Sofa(sigma=1.0, every=1).facts]}
    np.testing.assert_array_equal(nested.log_probs, joined.log_probs)
    assert nested.fingerprint == joined.fingerprint != alone.fingerprint != plain.fingerprint
    assert np.abs(nested.log_probs - alone.log_probs).max() > 1e-6
    assert "intervention" not in model.fingerprint


@pytest.mark.parametrize("family", ["qwen2.5-vl", "llava-onevision", "gemma3"])
def test_calibration_does_not_depend_on_the_batch_and_evaluated_samples_are_refused(vlm, family):
    seen = calibration(3)
    fitted = [vlm(family, batch_size=size).calibrated(Levelled(), seen) for size in (1, 3)]
    np.testing.assert_allclose(*(made.learned.arrays["norm"] for made in fitted), rtol=1e-5)
    assert fitted[0].learned.sample_ids == tuple(sorted({request.sample_id for request in seen}))
    assert set(fitted[0].learned.images) == {image.digest for request in seen for image in request.images}
    model = vlm(family, batch_size=3)
    with model.under(fitted[0]):
        assert model.fingerprint["intervention"]["learned"] == fitted[0].learned.digest
        model.evidence(seen)  # a method may be calibrated on the same samples
        evaluated = [replace(request, split="test") for request in seen]
        for run in (model.evidence_batches, lambda requests: model.reply_batches(requests, Decoding())):
            with pytest.raises(EvidenceError, match=r"3 evaluated samples were also calibrated on by levelled"):
                list(run(evaluated))
        renamed = [replace(request, sample_id=f"new {i}") for i, request in enumerate(evaluated)]
        with pytest.raises(EvidenceError, match=r"pictures of evaluated samples were also calibrated on by levelled"):
            model.evidence(renamed)
    with model.under(Levelled()), pytest.raises(UserError, match="levelled has learned nothing yet"):
        model.evidence(seen)


def test_batches_that_do_not_fit_are_halved_and_all_is_learned_anew(vlm):
    model, requests = vlm("qwen2.5-vl", batch_size=8), calibration(5)
    sizes = []

    def refuse(module, args, kwargs):
        sizes.append(len(kwargs["input_ids"]))
        if sizes[-1] > limit or (limit == 2 and len(sizes) == 3):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    limit = 2
    hook = model.model.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        learned = model.calibrated(Levelled(), requests).learned
        assert sizes == [5, 2, 2, 1, 1, 1, 1, 1], "a fault in the middle starts again from the first sample"
        limit = 0
        with pytest.raises(OutOfMemoryError, match="Out of memory while levelled was calibrated on one request at a time"):
            model.calibrated(Levelled(), requests)
    finally:
        hook.remove()
    alone = vlm("qwen2.5-vl", batch_size=1).calibrated(Levelled(), requests).learned
    assert learned.passes == alone.passes == 5
    np.testing.assert_allclose(learned.arrays["norm"], alone.arrays["norm"], rtol=1e-5)
    assert learned.origin == alone.origin
    assert learned.origin["model"] == model.fingerprint


def test_samples_with_identifiers_of_their_own_are_calibrated_on_together(vlm):
    model = vlm("qwen2.5-vl", batch_size=4)
    letters = [replace(r, identifiers=("A", "B", "C"), sample_id=f"letter {i}") for i, r in enumerate(calibration(2))]
    learned = model.calibrated(Levelled(), [*letters, *calibration(3)]).learned
    assert learned.passes == 5
    assert learned.sample_ids == ("letter 0", "letter 1", "s0", "s1", "s2")


def test_what_is_told_of_a_batch_of_prompts(vlm):
    model = vlm("llava-onevision", batch_size=2, image_preparation="protocol")
    requests = [
        replace(request, question=question)
        for request, question in zip(calibration(2), ("What?", "Which of the three images shows a red circle?"), strict=True)
    ]
    levelled = model.calibrated(Levelled(), requests[:1])
    Levelled.told.clear()
    with model.under(levelled):
        model.evidence(requests)
    (layout,) = Levelled.told
    tokenizer = model.processor.tokenizer
    assert not layout.attended.all()
    assert set(layout.questions) == {request.question for request in requests}
    for row, end, attended, question in zip(
        layout.ids, layout.instruction_end.tolist(), layout.attended, layout.questions, strict=True
    ):
        shown = tokenizer.decode(row[attended.nonzero()[0, 0] : end + 1])
        assert shown.endswith(question)
    assert not (layout.visual & ~layout.attended).any()
    assert not layout.padding_share.any(), "the protocol's images fill their grids"


def test_padding_of_pictures_is_found_token_by_token():
    from transformers import LlavaImageProcessor

    size = {"size": {"shortest_edge": 96}, "crop_size": {"height": 96, "width": 96}}
    pads, crops = LlavaImageProcessor(do_pad=True, **size), LlavaImageProcessor(do_pad=False, **size)
    cells = 8
    count = cells**2
    sizes = [[(40, 80), (60, 60), (80, 40)]]  # height and width: wide, square, tall
    owner = torch.tensor([[-1, *[0] * count, -1, *[1] * count, *[2] * count, -1]])
    ranges = torch.tensor([[[1, 1 + count], [2 + count, 2 + 2 * count], [2 + 2 * count, 2 + 3 * count]]])
    spans = Spans(ranges, ranges, owner)
    options = {"return_tensors": "pt"}
    shares = padding_share(pads, options, sizes, spans)
    assert shares.shape == owner.shape
    assert not shares[owner < 0].any()
    wide, square, tall = (shares[owner == image].reshape(cells, cells) for image in range(3))
    rows = torch.tensor([1, 1, 0, 0, 0, 0, 1, 1], dtype=torch.float32)  # the wide picture fills the middle half of the rows
    # At its border a few pixels are mixed of picture and padding, and show the picture.
    torch.testing.assert_close(wide, rows[:, None].expand(-1, cells), atol=0.25, rtol=0)
    assert torch.equal(wide[[0, -1]], torch.ones(2, cells))
    assert torch.equal(wide[2:6], torch.zeros(4, cells))
    torch.testing.assert_close(tall, wide.T, atol=1e-6, rtol=0)
    assert not square.any()
    assert not padding_share(crops, options, sizes, spans).any()
    lacking = owner.clone()
    lacking[0, 1] = -1
    with pytest.raises(UnsupportedModelError, match=r"pads these pictures, and it is unknown which visual tokens show padding"):
        padding_share(pads, options, sizes, Spans(ranges, ranges, lacking))


@pytest.mark.parametrize("family", ["qwen2.5-vl", "internvl", "gemma3"])
def test_native_pictures_of_families_that_pad_nothing_are_proved_to_have_no_padding(vlm, family):
    requests = make_requests(3, 2, size=(70, 40))
    layout = vlm(family)._prepare(requests).layout
    assert not layout.padding_share.any()
