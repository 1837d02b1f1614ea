"""From a name to a model: `lad-tiny`, `random:<family>`, `vlmeval:<entry>`, `openai:<name>`, a folder, or a hub id."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lad_eval.errors import UnknownNameError, UserError
from lad_eval.models.prompts.date import DEFAULT_DATE, check_date
from lad_eval.models.source import EMBEDDED, HUB_ID, KIT, RANDOM, SERVED, Source, local_folder, source_of

if TYPE_CHECKING:
    from lad_eval.models.base import VLM, ImagePreparation, ReadsPrompts
    from lad_eval.models.server.model import ServedVLM
    from lad_eval.models.vlmeval.model import InterceptedVLM

_LOG = logging.getLogger(__name__)


def model_names() -> list[str]:
    """Models that need no files: the embedded ones, then the families with random weights; does not import torch."""
    from lad_eval.models.random import FAMILIES, SIZES

    return [*EMBEDDED, *(f"{RANDOM}{name}" for name in (*FAMILIES, *SIZES))]


def check_model_name(name: str, adapter: str | None = None) -> None:
    """Refuses a name that cannot be a model, or an adapter's name that cannot be an adapter, without importing torch.

    Raises:
        UserError: no such built-in name, no such folder, or not a valid hub id.
    """
    if adapter is not None and not name.startswith(SERVED):
        if name.startswith(KIT):
            raise UserError(f"--adapter is not for {name}: VLMEvalKit's class of this model loads its weights itself.")
        if not Path(adapter).expanduser().is_dir() and not HUB_ID.fullmatch(adapter):
            raise UserError(f"There is no adapter folder {adapter}.")
    if name in model_names() or Path(name).expanduser().is_dir():
        return
    if name.startswith(SERVED):
        _check_served(name, adapter)
        return
    if name.startswith(KIT) and name != KIT:
        return  # its registry takes seconds to import; `load_model` checks the entry
    if Path(name).expanduser().is_file():
        raise UserError(f"{name} is a file; a model is a folder with config.json, weights and processor.")
    if name.startswith(("/", "./", "../", "~")) or "\\" in name or name.count("/") > 1:
        raise UserError(f"There is no model folder {name}.")
    if not HUB_ID.fullmatch(name):
        raise UnknownNameError("model", name, model_names())


def _check_served(name: str, adapter: str | None) -> None:
    if name == SERVED:
        raise UserError(f"Name the model as its server does: {SERVED}NAME.")
    if adapter is not None:
        raise UserError(f"--adapter is not for {name}: its server loads the weights; let it serve the adapter.")


def check_model(name: str, *, adapter: str | None = None, revision: str | None = None, base_url: str | None = None) -> None:
    """Refuses a model that cannot be loaded here, because of its name or because the hub is unreachable, without importing torch.

    Raises:
        UserError: as `check_model_name`; or a model of the hub is neither in the local cache nor can be downloaded, or a
            server's address is missing, wrong or not needed.
    """
    check_model_name(name, adapter)
    if name.startswith(SERVED):
        from lad_eval.models.server.address import check_url

        check_url(base_url)
    elif base_url is not None:
        raise UserError(f"--base-url is for models behind a server, --model {SERVED}NAME; {name} is loaded here.")
    if HUB_ID.fullmatch(name) and local_folder(name) is None:
        from lad_eval.models.source import check_hub_model

        check_hub_model(name, revision)


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Pauses garbage collection while torch, transformers and a model's code are imported.

    The imports create some 800,000 objects and hardly any garbage; repeated collections of the growing heap cost a second.
    Freezing and unfreezing moves all objects to the oldest generation, so that they are not collected right afterwards.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # otherwise the calling program has frozen objects itself
                gc.freeze()
                gc.unfreeze()
            gc.enable()


@_garbage_collection_paused()
def load_model(
    name: str,
    *,
    revision: str | None = None,
    adapter: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | None = None,
    attn_implementation: str | None = None,
    batch_size: int | Literal["auto"] = "auto",
    image_preparation: ImagePreparation = "protocol",
    seed: int = 0,
    trust_remote_code: bool = False,
    date: str = DEFAULT_DATE,
    base_url: str | None = None,
    concurrency: int | None = None,
    timeout: float | None = None,
    extra_body: Mapping[str, Any] | None = None,
    weights: str | None = None,
) -> VLM:
    """A model that answers requests with evidence, or one behind a server.

    Args:
        name: `lad-tiny`, `random:<family>` or `random:<family>-<size>`, a model folder, a hub id `org/name`, or
            `vlmeval:<entry>`, an entry of VLMEvalKit's registry, whose class chooses revision, dtype and device itself. A folder
            or repository that holds a PEFT adapter is the adapter's base, its own or the one that the adapter names, with the
            adapter merged into it. `openai:<name>`: a model that a server serves under this name.
        revision: branch, tag or commit of a hub model; for a server's model whatever tells its weights from others.
        adapter: folder or hub id of a PEFT adapter that is merged into the model.
        dtype: "float32", "bfloat16", "float16", or "auto": float32 on the CPU, bfloat16 on a GPU.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto": a GPU if there is one.
        device_map: "auto" spreads a model that no GPU can hold over all GPUs, and the CPU where they do not suffice; needs
            accelerate. None: the model is on one device.
        attn_implementation: "sdpa", "eager", "flash_attention_2", ...; None: transformers' choice for the model.
        batch_size: requests per forward pass, or "auto".
        image_preparation: "protocol" (336 x 336, bicubic), "native", or "pad" (to a square).
        seed: of random weights.
        trust_remote_code: run Python code that comes with a hub model.
        date: YYYY-MM-DD, printed by chat templates that print today's date.
        base_url: of the server, such as "http://localhost:8000/v1"; None: that in the environment (OPENAI_BASE_URL).
        concurrency: requests to the server at once; None: 8.
        timeout: seconds to wait for an answer of the server; None: 600.
        extra_body: further fields of every request to the server.
        weights: what `weights_identity` gives for the same model, if it is known; None: the files are read again for it.

    Raises:
        UserError: one line that says what is wrong and how to fix it.
    """
    check_model(name, adapter=adapter, revision=revision, base_url=base_url)
    if name.startswith(SERVED):
        here: dict[str, Any] = {"dtype": dtype, "device": device, "attn": attn_implementation, "batch-size": batch_size}
        here |= {"trust-remote-code": trust_remote_code, "device-map": device_map}
        here |= {"date": None if date == DEFAULT_DATE else date}
        _refuse_options(name, here, "its server chooses it")
        return _of_server(name, base_url, revision, image_preparation, concurrency, timeout, extra_body)
    if concurrency is not None or timeout is not None or extra_body is not None:
        raise UserError(f"--concurrency, --timeout and --extra-body are for models behind a server; {name} is loaded here.")
    if name.startswith(KIT):
        chosen: dict[str, Any] = {"revision": revision, "dtype": dtype, "device": device, "device-map": device_map}
        chosen |= {"attn": attn_implementation, "batch-size": batch_size}
        chosen["trust-remote-code"] = trust_remote_code
        return _of_kit(name, chosen, image_preparation, check_date(date))
    from lad_eval.models.adapters import check_adapter
    from lad_eval.models.base import check_batch_size
    from lad_eval.models.device import (
        check_attention,
        check_device_map,
        resolve_device,
        resolve_dtype,
        reuse_freed_memory,
        spare_threads,
    )
    from lad_eval.models.huggingface import HuggingFaceVLM
    from lad_eval.models.inputs.images import check_image_preparation
    from lad_eval.models.loading import apply_adapter, fetch_adapters

    check_batch_size(batch_size)
    check_image_preparation(image_preparation)
    check_date(date)
    check_attention(attn_implementation)
    check_device_map(device_map, device)
    where = resolve_device(device)
    number = resolve_dtype(dtype, where)
    _check_revision(name, revision)
    fetch_adapters(name, adapter, revision)
    source = source_of(name, adapter=adapter, revision=revision)
    check_adapter(source)
    model: Any
    if source.base.startswith(RANDOM):  # an adapter's folder may name such a base
        from lad_eval.models.random import load_random

        if device_map is not None:
            raise UserError(f"--device-map is for models from files; {source.base} is created on one device.")
        model, processor = load_random(
            source.base.removeprefix(RANDOM), seed=seed, dtype=number, device=where, attn_implementation=attn_implementation
        )
        weights = f"{source.base} seed {seed}"
    else:
        options: dict[str, Any] = {"attn_implementation": attn_implementation, "trust_remote_code": trust_remote_code}
        options |= {"weights": weights, "device_map": device_map}
        model, processor, weights = _loaded(source, dtype=number, device=where, **options)
    model = apply_adapter(model, source)
    _warn_of_other_base(source, weights)
    spare_threads(model)
    reuse_freed_memory(model)
    from lad_eval.models.fingerprint import adapter_attention, adapter_identity, merged_attention

    return HuggingFaceVLM(
        model,
        processor,
        name=source.name,
        content_name=source.content_name,
        weights=weights,
        adapter=None if source.adapter is None else adapter_identity(source.adapter),
        adapter_attention=(
            merged_attention(model.config, source.name) if source.adapter is None else adapter_attention(source.adapter)
        ),
        batch_size=batch_size,
        image_preparation=image_preparation,
        date=date,
    )


def weights_identity(
    name: str, *, revision: str | None = None, adapter: str | None = None, trust_remote_code: bool = False
) -> str | None:
    """What identifies the weights in a model's folder, whose files are read for it; None for a model that is not in a folder.

    One of several processes on a machine may compute it for all.

    Raises:
        UserError: as `load_model`.
    """
    if name.startswith((KIT, SERVED)):
        return None
    from lad_eval.models.fingerprint import folder_identity
    from lad_eval.models.loading import fetch_adapters

    fetch_adapters(name, adapter, revision)
    folder = _checked(source_of(name, adapter=adapter, revision=revision), trust_remote_code).folder
    return None if folder is None else folder_identity(folder, code=trust_remote_code)


def _warn_of_other_base(source: Source, weights: str | None) -> None:
    """Warns where an adapter was trained on other weights than those it is merged into, as far as both are known alike."""
    from lad_eval.models.fingerprint import adapter_base

    trained_on = None if source.adapter is None else adapter_base(source.adapter)
    if trained_on is None or weights is None or trained_on == weights:
        return
    if trained_on.startswith("sha256:") == weights.startswith("sha256:"):  # else a commit and a digest, perhaps of the same files
        _LOG.warning("The adapter %s was trained on other weights than those of %s here.", source.adapter, source.base)


def _loaded(source: Source, *, trust_remote_code: bool, weights: str | None, **options: Any) -> tuple[Any, Any, str | None]:
    """The base, the processor, and what identifies the base's weights."""
    from lad_eval.models.fingerprint import folder_identity
    from lad_eval.models.loading import load_pretrained

    source = _checked(source, trust_remote_code)
    folder = source.folder
    try:
        model, processor, commit = load_pretrained(source, trust_remote_code=trust_remote_code, **options)
    except UserError as error:
        if source.adapter is None or folder is not None:
            raise
        raise UserError(f"The adapter {source.adapter} needs its base model: {error}") from error
    if folder is not None:
        return model, processor, weights or folder_identity(folder, code=trust_remote_code)
    return model, processor, f"{source.base}@{commit}" if commit else None


