"""One row of a table: one method on one task by one model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lad_eval.methods.groups import TEST_SET
from lad_eval.metrics import ALPHA, significance_by


@dataclass(frozen=True)
class Row:
    """Figures of a method; accuracies, RStd and consistency in points (0-100), None where a figure is not defined.

    Attributes:
        samples: evaluated samples, each run under `permutations` displayed orders; None for figures published elsewhere.
        accuracy: mean over permutations; `accuracy_std` over permutations; `accuracy_low` and `accuracy_high` bound its interval.
        unparsable: replies that named no candidate, counted as wrong.
        flip, osi, ckld, rsd, bias_score: see `lad_eval.metrics.audit`; None also in runs of earlier versions.
        d_same, d_cross, delta: the same-order control, see `lad_eval.metrics.same_order`; only `d_cross` is known where each
            order was answered once.
        group, needs: what the method reads, and needs besides one pass, see `lad_eval.methods.groups`.
        forward_passes: decoder passes per query that the method alone would cost.
        p_best: of the exact paired test against the most accurate method shown of the run, corrected by Holm over those shown;
            None for that method, for those with exactly its accuracy, and where there is nothing to test.
        limit: number of samples that were evaluated, from the first; None: all.
        calibrated_on: another task that the calibration samples are from; None: the task itself.
        notes: for readers, on the task's data or the run, one line each.
        reported: published elsewhere, not measured here.
    """

    model: str
    task: str
    method: str
    samples: int | None
    permutations: int | None
    accuracy: float | None
    accuracy_std: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    rstd: float | None
    consistency: float | None
    unparsable: int | None
    forward_passes: float | None
    p_best: float | None = None
    limit: int | None = None
    calibrated_on: str | None = None
    notes: tuple[str, ...] = ()
    reported: bool = False
    flip: float | None = None
    osi: float | None = None
    ckld: float | None = None
    rsd: float | None = None
    bias_score: float | None = None
    d_same: float | None = None
    d_cross: float | None = None
    delta: float | None = None
    group: str | None = None
    needs: str | None = None

    @property
    def tied(self) -> bool:
        """Whether the method is not significantly different from the most accurate one."""
        return self.p_best is not None and self.p_best >= ALPHA

    @property
    def limited(self) -> bool:
        """Whether only a part of the task was evaluated (`--limit`)."""
        return self.limit is not None

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON: exactly the keys of `COLUMNS`."""
        return {name: getattr(self, name) for name in COLUMNS}


COLUMNS = (
    "model",
    "task",
    "method",
    "limit",
    "samples",
    "permutations",
    "accuracy",
    "accuracy_std",
    "accuracy_low",
    "accuracy_high",
    "rstd",
    "consistency",
    "flip",
    "osi",
    "ckld",
    "rsd",
    "bias_score",
    "d_same",
    "d_cross",
    "delta",
    "unparsable",
    "forward_passes",
    "group",
    "needs",
    "p_best",
    "calibrated_on",
    "reported",
)


def rows_of(metrics: Mapping[str, Any], methods: Sequence[str] | None = None) -> list[Row]:
    """Rows of one run's `metrics.json`, for these methods in this order (default: all, as stored)."""
    figures: Mapping[str, Mapping[str, Any]] = metrics["methods"]
    calibration = metrics.get("calibration") or {}
    shown = [name for name in (figures if methods is None else methods) if name in figures]
    p_best = _p_best(metrics, shown)
    return [
        Row(
            model=metrics["model"],
            task=metrics["task"],
            method=name,
            samples=figures[name]["samples"],
            permutations=figures[name]["permutations"],
            accuracy=_number(figures[name]["accuracy"]["value"]),
            accuracy_std=_number(figures[name]["accuracy"].get("std")),
            accuracy_low=_number(figures[name]["accuracy"].get("low")),
            accuracy_high=_number(figures[name]["accuracy"].get("high")),
            rstd=_number(figures[name]["rstd"]["value"]),
            consistency=_number(figures[name]["consistency"]["value"]),
            unparsable=figures[name]["unparsable"],
            forward_passes=_number(figures[name]["forward_passes"]),
            p_best=p_best.get(name),
            limit=metrics.get("limit"),
            calibrated_on=calibration["task"] if calibration.get("transferred") else None,
            notes=(*(metrics.get("notes") or ()), *_notes_on(name, figures[name], limited=metrics.get("limit") is not None)),
            flip=_number((figures[name].get("flip") or {}).get("value")),
            osi=_number((figures[name].get("osi") or {}).get("value")),
            ckld=_number(figures[name].get("ckld")),
            rsd=_number(figures[name].get("rsd")),
            bias_score=_number(figures[name].get("bias_score")),
            d_same=_difference(figures[name], "d_same"),
            d_cross=_difference(figures[name], "d_cross"),
            delta=_difference(figures[name], "delta"),
            group=figures[name].get("group"),
            needs=", ".join(figures[name]["needs"]) if "needs" in figures[name] else None,
        )
        for name in shown
    ]


