"""What a check found, and how it is told: as text for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Literal

from lad_eval.metrics import Estimate

SHOWN = 20

Kind = Literal["asked", "outdated", "samples", "flipped", "accuracy", "unparsable"]


@dataclass(frozen=True)
class Finding:
    """One reason to fail: what kind, where, and a sentence; `method` is None where it concerns the whole task."""

    kind: Kind
    task: str
    method: str | None
    text: str


@dataclass(frozen=True)
class Flip:
    """One decision that is not the baseline's; images and positions from 0, None for no answer."""

    task: str
    method: str
    sample: str
    order: str
    gold: int
    before: int | None
    now: int | None

    @property
    def effect(self) -> str:
        """What the flip did: "lost", "won" or "still wrong"."""
        return "lost" if self.before == self.gold else "won" if self.now == self.gold else "still wrong"


@dataclass(frozen=True)
class Compared:
    """One method on one task, then and now, in points; `difference` is now minus then, paired."""

    task: str
    method: str
    samples: int
    orders: int
    before: float
    now: float
    difference: Estimate
    p_value: float
    flipped: int


@dataclass
class Verdict:
    """Everything a check found; it passed if nothing is in `findings`."""

    replayed: bool
    compared: list[Compared] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    flips: list[Flip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.findings


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
