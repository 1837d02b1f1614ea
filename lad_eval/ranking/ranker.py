"""Ranker: calibrate once on a few samples, then rank pictures by a caption, free of the model's position bias."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from lad_eval.attention.interventions import LEARNED, Intervention
from lad_eval.errors import EvidenceError, UserError
from lad_eval.evidence.table import Evidence, Floats, Ints, difference
from lad_eval.files.documents import read_json, write_json
from lad_eval.methods import Method, PurifiedAttention, canonical_name, make_method
from lad_eval.models.base import VLM
from lad_eval.models.registry import load_model
from lad_eval.ranking.images import ImageLike, image_source
from lad_eval.run.collect import calibrate_intervention, in_batches, under
from lad_eval.tasks.prompts import IdentifierStyle, identifiers, prompt_problem, question
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.request import ImageSource, Permutation, Request, Sample, text_fault
from lad_eval.tasks.task import Task

if TYPE_CHECKING:
    from lad_eval.tasks.request import Split

FORMAT = 1
DESCRIPTION = "ranker.json"
_ATTENTION = "attention"
_UNLABELLED = ("lad-unlabelled", "purified-attention")
"""Methods that calibrate without the right answers."""
_CURE = "Give a folder that Ranker.save wrote, or calibrate and save again."

Question = tuple[Sequence[ImageLike], str]
"""Images and a caption."""
LabelledQuestion = tuple[Sequence[ImageLike], str, int]
"""Images, a caption, and the index of the image that it describes."""


@dataclass(frozen=True)
class Ranking:
    """N images ranked by one caption; every array follows the order in which the images were given.

    Attributes:
        probabilities: Float[N], sums to 1: what the method makes of the model's answer.
        plain_probabilities: Float[N], sums to 1: the model's own answer, position bias included.
        attention: Float[N], sums to 1: where the model looked, its habit of looking at positions removed (LAD's posterior over
            images, arXiv 2605.11591, Eq. 12); None for a model that gives no attention.
    """

    probabilities: Floats
    plain_probabilities: Floats
    attention: Floats | None

    def __repr__(self) -> str:
        shares = ", ".join(f"{share:.2f}" for share in self.probabilities)
        return f"Ranking(best={self.best}, plain_best={self.plain_best}, probabilities=[{shares}])"

    @property
    def order(self) -> Ints:
        """Int[N]: indices of the images, the best first; of equals the first given."""
        return np.argsort(-self.probabilities, kind="stable").astype(np.int64)

    @property
    def best(self) -> int:
        """Index of the image that the method chooses."""
        return int(self.probabilities.argmax())

    @property
    def plain_best(self) -> int:
        """Index of the image that the model alone would have chosen."""
        return int(self.plain_probabilities.argmax())


@dataclass(frozen=True)
class _Calibrated:
    """What was learned for one number of images."""

    method: Method
    intervention: Intervention | None
    attention: PurifiedAttention | None

    def ranking(self, row: Evidence, plain_row: Evidence) -> Ranking:
        """A ranking from a row under the method's condition, and one of the model as it is."""
        plain = np.exp(plain_row.log_probs[0])
        attention = None if self.attention is None else np.exp(self.attention.predict_log_proba(plain_row)[0])
        return Ranking(np.exp(self.method.predict_log_proba(row)[0]), plain / plain.sum(), attention)


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

    def __init__(self, model: VLM, method: str, prompt: str, style: IdentifierStyle, learned: Mapping[int, _Calibrated]) -> None:
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
            UserError: the method cannot rank from one pass, labels are missing, the samples are none or have too few images, an
                image cannot be read, or the model cannot be loaded.
        """
        name, decides = canonical_name(method), _method_of(method)
        if problem := prompt_problem(prompt):
            raise UserError(f"prompt: {problem}")
        if isinstance(samples, str | Task):
            task = load_task(samples) if isinstance(samples, str) else samples
            learned_from = list(task.samples("calibration"))
        else:
            learned_from = [
                _sample(f"Sample {index}", *_unpacked(index, question_of, method)) for index, question_of in _each(samples)
            ]
        if not learned_from:
            raise UserError("There are no samples to calibrate on; give (images, caption, index of the right image), five or so.")
        if identifiers not in get_args(IdentifierStyle):
            raise UserError(f"identifiers must be one of {', '.join(get_args(IdentifierStyle))}, not {identifiers!r}.")
        answers = _model(model, options)
        ranker = cls(answers, name, prompt, identifiers, {})
        by_size = {n: [s for s in learned_from if len(s.images) == n] for n in sorted({len(s.images) for s in learned_from})}
        for n, group in by_size.items():
            shifts = Permutation.identity(n).cyclic_shifts()
            requests = [ranker._request(s, shift) for s in group for shift in shifts]
            intervention = calibrate_intervention(answers, decides.condition.intervention, requests)
            evidence, plain = ranker._evidence(intervention, requests)
            attention = PurifiedAttention().calibrate(plain) if plain.attention is not None else None
            ranker._learned[n] = _Calibrated(make_method(name).calibrate(evidence), intervention, attention)
        return ranker

    def rank(self, images: Sequence[ImageLike], caption: str) -> Ranking:
        """The images ranked by how well the caption fits them, from one pass of the model.

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
        requests = []
        for index, pair in _each(questions):
            if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
                raise UserError(f"Question {index} must be (images, caption).")
            images, caption = _images(pair[0]), pair[1]
            if len(images) not in self._learned:
                known = " or ".join(map(str, self.sizes))
                raise UserError(f"There are {len(images)} images; this ranker was calibrated for {known}: calibrate for as many.")
            requests.append(self._request(_sample(f"Question {index}", images, caption, 0, split="test")))
        rankings: dict[int, Ranking] = {}
        for n, group in itertools.groupby(sorted(range(len(requests)), key=lambda i: len(requests[i].images)), _size(requests)):
            learned, indices = self._learned[n], list(group)
            evidence, plain = self._evidence(learned.intervention, [requests[i] for i in indices])
            rankings |= {i: learned.ranking(evidence.select([row]), plain.select([row])) for row, i in enumerate(indices)}
        return [rankings[i] for i in range(len(requests))]

    def save(self, folder: str | Path) -> None:
        """Writes what was learned into a folder, without the model.

        Raises:
            UserError: it cannot be written.
        """
        folder = Path(folder)
        states = list(folder.glob(f"n*/{LEARNED}"))
        try:  # what was there before goes first, so that no description is left over other states
            for stale in (folder / DESCRIPTION, *folder.glob("n*.safetensors"), *states):
                stale.unlink(missing_ok=True)
            for emptied in {state.parent for state in states}:
                emptied.rmdir()
        except OSError as error:
            raise UserError(f"Cannot write {folder}: {error.strerror or error}.") from error
        for n, learned in self._learned.items():
            learned.method.save(folder / f"n{n}.safetensors")
            if learned.intervention is not None:
                learned.intervention.save_learned(folder / f"n{n}")
            if learned.attention is not None:
                learned.attention.save(folder / f"n{n}-{_ATTENTION}.safetensors")
        document = {
            "format": FORMAT,
            "model": self.model.name,
            "fingerprint": dict(self.model.fingerprint),
            "method": self.method,
            "prompt": self._prompt,
            "identifiers": self._style,
            "sizes": list(self.sizes),
            "attention": [n for n in self.sizes if self._learned[n].attention is not None],
        }
        try:
            write_json(folder / DESCRIPTION, document)
        except OSError as error:
            raise UserError(f"Cannot write {folder / DESCRIPTION}: {error.strerror or error}.") from error

    @classmethod
    def load(cls, folder: str | Path, model: VLM | str | None = None, **options: Any) -> Ranker:
        """The ranker that `save` wrote, on the model that it was calibrated with.

        Args:
            folder: where it was saved.
            model: the model, where it is loaded already or its name leads elsewhere now; None: it is loaded by its name.
            options: of `load_model`.

        Raises:
            UserError: the folder holds no ranker, or the model is another one than it was calibrated with.
        """
        folder = Path(folder)
        document = _description(folder / DESCRIPTION)
        chosen = document["model"] if model is None else model
        answers = _model(chosen, options)
        if off := difference(_without_versions(document["fingerprint"]), _without_versions(answers.fingerprint)):
            raise EvidenceError(f"{folder} was calibrated with another model: {off}; calibrate again.")
        named = make_method(document["method"])
        learned = {}
        for n in document["sizes"]:
            method = type(named).load(folder / f"n{n}.safetensors")
            method.condition, intervention = named.condition, named.condition.intervention
            if intervention is not None and not (intervention := intervention.load_learned(folder / f"n{n}")).is_ready:
                raise UserError(f"{folder / f'n{n}'} lacks what {intervention.label} learned. {_CURE}")
            states = folder / f"n{n}-{_ATTENTION}.safetensors"
            attention = PurifiedAttention.load(states) if n in document["attention"] else None
            learned[int(n)] = _Calibrated(method, intervention, attention)
        return cls(answers, document["method"], document["prompt"], document["identifiers"], learned)

    def _request(self, sample: Sample, order: Permutation | None = None) -> Request:
        n = len(sample.images)
        names = identifiers(self._style, n)
        shown = Permutation.identity(n) if order is None else order
        return Request.of(sample, shown, question(self._prompt, sample.caption, names), names)

    def _evidence(self, intervention: Intervention | None, requests: Sequence[Request]) -> tuple[Evidence, Evidence]:
        """Rows of the requests under an intervention, and of the model as it is, in their order; without one, asked once."""
        rows = self._rows(intervention, requests)
        return rows, rows if intervention is None else self._rows(None, requests)

    def _rows(self, intervention: Intervention | None, requests: Sequence[Request]) -> Evidence:
        with under(self.model, intervention):
            rows = Evidence.concatenate(list(in_batches(self.model, list({r.key: r for r in requests}.values()))))
        return rows.select_keys([request.key for request in requests])