def _checked(source: Source, code: bool) -> Source:
    """The source with the folder of its base, after checking that its files are complete."""
    from lad_eval.models.adapters import processor_folder
    from lad_eval.models.loading import check_folder

    folder = _folder(source.base)
    if folder is None:
        return source
    check_folder(folder, processor=source.adapter is None or processor_folder(source.adapter) is None, code=code)
    return replace(source, base=str(folder))


def _check_revision(name: str, revision: str | None) -> None:
    if revision is not None and not name.startswith(RANDOM) and _folder(name) is not None:
        raise UserError(f"A revision is for hub models; {name} is a folder.")


@_garbage_collection_paused()
def load_prompt_reader(
    name: str,
    *,
    revision: str | None = None,
    adapter: str | None = None,
    image_preparation: ImagePreparation = "protocol",
    trust_remote_code: bool = False,
    date: str = DEFAULT_DATE,
) -> ReadsPrompts:
    """Loads what checks which prompts a model can take, without the model's weights; an entry of VLMEvalKit does load them.

    Args:
        name: as for `load_model`, as are all other arguments.

    Raises:
        UserError: as `load_model`.
    """
    check_model_name(name, adapter)
    check_date(date)
    if name.startswith(SERVED):
        raise UserError(f"Prompts of {name} cannot be checked here: its tokenizer is on the server.")
    if name.startswith(KIT):
        return _of_kit(name, {"revision": revision, "trust-remote-code": trust_remote_code}, image_preparation, date)
    from lad_eval.models.loading import fetch_adapters, load_processor
    from lad_eval.models.prompts.check import PromptReader
    from lad_eval.models.random import load_random

    _check_revision(name, revision)
    fetch_adapters(name, adapter, revision)
    source = source_of(name, adapter=adapter, revision=revision)
    if source.base.startswith(RANDOM):
        model, processor = load_random(source.base.removeprefix(RANDOM), device="meta")
        config = model.config
    else:
        config, processor, _ = load_processor(_checked(source, trust_remote_code), trust_remote_code=trust_remote_code)
    return PromptReader(config, processor, name=source.name, image_preparation=image_preparation, date=date)


