"""What a check found, as text for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby

from lad_eval.run.check_verdict import Compared, Flip, Verdict

SHOWN = 20


def verdict_as_json(verdict: Verdict) -> str:
    """One object: passed, findings, compared, flips (all of them), notes."""
    document = {
        "passed": verdict.passed,
        "replayed": verdict.replayed,
        "findings": [asdict(finding) for finding in verdict.findings],
        "compared": [{**asdict(found), "difference": found.difference._asdict()} for found in verdict.compared],
        "flips": [{**asdict(flip), "effect": flip.effect} for flip in verdict.flips],
        "notes": verdict.notes,
    }
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)


def verdict_as_text(verdict: Verdict, *, shown: int = SHOWN) -> str:
    """Figures then and now, the flips (`shown` of each method and task), the findings, and the outcome in the last line."""
    parts = [_table(list(block)) for _, block in groupby(verdict.compared, key=lambda found: found.task)]
    parts += [_flips(list(block), shown) for _, block in groupby(verdict.flips, key=lambda flip: (flip.task, flip.method))]
    if verdict.notes:
        parts.append("\n".join(f"note: {note}" for note in verdict.notes))
    if verdict.findings:
        parts.append("\n".join(_lines(verdict)))
    parts.append(_outcome(verdict))
    return "\n\n".join(parts)


def _lines(verdict: Verdict) -> Iterable[str]:
    for finding in verdict.findings:
        where = finding.task if finding.method is None else f"{finding.task}, {finding.method}"
        yield f"FAILED {where}: {finding.text}."


def _table(block: Sequence[Compared]) -> str:
    from tabulate import tabulate

    rows = [
        [
            found.method,
            f"{found.before:.1f}",
            f"{found.now:.1f}",
            f"{found.difference.value:+.1f} [{found.difference.low:+.1f}, {found.difference.high:+.1f}]",
            f"{found.p_value:.2g}",
            str(found.flipped),
        ]
        for found in block
    ]
    table = tabulate(
        rows,
        headers=["Method", "Baseline", "Now", "Difference", "p", "Flipped"],
        tablefmt="simple",
        disable_numparse=True,
        colalign=("left", *["right"] * 5),
    )
    return f"{block[0].task} · {block[0].samples} samples x {block[0].orders} orders, accuracy\n{table}"


def _flips(block: Sequence[Flip], shown: int) -> str:
    samples = len({flip.sample for flip in block})
    count = f"{len(block)} decision{'s' if len(block) > 1 else ''} flipped on {samples} sample{'s' if samples > 1 else ''}"
    lines = [f"{block[0].task}, {block[0].method}: {count} (images from 0)"]
    lines += [
        f"  {flip.sample}  order {flip.order}: {_image(flip.before)} -> {_image(flip.now)}, right is {flip.gold}: {flip.effect}"
        for flip in block[:shown]
    ]
    if len(block) > shown:
        lines.append(f"  ... and {len(block) - shown} more; --json lists them all")
    return "\n".join(lines)


def _image(image: int | None) -> str:
    return "none" if image is None else str(image)


def _outcome(verdict: Verdict) -> str:
    tasks = len({found.task for found in verdict.compared})
    what = f"{len(verdict.compared)} comparison{_s(len(verdict.compared))} on {tasks} task{_s(tasks)}"
    how = "decided again from stored evidence" if verdict.replayed else "asked anew"
    flips = len(verdict.flips)
    flipped = f"{flips or 'no'} decision{_s(flips)} flipped"
    if verdict.passed:
        return f"ok: {what}, {how}; {flipped}."
    return f"{len(verdict.findings)} fault{_s(len(verdict.findings))} in {what}, {how}; {flipped}."


def _s(count: int) -> str:
    return "" if count == 1 else "s"
