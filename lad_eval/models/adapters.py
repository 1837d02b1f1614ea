"""PEFT adapters: merged into their base explicitly, or refused; never applied by transformers itself, never ignored silently."""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.extras import install_command
from lad_eval.files.checkpoints import (
    ADAPTER_CONFIG,
    adapter_files,
    adapter_weights,
    check_no_pointers,
    holds_image_processor,
    holds_tokenizer,
    model_files,
)
from lad_eval.models.source import HUB_ID, Source, is_built_in, read_adapter_config

_NAME = "default"
# Weights that a PEFT adapter brings besides those of its method.
_WHOLE_MODULES = ("modules_to_save", "trainable_tokens")
_NOT_FETCHED = ["*/*", "optimizer.*", "training_args.bin"]


def check_adapter(source: Source) -> None:
    """Checks, before anything is loaded, that a model's adapter can be applied here; does nothing for a model without one.

    Raises:
        UserError: peft is not installed, a file is missing, damaged or a Git LFS pointer, the adapter needs code that is not run,
            or its base is not found.
        UnsupportedModelError: a kind of adapter that cannot be merged into weights.
    """
    folder = source.adapter
    if folder is None:
        return
    config = read_adapter_config(folder)
    if adapter_weights(folder) is None:
        raise UserError(
            f"{folder} has {ADAPTER_CONFIG} but no adapter_model.safetensors: copy the adapter's weights there, "
            f"or remove {ADAPTER_CONFIG} if the model is meant without an adapter."
        )
    check_no_pointers(adapter_files(folder))
    if config.get("megatron_config"):
        raise UserError(f"The adapter {folder} needs Megatron's modules (megatron_config), which are not supported.")
    base = source.folder
    if base is None and not is_built_in(source.base) and not HUB_ID.fullmatch(source.base):
        raise UserError(
            f"The adapter {folder} needs its base model {source.base}, which is not a folder here: "
            "name the base with --model and the adapter with --adapter."
        )
    if base is not None and base != folder and (base / ADAPTER_CONFIG).is_file():
        raise UserError(f"The adapter {folder} is for {base}, which holds an adapter itself; merge that one into its base first.")
    if find_spec("peft") is None:
        raise UserError(
            f"{source.name} is a base model with a PEFT adapter, and peft is not installed: `{install_command('peft')}`."
        )


def check_no_stray_weights(folder: Path) -> None:
    """Refuses a model folder with adapter weights that would not be loaded.

    Raises:
        UserError: they are there, and the adapter's configuration is not.
    """
    stray = adapter_weights(folder)
    if stray is not None and not (folder / ADAPTER_CONFIG).is_file():
        raise UserError(
            f"{folder} holds {stray.name} without its {ADAPTER_CONFIG}: add it for the base with the adapter, "
            f"or move {stray.name} elsewhere to use the base alone."
        )


def fetch_adapter(repository: str, revision: str | None, *, local_files_only: bool) -> Path | None:
    """Downloads the files of an adapter on the hub into the local cache; None if the repository holds no adapter.

    Raises:
        what huggingface_hub raises, where the repository or the revision does not exist or is gated.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    options: dict[str, Any] = {"revision": revision, "local_files_only": local_files_only}
    try:
        hf_hub_download(repository, ADAPTER_CONFIG, **options)
    except EntryNotFoundError:  # not in the repository, or not in the cache of a machine without a network
        return None
    return Path(snapshot_download(repository, ignore_patterns=_NOT_FETCHED, **options)).resolve()


@contextmanager
def without_adapter(folder: Path) -> Iterator[str]:
    """While open, a folder with a model's own files only, since transformers applies any adapter it finds."""
    with tempfile.TemporaryDirectory(prefix="lad-eval-base-") as scratch:
        for path in model_files(folder, code=True):
            link = Path(scratch) / path.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            try:
                link.symlink_to(path.resolve())
            except OSError:  # file systems and accounts without symbolic links
                link.hardlink_to(path.resolve())
        yield scratch


def processor_folder(adapter: Path) -> Path | None:
    """The adapter's folder if a whole processor was saved with the adapter, else None: the base's processor is used."""
    return adapter if holds_image_processor(adapter) and holds_tokenizer(adapter) else None


