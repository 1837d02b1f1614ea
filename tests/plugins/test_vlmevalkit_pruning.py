"""Models of VLMEvalKit under interventions, on data sets of VLMEvalKit's own."""

import json
import os
import re
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lad_eval.attention.interventions import LearnedState
from lad_eval.attention.pruning.trend import ENOUGH_REQUESTS, Trend
from lad_eval.cli.main import invoke
from lad_eval.plugins.vlmevalkit.learning import drawn_requests
from lad_eval.tasks.sources.base import Picture
from tests.plugins.vlmevalkit_runs import replies

# Not imported here: it would switch gradients off for every test of the process.
pytestmark = pytest.mark.skipif(find_spec("vlmeval") is None, reason="VLMEvalKit is an extra")

ROWS = 4
KEPT = ("", "+fastv(keep=1.0, layer=1)", "+fastv(keep=0.25, layer=1)", "+random-tokens(keep=0, layer=1)")


@pytest.fixture(scope="module")
def data(kit, place):
    """The name of a table of questions on one picture each, all of one size, in VLMEvalKit's data folder."""
    rows = []
    for index in range(ROWS):
        pixels = np.random.default_rng(index).integers(0, 255, (112, 112, 3), dtype=np.uint8)
        path = place / f"picture{index}.png"
        Image.fromarray(pixels).save(path)
        question = {"question": f"what is {index}?", "A": "a dog", "B": "a cat", "answer": "A"}
        rows.append({"index": index, "image_path": str(path), **question})
    pd.DataFrame(rows).to_csv(place / "lmu" / "Pictures.tsv", sep="\t", index=False)
    return "Pictures"


@contextmanager
def lengths():
    """Tokens that each layer of the decoder reads of each prompt; neither of replies, nor of the few words of a model's check."""
    seen = []

    def note(module, inputs):
        if type(module).__name__ in ("Qwen2MLP", "LlamaMLP") and inputs[0].shape[1] > 8:
            seen.append(inputs[0].shape[1])

    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


def run(model, data, folder, *words):
    with lengths() as seen:
        code = invoke(["vlmeval", "--data", data, "--model", model, "--work-dir", folder, "--judge", "exact_matching", *words])
    return code, seen


@pytest.mark.parametrize("kind", ["Qwen2.5-VL", "InternVL", "LLaVA-1.5"])
def test_tokens_leave_and_without_that_replies_are_the_class_s(entries, data, kind, capsys):
    answers, read, names = [], [], []
    for number, suffix in enumerate(KEPT):
        folder = f"W-{kind}-{number}"
        code, seen = run(entries[kind] + suffix, data, folder)
        assert code == 0, capsys.readouterr().err[-3000:]
        path, texts = replies(folder, data)
        depth = len(seen) // ROWS
        assert len(texts) == ROWS
        assert len(seen) == ROWS * depth
        answers.append(texts)
        read.append(np.asarray(seen).reshape(ROWS, depth))
        names.append(path.name)
    plain, whole, quarter, none = read
    assert answers[0] == answers[1]
    assert (plain == whole).all()
    assert (quarter[:, 0] == plain[:, 0]).all()
    visual = (plain - none)[:, 1:]
    assert (visual > 0).all()
    assert (plain[:, 1:] - quarter[:, 1:] == visual - np.floor(visual * 0.25 + 0.5)).all()
    assert answers[3] != answers[0]
    labels = ("fastv(keep=1.0,layer=1)", "fastv(keep=0.25,layer=1)", "random-tokens(keep=0,layer=1)")
    assert [name.partition("+")[2] for name in names[1:]] == [f"{label}_Pictures.xlsx" for label in labels]


