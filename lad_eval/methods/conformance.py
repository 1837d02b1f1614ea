"""The laws that every method from evidence must keep, as checks for methods of your own.

    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
    def test_my_method_keeps_the_laws(law):
        law(MyMethod)

A law takes something that makes a new method, a class or a function without arguments, and raises AssertionError if the method
breaks it. A law that does not concern the method (attention, calibration) passes.
"""

from __future__ import annotations

import inspect
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lad_eval.errors import EvidenceError
from lad_eval.evidence.table import Evidence, Floats
from lad_eval.methods.base import MethodWarning, NotCalibratedError
from lad_eval.methods.evidence_method import EvidenceMethod
from lad_eval.methods.orders import OrdersMethod
from lad_eval.methods.random_evidence import (
    CALIBRATION_SAMPLES,
    DEPTH,
    SAMPLES,
    TOKENS,
    N,
    displayed,
    random_calibration,
    random_evidence,
    symmetric_calibration,
    with_values,
)
from lad_eval.parameters import ParameterError

__all__ = ["LAWS", "Maker", "displayed", "random_calibration", "random_evidence", "symmetric_calibration", "with_values"]

Maker: TypeAlias = Callable[[], EvidenceMethod | OrdersMethod]


def log_probabilities_are_normalised(make: Maker) -> None:
    log_probs = _calibrated(make).predict_log_proba(_evidence(make))
    assert log_probs.dtype == np.float64, "log-probabilities must be float64"
    assert log_probs.shape == (SAMPLES * N, N), "one row of N log-probabilities a row of evidence"
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, atol=1e-12)


def answers_are_the_most_probable_positions(make: Maker) -> None:
    method, evidence = _calibrated(make), _evidence(make)
    answers = method.predict(evidence)
    assert answers.dtype == np.int64, "answers must be int64"
    np.testing.assert_array_equal(answers, method.predict_log_proba(evidence).argmax(axis=1))


def extreme_evidence_gives_no_nan(make: Maker) -> None:
    evidence = _evidence(make)
    attention = np.zeros_like(evidence.attention)
    attention[:, :, 0] = 1e-30
    logs = np.full_like(evidence.log_probs, -1e4)
    logs[:, 1] = 0
    extreme = with_values(evidence, log_probs=logs, attention=attention)
    for method in (
        _calibrated(make),
        _calibrated(make, with_values(_calibration(make), log_probs=logs[: CALIBRATION_SAMPLES * N])),
    ):
        assert np.isfinite(method.predict_log_proba(extreme)).all(), (
            "no NaN or infinity, even for zero attention and certain candidates"
        )


def a_constant_on_the_logits_changes_nothing(make: Maker) -> None:
    calibration, evidence = _calibration(make), _evidence(make)
    generator = np.random.default_rng(5)

    def shifted(rows: Evidence) -> Evidence:
        return with_values(rows, log_probs=rows.log_probs + generator.normal(scale=30, size=(len(rows), 1)))

    expected = _calibrated(make, calibration).predict_log_proba(evidence)
    _assert_close(_calibrated(make, shifted(calibration)).predict_log_proba(shifted(evidence)), expected)


def positions_are_equal_after_a_symmetric_calibration(make: Maker) -> None:
    """Permuting the displayed positions permutes the answer; only cyclic shifts for a method that needs all of them."""
    method = _calibrated(make, _symmetric(make))
    evidence = _evidence(make)
    expected = method.predict_log_proba(evidence)
    for order in ([1, 2, 3, 0], [3, 0, 1, 2]) if method.orders == "cyclic" else ([2, 0, 3, 1], [1, 0, 2, 3]):
        _assert_close(method.predict_log_proba(displayed(evidence, np.asarray(order))), expected[:, order])


def without_bias_the_logits_decide(make: Maker) -> None:
    """If the calibration shows no bias, a method that debiases single rows leaves a row's log-probabilities unchanged."""
    method = _calibrated(make, _symmetric(make))
    if "log_probs" not in method.needs or method.orders == "cyclic" or method.transductive:
        return
    evidence = _probed(random_evidence(), make, even=True)
    _assert_close(method.predict_log_proba(evidence), evidence.log_probs)


def rows_are_decided_one_by_one(make: Maker) -> None:
    """Neither the order of the rows nor other rows matter, but for the shifts that it needs; not for a transductive method."""
    method, evidence = _calibrated(make), _evidence(make)
    if method.transductive:
        return
    expected = method.predict_log_proba(evidence)
    order = np.random.default_rng(2).permutation(len(evidence))
    _assert_close(method.predict_log_proba(evidence.select(order)), expected[order])
    size = N if method.orders == "cyclic" else 1
    for start in range(0, len(evidence), 5 * size):
        _assert_close(method.predict_log_proba(evidence.select(slice(start, start + size))), expected[start : start + size])


