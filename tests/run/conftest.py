"""One tiny random model and one finished run, shared by the tests of this folder and of tests/cli."""

from pathlib import Path

import pytest

from lad_eval.run import execute
from lad_eval.run.execute import Settings

MODEL = "random:qwen2.5-vl"
TASK = "scenes_random_n2"
METHODS = ("vanilla", "pride", "lad", "raw-attention", "purified-attention", "permutation-average")


@pytest.fixture(scope="session")
def model():
    from lad_eval.models.registry import load_model

    return load_model(MODEL, batch_size=4, device="cpu", seed=42)


class Counted:
    """The model, with the keys of all requests that it was asked."""

    def __init__(self, model, stop_after=None, how=None):
        self.inner, self.asked, self.stop_after, self.how = model, [], stop_after, how
        self.calibrations = []
        self.name, self.model, self.under = model.name, model.model, model.under

    @property
    def fingerprint(self):
        return self.inner.fingerprint

    def calibrated(self, intervention, requests):
        self.calibrations.append((intervention.label, [request.key for request in requests]))
        return self.inner.calibrated(intervention, requests)

    def reply_batches(self, requests, decoding):
        for batch in self.inner.reply_batches(requests, decoding):
            self.asked += [reply.key for reply in batch]
            yield batch
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                self.how()

    def evidence_batches(self, requests):
        for batch in self.inner.evidence_batches(requests):
            self.asked += batch.key.tolist()
            yield batch
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                self.how()


@pytest.fixture
def counted(model, monkeypatch):
    """Makes `run_tasks` use the shared model and count what it is asked; `stop_after` requests `how` is called."""

    def make(stop_after=None, how=None):
        made = Counted(model, stop_after, how)
        monkeypatch.setattr(execute, "load_model", lambda name, **options: made)
        return made

    return make


def settings(out, **changes):
    values = {"model": MODEL, "tasks": (TASK,), "methods": METHODS, "limit": 4, "out": Path(out), "quiet": True}
    return Settings(**{**values, **changes})


def only_run(out):
    (spec,) = Path(out).rglob("spec.json")
    return spec.parent


def to_rounding(rows):
    """Rows to compare others with; of the bias score, a mean of probabilities, other batches change the last digits."""
    return [{**row, "bias_score": pytest.approx(row["bias_score"], abs=1e-5)} for row in rows]
