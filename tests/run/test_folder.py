import os

import pytest

from lad_eval.errors import UserError
from lad_eval.files.atomic import write_atomically
from lad_eval.files.documents import write_json
from lad_eval.run.folder.files import (
    ResultsError,
    claim,
    ensure_writable,
    folder_of,
    read_run_json,
    removed_if_unused,
    slug,
)
from lad_eval.run.folder.spec import RunSpec


def spec(**changes):
    values = {
        "model": "Qwen/Qwen2.5-VL-3B-Instruct",
        "fingerprint": {"dtype": "float32"},
        "task": "scenes_random_n4",
        "definition": {"candidates": 4},
        "digests": {"spec": "a", "data": "b"},
    }
    return RunSpec(**{**values, **changes})


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen-Qwen2.5-VL-3B-Instruct"),
        ("random:qwen2.5-vl", "random-qwen2.5-vl"),
        ("..", "model"),
        ("a b/ü", "a-b"),
    ],
)
def test_a_name_becomes_one_plain_folder(name, folder):
    assert slug(name) == folder


def test_everything_that_changes_the_evidence_changes_the_folder(tmp_path):
    changed = [
        spec(), spec(model="m"), spec(fingerprint={"dtype": "bfloat16"}), spec(task="t"), spec(definition={"candidates": 8}),
        spec(digests={"spec": "a", "data": "c"}), spec(limit=20),
    ]  # fmt: skip
    assert len({folder_of(tmp_path, s) for s in changed}) == len(changed)
    assert folder_of(tmp_path, spec()).parts[-3:-1] == ("Qwen-Qwen2.5-VL-3B-Instruct", "scenes_random_n4")


def test_the_order_of_keys_does_not_change_the_folder():
    one, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    assert spec(fingerprint=one).digest == spec(fingerprint=other).digest


def test_a_folder_is_claimed_once_and_for_one_spec(tmp_path):
    claim(tmp_path, spec())
    claim(tmp_path, spec())
    with pytest.raises(ResultsError, match=r"results of another spec \(differs in limit\).*--overwrite always"):
        claim(tmp_path, spec(limit=3))
    assert read_run_json(tmp_path / "spec.json") == spec().document()


def test_a_write_that_fails_leaves_the_old_file_and_no_debris(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"a": 1})

    def fail(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert read_run_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_json_that_python_alone_would_read_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"rstd": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "it is not JSON, so it is damaged"),
        ("[]", "it is not a JSON object"),
        ('{"a": NaN}', "it is not JSON"),
        ('{"a": 1, "checksum": "0123456789abcdef"}', "it is not what was written, it is damaged or was changed"),
        ('{"a":' * 50_000, "it is not JSON"),
        (None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, text, reason):
    path = tmp_path / "metrics.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ResultsError, match=f"Cannot read .*metrics.json: {reason}.* to rewrite it"):
        read_run_json(path)


def test_an_unwritable_results_folder_is_one_line(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ResultsError, match=r"Cannot write to the results folder .*file.*--runs"):
        ensure_writable(blocked / "runs")


def test_a_results_folder_is_made_by_what_is_written_there(tmp_path):
    ensure_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_a_failure_leaves_without_answers_is_removed_with_those_above_it(tmp_path):
    folder = tmp_path / "runs" / "model" / "run"

    def write_and_fail(*names):
        with removed_if_unused(folder):
            for name in names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text("")
            raise UserError("refused")

    def fail_after(*names):
        with pytest.raises(UserError, match="refused"):
            write_and_fail(*names)
        return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())

    assert fail_after("spec.json", "task.json", ".evidence.lock", "conditions/fastv/.evidence.lock") == []
    assert list(tmp_path.iterdir()) == []
    answers = ("spec.json", "conditions/fastv/.evidence.lock", "conditions/sofa/evidence.jsonl")
    left = ["runs/model/run/conditions/sofa/evidence.jsonl", "runs/model/run/spec.json"]
    assert fail_after(*answers) == left, "what holds answers stays"
    (tmp_path / "runs/model/run/conditions/sofa/evidence.jsonl").unlink()
    assert fail_after("conditions/fastv/.evidence.lock") == ["runs/model/run/spec.json"], "a run that was there stays"
    assert not (tmp_path / "runs/model/run/conditions").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ResultsError, match="Permission denied"):
        ensure_writable(tmp_path)