def evidence_is_left_untouched(make: Maker) -> None:
    calibration, evidence = _calibration(make), _evidence(make)
    before = [np.array(array) for array in (*_arrays(calibration), *_arrays(evidence))]
    _calibrated(make, calibration).predict(evidence)
    for now, then in zip((*_arrays(calibration), *_arrays(evidence)), before, strict=True):
        np.testing.assert_array_equal(now, then)


def uncalibrated_is_refused(make: Maker) -> None:
    method = make()
    if not method.calibrates:
        return
    _assert_refused(NotCalibratedError, "not calibrated", lambda: method.predict(_evidence(make)))


def calibrated_samples_are_refused(make: Maker) -> None:
    method = _calibrated(make)
    if not method.calibrates:
        return
    mixed = Evidence.concatenate([_evidence(make), _calibration(make).select(slice(0, N))])
    _assert_refused(EvidenceError, "calibrated on", lambda: method.predict(mixed))


def incomplete_calibration_is_refused(make: Maker) -> None:
    if not make().calibrates:
        return
    rows = _calibration(make)
    lacking = rows.select(np.arange(len(rows)) != 6)
    _assert_refused(EvidenceError, "cyclic shifts", lambda: make().calibrate(lacking))


def missing_attention_is_refused(make: Maker) -> None:
    """Missing attention is never treated as zero: LAD would silently be PriDe."""
    method = _calibrated(make)
    if "attention" not in method.needs:
        method.predict(_evidence(make, attention=False))
        return
    _assert_refused(EvidenceError, "attention", lambda: method.predict(_evidence(make, attention=False)))
    evidence = _evidence(make)
    blind = np.array(evidence.attention)
    blind[3] = 0
    _assert_refused(EvidenceError, "no attention", lambda: method.predict(with_values(evidence, attention=blind)))
    if method.calibrates:
        without = _evidence(make, samples=CALIBRATION_SAMPLES, prefix="c", attention=False)
        _assert_refused(EvidenceError, "attention", lambda: make().calibrate(without))


def missing_probes_are_refused(make: Maker) -> None:
    """A probe that was not run is never treated as even: the method would silently be another."""
    method = _calibrated(make)
    for probe in method.probes:
        evidence = _evidence(make)
        lacking = replace(evidence, probes={label: rows for label, rows in evidence.probes.items() if label != probe.label})
        _assert_refused(EvidenceError, "probe", lambda rows=lacking: method.predict(rows))  # type: ignore[misc]
    if method.calibration_probes:
        _assert_refused(EvidenceError, "probe", lambda: make().calibrate(random_calibration()))


def another_n_is_refused(make: Maker) -> None:
    method = _calibrated(make)
    if method.calibrates:
        _assert_refused(EvidenceError, "candidates", lambda: method.predict(_evidence(make, n_candidates=N + 1)))


def another_depth_is_refused(make: Maker) -> None:
    method = _calibrated(make)
    if method.calibrates and "attention" in method.needs:
        _assert_refused(EvidenceError, "layers", lambda: method.predict(_evidence(make, depth=DEPTH + 1)))


def no_rows_are_refused(make: Maker) -> None:
    method, none = _calibrated(make), _evidence(make).select(slice(0, 0))
    _assert_refused(EvidenceError, "no rows", lambda: method.predict(none))
    if method.calibrates:
        _assert_refused(EvidenceError, "no rows", lambda: make().calibrate(none))


def saved_is_loaded(make: Maker) -> None:
    method, evidence = _calibrated(make), _evidence(make)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new" / "method.safetensors"
        method.save(path)
        loaded = type(method).load(path)
    assert loaded.get_params() == method.get_params(), "parameters must survive save and load"
    assert loaded.learned_state().keys() == method.learned_state().keys(), "learned state must survive save and load"
    np.testing.assert_array_equal(loaded.predict_log_proba(evidence), method.predict_log_proba(evidence))


def the_constructor_only_stores(make: Maker) -> None:
    """Keyword-only, one argument per parameter, everything stored unchanged, even values that `check` refuses."""
    kind = type(make())
    arguments = list(inspect.signature(kind).parameters.values())
    assert [a.name for a in arguments] == list(kind.parameters), "the constructor's arguments must be the class's parameters"
    assert all(a.kind is a.KEYWORD_ONLY and a.default is not a.empty for a in arguments), (
        "arguments must be keyword-only and have defaults"
    )
    values = {name: object() for name in kind.parameters}
    stored = kind(**values)
    assert stored.get_params() == values, "the constructor must store what it was given"
    assert all(vars(stored)[name] is value for name, value in values.items()), (
        "the constructor must store the object it was given"
    )
    assert not stored.learned_state(), "a new method has learned nothing"
    if values:
        _assert_refused(ParameterError, "must be", lambda: stored.calibrate(_calibration(make)))


