import os
import sys
from pathlib import Path

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
