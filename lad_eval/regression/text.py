"""The result of a check, and its reports: as text for people and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby, zip_longest
from typing import Literal

from lad_eval.metrics import Change, Figure
from lad_eval.report.forms import terminal
from lad_eval.report.table import Cell, Content, Table

SHOWN = 5
ROWS_SHOWN = 20

Kind = Literal["asked", "outdated", "samples", "flipped", "accuracy", "consistency", "rstd", "unparsable"]

NAMES: dict[Figure, str] = {"accuracy": "accuracy", "consistency": "consistency", "rstd": "RStd", "unparsable": "unparsable"}

MEASURED: tuple[Figure, ...] = ("accuracy", "consistency", "rstd")


@dataclass(frozen=True)
class Rule:
    """When a fresh run fails.

    Attributes:
        level: confidence level of the intervals; 1 - level is the chance of a false alarm of all significance tests together.
        max_drop: points; a figure fails if its interval does not exclude a larger drop. None: a figure fails if it became
            significantly worse.
    """

    level: float = 0.95
    max_drop: float | None = None

    def fails(self, change: Change) -> bool:
        """Whether a figure became too much worse."""
        if self.max_drop is not None:
            return not change.largest_drop <= self.max_drop + 1e-9  # an unknown bound excludes nothing
        return change.drop > 0 and change.p_holm < 1 - self.level

    def improved(self, change: Change) -> bool:
        """Whether it became significantly better."""
        return change.drop < 0 and change.p_holm < 1 - self.level


@dataclass(frozen=True)
class CheckFinding:
    """One reason to fail: what kind, where, and a sentence; `method` is None if it concerns the whole task."""

    kind: Kind
    task: str
    method: str | None
    text: str


@dataclass(frozen=True)
class Flip:
    """One decision that differs from the baseline's; images are A, B, C, ... in the order of the data, None for no answer."""

    task: str
    method: str
    sample: str
    order: str
    gold: str
    before: str | None
    now: str | None

    @property
    def effect(self) -> str:
        """What the flip did: "lost", "won" or "still wrong"."""
        return "lost" if self.before == self.gold else "won" if self.now == self.gold else "still wrong"


@dataclass(frozen=True)
class Compared:
    """One method on one task, then and now."""

    task: str
    method: str
    samples: int
    orders: int
    flipped: int
    changes: tuple[Change, ...]


@dataclass
class CheckResult:
    """The result of a check; it passed if `findings` is empty."""

    replayed: bool
    rule: Rule = Rule()
    compared: list[Compared] = field(default_factory=list)
    findings: list[CheckFinding] = field(default_factory=list)
    flips: list[Flip] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.findings

    @property
    def changes(self) -> list[tuple[Compared, Change]]:
        """All figures that were compared."""
        return [(compared, change) for compared in self.compared for change in compared.changes]

    def detectable(self, figure: Figure, task: str) -> float:
        """The smallest drop of a figure, in points, that would have been noticed for any method of a task.

        Methods whose figure cannot drop that far do not count; NaN if none is left.
        """
        every = [c.detectable for compared, c in self.changes if c.figure == figure and compared.task == task]
        return max((points for points in every if math.isfinite(points)), default=math.nan)

    @property
    def smallest(self) -> dict[Figure, float]:
        """`detectable` on the task where it is smallest, by figure."""
        tasks = dict.fromkeys(compared.task for compared in self.compared)
        every = {name: [self.detectable(name, task) for task in tasks] for name in MEASURED}
        return {name: min(filter(math.isfinite, points), default=math.nan) for name, points in every.items()}


def result_as_json(result: CheckResult) -> str:
    """One JSON object: the result in one line, all figures, and every flip."""
    rule = result.rule
    document = {
        "result": result_line(result),
        "passed": result.passed,
        "replayed": result.replayed,
        "level": rule.level,
        "max_drop": rule.max_drop,
        "detectable": {name: _known(points) for name, points in result.smallest.items()},
        "findings": [asdict(finding) for finding in result.findings],
        "compared": [
            {**asdict(compared), "changes": [_change(result, change) for change in compared.changes]}
            for compared in result.compared
        ],
        "flips": [{**asdict(flip), "effect": flip.effect} for flip in result.flips],
        "warnings": result.warnings,
        "notes": result.notes,
    }
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)


def _change(result: CheckResult, change: Change) -> dict[str, object]:
    document: dict[str, object] = {**asdict(change), "difference": change.difference._asdict()}
    document["detectable"] = _known(change.detectable)
    document["failed"] = not result.replayed and result.rule.fails(change)
    document["improved"] = result.rule.improved(change)
    return document


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def result_as_text(result: CheckResult, *, shown: int = SHOWN) -> str:
    """The result in the first line, then what failed, at most `shown` examples of flipped decisions, warnings and notes."""
    lines = [result_line(result)]
    if result.passed:
        lines += [] if result.replayed else _resolution(result)
    else:
        lines += [f"  {_where(finding)}: {finding.text}" for finding in _others(result)]
        lines += _failed(result)
    lines += [f"better: {text}" for text in _better(result)]
    lines += [f"warning: {text}" for text in result.warnings]
    lines += [f"note: {text}" for text in result.notes]
    return "\n".join([*lines, *_examples(result, shown)])


def result_line(result: CheckResult) -> str:
    """Passed or failed, why, and the smallest change that would have been noticed."""
    outcome = (
        "FAILED" if not result.passed else f"ok, with {_count(warned, 'warning')}" if (warned := len(result.warnings)) else "ok"
    )
    others = len(_others(result))
    faults = f"{_count(others, 'fault')} in what is compared; " if others else ""
    if result.replayed:
        return f"{outcome}: {faults}{_flipped(result)}, decided again from stored evidence; one would have been noticed."
    return f"{outcome}: {faults}{_outcome(result)}. {_noticeable(result)}"


