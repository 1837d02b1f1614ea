"""What the VLMEvalKit plug-in decides without VLMEvalKit: names, cells, the command line's faults."""

import json
import subprocess
import sys

import pytest

from lad_eval.attention.pruning.fastv import FastV
from lad_eval.attention.pruning.random_tokens import RandomTokens
from lad_eval.cli.main import invoke
from lad_eval.errors import UserError
from lad_eval.extras import install_command
from lad_eval.plugins.vlmevalkit.arguments import CommandLine
from lad_eval.plugins.vlmevalkit.names import TELLING_WORDS, Served, dataset_name, expanded, flat, parse
from lad_eval.plugins.vlmevalkit.scores import as_written
from lad_eval.tasks.registry import task_names


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("scenes_random_n4", "ScenesRetrieval_Random_N4"),
        ("coco_random_n4", "COCORetrieval_Random_N4"),
        ("coco_adversarial_n12", "COCORetrieval_Adversarial_N12"),
        ("flickr8k_random_n8", "Flickr8kRetrieval_Random_N8"),
        ("mmiu_forensic_blink", "MMIU_Forensic_Blink"),
        ("mmiu_text2image_retrieval", "MMIU_Text2image_Retrieval"),
        ("my_pictures", "My_Pictures"),
    ],
)
def test_a_data_set_is_named_after_its_task(task, name):
    assert dataset_name(task) == name


def test_bundled_tasks_have_names_of_their_own_without_telling_words():
    names = [dataset_name(task) for task in task_names()]
    assert len(set(names)) == len(names)
    assert not [name for name in names for word in TELLING_WORDS if word in name.lower()]


def test_a_name_that_vlmevalkit_would_read_as_an_instruction_is_refused():
    with pytest.raises(UserError, match=r"'my_video_frames' holds 'video'.*rename the task's file"):
        dataset_name("my_video_frames")


def test_a_task_is_found_by_its_data_set_its_name_and_its_group():
    assert expanded("ScenesRetrieval_Random_N4") == expanded("scenes_random_n4") == ["scenes_random_n4"]
    assert len(expanded("scenes_main")) > 1
    assert expanded("MMBench_DEV_EN") == []


@pytest.mark.parametrize(
    ("name", "served"),
    [
        ("lad-tiny", Served("lad-tiny")),
        ("lad-tiny+LAD", Served("lad-tiny", "lad")),
        ("Qwen2.5-VL-3B-Instruct+PriDe", Served("Qwen2.5-VL-3B-Instruct", "pride")),
        ("lad-tiny+Permutation-Average", Served("lad-tiny", "permutation-average")),
        ("lad-tiny+lad,top_k=2,layers=all", Served("lad-tiny", "lad", {"top_k": 2, "layers": "all"})),
        ("X+Average_Cyclic+LAD,top_k=2", Served("X", "average-cyclic+lad", {"top_k": 2})),
        ("a+b+LAD+majority", Served("a+b", "majority+lad")),
        ("HF:org/some-model+LAD", Served("HF:org/some-model", "lad")),
        ("HF--org--some-model+LAD", Served("HF:org/some-model", "lad")),
        ("X+FastV(keep=128)", Served("X", intervention=FastV(keep=128))),
        ("HF--org--m+random_tokens(keep=1.0,layer=3)", Served("HF:org/m", intervention=RandomTokens(keep=1.0, layer=3))),
    ],
)
def test_a_model_name_is_taken_apart(name, served):
    assert parse(name) == served


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("X+FastV(keep=128, layer=3)", "X+fastv(keep=128,layer=3)"),
        ("X+fastv( layer=3,keep=128 )", "X+fastv(keep=128,layer=3)"),
        ("X+fastv(keep=1)", "X+fastv(keep=1)"),
        ("X+fastv(keep=1.0)", "X+fastv(keep=1.0)"),
        ("HF:org/m+sofa+fastv(keep=0.5)", "HF--org--m+sofa+fastv"),
        ("lad-tiny+random_tokens", "lad-tiny+random-tokens"),
    ],
)
def test_a_pruned_model_has_one_name_however_it_is_spelt(name, short):
    assert flat(name, {}) == short
    assert parse(short).intervention == parse(name).intervention


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("lad-tiny+LOD", r"Unknown method 'lod'\. Did you mean 'lad'\?"),
        ("lad-tiny+LAD,top_q=1", r"lad has no parameter 'top_q'"),
        ("lad-tiny+LAD,top_k=many", r"top_k of lad must be"),
        ("lad-tiny+LAD,top_k", r"'top_k' in 'lad-tiny\+LAD,top_k' is not a setting"),
    ],
)
def test_a_model_name_that_cannot_be(name, fault):
    with pytest.raises(UserError, match=fault):
        parse(name)


