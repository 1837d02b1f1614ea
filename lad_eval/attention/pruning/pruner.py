"""What all pruners share: how many visual tokens stay, and that the ones with the greatest scores do."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
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


@dataclass(frozen=True)
class Pruner(Intervention):
    """Visual tokens leave the prompt before a decoder layer: all but those with the greatest scores.

    Only tokens that carry image features leave; row breaks, tile marks, delimiters and text stay. The tokens that stay keep their
    positions. What is kept is chosen once, as the prompt is read, and is the same for all that continues it.

    A subclass is a frozen dataclass with a `name` and `_scores`; one that prunes several times gives `_stages`, and one that
    merges tokens overrides `_chosen`.

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

    def _stages(self) -> Mapping[int, int | float]:
        """By decoder layer, ascending, what is kept before it, of the tokens that the prompt began with."""
        return {self.layer: self.keep}

    @abstractmethod
    def _scores(self, entry: Entry) -> torch.Tensor:
        """Float[batch, T]; the greater, the sooner a visual token is kept. Read at visual tokens that remain, and finite there."""

    def _chosen(self, entry: Entry, keep: int | float) -> Choice:
        """What remains from a stage on: all but the visual tokens whose scores are not among the greatest."""
        from lad_eval.attention.pruning.stages import Choice

        owner = entry.layout.spans.owner.to(entry.remaining.device)
        groups = owner if self.keep_per == "image" else owner.clamp(max=0)
        budgets = [[self._budget(keep, int(n)) for n in _counts(row)] for row in groups]
        visual = owner >= 0
        if all(budget == n for row, counts in zip(budgets, map(_counts, groups), strict=True) for budget, n in zip(row, counts, strict=True)):
            return Choice(entry.remaining)
        scores = self._scores(entry).float()
        kept = greatest(scores, entry.remaining & visual, groups, budgets)
        return Choice(entry.remaining & (~visual | kept))

    def _budget(self, keep: int | float, tokens: int) -> int:
        """Tokens to keep of those of a prompt or an image."""
        if isinstance(keep, float):
            return math.floor(keep * tokens + 1e-9)
        if keep > tokens:
            whose = "an image" if self.keep_per == "image" else "a prompt"
            raise UserError(
                f"{self.name} cannot keep {keep} tokens of {whose} with {tokens} visual tokens; give a smaller keep, or a share such "
                "as keep=0.25."
            )
        return keep

    @contextmanager
    def _attached(self, model: Any, layout: PromptLayout, acted: Acted) -> Iterator[None]:
        from lad_eval.attention.pruning.stages import check_stages, pruned

        stages = self._stages()
        check_stages(model, stages, self.how, self.name)

        def choose(keep: int | float, entry: Entry) -> Choice:
            acted()
            return self._chosen(entry, keep)

        with pruned(model, layout, {layer: partial(choose, keep) for layer, keep in stages.items()}, self.how):
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


def _counts(groups: torch.Tensor) -> list[int]:
    """Tokens of each group of a row, Int[T] with -1 for none."""
    return [int(n) for n in groups[groups >= 0].bincount()]


def greatest(scores: torch.Tensor, candidates: torch.Tensor, groups: torch.Tensor, budgets: list[list[int]]) -> torch.Tensor:
    """Bool[batch, T]: of the candidates of each group as many as its budget, those with the greatest scores; of equals the first.

    Args:
        scores: Float[batch, T].
        candidates: Bool[batch, T].
        groups: Int[batch, T], an index or -1.
        budgets: by row and group.
    """
    import torch

    kept = torch.zeros_like(candidates)
    for row, row_budgets in enumerate(budgets):
        for group, budget in enumerate(row_budgets):
            tokens = (candidates[row] & (groups[row] == group)).nonzero()[:, 0]
            order = scores[row, tokens].argsort(descending=True, stable=True)
            kept[row, tokens[order[:budget]]] = True
    return kept
