"""The GitHub action: it is what it says, and its shell steps do it."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"] if "name" in step}
BASELINE = ROOT / "results" / "baselines" / "lad-tiny.json"


def program(path, text):
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def step(tmp_path):
    """Runs a step as GitHub does, `lad-eval` being this checkout's; returns the process and the folder of the files it wrote."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program(programs / "lad-eval", f'exec "{sys.executable}" -m lad_eval "$@"')
    program(programs / "python", f'printf "%s\\n" "$@" > "{tmp_path}/python-was-given"')

    def run(name, **inputs):
        values = {f"inputs.{key}": str(spec.get("default", "")) for key, spec in ACTION["inputs"].items()}
        values |= {f"inputs.{key.replace('_', '-')}": str(value) for key, value in inputs.items()}
        values |= {"github.action_path": str(ROOT)}
        made = {key: re.sub(r"\$\{\{ (\S+) \}\}", lambda m: values[m[1]], text) for key, text in STEPS[name]["env"].items()}
        files = {key: str(tmp_path / key) for key in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
        environment = {**os.environ, **made, **files, "RUNNER_TEMP": str(tmp_path), "PATH": f"{programs}:{os.environ['PATH']}"}
        script = tmp_path / "step.sh"
        script.write_text(STEPS[name]["run"])
        shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
        done = subprocess.run(shell, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
        return done, tmp_path

    return run


def test_it_is_a_composite_action_whose_steps_say_their_shell():
    assert ACTION["runs"]["using"] == "composite"
    assert all("uses" in step or step["shell"] == "bash" for step in ACTION["runs"]["steps"])
    assert {key for key, spec in ACTION["inputs"].items() if spec.get("required")} == {"baseline"}
    assert all(spec["description"] for spec in (*ACTION["inputs"].values(), *ACTION["outputs"].values()))


def test_every_input_is_used_and_none_reaches_a_script_as_text():
    used = re.findall(r"\$\{\{ inputs\.([\w-]+) \}\}", yaml.safe_dump(ACTION["runs"], width=1000))
    assert set(used) == ACTION["inputs"].keys()
    assert not any("${{" in step["run"] for step in STEPS.values())


def test_it_installs_its_own_checkout_or_what_is_named(step):
    done, folder = step("Install lad-eval")
    assert done.returncode == 0, done.stderr
    assert (folder / "python-was-given").read_text().splitlines()[-1] == str(ROOT)
    step("Install lad-eval", requirement="lad-eval==9.9")
    assert (folder / "python-was-given").read_text().splitlines() == ["-m", "pip", "install", "--quiet", "lad-eval==9.9"]


def test_a_baseline_that_holds_passes_and_is_summarised(step):
    done, folder = step("Check", baseline=BASELINE, replay="true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ok: ")
    assert (folder / "GITHUB_OUTPUT").read_text() == "code=0\n"
    summary = (folder / "GITHUB_STEP_SUMMARY").read_text()
    assert summary.startswith(f"### lad-eval check: {BASELINE}\n\n    ")
    assert "    ok: " in summary


def test_what_does_not_hold_fails_with_its_report(step, tmp_path):
    text = BASELINE.read_text(encoding="utf-8")
    broken = tmp_path / "lad-tiny.json"
    broken.write_text(re.sub(r'("lad": ")\d', r"\g<1>-", text, count=1), encoding="utf-8")
    (tmp_path / "lad-tiny.evidence").symlink_to(BASELINE.with_name("lad-tiny.evidence"))
    done, folder = step("Check", baseline=broken, replay="true", arguments="--quiet\n--json\n")
    assert done.returncode == 1
    assert '"passed": false' in (folder / "GITHUB_STEP_SUMMARY").read_text()
    assert (folder / "GITHUB_OUTPUT").read_text() == "code=1\n"


def test_a_largest_drop_reaches_the_command(step):
    done, folder = step("Check", baseline=BASELINE, max_drop="a lot")
    assert done.returncode == 2
    assert "Invalid value for '--max-drop'" in done.stderr
    assert (folder / "GITHUB_OUTPUT").read_text() == "code=2\n"


def test_a_check_that_cannot_be_made_is_told_from_one_that_failed(step):
    done, folder = step("Check", baseline="nowhere.json; echo injected", replay="true")
    assert done.returncode == 2
    assert "There is no baseline nowhere.json; echo injected" in done.stderr
    assert (folder / "GITHUB_OUTPUT").read_text() == "code=2\n"
    assert "injected\n" not in done.stdout
