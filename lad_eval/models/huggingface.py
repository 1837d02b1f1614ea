"""Any image-text-to-text model of transformers: candidate log-probabilities and attention from one forward pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from lad_eval.attention.caption import caption_tokens, token_grids
from lad_eval.attention.interventions import Intervention
from lad_eval.attention.layout import PromptLayout
from lad_eval.attention.support import check_supported
from lad_eval.attention.windows import batch_windows
from lad_eval.errors import OutOfMemoryError, UserError
from lad_eval.evidence.replies import Decoding, Reply
from lad_eval.evidence.table import Evidence
from lad_eval.models.base import (
    BatchSize,
    ImagePreparation,
    Item,
    PromptReport,
    ReadPrompt,
    Repeated,
    by_identifiers,
    calibration_origin,
    candidate_attention,
    candidate_maps,
    check_batch_size,
    check_not_calibrated_on,
    greedy_texts,
    refuse,
)
from lad_eval.models.device import to_device
from lad_eval.models.fingerprint import describe
from lad_eval.models.inference.batching import Batcher, automatic_size, by_length, free_memory, is_out_of_memory
from lad_eval.models.inference.continuation import end_ids, last_logits, set_rope_deltas, with_positions
from lad_eval.models.inference.evidence_pass import EvidencePass, Read
from lad_eval.models.inference.generation import neutral_generation, reply_length
from lad_eval.models.inference.replies import write_replies
from lad_eval.models.inputs.features import FeatureCache
from lad_eval.models.inputs.images import check_image_preparation
from lad_eval.models.inputs.preparation import Batch, Preparation
from lad_eval.models.interventions import InterventionMixin
from lad_eval.models.prompts.check import PromptChecker
from lad_eval.models.prompts.conversation import Conversation
from lad_eval.models.prompts.date import DEFAULT_DATE
from lad_eval.models.releases import repair
from lad_eval.models.source import display_name
from lad_eval.tasks.request import Request


class HuggingFaceVLM(InterventionMixin):
    """Implements `lad_eval.models.base.VLM`.

    Args:
        model: an image-text-to-text model of transformers; its device and dtype are not changed.
        processor: the model's multi-modal processor, with a chat template.
        name: for tables and error texts; None: the name of the place that the model was loaded from, or of its class.
        content_name: the name in the fingerprint, which does not depend on a folder's location; None: `name`.
        weights: what identifies the weights (a hub revision, a digest of files); None: a digest of the weights themselves.
        adapter: what identifies the adapter that was merged into those weights; None: there is none.
        adapter_attention: the attention that the adapter was trained under, as facts; None: the unchanged one.
        batch_size: requests per forward pass, or "auto". Either is halved permanently when memory does not suffice.
        image_preparation: "protocol" resizes every image to 336 x 336 (bicubic); "native" leaves sizes to the processor;
            "pad" pads to a square, in the mean colour of the image processor.
        date: YYYY-MM-DD, printed by chat templates that print today's date.

    Raises:
        UnsupportedModelError: the model cannot give evidence; the message says what is missing.
        UserError: an invalid batch size, image preparation or date.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        name: str | None = None,
        content_name: str | None = None,
        weights: str | None = None,
        adapter: str | None = None,
        adapter_attention: Mapping[str, Any] | None = None,
        batch_size: BatchSize | str = "auto",
        image_preparation: ImagePreparation | str = "protocol",
        date: str = DEFAULT_DATE,
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        place = str(getattr(model.config, "_name_or_path", "") or "")
        self.name = name or (display_name(place) if place else type(model).__name__)
        self.batch_size = check_batch_size(batch_size)
        preparation = check_image_preparation(image_preparation)
        repair(model)
        check_supported(model, processor)
        batch_windows(model)
        self._content_name = content_name or self.name
        self._weights, self._adapter, self._adapter_attention = weights, adapter, adapter_attention
        self._conversation = Conversation(processor, self.name, date)
        self._prepare = Preparation(model, processor, self._conversation, preparation)
        self._prompts = PromptChecker(self._conversation, self._prepare, model.config, processor, self.name)
        self._features = FeatureCache(model)
        self._pass = EvidencePass(model, processor.tokenizer, self.name, self._inputs)
        self._tokens_that_fit: int | None = None
        self._maps_tokens = False

    @property
    def preparation(self) -> Preparation:
        """Turns requests into a batch's tensors."""
        return self._prepare

    @cached_property
    def _described(self) -> Mapping[str, Any]:
        return describe(
            self.model,
            self.processor,
            name=self._content_name,
            weights=self._weights,
            adapter=self._adapter,
            adapter_attention=self._adapter_attention,
            image_preparation=self._prepare.images.preparation,
            chat_template=self._conversation.digest,
            prompt=self._conversation.dated,
        )

    def check_prompts(self, requests: Sequence[Request], *, reply_tokens: int = 0, exact: int | None = 1) -> PromptReport:
        """Control tokens in samples' texts, and prompts longer than the context; see `lad_eval.models.base.ReadsPrompts`."""
        return self._prompts.report(requests, reply_tokens=reply_tokens, exact=exact)

    @contextmanager
    def mapping_tokens(self) -> Iterator[None]:
        """Records token maps of the requests that are run while this is open; see `lad_eval.models.base.MapsTokens`."""
        before, self._maps_tokens = self._maps_tokens, True
        try:
            yield
        finally:
            self._maps_tokens = before

    def evidence(self, requests: Sequence[Request]) -> Evidence:
        """One row per request, in their order; see the protocol."""
        if not requests:
            raise UserError("There are no requests to run.")
        rows = Evidence.concatenate(list(self.evidence_batches(requests)))
        where: dict[str, list[int]] = {}
        for row, key in enumerate(rows.key.tolist()):
            where.setdefault(key, []).append(row)
        return rows.select([where[request.key].pop() for request in requests])

    def evidence_batches(self, requests: Sequence[Request]) -> Iterator[Evidence]:
        """Evidence batch by batch, each as soon as it is computed, longest questions first.

        The interventions that are open when this is called apply to all batches, whenever they are consumed.
        """
        if len({(len(request.images), request.identifiers) for request in requests}) > 1:
            raise UserError("Requests of one call must have the same number of images and the same identifiers.")
        intervention, maps_tokens = self._intervention, self._maps_tokens
        check_not_calibrated_on(intervention, requests)

        def evidence_of(batch: Sequence[tuple[int, Request]], prepared: Batch) -> Evidence:
            queries = caption_tokens(prepared.layout, [request.caption for _, request in batch]) if maps_tokens else None
            read = self._pass(prepared, self._changed(prepared, intervention), queries=queries)
            return self._rows([request for _, request in batch], prepared, read, intervention)

        return self._batches(requests, evidence_of)

    def probed_batches(self, groups: Sequence[Sequence[Request]]) -> Iterator[list[Evidence]]:
        """See `lad_eval.models.base.ReadsProbes`; the model must not be under an intervention.

        A probe is read from the cache of its request's prompt where that has the same results, else in a pass of its own.
        """
        if self._intervention is not None:
            raise UserError(f"{self.name} reads probes together with their requests only without interventions.")
        for probes in list(zip(*groups, strict=True))[1:]:
            self._prepare.check_sizes(probes)
            refuse(self._prompts.report(probes).faults)

        def use(batch: Sequence[tuple[int, Request]], prepared: Batch) -> list[Evidence]:
            requests = list(zip(*(groups[index] for index, _ in batch), strict=True))
            batches = [prepared, *map(self._prepare, requests[1:])]
            for probes, each in zip(requests[1:], batches[1:], strict=True):
                refuse(self._prompts.length_faults(probes, each, None))
            read = self._pass.with_probes(prepared, batches[1:])
            return [self._rows(*one, None) for one in zip(requests, batches, read, strict=True)]

        return self._batches([group[0] for group in groups], use)

    def generate(self, requests: Sequence[Request], *, max_new_tokens: int = 16) -> list[str]:
        """Greedy free text, one reply per request, without special tokens and without the model's generation settings."""
        return greedy_texts(self, requests, max_new_tokens)

    def reply_batches(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[list[Reply]]:
        """Replies batch by batch, each as soon as it is generated, in any order; texts as of `generate`.

        Args:
            requests: where several have the same key, only the last one is run.
            decoding: generation settings. Sampling depends on the request and the decoding only, not on the batch.
        """
        intervention = self._intervention
        check_not_calibrated_on(intervention, requests)

        def write(batch: Sequence[tuple[int, Request]], prepared: Batch) -> list[Reply]:
            keys = [request.key for _, request in batch]
            started = time.perf_counter()
            written = self._write(prepared, decoding, keys, intervention)
            seconds = (time.perf_counter() - started) / len(keys)
            return [
                Reply(key, tuple(texts[row] for texts, _ in written), sum(counts[row] for _, counts in written), seconds)
                for row, key in enumerate(keys)
            ]

        return self._batches(list({request.key: request for request in requests}.values()), write, decoding.max_new_tokens)

    def calibrated(self, intervention: Intervention, requests: Sequence[Request]) -> Intervention:
        """The intervention with what it learns from the unchanged model's passes over calibration requests."""
        origin = calibration_origin(self.fingerprint, requests)
        while True:
            sizes = [1]
            try:
                return intervention.calibrated(self.model, Repeated(partial(self._passes, requests, sizes)), origin)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if max(sizes) == 1:
                    raise OutOfMemoryError(
                        f"Out of memory while {intervention.label} was calibrated on one request at a time."
                    ) from error
            # How far the failed batch was used is unknown, so calibration starts again with smaller batches.
            free_memory()
            self._tokens_that_fit = max(sizes) // 2 * max(map(self._tokens, requests))

    def read_prompts(self, requests: Sequence[Request], read: ReadPrompt[Item]) -> Iterator[Item]:
        """See `lad_eval.models.base.RunsPrompts`; interventions that the model is under are left out."""

        def use(batch: Sequence[tuple[int, Request]], prepared: Batch) -> Item:
            return read(prepared.layout, lambda: self._pass_over(prepared))

        for group in by_identifiers(requests):
            yield from self._batches(group, use)

    def _passes(self, requests: Sequence[Request], sizes: list[int]) -> Iterator[tuple[PromptLayout, Callable[[], None]]]:
        """Forward passes of the unchanged model, batch by batch; the batch sizes are appended to `sizes`."""

        def ready(batch: Sequence[tuple[int, Request]], prepared: Batch) -> tuple[PromptLayout, Callable[[], None]]:
            sizes.append(len(batch))
            return prepared.layout, lambda: self._pass_over(prepared)

        for group in by_identifiers(requests):
            yield from self._batches(group, ready)

    @torch.inference_mode()
    def _pass_over(self, batch: Batch) -> None:
        inputs = self._inputs(batch)
        with last_logits(self.model, 1) as options:
            self.model(**inputs, use_cache=False, **options)

    def _batches(self, requests: Sequence[Request], use: Any, reply_tokens: int | None = None) -> Iterator[Any]:
        """Results of `use` on every batch; with `reply_tokens` None, prompts end where the candidates begin.

        Raises:
            DataError: a sample's text contains a control token, or a prompt is longer than the context.
        """
        if not requests:
            return
        self._prepare.check_sizes(requests)
        refuse(self._prompts.report(requests, reply_tokens=reply_tokens or 0).faults)

        def prepare(batch: Sequence[tuple[int, Request]]) -> Batch:
            chosen = [request for _, request in batch]
            prepared = self._prepare(chosen, for_candidates=reply_tokens is None)
            refuse(self._prompts.length_faults(chosen, prepared, reply_tokens))
            return prepared

        lengths: dict[str, int] = {}
        for question in dict.fromkeys(request.question for request in requests):
            lengths[question] = self._conversation.length(question)
        order = by_length([lengths[request.question] for request in requests], [request.sample_id for request in requests])
        items = [(index, requests[index]) for index in order]
        size = self._size(items[0][1])
        batcher = Batcher(size, ahead=self.model.device.type != "cpu")
        try:
            yield from batcher.run(items, prepare, use)
        finally:
            if batcher.size < size:
                self._tokens_that_fit = batcher.size * self._tokens(items[0][1])

    def _size(self, longest: Request) -> int:
        """Initial batch size: the one that was set, but no more tokens than are known to fit."""
        if self.batch_size != "auto" and self._tokens_that_fit is None:
            return self.batch_size
        tokens = self._tokens(longest)
        size = automatic_size(tokens, self.model.device.type) if self.batch_size == "auto" else self.batch_size
        return size if self._tokens_that_fit is None else max(1, min(size, self._tokens_that_fit // tokens))

    def _tokens(self, request: Request) -> int:
        return int(self._prepare([request]).inputs["input_ids"].shape[1])

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        """A batch's inputs on the device, with features in place of pixels where that is possible, and with positions."""
        inputs = self._to_device(self._features(batch.inputs, batch.images, self._to_device))
        if batch.positions is None:
            return with_positions(self.model, inputs)
        moved = self._to_device({"position_ids": batch.positions.ids, "rope_deltas": batch.positions.deltas})
        set_rope_deltas(self.model, moved.pop("rope_deltas"))
        return {**inputs, **moved}

    def _to_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        device, dtype = self.model.device, self.model.dtype

        def moved(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            return to_device(value, device, dtype)

        return {key: moved(value) for key, value in inputs.items()}

    def _rows(self, requests: Sequence[Request], prepared: Batch, read: Read, intervention: Intervention | None) -> Evidence:
        n = len(requests)
        evidence = Evidence.from_arrays(
            read.log_probs,
            candidate_attention(read.attention, requests),
            [r.gold_position for r in requests],
            [r.sample_id for r in requests],
            attention_delimited=candidate_attention(read.delimited, requests),
            perm=[r.permutation.order for r in requests],
            split=[r.split for r in requests],
            key=[r.key for r in requests],
            forward_passes=np.full(n, 2 if prepared.trie.prefixes else 1),
            seconds=np.full(n, read.seconds / n),
            fingerprint=self._fingerprint_under(intervention),
        )
        if read.token_maps is None:
            return evidence
        grids = token_grids(self.model, self.processor, prepared.inputs, prepared.spans.owner, len(requests[0].images))
        return evidence.with_token_maps(*candidate_maps([row.numpy() for row in read.token_maps], grids.numpy(), requests))

    @torch.inference_mode()
    def _write(
        self, batch: Batch, decoding: Decoding, keys: Sequence[str], intervention: Intervention | None
    ) -> list[tuple[list[str], list[int]]]:
        """By sample: one reply per row, with the beginning that the chat template added, and the number of generated tokens."""
        inputs = self._to_device(self._features(batch.inputs, batch.images, self._to_device))
        tokenizer = self.processor.tokenizer
        ends = end_ids(self.model, tokenizer)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
        neutral = neutral_generation(self.model, ends=ends, max_new_tokens=decoding.max_new_tokens, pad_token_id=pad)
        with self._changed(batch, intervention), neutral as config:
            written = write_replies(self.model, inputs, config, decoding, keys)
        begun, replies = self._conversation.begun, []
        for rows in written:
            with self._prepare.lock:
                texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
            replies.append(([begun + text.strip() for text in texts], [reply_length(row, ends) for row in rows]))
        return replies

    def _changed(self, batch: Batch, intervention: Intervention | None) -> AbstractContextManager[None]:
        return nullcontext() if intervention is None else intervention.applied(self.model, batch.layout)