def _difference(figures: Mapping[str, Any], name: str) -> float | None:
    """A part of the same-order control; None in runs of earlier versions."""
    control = figures.get("same_order")
    return None if control is None else _number(control[name]["value"])


def _notes_on(method: str, figures: Mapping[str, Any], *, limited: bool) -> list[str]:
    notes = _same_order_note(method, figures.get("same_order"))
    if TEST_SET in (figures.get("needs") or ()):
        more = ", and on the whole task they may differ" if limited else ""
        notes.append(f"{method} decides all questions of a run together: its answers depend on which were evaluated{more}.")
    return notes


def _same_order_note(method: str, control: Mapping[str, Any] | None) -> list[str]:
    """The same-order control in words; none where a run has no repetitions."""
    if control is None or control["d_cross"]["value"] is None or control["d_same"]["value"] is None:
        return []
    same, cross, delta = (control[name] for name in ("d_same", "d_cross", "delta"))
    replies, of = ("single replies", "drawn") if control.get("of") == "draws" else ("replies", "repetitions")
    return [
        f"{method}: {replies} differ in {same['value']:.1f} % of pairs within one order ({control['repeats']} {of}), in "
        f"{cross['value']:.1f} % across orders; difference {delta['value']:.1f} [{delta['low']:.1f}, {delta['high']:.1f}]."
    ]


def _p_best(metrics: Mapping[str, Any], shown: Sequence[str]) -> dict[str, float]:
    """Corrected p-values against the best of the shown methods; empty if the run stored no tests."""
    pairs = paired_p_values(metrics)
    if len(shown) < 2 or any((a, b) not in pairs for a in shown for b in shown if a != b):
        return {}
    accuracies = {name: float(metrics["methods"][name]["accuracy"]["value"]) for name in shown}
    tests = significance_by(accuracies, lambda best, name: float(pairs[best, name]))
    return {name: test.p_holm for name, test in tests.items() if not test.best}


def paired_p_values(metrics: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """P-value by pair of methods, in both orders, of the exact paired test that both are equally accurate; not corrected."""
    tests = metrics.get("tests", {}).get("accuracy", {})
    pairs = {(a, b): float(p) for a, row in tests.items() for b, p in row.items()}
    return pairs | {(b, a): p for (a, b), p in pairs.items()}


def reported_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """Published figures of the run's model from the task's definition; empty if there are none.

    They are separate rows, marked and with the source's name of the model, so that they cannot be mistaken for measured ones.
    """
    return [
        Row(
            model=f"{model} (reported)",
            task=metrics["task"],
            method=method,
            samples=None,
            permutations=None,
            accuracy=accuracy,
            accuracy_std=None,
            accuracy_low=None,
            accuracy_high=None,
            rstd=rstd,
            consistency=consistency,
            unparsable=None,
            forward_passes=None,
            reported=True,
        )
        for model, methods in metrics.get("reported", {}).items()
        if is_same_model(metrics["model"], model)
        for method, (accuracy, rstd, consistency) in methods.items()
    ]


def is_same_model(ours: str, theirs: str) -> bool:
    """Whether a hub id or folder name and a publication's name mean the same model.

    `Qwen/Qwen2.5-VL-3B-Instruct` and `Qwen2.5-VL-3B` do. The organisation, case, and endings that only say that a model is tuned
    to follow instructions or converted for transformers do not count; everything else does, such as size, version or `-AWQ`.
    """
    return _model_stem(ours) == _model_stem(theirs)


def _model_stem(name: str) -> str:
    stem = re.sub(r"[\s_]+", "-", name.rstrip("/").rpartition("/")[2].strip().lower())
    while (shorter := re.sub(r"-(?:instruct|chat|it|hf)$", "", stem)) != stem:
        stem = shorter
    return stem


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
