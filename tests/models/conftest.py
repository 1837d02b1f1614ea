import copy
from functools import cache

import pytest

from lad_eval.errors import UnsupportedModelError


@cache
def _load(family):
    from lad_eval.models.random import load_random

    return load_random(family, seed=1)


@pytest.fixture(scope="session")
def tiny():
    """Loads a family's tiny random model, once a session: tiny(family) -> (model, processor)."""

    def load(family):
        try:
            return _load(family)
        except UnsupportedModelError as missing:
            pytest.skip(str(missing))

    return load


@pytest.fixture(scope="session")
def vlm(tiny):
    """Makes a HuggingFaceVLM of a family: vlm(family, **options)."""
    from lad_eval.models.huggingface import HuggingFaceVLM

    def make(family, **options):
        model, processor = tiny(family)
        given = {"name": f"random:{family}", "weights": "seed 1", "image_preparation": "native", **options}
        return HuggingFaceVLM(model, processor, **given)

    return make


@pytest.fixture
def parts(tiny):
    """Conversation, preparation and checker of a family: parts(family, template=None, **text) with text settings changed."""

    from lad_eval.models.inputs.preparation import Preparation
    from lad_eval.models.prompts.check import PromptChecker
    from lad_eval.models.prompts.conversation import Conversation

    def make(family, template=None, preparation="native", **text):
        model, processor = tiny(family)
        processor, config = copy.copy(processor), copy.deepcopy(model.config)
        if template is not None:
            processor.chat_template = template
        for name, value in text.items():
            setattr(config.get_text_config(), name, value)
        conversation = Conversation(processor, family)
        prepare = Preparation(config, processor, conversation, preparation)
        return conversation, prepare, PromptChecker(conversation, prepare, config, processor, family)

    return make
