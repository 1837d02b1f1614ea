"""`python -m benchmarks.lad_variants RUN ...`: LAD and variants of its calibration, by the number of calibration samples.

Each RUN is a finished run's folder with many calibration samples (`calibration: {samples: 20}`). For every number n of them, n
are chosen at random several times; the table holds the mean accuracy in percent and the mean RStd in points. No model is run.

The variants that `docs/methods.md` reports and the package does not keep are defined here.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.report import Table
from lad_eval.evidence.store import read_evidence
from lad_eval.evidence.table import Evidence
from lad_eval.methods import LAD, EvidenceMethod, MethodWarning, PriDe, UnlabelledLAD
from lad_eval.metrics.figures import rstd
from lad_eval.run.decide import PlanIndex
from lad_eval.run.folder.stored import load_run

SIZES = (1, 2, 3, 5, 10, 20)


class RowGainLAD(LAD):
    """A gain of its own for every row i: log g_i = max over j != i of log P_obs(i|i) - log P_obs(j|i), at least 0."""

    def _calibrate(self, evidence: Evidence) -> None:
        super()._calibrate(evidence)
        observed = self._log_observed(evidence)
        advantage = np.diag(observed)[:, None] - observed
        np.fill_diagonal(advantage, -np.inf)
        self.log_bias_ = observed - np.diag(np.maximum(advantage.max(axis=1), 0.0))


class ShrunkLAD(LAD):
    """The conditional bias drawn toward the mean of its rows: weight n / (n + k) for n calibration samples."""

    k = 2.0

    def _calibrate(self, evidence: Evidence) -> None:
        super()._calibrate(evidence)
        n = len(np.unique(evidence.sample_id))
        centred = self.log_bias_ - self.log_bias_.mean(axis=1, keepdims=True)
        weight = n / (n + self.k)
        self.log_bias_ = weight * centred + (1 - weight) * centred.mean(axis=0)


VARIANTS: Mapping[str, type[EvidenceMethod]] = {
    "pride": PriDe,
    "lad": LAD,
    "lad-unlabelled": UnlabelledLAD,
    "gain per row": RowGainLAD,
    "shrinkage, k = 2": ShrunkLAD,
}


def curve(
    evaluated: Evidence, calibration: Evidence, variant: type[EvidenceMethod], sizes: tuple[int, ...], draws: int
) -> list[str]:
    """`accuracy / RStd` for every size, means over the draws; all samples are drawn once."""
    samples = np.unique(calibration.sample_id)
    cells = []
    for size in sizes:
        generator = np.random.default_rng(size)
        found = []
        for _ in range(draws if size < len(samples) else 1):
            chosen = generator.choice(samples, size=size, replace=False)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MethodWarning)
                method = variant().calibrate(calibration.select(np.isin(calibration.sample_id, chosen)))
            answers = method.predict(evaluated)
            accuracy = 100 * float((answers == evaluated.gold_position).mean())
            found.append((accuracy, rstd(evaluated.gold_position, answers, evaluated.n_candidates)))
        accuracy, spread = np.mean(found, axis=0)
        cells.append(f"{accuracy:.2f} / {spread:.1f}")
    return cells


def run(folder: Path, draws: int) -> Table:
    """The table of one run."""
    stored = load_run(folder)
    plan_index = PlanIndex.read(stored.path)
    evidence = read_evidence(stored.path)
    evaluated, calibration = evidence.select_keys(plan_index.evaluated), evidence.select_keys(plan_index.calibration)
    sizes = tuple(size for size in SIZES if size <= len(np.unique(calibration.sample_id)))
    rows = [[name, *curve(evaluated, calibration, variant, sizes, draws)] for name, variant in VARIANTS.items()]
    title = f"{stored.metrics['task']}, {stored.metrics['model']}: accuracy / RStd by number of calibration samples"
    return Table(title, ["method", *(f"n = {size}" for size in sizes)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lad_variants", description="LAD's variants on stored evidence.")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--draws", type=int, default=20, help="random choices of each number of samples")
    given = parser.parse_args()
    for folder in given.runs:
        print(run(folder, given.draws).markdown(), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
