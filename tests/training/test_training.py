"""Answers and training on a tiny random model, with the real trl and peft."""

from __future__ import annotations

import json
import re
import threading
import types

import pytest
import torch

from lad_eval.attention.cross_image.capl import Capl
from lad_eval.attention.hooks import around_attention, hooks_in_all_threads
from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.methods import make_method
from lad_eval.models.registry import load_model
from lad_eval.run.execute import warn_of_attention
from lad_eval.tasks.leakage import shown_pictures
from lad_eval.tasks.registry import load_task
from lad_eval.training.answers import training_samples
from lad_eval.training.batches import LAYOUT, PairCollator
from lad_eval.training.dpo import TrainingOptions, fused_step, target_modules, train_adapter
from lad_eval.training.folder import CHECKPOINTS
from tests.training.examples import MODEL, TASK, examples


def test_training_samples_share_nothing_with_evaluated_ones():
    task = load_task(TASK)
    train, test = list(training_samples(task, 30)), list(task.samples("test"))
    assert len(train) == 30
    assert not shown_pictures(train) & shown_pictures(test)
    assert not {sample.id for sample in train} & {sample.id for sample in test}


def test_a_batch_has_the_evaluated_prompts_and_the_bare_answers():
    vlm = load_model(MODEL)
    rows = examples(2)
    collate = PairCollator(vlm.model, vlm.preparation, rows, end=7, pad=0)
    batch = collate([{"row": 0}, {"row": 1}])
    assert batch["input_ids"].shape[0] == 4
    prompt = vlm.preparation([request for request, _ in rows] * 2)
    answers = [pair.chosen for _, pair in rows] + [pair.rejected for _, pair in rows]
    for row, (ids, mask, position) in enumerate(zip(batch["input_ids"], batch["completion_mask"], answers, strict=True)):
        assert ids[mask == 0].tolist() == prompt.inputs["input_ids"][row].tolist()
        assert tuple(ids[mask == 1].tolist()) == (*prompt.trie.candidates[position], 7)
    assert batch[LAYOUT].length == batch["input_ids"].shape[1]


def test_only_the_language_model_is_adapted():
    model = load_model(MODEL).model
    adapted = [name for name, _ in model.named_modules() if re.fullmatch(target_modules(model), name)]
    assert len(adapted) == 7 * 3
    assert all("language_model.layers" in name for name in adapted)


def test_fused_calls_are_counted_where_layers_are_recomputed_too():
    vlm = load_model(MODEL)
    batch = PairCollator(vlm.model, vlm.preparation, examples(1), end=7, pad=0)([{"row": 0}])
    layout = batch.pop(LAYOUT)
    batch.pop("completion_mask")
    gradients = []
    for checkpointing in (False, True):
        model = load_model(MODEL).model.train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        with fused_step(model, Capl(), layout, 1 + checkpointing):
            model(**batch, use_cache=False).logits[:, -1].logsumexp(-1).sum().backward()
        gradients.append(model.get_decoder().layers[0].self_attn.q_proj.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-4)
    with (
        pytest.raises(UnsupportedModelError, match="a training step made 5 attention calls, and 10 were expected"),
        torch.no_grad(),
        fused_step(vlm.model, Capl(), layout, 2),
    ):
        vlm.model(**batch, use_cache=False)


def test_hooks_act_in_other_threads_when_shared():
    vlm = load_model(MODEL)
    calls = []

    def count(call, run):
        calls.append(call.layer)
        return run(call.query, call.mask)

    def run():
        with torch.no_grad():
            vlm.model(input_ids=torch.ones(1, 4, dtype=torch.long))

    def elsewhere():
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return len(calls)

    with around_attention(vlm.model, count):
        assert elsewhere() == 0
        with hooks_in_all_threads():
            assert elsewhere() == 3
        assert elsewhere() == 3


@pytest.mark.slow
def test_a_training_that_was_stopped_ends_in_the_same_adapter(tmp_path, monkeypatch):
    pytest.importorskip("trl")
    from safetensors.torch import load_file

    import lad_eval.training.dpo as dpo

    options = TrainingOptions(batch_size=2, pairs_at_once=1, save_every=1, learning_rate=1e-3)
    rows = examples(6)

    def train(name, **changes):
        given = {"base": MODEL, "made_from": {}, "options": options, **changes}
        return train_adapter(load_model(MODEL), rows, tmp_path / name, **given)

    whole = load_file(train("whole") / "adapter_model.safetensors")
    assert all("vision" not in name and "visual" not in name for name in whole)
    assert any(tensor.abs().max() > 0 for name, tensor in whole.items() if "lora_B" in name)
    steps, real = [], dpo.fused_step

    def stopped(*arguments):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(dpo, "fused_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train("cut")
    # A checkpoint that a kill cut off, later than the whole one, is passed over.
    broken = tmp_path / "cut" / CHECKPOINTS / "checkpoint-9"
    broken.mkdir()
    (broken / "trainer_state.json").write_text("{")
    monkeypatch.setattr(dpo, "fused_step", real)
    again = load_file(train("cut") / "adapter_model.safetensors")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert not (tmp_path / "cut" / CHECKPOINTS).exists()
    assert json.loads((tmp_path / "cut" / "training.json").read_text())["attention"] == Capl().facts
    adapted = load_model(MODEL, adapter=str(tmp_path / "cut"))
    assert adapted.fingerprint["adapter_attention"] == Capl().facts
    with pytest.raises(UserError, match=r"holds another training \(its attention differs\); choose another --out"):
        train("whole", attention=Capl(rho=0.5))


def test_an_adapter_that_is_run_without_its_attention_is_named_in_a_warning(caplog):
    model = types.SimpleNamespace(name="base+adapter", fingerprint={"adapter_attention": Capl().facts})
    for methods, warned in ((("vanilla", "capl(rho=0.5)"), True), (("vanilla", "capl+lad"), False)):
        caplog.clear()
        warn_of_attention(model, [make_method(name) for name in methods])
        assert (
            "was trained under capl(rho=0.95, weight=0.5, every=2), and no method runs it under that" in caplog.text
        ) == warned
    warn_of_attention(types.SimpleNamespace(name="base", fingerprint={}), [make_method("vanilla")])
