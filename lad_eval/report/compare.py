"""Paired comparisons as text for people and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import fill

from lad_eval.errors import UserError, did_you_mean
from lad_eval.metrics import Comparison, compare, holm
from lad_eval.report.forms import terminal
from lad_eval.report.table import EMPTY, SOFT_HYPHEN, Cell, Table, figure, interval_note
from lad_eval.run.folder.stored import StoredRun, load_run
from lad_eval.terminal import counted, visible


def comparisons_as_json(pairs: Sequence[Comparison]) -> str:
    """A list of objects; differences are first minus second, in points, as {value, low, high}."""
    documents = [
        {name: value._asdict() if hasattr(value, "_asdict") else value for name, value in vars(pair).items()} for pair in pairs
    ]
    return json.dumps(_without_nan(documents), indent=2, allow_nan=False)


_WIDTH = 80
_HEADERS = (
    "First\n− second",
    "Accuracy\n[95 %]",
    "RStd",
    f"Consis{SOFT_HYPHEN}tency",
    "All right:\n1st / 2nd",
    "All right:\np (Holm)",
    f"Detec{SOFT_HYPHEN}table",
)


def comparisons_as_text(
    pairs: Sequence[Comparison],
    position: Mapping[str, float] | None = None,
    runs: Sequence[Path] = (),
    width: int | None = None,
) -> str:
    """The comparison as text, with notes 80 columns wide.

    Args:
        pairs: of methods.
        position: p-values of the test of "position does not matter", by method or run.
        runs: folders of the compared runs, whose titles are printed above the table.
        width: columns of the terminal, in which long names are wrapped; None: they stay on one line.

    Raises:
        UserError: one of the runs is not finished.
    """
    without_positions = any(_lacks_rstd(run) for run in runs)
    rows = [
        [
            Cell(pair.first, f"{visible(pair.first)}\n− {visible(pair.second)}"),
            Cell(None, f"{pair.accuracy.value:+.1f}\n[{pair.accuracy.low:+.1f}, {pair.accuracy.high:+.1f}]"),
            Cell(None, EMPTY if without_positions else f"{pair.rstd.value:+.1f}"),
            Cell(None, f"{pair.consistency.value:+.1f}"),
            Cell(None, f"{pair.only_first} / {pair.only_second}"),
            Cell(None, f"{pair.p_value:.2g}\n({pair.p_holm:.2g})"),
            figure(pair.detectable),
        ]
        for pair in pairs
    ]
    notes = [
        "Accuracy (mean over orders), RStd and consistency: first minus second, in points.",
        "All right: samples that are right under every order, only by the first / only by the second method; p: exact McNemar "
        f"test on these counts, not on accuracy; in brackets after Holm's correction over {len(pairs)} "
        f"comparison{'s' if len(pairs) > 1 else ''}. Whether accuracy differs, its interval says; the report "
        "judges by an exact paired test over samples, corrected over all methods of the run, which takes more samples.",
        "Detectable: the smallest true difference in accuracy that this many samples detect with power 0.8 at 0.05.",
    ]
    if position:
        tested = ", ".join(f"{name} {p:.2g}" for name, p in position.items())
        notes.append(f'Does position matter? Permutation test of "it does not", p: {tested}.')
    ends = [(pair.accuracy.low, pair.accuracy.high) for pair in pairs]
    remark = interval_note(min(map(_samples, runs)), ends) if runs else None
    notes += [remark] if remark else []
    table = terminal(Table("", _HEADERS, rows), width).plain
    return "\n\n".join(["\n".join(map(title_of, runs)), table, *(fill(note, _WIDTH) for note in notes)]).lstrip()


def title_of(run: Path) -> str:
    """Task, model and number of samples of a run, on one line.

    Raises:
        UserError: there is no finished run.
    """
    stored = load_run(run)
    figures = next(iter(stored.metrics["methods"].values()))
    size = f"{counted(figures['samples'], 'sample')} x {counted(figures['permutations'], 'order')}"
    return f"{stored.metrics['task']} · {stored.metrics['model']} · {size}"


def _samples(run: Path) -> int:
    """The smallest number of samples that a method of a run was measured on."""
    return min(int(figures["samples"]) for figures in load_run(run).metrics["methods"].values())


def _lacks_rstd(run: Path) -> bool:
    """Whether a run has no figures by position, as its options keep their letters."""
    return any(figures["rstd"]["value"] is None for figures in load_run(run).metrics["methods"].values())


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def compare_runs(
    runs: Sequence[Path], methods: Sequence[str] | None = None, *, against: str | None = None, seed: int = 42
) -> list[Comparison]:
    """The methods of one run pair by pair, or each method in one run against itself in another; corrected by Holm together.

    Args:
        runs: one folder, or two.
        methods: default: all of the run.
        against: in one run, compare every method with this one only.
        seed: of the bootstrap.

    Raises:
        UserError: not one or two runs, a method is missing, there is nothing to compare, or the runs have different questions.
    """
    if not 1 <= len(runs) <= 2:
        raise UserError(f"compare takes one run or two, not {len(runs)}.")
    stored = [load_run(path) for path in runs]
    if len(stored) == 1:
        names = list(methods or stored[0].methods)
        if against is not None and against not in stored[0].methods:
            raise UserError(
                f"The run in {stored[0].path} has no method {against!r}, only {', '.join(stored[0].methods)}."
                f"{did_you_mean(against, stored[0].methods)}"
            )
        names += [against] if against is not None and against not in names else []
        if len(names) < 2:
            raise UserError(f"There is nothing to compare {', '.join(names)} with; name two methods, or two runs.")
        return compare({name: stored[0].predictions_of(name) for name in names}, against=against, seed=seed)
    if against is not None:
        raise UserError("Two runs are compared method by method; --against goes with one run.")
    shared = [name for name in stored[0].methods if name in stored[1].methods]
    labels = _labels(stored)
    pairs = [
        pair
        for name in methods or shared
        for pair in compare(
            {f"{label}: {name}": run.predictions_of(name) for label, run in zip(labels, stored, strict=True)}, seed=seed
        )
    ]
    if not pairs:
        raise UserError(f"{runs[0]} and {runs[1]} have no method in common.")
    corrected = holm([pair.p_value for pair in pairs])
    return [replace(pair, p_holm=float(p)) for pair, p in zip(pairs, corrected, strict=True)]


def position_p_values(runs: Sequence[Path], methods: Sequence[str] | None = None) -> dict[str, float]:
    """P-values of the test of "position does not matter", as the runs stored them, by the names of `compare_runs`."""
    stored = [load_run(path) for path in runs]
    labels = [f"{label}: " for label in _labels(stored)] if len(stored) == 2 else [""]
    p_values = {
        f"{label}{name}": run.metrics["methods"].get(name, {}).get("position_test", {}).get("p_value")
        for run, label in zip(stored, labels, strict=True)
        for name in methods or [name for name in stored[0].methods if name in stored[-1].methods]
    }
    return {name: p for name, p in p_values.items() if p is not None}


def _labels(runs: Sequence[StoredRun]) -> tuple[str, str]:
    """The shortest names that distinguish two runs."""
    models = tuple(run.metrics["model"] for run in runs)
    folders = tuple(f"{run.metrics['model']}/{run.metrics['run'][:6]}" for run in runs)
    first, second = (
        models if len(set(models)) == len(runs) else folders if len(set(folders)) == len(runs) else ("first", "second")
    )
    return first, second
