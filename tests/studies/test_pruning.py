"""The study of pruned visual tokens: run once, written whole, honest about what is no ramp."""

import csv
import re

import numpy as np
import pytest

from lad_eval.attention.pruning.fastv import FastV
from lad_eval.attention.pruning.himap import HiMAP
from lad_eval.attention.pruning.trend import Exponential
from lad_eval.cli.main import invoke
from lad_eval.files.documents import read_json, write_json
from lad_eval.report.charts import draw
from lad_eval.report.panels import Chart, HeatMap, LinePlot, Series
from lad_eval.run.execute import Settings
from lad_eval.studies.document import StudyDocument
from lad_eval.studies.pruning.conditions import method_names, parse_keeps, parse_pruners
from lad_eval.studies.pruning.data import read_data
from lad_eval.studies.pruning.measurements import PruningCost, calibration_requests, measured_layers
from lad_eval.studies.pruning.reported import reported_document
from lad_eval.studies.pruning.tables import cost_document, named_after, ramp
from lad_eval.studies.requirement import Requirement
from lad_eval.studies.runs import stored_runs
from lad_eval.tasks.registry import load_task

KEEPS = (1.0, 0.25)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    base = tmp_path_factory.mktemp("pruning")
    arguments = ["study", "pruning", "--model", "lad-tiny", "--limit", "2", "--keep", "1.0,0.25"]
    arguments += ["--runs", str(base / "runs"), "--out", str(base / "made"), "-q"]
    assert invoke(arguments) == 0
    return base, arguments


@pytest.mark.slow
def test_everything_is_written(made):
    folder = made[0] / "made" / "lad-tiny"
    text = (folder / "pruning.md").read_text()
    assert re.findall(r"^## (\w+)", text, flags=re.M) == ["Accuracy", "Bias", "Cost"]
    assert "Only the first 2 samples of each task were evaluated." in text
    assert re.search(r"late tokens are preferred \(sigma [01]\.\d\d, R2 0\.\d\d\)", text)
    with (folder / "tables/accuracy-3.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["Kept"], row["Ranked by"]) for row in rows] == [
        ("unpruned", ""),
        ("100 %", "any"),
        ("25 %", "attention"),
        ("25 %", "attention / mean"),
        ("25 %", "attention / exponential"),
        ("25 %", "random"),
    ]
    # All tokens kept is the unpruned model.
    assert rows[0]["Accuracy"] == rows[1]["Accuracy"]
    assert all(rows[place]["Δ accuracy"] for place in (3, 4, 5))
    assert not rows[2]["Δ accuracy"]
    with (folder / "tables/bias-1.csv").open() as file:
        assert [row["Pruned before layer"] for row in csv.DictReader(file)] == list("1234567")
    with (folder / "tables/cost.csv").open() as file:
        unpruned, whole, quarter = csv.DictReader(file)
    # 64 visual tokens, of which 16 stay.
    assert int(unpruned["Tokens in last layer"]) - int(quarter["Tokens in last layer"]) == 48
    assert whole["Tokens in last layer"] == unpruned["Tokens in last layer"]
    for column in ("FLOPs", "KV cache"):
        assert float(unpruned[column]) == float(whole[column]) == 1 > float(quarter[column]) > 0.25
    for chart in ("accuracy", "index", "layers", "heat"):
        assert (folder / "figures" / f"{chart}.pdf").read_bytes().startswith(b"%PDF")
    html = (folder / "report.html").read_text()
    assert "<h1>Pruning the visual tokens of lad-tiny on scenes_adversarial_n4</h1>" in html
    assert html.count('<img src="data:image/svg') == 3 + 2 + 7 + 4
    assert not re.search(r'(src|href)="(?!data:|#|https://arxiv\.org)', html)
    assert "Logit-Attention Divergence" not in html


@pytest.mark.slow
def test_a_second_run_evaluates_nothing(made, capsys):
    base, arguments = made
    evidence = sorted(base.rglob("evidence.parquet"))
    learned = sorted(base.rglob("learned.*.safetensors"))
    page = base / "made/lad-tiny/pruning.md"
    before = page.read_text(), {path: path.read_bytes() for path in [*evidence, *learned]}
    assert len(evidence) == 6
    assert len(learned) == 2 + 7
    assert invoke(arguments[:-1]) == 0
    assert (page.read_text(), {path: path.read_bytes() for path in before[1]}) == before
    log = capsys.readouterr().err
    assert ": no request run, " in log
    assert "is calibrated on" not in log


