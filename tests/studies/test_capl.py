"""The study of attention between images: run once, written whole, equal to weights that eager attention returns."""

import csv
import re
import shutil

import numpy as np
import pytest

from lad_eval.attention.cross_image.capl import Capl
from lad_eval.attention.hooks import around_attention
from lad_eval.cli.main import invoke
from lad_eval.errors import UnknownNameError, UserError
from lad_eval.metrics import Predictions
from lad_eval.models.registry import load_model
from lad_eval.studies.capl.between import record_between
from lad_eval.studies.capl.conditions import StudyConditions, parse_fused, parse_rival
from lad_eval.studies.capl.data import TaskData, positions_chosen
from lad_eval.studies.capl.reported import REPORTED, reported_document, reported_model
from lad_eval.studies.capl.run import between_document
from lad_eval.studies.capl.tables import directions, needs_table, shown_layers
from tests.models.adapter_files import save_noise_adapter
from tests.models.requests import make_requests

MODEL = "random:qwen2.5-vl"
FUSED = "capl(rho=0.9)"
ROWS = ["base", "fused", "truncated", "delimiter-scaling(layers=2)"]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return save_noise_adapter(tmp_path_factory.mktemp("adapters") / "noise", MODEL, Capl(rho=0.9).facts)


@pytest.fixture(scope="module")
def made(adapter, tmp_path_factory):
    base = tmp_path_factory.mktemp("capl")
    arguments = ["study", "capl", "--model", MODEL, "--limit", "2", "--rival", "delimiter-scaling(layers=2)"]
    arguments += ["--runs", str(base / "runs"), "--out", str(base / "made"), "-q"]
    assert invoke([*arguments, "--adapter", str(adapter)]) == 0
    return base, arguments


def folder_of(base):
    (folder,) = (base / "made").iterdir()
    return folder


def read_table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_everything_is_written(made):
    folder = folder_of(made[0])
    text = (folder / "capl.md").read_text()
    assert re.findall(r"^## (\w+)", text, flags=re.M) == ["Accuracy", "Needs", "Positions", "Between"]
    assert f"Fused: {FUSED}." in text, "the attention that the adapter was trained under"
    assert "Only the first 2 samples of each task were evaluated." in text
    rows = read_table(folder / "tables/accuracy-1.csv")
    trained = ["trained", *(f"trained, {name}" for name in ROWS[1:])]
    assert [row[""] for row in rows] == [*ROWS, *trained]
    assert not rows[0]["Δ accuracy"]
    assert all(row["Δ accuracy"] and row["p (Holm)"] for row in rows[1:])
    assert any(float(row["Other answers"]) > 0 for row in rows[1:])
    pairs = read_table(folder / "tables/accuracy-2.csv")
    assert [(row[""], row["Minus"]) for row in pairs] == list(zip(trained, ROWS, strict=True))
    needs = read_table(folder / "tables/needs.csv")
    assert [row["Images are seen"] for row in needs] == ["fused", "base", "trained, fused", "trained"]
    for row in read_table(folder / "tables/positions.csv"):
        assert sum(float(row[str(position)]) for position in range(1, 6)) == pytest.approx(100)
    for chart in ("positions-scenes_relations_n5", "between-layers", "between-base", "between-trained-fused"):
        assert (folder / "figures" / f"{chart}.pdf").read_bytes().startswith(b"%PDF")
    html = (folder / "report.html").read_text()
    assert html.count('<img src="data:image/svg') == 2 + 2 + 4 * 3
    assert not re.search(r'(src|href)="(?!data:|#|https://arxiv\.org)', html)


@pytest.mark.slow
def test_later_images_are_seen_under_fused_attention_only(made):
    rows = read_table(folder_of(made[0]) / "tables/between.csv")
    later = {(int(row["Layer"]), row[""]): float(row["Later images"]) for row in rows}
    assert {name for _, name in later} == {"base", "fused", "trained", "trained, fused"}
    for (layer, name), share in later.items():
        assert (share > 1) == (layer % 2 == 0 and name.endswith("fused")), (layer, name)


