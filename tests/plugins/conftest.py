import os
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest

from lad_eval.cli.main import invoke
from tests.plugins.vlmevalkit_runs import FEW


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with a small task, and VLMEvalKit's data folder."""
    folder = tmp_path_factory.mktemp("kit")
    (folder / "lmu").mkdir()  # VLMEvalKit takes the home folder where this is missing
    (folder / "scenes_few.yaml").write_text(FEW.format(n=4))
    (folder / "scenes_two.yaml").write_text(FEW.format(n=2))
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMUData", str(folder / "lmu"))
        patch.delenv("PRED_FORMAT", raising=False)
        os.chdir(folder)
        yield folder
        os.chdir(before)


@pytest.fixture(scope="module")
def kit(place):
    """VLMEvalKit, with our tasks and models in it."""
    from lad_eval.plugins.vlmevalkit import register

    assert register("scenes_few.yaml", "scenes_two.yaml") == ["Scenes_Few", "Scenes_Two"]

    return sys.modules["vlmeval"]


@pytest.fixture(scope="module")
def done(kit):
    """The work folder after three models on the small task."""
    words = ["--data", "scenes_few.yaml", "--model", "lad-tiny+LAD", "lad-tiny+PriDe", "lad-tiny", "--work-dir", "W"]
    before = list(sys.argv)
    assert invoke(["vlmeval", *words]) == 0
    assert sys.argv == before
    return Path("W")


@pytest.fixture(scope="module")
def entries(kit, place):
    """Tiny models by the classes of VLMEvalKit, as entries; and through our own class."""
    import vlmeval.config
    import vlmeval.vlm

    from lad_eval.models.vlmeval.kit import kit as module_of
    from tests.models import internvl_shaped
    from tests.models.vlmeval_classes import on_the_cpu, save

    table = vlmeval.config.supported_VLM
    model, tokenizer = internvl_shaped.make()
    module = module_of("vlmeval.vlm.internvl.internvl_chat")
    with ExitStack() as stack:
        stack.enter_context(on_the_cpu())
        for kind, made in ((module.AutoModel, model), (module.AutoTokenizer, tokenizer)):
            given = partial(_shaped_or_read, made, kind.from_pretrained)
            stack.enter_context(patch.object(kind, "from_pretrained", given))
        chat = partial(vlmeval.vlm.InternVLChat, model_path="OpenGVLab/InternVL3-8B", version="V2.0", max_new_tokens=5)
        qwen = partial(vlmeval.vlm.Qwen2VLChat, model_path=save("qwen2.5-vl", place / "qwen2.5-vl"), max_new_tokens=5)
        stack.enter_context(patch.dict(table, {"TinyChat": chat, "TinyQwen": qwen}))
        yield {"Qwen2.5-VL": "TinyQwen", "InternVL": "TinyChat", "LLaVA-1.5": f"HF:{save('llava-1.5', place / 'llava-1.5')}"}


def _shaped_or_read(made, read, place, *args, **options):
    return made if "InternVL" in str(place) else read(place, *args, **options)
