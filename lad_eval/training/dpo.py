"""Trains a LoRA adapter on pairs by DPO, with fused attention switched on in the policy and in the reference model."""

from __future__ import annotations

import logging
import math
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lad_eval.attention.cross_image.capl import Capl
from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.extras import install_command
from lad_eval.training.folder import CHECKPOINTS, SETTINGS, begin, finish, is_finished, last_checkpoint, only_process_in

if TYPE_CHECKING:
    from lad_eval.attention.hooks import AttentionCall, AttentionOutput, Run
    from lad_eval.attention.layout import PromptLayout
    from lad_eval.models.huggingface import HuggingFaceVLM
    from lad_eval.tasks.request import Request
    from lad_eval.training.pairs import AnswerPair

_LOG = logging.getLogger(__name__)
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class TrainingOptions:
    """How an adapter is trained; the paper gives only the rank (arXiv 2603.07048), the rest is chosen here.

    Attributes:
        beta: of DPO (arXiv 2305.18290, Eq. 7).
        nll_weight: of the mean negative log-likelihood of the chosen answer, added to DPO's loss.
        learning_rate: peak, after a warm-up of a tenth of the steps; a cosine to 0 follows.
        epochs: passes over the pairs.
        batch_size: pairs per optimizer step, over all processes.
        pairs_at_once: pairs per forward pass.
        rank: of LoRA, on the projections of the language model only.
        alpha: of LoRA.
        checkpointing: recompute activations in the backward pass, for less memory.
        save_every: steps between checkpoints, from which a killed training resumes.
        seed: of the adapter's initial weights and of the order of the pairs.
    """

    beta: float = 0.1
    nll_weight: float = 1.0
    learning_rate: float = 5e-6
    epochs: float = 1.0
    batch_size: int = 16
    pairs_at_once: int = 4
    rank: int = 16
    alpha: int = 32
    checkpointing: bool = False
    save_every: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("beta", "learning_rate", "epochs", "batch_size", "pairs_at_once", "rank", "alpha", "save_every"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name.replace('_', '-')} must be above 0 and finite, not {getattr(self, name)!r}.")
        if not 0 <= self.nll_weight < math.inf:
            raise UserError(f"nll-weight must be at least 0 and finite, not {self.nll_weight!r}.")
        if self.batch_size % self.pairs_at_once:
            raise UserError(
                f"The batch size must be a multiple of the pairs at once, {self.pairs_at_once}, not {self.batch_size}: "
                "choose fewer pairs at once (--pairs-at-once), or another batch size."
            )


def check_packages() -> None:
    """Refuses to train without trl and peft.

    Raises:
        UserError: one of them is not installed.
    """
    if missing := [name for name in ("trl", "peft") if find_spec(name) is None]:
        raise UserError(f"Training needs {' and '.join(missing)}: `{install_command('train')}`.")


def train_adapter(
    vlm: HuggingFaceVLM,
    examples: Sequence[tuple[Request, AnswerPair]],
    folder: Path,
    *,
    base: str,
    made_from: Mapping[str, Any],
    attention: Capl | None = None,
    options: TrainingOptions | None = None,
) -> Path:
    """Trains an adapter and saves it, with the attention it was trained under, into a folder.

    The loss is DPO's plus `nll_weight` times the negative log-likelihood of the chosen answer; the reference is the same model
    with the adapter switched off, under the same attention. A training that was killed resumes from its last checkpoint.

    Args:
        vlm: of transformers; its model is changed.
        examples: requests and their pairs.
        folder: of the adapter; created if it is missing.
        base: name of the model, for the adapter's configuration.
        made_from: JSON-serialisable: what determines the pairs.
        attention: of policy and reference; None: `Capl()`.
        options: None: the defaults.

    Raises:
        UserError: trl or peft is missing, or the folder holds another training.
        UnsupportedModelError: the language model has no projections to adapt, or its attention cannot be fused.
    """
    check_packages()
    attention, options = attention or Capl(), options or TrainingOptions()
    settings = {
        "format": 1,
        "model": dict(vlm.fingerprint),
        "attention": attention.facts,
        "options": asdict(options),
        "pairs": [[pair.key, pair.chosen, pair.rejected] for _, pair in examples],
        "made_from": dict(made_from),
    }
    alone = only_process_in(folder, SETTINGS) if int(os.environ.get("RANK", "0")) == 0 else nullcontext()
    with alone, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        begin(folder, settings)
        if is_finished(folder, settings):
            _LOG.info("%s is trained already", folder)
            return folder
        trainer = _trainer(vlm, examples, folder / CHECKPOINTS, attention, options)
        is_main = trainer.is_world_process_zero()
        trainer.train(resume_from_checkpoint=last_checkpoint(folder / CHECKPOINTS, remove=is_main))
        if is_main:
            adapted = trainer.accelerator.unwrap_model(trainer.model)
            _check_finite(adapted)
            adapted.peft_config["default"].base_model_name_or_path = base
            document = {name: settings[name] for name in ("format", "attention", "options", "made_from")}
            document |= {"base": base, "pairs": len(examples), "steps": trainer.state.global_step}
            finish(folder, lambda place: adapted.save_pretrained(str(place)), document)
    return folder


