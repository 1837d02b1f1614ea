"""Which files of a folder determine a model: only those that transformers reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lad_eval.errors import UserError
from lad_eval.files.documents import parse

ADAPTER_CONFIG = "adapter_config.json"
TRAINING = "training.json"
"""File in the folder of an adapter trained here: what it was trained on, and under which attention."""
IMAGE_PROCESSOR = ("preprocessor_config.json", "processor_config.json")
TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json", "tokenizer_config.json")

_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# In the order in which transformers looks for them; the first that exists is loaded.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_CONFIGURATION = ("config.json", "generation_config.json")
_TOKENIZER_FILES = (
    "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tekken.json",
    "*.model", "*.tiktoken",
)  # fmt: skip
_PROCESSOR_FILES = (
    *IMAGE_PROCESSOR, "video_preprocessor_config.json", "chat_template.json", "chat_template.jinja",
    "additional_chat_templates/*.jinja",
)  # fmt: skip
_POINTER = b"version https://git-lfs.github.com/spec/v1"


def model_files(folder: Path, *, code: bool = False) -> list[Path]:
    """Configuration, weights, tokenizer, processor and chat templates, in order of their paths.

    `generation_config.json` counts: it names the tokens that end a reply. Only the weights that transformers loads
    count: safetensors before pickles, and the shards that the index names. Remains of training (optimizer, scheduler and
    random states, `trainer_state.json`, `training_args.bin`, logs, earlier checkpoints) do not.

    Args:
        folder: of the model.
        code: count Python files as well; they are run where remote code is trusted.

    Raises:
        UserError: a file that must be read for this is a Git LFS pointer or is damaged, or a shard is missing.
    """
    files = {*_matching(folder, _CONFIGURATION), *weight_files(folder), *processor_files(folder)}
    if code:
        files |= {path for path in folder.rglob("*.py") if not _is_hidden(path.relative_to(folder))}
    return sorted(files)


def processor_files(folder: Path) -> list[Path]:
    """Files of the tokenizer, the image processor and the chat template, in order of their paths."""
    files = {*_matching(folder, _TOKENIZER_FILES), *_matching(folder, _PROCESSOR_FILES)}
    for path in folder.glob("*/tokenizer_config.json"):  # a processor's second tokenizer has its own folder
        if not any((path.parent / name).is_file() for name in ("config.json", ADAPTER_CONFIG)):  # an earlier checkpoint
            files |= set(_matching(path.parent, _TOKENIZER_FILES))
    return sorted(files)


def weight_files(folder: Path) -> list[Path]:
    """The weights that transformers loads from a folder, the index of shards included; empty if there are none.

    Raises:
        UserError: the configuration or the index is a Git LFS pointer or is damaged, or a shard is missing.
    """
    named = _read_json(folder / "config.json").get("transformers_weights")
    first = next((folder / name for name in ([str(named)] if named else _WEIGHTS) if (folder / name).is_file()), None)
    if first is None:
        return []
    if not first.name.endswith(".index.json"):
        return [first]
    shards = _read_json(first).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise UserError(f"{first} is damaged: it has no weight_map; fetch it again.")
    paths = [folder / shard for shard in sorted({*shards.values()})]
    if missing := next((path for path in paths if not path.is_file()), None):
        raise UserError(f"{missing} is missing, a part of the weights that {first.name} names; fetch it again.")
    return [first, *paths]


def adapter_weights(folder: Path) -> Path | None:
    """The weights of the PEFT adapter in a folder, if there are any."""
    return next((folder / name for name in _ADAPTER_WEIGHTS if (folder / name).is_file()), None)


def adapter_files(folder: Path) -> list[Path]:
    """The files of an adapter: its configuration and weights, and the tokenizer and processor saved with it."""
    weights = adapter_weights(folder)
    return sorted({folder / ADAPTER_CONFIG, *([] if weights is None else [weights]), *processor_files(folder)})


def holds_image_processor(folder: Path) -> bool:
    return any((folder / name).is_file() for name in IMAGE_PROCESSOR)


def holds_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER)


def check_no_pointers(paths: Iterable[Path]) -> None:
    """`check_no_pointer` for each file."""
    for path in paths:
        check_no_pointer(path)


def check_no_pointer(path: Path) -> None:
    """Refuses a Git LFS pointer, the small text file that a clone without Git LFS has instead of a large one.

    Raises:
        UserError: the file is one.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
    except OSError:
        return  # the code that reads the file reports why it cannot
    if start == _POINTER:
        raise UserError(f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in {path.parent}.")


def _matching(folder: Path, patterns: Iterable[str]) -> Iterator[Path]:
    return (path for pattern in patterns for path in folder.glob(pattern) if path.is_file())


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "__")) and part.rstrip("_") != "__init__.py" for part in path.parts[:-1])


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file, or if it is damaged, which transformers reports itself."""
    if not path.is_file():
        return {}
    check_no_pointer(path)
    try:
        document = parse(path.read_bytes(), constants=True)
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