def _of_kit(name: str, chosen: Mapping[str, Any], image_preparation: ImagePreparation, date: str) -> InterceptedVLM:
    """A model of VLMEvalKit, whose class chooses the options in `chosen` itself."""
    from lad_eval.models.inputs.images import check_image_preparation
    from lad_eval.models.vlmeval.loading import load_entry

    _refuse_options(name, chosen, "VLMEvalKit's class of this model chooses it itself")
    return load_entry(name.removeprefix(KIT), image_preparation=check_image_preparation(image_preparation), date=date)


def _refuse_options(name: str, chosen: Mapping[str, Any], reason: str) -> None:
    """Refuses options of local models that were given for another."""
    for option, value in chosen.items():
        default = None if option == "device-map" else "auto"
        if value not in (None, default, False):
            raise UserError(f"--{option} is not for {name}: {reason}.")


def _of_server(
    name: str,
    base_url: str | None,
    revision: str | None,
    image_preparation: ImagePreparation,
    concurrency: int | None,
    timeout: float | None,
    extra_body: Mapping[str, Any] | None,
) -> ServedVLM:
    from lad_eval.models.server.address import address_of
    from lad_eval.models.server.model import CONCURRENCY, TIMEOUT, ServedVLM

    if concurrency is not None and concurrency < 1:
        raise UserError(f"--concurrency must be a positive whole number, not {concurrency}.")
    if timeout is not None and not 0 < timeout < float("inf"):
        raise UserError(f"--timeout must be a positive number of seconds, not {timeout:g}.")
    return ServedVLM(
        name.removeprefix(SERVED),
        address_of(base_url),
        name=name,
        revision=revision,
        image_preparation=image_preparation,
        concurrency=CONCURRENCY if concurrency is None else concurrency,
        timeout=TIMEOUT if timeout is None else timeout,
        extra_body=extra_body,
    )


def _folder(name: str) -> Path | None:
    if name in EMBEDDED:
        from lad_eval.models.tiny import folder

        return folder(name)
    return local_folder(name)