@pytest.mark.slow
def test_stored_runs_give_the_same_without_a_model(made, capsys, monkeypatch):
    base, arguments = made
    page = base / "made/lad-tiny/pruning.md"
    before = page.read_text()
    page.unlink()
    monkeypatch.setattr("lad_eval.studies.runs.load", lambda settings: pytest.fail("a model was loaded"))
    assert invoke([*arguments, "--stored"]) == 0
    assert page.read_text() == before
    # Measurements that are not in the folder are named, and nothing else is lost.
    assert invoke([*arguments, "--stored", "--out", str(base / "elsewhere")]) == 0
    err = capsys.readouterr().err
    assert "bias: not shown: the trend of each layer's attention is measured on the model: run without --stored." in err
    assert "cost: not shown: time, FLOPs and memory are measured on the model: run without --stored." in err
    text = (base / "elsewhere/lad-tiny/pruning.md").read_text()
    accuracy = re.compile(r"## Accuracy.*?(?=## Bias)", re.DOTALL)
    assert accuracy.search(text)[0] == accuracy.search(before)[0]


@pytest.mark.slow
def test_what_is_not_stored_is_named(made, capsys):
    arguments = [argument.replace("1.0,0.25", "1.0,0.5") for argument in made[1]]
    assert invoke([*arguments, "--stored"]) == 2
    assert capsys.readouterr().err == (
        "error: The study cannot be made from stored runs: there is no finished run of scenes_adversarial_n4; "
        "run without --stored.\n"
    )


def read(base):
    """The data of the fixture's study."""
    settings = Settings("lad-tiny", limit=2, out=base / "runs", quiet=True, study="pruning")
    requirement = Requirement("scenes_adversarial_n4", tuple(method_names([FastV()], KEEPS)))
    runs = stored_runs([requirement], settings)
    return read_data(runs, requirement, [FastV()], KEEPS, settings, base / "made/lad-tiny")


def test_several_pruners_have_documents_of_their_own():
    chart = Chart("index", "t", (), "alt")
    document = named_after(StudyDocument("bias", "The bias", charts=(chart,)), "fastv(layer=3)")
    assert (document.name, document.label, document.title) == ("bias-fastv-layer-3", "Bias", "The bias (fastv(layer=3))")
    assert document.charts[0].name == "index-fastv-layer-3"
    costs = [PruningCost(None, None, 85, 0.1, 1.0, 1.0, 1.0)]
    costs += [PruningCost(name, 0.25, 37, 0.05, 0.5, 0.5, 0.6) for name in ("fastv", "fastv(layer=3)")]
    (table,) = cost_document(costs).tables
    assert [row[:2] for row in table.rows] == [("unpruned", ""), ("25 %", "fastv"), ("25 %", "fastv(layer=3)")]


@pytest.mark.slow
def test_the_papers_figures_are_next_to_ours_for_its_model_only(made):
    (one,) = read(made[0]).pruners
    assert reported_document("Qwen2.5-VL-7B-Instruct", [one]) is None
    accuracy, sigma = reported_document("llava-1.5-7b-hf", [one]).tables
    rows = {row[0]: row for row in accuracy.rows}
    assert rows["FastV"][1:3] == (59.6, 62.5)
    assert rows["FastV"][3].value == pytest.approx(2.9)
    summaries = one.summaries("vanilla")
    ours = {condition.ranking: summary.accuracy for condition, summary in summaries.items() if condition.keep == 0.25}
    assert rows["FastV"][4:] == (ours["none"], ours["exp"], ours["exp"] - ours["none"])
    assert rows["HiMAP"][4:] == (None,) * 3
    assert (sigma.rows[0][1].value, sigma.rows[1][1].value) == (0.91, 2.56)
    assert sigma.rows[0][2].value == one.layers[2].strengths["attention"].sigma


@pytest.mark.slow
def test_costs_of_another_task_are_measured_again(made):
    data = read(made[0])
    path = made[0] / "made/lad-tiny/costs.json"
    stored = read_json(path)
    other = made[0] / "other"
    other.mkdir()
    stored["facts"]["task"] = "another"
    write_json(other / "costs.json", stored)
    settings = Settings("lad-tiny", limit=2, out=made[0] / "runs", quiet=True)
    requirement = Requirement("scenes_adversarial_n4", tuple(method_names([FastV()], KEEPS)))
    elsewhere = read_data(stored_runs([requirement], settings), requirement, [FastV()], KEEPS, settings, other)
    assert len(data.costs) == 3
    assert elsewhere.costs == ()


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ("half", "error: --keep takes shares of the visual tokens from 0 to 1.0, such as 1.0,0.25,0, not 'half'.\n"),
        ("0.25,-0.5", "error: --keep takes shares of the visual tokens from 0 to 1.0, such as 1.0,0.25,0, not '-0.5'.\n"),
        ("0.25,1.5", "error: --keep takes shares of the visual tokens from 0 to 1.0, such as 1.0,0.25,0, not '1.5'.\n"),
        ("1", "error: --keep takes shares of the visual tokens from 0 to 1.0, such as 1.0,0.25,0, not '1' (1.0 for all).\n"),
        ("", "error: --keep takes shares of the visual tokens from 0 to 1.0, such as 1.0,0.25,0, not ''.\n"),
        (
            "1.0,0",
            "error: --keep needs a share between 0 and 1.0, such as 0.25: of all tokens or none there is nothing to choose.\n",
        ),
    ],
)
def test_wrong_shares(keep, message, capsys):
    assert invoke(["study", "pruning", "--model", "lad-tiny", f"--keep={keep}"]) == 2
    assert capsys.readouterr().err == message


