"""`lad-eval check`: does a model still answer as its baseline says?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lad_eval.cli.options import Quiet, listed

MOVED = 1
CONFIDENCE = 0.95


def check(
    baseline: Annotated[
        Path, typer.Argument(help="The baseline's file, such as results/baselines/lad-tiny.json.", dir_okay=False)
    ],
    replay: Annotated[bool, typer.Option("--replay", help="Decide again from stored evidence: no model, seconds.")] = False,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", help="Replay the runs in this folder; default: what the baseline keeps.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Ask this one, such as a new checkpoint.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="As for `run`.")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="Default: the baseline's.")] = None,
    attn: Annotated[str | None, typer.Option("--attn", help="Default: the baseline's.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Default: the baseline's.")] = None,
    batch_size: Annotated[str, typer.Option("--batch-size", help="As for `run`.")] = "auto",
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="As for `run`.")] = False,
    runs: Annotated[
        Path | None, typer.Option("--runs", help="Keep the runs in this folder, and go on with them.", file_okay=False)
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
            help="Fail where an interval does not exclude a larger drop of accuracy or consistency, or rise of RStd.",
            min=0,
            max=100,
        ),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Make or renew the baseline from a fresh run.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Why it is written; kept in the file.")] = None,
    tasks: Annotated[str | None, typer.Option("--tasks", "-t", help="Tasks to write; default: the baseline's.")] = None,
    methods: Annotated[str | None, typer.Option("--methods", help="Methods to write; default: those of `run`.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Samples to write; default: all.")] = None,
    no_evidence: Annotated[bool, typer.Option("--no-evidence", help="Write no evidence to replay.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the verdict as one JSON object.")] = False,
    quiet: Quiet = False,
) -> int:
    """Fail (exit code 1) where a model became worse than its baseline: less accurate or consistent, more biased."""
    from lad_eval.cli.main import listen
    from lad_eval.run.silence import hush_libraries

    listen(quiet=quiet)
    hush_libraries(quiet=quiet)
    replayed = replay or evidence is not None
    given = {"device": device, "dtype": dtype, "attn": attn, "revision": revision, "trust_remote_code": trust_remote_code or None}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    tolerance = confidence != CONFIDENCE or max_drop is not None
    fresh = model or options or runs or batch_size != "auto" or tolerance
    _refuse_contradictions(replayed, write, reason, tasks or methods or limit or no_evidence, fresh)
    if write and tolerance:
        raise typer.BadParameter("--confidence and --max-drop judge a fresh run against the baseline; --write makes a baseline.")
    from lad_eval.run import check as work

    if not replayed:
        from lad_eval.models.base import check_batch_size

        options["batch_size"] = check_batch_size(batch_size)
    how = work.Circumstances(model, options, runs, quiet)
    if write:
        made = work.write(baseline, how, reason or "", _questions(tasks, methods, limit), with_evidence=not no_evidence)
        if made is not None:
            _say_written(baseline, *made, json=json)
        return 0
    from lad_eval.report.verdict import Rule, verdict_as_json, verdict_as_text

    verdict = work.replay(baseline, evidence) if replayed else work.check(baseline, how, Rule(confidence, max_drop))
    if verdict is None:
        return 0
    from lad_eval.terminal import write as print_text
    from lad_eval.terminal import write_json

    if json:
        write_json(verdict_as_json(verdict))
    else:
        print_text(verdict_as_text(verdict) + "\n")
    return 0 if verdict.passed else MOVED


def _refuse_contradictions(replay: bool, write: bool, reason: str | None, only_to_write: object, only_fresh: object) -> None:
    if write and replay:
        raise typer.BadParameter("--write asks the model anew and cannot --replay.")
    if replay and only_fresh:
        raise typer.BadParameter(
            "A replay asks no model and knows no tolerance: only --evidence, --json and --quiet go with --replay."
        )
    if write and not (reason or "").strip():
        raise typer.BadParameter("--write needs --reason 'why the answers may change'; it is kept in the baseline.")
    if not write and (reason is not None or only_to_write):
        raise typer.BadParameter("--reason, --tasks, --methods, --limit and --no-evidence go with --write.")


def _questions(tasks: str | None, methods: str | None, limit: int | None) -> Any:
    from lad_eval.cli.run import DEFAULT_METHODS
    from lad_eval.run.check import Questions

    if tasks is None:
        if methods or limit:
            raise typer.BadParameter("--methods and --limit need --tasks: they are of these tasks.")
        return None
    return Questions(tuple(listed(tasks, "tasks")), tuple(listed(methods or DEFAULT_METHODS, "methods")), limit)


def _say_written(path: Path, baseline: Any, verdict: Any, *, json: bool) -> None:
    from lad_eval.report.verdict import verdict_as_json, verdict_as_text
    from lad_eval.terminal import write as print_text
    from lad_eval.terminal import write_json

    if json:
        write_json(verdict_as_json(verdict))
        return
    if verdict.compared:
        print_text(f"Against the baseline before:\n\n{verdict_as_text(verdict)}\n\n")
    print_text(f"Wrote {path}: {', '.join(baseline.tasks)}; {baseline.renewals[-1].reason}\n")
