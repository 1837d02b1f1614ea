"""Probes that go on from the cache of their question: the same as a pass of their own, or read in one."""

import inspect
from dataclasses import replace

import numpy as np
import pytest

from lad_eval.attention.interventions import make_intervention
from lad_eval.errors import UserError
from lad_eval.evidence.table import Evidence
from lad_eval.models.random import FAMILIES
from lad_eval.models.registry import load_model
from lad_eval.names import parse_parts
from lad_eval.tasks.plan import plan
from lad_eval.tasks.probes import Probe
from lad_eval.tasks.registry import load_task

TASK = "scenes_random_n4"
# Windows in the tiny models, recurrent layers, or image tokens that see the question.
READ_WHOLE = {
    "qwen3.5", "llava-next", "gemma3", "mistral3", "pixtral", "paligemma", "llama4", "gemma4", "cohere2-vision", "lfm2-vl",
    "minicpm-v-4.6", "molmo2",
}  # fmt: skip
OFTEN = ("qwen2.5-vl", "llava-onevision", "internvl", "gemma3", "qwen3.5", "paligemma")


def groups_of(limit, *captions, task=TASK):
    planned = plan(load_task(task), limit=limit)
    probes = [Probe(caption=caption).plan(load_task(task), planned).requests for caption in captions]
    return list(zip(planned.requests, *probes, strict=True))


def both_ways(model, groups):
    """Evidence of requests and probes read together, and in passes of their own, in the order of the groups."""
    whole = [model.evidence(list(part)) for part in zip(*groups, strict=True)]
    together = [Evidence.concatenate(list(part)) for part in zip(*model.probed_batches(groups), strict=True)]
    return [(one, other.select_keys(one.key.tolist())) for one, other in zip(whole, together, strict=True)]


def assert_same(pairs, tolerance=1e-5):
    for whole, together in pairs:
        np.testing.assert_allclose(together.log_probs, whole.log_probs, rtol=0, atol=2 * tolerance)
        np.testing.assert_allclose(together.attention, whole.attention, rtol=0, atol=tolerance)
        np.testing.assert_allclose(together.attention_delimited, whole.attention_delimited, rtol=0, atol=tolerance)
        for name in ("perm", "gold_position", "forward_passes", "sample_id", "split"):
            assert (getattr(together, name) == getattr(whole, name)).all()
        assert together.fingerprint == whole.fingerprint


@pytest.mark.parametrize("family", [f if f in OFTEN else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES])
def test_a_probe_is_answered_as_in_a_pass_of_its_own(family):
    model = load_model(f"random:{family}", device="cpu", batch_size=4)
    groups = groups_of(2, "na", "empty")[:6]
    assert len({len(request.question) for request, *_ in groups}) > 1  # rows are padded
    assert_same(both_ways(model, groups))
    assert model._pass._goes_on == (family not in READ_WHOLE)


def test_no_answer_flips_on_the_embedded_model(monkeypatch):
    model = load_model("lad-tiny", device="cpu", batch_size=10)
    groups = groups_of(6, "na")
    calls = []
    forward = type(model.model).forward

    def counted(self, *args, **kwargs):
        calls.append(kwargs["input_ids"].numel())
        return forward(self, *args, **kwargs)

    counted.__signature__ = inspect.signature(forward)
    pairs = both_ways(model, groups)
    assert_same(pairs)
    assert all((one.log_probs.argmax(axis=1) == other.log_probs.argmax(axis=1)).all() for one, other in pairs)
    monkeypatch.setattr(type(model.model), "forward", counted)
    for read in (lambda: list(model.probed_batches(groups)), lambda: model.evidence([own for own, _ in groups])):
        calls.append(0)
        read()
    split = calls.index(0, 1)
    assert sum(calls[:split]) < 1.1 * sum(calls[split:])  # tokens of questions and probes, by those of the questions


def test_candidates_of_several_tokens_go_on_from_the_probe():
    model = load_model("random:qwen2.5-vl", device="cpu", batch_size=4)
    groups = [[replace(r, identifiers=("1", "2", "13", "14")) for r in group] for group in groups_of(1, "na")]
    pairs = both_ways(model, groups)
    assert (pairs[0][0].forward_passes == 2).all()
    assert_same(pairs)


def test_prompts_that_show_other_images_are_read_whole():
    model = load_model("random:qwen2.5-vl", device="cpu", batch_size=4)
    groups = groups_of(2, "na")
    shuffled = [(own, other) for (own, _), (_, other) in zip(groups, groups[::-1], strict=True)]
    assert_same(both_ways(model, shuffled))
    assert model._pass._goes_on


def test_images_of_different_sizes_and_half_precision():
    model = load_model("random:qwen2.5-vl", device="cpu", batch_size=4, dtype="bfloat16", image_preparation="native")
    assert_same(both_ways(model, groups_of(2, "na")), tolerance=0.05)


def test_interventions_are_refused():
    model = load_model("random:qwen2.5-vl", device="cpu")
    (part,) = parse_parts("sofa")
    with model.under(make_intervention(part)), pytest.raises(UserError, match="only without interventions"):
        model.probed_batches(groups_of(1, "na"))
