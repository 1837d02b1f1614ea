"""Every benchmark runs, at sizes that show nothing but that it runs; what it compares gives the same answers."""

from dataclasses import replace

import pytest

pytest.importorskip("benchmarks.models", reason="benchmarks/ is not part of the installed package")

from benchmarks import __main__ as command
from benchmarks import (
    batches,
    candidates,
    cross_image,
    evidence_pass,
    gpu,
    harness,
    memory,
    mining,
    order_invariant,
    preparing,
    probes,
    processes,
    pruning,
    replies,
    run_memory,
    servers,
    throughput,
    whole_run,
    windows,
)
from benchmarks.models import SMALL, load, requests_for
from benchmarks.released import ReleasedWay
from benchmarks.report import Table, write
from benchmarks.stages import Stages
from benchmarks.timer import Ratio, Timing, take_turns
from lad_eval.tasks.registry import load_task

pytestmark = pytest.mark.slow


def test_a_ratio_is_the_median_of_the_rounds_own_ratios():
    timing = Timing({"a": [1.0, 2.0, 10.0], "b": [2.0, 3.0, 40.0]})
    assert timing.ratio("b", "a").median == 2.0  # of 2, 1.5 and 4
    assert timing.ratio("b", "a", per=2.0).median == 1.0
    assert str(timing.ratio("b", "a")) == "2.00 (1.75-3.00)"
    assert str(Ratio([1.5])) == "1.50"


def test_variants_take_turns_after_one_untimed_round():
    calls = []
    timing = take_turns({"a": lambda n: calls.append(("a", n)), "b": lambda n: calls.append(("b", n))}, 2)
    assert calls == [("a", -1), ("b", -1), ("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert [len(seconds) for seconds in timing.seconds.values()] == [2, 2]
    take_turns({"cold": lambda n: calls.append(("cold", n))}, 1, warm=False)
    assert calls[6:] == [("cold", 0)]


def test_a_stages_time_is_without_that_of_the_stages_it_calls(monkeypatch):
    clock = iter([0.0, 1.0, 4.0, 10.0])
    monkeypatch.setattr("benchmarks.stages.now", lambda: next(clock))
    stages = Stages()
    inner = stages.timed("inner", lambda: None)
    stages.timed("outer", inner)()
    assert stages.seconds == {"inner": 3.0, "outer": 7.0}


def test_watching_leaves_everything_as_it_was():
    class Owner:
        def run(self):
            return 1

    one = Owner()
    with Stages().watching((one, "run", "here"), (Owner, "run", "there")):
        assert "run" in vars(one)
        assert one.run() == 1
    assert "run" not in vars(one)
    assert one.run() == 1


def test_tables_take_the_place_of_earlier_ones(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Before.\n\n<!-- benchmarks:one -->\nold\n<!-- /benchmarks:one -->\n\nAfter.\n")
    write(page, "one", "new \\1")
    write(page, "two", "more")
    text = page.read_text()
    assert "old" not in text
    assert text.index("Before.") < text.index("new \\1") < text.index("After.") < text.index("more")


def test_questions_about_one_seed_are_the_same_and_about_another_are_not():
    first, again, other = (requests_for(3, 2, seed=seed) for seed in (1, 1, 2))
    assert [r.key for r in first] == [r.key for r in again]
    shown = [{image.digest for request in requests for image in request.images} for requests in (first, other)]
    assert not shown[0] & shown[1]


def test_the_released_way_gives_our_answers_at_more_passes():
    task = load_task("scenes_random_n4")
    way = ReleasedWay(load("tiny", SMALL, attention="eager", batch_size=1))
    theirs = way.run(task, whole_run.METHODS, 1)
    ours = whole_run.ours(load("tiny", SMALL), task, 1)
    # A run a method: 5 orders and 20 calibration passes, or 5 x 4 shifts; ours asks 16 shifts and 20 calibration passes in all.
    assert way.passes == 5 + 25 + 25 + 5 + 25 + 20
    for name in whole_run.METHODS:
        assert theirs[name].answers.position.tolist() == ours[name].answers.position.tolist(), name


def test_the_released_way_runs_the_prompt_again_for_every_prefix():
    way = ReleasedWay(load("tiny", SMALL, attention="eager", batch_size=1))
    model = load("tiny", SMALL)
    (request,) = requests_for(10, 1, seed="prefix")
    theirs = way._look(request, attentions=True)
    ours = model.evidence([request])
    assert way.passes == 2
    assert abs(theirs.log_probs - ours.log_probs).max() < 1e-4
    assert abs(theirs.attention_delimited - ours.attention_delimited).max() < 1e-5


@pytest.mark.parametrize(
    "benchmark",
    [
        candidates,
        probes,
        order_invariant,
        batches,
        mining,
        pruning,
        cross_image,
        preparing,
        harness,
        windows,
        replies,
        servers,
        gpu,
        processes,
    ],
    ids=lambda module: module.__name__.rpartition(".")[2],
)
def test_it_runs(benchmark):
    tables = benchmark.run(SMALL)
    assert tables
    assert all(isinstance(table, Table) and table.rows and table.title in table.markdown() for table in tables)


def test_an_evidence_pass_is_compared_in_time_and_memory(monkeypatch):
    monkeypatch.setattr(evidence_pass, "extra_bytes", lambda variant, model, plan: 2.0**20)
    (table,) = evidence_pass.run(SMALL)
    assert [row[0] for row in table.rows] == list(evidence_pass.VARIANTS)


def test_memory_is_what_rises_while_it_runs():
    import torch

    assert memory.peak_above(lambda: torch.ones(64 * 2**20 // 4), "cpu") / 2**20 == pytest.approx(64, abs=16)


def test_a_variants_memory_is_measured_in_a_process_of_its_own():
    assert memory.extra_bytes(evidence_pass.EVIDENCE, "middle", SMALL, rounds=1) > 0


def test_a_runs_memory_is_measured_by_the_number_of_its_samples():
    (table,) = run_memory.run(replace(SMALL, limits=(1, 2)))
    (samples, peak, ratio), (more, _, _) = table.rows
    assert (samples, more, ratio) == (1, 2, "1.00")
    assert float(peak) > 100  # MiB: torch alone takes more
    assert not run_memory.run(replace(SMALL, device="cuda"))


def test_where_the_time_goes_adds_up(monkeypatch):
    monkeypatch.setattr(throughput, "TASKS", throughput.TASKS[:1])
    (table,) = throughput.run(SMALL)
    assert sum(float(row[1]) for row in table.rows) == pytest.approx(100, abs=1)
    assert {"decoder", "vision tower", "recorder", "store"} <= {row[0] for row in table.rows}


def test_the_command_prints_and_writes_tables(tmp_path, capsys):
    page = tmp_path / "page.md"
    command.main(["--only", "candidates", "--small", "--write", str(page)])
    told = capsys.readouterr()
    assert "time a token by N = 9" in told.out
    assert "Measured on:" in told.err
    assert "<!-- benchmarks:candidates cpu -->" in page.read_text()


def test_an_unknown_benchmark_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--only", "speed"])
    assert ended.value.code == 2
    assert "unknown benchmark 'speed'; there are evidence_pass" in capsys.readouterr().err