def test_answers_of_other_pruners_or_none_are_not_gone_on_from(entries, data):
    """`--reuse` takes results of the same name: every pruner, and the model without one, has a name of its own."""
    suffixes = ("", "+fastv(keep=0.5,layer=1)", "+random-tokens(keep=0,layer=1)", "+random-tokens(layer=1,keep=0)")
    made, read = [], []
    for suffix in suffixes:
        code, seen = run(entries["Qwen2.5-VL"] + suffix, data, "W-reuse", "--reuse")
        assert code == 0
        read.append(len(seen))
        made.append(sorted(path.name for path in Path("W-reuse").iterdir()))
    assert min(read[:3]) > 0
    assert read[3] == 0  # the same pruner, spelt otherwise
    assert made[3] == sorted(["TinyQwen", "TinyQwen+fastv(layer=1)", "TinyQwen+random-tokens(keep=0,layer=1)", "lad_eval"])
    note = json.loads(Path("W-reuse/lad_eval/answers/TinyQwen+fastv(layer=1)_Pictures.json").read_text())
    assert (note["model"], note["method"], note["params"]["keep"]) == ("TinyQwen", "fastv(layer=1)", 0.5)


def test_other_weights_under_the_same_name_are_refused(entries, data, place, capsys):
    model = "TinyQwen+fastv(keep=0.5, layer=1)"
    assert run(model, data, "W-weights", "--reuse")[0] == 0
    os.utime(place / "qwen2.5-vl" / "config.json", (0, 0))
    assert run(model, data, "W-weights", "--reuse")[0] == 2
    assert "of TinyQwen with other weights; choose another --work-dir" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("base", ["TinyQwen", "lad-tiny"])
@pytest.mark.parametrize(
    ("suffix", "fault"),
    [
        ("fastv(keep=-1)", "keep of fastv must be a whole number of tokens of at least 0, or a share"),
        ("fastv(keep=1.5)", "keep of fastv must be a whole number of tokens of at least 0, or a share"),
        ("fastv(kep=1)", "fastv has no parameter 'kep'. Its parameters are keep,"),
        ("fastv,keep=0.25", "Write fastv(keep=0.25), not 'fastv,keep=0.25'."),
        ("fastv(trend=exponential)", "trend of fastv must be 'exp' or 'mean' or 'none', not 'exponential'"),
        ("instruction+fastv(keep=0.25)+LAD", "instruction+fastv(keep=0.25) changes the prompt or the model"),
    ],
)
def test_wrong_pruners_end_before_anything_runs(entries, data, base, suffix, fault, capsys):
    code, seen = run(f"{base}+{suffix}", data, "W-wrong-pruners")
    assert (code, seen) == (2, [])
    assert fault in capsys.readouterr().err.splitlines()[-1]
    assert not Path("W-wrong-pruners").exists()