@pytest.mark.parametrize("name", ["openai:served", "HF:openai:served+LAD"])
def test_a_model_behind_a_server_is_for_our_own_commands(name):
    with pytest.raises(UserError, match=r"VLMEvalKit runs models behind a server itself; .*openai:served is for"):
        flat(name, {})


def test_names_for_files_have_no_slash_and_tell_folders_apart(tmp_path):
    aliases = {}
    assert flat("HF:org/model-1+LAD", aliases) == "HF--org--model-1+LAD"
    assert flat("lad-tiny+LAD", aliases) == "lad-tiny+LAD"
    assert not aliases
    folder = tmp_path / "c++ model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    before = flat(f"HF:{folder}+LAD", aliases)
    short = before.removesuffix("+LAD")
    assert "/" not in before
    assert aliases == {short: f"HF:{folder}"}
    (folder / "trainer_state.json").write_text("{}")
    assert flat(f"HF:{folder}/", {}) == short
    (folder / "config.json").write_text('{"other": 1}')
    assert flat(f"HF:{folder}", {}) != short


def test_an_adapters_name_tells_its_base_and_follows_its_files(tmp_path):
    base, adapter = tmp_path / "bases" / "b", tmp_path / "run-a" / "checkpoint-500"
    for folder in (base, adapter):
        folder.mkdir(parents=True)
    (base / "config.json").write_text("{}")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    before = flat(f"HF:{adapter}+LAD", {})
    assert before.startswith("HF--bases-b-run-a-checkpoint-500@")
    (base / "config.json").write_text('{"other": 1}')
    assert flat(f"HF:{adapter}+LAD", {}) != before


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (2, "2"),
        (2.0, "2"),
        ("2.0", "2"),
        ("1.5", "1.5"),
        (float("nan"), ""),
        (None, ""),
        ("None", "None"),
        ("=2", "=2"),
        (0, "0"),
    ],
)
def test_a_cell_is_read_as_it_was_written(cell, text):
    assert as_written(cell) == text


def test_the_command_line_is_changed_only_behind_its_flag():
    line = CommandLine(["--data", "a", "b", "--verbose", "--model", "a", "--work-dir", "a", "--data=c"])
    assert line.values("--data") == ["a", "b", "c"]
    changed = line.replaced("--data", {"a": ["x", "y"], "b": ["b"], "c": ["z"]})
    assert changed.words == ["--data", "x", "y", "b", "--verbose", "--model", "a", "--work-dir", "a", "--data", "z"]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ([], "Name what to run"),
        (["--data", "scenes_random_n4"], "Name what to run"),
        (["--data", "scenes_random_n4", "--model", "lad-tiny+LOD"], "Unknown method 'lod'"),
        (["--data", "scenes_random_n4", "--model", "HF:no/such/folder"], "There is no model folder no/such/folder"),
        (["--data", "missing.yaml", "--model", "lad-tiny"], "missing.yaml"),
        (["--data", "scenes_random_n4", "--model", "HF:vlmeval:SmolVLM+LAD"], "write SmolVLM+LAD"),
        (["--data", "scenes_random_n4", "--model", "lad-tiny", "--work", "W"], "Write --work-dir in full, not --work."),
        (["--config", "missing.json"], "Cannot read missing.json"),
        (
            ["--kit", "nowhere", "--data", "scenes_random_n4", "--model", "lad-tiny"],
            "nowhere is not a source checkout",
        ),
    ],
)
def test_a_fault_is_one_line_and_found_before_vlmevalkit_is_imported(words, fault, capsys):
    assert invoke(["vlmeval", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert fault in lines[0]


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("PRED_FORMAT", "csv", "PRED_FORMAT must be one of xlsx, tsv, json, not 'csv'."),
        ("RANK", "3", "RANK=3 does not name a process of a run"),
    ],
)
def test_a_wrong_environment_is_told(name, value, fault, capsys, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv(name, value)
    assert invoke(["vlmeval", "--data", "scenes_random_n4", "--model", "lad-tiny"]) == 2
    assert fault in capsys.readouterr().err


def test_help_and_import_do_without_vlmevalkit():
    program = (
        "import sys, lad_eval.plugins.vlmevalkit\n"
        "from lad_eval.cli.main import invoke\n"
        "assert invoke(['vlmeval', '--help']) == 0\n"
        "sys.exit(bool({'vlmeval', 'torch', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--work-dir" in done.stdout


def test_without_vlmevalkit_one_line_says_how_to_get_it(capsys, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert invoke(["vlmeval", "--data", "scenes_random_n4", "--model", "lad-tiny"]) == 2
    assert capsys.readouterr().err == (
        f"error: VLMEvalKit is not installed: `{install_command('vlmeval')}`, or name a source checkout with --kit.\n"
    )