def _size(requests: Sequence[Request]) -> Any:
    return lambda i: len(requests[i].images)


def _method_of(name: str) -> Method:
    """The method, if it decides from one pass under the question as it is.

    Raises:
        UserError: it does not.
    """
    method = make_method(name)
    if "replies" in method.needs or method.orders != "identity" or method.condition.prompt_variants:
        raise UserError(f"{name} does not rank from one pass of the model; use lad, lad-unlabelled, pride or the like.")
    return method


def _model(model: VLM | str, options: dict[str, Any]) -> VLM:
    if isinstance(model, str):
        return load_model(model, **options)
    if options:
        raise UserError(f"{', '.join(options)}: these are options of loading, and the model is loaded already.")
    return model


def _each(samples: Any) -> Iterable[tuple[int, Any]]:
    if isinstance(samples, str | bytes | dict) or not isinstance(samples, Iterable):
        raise UserError(f"Expected a list of (images, caption, ...), not {type(samples).__name__}.")
    return enumerate(samples)


def _images(images: Any) -> Sequence[ImageLike]:
    if isinstance(images, str | bytes | dict) or not isinstance(images, Iterable):
        raise UserError(f"Images must be a list of paths or Pillow images, not {type(images).__name__}.")
    return list(images)


def _unpacked(index: int, sample: Any, method: str) -> tuple[Any, Any, int]:
    if not isinstance(sample, Sequence) or isinstance(sample, str) or len(sample) not in (2, 3):
        raise UserError(f"Sample {index} must be (images, caption, index of the right image).")
    if len(sample) == 3:
        right = sample[2]
        if isinstance(right, bool) or not isinstance(right, int | np.integer):
            raise UserError(f"Sample {index}: the index of the right image must be a whole number, not {right!r}.")
        return sample[0], sample[1], int(right)
    if make_method(method).calibrates and method.partition("(")[0].rpartition("+")[2] not in _UNLABELLED:
        raise UserError(
            f"{method} calibrates on right answers, and a sample has none: give (images, caption, index of the right image), "
            "or use lad-unlabelled."
        )
    return sample[0], sample[1], 0  # any image may take the right one's place: only its visit to every position is checked


