"""Ranker: calibrate once on a few samples, then rank images by a caption without the model's position bias."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from lad_eval.attention.interventions import Intervention
from lad_eval.errors import EvidenceError, UserError
from lad_eval.evidence.table import Evidence, difference
from lad_eval.methods import EvidenceMethod, PurifiedAttention, canonical_name, make_evidence_method
from lad_eval.models.base import VLM
from lad_eval.models.registry import load_model
from lad_eval.ranking.calibrated import Calibrated, Ranking, load_calibrated, read_description, save_calibrated
from lad_eval.ranking.images import ImageLike
from lad_eval.ranking.questions import LabelledQuestion, Question, calibration_samples, questions_to_rank
from lad_eval.run.collect import calibrate_intervention, in_batches, under
from lad_eval.run.preflight import check_methods
from lad_eval.tasks.prompts import IdentifierStyle, identifiers, prompt_problem, question
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.request import Permutation, Request, Sample
from lad_eval.tasks.task import Task


class Ranker:
    """Ranks images by a caption with a calibrated model; made by `calibrate` or `load`.

    Examples:
        >>> ranker = Ranker.calibrate("lad-tiny", "scenes_random_n4")
        >>> ranker.rank(["a.jpg", "b.jpg", "c.jpg", "d.jpg"], "a red circle").best
        2

    Attributes:
        model: answers the questions.
        method: name of the method, with its parameters.
        sizes: the numbers of images that it was calibrated for.
    """

    def __init__(self, model: VLM, method: str, prompt: str, style: IdentifierStyle, learned: Mapping[int, Calibrated]) -> None:
        self.model = model
        self.method = method
        self._prompt = prompt
        self._style: IdentifierStyle = style
        self._learned = dict(learned)

    def __repr__(self) -> str:
        return f"Ranker(model={self.model.name!r}, method={self.method!r}, sizes={self.sizes})"

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(sorted(self._learned))

    @classmethod
    def calibrate(
        cls,
        model: VLM | str,
        samples: str | Task | Iterable[Question | LabelledQuestion],
        *,
        method: str = "lad",
        prompt: str = "retrieval",
        identifiers: IdentifierStyle = "1..",
        **options: Any,
    ) -> Ranker:
        """Learns the model's position bias; every sample is shown under its N cyclic shifts (arXiv 2605.11591, Eq. 1-3).

        Args:
            model: from `load_model`, or a name that it takes.
            samples: a task or its name, whose calibration samples are taken; or (images, caption, index of the right image),
                five or so for every number of images that will be ranked. Images are paths or Pillow images. Without the index
                only methods that calibrate without labels can be used: "lad-unlabelled".
            method: one that decides from a single pass; `lad-eval ls methods` lists them.
            prompt: name of a prompt, or a template with {caption}.
            identifiers: how the images are numbered.
            options: of `load_model`, where `model` is a name.

        Raises:
            UserError: the method cannot rank from one pass, labels are missing, there are no samples, they have too few images,
                an image cannot be read, or the model cannot be loaded or does not give what the method needs.
        """
        name, decides = canonical_name(method), _method_of(method)
        if problem := prompt_problem(prompt):
            raise UserError(f"prompt: {problem}")
        if isinstance(samples, str | Task):
            task = load_task(samples) if isinstance(samples, str) else samples
            learned_from = list(task.samples("calibration"))
        else:
            learned_from = calibration_samples(samples, method)
        if not learned_from:
            raise UserError("There are no samples to calibrate on; give (images, caption, index of the right image), five or so.")
        if identifiers not in get_args(IdentifierStyle):
            raise UserError(f"identifiers must be one of {', '.join(get_args(IdentifierStyle))}, not {identifiers!r}.")
        answers = _model(model, options)
        check_methods(answers, {name: decides})
        ranker = cls(answers, name, prompt, identifiers, {})
        by_size = {n: [s for s in learned_from if len(s.images) == n] for n in sorted({len(s.images) for s in learned_from})}
        for n, group in by_size.items():
            shifts = Permutation.identity(n).cyclic_shifts()
            requests = [ranker._request(s, shift) for s in group for shift in shifts]
            intervention = calibrate_intervention(answers, decides.condition.intervention, requests)
            evidence, plain = ranker._evidence(intervention, requests)
            attention = PurifiedAttention().calibrate(plain) if plain.attention is not None else None
            ranker._learned[n] = Calibrated(_method_of(name).calibrate(evidence), intervention, attention)
        return ranker

    def rank(self, images: Sequence[ImageLike], caption: str) -> Ranking:
        """The images, ranked by how well the caption fits them, from one pass of the model.

        Args:
            images: paths or Pillow images, in any order; as many as it was calibrated for.
            caption: what to look for.

        Raises:
            UserError: the number of images was not calibrated, the caption is empty, or an image cannot be read.
        """
        return self.rank_many([(images, caption)])[0]

    def rank_many(self, questions: Iterable[Question]) -> list[Ranking]:
        """Rankings of several questions, in their order; the model answers them in batches.

        Raises:
            UserError: as `rank`.
        """
        requests = [self._request(sample) for sample in questions_to_rank(questions, self.sizes)]
        rankings: dict[int, Ranking] = {}
        for n, learned in self._learned.items():
            indices = [i for i, request in enumerate(requests) if len(request.images) == n]
            if not indices:
                continue
            evidence, plain = self._evidence(learned.intervention, [requests[i] for i in indices])
            rankings |= {i: learned.ranking(evidence.select([row]), plain.select([row])) for row, i in enumerate(indices)}
        return [rankings[i] for i in range(len(requests))]

    def save(self, folder: str | Path) -> None:
        """Writes what was learned into a folder, without the model.

        Raises:
            UserError: it cannot be written.
        """
        facts = {
            "model": self.model.name,
            "fingerprint": dict(self.model.fingerprint),
            "method": self.method,
            "prompt": self._prompt,
            "identifiers": self._style,
        }
        save_calibrated(Path(folder), facts, self._learned)

    @classmethod
    def load(cls, folder: str | Path, model: VLM | str | None = None, **options: Any) -> Ranker:
        """The ranker that `save` wrote, on the model that it was calibrated with.

        Args:
            folder: where it was saved.
            model: the model, if it is already loaded or its name means something else now; None: it is loaded by its name.
            options: of `load_model`.

        Raises:
            UserError: the folder holds no ranker, or the model is not the one that it was calibrated with.
        """
        folder = Path(folder)
        document = read_description(folder)
        answers = _model(document["model"] if model is None else model, options)
        if off := difference(_without_versions(document["fingerprint"]), _without_versions(answers.fingerprint)):
            raise EvidenceError(f"{folder} was calibrated with another model: {off}; calibrate again.")
        learned = load_calibrated(folder, document)
        return cls(answers, document["method"], document["prompt"], document["identifiers"], learned)

    def _request(self, sample: Sample, order: Permutation | None = None) -> Request:
        n = len(sample.images)
        names = identifiers(self._style, n)
        shown = Permutation.identity(n) if order is None else order
        return Request.of(sample, shown, question(self._prompt, sample.caption, names), names)

    def _evidence(self, intervention: Intervention | None, requests: Sequence[Request]) -> tuple[Evidence, Evidence]:
        """Rows of the requests under an intervention and for the unchanged model, in their order; without an intervention, run "
        "once.
        """
        rows = self._rows(intervention, requests)
        return rows, rows if intervention is None else self._rows(None, requests)

    def _rows(self, intervention: Intervention | None, requests: Sequence[Request]) -> Evidence:
        with under(self.model, intervention):
            rows = Evidence.concatenate(list(in_batches(self.model, list({r.key: r for r in requests}.values()))))
        return rows.select_keys([request.key for request in requests])


def _method_of(name: str) -> EvidenceMethod:
    """The method, if it decides from one pass under the question as it is.

    Raises:
        UserError: it does not.
    """
    method = make_evidence_method(name)
    if variants := method.condition.prompt_variants:
        raise UserError(f"{name} changes the question ({', '.join(variants)}), and a ranker has its own; leave that out.")
    return method


def _model(model: VLM | str, options: dict[str, Any]) -> VLM:
    if isinstance(model, str):
        return load_model(model, **options)
    if options:
        raise UserError(f"{', '.join(options)}: these are loading options, and the model is already loaded.")
    return model


def _without_versions(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal: a library's next release moves the last digits, not what was learned."""
    return {key: value for key, value in fingerprint.items() if key != "versions"}
