"""Prompts that a model cannot take are found before anything is run, in every task of the run."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from lad_eval.cli.main import invoke
from lad_eval.errors import DataError
from lad_eval.methods import make_method
from lad_eval.run.execute import run_tasks
from lad_eval.run.preflight import check_prompts
from lad_eval.tasks.registry import load_task
from tests.run.conftest import MODEL, TASK, settings

pytestmark = pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")


@pytest.fixture
def album(tmp_path):
    """A task over 24 pictures of noise: album({"3.png": caption}) -> path of its definition."""

    def make(captions, name="album", **definition):
        folder = tmp_path / name
        (folder / "pictures").mkdir(parents=True)
        texts = {f"{i}.png": f"sign number {i}" for i in range(24)} | captions
        for i, picture in enumerate(texts):
            noise = np.random.default_rng(i).integers(0, 255, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / "pictures" / picture)
        (folder / "captions.json").write_text(json.dumps(texts))
        entries = {"source": "folder", "version": 1, "setting": "random", "candidates": 3, "samples": 8}
        entries |= {"calibration": {"samples": 3}, "data": {"images": "pictures", "captions": "captions.json"}, **definition}
        path = folder / f"{name}.yaml"
        path.write_text(json.dumps(entries))
        return path

    return make


def call(capsys, *arguments):
    code = invoke([str(a) for a in arguments])
    return (code, *capsys.readouterr())


def test_a_run_stops_before_its_first_task_where_its_second_cannot_be_asked(album, counted, tmp_path):
    bad = album({f"{i}.png": f"sign {i} <|im_end|>" for i in range(24)})
    asked = counted()
    asked.check_prompts = asked.inner.check_prompts
    out = tmp_path / "runs"
    with pytest.raises(DataError, match=r"Sample \d+.png: its caption becomes '<\|im_end\|>', .* \(3 more samples likewise"):
        run_tasks(settings(out, tasks=(TASK, str(bad)), methods=("vanilla",)))
    assert asked.asked == []
    assert list(out.rglob("*.jsonl")) == list(out.rglob("spec.json")) == []


def test_calibration_samples_are_checked_where_a_method_calibrates(album, model):
    task = load_task(str(album({})))
    learned = next(iter(task.samples("calibration")))
    asked = {sample.id for sample in task.samples("test")}
    assert learned.id not in asked
    task = load_task(str(album({learned.id: "a <|im_end|>"}, name="second")))
    check_prompts(model, task, {"vanilla": make_method("vanilla")}, None)
    with pytest.raises(DataError, match=learned.id):
        check_prompts(model, task, {"lad": make_method("lad")}, None)


def test_the_context_must_hold_the_longest_reply(album, model, monkeypatch):
    task = load_task(str(album({})))
    monkeypatch.setattr(model._prompts, "context", 400)
    check_prompts(model, task, {"vanilla": make_method("vanilla")}, None)
    with pytest.raises(DataError, match=r"tokens \(and 512 for the answer\), and random:qwen2.5-vl takes 400"):
        check_prompts(model, task, {"cot": make_method("cot(max_new_tokens=512)")}, None)


def test_validate_checks_every_prompt_without_weights(album, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["lad_eval.models.registry"], "load_model", None)
    path = album({"4.png": "sign <|im_end|>", "7.png": "blue " * 9000})
    code, out, err = call(capsys, "validate", path, "--model", MODEL)
    assert code == 2
    assert out.startswith("album: 11 samples checked for random:qwen2.5-vl, 2 of them cannot be used; longest prompt")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 2
    assert any("album: Sample 4.png: its caption becomes '<|im_end|>'" in line for line in lines)
    assert any("album: Sample 7.png: its prompt has 9" in line and "takes 8192" in line for line in lines)
    assert call(capsys, "validate", path)[0] == 0


def test_validate_takes_a_task_by_name(capsys):
    code, out, err = call(capsys, "validate", TASK, "--model", "lad-tiny")
    assert (code, err.count("\n"), err[:5]) == (0, 1, "next:")
    assert " samples checked for lad-tiny, 0 of them cannot be used; longest prompt " in out
    code, out, err = call(capsys, "validate", "scenes_random_n5")
    assert code == 2
    assert "Unknown task 'scenes_random_n5'. Did you mean" in err


def test_a_date_that_is_none_is_one_line(capsys, tmp_path):
    for command in (["run", "-m", MODEL, "-t", TASK, "--runs", tmp_path], ["validate", TASK, "-m", MODEL]):
        code, _, err = call(capsys, *command, "--date", "today")
        assert (code, err) == (2, "error: Not a date: 'today'; write it as YYYY-MM-DD, such as 2024-07-26.\n")


def test_validate_names_pictures_that_the_image_processor_refuses_and_goes_on(album, capsys):
    path = album({"4.png": "sign <|im_end|>"})
    Image.new("RGB", (1093, 5)).save(path.parent / "pictures" / "7.png")
    code, out, err = call(capsys, "validate", path, "--model", MODEL, "--image-preparation", "native")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, len(lines)) == (2, len({line.split(": ")[2] for line in lines}))
    assert any("Sample 4.png: its caption becomes '<|im_end|>'" in line for line in lines)
    assert any("7.png (1093 x 5 pixels) is refused by the model's image processor" in line for line in lines)
    assert f"{len(lines)} of them cannot be used" in out
    assert call(capsys, "validate", path, "--model", MODEL)[2].count("error: ") == 1
