"""`lad-eval run`: run a model on the tasks once, evaluate every method, write and print the results."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from lad_eval.cli.console import log_next_steps, set_up_output
from lad_eval.cli.options import (
    RESULTS,
    Adapter,
    Attention,
    BaseUrl,
    BatchSize,
    Columns,
    Concurrency,
    Config,
    Date,
    Device,
    DeviceMap,
    Dtype,
    ExtraBody,
    ImagePreparation,
    IncludePath,
    Json,
    Methods,
    Model,
    PreparedAs,
    Quiet,
    Reported,
    Revision,
    Run,
    Runs,
    Seed,
    SomeMethods,
    Tasks,
    Timeout,
    TrustRemoteCode,
    columns_of,
    expanded,
    json_object,
    limit_of,
    listed,
    model_options,
)
from lad_eval.errors import UserError
from lad_eval.models.prompts.date import DEFAULT_DATE


class Overwrite(str, Enum):
    """What to do with existing results of a run."""

    never = "never"
    missing = "missing"
    always = "always"


def run(
    context: typer.Context,
    model: Model,
    tasks: Tasks,
    methods: Methods = None,
    limit: Annotated[
        str | None,
        typer.Option("--limit", metavar="NUMBER", help="Only the first samples of each task: 100, or 0.1 for a tenth."),
    ] = None,
    batch_size: BatchSize = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    attn: Attention = None,
    revision: Revision = None,
    adapter: Adapter = None,
    image_preparation: PreparedAs = ImagePreparation.protocol,
    trust_remote_code: TrustRemoteCode = False,
    date: Date = DEFAULT_DATE,
    model_args: Annotated[
        str | None,
        typer.Option("--model-args", help="As in lm-eval: pretrained=<model>,dtype=bfloat16,... with --model hf."),
    ] = None,
    runs: Runs = RESULTS,
    overwrite: Annotated[
        Overwrite,
        typer.Option("--overwrite", help="missing: resume; never: only show what is finished; always: start over."),
    ] = Overwrite.missing,
    seed: Seed = 42,
    calibrate_on: Annotated[
        str | None, typer.Option("--calibrate-on", help="Take the calibration samples from another task with as many candidates.")
    ] = None,
    reported: Reported = False,
    base_url: BaseUrl = None,
    concurrency: Concurrency = None,
    timeout: Timeout = None,
    extra_body: ExtraBody = None,
    columns: Columns = None,
    json: Json = False,
    quiet: Quiet = False,
    config: Config = None,
    include_path: IncludePath = None,
) -> None:
    """Evaluate a model on tasks, with all methods from one pass of the model."""
    set_up_output(quiet=quiet)
    from lad_eval import evaluation
    from lad_eval.methods import names_of
    from lad_eval.models.base import check_batch_size

    names = None if methods is None else listed(methods, "methods")
    shown = columns_of(columns, names or ())
    options: dict[str, Any] = {
        "model": model,
        "batch_size": check_batch_size(batch_size),
        "dtype": dtype,
        "device": device,
        "device_map": device_map,
        "attn_implementation": attn,
        "revision": revision,
        "adapter": adapter,
        "image_preparation": image_preparation.value,
        "trust_remote_code": trust_remote_code,
        "date": date,
        "base_url": base_url,
        "concurrency": concurrency,
        "timeout": timeout,
        "extra_body": json_object(extra_body),
    }
    if model_args is not None:
        options |= model_options(model_args, model)
    result = evaluation.evaluate(
        tasks=listed(tasks, "tasks"),
        methods=None if names is None else expanded(names, names_of("evidence"), "method"),
        limit=limit_of(limit),
        runs=runs,
        overwrite=overwrite.value,
        seed=seed,
        calibrate_on=calibrate_on,
        reported=reported,
        progress=not quiet,
        **options,
    )
    if result.rows:
        from lad_eval.cli.options import show_rows

        show_rows(result.rows, "json" if json else "rich", shown)
        folder = next(iter(result.folders.values()))
        steps = ["lad-eval report"]
        if len(named := {row.method for row in result.rows}) > 1 and "vanilla" in named:
            steps.append(f"lad-eval compare {_shortest(folder)} --against vanilla")
        log_next_steps(*steps, written=folder.parent.parent)


def _shortest(folder: Path) -> Path:
    """The folder of a run's task if it holds only this run; otherwise the run's own."""
    from lad_eval.run.folder.stored import find_run

    try:
        return folder.parent if find_run(folder.parent) == folder else folder
    except UserError:
        return folder


def score(
    run: Run,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Parameters, e.g. 'lad(top_k=4)'; may be repeated.")] = None,
    methods: Annotated[str | None, typer.Option("--methods", help="Default: those of the run.")] = None,
    seed: Seed = 42,
    reported: Reported = False,
    columns: Columns = None,
    json: Json = False,
    include_path: IncludePath = None,
) -> None:
    """Evaluate other methods or parameters on a run's stored evidence; no model is needed."""
    from lad_eval.cli.console import quiet_libraries
    from lad_eval.cli.options import show_rows
    from lad_eval.methods import names_of
    from lad_eval.run.folder.rows import reported_rows, rows_of
    from lad_eval.run.folder.stored import load_run
    from lad_eval.run.results import rescore

    quiet_libraries(quiet=False)
    names = None if methods is None else expanded(listed(methods, "methods"), names_of("evidence"), "method")
    shown = columns_of(columns, names or ())
    metrics = rescore(run, names, settings=set_ or (), seed=seed)
    temporary = reported_rows(metrics) if reported else []
    show_rows([*rows_of(metrics), *temporary], "json" if json else "rich", shown)
    if set(metrics["methods"]) <= set(load_run(run).methods):
        log_next_steps("lad-eval report")
    else:
        decided = ",".join(metrics["methods"])
        log_next_steps(f"these results are not stored; to store them, repeat the run's command with --methods '{decided}'")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="One run folder: its methods pair by pair. Two: the same method in both.")],
    methods: SomeMethods = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Compare every method with this one only, e.g. vanilla.")
    ] = None,
    json: Json = False,
    include_path: IncludePath = None,
) -> None:
    """Paired tests between the methods of a run, or between two runs, corrected for their number (Holm)."""
    from lad_eval.cli.console import terminal_width
    from lad_eval.report.compare import compare_runs, comparisons_as_json, comparisons_as_text, position_p_values
    from lad_eval.run.folder.stored import load_run
    from lad_eval.terminal import write, write_json

    names = None if methods is None else expanded(listed(methods, "methods"), load_run(runs[0]).methods, "method")
    pairs = compare_runs(runs, names, against=against)
    if json:
        write_json(comparisons_as_json(pairs))
    else:
        write(comparisons_as_text(pairs, position_p_values(runs, names), runs, terminal_width()) + "\n")
    log_next_steps("lad-eval report")


