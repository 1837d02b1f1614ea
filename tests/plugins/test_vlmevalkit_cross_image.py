"""Models of VLMEvalKit under interventions between images, on data sets of VLMEvalKit's own with several pictures a question."""

from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lad_eval.cli.main import invoke
from tests.plugins.vlmevalkit_runs import replies

# Not imported here: it would switch gradients off for every test of the process.
pytestmark = pytest.mark.skipif(find_spec("vlmeval") is None, reason="VLMEvalKit is an extra")

ROWS = 4
CHANGED = ("+capl(weight=1.0, every=1)", "+truncated", "+delimiter-scaling(scale=0.01, layers=2)")


@pytest.fixture(scope="module")
def data(kit, place):
    """Two tables in VLMEvalKit's data folder: questions on three pictures of unequal sizes each, and on one."""
    several, single = [], []
    for index in range(ROWS):
        paths = []
        for number in range(3):
            side = 84 + 28 * number
            pixels = np.random.default_rng(10 * index + number).integers(0, 255, (side, side, 3), dtype=np.uint8)
            paths.append(str(place / f"several{index}-{number}.png"))
            Image.fromarray(pixels).save(paths[-1])
        question = {"index": index, "question": f"which differs, {index}?", "A": "the first", "B": "the last", "answer": "A"}
        several.append({**question, "image_path": str(paths)})
        single.append({**question, "image_path": paths[0]})
    for name, rows in (("Several", several), ("Single", single)):
        pd.DataFrame(rows).to_csv(place / "lmu" / f"{name}.tsv", sep="\t", index=False)
    return "Several", "Single"


def answers(model, data, folder, capsys):
    code = invoke(["vlmeval", "--data", data, "--model", model, "--work-dir", folder, "--judge", "exact_matching"])
    assert code == 0, capsys.readouterr().err[-3000:]
    path, texts = replies(folder, data)
    assert len(texts) == ROWS
    return path.name, texts


@pytest.mark.parametrize("kind", ["Qwen2.5-VL", "InternVL"])
def test_replies_on_several_pictures_change_and_on_one_they_do_not(entries, data, kind, capsys):
    several, single = data
    plain = answers(entries[kind], several, f"M-{kind}", capsys)[1]
    for number, suffix in enumerate(("+capl(weight=0.0)", *CHANGED)):
        name, texts = answers(entries[kind] + suffix, several, f"M-{kind}-{number}", capsys)
        assert (texts == plain) == (suffix == "+capl(weight=0.0)"), suffix
        label = suffix.removeprefix("+").replace(" ", "")
        assert name.partition("+")[2] == f"{label}_{several}.xlsx"
    alone = answers(entries[kind], single, f"S-{kind}", capsys)[1]
    for number, suffix in enumerate(CHANGED):
        assert answers(entries[kind] + suffix, single, f"S-{kind}-{number}", capsys)[1] == alone


def test_a_model_without_delimiters_says_so(entries, data, capsys):
    words = ["--data", data[0], "--model", f"{entries['LLaVA-1.5']}+delimiter-scaling", "--work-dir", "M-none"]
    assert invoke(["vlmeval", *words, "--judge", "exact_matching"]) == 2
    assert (
        "puts no special tokens around its images that delimiter-scaling could scale." in capsys.readouterr().err.splitlines()[-1]
    )
