"""Facts about a VLMEvalKit model class, read from its source without constructing or running anything."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from lad_eval.models.fingerprint import folder_identity, model_digest, package_versions
from lad_eval.models.source import Source, local_folder, snapshot_of
from lad_eval.models.vlmeval.kit import kit_version
from lad_eval.version import __version__

# Methods that run another engine than transformers.
_ENGINES = ("vllm", "lmdeploy", "video")


@dataclass(frozen=True)
class Facts:
    """Facts from the source of a class.

    Attributes:
        reply_calls: attribute chains whose `generate` or `chat` answers a message, such as "self.model.generate".
        loads: names before `.from_pretrained` in the constructor.
        imported: names that the class's module or constructor imports from transformers.
        remote: whether the model is loaded with code from the hub.
        first_image: whether a message's images are cut down to the first one by VLMEvalKit's `message_to_promptimg`.
        interleaved: VLMEvalKit's own flag.
    """

    reply_calls: tuple[str, ...]
    loads: tuple[str, ...]
    imported: tuple[str, ...]
    remote: bool
    first_image: bool
    interleaved: bool

    @property
    def generates(self) -> bool:
        """Whether it calls `generate` of the model it keeps."""
        return "self.model.generate" in self.reply_calls

    @property
    def chats(self) -> bool:
        return "self.model.chat" in self.reply_calls


@lru_cache(maxsize=512)
def facts_of(kind: Any) -> Facts:
    """Facts of a model class; empty if its source is not available."""
    methods = _methods(kind)
    reached = _reached(methods)
    calls = [call for name in reached for call in _calls(methods[name][1])]
    reply_calls = sorted({chain for call in calls if (chain := _chain(call.func)).rpartition(".")[2] in ("generate", "chat")})
    starts = _constructors(kind)
    loads = [call for start in starts for call in _calls(start) if _chain(call.func).endswith(".from_pretrained")]
    names = [_chain(call.func).rpartition(".")[0] for call in loads]
    trusting = [name for name, call in zip(names, loads, strict=True) if _trusts(call) and not is_processor(name)]
    overridden = "message_to_promptimg" in methods and methods["message_to_promptimg"][0].__name__ != "BaseModel"
    return Facts(
        reply_calls=tuple(reply_calls),
        loads=tuple(dict.fromkeys(names)),
        imported=tuple(sorted({name for tree in (*starts, _module(kind)) for name in _imported(tree)})),
        remote=bool(trusting),
        first_image=not overridden and any(_chain(call.func) == "self.message_to_promptimg" for call in calls),
        interleaved=bool(getattr(kind, "INTERLEAVE", False)),
    )


def bases(kind: Any) -> list[str]:
    """Names of the class and its bases."""
    return [base.__name__ for base in getattr(kind, "__mro__", [kind])]


def _methods(kind: Any) -> dict[str, tuple[type, ast.AST]]:
    methods: dict[str, tuple[type, ast.AST]] = {}
    for base in reversed(getattr(kind, "__mro__", ())):
        tree = _tree(base) if base is not object else None
        body = tree.body[0].body if isinstance(tree, ast.Module) and isinstance(tree.body[0], ast.ClassDef) else []
        methods.update({node.name: (base, node) for node in body if isinstance(node, ast.FunctionDef)})
    return methods


def _constructors(kind: Any) -> list[ast.AST]:
    """`__init__` of the class and of its bases: they call each other."""
    constructors = [vars(base).get("__init__") for base in getattr(kind, "__mro__", ())[:-1]]
    return [tree for method in constructors if method is not None and (tree := _tree(method)) is not None]


def _reached(methods: dict[str, tuple[type, ast.AST]]) -> list[str]:
    """Methods that `generate_inner` calls, directly or not, without those of other engines."""
    waiting, reached = ["generate_inner"], []
    while waiting:
        name = waiting.pop()
        if name in reached or name not in methods or any(engine in name for engine in _ENGINES):
            continue
        reached.append(name)
        chains = [_chain(call.func) for call in _calls(methods[name][1])]
        waiting += [chain.removeprefix("self.") for chain in chains if chain.startswith("self.") and chain.count(".") == 1]
    return reached


def _tree(thing: Any) -> ast.Module | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError, SyntaxError):
        return None


def _module(kind: Any) -> ast.AST | None:
    module = inspect.getmodule(kind)
    tree = _tree(module) if module is not None else None
    return ast.Module(body=[node for node in tree.body if isinstance(node, ast.ImportFrom)], type_ignores=[]) if tree else None


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _chain(node: ast.AST) -> str:
    """`a.b.c` as text; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _chain(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def _imported(tree: ast.AST | None) -> Iterator[str]:
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "transformers":
            yield from (name.name for name in node.names)


def _trusts(call: ast.Call) -> bool:
    return any(k.arg == "trust_remote_code" and getattr(k.value, "value", None) is True for k in call.keywords)


def is_processor(name: str) -> bool:
    return any(part in name for part in ("Processor", "Tokenizer", "Config"))


def describe(
    inner: Any,
    model: Any,
    processor: Any,
    *,
    name: str,
    dataset: str | None,
    weights: str | None,
    arguments: Mapping[str, Any],
    image_preparation: str,
    date: str | None = None,
) -> dict[str, Any]:
    """The fingerprint. The prompt and the preprocessing are the class's own, so the digest of its source represents them.

    Args:
        inner: the VLMEvalKit model object.
        model: its model.
        processor: its processor or tokenizer.
        name: as the user gave it.
        dataset: VLMEvalKit's name of the data set, which some classes choose their prompt by.
        weights: what identifies the weights; None: the hub's commit or the folder's files if the model says where it is from,
            else a digest of the loaded weights.
        arguments: that the class was constructed with.
        image_preparation: "protocol", "native" or "pad".
        date: that a chat template prints; None if it prints none.
    """
    config = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return {
        "model": name,
        "weights": weights or _weights(model, processor),
        "architecture": type(model).__name__,
        "dtype": str(getattr(model, "dtype", None)).removeprefix("torch."),
        "attn_implementation": str(getattr(text, "_attn_implementation", None) or "eager"),
        "image_preparation": image_preparation,
        **({} if date is None else {"prompt": {"date": date}}),
        "harness": {
            "package": kit_version(),
            "class": type(inner).__name__,
            "source": _source_digest(type(inner)),
            # Only the name of a folder: its location does not matter, and the weights' digest distinguishes it from others.
            "arguments": {key: _name_of(value) for key, value in sorted(arguments.items())},
            "dataset": dataset,
        },
        "versions": {"lad_eval": __version__, **package_versions()},
    }


def _name_of(value: Any) -> str:
    return Source(str(folder)).content_name if isinstance(value, str) and (folder := local_folder(value)) else str(value)


def _weights(model: Any, processor: Any) -> str:
    config = model.config
    source, commit = str(getattr(config, "_name_or_path", "") or ""), getattr(config, "_commit_hash", None)
    folder = local_folder(source)
    if folder is None and (cached := snapshot_of(PurePath(source))):
        return f"{cached.name}@{cached.commit}"
    if folder is None and commit:
        return f"{source}@{commit}"
    if folder is None:
        return f"sha256:{model_digest(model, processor)}"
    identity = folder_identity(folder, code=True)
    if not identity.startswith("sha256:"):
        return identity
    # A class may read other files than transformers does, so the loaded weights are included as well.
    return "sha256:" + hashlib.sha256(f"{identity} {model_digest(model, processor)}".encode()).hexdigest()


def _source_digest(kind: type) -> str:
    """Hex digest, 16 characters, of the class's source and its bases' in VLMEvalKit."""
    total = hashlib.sha256()
    for base in kind.__mro__[:-1]:
        total.update(_source(base).encode())
    return total.hexdigest()[:16]


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return kind.__qualname__
