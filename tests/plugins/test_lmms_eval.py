"""Our tasks as lmms-eval's: written folders, documents, figures; test_lmms_eval_real.py has what needs lmms-eval."""

import json
import logging
import math
from importlib import import_module, util
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import Dataset
from PIL import Image

from lad_eval.cli.main import invoke
from lad_eval.errors import UnknownNameError, UserError
from lad_eval.extras import install_command
from lad_eval.metrics import Predictions, summarise
from lad_eval.plugins import task_folder
from lad_eval.plugins.documents import one_line, request_of
from lad_eval.plugins.lmms_eval import documents, scoring
from lad_eval.plugins.lmms_eval.launch import LMMS_EVAL
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import groups, load_spec, load_task, resolve, task_names

TASK = "scenes_random_n4"


class Named(yaml.SafeLoader):
    """Reads `!function module.name` as lmms-eval does where no file of that name lies beside the YAML."""


Named.add_constructor("!function", lambda loader, node: _function(loader.construct_scalar(node)))


def _function(name):
    module, _, function = name.rpartition(".")
    return getattr(import_module(module), function)


def read(path):
    return yaml.load(path.read_text(), Loader=Named)


@pytest.fixture
def album(tmp_path):
    """A YAML task of the user's own over 24 pictures."""
    (tmp_path / "pictures").mkdir()
    for i in range(24):
        Image.new("RGB", (24, 16), (i * 10, i, 255 - i)).save(tmp_path / "pictures" / f"{i:02}.png")
    (tmp_path / "captions.json").write_text(json.dumps({f"{i:02}.png": f"picture {i}" for i in range(24)}))
    path = tmp_path / "album.yaml"
    path.write_text("source: folder\ncandidates: 3\ndata: {images: pictures, captions: captions.json}\n")
    return path


def stub(task, definition=None):
    return Dataset.from_list([{"task": task, "definition": definition or load_task(task).spec.digest}])


# The written folders


def test_every_bundled_task_and_group_is_written(tmp_path):
    written = task_folder.write_tasks(LMMS_EVAL, tmp_path)
    taken = LMMS_EVAL.names()
    assert written == [f"lad_eval_{name}" if name in taken else name for name in task_names()]
    for name, ours in zip(written, task_names(), strict=True):
        held = read(tmp_path / f"{name}.yaml")
        assert held["task"] == name
        assert held["dataset_kwargs"]["data_files"]["test"] == f"{name}.jsonl"
        assert json.loads((tmp_path / f"{name}.jsonl").read_text())["task"] == ours
        assert held["process_results"] is scoring.results
        assert all(callable(metric["aggregation"]) for metric in held["metric_list"])
        assert len(held["metric_list"]) == 5 + load_spec(ours).candidates
    assert read(tmp_path / "scenes_main.yaml") == {"group": "scenes_main", "task": groups()["scenes_main"]}


def test_a_bundled_task_is_told_from_one_of_the_harness_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(task_folder.FolderHarness, "names", lambda harness: frozenset({"blink", "blink_jigsaw", "mme"}))
    written = task_folder.write_tasks(LMMS_EVAL, tmp_path, ["blink"])
    assert "lad_eval_blink_jigsaw" in written
    assert "blink_art_style" in written
    assert read(tmp_path / "lad_eval_blink_jigsaw.yaml")["task"] == "lad_eval_blink_jigsaw"
    assert json.loads((tmp_path / "lad_eval_blink_jigsaw.jsonl").read_text())["task"] == "blink_jigsaw"
    assert read(tmp_path / "lad_eval_blink.yaml") == {"group": "lad_eval_blink", "task": written}
    assert not (tmp_path / "blink.yaml").exists()


def test_a_group_is_written_only_with_all_its_tasks(tmp_path):
    assert task_folder.write_tasks(LMMS_EVAL, tmp_path, ["scenes_random_n2"]) == ["scenes_random_n2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scenes_random_n2.jsonl", "scenes_random_n2.yaml"]