@contextmanager
def fused_step(model: Any, attention: Capl, layout: PromptLayout, passes: int) -> Iterator[None]:
    """Fuses attention in all forward passes of a training step, in any thread, and counts them.

    Args:
        model: of transformers, whose modules the trainer runs.
        attention: the fused attention.
        layout: of the step's rows.
        passes: forward passes of the step: of the policy, of the reference, and recomputed ones.

    Raises:
        UnsupportedModelError: fewer or more attention calls were fused.
    """
    from lad_eval.attention.hooks import around_attention, attending_layers, hooks_in_all_threads

    lock, count = threading.Lock(), 0

    def counted(call: AttentionCall, run: Run) -> AttentionOutput:
        nonlocal count
        with lock:
            count += 1
        return run(call.query, call.mask)

    # `counted` is the inner hook, so that it counts the second passes of `attention`, too.
    with attention.applied(model, layout), around_attention(model, counted), hooks_in_all_threads():
        yield
    expected = passes * (len(attending_layers(model)) + len(attending_layers(model, attention.every)))
    if count != expected:
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be trained under {attention.label}: a training step made {count} attention "
            f"calls, and {expected} were expected."
        )


def target_modules(model: Any) -> str:
    """A regular expression for peft that matches the language model's projections, and none of the vision tower.

    Raises:
        UnsupportedModelError: it has no projections of the usual names.
    """
    from lad_eval.attention.hooks import decoder_layers

    layers = decoder_layers(model)
    prefix = next(name for name, module in model.named_modules() if module is layers)
    names = {name.rpartition(".")[2] for name, _ in layers.named_modules()}
    if not (known := [name for name in _PROJECTIONS if name in names]):
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be trained here: its decoder layers have no modules {', '.join(_PROJECTIONS)}."
        )
    return rf"{prefix.replace('.', '[.]')}[.]\d+[.](?:\w+[.])*(?:{'|'.join(known)})"


def _trainer(
    vlm: HuggingFaceVLM, examples: Sequence[tuple[Request, AnswerPair]], folder: Path, attention: Capl, options: TrainingOptions
) -> Any:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from lad_eval.models.inference.continuation import end_ids
    from lad_eval.training.batches import LAYOUT, PairCollator

    model, processor = vlm.model, vlm.processor
    tokenizer = processor.tokenizer
    end = end_ids(model, tokenizer)[0]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    passes = 3 if options.checkpointing else 2

    class FusedTrainer(DPOTrainer):  # type: ignore[misc]
        """Applies the fused attention for the whole step, backward pass included."""

        def training_step(self, wrapped: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
            layout = inputs.pop(LAYOUT)
            with fused_step(model, attention, layout, passes):
                loss = super().training_step(wrapped, inputs, num_items_in_batch)
            if not loss.isfinite():
                raise _diverged(f"the loss of step {self.state.global_step + 1} is {loss.item()}")
            return loss

    class StepLog(TrainerCallback):  # type: ignore[misc]
        """One line for each optimizer step."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
            if state.is_world_process_zero and logs and "loss" in logs:
                _LOG.info(
                    "step %d of %d: loss %.4f, reward accuracy %.2f, reward margin %.4f",
                    state.global_step,
                    state.max_steps,
                    logs["loss"],
                    logs.get("rewards/accuracies", float("nan")),
                    logs.get("rewards/margins", float("nan")),
                )

    arguments = DPOConfig(
        output_dir=str(folder),
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, options.nll_weight],
        beta=options.beta,
        max_length=None,  # cutting a prompt would cut image tokens
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.pairs_at_once,
        gradient_accumulation_steps=_accumulation(options),
        gradient_checkpointing=options.checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        **_precision(model.device.type, model.dtype),
        seed=options.seed,
        data_seed=options.seed,
        save_strategy="steps",
        save_steps=options.save_every,
        save_total_limit=2,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,  # prompts are prepared with this process's processor
    )
    collator = PairCollator(model, vlm.preparation, examples, end=end, pad=pad)
    trainer = FusedTrainer(
        model=model,
        args=arguments,
        data_collator=collator,
        # The trainer takes a data set with images to be prepared by the collator.
        train_dataset=Dataset.from_list([{"images": [], "row": row} for row in range(len(examples))]),
        processing_class=processor,
        peft_config=LoraConfig(
            r=options.rank,
            lora_alpha=options.alpha,
            lora_dropout=0.0,
            target_modules=target_modules(model),
            task_type="CAUSAL_LM",
        ),
        callbacks=[StepLog()],
    )
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    return trainer


def _precision(device: str, dtype: Any) -> dict[str, bool]:
    """Options of precision, since the trainer's default is mixed precision in bfloat16 on any device."""
    number = str(dtype).removeprefix("torch.")
    return {
        "bf16": device == "cuda" and number == "bfloat16",
        "fp16": device == "cuda" and number == "float16",
        "use_cpu": device == "cpu",
    }


def _accumulation(options: TrainingOptions) -> int:
    """Forward passes per optimizer step in each process."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    at_once = options.pairs_at_once * processes
    if options.batch_size % at_once:
        raise UserError(
            f"The batch size must be a multiple of the pairs at once times the number of processes, {at_once}, "
            f"not {options.batch_size}: choose fewer pairs at once (--pairs-at-once), or another batch size."
        )
    return options.batch_size // at_once


def _check_finite(adapted: Any) -> None:
    """Refuses weights that are not finite after the last step."""
    if not all(weight.isfinite().all() for weight in adapted.parameters() if weight.requires_grad):
        raise _diverged("the adapter's weights are not finite after the last step")


def _diverged(fault: str) -> UserError:
    return UserError(f"The training diverged: {fault}. Train in another --out with a lower --learning-rate or in float32.")
