"""The study of pruned visual tokens: asked once, written whole, honest about what is no ramp."""

import csv
import re

import numpy as np
import pytest
from lad_eval.report.sheet import Chart, Line, Lines, Matrix
from lad_eval.studies.pruning.collect import Shape, layers_shown
from lad_eval.studies.pruning.task import task_of

from lad_eval.attention.pruning.trend import Exponential
from lad_eval.cli.main import invoke
from lad_eval.errors import UserError
from lad_eval.report.charts import draw
from lad_eval.studies.pruning.conditions import method_names, parse_keeps
from lad_eval.studies.pruning.figures import middle
from lad_eval.studies.pruning.tables import cache_ratio, ramp, reported_sheet


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    base = tmp_path_factory.mktemp("pruning")
    arguments = ["study", "pruning", "--model", "lad-tiny", "--limit", "2", "--keep", "1.0,0.25"]
    arguments += ["--runs", str(base / "runs"), "--out", str(base / "made"), "-q"]
    assert invoke(arguments) == 0
    return base, arguments


def test_everything_is_written(made):
    folder = made[0] / "made" / "lad-tiny"
    text = (folder / "pruning.md").read_text()
    assert re.findall(r"^## (\w+)", text, flags=re.M) == ["Accuracy", "Bias", "Cost"]
    assert "Only the first 2 samples were asked." in text
    assert "there is no ramp (R2 0.0" in text
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
        assert [row["Visual tokens"] for row in csv.DictReader(file)] == ["64", "64", "16"]
    for chart in ("accuracy", "index", "heat"):
        assert (folder / "figures" / f"{chart}.pdf").read_bytes().startswith(b"%PDF")
    html = (folder / "report.html").read_text()
    assert "<h1>Pruning the visual tokens of lad-tiny on scenes_adversarial_n4</h1>" in html
    assert html.count('<img src="data:image/svg') == 3 + 2 + 4
    assert not re.search(r'(src|href)="(?!data:|#|https://arxiv\.org)', html)
    assert "Logit-Attention Divergence" not in html


def test_a_second_run_asks_nothing(made, capsys):
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
    assert ", 0 of them asked now" in log
    assert "is calibrated on" not in log


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


def test_shares_are_sorted_and_asked_once():
    assert parse_keeps("0, .25,1.0,0.250") == (1.0, 0.25, 0.0)
    names = method_names((1.0, 0.25, 0.0))
    assert len(names) == len(set(names)) == 3 * (1 + 1 + 4 + 1)
    assert names[3:6] == ["fastv(keep=1.0)", "fastv(keep=1.0)+pride", "fastv(keep=1.0)+lad"]
    assert "fastv(keep=0.25, trend=exp)+lad" in names
    assert middle((0.5, 0.3, 0.125)) == 0.3


def test_the_task_is_calibrated_on_enough_for_a_trend():
    for name, samples in [("scenes_adversarial_n4", 25), ("scenes_random_n8", 13)]:
        task = task_of(name)
        assert task.spec.calibration.samples == samples
        assert len(list(task.samples("calibration"))) >= samples
    with pytest.raises(UserError, match="Unknown task"):
        task_of("scenes_of_nothing")


def test_the_cache_by_hand():
    shape = Shape(tokens=100, layers=4)
    assert cache_ratio(shape, visual=80, tokens=80) == 1
    assert cache_ratio(shape, visual=80, tokens=20) == pytest.approx((2 * 100 + 2 * 40) / 400)
    assert cache_ratio(shape, visual=80, tokens=0) == pytest.approx((2 * 100 + 2 * 20) / 400)


def test_below_r2_there_is_no_ramp():
    assert [ramp(Exponential(1, sigma, r2)) for sigma, r2 in [(2, 0.09), (2, 0.1), (-2, 0.5)]] == [
        "no ramp", "late tokens", "early tokens",
    ]  # fmt: skip


def test_of_many_layers_some_are_measured():
    assert layers_shown(4) == [1, 2, 3]
    assert layers_shown(32) == [1, 2, 5, 10, 14, 18, 22, 27, 31]


def test_the_papers_table_is_of_its_model_only():
    assert reported_sheet("Qwen2.5-VL-7B-Instruct") is None
    (table,) = reported_sheet("llava-1.5-7b-hf").tables
    assert table.rows[0] == ("FastV", 59.6, 62.5, pytest.approx(2.9))


def test_charts_of_many_tokens():
    index = np.arange(64.0)
    lines = Lines("l", (Line("a", index, index),), "x", "y", top=70.0)
    cells = Matrix("m", np.eye(8), "x", "y", (), high=1.0)
    for panel in (lines, cells):
        picture = draw(Chart("c", "t", (panel,), "alt"), "svg").decode()
        assert picture == draw(Chart("c", "t", (panel,), "alt"), "svg").decode()
        assert ">0.0</text>" not in picture
        assert ">63</text>" not in picture