@pytest.mark.slow
def test_a_second_run_evaluates_nothing_and_stored_runs_need_no_model(made, adapter, capsys, monkeypatch):
    base, arguments = made
    page = folder_of(base) / "capl.md"
    before = page.read_text()
    evidence = {path: path.read_bytes() for path in base.rglob("evidence.parquet")}
    assert len(evidence) == 2 * 4
    # An adapter's folder as the model is the base with the adapter.
    assert invoke([*arguments[:-1], "--model", str(adapter)]) == 0
    assert {path: path.read_bytes() for path in base.rglob("evidence.parquet")} == evidence
    assert page.read_text() == before
    assert ": no request run, " in capsys.readouterr().err
    page.unlink()
    monkeypatch.setattr("lad_eval.studies.runs.load", lambda settings: pytest.fail("a model was loaded"))
    assert invoke([*arguments, "--adapter", str(adapter), "--stored"]) == 0
    assert page.read_text() == before
    assert invoke([*arguments, "--stored", "--tasks", "scenes_random_n2"]) == 2
    assert "there is no finished run of scenes_random_n2; run without --stored." in capsys.readouterr().err


def test_a_folder_with_a_base_and_its_adapter_is_refused(adapter, tmp_path, capsys):
    from lad_eval.models.tiny import folder

    both = shutil.copytree(folder(), tmp_path / "both")
    shutil.copytree(adapter, both, dirs_exist_ok=True)
    assert invoke(["study", "capl", "--model", str(both), "--out", str(tmp_path / "made"), "-q"]) == 2
    assert "name the base with --model and the adapter's own folder with --adapter." in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_a_rival_that_the_model_does_not_take_ends_the_study_before_its_runs(tmp_path, capsys):
    arguments = ["study", "capl", "--model", "random:llava-1.5", "--limit", "1", "--runs", str(tmp_path / "runs")]
    assert invoke([*arguments, "--out", str(tmp_path / "made"), "-q"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "The rival delimiter-scaling cannot be run: " in line
    assert line.endswith("Name another with --rival, or none.")
    assert not list(tmp_path.rglob("evidence.*"))


@pytest.mark.parametrize("family", ["qwen2.5-vl", "gemma3", "idefics3"])
@pytest.mark.parametrize("fused", [None, Capl(rho=0.5, weight=0.3)], ids=["plain", "fused"])
def test_attention_between_images_is_that_of_eager_attention(family, fused):
    model = load_model(f"random:{family}", attn_implementation="eager", batch_size=2, device="cpu")
    requests = make_requests(3, 2, size=(56, 56))
    compared = []

    def read(layout, run):
        weights = {}

        def keep(call, run_attention):
            output, made = run_attention(call.query, call.mask)
            weights[call.layer] = made.mean(dim=1)
            return output, made

        with around_attention(model.model, keep), record_between(model.model, layout.spans, fused) as shares:
            if fused is None:
                run()
            else:
                with fused.applied(model.model, layout):
                    run()
        owner = layout.spans.owner
        for layer, of_layer in weights.items():
            for row in range(len(owner)):
                for i in range(3):
                    for j in range(3):
                        part = of_layer[row][owner[row] == i][:, owner[row] == j]
                        compared.append((float(part.sum(dim=1).mean()), float(shares[layer][row, i, j]), i < j))

    list(model.read_prompts(requests, read))
    ours, recorded, later = map(np.asarray, zip(*compared, strict=True))
    np.testing.assert_allclose(recorded, ours, atol=1e-5)
    assert (recorded[later].max() > 0.01) == (fused is not None)


def test_directions_are_means_over_images():
    matrix = np.asarray([[0.5, 0.1, 0.2], [0.3, 0.4, 0.0], [0.1, 0.2, 0.6]])
    assert directions(matrix) == pytest.approx((1.5 / 3, 0.6 / 3, 0.3 / 3))


def test_of_a_deep_model_fused_layers_are_shown():
    assert shown_layers(range(8), range(0, 8, 2)) == list(range(8))
    assert shown_layers(range(28), range(0, 28, 2)) == [0, 4, 8, 12, 14, 18, 22, 26]
    assert shown_layers(list(range(3, 64, 4)), list(range(3, 64, 8))) == list(range(3, 64, 8))


def test_conditions_and_their_names():
    assert parse_fused(None, None) == Capl()
    assert parse_fused(None, Capl(rho=0.9).facts) == Capl(rho=0.9)
    assert parse_fused("capl(weight=1.0)", Capl(rho=0.9).facts) == Capl(weight=1.0)
    with pytest.raises(UserError, match="--attention takes capl"):
        parse_fused("sofa", None)
    with pytest.raises(UserError, match="empty"):
        parse_fused("", Capl(rho=0.9).facts)
    assert parse_rival("none", Capl()) is None
    for text in ("truncated", "capl"):
        with pytest.raises(UserError, match="the study has this one already"):
            parse_rival(text, Capl())
    with pytest.raises(UserError, match="learns from calibration samples"):
        parse_rival("fastv(trend=mean)", Capl())
    with pytest.raises(UnknownNameError):
        parse_rival("trunkated", Capl())
    conditions = StudyConditions(Capl(), None, trained=False)
    assert [row.label for row in conditions.rows] == ROWS[:3]


def data_of(predicted, trained=False):
    """Of 2 samples x 2 orders of 2 images each, the right one at 0 and then at 1; answers by condition."""
    conditions = StudyConditions(Capl(), None, trained)
    perm = np.asarray([[0, 1], [1, 0]] * 2)
    rows = {
        row: Predictions(["a", "a", "b", "b"], np.asarray([0, 1, 0, 1]), np.asarray([0, 1, 0, 1]), np.asarray(answers), perm)
        for row, answers in zip(conditions.rows, predicted, strict=True)
    }
    return TaskData("two", conditions, rows, {}, seed=0)


def test_attention_that_was_not_measured_is_named():
    document = between_document(data_of([(0, 0, 0, 0)] * 3))
    assert not document.tables
    assert document.missing == ("attention between images is measured on a model of transformers: run without --stored.",)


def test_answers_that_need_other_images_by_hand():
    data = data_of([(0, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)])
    fused, plain = needs_table(data).rows
    assert [cell.value for cell in fused[2:5]] == [50.0, 50.0, 0.0]
    assert [cell.value for cell in plain[2:5]] == [25.0, 25.0, 0.0]
    assert positions_chosen(list(data.predictions.values())[1]) == [75.0, 25.0]


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2.5-VL-7B"),
        ("OpenGVLab/InternVL2_5-8B", "InternVL2.5-8B"),
        ("zai-org/GLM-4.1V-9B-Thinking", "GLM-4.1V-9B"),
        ("Qwen/Qwen2.5-VL-3B-Instruct", None),
        ("lad-tiny-relations", None),
    ],
)
def test_the_papers_models_are_known_by_their_names(name, theirs):
    assert reported_model(name) == theirs
    assert (reported_document(name, [data_of([(0, 0, 0, 0)] * 3)]) is None) == (theirs is None)


def test_the_papers_figures_are_next_to_ours():
    data = data_of([(0, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)])
    (table,) = reported_document("Qwen/Qwen2.5-VL-7B-Instruct", [data]).tables
    rows = {row[0]: row[1:] for row in table.rows}
    assert [cell.value for cell in rows["BLINK"]] == pytest.approx([54.6, 55.34, 57.76, 0.74, 3.16])
    assert [cell if cell is None else cell.value for cell in rows["NLVR2"]] == [79.85, None, 80.05, None, pytest.approx(0.2)]
    assert [cell if cell is None else cell.value for cell in rows["two (ours)"]] == [50.0, 75.0, None, 25.0, None]
    assert all(set(one.trained) == set(one.base) >= set(one.fused) for one in REPORTED.values())
