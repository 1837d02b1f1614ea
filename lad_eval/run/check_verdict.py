"""What differs between a baseline and what is now: pure comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lad_eval.evidence import difference
from lad_eval.metrics import UNPARSABLE, Estimate, Grid, paired_test, resampled_means
from lad_eval.metrics.bootstrap import RESAMPLES, figures, interval, sample_sums
from lad_eval.report.verdict import Compared, Finding, Flip, Kind, Verdict
from lad_eval.run.check_baseline import Asked, TaskBaseline, gold_images


@dataclass(frozen=True)
class Now:
    """What is asked now; None for what could not be looked at here."""

    version: int
    definition: str
    prompt: str
    data: str | None
    requests: str | None


def asked_otherwise(task: str, base: Asked, now: Now) -> list[Finding]:
    """Findings where a task is not what the baseline was made of."""
    if now.version != base.version:
        text = f"its version is {now.version}, the baseline's {base.version}: renew the baseline, and say why"
        return [Finding("outdated", task, None, text)]
    changed = {
        "prompt": None if now.prompt == base.prompt else f"from {base.prompt!r} to {now.prompt!r}",
        "definition": None if now.definition == base.definition else f"digest {base.definition} is now {now.definition}",
        "data": None if now.data in (None, base.data) else f"digest {base.data[:16]} is now {str(now.data)[:16]}",
        "requests": None if now.requests in (None, base.requests) else f"digest {base.requests} is now {now.requests}",
    }
    return [
        Finding("asked", task, None, f"its {what} changed without a new version ({how}): raise `version`, or undo the change")
        for what, how in changed.items()
        if how is not None
    ]


def compare_task(
    verdict: Verdict, task: str, base: TaskBaseline, grids: Mapping[str, Grid], *, level: float, allow_better: bool
) -> None:
    """Adds to a verdict how each method's answers differ from the baseline's.

    A replay fails on any flip; a fresh run on a difference in accuracy whose paired cluster bootstrap interval does not hold 0,
    and on another number of replies without an answer.

    Args:
        verdict: is added to.
        task: its name.
        base: the baseline's part.
        grids: by method, now.
        level: share that the interval holds.
        allow_better: a gain in accuracy, and fewer replies without an answer, are no failure of a fresh run.
    """
    for method in base.methods:
        grid, before = grids[method], base.chosen(method)
        if grid.sample_id.tolist() != base.samples or grid.chosen.shape != before.shape:
            verdict.findings.append(Finding("samples", task, method, "it was asked about other samples or orders"))
            continue
        if not np.array_equal(gold_images(grid), base.gold):
            verdict.findings.append(Finding("samples", task, method, "the right images of its samples are others"))
            continue
        then = _with(grid, before)
        found = _compared(task, method, then, grid, level)
        verdict.compared.append(found)
        verdict.flips += _flips(task, method, then, grid)
        verdict.findings += [Finding(kind, task, method, text) for kind, text in _moved(verdict, found, then, grid, allow_better)]


def _moved(verdict: Verdict, found: Compared, then: Grid, grid: Grid, allow_better: bool) -> list[tuple[Kind, str]]:
    reasons: list[tuple[Kind, str]] = []
    if verdict.replayed:
        if found.flipped:
            samples = int((then.chosen != grid.chosen).any(axis=1).sum())
            reasons.append(("flipped", f"{found.flipped} of {grid.chosen.size} decisions flipped, on {samples} samples"))
        return reasons
    off = found.difference
    if (off.low > 0 and not allow_better) or off.high < 0:
        interval_ = f"[{off.low:+.1f}, {off.high:+.1f}]"
        reasons.append(
            ("accuracy", f"accuracy {found.before:.1f} is now {found.now:.1f}, a difference of {off.value:+.1f} {interval_}")
        )
    before, now = (int((g.chosen == UNPARSABLE).sum()) for g in (then, grid))
    if now > before or (now < before and not allow_better):
        reasons.append(("unparsable", f"{before} replies had no answer, now {now} of {grid.chosen.size}"))
    return reasons


def _with(grid: Grid, chosen: Any) -> Grid:
    """The grid with other choices of images."""
    place = np.argsort(grid.perm, axis=2)
    position = np.take_along_axis(place, np.maximum(chosen, 0)[:, :, None], axis=2)[:, :, 0]
    return grid._replace(chosen=chosen, predicted=np.where(chosen == UNPARSABLE, UNPARSABLE, position))


def _compared(task: str, method: str, then: Grid, grid: Grid, level: float) -> Compared:
    before, now = (figures(sample_sums(g).mean(axis=0)).accuracy for g in (then, grid))
    # As a share of rows per sample only the accuracy is needed, so that thousands of samples take a moment.
    gained = sample_sums(grid)[:, :1] - sample_sums(then)[:, :1]
    low, high = interval(100 * resampled_means(gained, RESAMPLES)[:, 0], level)
    S, T = grid.chosen.shape
    return Compared(
        task=task,
        method=method,
        samples=S,
        orders=T,
        before=float(before),
        now=float(now),
        difference=Estimate(100 * float(gained.mean()), low, high),
        p_value=paired_test(grid.correct, then.correct),
        flipped=int((then.chosen != grid.chosen).sum()),
    )


def _flips(task: str, method: str, then: Grid, grid: Grid) -> list[Flip]:
    gold = gold_images(grid)
    return [
        Flip(
            task=task,
            method=method,
            sample=str(grid.sample_id[s]),
            order=" ".join(map(str, grid.perm[s, t].tolist())),
            gold=int(gold[s]),
            before=_image(then.chosen[s, t]),
            now=_image(grid.chosen[s, t]),
        )
        for s, t in np.argwhere(then.chosen != grid.chosen).tolist()
    ]


def _image(chosen: Any) -> int | None:
    return None if chosen == UNPARSABLE else int(chosen)


def other_circumstances(verdict: Verdict, task: str, base: TaskBaseline, fingerprint: Mapping[str, Any]) -> None:
    """Notes what differs in how the answers came about; a chat template that changed under the same weights is a finding."""
    then, now = dict(base.fingerprint), dict(fingerprint)
    if then.get("weights") == now.get("weights") and then.get("chat_template") != now.get("chat_template"):
        text = "its chat template changed while the model's weights did not: renew the baseline, or undo the change"
        verdict.findings.append(Finding("asked", task, None, text))
    versions = difference(then.pop("versions", {}), now.pop("versions", {}))
    found = [f"versions: {versions}" if versions else "", f"model: {others}" if (others := difference(then, now)) else ""]
    verdict.notes += [note for text in found if text and (note := f"{text} (baseline, and now)") not in verdict.notes]