@pytest.mark.parametrize(
    ("suffix", "fault"),
    [
        ("fastv(keep=5000, layer=1)", "cannot keep 5000 visual tokens, as a prompt has"),
        ("fastv(keep=0.5, layer=77)", "layer"),
    ],
)
def test_what_the_model_does_not_have_is_the_reason_of_the_failure(entries, data, suffix, fault, capsys):
    code, _ = run(f"TinyQwen+{suffix}", data, f"W-{suffix[6:8]}{suffix[-3:-1]}")
    assert code == 2, "a fault of the command, as in `lad-eval run`"
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: 1 of the combinations failed. TinyQwen+fastv(")
    assert fault in line


def learned(folder):
    (path,) = Path(folder).rglob("learned.fastv.safetensors")
    return LearnedState.load(path, "fastv")


def test_drawn_questions_are_enough_for_a_trend_and_alike_in_nothing():
    requests = drawn_requests()
    assert len(requests) == len({request.key for request in requests}) == ENOUGH_REQUESTS
    assert len({request.images[0].digest for request in requests}) == ENOUGH_REQUESTS
    right = [request.images[0].caption() in request.question for request in requests]
    assert 0.1 < sum(right) / len(right) < 0.9  # captions may also be told from the second thing


@pytest.mark.parametrize(("of", "kind"), [("LLaVA-1.5", "mean"), ("Qwen2.5-VL", "exp"), ("InternVL", "exp")])
def test_a_trend_is_learned_from_drawn_pictures(entries, data, of, kind, capsys, monkeypatch):
    """The data set has no calibration samples, and none of its pictures may be learned from."""
    monkeypatch.setattr("lad_eval.plugins.vlmevalkit.writer.REPLY_TOKENS", 3)
    monkeypatch.setattr("lad_eval.plugins.vlmevalkit.learning.ENOUGH_REQUESTS", few := 8)
    model, folder = f"{entries[of]}+fastv(keep=4, layer=1, trend={kind})", f"W-trend-{of}"
    code, seen = run(model, data, folder)
    captured = capsys.readouterr()
    assert code == 0, captured.err[-3000:]
    assert re.search(r"x Pictures: fastv\(keep=4, layer=1, trend=\w+\): .*\(.*R2 -?\d\.\d\d\)\.", captured.err)
    state = learned(folder)
    trend = Trend.of_arrays(state.arrays)
    assert (trend.kind, trend.requests, len(set(state.images))) == (kind, few, few)
    pictures = {Picture(path).digest for path in Path().glob("picture*.png")}
    assert len(pictures) == ROWS
    assert not pictures & set(state.images)
    assert len(replies(folder, data)[1]) == ROWS
    assert min(seen) < max(seen)  # tokens left
    again, seen_again = run(model, data, folder)
    assert again == 0
    assert len(seen_again) < len(seen), "learned once"


@pytest.mark.parametrize("base", ["TinyQwen", "lad-tiny"])
def test_methods_decide_under_pruning_on_tasks_of_ours(entries, base, capsys, tmp_path):
    suffix = "fastv(keep=0.25, layer=1)"
    code, _ = run(f"{base}+{suffix}+LAD", "scenes_few.yaml", f"W-decided-{base}")
    assert code == 0, capsys.readouterr().err[-3000:]
    (path,) = (path for path in Path(f"W-decided-{base}").rglob("*_Scenes_Few.xlsx") if not path.is_symlink())
    assert path.name == f"{base}+fastv(keep=0.25,layer=1)+LAD_Scenes_Few.xlsx"
    table = pd.read_excel(path)
    ours = {(row.g_index, row.perm_id): int(row.prediction) for row in table.itertuples()}
    model = ["--model", "lad-tiny"] if base == "lad-tiny" else ["--model", f"vlmeval:{base}", "--image-preparation", "native"]
    words = ["run", *model, "--tasks", "scenes_few.yaml", "--methods", f"{suffix}+lad", "--runs", str(tmp_path), "-q"]
    assert invoke(words) == 0
    (stored,) = tmp_path.rglob("predictions.parquet")
    assert ours == {(row.sample_id, row.permutation): row.position + 1 for row in pd.read_parquet(stored).itertuples()}
    note = json.loads(path.with_name(f"{path.stem}_lad_eval.json").read_text())
    assert (note["method"], note["fingerprint"]["intervention"]["keep"]) == (f"{suffix}+lad", 0.25)


def test_a_task_of_ours_teaches_the_trend_from_its_own_calibration_samples(entries, capsys):
    code, _ = run("lad-tiny+fastv(keep=0.25, trend=exp)+PriDe", "scenes_few.yaml", "W-ours-trend")
    assert code == 0, capsys.readouterr().err[-3000:]
    state = learned("W-ours-trend")
    assert Trend.of_arrays(state.arrays).requests == 100
    assert all("-calibration-" in name for name in state.sample_ids)


def test_several_pictures_and_a_question_of_ours(entries, place, capsys):
    model = "TinyQwen+fastv(keep=0.25, layer=1)"
    code, seen = run(model, "scenes_few.yaml", "W-ours")
    assert code == 0, capsys.readouterr().err[-3000:]
    assert len(set(seen)) > 1
    (table,) = Path("W-ours").rglob("*_Scenes_Few_acc.csv")
    assert pd.read_csv(table)["Samples"].item() == 4


@pytest.mark.parametrize("suffix", ["+average-cyclic+LAD", "+sofa+fastv(keep=0.25)"])
def test_a_folder_behind_a_name_of_several_parts_is_found(entries, suffix):
    import vlmeval.config

    from lad_eval.plugins.vlmevalkit.names import flat

    table, aliases = vlmeval.config.supported_VLM, {}
    short = flat(entries["LLaVA-1.5"] + suffix, aliases)
    table.aliases.update(aliases)
    assert short in table
    assert table.served(short).model == str(Path(entries["LLaVA-1.5"].removeprefix("HF:")).resolve())
