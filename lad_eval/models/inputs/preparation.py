"""From requests to a model's inputs: image preparation, the chat message, left padding.

The processor's plain way makes every batch from nothing. Here its output is put together from remembered parts: tokens by the
prompt and the pictures' sizes, tensors by the picture. A few requests of the first batch of each kind are made both ways, and
batches of a form whose two outputs differ in a bit are made the plain way: some processors treat pictures together.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch

from lad_eval.attention.layout import PromptLayout, no_padding
from lad_eval.attention.spans import NOT_FOR_THE_MODEL, Spans, image_spans, labelled_spans, span_options
from lad_eval.errors import PictureError, UserError
from lad_eval.models.base import ImagePreparation
from lad_eval.models.inference.batching import is_out_of_memory
from lad_eval.models.inference.candidates import CandidateTrie
from lad_eval.models.inference.continuation import align_prompt_end
from lad_eval.models.inputs.images import IMAGE_OPTIONS, PROTOCOL_SIZE, ImageCache, Size
from lad_eval.models.inputs.padding import mean_colour, padding_share
from lad_eval.models.inputs.parts import ModelInputs, PartsCache, PictureParts, StandInProcessor, concatenable, stand_in
from lad_eval.models.inputs.rows import PositionMaker, Positions, PromptKey, PromptRow, row_cache, stacked
from lad_eval.models.inputs.sizes import refused, size_faults
from lad_eval.models.prompts.conversation import CandidateTokens, Conversation

if TYPE_CHECKING:
    from PIL.Image import Image

    from lad_eval.tasks.request import Request

_LOG = logging.getLogger(__name__)

Kind = tuple[Any, ...]
"""What may decide whether a processor's output is that of its parts: numbers of pictures and prompts, sizes, padding."""
Form = tuple[int, bool, Size | None]
"""What of that is known before the pictures are read: their number, whether prompts are several, and a size that all have."""

# So many forms with the same number of pictures may differ; then this number is not tried again.
_MOST_DIFFERING = 4


@dataclass(frozen=True)
class Batch:
    """A model's inputs for n requests, on the CPU.

    Attributes:
        inputs: input_ids Int[n, T] padded on the left, attention_mask, pixels, ...
        layout: the parts of the prompts, token by token.
        trie: the candidates, as they continue the prompt.
        images: digests of all images, row by row.
        positions: of a model with several rotary axes; None: the model computes them.
    """

    inputs: ModelInputs
    layout: PromptLayout
    trie: CandidateTrie
    images: tuple[str, ...]
    positions: Positions | None = None

    @property
    def spans(self) -> Spans:
        """Positions of the images' tokens."""
        return self.layout.spans


@dataclass(frozen=True)
class _Prompts:
    """What a batch's prompts are made of; with `cut` None they end where the chat template ends them."""

    requests: Sequence[Request]
    texts: Sequence[str]
    cut: CandidateTokens | None

    @property
    def n_images(self) -> int:
        return len(self.requests[0].images)

    def of(self, places: Sequence[int]) -> _Prompts:
        """Some of the prompts."""
        return _Prompts([self.requests[i] for i in places], [self.texts[i] for i in places], self.cut)


@dataclass(frozen=True)
class _Made:
    """A batch's inputs, its spans and positions, and the original (height, width) of every picture, row by row."""

    inputs: ModelInputs
    spans: Spans
    positions: Positions | None
    originals: list[list[Size]]