def check_same_vocabulary(adapter: Path, processor: Any) -> None:
    """Checks that a tokenizer saved with an adapter, without a processor, is the base's.

    Raises:
        UserError: it has other tokens than the base's processor.
    """
    if not holds_tokenizer(adapter) or holds_image_processor(adapter):
        return
    from transformers import AutoTokenizer

    if AutoTokenizer.from_pretrained(str(adapter)).get_vocab() != processor.tokenizer.get_vocab():
        raise UserError(
            f"The adapter {adapter} has a tokenizer of its own with other tokens than its base's, and no image processor: "
            "save its whole processor there with save_pretrained."
        )


def merged(model: Any, folder: Path, base: str) -> Any:
    """The model with an adapter merged into its weights, as peft's `merge_and_unload` does.

    Args:
        model: the base, a transformers model; it is changed.
        folder: of the adapter.
        base: its name, for error texts.

    Raises:
        UserError: the adapter's weights do not fit the model: modules, tensors or shapes.
        UnsupportedModelError: a kind of adapter that cannot be merged.
    """
    from peft import PeftConfig, PeftModel, load_peft_weights, set_peft_model_state_dict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # missing weights are checked below
        config: Any = PeftConfig.from_pretrained(str(folder))
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        if config.is_prompt_learning or config.is_adaption_prompt or kind == "XLORA":
            raise UnsupportedModelError(f"The adapter {folder} ({kind}) cannot be merged into its base's weights.")
        config.inference_mode = True
        mapping = getattr(model, "_checkpoint_conversion_mapping", None) or {}
        try:
            wrapped = PeftModel(model, config, adapter_name=_NAME)
            weights = load_peft_weights(str(folder), device=str(model.device), key_mapping=mapping)
            loaded = set_peft_model_state_dict(wrapped, weights, adapter_name=_NAME)
        except KeyError as error:
            raise UserError(f"The adapter {folder} is incomplete: its weights lack {error}.") from error
        except (ValueError, RuntimeError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = lines[1] if len(lines) > 1 and lines[0].endswith(":") else lines[0] if lines else type(error).__name__
            raise UserError(f"The adapter {folder} does not fit its base {base}: {reason}") from error
        _check_complete(wrapped, loaded, folder, base, len(weights))
        if shared := _shared_target(wrapped):
            raise UnsupportedModelError(
                f"The adapter {folder} changes {shared}, whose weights the base shares with another module, so that merging "
                "would change both; untie them in the base and save it with the adapter merged."
            )
        try:
            whole = wrapped.merge_and_unload(safe_merge=True)
        # How peft says that a kind of adapter has no merging: it refuses, or its layers lack the method.
        except (NotImplementedError, AttributeError) as error:
            raise UnsupportedModelError(f"The adapter {folder} ({kind}) cannot be merged into its base's weights.") from error
        except ValueError as error:
            raise UserError(f"The adapter {folder} cannot be merged into {base}: {error}") from error
    return whole.eval()


def _check_complete(wrapped: Any, loaded: Any, folder: Path, base: str, count: int) -> None:
    if loaded.unexpected_keys:
        raise UserError(
            f"The adapter {folder} does not fit its base {base}: {len(loaded.unexpected_keys)} of its {count} tensors are "
            f"unknown there, {loaded.unexpected_keys[0]} for one."
        )
    parts = (f"{wrapped.base_model.prefix}", *_WHOLE_MODULES)
    lacking = [key for key in loaded.missing_keys if any(part in key for part in parts) and f".{_NAME}" in key]
    if lacking:
        raise UserError(
            f"The adapter {folder} is incomplete: {len(lacking)} of the tensors that its configuration names are missing, "
            f"{lacking[0].replace(f'.{_NAME}', '')} for one."
        )


def _shared_target(wrapped: Any) -> str | None:
    """Name of a module that the adapter changes while the base uses its weights elsewhere as well; None if there is none."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    uses = Counter(parameter.data_ptr() for _, parameter in wrapped.named_parameters(remove_duplicate=False) if parameter.numel())
    for name, module in wrapped.named_modules():
        if isinstance(module, BaseTunerLayer):
            weight = getattr(module.get_base_layer(), "weight", None)
            if weight is not None and uses[weight.data_ptr()] > 1:
                return str(name.removeprefix("base_model.model."))
    return None
