"""Comparisons of a baseline with the present state, without input and output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from lad_eval.evidence.table import difference
from lad_eval.metrics import UNPARSABLE, Change, Grid, changes
from lad_eval.regression.baseline import QuestionDigests, TaskBaseline
from lad_eval.regression.text import NAMES, CheckFinding, CheckResult, Compared, Flip, Rule
from lad_eval.tasks.prompts import identifiers


@dataclass(frozen=True)
class Now:
    """What determines the questions now; None for what could not be read here."""

    version: int
    definition: str
    prompt: str
    data: str | None
    requests: str | None


def changed_questions(task: str, base: QuestionDigests, now: Now) -> list[CheckFinding]:
    """Findings for changes in what determines the questions of a task."""
    if now.version != base.version:
        text = f"its version is {now.version}, the baseline's {base.version}: renew the baseline, and say why"
        return [CheckFinding("outdated", task, None, text)]
    changed = {
        "prompt": None if now.prompt == base.prompt else f"from {base.prompt!r} to {now.prompt!r}",
        "definition": None if now.definition == base.definition else f"digest {base.definition} is now {now.definition}",
        "data": None if now.data in (None, base.data) else f"digest {base.data[:16]} is now {str(now.data)[:16]}",
        "requests": None if now.requests in (None, base.requests) else f"digest {base.requests} is now {now.requests}",
    }
    return [
        CheckFinding(
            "asked", task, None, f"its {what} changed without a new version ({how}): raise `version`, or undo the change"
        )
        for what, how in changed.items()
        if how is not None
    ]


class Pair(NamedTuple):
    """One method on one task: the baseline's answers and the new ones, to the same samples in the same orders."""

    task: str
    method: str
    before: Grid
    now: Grid


def pair_up(result: CheckResult, task: str, base: TaskBaseline, grids: Mapping[str, Grid]) -> list[Pair]:
    """Compares each method's answers with the baseline's; a finding is added to the result where they cannot be compared.

    Args:
        result: findings are added to it.
        task: its name.
        base: the baseline's part.
        grids: by method, now.
    """
    pairs = []
    for method in base.methods:
        grid, before = grids[method], base.chosen(method)
        if grid.sample_id.tolist() != base.samples or grid.chosen.shape != before.shape:
            result.findings.append(CheckFinding("samples", task, method, "its samples or orders are different"))
        elif not np.array_equal(grid.gold_image, base.gold):
            result.findings.append(CheckFinding("samples", task, method, "the right images of its samples are different"))
        else:
            pairs.append(Pair(task, method, _with(grid, before), grid))
    return pairs


def judge(result: CheckResult, pairs: Sequence[Pair]) -> None:
    """Adds the differences of all answers of a check from the baseline's to a result; Holm's correction covers all of them.

    A replay fails on any flip, a fresh run by the result's rule.

    Args:
        result: changes are added to it.
        pairs: all of the check.
    """
    rule = result.rule
    measured = changes([(pair.before, pair.now) for pair in pairs], level=rule.level)
    for pair, of_pair in zip(pairs, measured, strict=True):
        (S, T), flipped = pair.now.chosen.shape, pair.before.chosen != pair.now.chosen
        count = int(flipped.sum())
        result.compared.append(Compared(pair.task, pair.method, S, T, count, of_pair))
        result.flips += _flips(pair)
        if result.replayed and count:
            text = f"{count} of {flipped.size} decisions flipped, on {int(flipped.any(axis=1).sum())} samples"
            result.findings.append(CheckFinding("flipped", pair.task, pair.method, text))
        if not result.replayed:
            failed = [change for change in of_pair if rule.fails(change)]
            result.findings += [CheckFinding(c.figure, pair.task, pair.method, _worse(c, rule)) for c in failed]
    if rule.max_drop is not None:
        result.warnings += _too_small(result, rule.max_drop)


def _worse(change: Change, rule: Rule) -> str:
    off = change.difference
    text = (
        f"{NAMES[change.figure]} {change.before:.1f} is now {change.now:.1f}, {off.value:+.1f} [{off.low:+.1f}, {off.high:+.1f}]"
    )
    if rule.max_drop is None:
        return f"{text}, p = {change.p_holm:.2g} (Holm)"
    return f"{text}: a drop of more than {rule.max_drop:g} points is not excluded"


def _too_small(result: CheckResult, max_drop: float) -> list[str]:
    """Warns of each task with too few samples to exclude such a drop."""
    warnings = []
    for task, block in groupby(result.compared, key=lambda compared: compared.task):
        group = list(block)
        samples = group[0].samples
        widest, figure, method = max(
            (c.half_width, NAMES[c.figure], compared.method) for compared in group for c in compared.changes
        )
        # If no sample changed, the interval is a point, although so few samples could have missed a drop.
        unseen = 100 * (1 - ((1 - result.rule.level) / 2) ** (1 / samples))
        if widest > max_drop:
            needed = math.ceil(samples * (widest / max_drop) ** 2) if max_drop else None
            cure = f"about {needed:,} samples would suffice" if needed else "no number of samples would suffice"
            why = f"the interval of {figure} ({method}) alone reaches {widest:.1f} points to either side; {cure}"
        elif unseen > max_drop:
            why = f"a drop of up to {unseen:.1f} points may show on none of them"
        else:
            continue
        warnings.append(
            f"{task}: {samples} sample{' is' if samples == 1 else 's are'} too few for --max-drop {max_drop:g}: {why}"
        )
    return warnings


def _with(grid: Grid, chosen: Any) -> Grid:
    """The grid with other choices of images."""
    place = np.argsort(grid.perm, axis=2)
    position = np.take_along_axis(place, np.maximum(chosen, 0)[:, :, None], axis=2)[:, :, 0]
    return grid._replace(chosen=chosen, predicted=np.where(chosen == UNPARSABLE, UNPARSABLE, position))


def _flips(pair: Pair) -> list[Flip]:
    names, gold = identifiers("A..", pair.now.n_candidates), pair.now.gold_image
    before, now = pair.before.chosen, pair.now.chosen

    def named(image: Any) -> str | None:
        return None if image == UNPARSABLE else names[image]

    return [
        Flip(
            task=pair.task,
            method=pair.method,
            sample=str(pair.now.sample_id[s]),
            order=" ".join(names[image] for image in pair.now.perm[s, t]),
            gold=names[gold[s]],
            before=named(before[s, t]),
            now=named(now[s, t]),
        )
        for s, t in np.argwhere(before != now).tolist()
    ]


def environment_changes(result: CheckResult, task: str, base: TaskBaseline, fingerprint: Mapping[str, Any]) -> None:
    """Notes differences of the environment; a chat template that changed with the same weights is a finding."""
    then, now = dict(base.fingerprint), dict(fingerprint)
    if then.get("weights") == now.get("weights") and then.get("chat_template") != now.get("chat_template"):
        text = "its chat template changed while the model's weights did not: renew the baseline, or undo the change"
        result.findings.append(CheckFinding("asked", task, None, text))
    then, now = ({key: _short(value) for key, value in fingerprint.items()} for fingerprint in (then, now))
    versions = difference(then.pop("versions", {}), now.pop("versions", {}))
    differences = [f"versions: {versions}" if versions else "", f"model: {others}" if (others := difference(then, now)) else ""]
    result.notes += [note for text in differences if text and (note := f"{text} (baseline, and now)") not in result.notes]


def _short(value: Any) -> Any:
    """The first characters of a digest, for notes."""
    return value[:19] if isinstance(value, str) and value.startswith("sha256:") else value
