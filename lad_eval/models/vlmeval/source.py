"""What a VLMEvalKit model class does, read from its source; nothing is constructed or run."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

# Methods that run another engine, beside those that run transformers.
_ENGINES = ("vllm", "lmdeploy", "video")


@dataclass(frozen=True)
class Facts:
    """What the source of a class says.

    Attributes:
        asks: attribute chains whose `generate` or `chat` answers a message, such as "self.model.generate".
        loads: names before `.from_pretrained` in the constructor.
        imported: names that the class's module or constructor imports from transformers.
        remote: whether the model is loaded with code from the hub.
        first_image: whether a message's images are cut down to the first one by VLMEvalKit's `message_to_promptimg`.
        interleaved: VLMEvalKit's own flag.
    """

    asks: tuple[str, ...]
    loads: tuple[str, ...]
    imported: tuple[str, ...]
    remote: bool
    first_image: bool
    interleaved: bool

    @property
    def generates(self) -> bool:
        """Whether it calls `generate` of the model it keeps."""
        return "self.model.generate" in self.asks

    @property
    def chats(self) -> bool:
        return "self.model.chat" in self.asks


@lru_cache(maxsize=512)
def facts_of(kind: Any) -> Facts:
    """Facts of a model class; empty where its source is not at hand."""
    methods = _methods(kind)
    reached = _reached(methods)
    calls = [call for name in reached for call in _calls(methods[name][1])]
    asks = sorted({chain for call in calls if (chain := _chain(call.func)).rpartition(".")[2] in ("generate", "chat")})
    starts = _constructors(kind)
    loads = [call for start in starts for call in _calls(start) if _chain(call.func).endswith(".from_pretrained")]
    names = [_chain(call.func).rpartition(".")[0] for call in loads]
    trusting = [name for name, call in zip(names, loads, strict=True) if _trusts(call) and not is_processor(name)]
    own = "message_to_promptimg" in methods and methods["message_to_promptimg"][0].__name__ != "BaseModel"
    return Facts(
        asks=tuple(asks),
        loads=tuple(dict.fromkeys(names)),
        imported=tuple(sorted({name for tree in (*starts, _module(kind)) for name in _imported(tree)})),
        remote=bool(trusting),
        first_image=not own and any(_chain(call.func) == "self.message_to_promptimg" for call in calls),
        interleaved=bool(getattr(kind, "INTERLEAVE", False)),
    )


def bases(kind: Any) -> list[str]:
    """Names of the class and its bases."""
    return [base.__name__ for base in getattr(kind, "__mro__", [kind])]


def _methods(kind: Any) -> dict[str, tuple[type, ast.AST]]:
    found: dict[str, tuple[type, ast.AST]] = {}
    for base in reversed(getattr(kind, "__mro__", ())):
        tree = _tree(base) if base is not object else None
        body = tree.body[0].body if isinstance(tree, ast.Module) and isinstance(tree.body[0], ast.ClassDef) else []
        found.update({node.name: (base, node) for node in body if isinstance(node, ast.FunctionDef)})
    return found


def _constructors(kind: Any) -> list[ast.AST]:
    """`__init__` of the class and of its bases: they call each other."""
    own = [vars(base).get("__init__") for base in getattr(kind, "__mro__", ())[:-1]]
    return [tree for method in own if method is not None and (tree := _tree(method)) is not None]


def _reached(methods: dict[str, tuple[type, ast.AST]]) -> list[str]:
    """Methods that `generate_inner` comes to, those of other engines left out."""
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
