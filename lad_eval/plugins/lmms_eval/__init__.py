"""lmms-eval with our tasks and methods: `--model lad_eval` through its entry points, tasks as folders for `--include_path`.

`generate` writes the task folders, `documents` and `scoring` are what they call, `model` is the model, `launch` runs lmms-eval
itself. Only `model` and `launch` import lmms-eval.
"""

from __future__ import annotations

from typing import Any

MODEL_ID = "lad_eval"


def manifests() -> list[Any]:
    """Entry point of the group `lmms_eval.models`; called whenever lmms-eval starts, so it loads no model."""
    from lmms_eval.models.registry_v2 import ModelManifest

    home = f"{__name__}.model.LadEval"
    return [ModelManifest(model_id=MODEL_ID, simple_class_path=home, aliases=("lad-eval",))]
