"""What holds for every intervention: order, calibration, parameters, and that one which changes nothing is an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from lad_eval.attention.hooks import around_attention, attending_layers, observe_attention, transform_mask
from lad_eval.attention.interventions import (
    CalibratedIntervention,
    Intervention,
    JoinedIntervention,
    LearnedState,
    Sofa,
    join_interventions,
)
from lad_eval.attention.layout import PromptLayout, no_padding, padding_unknown
from lad_eval.attention.masks import additive_mask
from lad_eval.attention.spans import image_spans
from lad_eval.errors import EvidenceError, UnsupportedModelError, UserError
from lad_eval.parameters import ParameterError, fields_of, parse_values


@dataclass(frozen=True)
class Scaled(Intervention):
    """Multiplies the output of every n-th attending layer."""

    name: ClassVar[str] = "scaled"
    by: float = 2.0
    every: int = 1
    act: bool = True

    @contextmanager
    def _attached(self, model, layout, acted) -> Iterator[None]:
        layers = attending_layers(model, self.every)

        def around(call, run):
            output, weights = run(call.query, call.mask)
            if not self.act or call.layer not in layers or not call.is_prefill(layout.length):
                return output, weights
            acted()
            return output * self.by, weights

        with around_attention(model, around):
            yield


@dataclass(frozen=True)
class Shifted(Intervention):
    """Adds to every output, so that its order with `Scaled` matters."""

    name: ClassVar[str] = "shifted"
    by: float = 0.5

    @contextmanager
    def _attached(self, model, layout, acted) -> Iterator[None]:
        def around(call, run):
            acted()
            output, weights = run(call.query, call.mask)
            return output + self.by, weights

        with around_attention(model, around):
            yield


@dataclass(frozen=True)
class Dimmed(CalibratedIntervention):
    """Hides the visual tokens with the longest keys, by a threshold that is learned: its mean over calibration prompts."""

    name: ClassVar[str] = "dimmed"
    share: float = 1.0

    def _learn(self, model, passes) -> dict[str, Any]:
        norms: list[float] = []
        for layout, run in passes:

            def note(call, layout=layout):
                if call.layer == attending_layers(model)[0]:
                    norms.extend(call.key.norm(dim=-1).mean(dim=1)[layout.visual].tolist())

            with observe_attention(model, note):
                run()
        return {"norm": np.array([np.mean(norms)])} if norms else {}

    @contextmanager
    def _attached(self, model, layout, acted) -> Iterator[None]:
        threshold = self.share * float(self.learned.arrays["norm"][0])

        def transform(call):
            if not call.is_prefill(layout.length):
                return call.mask
            acted()
            closed = layout.visual & (call.key.norm(dim=-1).mean(dim=1) > threshold)
            mask = additive_mask(call)
            return mask.expand(len(closed), *mask.shape[1:]).masked_fill(closed[:, None, None], torch.finfo(mask.dtype).min)

        with transform_mask(model, transform):
            yield


def prepared(lab, family="llava-1.5", rows=None, names=("a", "b")):
    model, processor = lab.load(family)
    rows = lab.ROWS if rows is None else rows
    inputs = lab.prepare(processor, rows)
    spans = image_spans(model, processor, inputs, 3)
    layout = PromptLayout(
        inputs["input_ids"],
        spans,
        inputs["attention_mask"].bool(),
        tuple(text for _, text in rows),
        processor.tokenizer.decode,
        no_padding,
        tuple(f"{name}{i}" for name in names[: len(rows)] for i in range(3)),
        names[: len(rows)],
    )
    return model, layout, lab.for_model(inputs)


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits[:, -1]


def under(intervention, model, layout, inputs):
    with intervention.applied(model, layout):
        return logits(model, inputs)


@pytest.mark.parametrize("family", ["llava-1.5", "qwen2.5-vl", "qwen3.5", "gemma3"])
def test_several_act_in_written_order(lab, family):
    model, layout, inputs = prepared(lab, family)

    def by_hand(change):
        def around(call, run):
            output, weights = run(call.query, call.mask)
            return change(output), weights

        with around_attention(model, around):
            return logits(model, inputs)

    first_scaled, first_shifted = (
        under(join_interventions(parts), model, layout, inputs) for parts in ([Scaled(), Shifted()], [Shifted(), Scaled()])
    )
    # The first written is the outermost: it acts on what the second makes.
    torch.testing.assert_close(first_scaled, by_hand(lambda output: (output + 0.5) * 2), atol=0, rtol=0)
    torch.testing.assert_close(first_shifted, by_hand(lambda output: output * 2 + 0.5), atol=0, rtol=0)
    assert (first_scaled - first_shifted).abs().max() > 1e-4
    third = join_interventions([join_interventions([Scaled(), Shifted()]), Scaled(by=0.25)])
    torch.testing.assert_close(
        under(third, model, layout, inputs), by_hand(lambda output: (output * 0.25 + 0.5) * 2), atol=0, rtol=0
    )
    assert [part.name for part in third.parts] == ["scaled", "shifted", "scaled"]


def test_several_are_named_and_told_apart_in_written_order():
    both = join_interventions([Scaled(by=3.0), Sofa(sigma=0.25)])
    assert both.label == "scaled(by=3.0)+sofa(sigma=0.25)"
    assert both.facts == {"name": "scaled+sofa", "parts": [Scaled(by=3.0).facts, Sofa(sigma=0.25).facts]}
    assert both != join_interventions([Sofa(sigma=0.25), Scaled(by=3.0)])
    assert hash(both) == hash(JoinedIntervention((Scaled(by=3.0), Sofa(sigma=0.25))))
    assert join_interventions([Sofa()]) == Sofa()
    assert join_interventions([]) is None


def test_one_that_changes_nothing_is_an_error_alone_and_among_others(lab):
    model, layout, inputs = prepared(lab)
    idle = Scaled(act=False)
    with pytest.raises(UnsupportedModelError, match=r"scaled\(act=False\) changed no attention call; .* methods with scaled"):
        under(idle, model, layout, inputs)
    for parts in ([idle, Shifted()], [Shifted(), idle]):
        with pytest.raises(UnsupportedModelError, match=r"scaled\(act=False\) changed no attention call"):
            under(join_interventions(parts), model, layout, inputs)
    with pytest.raises(ZeroDivisionError), idle.applied(model, layout):
        raise ZeroDivisionError  # what went wrong is told, not that nothing was changed
    assert (under(Scaled(), model, layout, inputs) - logits(model, inputs)).abs().max() > 1e-3


def test_a_forward_pass_of_other_prompts_is_not_changed(lab):
    model, layout, _ = prepared(lab)
    with pytest.raises(UnsupportedModelError, match="scaled changed no attention call"):
        under(Scaled(), model, layout, {"input_ids": torch.ones(1, 4, dtype=torch.long)})


def passes_of(model, rows):
    return [(layout, lambda inputs=inputs: logits(model, inputs)) for layout, inputs in rows]


def test_what_is_learned_is_saved_part_of_the_facts_and_refused_on_what_it_was_learned_from(lab, tmp_path):
    model, layout, inputs = prepared(lab, names=("s3", "s1"))
    _, more, others = prepared(lab, rows=[(lab.EQUAL, "What is it?")], names=("s2",))
    untrained = Dimmed(share=0.9)
    assert untrained.facts == {"name": "dimmed", "share": 0.9, "learned": None}
    with pytest.raises(UserError, match=r"dimmed\(share=0\.9\) has learned nothing yet; calibrate it"):
        under(untrained, model, layout, inputs)

    fitted = untrained.calibrated(model, passes_of(model, [(layout, inputs), (more, others)]))
    again = untrained.calibrated(model, passes_of(model, [(layout, inputs), (more, others)]))
    fewer = untrained.calibrated(model, passes_of(model, [(layout, inputs)]))
    assert untrained.learned is None
    assert fitted == again
    assert hash(fitted) == hash(again)
    assert fitted != fewer
    assert fitted.label == "dimmed(share=0.9)"
    assert fitted.facts == {"name": "dimmed", "share": 0.9, "learned": fitted.learned.digest}
    assert fewer.facts != fitted.facts
    assert fitted.learned.sample_ids == ("s1", "s2", "s3")
    assert len(fitted.learned.images) == 9

    path = tmp_path / "deep" / "dimmed.safetensors"
    fitted.learned.save(path)
    loaded = Dimmed(share=0.9, learned=LearnedState.load(path, "dimmed"))
    assert loaded == fitted
    assert torch.equal(under(loaded, model, layout, inputs), under(fitted, model, layout, inputs))

    joined = join_interventions([Scaled(), fitted])
    for intervention in (fitted, joined):
        intervention.check_disjoint(["s4", "s5"], ["x"])
        with pytest.raises(EvidenceError, match=r"2 evaluated samples were also calibrated on by dimmed\(share=0.9\) \(s1, s3\)"):
            intervention.check_disjoint(["s3", "s4", "s1"], [])
        with pytest.raises(EvidenceError, match="1 pictures of evaluated samples were also calibrated on"):
            intervention.check_disjoint(["s4"], ["s20", "x"])
    Scaled().check_disjoint(["s1"], ["s20"])


def test_several_are_calibrated_on_the_same_prompts(lab):
    model, layout, inputs = prepared(lab)
    joined = join_interventions([Dimmed(), Scaled(), Dimmed(share=0.5)])
    assert not joined.is_ready
    done = joined.calibrated(model, passes_of(model, [(layout, inputs)]))
    assert done.is_ready
    first, other = done.learned_states
    assert first.arrays == other.arrays
    assert first != other, "what it was learned for is part of it"
    assert first.passes == other.passes == 2
    assert Scaled().calibrated(model, []) == Scaled()
    with pytest.raises(UserError, match="dimmed cannot be calibrated on no samples"):
        Dimmed().calibrated(model, [])


def test_parts_are_stored_apart_and_only_what_is_missing_is_learned(lab, tmp_path):
    model, layout, inputs = prepared(lab)

    @dataclass(frozen=True)
    class Faded(Dimmed):
        name: ClassVar[str] = "faded"

    untrained = join_interventions([Faded(share=0.5), Scaled(), Dimmed()])
    passes = passes_of(model, [(layout, inputs)])
    origin = {"model": {"name": "tiny"}, "requests": "abc"}
    done = untrained.calibrated(model, passes, origin)
    done.save_learned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["learned.dimmed.safetensors", "learned.faded.safetensors"]
    assert untrained.load_learned(tmp_path, origin) == untrained.load_learned(tmp_path) == done
    assert Scaled().load_learned(tmp_path, origin) == Scaled()

    (tmp_path / "learned.dimmed.safetensors").unlink()
    half = untrained.load_learned(tmp_path, origin)
    assert [part.is_ready for part in half.parts] == [True, True, False]
    runs = []
    noted = [(layout, lambda: runs.append(logits(model, inputs)))]
    assert half.calibrated(model, noted, origin) == done
    assert len(runs) == 1, "the part that has learned does not learn again"
    for other in ({**origin, "requests": "abd"}, {**origin, "model": {"name": "large"}}):
        with pytest.raises(EvidenceError, match=r"faded\.safetensors was learned from something else \(differs in "):
            untrained.load_learned(tmp_path, other)
    with pytest.raises(EvidenceError, match=r"differs in parameters"):
        Faded(share=0.25).load_learned(tmp_path)


def test_learned_state_that_is_not_sound_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"What dimmed learned is not finite \(norm\)"):
        LearnedState.of("dimmed", {"norm": [1.0, np.nan]}, ["a"], [])
    state = LearnedState.of("dimmed", {"norm": [1.0, 2.0]}, ["a"], ["b"])
    path = tmp_path / "state.safetensors"
    state.save(path)
    with pytest.raises(UserError, match="is what dimmed learned, and cannot be used by fastv"):
        LearnedState.load(path, "fastv")
    with pytest.raises(UserError, match=r"Cannot read .*nowhere"):
        LearnedState.load(tmp_path / "nowhere", "dimmed")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not the learned state of an intervention, or is damaged; remove it, and"):
        LearnedState.load(path, "dimmed")
    assert LearnedState.of("dimmed", {"norm": [1.0, 2.5]}, ["a"], ["b"]) != state


def test_a_boolean_parameter_of_an_intervention_can_be_false():
    assert parse_values("scaled", fields_of(Scaled), {"act": "false", "every": "3"}) == {"act": False, "every": 3}
    with pytest.raises(ParameterError, match="act of scaled must be true or false, not 'no'"):
        parse_values("scaled", fields_of(Scaled), {"act": "no"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "2", None, True])
def test_a_parameter_is_checked_when_an_intervention_is_made(value):
    with pytest.raises(ParameterError, match="by of scaled must be a finite number, not "):
        Scaled(by=value)


def test_numbers_of_numpy_become_pythons_own_as_facts_are_written_as_json():
    made = Scaled(by=np.float32(0.5), every=np.int64(2))
    assert (type(made.by), type(made.every)) == (float, int)
    assert json.loads(json.dumps(made.facts)) == {"name": "scaled", "by": 0.5, "every": 2, "act": True}


def test_what_is_joined_names_the_part_that_has_still_to_learn(lab):
    model, layout, inputs = prepared(lab)
    with pytest.raises(UserError, match=r"^dimmed has learned nothing yet; calibrate it"):
        under(join_interventions([Scaled(), Dimmed()]), model, layout, inputs)
    joined = join_interventions([Scaled(), Shifted()])
    assert joined.members == (Scaled(), Shifted())
    assert Scaled().members == (Scaled(),)


FAMILIES = ("qwen2.5-vl", "llava-1.5", "gemma3", "internvl", "paligemma", "idefics3")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_instruction_ends_before_the_templates_tail(lab, family):
    _, layout, _ = prepared(lab, family)
    _, processor = lab.load(family)
    for row, end, (_, text) in zip(layout.ids, layout.instruction_end.tolist(), lab.ROWS, strict=True):
        upto = processor.tokenizer.decode(row[: end + 1])
        assert "".join(upto.split()).endswith("".join(text.split()))
        before = processor.tokenizer.decode(row[:end])
        assert not "".join(before.split()).endswith("".join(text.split()))
    longer = layout.extended([5, 6, 7])
    assert longer.length == layout.length + 3
    assert torch.equal(longer.instruction_end, layout.instruction_end)
    assert longer.attended[:, -3:].all()
    assert not longer.visual[:, -3:].any()


def test_a_prompt_without_its_question_has_no_known_end(lab):
    _, layout, _ = prepared(lab)
    with pytest.raises(UnsupportedModelError, match=r"does not show its question .*'something else' at its end"):
        _ = replace(layout, questions=("something else", "?")).instruction_end
    assert not layout.padding_share.any()
    with pytest.raises(UnsupportedModelError, match="It is unknown which visual tokens show padding"):
        _ = replace(layout, find_padding=padding_unknown).padding_share