def test_a_yaml_file_of_ones_own_is_found_from_anywhere(album, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task_folder.write_tasks(LMMS_EVAL, tmp_path / "out", ["album.yaml"])
    told = json.loads((tmp_path / "out" / "album.jsonl").read_text())
    assert told["task"] == str(album)
    monkeypatch.chdir("/")
    made = documents.documents(Dataset.from_list([told]))
    assert {row["sample"] for row in made} == {request.sample_id for request in plan(load_task(album)).requests}


def test_a_task_of_an_included_folder_is_found_without_it(album, tmp_path, capsys):
    out = tmp_path / "out"
    assert invoke(["lmms-eval", "tasks", "--out", str(out), "--tasks", "album", "--include-path", str(album.parent)]) == 0
    written = json.loads((out / "album.jsonl").read_text())
    assert written["task"] == str(album.resolve())
    assert len(documents.documents(Dataset.from_list([written]))) == len(plan(load_task(album)).evaluated)


def test_run_takes_the_folders_of_include_path_and_leaves_lmms_evals_own_flag_to_it(album, monkeypatch):
    launched = []
    monkeypatch.setattr(task_folder, "launch", lambda harness, flags: launched.append((harness, flags, resolve("album"))) or 0)
    flags = ["--tasks", "album", "--include_path", "theirs", "--batch_size", "2"]
    assert invoke(["lmms-eval", "run", "--include-path", str(album.parent), *flags]) == 0
    assert launched == [(LMMS_EVAL, flags, ["album"])]


def test_what_cannot_be_written_is_said(album, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UnknownNameError, match=r"Unknown task 'scenes_randm_n4'\. Did you mean 'scenes_random_n4'"):
        task_folder.write_tasks(LMMS_EVAL, out, ["scenes_randm_n4"])
    assert not out.exists()
    task_folder.write_tasks(LMMS_EVAL, out, [TASK])
    task_folder.write_tasks(LMMS_EVAL, out, [TASK])
    (out / f"{TASK}.yaml").write_text("task: mine\n")
    with pytest.raises(UserError, match="is not a file of ours; choose another folder"):
        task_folder.write_tasks(LMMS_EVAL, out, [TASK])
    with pytest.raises(UserError, match="Cannot write to"):
        task_folder.write_tasks(LMMS_EVAL, album, [TASK])


# The documents


def test_documents_are_the_test_requests_of_a_run(tmp_path):
    task = load_task("scenes_random_n2")
    made = documents.documents(stub("scenes_random_n2"))
    asked = plan(task)
    assert made["key"] == list(asked.evaluated)
    assert made["permutation"] == list(asked.permutation_index)
    assert len(made) == 2 * len({*made["sample"]})
    calibration = {sample.id for sample in task.samples("calibration")}
    assert not calibration & {*made["sample"]}


def test_a_document_shows_its_images_in_displayed_order(album):
    made = documents.documents(stub(str(album)))
    assert {row["orders"] for row in made} == {5}
    for row in list(made)[:7]:
        request = request_of(row)
        assert documents.question(row) == request.question
        assert documents.target(row) == request.identifiers[request.gold_position]
        shown = documents.visuals(row)
        assert [image.tobytes() for image in shown] == [image.load().tobytes() for image in request.images]
        first = next(other for other in made if other["sample"] == row["sample"] and other["permutation"] == 0)
        plain = documents.visuals(first)
        assert [image.tobytes() for image in shown] == [plain[i].tobytes() for i in row["order"]]


def test_a_folder_of_an_older_definition_is_refused():
    with pytest.raises(UserError, match="has changed since its folder was written; write it again with `lad-eval lmms-eval"):
        documents.documents(stub(TASK, "0" * 16))


def test_a_document_of_another_task_is_refused():
    with pytest.raises(UserError, match="This is not a task of lad_eval"):
        request_of({"question": "?", "answer": "A"})


# The figures


def values(replies, rows):
    told = [scoring.results(row, [reply]) for row, reply in zip(rows, replies, strict=True)]
    return {name: [value[name] for value in told if name in value] for name in {key for value in told for key in value}}


def test_figures_are_those_of_a_run():
    rows = list(documents.documents(stub(TASK)))[:200]
    drawn = np.random.default_rng(0).integers(-1, 4, len(rows))
    drawn[::3] = [rows[i]["gold"] for i in range(0, len(rows), 3)]
    told = values(["none of them" if p < 0 else f"Image {p + 1}." for p in drawn], rows)
    expected = summarise(
        Predictions(
            [row["sample"] for row in rows],
            [row["permutation"] for row in rows],
            [row["gold"] for row in rows],
            drawn,
            [row["order"] for row in rows],
        ),
        resamples=10,
    )
    assert scoring.accuracy(told["accuracy"]) == pytest.approx(expected.accuracy / 100)
    assert scoring.accuracy_std(told["accuracy_std"]) == pytest.approx(expected.accuracy_std / 100)
    assert scoring.rstd(told["rstd"]) == pytest.approx(expected.rstd / 100)
    assert scoring.consistency(told["consistency"]) == pytest.approx(expected.consistency / 100)
    assert scoring.unparsable(told["unparsable"]) == expected.unparsable
    recall = [scoring.accuracy(told[f"recall_{k}"]) for k in range(1, 5)]
    assert recall == pytest.approx([value / 100 for value in expected.recall])


def test_two_samples_by_hand():
    # Two images in the orders 01 and 10; the first sample is answered "image 0" twice, the second by position.
    rows = [
        {"sample": s, "permutation": k, "orders": 2, "order": order, "identifiers": ["1", "2"], "gold": order.index(0)}
        for s in "ab"
        for k, order in enumerate(([0, 1], [1, 0]))
    ]
    told = values(["1", "2", "1", "1"], rows)
    assert scoring.accuracy(told["accuracy"]) == 0.75
    assert scoring.consistency(told["consistency"]) == 0.5
    assert scoring.accuracy_std(told["accuracy_std"]) == pytest.approx(0.5 / math.sqrt(2))  # 1.0 and 0.5
    assert scoring.rstd(told["rstd"]) == pytest.approx(0.5 / math.sqrt(2))  # recall 2/2 and 1/2
    assert told["accuracy"][0] == {"sample": "a", "score": 1.0}


def test_one_order_says_nothing_of_consistency():
    row = {"sample": "a", "permutation": 0, "orders": 1, "order": [0, 1], "identifiers": ["A", "B"], "gold": 1}
    assert values(["B"], [row]).keys() == {"accuracy", "rstd", "recall_2", "unparsable"}


def test_a_sample_cut_by_the_limit_does_not_count_for_consistency(caplog):
    scoring._warn.cache_clear()
    rows = list(documents.documents(stub(TASK)))[:7]
    told = values([row["identifiers"][row["gold"]] for row in rows[:5]] + ["1", "2"], rows)
    with caplog.at_level(logging.WARNING, logger="lad_eval"):
        assert scoring.consistency(told["consistency"]) == 1.0
    assert (
        "1 sample was not run under all 5 orders and does not count for consistency: make --limit a multiple of 5." in caplog.text
    )
    only = values(["1", "2"], rows[5:])
    assert math.isnan(scoring.consistency(only["consistency"]))
    assert math.isnan(scoring.accuracy_std(only["accuracy_std"]))


# The command line, and how faults end


def test_the_command_writes_tasks(tmp_path, capsys):
    assert invoke(["lmms-eval", "tasks", "--out", str(tmp_path), "--tasks", "scenes_random_n2,scenes_random_n4"]) == 0
    assert capsys.readouterr().out.startswith(f"2 tasks in {tmp_path};")
    assert len(list(tmp_path.iterdir())) == 4
    assert invoke(["lmms-eval", "tasks", "--out", str(tmp_path), "--tasks", "scenes_randm_n4"]) == 2
    assert capsys.readouterr().err.startswith("error: Unknown task 'scenes_randm_n4'.")


@pytest.mark.skipif(util.find_spec("lmms_eval") is not None, reason="lmms-eval is installed")
def test_without_lmms_eval_the_message_says_how_to_install_it(capsys):
    assert invoke(["lmms-eval", "run", "--model", "lad_eval", "--tasks", TASK]) == 2
    assert f"error: lmms-eval is not installed here: `{install_command('lmms-eval')}`, in" in capsys.readouterr().err


def test_a_fault_below_the_command_is_one_line_and_exit_2(capsys):
    def cli_evaluate():
        with one_line():
            raise UserError("what and\nhow to mend it")

    with pytest.raises(SystemExit) as ended:
        cli_evaluate()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: what and how to mend it\n"
    with pytest.raises(UserError, match="what and"), one_line():
        raise UserError("what and how")


def test_importing_the_entry_point_loads_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys, lad_eval.plugins.lmms_eval as p; assert p.manifests; print({'torch', 'numpy', 'pydantic'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert ran.stdout.strip() == "set()"
