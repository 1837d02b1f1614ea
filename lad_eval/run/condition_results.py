"""A run's results under one condition, and the decisions of its methods."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lad_eval.attention.interventions import Intervention, LearnedState
from lad_eval.evidence.files import files_of
from lad_eval.evidence.replies import Decoding, Replies
from lad_eval.evidence.replies_store import read_replies, reply_files
from lad_eval.evidence.store import read_evidence
from lad_eval.evidence.table import Evidence, difference
from lad_eval.methods import PLAIN, Condition, Method, with_parameters
from lad_eval.run.decide import Decision, PlanIndex, calibrated, decide, probes_of
from lad_eval.run.folder.files import AGAIN, PLAN, SPEC, ResultsError, condition_folder, read_spec
from lad_eval.run.folder.spec import digest_of
from lad_eval.tasks.probes import Probe


@dataclass(frozen=True)
class ConditionResults:
    """Results under one condition.

    Attributes:
        condition: that the model was run under.
        plan_index: keys of the requests by purpose.
        evidence: None if no method needed any.
        replies: by decoding.
        intervention: that the model was run under, with its learned state.
        probes: results of the probes of its requests.
    """

    condition: Condition
    plan_index: PlanIndex
    evidence: Evidence | None = None
    replies: Mapping[Decoding, Replies] = field(default_factory=dict)
    intervention: Intervention | None = None
    probes: Mapping[Probe, ConditionResults] = field(default_factory=dict)

    @property
    def learned(self) -> tuple[LearnedState, ...]:
        """The intervention's learned states."""
        return () if self.intervention is None else self.intervention.learned_states

    def document(self) -> dict[str, Any] | None:
        """The condition as JSON-serialisable facts, with digests of learned states; None for the unchanged question and model."""
        return replace(self.condition, intervention=self.intervention).document() if self.condition.label else None

    def decide(self, method: Method) -> Decision:
        """The method's answers.

        Raises:
            EvidenceError: evidence or replies are missing or not what the method needs.
            ResultsError: the run lacks what the method needs.
        """
        learning = sum(state.passes for state in self.learned)
        if (decoding := method.decoding) is not None:
            if decoding not in self.replies:
                raise ResultsError(f"This run has no replies for {_reading(method)}; run again with it among --methods.")
            return decide(self.replies[decoding], self.plan_index, method, learning)
        if self.evidence is None:
            raise ResultsError(f"This run has no evidence for {method.name}; run again with it among --methods.")
        learning += calibrated(self.evidence, self.plan_index, method, self._probed)
        return decide(self.evidence, self.plan_index, method, learning, self._probed)

    def _probed(self, evidence: Evidence, probes: Sequence[Probe]) -> Evidence:
        """The rows with their probes.

        Raises:
            ResultsError: the run lacks a probe.
        """
        joined = {}
        for probe in probes:
            results = self.probes.get(probe)
            if results is None or results.evidence is None:
                raise ResultsError(f"This run has no {probe.label} of its requests; run again with the method among --methods.")
            keys = results.plan_index.in_place_of(self.plan_index)
            # A request that the probes were not planned for has no key, and so no evidence.
            joined[probe.label] = results.evidence.select_keys([keys.get(key, "") for key in evidence.key.tolist()])
        return evidence.with_probes(joined)

    def used(self, methods: Iterable[Method]) -> set[str]:
        """Keys of all requests that the methods' answers are computed from."""
        return self.plan_index.used(self.condition, [method for method in methods if method.condition == self.condition.base])

    def rows(self, keys: set[str]) -> Evidence | None:
        """The evidence of these requests."""
        if self.evidence is None:
            return None
        return self.evidence.select(np.isin(self.evidence.key, np.asarray(sorted(keys), dtype=np.str_)))


