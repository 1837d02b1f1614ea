"""What a trainer is given, what it must not be given, and what is refused in one line."""

from __future__ import annotations

import json
import threading

import pytest
import torch

from lad_eval.attention.cross_image.capl import Capl
from lad_eval.cli.main import invoke
from lad_eval.errors import DataError, UnsupportedModelError, UserError
from lad_eval.models.registry import load_model
from lad_eval.training import dpo
from lad_eval.training.batches import LAYOUT, PairCollator
from lad_eval.training.dpo import TrainingOptions, fused_step, train_adapter
from lad_eval.training.folder import CHECKPOINTS
from lad_eval.training.pairs import PAIRS, PairSet
from tests.training.examples import MODEL, examples, write_pairs

pytest.importorskip("trl")


def train(folder, rows=2, **changes):
    options = TrainingOptions(**{"batch_size": 1, "pairs_at_once": 1, **changes})
    return train_adapter(load_model(MODEL), examples(rows), folder, base=MODEL, made_from={}, options=options)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_trainer_cuts_no_prompt_and_has_both_losses(tmp_path, checkpointing):
    options = TrainingOptions(nll_weight=0.5, beta=0.2, checkpointing=checkpointing)
    arguments = dpo._trainer(load_model(MODEL), examples(1), tmp_path, Capl(), options).args
    assert arguments.max_length is None
    assert (arguments.loss_type, arguments.loss_weights, arguments.beta) == (["sigmoid", "sft"], [1.0, 0.5], 0.2)
    assert (arguments.bf16, arguments.fp16, arguments.gradient_checkpointing) == (False, False, checkpointing)
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == options.batch_size
    assert not arguments.precompute_ref_log_probs
    assert not arguments.remove_unused_columns


@pytest.mark.parametrize(
    ("device", "dtype", "mixed"),
    [
        ("cpu", "float32", []),
        ("cpu", "bfloat16", []),
        ("cuda", "float32", []),
        ("cuda", "bfloat16", ["bf16"]),
        ("cuda", "float16", ["fp16"]),
    ],
)
def test_mixed_precision_is_that_of_a_model_on_a_gpu(device, dtype, mixed):
    options = dpo._precision(device, getattr(torch, dtype))
    assert [name for name in ("bf16", "fp16") if options[name]] == mixed
    assert options["use_cpu"] == (device == "cpu")


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_policy_and_reference_are_fused_and_counted(tmp_path, monkeypatch, checkpointing, passes):
    train(tmp_path / "right", checkpointing=checkpointing)
    real = dpo.fused_step
    # As if attention were fused in one pass too few or too many.
    monkeypatch.setattr(dpo, "fused_step", lambda model, how, layout, known: real(model, how, layout, known + passes - 2))
    with pytest.raises(UnsupportedModelError, match=r"a training step made \d+ attention calls, and \d+ were expected"):
        train(tmp_path / "wrong", checkpointing=checkpointing)


def test_a_step_is_fused_in_the_threads_that_compute_its_backward_pass():
    vlm = load_model(MODEL)
    batch = PairCollator(vlm.model, vlm.preparation, examples(1), end=7, pad=0)([{"row": 0}])
    layout = batch.pop(LAYOUT)
    batch.pop("completion_mask")

    def run():
        with torch.no_grad():
            vlm.model(**batch, use_cache=False)

    with fused_step(vlm.model, Capl(), layout, 2):
        run()
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()


def test_a_loss_that_is_no_number_stops_the_training_and_leaves_no_adapter(tmp_path):
    with pytest.raises(UserError, match=r"The training diverged: .* Train in another --out with a lower --learning-rate"):
        train(tmp_path / "adapter", rows=8, learning_rate=1e30, epochs=4)
    assert not (tmp_path / "adapter" / "adapter_model.safetensors").exists()


def test_weights_that_the_last_step_made_no_numbers_are_not_saved(tmp_path):
    with pytest.raises(UserError, match=r"the adapter's weights are not finite after the last step"):
        train(tmp_path / "adapter", rows=2, learning_rate=1e300)
    assert not (tmp_path / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("name", ["beta", "learning_rate", "epochs", "nll_weight"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_options_that_are_no_amounts_are_refused(name, value):
    with pytest.raises(UserError, match=rf"{name.replace('_', '-')} must be .* and finite, not {value}"):
        TrainingOptions(**{name: value})


def test_a_folder_of_something_else_is_kept_as_it_is(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"is not empty: it holds config\.json; choose another --out"):
        train(tmp_path)
    assert not (tmp_path / CHECKPOINTS).exists()
    assert (tmp_path / "config.json").read_text() == "{}"


def refused(capsys, folder, *words):
    code = invoke(["capl", "train", "-m", MODEL, "--pairs", str(folder), "--out", str(folder.parent / "adapter"), *words])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert not (folder.parent / "adapter").exists()
    return code, line


def test_pairs_that_cannot_be_trained_on_are_refused_in_one_line(tmp_path, capsys):
    folder = write_pairs(tmp_path / "pairs", 8)
    pairs = PairSet.load(folder)
    uneven = [pair for pair in pairs.pairs if pair.chosen == 0]
    foreign = {**pairs.made_from, "model": {**pairs.made_from["model"], "model": "another", "weights": "sha256:0"}}
    faults = {
        "uneven": ({"pairs": tuple(uneven)}, "4 of 4 pairs prefer position 1 to position 2, more than the 75 %"),
        "empty": ({"pairs": ()}, "No pair was found"),
        "foreign": ({"made_from": foreign}, "The pairs are answers of another, not of these weights of random:qwen2.5-vl"),
        "other": ({"limit": 1}, "pairs, such as that of "),
    }
    for name, (changes, text) in faults.items():
        code, line = refused(capsys, write_pairs(tmp_path / name, 8, **changes))
        assert code == 2
        assert text in line
    for content, text in (("{", "it is not JSON"), (None, "Cannot read"), ("{}", "another version of lad_eval")):
        (folder / PAIRS).unlink(missing_ok=True)
        if content is not None:
            (folder / PAIRS).write_text(content)
        code, line = refused(capsys, folder)
        assert (code, text in line) == (2, True)


@pytest.mark.parametrize("change", [{"pairs": [{"chosen": 0}]}, {"pairs": 3}, {"candidates": 1}, {"limit": None}])
def test_pairs_that_were_edited_into_something_else_are_refused(tmp_path, change):
    folder = write_pairs(tmp_path / "pairs", 2)
    document = json.loads((folder / PAIRS).read_text())
    document.pop("checksum")
    document |= change
    if document["limit"] is None:
        del document["limit"]
    (folder / PAIRS).write_text(json.dumps(document))
    with pytest.raises(DataError, match="does not hold pairs; make them with `lad-eval capl answers`"):
        PairSet.load(folder)