def _sample(name: str, images: Any, caption: Any, right: int, *, split: Split = "calibration") -> Sample:
    sources: tuple[ImageSource, ...] = tuple(map(image_source, _images(images)))
    n = len(sources)
    if n < 2:
        raise UserError(f"{name}: there {'is' if n == 1 else 'are'} {n} image{'s' * (n != 1)}; ranking needs 2 or more.")
    if not 0 <= right < n:
        raise UserError(f"{name}: the right image has index {right}, and there are {n} images.")
    if not isinstance(caption, str) or not caption.strip():
        raise UserError(f"{name}: the caption is {'empty' if isinstance(caption, str) else 'not text'}.")
    if (fault := text_fault(caption)) is not None:
        raise UserError(f"{name}: the caption {fault}.")
    return Sample(id=name, images=sources, caption=caption, gold=right, split=split)


def _description(path: Path) -> dict[str, Any]:
    document = read_json(path, what="a ranker", cure=_CURE)
    expected = {
        "format": int,
        "model": str,
        "fingerprint": dict,
        "method": str,
        "prompt": str,
        "identifiers": str,
        "sizes": list,
        "attention": list,
    }
    if any(not isinstance(document.get(key), kind) for key, kind in expected.items()):
        raise UserError(f"{path} does not describe a ranker. {_CURE}")
    if document["format"] != FORMAT:
        raise UserError(f"{path} has format {document['format']}, and this version reads {FORMAT}. {_CURE}")
    if not all(isinstance(n, int) and n > 1 for n in document["sizes"]) or document["identifiers"] not in get_args(
        IdentifierStyle
    ):
        raise UserError(f"{path} is damaged. {_CURE}")
    return document


def _without_versions(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal: a library's next release moves the last digits, not what was learned."""
    return {key: value for key, value in fingerprint.items() if key != "versions"}