def parameters_are_set_by_name(make: Maker) -> None:
    method = _calibrated(make)
    params = method.get_params()
    assert method.set_params(**params) is method, "set_params must return the method"
    assert method.get_params() == params, "set_params must store what it was given"
    assert not method.learned_state(), "what was learned under other parameters must be forgotten"
    _assert_refused(ParameterError, "no parameter", lambda: method.set_params(no_such_parameter=1))


def calibrate_returns_the_method(make: Maker) -> None:
    method = make()
    params = method.get_params()
    assert method.calibrate(_calibration(make)) is method, "calibrate must return the method"
    assert method.get_params() == params, "calibrate must not change parameters"
    assert method.is_calibrated, "calibrate must leave the method calibrated"


def it_says_what_it_is(make: Maker) -> None:
    method = make()
    assert method.name, "a method needs a name"
    assert method.needs <= {"log_probs", "attention", "token_map"}, "needs holds log_probs, attention and token_map only"
    assert method.needs, "a method needs evidence"
    assert (type(method).__doc__ or "").strip(), "a method needs a docstring, whose first line describes it"


LAWS: tuple[Callable[[Maker], None], ...] = (
    log_probabilities_are_normalised,
    answers_are_the_most_probable_positions,
    extreme_evidence_gives_no_nan,
    a_constant_on_the_logits_changes_nothing,
    positions_are_equal_after_a_symmetric_calibration,
    without_bias_the_logits_decide,
    rows_are_decided_one_by_one,
    evidence_is_left_untouched,
    uncalibrated_is_refused,
    calibrated_samples_are_refused,
    incomplete_calibration_is_refused,
    missing_attention_is_refused,
    missing_probes_are_refused,
    another_n_is_refused,
    another_depth_is_refused,
    no_rows_are_refused,
    saved_is_loaded,
    the_constructor_only_stores,
    parameters_are_set_by_name,
    calibrate_returns_the_method,
    it_says_what_it_is,
)


def _calibrated(make: Maker, calibration: Evidence | None = None) -> EvidenceMethod | OrdersMethod:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MethodWarning)
        return make().calibrate(_calibration(make) if calibration is None else calibration)


def _evidence(
    make: Maker,
    *,
    samples: int = SAMPLES,
    n_candidates: int = N,
    depth: int = DEPTH,
    prefix: str = "t",
    attention: bool = True,
) -> Evidence:
    """`random_evidence` with the probes that the method reads."""
    rows = random_evidence(samples=samples, n_candidates=n_candidates, depth=depth, prefix=prefix, attention=attention)
    return _probed(rows, make)


def _calibration(make: Maker) -> Evidence:
    return _probed(random_calibration(), make)


def _symmetric(make: Maker) -> Evidence:
    return _probed(symmetric_calibration(), make, even=True)


def _probed(evidence: Evidence, make: Maker, *, even: bool = False) -> Evidence:
    """The rows with the probes that the method reads: random ones, or ones that treat all positions equally."""
    method, generator = make(), np.random.default_rng(3)
    shape, attended = evidence.log_probs.shape, None if evidence.attention is None else evidence.attention.shape
    probes = {}
    for probe in method.calibration_probes if (evidence.split == "calibration").all() else method.probes:
        scores = np.zeros(shape) if even else generator.normal(size=shape)
        attention = None if attended is None else np.full(attended, 0.01) if even else 0.02 * generator.random(attended)
        probes[probe.label] = replace(with_values(evidence, log_probs=scores, attention=attention), probes={})
        if probe.token_map:
            tokens = 0.01 + (not even) * generator.random((len(evidence), shape[1] * TOKENS))
            probes[probe.label] = probes[probe.label].with_token_maps(list(tokens), np.tile([TOKENS, 0, 0], (*shape, 1)))
    return evidence.with_probes(probes)


def _arrays(evidence: Evidence) -> tuple[npt.NDArray[np.generic], ...]:
    return tuple(value for value in vars(evidence).values() if isinstance(value, np.ndarray))


def _assert_close(actual: Floats, expected: Floats) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


def _assert_refused(kind: type[Exception], text: str, act: Callable[[], object]) -> None:
    try:
        act()
    except kind as error:
        message = str(error)
        assert text in message, f"the error must say {text!r}: {message}"
        assert "\n" not in message, f"the error must be one line: {message}"
    else:
        raise AssertionError(f"{kind.__name__} must be raised")