def test_shares_are_sorted_and_run_once():
    assert parse_keeps("0, .25,1.0,0.250") == (1.0, 0.25, 0.0)
    names = method_names([FastV()], (1.0, 0.25, 0.0))
    assert len(names) == len(set(names)) == 3 * (1 + 1 + 4 + 1)
    assert names[3:6] == ["fastv(keep=1.0)", "fastv(keep=1.0)+pride", "fastv(keep=1.0)+lad"]
    assert "fastv(keep=0.25, trend=exp)+lad" in names
    both = method_names([FastV(), HiMAP(layer=3)], (0.25,))
    assert len(both) == len(set(both)) == 3 * (1 + 4 + 4)  # the unpruned model once
    assert "himap(keep=0.25, layer=3, trend=mean)+pride" in both
    assert "random-tokens(keep=0.25, layer=3)" in both


def test_pruners_by_name():
    first, second = parse_pruners("fastv, sparsevlm(merge=false, layer=4),fastv")
    assert first == FastV()
    assert second.label == "sparsevlm(layer=4, merge=False)"


@pytest.mark.parametrize(
    ("pruner", "message"),
    [
        ("fastvv", "Unknown intervention 'fastvv'. Did you mean 'fastv'?"),
        (
            "random-tokens",
            "--pruner takes pruners that rank tokens by attention (fastv, pyramiddrop, sparsevlm, sparsevlm-plus, himap, ",
        ),
        ("sofa", "--pruner takes pruners that rank tokens by attention "),
        ("fastv+lad", "--pruner takes pruners that rank tokens by attention "),
        (
            "fastv(keep=0.5, trend=exp)",
            "--pruner fastv(keep=0.5, trend=exp): the study itself sets keep and trend; leave it out.",
        ),
        ("fastv(layer=0)", "layer of fastv must be a whole number of at least 1"),
        (" ,", "--pruner names none; fastv is the default."),
    ],
)
def test_wrong_pruners(pruner, message, capsys):
    assert invoke(["study", "pruning", "--model", "lad-tiny", "--pruner", pruner]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_trends_of_layers_are_fitted_to_as_many_requests_as_a_runs():
    for name, samples in [("scenes_adversarial_n4", 25), ("scenes_random_n8", 13)]:
        task = load_task(name)
        requests = calibration_requests(task, 2, FastV())
        assert len({request.sample_id for request in requests}) == samples
        assert len(requests) == samples * task.candidates


def test_below_r2_there_is_no_ramp():
    assert [ramp(Exponential(1, sigma, r2)) for sigma, r2 in [(2, 0.09), (2, 0.1), (-2, 0.5)]] == [
        "no ramp", "late tokens", "early tokens",
    ]  # fmt: skip


def test_of_many_layers_some_are_measured():
    assert measured_layers(1, 4, 2) == [1, 2, 3]
    assert measured_layers(1, 32, 2) == [1, 2, 5, 10, 14, 18, 22, 27, 31]
    assert measured_layers(4, 8, 5) == [4, 5, 6, 7]  # the first layers of a hybrid do not attend


def test_flops_that_cannot_be_counted_are_said_to_be_missing():
    costs = [PruningCost(None, None, 85, 0.1, 1.0, None, 1.0), PruningCost("fastv", 0.25, 37, 0.05, 0.5, None, 0.6)]
    (table,) = cost_document(costs).tables
    assert [row[4].text for row in table.rows] == ["–", "–"]
    assert table.notes[-1].startswith("FLOPs are not counted for decoders with experts")


def test_charts_of_many_tokens():
    index = np.arange(64.0)
    lines = LinePlot("l", (Series("a", index, index),), "x", "y", top=70.0)
    cells = HeatMap("m", np.eye(8), "x", "y", (), high=1.0)
    for panel in (lines, cells):
        picture = draw(Chart("c", "t", (panel,), "alt"), "svg").decode()
        assert picture == draw(Chart("c", "t", (panel,), "alt"), "svg").decode()
        assert ">0.0</text>" not in picture
        assert ">63</text>" not in picture
