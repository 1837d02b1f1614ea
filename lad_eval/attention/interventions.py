"""Interventions: changes of a model's attention under which evidence can be collected. No torch here until one is applied.

To add one: a frozen dataclass with a `name`, its parameters as fields, and `applied`; and a line in `INTERVENTIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args

import torch

from lad_eval.attention.hooks import AttentionCall, attention_layers, change_mask
from lad_eval.attention.spans import Spans
from lad_eval.errors import UnknownNameError, UnsupportedModelError, UserError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lad_eval.attention.spans import Spans


class Intervention(Protocol):
    """A change of attention, with all that determines it."""

    name: ClassVar[str]

    @property
    def facts(self) -> dict[str, Any]:
        """JSON-serialisable: the name and every parameter. Part of the evidence's fingerprint."""

    @property
    def label(self) -> str:
        """The name, and the parameters that are not the defaults: "sofa", "sofa:sigma=0.3"."""

    def applied(self, model: Any, spans: Spans) -> AbstractContextManager[None]:
        """Open while the model reads the prompts that `spans` belongs to.

        Raises:
            UnsupportedModelError: the model's attention cannot be changed in this way; or, as the context closes, nothing was
                changed, so that the answers would be the unchanged model's under another name.
        """


@dataclass(frozen=True)
class _Named:
    name: ClassVar[str]

    @property
    def facts(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self)}

    @property
    def label(self) -> str:
        changed = [f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default]
        return ":".join([self.name, *changed])


Pairs = Literal["between", "all"]


@dataclass(frozen=True)
class Sofa(_Named):
    """Soft attention between images: on every n-th layer that attends each image may look at the later ones a little.

    Source: Tian et al. 2025 (SoFA). The entries of the attention mask that are causally blocked and lead from a token of one
    image to a token of another are let in with log(sigma) added to their scores. No calibration.

    Args:
        sigma: in (0, 1]; the less, the nearer to the model as it is.
        every: every how many-th of the decoder layers that attend, the first of them included. Where all layers attend these
            are the layers 0, n, 2 n, ...; linear-attention layers are not counted.
        pairs: "between" opens what leads from one image to another; "all" also what leads to later tokens of the same image, as
            the released code of LAD does (github.com/brightXian/LAD, c704b9d).

    Raises:
        UserError: a parameter cannot have its value.
    """

    name: ClassVar[str] = "sofa"
    sigma: float = 0.5
    every: int = 2
    pairs: Pairs = "between"

    def __post_init__(self) -> None:
        if not (isinstance(self.sigma, float | int) and math.isfinite(self.sigma) and 0 < self.sigma <= 1):
            raise UserError(f"sigma of sofa must be above 0 and at most 1, not {self.sigma!r}.")
        if not isinstance(self.every, int) or self.every < 1:
            raise UserError(f"every of sofa must be a whole number of at least 1, not {self.every!r}.")
        if self.pairs not in get_args(Pairs):
            raise UserError(f"pairs of sofa must be 'between' or 'all', not {self.pairs!r}.")

    @contextmanager
    def applied(self, model: Any, spans: Spans) -> Iterator[None]:

        with soften(model, spans, sigma=self.sigma, every=self.every, pairs=self.pairs):
            yield


INTERVENTIONS: Mapping[str, type[Any]] = MappingProxyType({"sofa": Sofa})


def parse_intervention(text: str) -> Intervention:
    """The intervention that a text such as "sofa" or "sofa:sigma=0.3:every=4" names.

    Raises:
        UnknownNameError: no intervention has the name.
        UserError: it has no such parameter, or it cannot have this value.
    """
    name, *settings = text.split(":")
    if name not in INTERVENTIONS:
        raise UnknownNameError("intervention", name, INTERVENTIONS)
    kind = INTERVENTIONS[name]
    known: dict[str, Any] = {f.name: f.default for f in fields(kind)}
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = (part.strip() for part in setting.partition("="))
        if key not in known:
            raise UserError(
                f"{name} has no parameter {key!r}; write {name}:{next(iter(known))}=value. Its parameters are {', '.join(known)}."
            )
        if not equals:
            raise UserError(f"{key} of {name} has no value; write {name}:{key}={known[key]}.")
        if key in values:
            raise UserError(f"{text!r} gives {key} twice.")
        try:
            values[key] = type(known[key])(value)
        except ValueError:
            raise UserError(f"{key} of {name} must be of the kind of {known[key]!r}, not {value!r}.") from None
    made: Intervention = kind(**values)
    return made