def _others(result: CheckResult) -> list[CheckFinding]:
    """Findings that are not in a table."""
    return [finding for finding in result.findings if finding.kind not in {*NAMES, "flipped"}]


def _outcome(result: CheckResult) -> str:
    failed = sum(result.rule.fails(change) for _, change in result.changes)
    tasks = len({compared.task for compared in result.compared})
    where = f"{_count(len(result.changes), 'comparison')} on {_count(tasks, 'task')}"
    if result.rule.max_drop is None:
        return f"{failed} of {where} became significantly worse" if failed else f"nothing became significantly worse in {where}"
    drop = f"a drop of more than {result.rule.max_drop:g} points is"
    return f"{drop} not excluded in {failed} of {where}" if failed else f"{drop} excluded in {where}"


def _noticeable(result: CheckResult) -> str:
    accuracy, consistency, rstd = result.smallest.values()
    if not any(map(math.isfinite, (accuracy, consistency, rstd))):
        return "No change would have been noticed: there are too few samples for so many comparisons."
    falls = f"accuracy {_points(accuracy)}, consistency {_points(consistency)}, rise of RStd {_points(rstd)} points"
    return f"Smallest noticeable drop: {falls}."


def _points(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "none"


def _flipped(result: CheckResult) -> str:
    decisions = sum(compared.samples * compared.orders for compared in result.compared)
    return f"{len(result.flips)} of {_count(decisions, 'decision')} flipped in {_count(len(result.compared), 'comparison')}"


def _resolution(result: CheckResult) -> list[str]:
    """The smallest noticeable changes by task."""
    blocks = [(task, next(iter(block))) for task, block in groupby(result.compared, key=lambda compared: compared.task)]
    rows = [
        [task, str(compared.samples), *(_points(result.detectable(name, task)) for name in MEASURED)] for task, compared in blocks
    ]
    headers = ["Noticeable on", "Samples", "Accuracy", "Consistency", "RStd"]
    return [*_table(headers, rows, words=1), f"{_flipped(result)}, from a fresh run."]


def _failed(result: CheckResult) -> list[str]:
    if result.replayed:
        flipped = [compared for compared in result.compared if compared.flipped]
        rows = [[f.task, f.method, f"{f.flipped} of {f.samples * f.orders}"] for f in flipped]
        return _table(["Task", "Method", "Flipped"], rows, words=2)
    rows = [
        [
            compared.task,
            compared.method,
            NAMES[change.figure],
            f"{change.before:.1f}",
            f"{change.now:.1f}",
            f"{change.difference.value:+.1f} [{change.difference.low:+.1f}, {change.difference.high:+.1f}]",
            f"{change.p_holm:.2g}",
            _points(change.detectable),
        ]
        for compared, change in result.changes
        if result.rule.fails(change)
    ]
    headers = [
        "Task",
        "Method",
        "Figure",
        "Baseline",
        "Now",
        f"Difference [{100 * result.rule.level:g} %]",
        "p (Holm)",
        "Noticeable",
    ]
    return _table(headers, rows, words=3)


def _better(result: CheckResult) -> Iterator[str]:
    if result.replayed:
        return
    for compared in result.compared:
        gains = [
            f"{NAMES[c.figure]} {c.before:.1f} -> {c.now:.1f} [{c.difference.low:+.1f}, {c.difference.high:+.1f}]"
            for c in compared.changes
            if result.rule.improved(c)
        ]
        if gains:
            yield f"{compared.task}, {compared.method}: {', '.join(gains)}"


def _examples(result: CheckResult, shown: int) -> list[str]:
    """Flips of what failed, lost answers first, for as many methods as fit."""
    failed = {(finding.task, finding.method) for finding in result.findings}
    flips = [flip for flip in result.flips if (flip.task, flip.method) in failed]
    flips.sort(key=lambda flip: (flip.task, flip.method, flip.effect != "lost"))
    blocks = [list(block) for _, block in groupby(flips, key=lambda flip: (flip.task, flip.method))]
    in_turn = [flip for round_ in zip_longest(*blocks) for flip in round_ if flip is not None][:shown]
    lines = [f"  {_example(flip)}" for flip in in_turn]
    more = len(flips) - len(lines)
    return [*(["Examples:"] if lines else []), *lines, *([f"  ... and {more:,} more; --json lists them all"] if more else [])]


def _example(flip: Flip) -> str:
    chosen = f"{flip.before or 'none'} -> {flip.now or 'none'}, right is {flip.gold}: {flip.effect}"
    return f"{flip.task}, {flip.method}: {flip.sample} shown as {flip.order}: {chosen}"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, words: int) -> list[str]:
    """Lines of a table; the first `words` columns hold text, the others figures. Rows beyond `ROWS_SHOWN` are counted."""
    if not rows:
        return []
    more = len(rows) - ROWS_SHOWN
    shown: list[list[Content]] = [[*row[:words], *(Cell(None, text) for text in row[words:])] for row in rows[:ROWS_SHOWN]]
    table = terminal(Table("", headers, shown), width=None).plain
    return [*table.splitlines(), *([f"... and {more} more; --json has them all"] if more > 0 else [])]


def _where(finding: CheckFinding) -> str:
    return finding.task if finding.method is None else f"{finding.task}, {finding.method}"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