def with_their_probes(results: Sequence[ConditionResults]) -> list[ConditionResults]:
    """The results without those of probes, which are joined to the results of their requests."""

    def of(base: Condition) -> dict[Probe, ConditionResults]:
        return {r.condition.probe: r for r in results if r.condition.probe is not None and r.condition.base == base}

    return [replace(each, probes=of(each.condition)) for each in results if each.condition.probe is None]


def _reading(method: Method) -> str:
    """The name of a method's decision from replies, with parameters that are not the defaults."""
    usual = type(method.learner)().get_params()
    changed = {key: value for key, value in method.learner.get_params().items() if value != usual[key]}
    return with_parameters(method.learner.name, changed)


def read_condition_results(run: Path, condition: Condition, methods: Collection[Method]) -> ConditionResults:
    """The results in a run's folder for methods of one condition, those of their probes included.

    Raises:
        ResultsError: the run has no answers under this condition.
        EvidenceError: the answers are damaged.
    """
    folder = condition_folder(run, condition)
    if not (folder / PLAN).is_file():
        how = f"under {condition.label}" if condition.label else "to the unchanged question"
        raise ResultsError(f"The run in {run} has no answers {how}; run again with such a method among --methods.")
    spec = read_spec(run)
    plan_index = PlanIndex.read(folder, digest_of(spec))
    decodings = {decoding for method in methods if (decoding := method.decoding) is not None}
    evidence = read_evidence(folder) if files_of(folder) else None
    written = {decoding: read_replies(folder, decoding) for decoding in decodings if reply_files(folder, decoding)}
    intervention = None if condition.intervention is None else condition.intervention.load_learned(folder)
    if intervention is not None and not intervention.is_ready:
        raise ResultsError(f"{folder} lacks what {intervention.label} learned. {AGAIN}")
    for made_by in [part.fingerprint for part in (evidence, *written.values()) if part is not None]:
        _check_made_under(condition, intervention, made_by, folder)
        # A condition adds what it changes to the model's fingerprint.
        if off := difference({key: made_by.get(key) for key in spec["fingerprint"]}, spec["fingerprint"]):
            raise ResultsError(f"{folder} holds answers of another model than {run / SPEC} names: {off}. {AGAIN}")
    if intervention is not None and evidence is not None:
        intervention.check_disjoint(np.unique(evidence.test.sample_id).tolist(), [])
    used = probes_of(methods) if condition.probe is None else ()
    probes = {probe: read_condition_results(run, replace(condition, probe=probe), ()) for probe in used}
    return ConditionResults(condition, plan_index, evidence, written, intervention, probes)


def _check_made_under(
    condition: Condition, intervention: Intervention | None, fingerprint: Mapping[str, Any], folder: Path
) -> None:
    """Refuses answers that were made under another condition, or under an intervention that had learned something else.

    Raises:
        ResultsError: they were.
    """
    probe, stored_probe = (None if condition.probe is None else condition.probe.facts), fingerprint.get("probe")
    if stored_probe != probe:
        raise ResultsError(f"{folder} holds answers to other probes: {stored_probe} (answers, and {probe}). {AGAIN}")
    stored = fingerprint.get("intervention") or {}
    if intervention is None:
        if stored:
            raise ResultsError(f"{folder} holds answers under an intervention, and belongs to the unchanged model. {AGAIN}")
        return
    facts = json.loads(json.dumps(intervention.facts))
    # A model may add facts, such as which layers of a hybrid attend.
    if off := difference({key: stored.get(key) for key in facts}, facts):
        raise ResultsError(f"{folder} holds answers under another {intervention.label}: {off} (answers, and learned). {AGAIN}")


def condition_results_of(run: Path, methods: Mapping[str, Method]) -> dict[Condition, ConditionResults]:
    """The results in a run's folder for methods, by condition; the unchanged question and model first.

    Raises:
        UserError: as `read_condition_results`.
    """
    conditions = sorted({method.condition for method in methods.values()}, key=lambda c: (c != PLAIN, c.label))
    return {c: read_condition_results(run, c, [m for m in methods.values() if m.condition == c]) for c in conditions}
