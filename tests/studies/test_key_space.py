"""The study of the key space: written whole, the control in every table, nothing captured twice."""

from __future__ import annotations

import csv
import importlib.util
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from lad_eval.attention.keys import LINKS
from lad_eval.cli.main import invoke
from lad_eval.errors import UserError
from lad_eval.report.charts import draw
from lad_eval.report.panels import Chart, Points, ScatterPlot
from lad_eval.studies.key_space import collect, measurements
from lad_eval.studies.key_space.capture import Captured
from lad_eval.studies.key_space.measure import measure_gap, measure_heads, measure_histogram, measure_link, measure_map, spearman
from lad_eval.studies.key_space.tokens import QUESTION, TEMPLATE, VISUAL

LAYERS = (0, 3)


def captured(shift=0.0, samples=12, seed=0, rotated_only=False):
    """Keys of visual and text tokens that differ by `shift`, and scores that fall with it."""
    chance = np.random.default_rng(seed)
    kind = np.tile([VISUAL] * 6 + [QUESTION] * 4 + [TEMPLATE] * 2, samples)
    sample = np.repeat(np.arange(samples), 12)
    ahead = np.tile([False] * 10 + [True, False], samples)
    keys = {}
    for layer in LAYERS:
        for stage in ("rotated",) if rotated_only else ("unrotated", "rotated"):
            moved = shift * (kind == VISUAL)[:, None]
            keys[f"{layer}/{stage}"] = (chance.normal(size=(len(kind), 8)) + moved).astype(np.float16)
        keys[f"{layer}/scores"] = (chance.normal(size=len(kind)) - 3 * (kind == VISUAL)).astype(np.float32)
    links = np.ones((samples, 2, len(LINKS), 2))
    links[:, :, LINKS.index("score"), 0] = -2
    links[:, :, LINKS.index("attention"), 0] = 0.25 / 40
    links[:, :, LINKS.index("attention"), 1] = 2 / 40
    stages = dict.fromkeys(LAYERS, "none" if rotated_only else "projected")
    return Captured(LAYERS, stages, sample, kind, ahead, links, np.full(samples, 40), np.array([2, 2]), keys)


def test_a_planted_gap_is_measured_and_none_is_not():
    near, far = (measure_gap(captured(shift), 0, "rotated", 0, captured(shift, seed=1)) for shift in (0.0, 3.0))
    assert abs(near.mmd2) < 0.02 < 0.2 < far.mmd2
    assert far.p < 0.002 < 0.01 < near.p
    assert far.auc == pytest.approx(1, abs=0.01)
    assert 0.3 < near.auc < 0.7
    assert far.js_weighted > near.js_weighted + 0.2
    for gap in (near, far):
        assert abs(gap.image.mmd2.mean) < 0.05
        assert abs(gap.text.mmd2.mean) < 0.05
        assert abs(gap.image_elsewhere) < 0.05
        assert abs(gap.text_elsewhere) < 0.05
        assert gap.dimensions == 8
    for other in (far.question, far.template, far.ahead):
        assert other > 0.2
    moved = measure_gap(captured(0.0), 0, "rotated", 0, captured(3.0, seed=1))
    assert moved.image_elsewhere > 0.2
    assert abs(moved.text_elsewhere) < 0.1
    assert math.isnan(measure_gap(captured(0.0), 0, "rotated", 0).image_elsewhere)


def test_links_by_hand():
    link = measure_link(captured(), 3)
    assert link.score == (-2, 1)
    assert (link.difference, link.difference_low, link.difference_high) == (-3, -3, -3)
    assert link.attention == (pytest.approx(0.25), pytest.approx(2))
    missing = captured()
    missing.links[0, :, :, 1] = np.nan
    assert measure_link(missing, 0).score == (-2, 1)


def test_ranks_by_hand():
    assert spearman(np.array([1.0, 2, 3, np.nan]), np.array([9.0, 5, 1, 0])) == -1
    assert math.isnan(spearman(np.array([1.0, 1, 1]), np.array([1.0, 2, 3])))
    assert math.isnan(spearman(np.array([1.0, 2]), np.array([1.0, 2])))


