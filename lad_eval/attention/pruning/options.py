"""Allowed values of parameters that pruners and stages share. No torch here."""

from typing import Literal

How = Literal["drop", "mask"]
"""Tokens are taken out of the layers and their caches; or their keys are hidden: the same answers, with no speed-up."""
Per = Literal["prompt", "image"]
"""Whether `keep` counts the visual tokens of the prompt or of each image."""
