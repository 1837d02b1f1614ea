"""Two processes of one run: replies and evidence of both are joined, and nothing is run twice."""

import json
from contextlib import nullcontext

import pytest

from lad_eval.errors import UserError
from lad_eval.evidence.replies_store import ReplyStore, read_file
from lad_eval.evidence.store import EvidenceStore
from lad_eval.methods import make_method
from lad_eval.run.condition_runs import Collector, condition_runs_of
from lad_eval.run.distributed import DistributedContext
from lad_eval.run.execute import run_tasks
from lad_eval.tasks.registry import load_task
from tests.run.conftest import TASK, only_run, settings

pytestmark = pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")


class Halves:
    """One of two processes: its share of the samples, and a file of its own."""

    def __init__(self, model, folder, task, methods):
        self.model, self.folder, self.task, self.methods = model, folder, task, methods

    def condition_runs(self):
        return condition_runs_of(self.task, self.methods, self.folder, 2)

    def collect(self, rank):
        collector = Collector(self.model, DistributedContext(rank, 2), None, shown=False)
        store = EvidenceStore(self.folder, self.model.fingerprint, task=self.task.fingerprint, rank=rank)
        with nullcontext() if rank else store:  # the main process holds the run's folder for as long as the run lasts
            for condition_run in self.condition_runs():
                collector.collect(condition_run, store)

    def finish(self):
        collector = Collector(self.model, DistributedContext(0, 2), None, shown=False)
        with EvidenceStore(self.folder, self.model.fingerprint, task=self.task.fingerprint, rank=0) as store:
            return [collector.finish(condition_run, store) for condition_run in self.condition_runs()]


def test_two_processes_join_replies_under_the_fingerprint_that_they_were_written_under(model, tmp_path):
    methods = {name: make_method(name) for name in ("vanilla", "sofa", "sofa+generate")}
    halves = Halves(model, tmp_path, load_task(TASK), methods)
    halves.collect(0)
    halves.collect(1)
    ranks = sorted(path.name for path in (tmp_path / "conditions" / "sofa").glob("replies.*"))
    assert ranks == ["replies.greedy-16.rank0.jsonl", "replies.greedy-16.rank1.jsonl"]
    plain, soft = halves.finish()
    (joined,) = (tmp_path / "conditions" / "sofa").glob("replies.*")
    contents = read_file(joined)
    header = contents.header
    assert len(contents.rows) == 4
    assert header["fingerprint"]["intervention"]["name"] == "sofa"
    (written,) = soft.replies.values()
    assert written.fingerprint == header["fingerprint"] == soft.evidence.fingerprint
    assert "intervention" not in plain.evidence.fingerprint
    alone = Collector(model, DistributedContext(), None, shown=False)
    with EvidenceStore(tmp_path, model.fingerprint, task=halves.task.fingerprint) as store:
        assert [alone.collect(condition_run, store)[0] for condition_run in halves.condition_runs()] == [0, 0], (
            "one process goes on with what two stored"
        )


def test_what_the_main_process_takes_from_a_sibling_run_no_process_runs_again(counted, model, tmp_path):
    """Of every condition, the question and the model as they are and others."""
    counted()
    run_tasks(settings(tmp_path, limit=3, methods=("vanilla", "sofa")))
    task, folder = load_task(TASK), only_run(tmp_path).with_name("0123456789abcdef")
    condition_runs = condition_runs_of(task, {name: make_method(name) for name in ("vanilla", "sofa")}, folder, 2)
    assert len(condition_runs) == 2
    for rank in (0, 1):
        asked = counted()
        collector = Collector(asked, DistributedContext(rank, 2), tmp_path, shown=False)
        store = EvidenceStore(folder, model.fingerprint, task=task.fingerprint, rank=rank)
        with nullcontext() if rank else store:
            for condition_run in condition_runs:
                if rank == 0:
                    collector.reuse(condition_run, store)
                assert collector.collect(condition_run, store)[0] == 0
        assert asked.asked == []


def test_replies_that_were_made_otherwise_are_not_joined(model, tmp_path):
    task, decoding = load_task(TASK), make_method("generate").decoding
    for rank, version in ((0, 1), (1, 2)):
        path = ReplyStore(tmp_path, decoding, {"version": version}, task=task.fingerprint, rank=rank).path
        path.parent.mkdir(parents=True, exist_ok=True)
        header = {
            "format": 1,
            "fingerprint": {"version": version},
            "task": dict(task.fingerprint),
            "decoding": decoding.document(),
        }
        path.write_text(json.dumps(header) + "\n")
    with pytest.raises(UserError, match=r"rank1\.jsonl was made under other conditions: fingerprint"):
        ReplyStore(tmp_path, decoding, {"version": 1}, task=task.fingerprint, rank=0).finish()
    assert len(list(tmp_path.glob("replies.*"))) == 2