def test_the_histogram_counts_every_token():
    made = measure_histogram(captured(), 0, bins=10)
    centres, visual, text = (np.asarray(values) for values in (made.centres, made.visual, made.text))
    assert visual.sum() == pytest.approx(100)
    assert text.sum() == pytest.approx(100)
    assert (centres * visual).sum() / 100 < -2 < -0.5 < (centres * text).sum() / 100


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    base = tmp_path_factory.mktemp("key-space")
    arguments = ["study", "key-space", "--model", "lad-tiny", "--tasks", "scenes_adversarial_n4", "--layers", "0,7"]
    arguments += ["--limit", "4", "--points", "8", "--heads", "each", "--out", str(base), "-q"]
    assert invoke(arguments) == 0
    return base / "lad-tiny", arguments


@pytest.mark.slow
def test_everything_is_written_with_the_control_in_every_table(made):
    folder, _ = made
    text = (folder / "key-space.md").read_text()
    assert re.findall(r"^## (\w+)", text, flags=re.M) == ["Gap", "Controls", "Link", "Map"]
    assert "4 samples, of each at most 64 visual tokens and 64 of text without special tokens" in text
    tables = sorted(path.stem for path in (folder / "tables").glob("*.csv"))
    assert tables == ["controls-1", "controls-2", "gap-1", "gap-2", "gap-3", "gap-4", "gap-5", "link-1", "link-2"]
    for name in tables:
        with (folder / f"tables/{name}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [(row["Layer"], row["Weights"]) for row in rows] == [
            ("0", "model"), ("0", "random weights"), ("7", "model"), ("7", "random weights"),
        ]  # fmt: skip
    for chart in ("gap", "scores-model", "scores-random-weights", "map-model", "map-random-weights"):
        assert (folder / "figures" / f"{chart}.pdf").read_bytes().startswith(b"%PDF")
        assert (folder / "figures" / f"{chart}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (folder / "figures" / f"{chart}.svg").read_bytes()
    html = (folder / "report.html").read_text()
    assert "<h1>Keys of visual and of text tokens in lad-tiny on scenes_adversarial_n4</h1>" in html
    assert html.count('<img src="data:image/svg') == 2 + 4 + 4
    assert not re.search(r'(src|href)="(?!data:|#|https://arxiv\.org)', html)
    assert 'name="viewport"' in html


def refused(*_, **__):
    raise AssertionError("this was done before, or needs no model")


@pytest.mark.slow
def test_a_second_run_measures_nothing_and_says_the_same(made, monkeypatch):
    folder, arguments = made
    assert len(list(folder.rglob("shard-*.safetensors"))) == 2
    before = {path.name: path.read_bytes() for path in (folder / "tables").iterdir()}
    for name in ("measure_gap", "measure_heads", "measure_histogram", "measure_link", "measure_map"):
        monkeypatch.setattr(measurements, name, refused)
    monkeypatch.setattr(collect, "capture", refused)
    assert invoke([*arguments, "--points", "0"]) == 0
    assert {path.name: path.read_bytes() for path in (folder / "tables").iterdir()} == before
    assert "Not shown: t-SNE" in (folder / "key-space.md").read_text()


@pytest.mark.slow
def test_stored_measurements_make_the_page_without_a_model(made, monkeypatch, capsys):
    folder, arguments = made
    before = {path.name: path.read_bytes() for path in (folder / "tables").iterdir()}
    monkeypatch.setattr(collect, "load", refused)
    monkeypatch.setattr(collect, "capture", refused)
    assert invoke([*arguments, "--stored"]) == 0
    assert {path.name: path.read_bytes() for path in (folder / "tables").iterdir()} == before
    for options, message in [
        (["--limit", "5"], "No measurements of lad-tiny on scenes_adversarial_n4 with these samples, layers and seed in "),
        (["--points", "9"], "lacks 4 of the 24 measurements that this page shows, e.g. 0-map-9; run without --stored."),
    ]:
        assert invoke([*arguments, "--stored", *options]) == 2
        assert message in capsys.readouterr().err
    (place,) = (folder / "measured").iterdir()
    path = place / "model/0-link.json"
    content = path.read_text()
    path.write_text(content.replace('"norm"', '"form"'))
    assert invoke([*arguments, "--stored"]) == 2
    message = "it is damaged or was changed. Delete it and run without --stored, and it is measured again."
    assert message in capsys.readouterr().err
    path.write_text(content)
    second = folder / "measured/another"
    second.mkdir()
    (second / "study.json").write_text((place / "study.json").read_text())
    assert invoke([*arguments, "--stored"]) == 2
    assert "Several measurements of lad-tiny on scenes_adversarial_n4 could be meant" in capsys.readouterr().err
    (second / "study.json").unlink()
    second.rmdir()


def test_measurements_are_read_as_they_were_written(tmp_path):
    keys, wanted = captured(), measurements.entries({0: "projected"}, 5, heads=True, seed=0)
    values = [entry.measure(keys, None) for entry in wanted]
    assert math.isnan(values[0].image_elsewhere)
    assert len(measurements.missing(tmp_path, "random weights", wanted)) == len(wanted) == 6
    for entry, value in zip(wanted, values, strict=True):
        measurements.store(tmp_path, "random weights", entry, value)
    assert not measurements.missing(tmp_path, "random weights", wanted)
    made = measurements.read(tmp_path, "random weights", wanted)
    assert repr(made) == repr(measurements.Measured.of("random weights", values))
    path = measurements.path_of(tmp_path, "random weights", wanted[0])
    path.write_text('{"layer": 0}')
    with pytest.raises(UserError, match=r"it does not hold what it should\. Delete it and run without --stored"):
        measurements.read(tmp_path, "random weights", wanted)


def test_a_killed_call_goes_on(tmp_path, monkeypatch):
    wanted = measurements.entries({0: "projected", 3: "projected"}, 0, heads=False, seed=0)
    done = []

    def killed(keys, layer):
        if not done:
            raise KeyboardInterrupt
        return measure_link(keys, layer)

    monkeypatch.setattr(measurements, "measure_link", killed)
    with pytest.raises(KeyboardInterrupt):
        collect._measure(tmp_path, "model", wanted, [captured()], shown=False)
    rest = measurements.missing(tmp_path, "model", wanted)
    assert [entry.name for entry in rest] == [
        "0-link", "0-scores", "3-gap-unrotated", "3-gap-rotated", "3-link", "3-scores",
    ]  # fmt: skip
    done.append(True)
    collect._measure(tmp_path, "model", rest, [captured()], shown=False)
    assert not measurements.missing(tmp_path, "model", wanted)


def test_each_head_is_measured_alone():
    keys = captured()
    moved = keys._tensors["0/rotated"].copy()
    moved[keys.visual, :4] += 3  # the first of two heads
    first, second = measure_heads(replace(keys, _tensors={**keys._tensors, "0/rotated": moved}), 0, 0).mmd2
    assert abs(second) < 0.05 < 0.2 < first


def test_a_map_has_as_many_points_as_wanted():
    made = measure_map(captured(), 0, "rotated", 5, 0)
    assert made.visual == (True,) * 5 + (False,) * 5
    assert np.isfinite(made.points).all()
    assert np.shape(made.points) == (10, 2)
    assert made == measure_map(captured(), 0, "rotated", 5, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "3"], "compares halves of the samples: it needs at least 4; raise --limit."),
        (["--tasks", "scenes_of_nothing"], "Unknown task 'scenes_of_nothing'"),
        (["--tasks", "scenes_main"], "measures one task and takes one other as a control; "),
        (["--limit", "4", "--layers", "8"], "layers that attend, separated by commas; '8' is not one of 0 to 7."),
    ],
)  # fmt: skip
def test_what_cannot_be_studied(options, message, tmp_path, capsys):
    assert invoke(["study", "key-space", "--model", "lad-tiny", "-q", "--out", str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err


def test_without_scikit_learn_one_line_says_so(monkeypatch):
    original = importlib.util.find_spec
    monkeypatch.setattr(collect, "find_spec", lambda name: None if name == "sklearn" else original(name))
    with pytest.raises(UserError, match=r"needs scikit-learn, which is not installed: `.*pip install .*\[studies\]'?`"):
        collect.check_installed()


def test_a_scatter_plot_is_one_picture_in_the_file():
    points = np.random.default_rng(0).normal(size=(300, 2))
    plot = ScatterPlot("layer 0", (Points("visual", *points[:150].T), Points("text", *points[150:].T)))
    picture = draw(Chart("c", "t", (plot,), "alt"), "svg").decode()
    assert picture.count("<image") == 1
    assert picture.count("<use") < 50
    assert picture == draw(Chart("c", "t", (plot,), "alt"), "svg").decode()
