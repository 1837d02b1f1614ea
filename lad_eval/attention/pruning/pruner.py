"""The base class of pruners: how many visual tokens are kept, and that those with the highest scores are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from lad_eval.attention.interventions.base import Acted, Intervention
from lad_eval.attention.pruning.options import How, Per
from lad_eval.errors import UserError
from lad_eval.parameters import Count

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.layout import PromptLayout
    from lad_eval.attention.pruning.stages import PruningDecision, StageInput


@dataclass(frozen=True)
class TokenShare:
    """A whole number of tokens, or a share of them: 1 is one token, 1.0 all of them."""

    expected = "a whole number of tokens of at least 0, or a share of 0.0 to 1.0 such as 0.25"

    def accepts(self, value: Any) -> bool:
        if isinstance(value, float):
            return 0 <= value <= 1
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0

    def parse(self, text: str) -> int | float:
        try:
            return int(text)
        except ValueError:
            return float(text)


@dataclass(frozen=True)
class Pruner(Intervention):
    """Visual tokens leave the prompt before a decoder layer: all but those with the highest scores.

    Only tokens that carry image features leave; row breaks, tile marks, delimiters and text stay. The tokens that stay keep their
    positions. The choice is made once, in the prefill, and holds for everything that continues the prompt.

    A subclass is a frozen dataclass with a `name` and `_scores`; one that prunes several times overrides `_layers` and
    `_shares`, and one that merges tokens overrides `_decide`.

    Args:
        keep: a whole number of visual tokens, or a share of them in [0, 1]: 1 is one token, 1.0 all of them. 0 keeps none.
        layer: tokens leave before this decoder layer, the first being layer 0. In a hybrid model all decoder layers count; the
            scores are of the nearest layer below that attends.
        how: "drop" takes the tokens out of the layers and their caches; "mask" hides them instead: the same answers, with no
            speed-up.
        keep_per: what `keep` refers to: all visual tokens of the prompt, or those of each image.

    Raises:
        ParameterError: a parameter cannot have its value.
    """

    keep: Annotated[int | float, TokenShare()] = 0.5
    layer: Annotated[int, Count()] = 2
    how: How = "drop"
    keep_per: Per = "prompt"
    # Part of the comparison, since 1 == 1.0: one token is not all tokens.
    is_share: bool = field(init=False, repr=False, default=True, metadata={"derived": True})
    name: ClassVar[str]
    idle: ClassVar[str] = "as it read no prompt"
    sole: ClassVar[str] = "pruner"

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_share", isinstance(self.keep, float))
        super().__post_init__()

    @property
    def facts(self) -> dict[str, Any]:
        return {**super().facts, "keep_is": "share" if self.is_share else "tokens"}

    def _layers(self, depth: int) -> tuple[int, ...]:
        """Decoder layers before which tokens leave, ascending, in a decoder of `depth` layers."""
        return (self.layer,)

    def _shares(self, mean: torch.Tensor) -> list[torch.Tensor]:
        """The share of all tokens to keep at each of those layers, shaped like `mean`, the share that `keep` sets."""
        return [mean]

    @abstractmethod
    def _scores(self, inputs: StageInput, stage: int) -> torch.Tensor:
        """Float[batch, T], read at the visual tokens that remain, and finite there; the highest are kept.

        Args:
            inputs: the state at that layer.
            stage: its index among `_layers`.
        """

    def _candidates(self, inputs: StageInput, stage: int) -> torch.Tensor:
        """Bool[batch, T]: the tokens that may stay; all that remain."""
        return inputs.remaining

    def _decide(self, inputs: StageInput, stage: int) -> PruningDecision:
        """The tokens that remain from a stage on, and their hidden states.

        Args:
            inputs: the state at that layer.
            stage: its index among `_layers`.

        Raises:
            UserError: there are fewer tokens than `keep`.
        """
        return self._keep_highest(inputs, stage, lambda: self._scores(inputs, stage))

    def _keep_highest(self, inputs: StageInput, stage: int, scores: Callable[[], torch.Tensor]) -> PruningDecision:
        """Drops all visual tokens except those with the highest scores.

        Where there are fewer candidates than tokens to keep, all of them remain, and `scores` is not called.
        """
        from lad_eval.attention.pruning.keep import group_sizes, highest, token_counts
        from lad_eval.attention.pruning.stages import PruningDecision

        groups = self._groups(inputs)
        text, sizes = groups < 0, group_sizes(groups)
        counts = token_counts(self._shares(self._mean_share(sizes))[stage], sizes)
        candidates = self._candidates(inputs, stage) & inputs.remaining
        left = groups.masked_fill(~candidates, -1)
        if bool((counts >= group_sizes(left, sizes.shape[1])).all()):
            return PruningDecision(inputs.remaining & (text | candidates))
        chosen = highest(scores().to(left.device), left, counts)
        return PruningDecision(inputs.remaining & (text | chosen))

    def _groups(self, inputs: StageInput) -> torch.Tensor:
        """Int[batch, T]: the group of visual tokens that each one competes in; -1 on all other tokens."""
        owner = inputs.layout.spans.owner.to(inputs.remaining.device)
        return owner if self.keep_per == "image" else owner.clamp(max=0)

    def _mean_share(self, sizes: torch.Tensor) -> torch.Tensor:
        """Float64[batch, G]: `keep` as a share of each group, given the groups' sizes."""
        if self.is_share:
            return sizes.new_full(sizes.shape, self.keep, dtype=_double())
        # A batch may hold prompts without visual tokens, for which any `keep` is fine.
        if bool(sizes.any()) and self.keep > (least := int(sizes[sizes > 0].min())):
            whole = "an image" if self.keep_per == "image" else "a prompt"
            raise UserError(
                f"{self.label} cannot keep {self.keep} visual tokens, as {whole} has {least}; give a smaller keep, or a share "
                "such as keep=0.25."
            )
        return self.keep / sizes.clamp(min=1).double()

    @contextmanager
    def _attached(self, model: Any, layout: PromptLayout, acted: Acted) -> Iterator[None]:
        from lad_eval.attention.hooks import decoder_layers
        from lad_eval.attention.pruning.decoder import check_stages
        from lad_eval.attention.pruning.stages import pruned

        layers = self._layers(len(decoder_layers(model)))
        check_stages(model, layers, self.how, self.name)

        def decide(stage: int, inputs: StageInput) -> PruningDecision:
            acted()
            return self._decide(inputs, stage)

        with pruned(model, layout, {layer: partial(decide, stage) for stage, layer in enumerate(layers)}, self.how):
            yield


def _double() -> torch.dtype:
    import torch

    return torch.float64
