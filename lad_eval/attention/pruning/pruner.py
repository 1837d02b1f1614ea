"""What all pruners share: how many visual tokens stay, and that the ones with the greatest scores do."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from lad_eval.attention.interventions.base import Acted, Intervention
from lad_eval.errors import UserError

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.layout import PromptLayout
    from lad_eval.attention.pruning.stages import Choice, Entry

How = Literal["drop", "mask"]
Per = Literal["prompt", "image"]
# Above the rounding of a share that was computed from a number of tokens, and below any share that a user writes.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Pruner(Intervention):
    """Visual tokens leave the prompt before a decoder layer: all but those with the greatest scores.

    Only tokens that carry image features leave; row breaks, tile marks, delimiters and text stay. The tokens that stay keep their
    positions. What is kept is chosen once, as the prompt is read, and is the same for all that continues it.

    A subclass is a frozen dataclass with a `name` and `_scores`; one that prunes several times gives `_layers` and `_shares`, and
    one that merges tokens overrides `_chosen`.

    Args:
        keep: a whole number of visual tokens, or a share of them in [0, 1]: 1 is one token, 1.0 all of them. 0 keeps none.
        layer: tokens leave before this decoder layer, the first being layer 0. In a hybrid all decoder layers count; the scores
            are of the nearest layer below that attends.
        how: "drop" takes the tokens out of the layers and their caches; "mask" hides them instead, to the same effect at no gain.
        keep_per: what `keep` is of: the prompt's visual tokens, or each image's.

    Raises:
        UserError: a parameter cannot have its value.
    """

    keep: int | float = 0.5
    layer: int = 2
    how: How = "drop"
    keep_per: Per = "prompt"
    # Part of the comparison, since 1 == 1.0: one token is not all tokens.
    is_share: bool = field(init=False, repr=False, default=True, metadata={"derived": True})
    name: ClassVar[str]
    idle: ClassVar[str] = "as it read no prompt"
    sole: ClassVar[str] = "pruner"

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_share", isinstance(self.keep, float))
        check_keep(self.name, self.keep)
        if not isinstance(self.layer, int) or isinstance(self.layer, bool) or self.layer < 1:
            raise UserError(f"layer of {self.name} must be a whole number of at least 1, not {self.layer!r}.")
        for parameter, kind in (("how", How), ("keep_per", Per)):
            if getattr(self, parameter) not in get_args(kind):
                choices = " or ".join(map(repr, get_args(kind)))
                raise UserError(f"{parameter} of {self.name} must be {choices}, not {getattr(self, parameter)!r}.")

    @property
    def facts(self) -> dict[str, Any]:
        return {**super().facts, "keep_is": "share" if self.is_share else "tokens"}

    def _layers(self, depth: int) -> tuple[int, ...]:
        """Decoder layers before which tokens leave, ascending, in a decoder of `depth` layers."""
        return (self.layer,)

    def _shares(self, mean: torch.Tensor) -> list[torch.Tensor]:
        """For each of those layers the share of all tokens to keep, shaped as `mean`, the share that `keep` asks for."""
        return [mean]

    @abstractmethod
    def _scores(self, entry: Entry) -> torch.Tensor:
        """Float[batch, T], read at the visual tokens that remain, and finite there; the greatest are kept."""

    def _chosen(self, entry: Entry, stage: int) -> Choice:
        """What remains from a stage on: all but the visual tokens whose scores are not among the greatest.

        Args:
            entry: what is known there.
            stage: its index among `_layers`.

        Raises:
            UserError: there are fewer tokens than are to be kept.
        """
        from lad_eval.attention.pruning.stages import Choice

        owner = entry.layout.spans.owner.to(entry.remaining.device)
        groups = owner if self.keep_per == "image" else owner.clamp(max=0)
        sizes = _sizes(groups)
        counts = (self._shares(self._mean_share(sizes))[stage] * sizes + _ROUNDING).floor().long()
        left = groups.masked_fill(~entry.remaining, -1)
        if bool((counts >= _sizes(left, sizes.shape[1])).all()):
            return Choice(entry.remaining)
        kept = _greatest(self._scores(entry), left, counts)
        return Choice(entry.remaining & ((owner < 0) | kept))

    def _mean_share(self, sizes: torch.Tensor) -> torch.Tensor:
        """Float64[batch, G]: `keep` as a share of groups of so many tokens."""
        if self.is_share:
            return sizes.new_full(sizes.shape, self.keep, dtype=_double())
        if self.keep > (least := int(sizes[sizes > 0].min())):
            whole = "an image" if self.keep_per == "image" else "a prompt"
            raise UserError(
                f"{self.label} cannot keep {self.keep} visual tokens, as {whole} has {least}; give a smaller keep, or a share "
                "such as keep=0.25."
            )
        return self.keep / sizes.clamp(min=1).double()

    @contextmanager
    def _attached(self, model: Any, layout: PromptLayout, acted: Acted) -> Iterator[None]:
        from lad_eval.attention.hooks import decoder_layers
        from lad_eval.attention.pruning.stages import check_stages, pruned

        layers = self._layers(len(decoder_layers(model)))
        check_stages(model, layers, self.how, self.name)

        def choose(stage: int, entry: Entry) -> Choice:
            acted()
            return self._chosen(entry, stage)

        with pruned(model, layout, {layer: partial(choose, stage) for stage, layer in enumerate(layers)}, self.how):
            yield


def check_keep(name: str, keep: object) -> None:
    """Whether something is a number or a share of tokens.

    Raises:
        UserError: it is not.
    """
    if isinstance(keep, int) and not isinstance(keep, bool) and keep >= 0:
        return
    if not (isinstance(keep, float) and 0 <= keep <= 1):
        raise UserError(
            f"keep of {name} must be a whole number of tokens of at least 0, or a share of 0.0 to 1.0 such as 0.25, not {keep!r}."
        )


def _double() -> torch.dtype:
    import torch

    return torch.float64


def _sizes(groups: torch.Tensor, total: int | None = None) -> torch.Tensor:
    """Int[batch, G]: tokens of each group of Int[batch, T], -1 for none."""
    import torch

    total = max(1, int(groups.max()) + 1) if total is None else total
    return (groups[:, :, None] == torch.arange(total, device=groups.device)).sum(dim=1)


def _greatest(scores: torch.Tensor, groups: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Bool[batch, T]: of each group as many tokens as its count, those with the greatest scores; of equals the first."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    ranked = groups.gather(1, order)
    chosen = groups.new_zeros(groups.shape).bool()
    for group in range(counts.shape[1]):
        member = ranked == group
        chosen |= member & (member.cumsum(dim=1) <= counts[:, group : group + 1])
    return chosen.new_zeros(chosen.shape).scatter(1, order, chosen)