@contextmanager
def soften(model: Any, spans: Spans, *, sigma: float, every: int, pairs: Pairs) -> Iterator[None]:
    """While open, the prefill of the prompts that `spans` belongs to attends softly; parameters as `interventions.Sofa`.

    Steps that continue a prompt have no image among their queries and pass by.

    Raises:
        UnsupportedModelError: the attention implementation takes no mask of single entries, or no attention call was changed
            by the time the context closes.
    """
    softener = _Softener(spans, sorted(attention_layers(model))[::every], sigma, pairs)
    with change_mask(model, softener):
        yield
    if not softener.changed:
        raise UnsupportedModelError(
            f"{type(model).__name__}: sofa changed no attention call, as no entry between its images is blocked; its answers "
            "would be the unchanged model's, so leave out the methods with sofa."
        )


class _Softener:
    """Makes the masks.

    Attributes:
        changed: whether an entry of any mask was opened.
    """

    def __init__(self, spans: Spans, layers: Sequence[int], sigma: float, pairs: Pairs) -> None:
        self.changed = False
        self._spans, self._layers, self._log_sigma, self._pairs = spans, frozenset(layers), math.log(sigma), pairs
        self._opened: dict[torch.device, torch.Tensor] = {}
        # The layers of a kind share one mask: what was made of it is kept beside it.
        self._made: list[tuple[Any, torch.dtype, torch.Tensor]] = []

    def __call__(self, call: AttentionCall) -> Any:
        if call.query.shape[2] != self._spans.length or call.layer not in self._layers:
            return call.mask
        for mask, dtype, made in self._made:
            if mask is call.mask and dtype == call.query.dtype:
                return made
        made = self._softened(call)
        self._made.append((call.mask, call.query.dtype, made))
        return made

    def _softened(self, call: AttentionCall) -> torch.Tensor:
        base = _additive(call)
        rows, length = len(self._spans.image), self._spans.length
        base = base.expand(rows, *base.shape[1:]).clone()
        opened = self._entries(base.device)
        square = base[..., :length]
        blocked = square < torch.finfo(base.dtype).min / 2
        softened = blocked & opened[:, None]
        self.changed = self.changed or bool(softened.any())
        square.masked_fill_(softened, self._log_sigma)
        return base

    def _entries(self, device: torch.device) -> torch.Tensor:
        """Bool[batch, T, T]: what lies ahead and leads from an image's token to an image's token."""
        if device not in self._opened:
            tokens = torch.arange(self._spans.length)
            inside = (tokens >= self._spans.image[..., :1]) & (tokens < self._spans.image[..., 1:])  # [batch, N, T]
            image = torch.where(inside.any(dim=1), inside.int().argmax(dim=1), -1)  # [batch, T]
            query, key = image[:, :, None], image[:, None, :]
            entries = (query >= 0) & (key >= 0) & (tokens[None, :] > tokens[:, None])
            if self._pairs == "between":
                entries &= query != key
            self._opened[device] = entries.to(device)
        return self._opened[device]


def _additive(call: AttentionCall) -> torch.Tensor:
    """The call's mask as Float[batch or 1, 1 or H, queries, keys] to be added to the scores."""
    mask, dtype, device = call.mask, call.query.dtype, call.query.device
    queries, keys = call.query.shape[2], call.key.shape[2]
    lowest = torch.finfo(dtype).min
    implementation = str(getattr(getattr(call.module, "config", None), "_attn_implementation", None) or "eager")
    if implementation not in ("sdpa", "eager"):
        raise UnsupportedModelError(
            f"Attention implementation {implementation!r} takes no mask of single entries, which this intervention needs; "
            "use --attn sdpa or eager."
        )
    if mask is None:
        if not getattr(call.module, "is_causal", True) or call.options.get("is_causal") is False:
            return torch.zeros(1, 1, queries, keys, dtype=dtype, device=device)
        seen = torch.ones(queries, keys, dtype=torch.bool, device=device).tril()
        if (window := call.options.get("sliding_window")) is not None:
            seen &= torch.ones_like(seen).triu(1 - int(window))
        return torch.zeros(1, 1, queries, keys, dtype=dtype, device=device).masked_fill_(~seen, lowest)
    if not isinstance(mask, torch.Tensor) or mask.dim() != 4:
        raise UnsupportedModelError(
            f"Attention masks of the form {type(mask).__name__} cannot be changed; use --attn sdpa or eager."
        )
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill_(~mask, lowest)
    return mask.to(dtype).clamp(min=lowest)