MOVED = 1
CONFIDENCE = 0.95


def check(
    baseline: Annotated[
        Path, typer.Argument(help="The baseline's file, such as results/baselines/lad-tiny.json.", dir_okay=False)
    ],
    replay: Annotated[
        bool, typer.Option("--replay", help="Replay decisions from stored evidence: no model, takes seconds.")
    ] = False,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", help="Replay the runs in this folder; default: the baseline's own evidence.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="The model to check, such as a new checkpoint.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="See `lad-eval run`.")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="Default: the baseline's.")] = None,
    attn: Annotated[str | None, typer.Option("--attn", help="Default: the baseline's.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Default: the baseline's.")] = None,
    batch_size: Annotated[str, typer.Option("--batch-size", help="See `lad-eval run`.")] = "auto",
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="See `lad-eval run`.")] = False,
    runs: Annotated[
        Path | None, typer.Option("--runs", help="Keep the runs in this folder, and resume them.", file_okay=False)
    ] = None,
    confidence: Annotated[
        float,
        typer.Option(
            "--confidence",
            help="Confidence level of the intervals; 1 - level is the family-wise false-alarm rate.",
            min=0.5,
            max=0.9999,
        ),
    ] = CONFIDENCE,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            metavar="POINTS",
            help="Fail if an interval does not exclude a larger drop of accuracy or consistency, or rise of RStd.",
            min=0,
            max=100,
        ),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Create or renew the baseline from a fresh run.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Why it is written; stored in the file.")] = None,
    tasks: Annotated[str | None, typer.Option("--tasks", "-t", help="Tasks to write; default: the baseline's.")] = None,
    methods: Annotated[str | None, typer.Option("--methods", help="Methods to write; default: those of `run`.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Samples to write; default: all.")] = None,
    no_evidence: Annotated[bool, typer.Option("--no-evidence", help="Write no evidence for replays.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
    quiet: Quiet = False,
    include_path: IncludePath = None,
) -> int:
    """Fail (exit code 1) if a model became worse than its baseline: less accurate or consistent, more biased."""
    set_up_output(quiet=quiet)
    replayed = replay or evidence is not None
    named = {"device": device, "dtype": dtype, "attn": attn, "revision": revision, "trust_remote_code": trust_remote_code or None}
    options: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    tolerance = confidence != CONFIDENCE or max_drop is not None
    fresh = model or options or runs or batch_size != "auto" or tolerance
    _refuse_contradictions(replayed, write, reason, tasks or methods or limit or no_evidence, fresh)
    if write and tolerance:
        raise typer.BadParameter("--confidence and --max-drop judge a fresh run against the baseline; --write makes a baseline.")
    from lad_eval.regression import check as work

    if not replayed:
        from lad_eval.models.base import check_batch_size

        options["batch_size"] = check_batch_size(batch_size)
    how = work.CheckOptions(model, options, runs, quiet)
    if write:
        made = work.write(baseline, how, reason or "", _questions(tasks, methods, limit), with_evidence=not no_evidence)
        if made is not None:
            _say_written(baseline, *made, json=json)
        return 0
    from lad_eval.regression.text import Rule, result_as_json, result_as_text

    result = work.replay(baseline, evidence) if replayed else work.check(baseline, how, Rule(confidence, max_drop))
    if result is None:
        return 0
    from lad_eval.terminal import write as print_text
    from lad_eval.terminal import write_json

    if json:
        write_json(result_as_json(result))
    else:
        print_text(result_as_text(result) + "\n")
    return 0 if result.passed else MOVED


def _refuse_contradictions(replay: bool, write: bool, reason: str | None, only_to_write: object, only_fresh: object) -> None:
    if write and replay:
        raise typer.BadParameter("--write runs the model and cannot --replay stored evidence; give one of the two.")
    if replay and only_fresh:
        raise typer.BadParameter(
            "A replay runs no model and has no tolerance: only --evidence, --json and --quiet go with --replay."
        )
    if write and not (reason or "").strip():
        raise typer.BadParameter("--write needs --reason 'why the answers may change'; it is stored in the baseline.")
    if not write and (reason is not None or only_to_write):
        raise typer.BadParameter("--reason, --tasks, --methods, --limit and --no-evidence go with --write.")


def _questions(tasks: str | None, methods: str | None, limit: int | None) -> Any:
    from lad_eval.methods.groups import members_of
    from lad_eval.regression.check import Questions

    if tasks is None:
        if methods or limit:
            raise typer.BadParameter("--methods and --limit need --tasks, to which they apply.")
        return None
    named = None if methods is None else tuple(members_of(listed(methods, "methods")))
    return Questions(tuple(listed(tasks, "tasks")), named, limit)


def _say_written(path: Path, baseline: Any, result: Any, *, json: bool) -> None:
    from lad_eval.regression.text import result_as_json, result_as_text
    from lad_eval.terminal import write as print_text
    from lad_eval.terminal import write_json

    if json:
        write_json(result_as_json(result))
        return
    if result.compared:
        print_text(f"Against the previous baseline:\n\n{result_as_text(result)}\n\n")
    print_text(f"Wrote {path}: {', '.join(baseline.tasks)}; {baseline.renewals[-1].reason}\n")