@dataclass(frozen=True)
class _Assembly:
    """A batch's parts: a row for each prompt, the parts of its pictures, and the first row that was remembered."""

    rows: Sequence[PromptRow]
    pictures: Sequence[Sequence[PictureParts]]
    remembered: int | None

    @property
    def kind(self) -> Kind:
        sizes = {one.size for row in self.pictures for one in row}
        padded = len({row.length for row in self.rows}) > 1
        alike = sizes.pop() if len(sizes) == 1 else None
        return len(self.pictures[0]), len(self.rows) > 1, alike, padded, self.remembered is not None

    def sample(self) -> list[int]:
        """Places of a few rows whose batch is of the same kind: the first and the last, the extreme lengths, a remembered one."""
        lengths = [row.length for row in self.rows]
        chosen = {0, len(lengths) - 1, lengths.index(min(lengths)), lengths.index(max(lengths)), self.remembered or 0}
        sizes = [tuple(one.size for one in row) for row in self.pictures]
        return sorted({*chosen, next((i for i, row in enumerate(sizes) if row != sizes[0]), 0)})

    def made(self, places: Sequence[int], fillers: Mapping[str, int]) -> _Made:
        """The batch of some of the rows."""
        pictures = [self.pictures[i] for i in places]
        outputs = [one.outputs for row in pictures for one in row]
        batch = stacked([self.rows[i] for i in places], fillers)
        names = [name for name in outputs[0] if name not in self.rows[0].dropped]
        originals = [[(one.original[1], one.original[0]) for one in row] for row in pictures]
        return _Made(ModelInputs(batch.text, outputs, names), batch.spans, batch.positions, originals)


