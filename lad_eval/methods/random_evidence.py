"""Evidence at random, with a signal, position bias and noise: what the laws of `conformance` are checked on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lad_eval.evidence.table import Evidence, Floats

N, DEPTH, SAMPLES, CALIBRATION_SAMPLES, TOKENS = 4, 6, 12, 5, 5


def random_evidence(
    *,
    samples: int = SAMPLES,
    n_candidates: int = N,
    depth: int = DEPTH,
    prefix: str = "t",
    attention: bool = True,
    seed: int = 0,
) -> Evidence:
    """Evidence of samples under all cyclic shifts of a random order, with a right image, position bias and attention noise.

    Rows of a sample are adjacent; its row `shift` has the order shifted by `shift`. It serves to calibrate and to evaluate.
    """
    generator = np.random.default_rng(seed)
    shape = (samples, n_candidates)
    order = np.argsort(generator.random(shape), axis=1)
    turned = (np.arange(n_candidates) - np.arange(n_candidates)[:, None]) % n_candidates
    perm = order[:, turned].reshape(-1, n_candidates)
    gold = np.argmax(perm == np.repeat(generator.integers(n_candidates, size=samples), n_candidates)[:, None], axis=1)
    signal = np.eye(n_candidates)[gold]
    bias = generator.normal(size=(n_candidates, n_candidates))[gold]
    scores = 1.5 * signal + bias + generator.normal(size=signal.shape)
    pull = generator.normal(scale=0.5, size=(depth, n_candidates))
    attend = np.exp(signal[:, None] + pull + generator.normal(scale=0.5, size=(len(gold), depth, n_candidates)) - 4)
    return Evidence.from_arrays(
        scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)),
        attend if attention else None,
        gold,
        np.repeat([f"{prefix}{s}" for s in range(samples)], n_candidates),
        attention_delimited=1.1 * attend + 0.001 if attention else None,
        perm=perm,
        split="calibration" if prefix == "c" else "test",
    )


def symmetric_calibration(*, n_candidates: int = N, depth: int = DEPTH) -> Evidence:
    """Calibration that treats all positions equally: a clear signal for the answer, no bias, and no attention prior."""
    evidence = random_evidence(samples=CALIBRATION_SAMPLES, n_candidates=n_candidates, depth=depth, prefix="c")
    signal = np.eye(n_candidates)[evidence.gold_position]
    logs = np.log(0.1 / n_candidates + 0.9 * signal)
    attention = np.repeat((0.01 + 0.05 * signal)[:, None], depth, axis=1) * np.linspace(0.5, 1, depth)[:, None]
    return with_values(evidence, log_probs=logs, attention=attention)


def random_calibration() -> Evidence:
    return random_evidence(samples=CALIBRATION_SAMPLES, prefix="c", seed=1)


def with_values(evidence: Evidence, *, log_probs: Floats | None = None, attention: Floats | None = None) -> Evidence:
    """The same rows with other log-probabilities, other attention (of both spans), or both."""
    rows = Evidence.from_arrays(
        evidence.log_probs if log_probs is None else log_probs,
        evidence.attention if attention is None else attention,
        evidence.gold_position,
        evidence.sample_id,
        attention_delimited=evidence.attention_delimited if attention is None else attention,
        perm=evidence.perm,
        split=evidence.split,
    )
    return replace(rows.with_probes(evidence.probes), token_map=evidence.token_map, token_grid=evidence.token_grid)


def displayed(evidence: Evidence, order: npt.NDArray[np.int64]) -> Evidence:
    """The same questions with displayed position `j` taken from position `order[j]`."""
    attention, delimited = evidence.attention, evidence.attention_delimited
    rows = Evidence.from_arrays(
        evidence.log_probs[:, order],
        None if attention is None else attention[..., order],
        np.argsort(order)[evidence.gold_position],
        evidence.sample_id,
        attention_delimited=None if delimited is None else delimited[..., order],
        perm=evidence.perm[:, order],
        split=evidence.split,
    )
    if evidence.token_map is not None and evidence.token_grid is not None:
        maps = np.stack(list(evidence.token_map)).reshape(len(evidence), -1, TOKENS)[:, order]
        rows = rows.with_token_maps(list(maps.reshape(len(evidence), -1)), evidence.token_grid[:, order])
    return rows.with_probes({label: displayed(probe, order) for label, probe in evidence.probes.items()})
