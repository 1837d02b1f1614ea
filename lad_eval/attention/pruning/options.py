"""Values that parameters of pruners may have, and that stages are opened with. No torch here."""

from typing import Literal

How = Literal["drop", "mask"]
"""Tokens are taken out of the layers and their caches; or their keys are hidden: the same answers, at no gain."""
Per = Literal["prompt", "image"]
"""What a number of tokens to keep is of."""