class Preparation:
    """Prepares a batch's tensors.

    Args:
        model: or its configuration alone, which has what the processor does not say.
        processor: the model's multi-modal processor.
        conversation: renders the questions.
        preparation: of the images.

    Attributes:
        lock: held while the processor runs; other threads must hold it to use the tokenizer.
    """

    def __init__(self, model: Any, processor: Any, conversation: Conversation, preparation: ImagePreparation) -> None:
        self._model = model
        self._processor: Any = copy.copy(processor)
        self._image_processor = processor.image_processor
        self._stand_in = self._processor.image_processor = StandInProcessor(processor.image_processor)
        self._accepted_sizes: set[tuple[int, int]] = set()
        self._conversation = conversation
        self._image_options = IMAGE_OPTIONS.get(str(getattr(model, "config", model).model_type), _no_options)
        self.images = ImageCache(preparation, mean_colour(processor.image_processor))
        self.lock = Lock()
        self._parts = PartsCache(processor.image_processor, lambda: self.images)
        self._rows = row_cache()
        self._positions = PositionMaker(model)
        tokenizer = processor.tokenizer
        self._fillers = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0)}
        # By the number of images: the options that the image processor is called with; None where the plain way is taken.
        self._options: dict[int, dict[str, Any] | None] = {}
        self._same: set[Kind] = set()
        self._differing: set[Form] = set()

    def check_sizes(self, requests: Sequence[Request]) -> None:
        """Checks the sizes of all images before any work is done on the requests.

        Raises:
            PictureError: the image processor refuses an image because of its size, or an image cannot be read.
        """
        if faults := self.size_faults(requests):
            raise faults[0]

    def size_faults(self, requests: Sequence[Request]) -> list[PictureError]:
        """Images whose size the image processor refuses, each with a sample that shows it; none with the protocol's fixed size.

        Raises:
            PictureError: a picture cannot be read.
        """
        if self.images.preparation == "protocol" or not requests:
            return []
        options = {"return_tensors": "pt", **self._image_options(len(requests[0].images))}
        with self.lock:
            return size_faults(self._image_processor, requests, options, self._accepted_sizes, self.images.prepare)

    def __call__(self, requests: Sequence[Request], *, for_candidates: bool = True) -> Batch:
        """Inputs for requests with the same number of images and the same identifiers.

        Questions are not checked here; `PromptChecker` does that. A prompt ends where the candidates' tokens begin, or, if not
        `for_candidates`, where the chat template ends it.

        Raises:
            DataError: an image cannot be read or is refused by the image processor.
            UnsupportedModelError: the images' token spans cannot be found.
            UserError: two identifiers have the same tokens.
        """
        first = requests[0]
        n_images = len(first.images)
        pictures = self._pictures(requests)
        with self.lock:
            texts = [self._conversation.prompt(request.question, n_images, request.labels) for request in requests]
            candidates = self._conversation.candidate_tokens(first.identifiers, n_images, first.question)
            prompts = _Prompts(requests, texts, candidates if for_candidates else None)
            made = self._made(prompts, pictures)
        inputs = made.inputs
        mask = inputs.text.get("attention_mask")
        digests = tuple(source.digest for request in requests for source in request.images)
        layout = PromptLayout(
            inputs["input_ids"],
            made.spans,
            torch.ones_like(inputs["input_ids"], dtype=torch.bool) if mask is None else mask.bool(),
            tuple(request.question for request in requests),
            self._decode,
            no_padding if self.images.preparation == "protocol" else partial(self._padding_share, made.originals),
            digests,
            tuple(request.sample_id for request in requests),
            tuple(request.key for request in requests),
        )
        return Batch(inputs, layout, candidates.trie, digests, made.positions)

    def _pictures(self, requests: Sequence[Request]) -> list[list[PictureParts]] | None:
        """The parts of all pictures, row by row; None where the plain way is taken, which reads the pictures itself.

        This runs outside the lock, in several threads where pictures are new.
        """
        options = self._options.get(len(requests[0].images))
        if options is None or self._form(requests) in self._differing:
            return None
        try:
            parts = self._parts.of(requests, options)
        except UserError:
            raise
        except Exception as error:  # third-party code, which may raise any exception; the plain way says which picture it was
            if is_out_of_memory(error):
                raise
            return None
        return [[parts[source.digest] for source in request.images] for request in requests]

    def _made(self, prompts: _Prompts, pictures: list[list[PictureParts]] | None) -> _Made:
        n_images = prompts.n_images
        first: _Made | None = None
        if n_images not in self._options:
            first = self._plain(prompts.of([0]))
            self._options[n_images] = self._stand_in.options
            pictures = self._pictures(prompts.requests)
        if pictures is not None:
            assembly = self._assembly(prompts, pictures)
            if assembly is not None and (assembly.kind in self._same or self._is_same(prompts, assembly, first)):
                self._same.add(assembly.kind)
                return assembly.made(range(len(pictures)), self._fillers)
            self._give_up(self._form(prompts.requests))
        return self._plain(prompts)

    def _form(self, requests: Sequence[Request]) -> Form:
        fixed = PROTOCOL_SIZE if self.images.preparation == "protocol" else None
        sizes = {fixed or getattr(source, "size", None) for request in requests for source in request.images}
        return len(requests[0].images), len(requests) > 1, sizes.pop() if len(sizes) == 1 else None

    def _give_up(self, form: Form) -> None:
        """Leaves batches of a form to the processor."""
        n_images = form[0]
        _LOG.debug("The inputs of %s images are not those of their parts in %s; the processor makes them.", n_images, form)
        self._differing.add(form)
        if sum(other[0] == n_images for other in self._differing) >= _MOST_DIFFERING:
            self._options[n_images] = None

    def _assembly(self, prompts: _Prompts, pictures: list[list[PictureParts]]) -> _Assembly | None:
        """A batch's parts; None where they do not join."""
        if not concatenable([one.outputs for row in pictures for one in row]):
            return None
        drop, lead = (prompts.cut.drop, prompts.cut.lead) if prompts.cut is not None else (0, ())
        rows: list[PromptRow] = []
        remembered: int | None = None
        for place, (text, parts) in enumerate(zip(prompts.texts, pictures, strict=True)):
            key = PromptKey(text, prompts.requests[place].labels, tuple(one.size for one in parts), drop, lead)
            row = self._rows.get(key)
            if row is None:
                row = self._row(parts, prompts.of([place]))
                if row is None:
                    return None
                self._rows.put(key, row)
            elif remembered is None:
                remembered = len(rows)
            rows.append(row)
        if len({frozenset(row.text) for row in rows}) > 1:
            return None
        return _Assembly(rows, pictures, remembered)

    def _is_same(self, prompts: _Prompts, assembly: _Assembly, first: _Made | None = None) -> bool:
        """Whether a few of the requests, which stand for their batch, get the same inputs from the processor.

        Args:
            prompts: of the batch.
            assembly: its parts.
            first: what the processor makes of the first request, where that is known already.
        """
        places = assembly.sample()
        plain = first if first is not None and places == [0] else self._plain(prompts.of(places))
        return _equal(assembly.made(places, self._fillers), plain)

    def _row(self, parts: Sequence[PictureParts], prompts: _Prompts) -> PromptRow | None:
        """A prompt's tokens, made without pixels; None where the processor does not make a row of tokens of them."""
        outputs = [one.outputs for one in parts]
        images = [_blank(one.size) for one in parts]
        try:
            with self._stand_in.answering(stand_in(outputs)):
                aligned, spans = self._run(prompts.texts, [images], prompts)
        except Exception as error:  # third-party code, which may raise any exception
            if is_out_of_memory(error):
                raise
            return None
        arguments = {name: value for name, value in aligned.items() if name not in outputs[0]}
        if any(not isinstance(value, torch.Tensor) or value.shape != (1, spans.length) for value in arguments.values()):
            return None
        facts = {name: value for name, value in aligned.items() if name in outputs[0]}
        dropped = frozenset(outputs[0]) - facts.keys()
        return PromptRow(arguments, spans, self._positions({**arguments, **facts}), dropped)

    def _plain(self, prompts: _Prompts) -> _Made:
        """A batch as the processor makes it."""
        read = self._parts.read(prompts.requests)
        prepared = [[read[source.digest] for source in request.images] for request in prompts.requests]
        images = [[one.image for one in row] for row in prepared]
        try:
            aligned, spans = self._run(prompts.texts, images, prompts)
        except UserError:
            raise
        except Exception as error:  # third-party code, which may raise any exception
            if not is_out_of_memory(error):
                options = {"return_tensors": "pt", **self._image_options(prompts.n_images)}
                if (fault := refused(self._image_processor, prompts.requests, images, options)) is not None:
                    raise fault from error
            raise
        originals = [[(one.original[1], one.original[0]) for one in row] for row in prepared]
        return _Made(ModelInputs(aligned), spans, self._positions(aligned), originals)

    def _run(self, texts: Sequence[str], images: Sequence[Sequence[Image]], prompts: _Prompts) -> tuple[dict[str, Any], Spans]:
        """The processor's output for the model, cut where the candidates begin, and the spans of the images.

        Images are nested by request, as LLaVA-OneVision requires: of several images of a request it uses the base tile only.
        """
        inputs = self._processor(
            text=list(texts),
            images=images,
            padding=True,
            padding_side="left",
            add_special_tokens=self._conversation.adds_special_tokens(texts[0]),
            return_tensors="pt",
            **self._image_options(prompts.n_images),
            **span_options(self._processor),
        )
        aligned = dict(inputs) if prompts.cut is None else align_prompt_end(inputs, prompts.cut)
        sizes = [[(image.height, image.width) for image in row] for row in images]
        spans = image_spans(self._model, self._processor, aligned, prompts.n_images, image_sizes=sizes)
        if prompts.requests[0].labels:
            labels = [request.labels for request in prompts.requests]
            spans = labelled_spans(spans, aligned["input_ids"], labels, self._text_of)
        return {name: value for name, value in aligned.items() if name not in NOT_FOR_THE_MODEL}, spans

    def _padding_share(self, sizes: Sequence[Sequence[Size]], spans: Spans) -> torch.Tensor:
        options = {"return_tensors": "pt", **self._image_options(len(sizes[0]))}
        with self.lock:
            return padding_share(self._image_processor, options, sizes, spans, self.images.prepare)

    def _decode(self, ids: list[int]) -> str:
        with self.lock:
            return self._text_of(ids)

    def _text_of(self, ids: list[int]) -> str:
        return str(self._processor.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _no_options(n_images: int) -> dict[str, Any]:
    return {}


@lru_cache(maxsize=64)
def _blank(size: Size) -> Image:
    """A black picture, in place of one of the same size whose pixels are not needed."""
    from PIL import Image as Pil

    return Pil.new("RGB", size)


def _equal(ours: _Made, theirs: _Made) -> bool:
    """Whether inputs, spans and positions are the same in every bit."""
    if ours.inputs.keys() != theirs.inputs.keys() or (ours.positions is None) != (theirs.positions is None):
        return False
    pairs: list[tuple[Any, Any]] = [(ours.inputs[name], theirs.inputs[name]) for name in ours.inputs]
    pairs += [(getattr(ours.spans, name), getattr(theirs.spans, name)) for name in ("image", "delimited", "owner", "label")]
    if ours.positions is not None and theirs.positions is not None:
        pairs += [(ours.positions.ids, theirs.positions.ids), (ours.positions.deltas, theirs.positions.deltas)]
    return all(_same(one, other) for one, other in pairs)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)
