"""Loads a model of transformers from a folder or the hub; what prevents that is reported in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.files.checkpoints import ADAPTER_CONFIG, IMAGE_PROCESSOR, TOKENIZER, check_no_pointers, model_files
from lad_eval.models.adapters import (
    check_no_stray_weights,
    check_same_vocabulary,
    fetch_adapter,
    merged,
    processor_folder,
    without_adapter,
)
from lad_eval.models.source import HUB_ID, Source, hub_has_address, is_built_in, local_folder, unreachable

# What a folder must hold: at least one file of each group.
_CONFIGURATION = {"the configuration (config.json)": ("config.json",)}
_PROCESSOR = {
    f"the image processor ({' or '.join(IMAGE_PROCESSOR)})": IMAGE_PROCESSOR,
    "the tokenizer (tokenizer.json, or tokenizer_config.json and its vocabulary)": TOKENIZER,
}
_WEIGHTS = {"the weights (*.safetensors)": ("*.safetensors", "*.bin")}


def check_folder(folder: Path, *, processor: bool = True, code: bool = False) -> None:
    """Checks that a model folder is complete, and that none of its files is a Git LFS pointer.

    Args:
        folder: of the model.
        processor: the processor, too, is loaded from there.
        code: Python files are run.

    Raises:
        UserError: names the part that is missing, the file that is a Git LFS pointer, or adapter weights that nothing would load.
    """
    for part, patterns in {**_CONFIGURATION, **(_PROCESSOR if processor else {}), **_WEIGHTS}.items():
        if not any(any(folder.glob(pattern)) for pattern in patterns):
            raise UserError(f"Model folder {folder} lacks {part}; save it there with save_pretrained.")
    check_no_stray_weights(folder)
    check_no_pointers(model_files(folder, code=code))


def fetch_adapters(model: str, adapter: str | None, revision: str | None) -> None:
    """Downloads adapters on the hub into the local cache, where `source_of` finds them.

    Raises:
        UserError: the named adapter cannot be loaded: it does not exist, is gated, or there is no network.
    """
    from huggingface_hub.errors import HfHubHTTPError

    for place, at in ((model, revision), (adapter, None)):
        if place is None or is_built_in(place) or local_folder(place) is not None or not HUB_ID.fullmatch(place):
            continue
        with _one_line(place):
            try:
                fetched = fetch_adapter(place, at, local_files_only=not hub_has_address())
            except HfHubHTTPError:
                if place == adapter:
                    raise
                continue  # a gated model may be in the cache; loading says what is wrong if it is not
        if fetched is None and place == adapter:
            raise UserError(
                f"There is no adapter {place}: it is not a folder here, and {ADAPTER_CONFIG} is neither in the local cache nor "
                "in a repository of this name that can be reached."
            )


def load_pretrained(
    source: Source,
    *,
    dtype: torch.dtype,
    device: torch.device,
    device_map: str | None = None,
    attn_implementation: str | None,
    trust_remote_code: bool,
) -> tuple[Any, Any, str | None]:
    """The base of a model in eval mode on the device, the processor, and the commit of a hub base.

    The processor is the one that was saved with the adapter, if one was, else the base's. The adapter is not applied.

    Raises:
        UnsupportedModelError: not an image-text-to-text model.
        UserError: files missing or damaged, hub unreachable, attention implementation not available, ...
    """
    config, processor, commit = load_processor(source, trust_remote_code=trust_remote_code)
    base, folder = source.base, source.folder
    common: dict[str, Any] = {
        "revision": commit or source.revision,
        "trust_remote_code": trust_remote_code,
        **_without_hub(source),
    }
    options: dict[str, Any] = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    if device_map is not None:
        options["device_map"] = device_map
    elif device.type != "cpu":
        options["device_map"] = {"": device}
    with ExitStack() as stack:
        stack.enter_context(_one_line(base, attn_implementation))
        seen = base
        if folder is not None and (folder / ADAPTER_CONFIG).is_file():
            seen = stack.enter_context(without_adapter(folder))
        if folder is not None:  # nothing is downloaded, so there is no progress to show
            stack.enter_context(_without_bars())
        model = _base_model(seen, config, dtype, {**common, **options})
    if seen != base:
        model.config._name_or_path = model.name_or_path = base
    return model, processor, commit


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keeps transformers from showing progress bars, if it does."""
    from transformers.utils import logging

    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def _base_model(source: str, config: Any, dtype: torch.dtype, options: Mapping[str, Any]) -> Any:
    from transformers import AutoModelForImageTextToText

    model, info = AutoModelForImageTextToText.from_pretrained(
        source, config=config, dtype=dtype, output_loading_info=True, **options
    )
    parameters = {name for name, _ in model.named_parameters()}
    if missing := sorted(parameters.intersection(info["missing_keys"])):
        raise UserError(
            f"{source}: the weights lack {len(missing)} of the model's parameters, {missing[0]} for one; download them again."
        )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise UserError(f"{source}: transformers applied an adapter that was not requested; name it with --adapter.")
    return model.eval()


