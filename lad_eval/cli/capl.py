"""`lad-eval capl`: preference learning on cross-image attention, from answers to an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lad_eval.cli.console import log_next_steps, log_to_stderr, quiet_libraries
from lad_eval.cli.options import ImagePreparation, IncludePath, Model, PreparedAs, Quiet, Revision, Tasks, TrustRemoteCode, listed
from lad_eval.errors import UserError
from lad_eval.terminal import write

if TYPE_CHECKING:
    from lad_eval.attention.cross_image.capl import Capl

app = typer.Typer(
    name="capl",
    help="Train a model to prefer answers given with attention between images: answers, train, merge.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Attention = Annotated[
    str, typer.Option("--attention", help="Of chosen answers and of the training on them: capl(rho=0.95, weight=0.5, every=2).")
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, or auto: a GPU if there is one.")]
Dtype = Annotated[str, typer.Option("--dtype", help="float32, bfloat16, or auto: float32 on the CPU, else bfloat16.")]


@app.command("answers")
def answers(
    model: Model,
    tasks: Tasks,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for answers and pairs; an interrupted run resumes there.", file_okay=False)
    ],
    pairs: Annotated[
        int, typer.Option("--pairs", min=1, help="Number of pairs, the same for each (chosen, rejected) position.")
    ] = 200,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The most training samples of each task.")] = 2000,
    attention: Attention = "capl",
    unbalanced: Annotated[bool, typer.Option("--unbalanced", help="Answer each request alone; keep all pairs.")] = False,
    batch_size: Annotated[str, typer.Option("--batch-size", help="Requests per pass, or auto.")] = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    image_preparation: PreparedAs = ImagePreparation.protocol,
    trust_remote_code: TrustRemoteCode = False,
    include_path: IncludePath = None,
    quiet: Quiet = False,
) -> None:
    """Chosen answers under fused attention, rejected ones under truncated attention, balanced over positions."""
    quiet_libraries(quiet=quiet)
    log_to_stderr(quiet=quiet)
    from lad_eval.models.base import check_batch_size
    from lad_eval.models.registry import load_model
    from lad_eval.tasks.registry import load_task, resolve
    from lad_eval.training.answers import collect_pairs
    from lad_eval.training.pairs import counts_table

    chosen_under = _capl(attention)
    opened = [load_task(name) for name in resolve(listed(tasks, "tasks"))]
    vlm = load_model(
        model,
        revision=revision,
        device=device,
        dtype=dtype,
        batch_size=check_batch_size(batch_size),
        image_preparation=image_preparation.value,
        trust_remote_code=trust_remote_code,
    )
    made = collect_pairs(vlm, opened, out, wanted=pairs, limit=limit, chosen_under=chosen_under, unbalanced=unbalanced)
    write(f"{counts_table(made.counts)}\n{len(made.pairs)} pairs of {made.requests} answers\n")
    log_next_steps(f"lad-eval capl train --model {model} --pairs {out} --out adapter", written=out)


@app.command("train")
def train(
    model: Model,
    pairs: Annotated[Path, typer.Option("--pairs", help="A folder written by `lad-eval capl answers`.", file_okay=False)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the adapter; an interrupted training resumes there.", file_okay=False)
    ],
    beta: Annotated[float, typer.Option("--beta", help="Beta of DPO.")] = 0.1,
    nll_weight: Annotated[
        float, typer.Option("--nll-weight", help="Weight of the chosen answer's negative log-likelihood.")
    ] = 1.0,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Peak learning rate.")] = 5e-6,
    epochs: Annotated[float, typer.Option("--epochs", help="Passes over the pairs.")] = 1.0,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Pairs per optimizer step, over all processes.")] = 16,
    pairs_at_once: Annotated[int, typer.Option("--pairs-at-once", help="Pairs per forward pass.")] = 4,
    rank: Annotated[int, typer.Option("--rank", help="Rank of LoRA.")] = 16,
    alpha: Annotated[int, typer.Option("--alpha", help="Alpha of LoRA.")] = 32,
    checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Recompute activations in the backward pass, for less memory.")
    ] = False,
    save_every: Annotated[int, typer.Option("--save-every", help="Steps between checkpoints.")] = 5,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the initial weights and of the order of pairs.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    image_preparation: PreparedAs = ImagePreparation.protocol,
    trust_remote_code: TrustRemoteCode = False,
    include_path: IncludePath = None,
    quiet: Quiet = False,
) -> None:
    """An adapter trained by DPO on the pairs, with fused attention in policy and reference; needs the extra `train`."""
    quiet_libraries(quiet=quiet)
    log_to_stderr(quiet=quiet)
    from lad_eval.models.huggingface import HuggingFaceVLM
    from lad_eval.models.registry import load_model
    from lad_eval.tasks.registry import load_task
    from lad_eval.training.batches import examples_of
    from lad_eval.training.dpo import TrainingOptions, check_packages, train_adapter
    from lad_eval.training.pairs import PairSet, attention_of, check_balance, check_made_with

    check_packages()
    options = TrainingOptions(
        beta=beta,
        nll_weight=nll_weight,
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        pairs_at_once=pairs_at_once,
        rank=rank,
        alpha=alpha,
        checkpointing=checkpointing,
        save_every=save_every,
        seed=seed,
    )
    stored = PairSet.load(pairs)
    if not stored.unbalanced:
        check_balance(stored.pairs, stored.candidates)
    opened = {name: load_task(name) for name in dict.fromkeys(pair.task for pair in stored.pairs)}
    examples = examples_of(stored, opened)
    vlm = load_model(
        model,
        revision=revision,
        device=device,
        dtype=dtype,
        image_preparation=image_preparation.value,
        trust_remote_code=trust_remote_code,
    )
    if not isinstance(vlm, HuggingFaceVLM):
        raise UserError(f"{model} cannot be trained: only models that transformers loads can.")
    check_made_with(stored, vlm.fingerprint)
    trained_under = attention_of(stored)
    train_adapter(vlm, examples, out, base=model, made_from=stored.made_from, attention=trained_under, options=options)
    log_next_steps(
        f"lad-eval run --model {model} --adapter {out} --tasks {','.join(opened)} --methods 'vanilla,{trained_under.label}'",
        written=out,
    )


@app.command("merge")
def merge(
    model: Model,
    adapter: Annotated[str, typer.Option("--adapter", help="Folder or hub id of a PEFT adapter.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the model that is made.", file_okay=False)],
    device: Device = "cpu",
    dtype: Dtype = "auto",
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    quiet: Quiet = False,
) -> None:
    """A model folder of the base with the adapter in its weights, and of what it was trained under; needs the extra `peft`."""
    quiet_libraries(quiet=quiet)
    log_to_stderr(quiet=quiet)
    from lad_eval.models.huggingface import HuggingFaceVLM
    from lad_eval.models.registry import load_model
    from lad_eval.training.merge import check_new, save_merged

    check_new(out)  # before a model is loaded
    vlm = load_model(model, revision=revision, adapter=adapter, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    if not isinstance(vlm, HuggingFaceVLM):
        raise UserError(f"{model} cannot be merged: only models that transformers loads can.")
    save_merged(vlm, out)
    log_next_steps(f"lad-eval run --model {out} --tasks TASK", written=out)


def _capl(text: str) -> Capl:
    """The attention that an option names.

    Raises:
        UserError: it is not `capl`, whatever its parameters.
    """
    from lad_eval.attention.cross_image.capl import Capl
    from lad_eval.attention.interventions import parse_intervention

    made = parse_intervention(text)
    if type(made) is not Capl:
        raise UserError(f"--attention takes capl, with parameters such as capl(rho=0.9), not {text!r}.")
    return made
