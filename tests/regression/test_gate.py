"""The check on worse copies of lad-tiny: noise in the decoder, and a position bias that grows while the accuracy stays."""

import pytest

from lad_eval.cli.main import invoke
from lad_eval.regression.check import CheckOptions, Questions, check, write
from lad_eval.regression.text import Rule, result_line
from tests.run.copies import FAIR, TILTED, noisy, scaled

pytestmark = pytest.mark.slow

SAMPLES = 30


class Gate:
    """A baseline of a model, and checks of other models against it; each model is run once."""

    def __init__(self, folder, model):
        self.path, self.runs = folder / "baseline.json", folder / "runs"
        questions = Questions(("scenes_adversarial_n4",), ("vanilla", "lad"), SAMPLES)
        write(self.path, CheckOptions(model=str(model), quiet=True), "what the copies are held to", questions)

    def check(self, model, max_drop=None):
        how = CheckOptions(model=str(model), quiet=True, out=self.runs)
        result = check(self.path, how, Rule(max_drop=max_drop))
        return result, {(found.method, change.figure): change for found, change in result.changes}


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    return Gate(tmp_path_factory.mktemp("gate"), "lad-tiny")


def failed(result):
    return {(finding.method, finding.kind) for finding in result.findings}


def test_a_little_noise_passes(gate, tmp_path):
    copy = noisy(tmp_path / "copy", 0.02)
    result, changes = gate.check(copy)
    assert result.passed
    assert 0 < len(result.flips) < 10
    assert abs(changes["lad", "accuracy"].drop) < 2
    assert gate.check(copy, max_drop=15)[0].passed


def test_a_fall_that_so_few_samples_cannot_tell_from_chance_fails_where_it_must_be_excluded(gate, tmp_path, capsys):
    copy = noisy(tmp_path / "copy", 0.25)
    result, changes = gate.check(copy)
    assert result.passed
    fall = changes["lad", "accuracy"]
    assert 3 < fall.drop < 8 < fall.largest_drop
    assert fall.detectable > 20  # and the first line says so
    assert result_line(result).startswith(
        "ok: nothing became significantly worse in 6 comparisons on 1 task. Smallest noticeable drop: accuracy "
        f"{max(c.detectable for (_, name), c in changes.items() if name == 'accuracy'):.1f}, consistency 32.2, rise of RStd "
    )
    result, _ = gate.check(copy, max_drop=3)
    assert {("lad", "accuracy"), ("lad", "consistency"), ("lad", "rstd")} <= failed(result)
    (warning,) = result.warnings
    assert warning.startswith("scenes_adversarial_n4: 30 samples are too few for --max-drop 3: the interval of ")
    command = ["check", str(gate.path), "--model", str(copy), "--runs", str(gate.runs), "--quiet"]
    assert invoke(command) == 0
    assert invoke([*command, "--max-drop", "3"]) == 1
    passed, *_ = (text := capsys.readouterr().out).splitlines()
    assert passed == result_line(gate.check(copy)[0])
    assert "FAILED: a drop of more than 3 points is not excluded in " in text
    assert len(text.splitlines()) < 30


def test_much_noise_fails(gate, tmp_path):
    copy = noisy(tmp_path / "copy", 1.0)
    result, changes = gate.check(copy)
    assert not result.passed
    assert all(changes[key].p_holm < 0.05 and changes[key].drop > 0 for key in failed(result))
    assert changes["lad", "accuracy"].drop > 5
    assert {("vanilla", "accuracy"), ("lad", "accuracy"), ("lad", "consistency")} <= failed(gate.check(copy, max_drop=3)[0])


def test_a_bias_that_grows_fails_though_the_accuracy_stays(tmp_path):
    gate = Gate(tmp_path, scaled(tmp_path / "fair", FAIR))
    copy = scaled(tmp_path / "tilted", TILTED)
    result, changes = gate.check(copy)
    assert abs(changes["vanilla", "accuracy"].drop) < 4
    assert changes["vanilla", "rstd"].now > 2 * changes["vanilla", "rstd"].before > 20
    assert failed(result) == {("vanilla", "rstd"), ("vanilla", "consistency")}
    assert ("vanilla", "rstd") in failed(gate.check(copy, max_drop=10)[0])
    assert not {("lad", "accuracy"), ("lad", "rstd")} & failed(gate.check(copy, max_drop=10)[0])