def apply_adapter(model: Any, source: Source) -> Any:
    """The base with the source's adapter merged into it.

    Raises:
        UserError: the adapter does not fit its base, or cannot be merged.
    """
    if source.adapter is None:
        return model
    with _one_line(str(source.adapter)):
        return merged(model, source.adapter, source.base)


def load_processor(source: Source, *, trust_remote_code: bool) -> tuple[Any, Any, str | None]:
    """A model's configuration, its processor, and the commit of a hub base, without any weights.

    The processor is the one that was saved with the adapter, if one was, else the base's.

    Raises:
        UnsupportedModelError: not an image-text-to-text model.
        UserError: files missing or damaged, hub unreachable, ...
    """
    from transformers import AutoConfig, AutoProcessor

    base = source.base
    common: dict[str, Any] = {"revision": source.revision, "trust_remote_code": trust_remote_code, **_without_hub(source)}
    with _one_line(base):
        config = AutoConfig.from_pretrained(base, **common)
    _check_architecture(config, base, trust_remote_code)
    commit = None if source.folder is not None else _commit(base, source.revision)
    common["revision"] = commit or source.revision
    saved = None if source.adapter is None else processor_folder(source.adapter)
    with _one_line(str(saved or base)):
        at = {"revision": None} if saved is not None else {}
        processor = AutoProcessor.from_pretrained(str(saved or base), **{**common, **at})
    if getattr(processor, "image_processor", None) is None:
        raise UserError(
            f"{saved or base} has no image processor (AutoProcessor gave {type(processor).__name__}): "
            "preprocessor_config.json or processor_config.json is missing."
        )
    if source.adapter is not None:
        with _one_line(str(source.adapter)):
            check_same_vocabulary(source.adapter, processor)
    return config, processor, commit


def _without_hub(source: Source) -> dict[str, bool]:
    """Options that keep transformers from a hub that cannot be reached; else its client tries again for half a minute."""
    return {"local_files_only": True} if source.folder is None and not hub_has_address() else {}


def _commit(source: str, revision: str | None) -> str | None:
    """Commit of the configuration that was just read, from its path in the hub's cache; None if it is elsewhere."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(source, "config.json", revision=revision)
    return Path(path).parent.name if isinstance(path, str) else None


def _check_architecture(config: Any, source: str, trust_remote_code: bool) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return
    if "AutoModelForImageTextToText" in (getattr(config, "auto_map", None) or {}) and trust_remote_code:
        return
    raise UnsupportedModelError(
        f"{source} is not an image-text-to-text model: transformers knows its architecture {config.model_type!r} "
        "for other tasks only."
    )


@contextmanager
def _one_line(source: str, attn_implementation: str | None = None) -> Iterator[None]:
    """Turns what transformers and the hub raise into a UserError of one line."""
    from safetensors import SafetensorError

    try:
        yield
    except (UserError, torch.cuda.OutOfMemoryError):
        raise
    except (OSError, ValueError, ImportError, LookupError, RuntimeError, TypeError, AttributeError, SafetensorError) as error:
        raise UserError(_explain(error, source, attn_implementation)) from error


def _explain(error: BaseException, source: str, attn_implementation: str | None) -> str:
    from huggingface_hub import errors as hub

    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if any(isinstance(e, hub.GatedRepoError) for e in chain):
        return f"{source} is gated on the hub: accept its terms there, then log in with `hf auth login`."
    if any(isinstance(e, hub.RevisionNotFoundError) for e in chain):
        return f"{source} has no such revision on the hub."
    if any(isinstance(e, hub.RepositoryNotFoundError) for e in chain):
        return f"{source} is neither a folder here nor a model on the hub; if it is private, log in with `hf auth login`."
    if any(isinstance(e, (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError)) for e in chain) or (
        ("connect to" in reason or "couldn't find them in the cached files" in str(error)) and not Path(source).exists()
    ):
        return unreachable(source)
    if "trust_remote_code" in str(error):
        return f"{source} brings code of its own: read it, and if you trust it pass --trust-remote-code."
    if attn_implementation is not None and ("attention" in str(error).lower() or "attn" in str(error).lower()):
        return f"Attention implementation {attn_implementation!r} is not available for {source}: {reason}"
    return f"{source} cannot be loaded: {reason}"
