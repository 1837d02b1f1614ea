"""The package of examples/: every kind of name that another package can give, from the list to the figures."""

import json
import os
import subprocess
import sys

import pytest

from lad_eval.attention.interventions import INTERVENTIONS, LearnedState
from lad_eval.cli.main import invoke
from lad_eval.errors import UserError
from lad_eval.methods import canonical_name, make_method
from lad_eval.registry import RegistryError
from lad_eval.tasks.prompts import PROMPT_VARIANTS, question
from tests.run.conftest import only_run
from tests.test_registry import package

pytestmark = pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")
MODEL, TASK = "random:llava-1.5", "grey_n3"


@pytest.mark.usefixtures("example")
def test_its_names_are_listed_joined_and_explained(capsys):
    assert invoke(["ls", "methods"]) == 0
    listed = capsys.readouterr().out
    for name, summary in [
        ("median-prior", "Log-probabilities minus the median"),
        ("evened", "Divides attention to an image by the mean"),
        ("carefully", "Asks to look at every image"),
    ]:
        assert name in listed
        assert summary in " ".join(listed.split())
    assert canonical_name("median_prior+evened(strength=2)+carefully") == "carefully+evened(strength=2.0)+median-prior"
    condition = make_method("carefully+evened+median-prior").condition
    assert condition.prompt_variants == ("carefully",)
    assert condition.intervention == INTERVENTIONS["evened"]()
    assert "Look at every image before you answer." in question("retrieval", "a dog", ("1", "2", "3"), ("carefully",))
    with pytest.raises(UserError, match=r"evened has no parameter 'sigma'\. Its parameters are strength"):
        make_method("evened(sigma=1)")
    with pytest.raises(UserError, match="carefully has no parameter"):
        make_method("carefully(hard=1)")


@pytest.mark.usefixtures("example")
def test_they_run_together_and_are_decided_again(tmp_path, capsys):
    methods = "vanilla,carefully,evened+lad,carefully+evened+median-prior(strength=0.5)"
    words = ["--model", MODEL, "--tasks", TASK, "--limit", "2", "--runs", str(tmp_path), "--quiet", "--json"]
    assert invoke(["run", *words, "--methods", methods]) == 0
    rows = {row["method"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == ["vanilla", "carefully", "evened+lad", "carefully+evened+median-prior(strength=0.5)"]
    folder = only_run(tmp_path)
    learned = sorted(path.relative_to(folder).parts[1] for path in folder.rglob("learned.evened.safetensors"))
    assert learned == ["carefully-evened", "evened"], "of each question"
    assert invoke(["score", str(tmp_path), "--set", "carefully+evened+median-prior(strength=2)", "--json"]) == 0
    assert "carefully+evened+median-prior(strength=2.0)" in capsys.readouterr().out


def test_without_the_package_its_names_are_unknown():
    for table in (INTERVENTIONS, PROMPT_VARIANTS):
        assert not {"evened", "carefully"} & {*table}
    with pytest.raises(UserError, match="Unknown method 'evened'"):
        make_method("evened")


@pytest.mark.parametrize(
    ("group", "code", "says"),
    [
        ("interventions", "X = 3", "TypeError: the intervention 'odd' must be a class derived from lad_eval.attention"),
        (
            "interventions",
            "from lad_eval.attention.interventions import Sofa as X",
            "TypeError: the intervention 'odd' must have this `name`, not 'sofa'",
        ),
        ("prompts", "X = 'Look!'", "TypeError: the prompt variant 'odd' must be a lad_eval.tasks.prompts.PromptVariant"),
        ("prompts", "1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_faults_of_other_packages_are_one_line_and_break_nothing_else(tmp_path, monkeypatch, group, code, says):
    name = f"odd_{group}_{len(code)}"
    package(tmp_path, name, [f"odd = {name}:X"], code + "\n", group=f"lad_eval.{group}")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RegistryError) as caught:
        make_method("odd")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert make_method("sofa+instruction").condition.label == "instruction+sofa"


@pytest.mark.slow
def test_two_processes_learn_once_and_read_the_same(example, tmp_path):
    path = os.pathsep.join([*example, os.environ.get("PYTHONPATH", "")])
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    told = {}
    for name, launcher in (("one", []), ("two", torchrun)):
        words = ["run", "--model", MODEL, "--tasks", TASK, "--limit", "3", "--methods", "vanilla,sofa+evened+lad,evened+generate"]
        command = [sys.executable, *launcher, "-m", "lad_eval", *words, "--device", "cpu", "--json", "--runs", tmp_path / name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("evened is calibrated on 5 samples in 3 orders.") == 1, "by one process, for both conditions"
        told[name] = json.loads(done.stdout)
    assert told["one"] == told["two"]
    states = [
        LearnedState.load(path, "evened")
        for name in told
        for path in sorted((tmp_path / name).rglob("learned.evened.safetensors"))
    ]
    assert len(states) == 4
    assert len({state.digest for state in states}) == 1
