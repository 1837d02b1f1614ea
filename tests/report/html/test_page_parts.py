"""Parts of the page that a run lacks, and the runs that a page shows."""

import re

import pytest

from lad_eval.cli.main import invoke
from lad_eval.errors import UserError
from lad_eval.report.html import pictures
from lad_eval.report.html.load import choose, definitions_of
from tests.report.html.looked import finished, photos
from tests.report.html.pages import Page, written


class TestMissing:
    """A part that is not there is named, and the rest stands."""

    @pytest.fixture
    def run(self, tmp_path):
        return finished(tmp_path, "scenes_random_n4", limit=3)

    def test_evidence(self, run, tmp_path):
        (run.path / "evidence.parquet").unlink()
        text = written(run, tmp_path / "r.html")
        assert (
            text.count("This run&#39;s folder has no evidence for the unchanged prompt and model.") == 4
        )  # attention, three methods
        assert "Attention to the right image" not in text
        assert "Attention right, logits wrong" in text

    def test_damaged_predictions(self, run, tmp_path):
        (run.path / "predictions.parquet").write_bytes(b"no parquet")
        text = written(run, tmp_path / "r.html")
        assert text.count("Not shown: predictions.parquet is damaged") == 4  # first screen, matrices, examples, samples
        assert "Attention to the right image" in text
        assert Page(text).data()["runs"] == {}

    def test_why_there_are_no_captions_is_said_without_examples_too(self, run, tmp_path):
        (run.path / "task.json").write_text("")
        (run.path / "predictions.parquet").unlink()
        assert "Cannot read task.json: it is not JSON, so it is damaged." in written(run, tmp_path / "r.html")

    def test_plan(self, run, tmp_path):
        (run.path / "plan.json").write_text("{}")
        text = written(run, tmp_path / "r.html")
        assert "Not shown: plan.json is damaged at evaluated" in text
        assert "Not shown: lad: plan.json is damaged" in text
        assert "Bias matrix" not in text

    def test_attention_and_methods(self, tmp_path):
        run = finished(tmp_path, "scenes_random_n4", limit=3, methods=("vanilla",), attention=False)
        text = written(run, tmp_path / "r.html")
        assert "Not shown: This run&#39;s evidence has no attention." in text
        assert "run it again with them" in text
        assert "No method of this run calibrates." in text
        assert "What the attention knows" not in text

    def test_other_conditions(self, tmp_path):
        """A method asked in other words learns from evidence of its own; one that answers in text learns nothing."""
        run = finished(tmp_path, "scenes_random_n4", limit=3, methods=("instruction+lad", "vanilla", "generate"))
        text = written(run, tmp_path / "r.html")
        assert "Bias matrix B · instruction+lad" in text
        assert "<h4>Layers that LAD reads</h4>" not in text
        data = Page(text).data()["runs"]["run-1"]
        told = dict(zip([m["name"] for m in data["methods"]], data["percent"], strict=True))
        assert told["generate"] is None
        assert told["vanilla"] is not None
        assert told["instruction+lad"] is not None
        assert "without an answer" in text

    def test_task_that_is_not_here(self, tmp_path):
        run = finished(tmp_path / "runs", photos(tmp_path, [f"caption {i}" for i in range(30)]))
        (run.path / "task.json").unlink()  # as runs of earlier versions are
        text = written(run, tmp_path / "r.html")
        assert "Unknown task &#39;album&#39;" in text
        assert "The caption is not known here." in text
        assert Page(text).all("img") == []

    def test_data_that_changed(self, tmp_path):
        path = photos(tmp_path, [f"caption {i}" for i in range(30)])
        run = finished(tmp_path / "runs", path)
        photos(tmp_path, [f"another caption {i}" for i in range(30)])
        text = written(run, tmp_path / "r.html", definitions=definitions_of([str(path)]))
        assert "The data of album is not the run&#39;s" in text
        assert "another caption" not in text

    def test_a_picture_that_is_gone(self, tmp_path):
        path = photos(tmp_path, [f"caption {i}" for i in range(30)])
        run = finished(tmp_path / "runs", path)
        definitions = definitions_of([str(path)])
        from lad_eval.report.html.load import load_material
        from lad_eval.report.html.section import section_of

        material = load_material(run, definitions)
        list(material.task.samples("test"))
        for picture in (tmp_path / "photos").iterdir():
            picture.unlink()
        section = section_of(material, 1, pictures.ImageBundle())
        assert section.pictured == 0
        assert section.notes[0].startswith("Images are missing: ")

    def test_figures_of_something_else(self, run, tmp_path):
        (run.path / "metrics.json").write_text("{}")
        code = invoke(["report", str(run.path), "--out", str(tmp_path / "r.html")])
        assert code == 2
        assert not (tmp_path / "r.html").exists()


def test_silent_answers_have_a_column_of_their_own(album, tmp_path):
    import pandas as pd

    run = finished(tmp_path, "scenes_random_n4", limit=3)
    path = run.path / "predictions.parquet"
    rows = pd.read_parquet(path)
    rows.loc[(rows["method"] == "vanilla") & (rows["permutation"] == 1), "position"] = -1
    rows["log_proba"] = [None if m == "vanilla" else p for m, p in zip(rows["method"], rows["log_proba"], strict=True)]
    rows.to_parquet(path, index=False)
    text = written(run, tmp_path / "r.html")
    assert "3 without an answer" in text
    data = Page(text).data()["runs"]["run-1"]
    assert [sample[1] for sample in data["image"][0]] == [-1] * 3
    assert data["percent"][0] is None


class TestChoose:
    """Folders, models and tasks name runs, or the fault."""

    @pytest.fixture(scope="class")
    def results(self, tmp_path_factory):
        out = tmp_path_factory.mktemp("runs")
        for name, task in (("m1", "scenes_random_n2"), ("m1", "scenes_random_n4"), ("m2", "scenes_random_n2")):
            finished(out, task, name=name, limit=2, methods=("vanilla",))
        return out

    def named(self, runs):
        return [(run.metrics["model"], run.metrics["task"]) for run in runs]

    def test_all_of_a_folder_once(self, results):
        assert len(choose([results, results / "m1"])) == 3
        assert self.named(choose([results / "m2"])) == [("m2", "scenes_random_n2")]

    def test_a_model_and_tasks_in_their_order(self, results):
        chosen = choose([results], "m1", [["scenes_random_n4"], ["scenes_random_n2"]])
        assert self.named(chosen) == [("m1", "scenes_random_n4"), ("m1", "scenes_random_n2")]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("nowhere",), "There is no finished run in .*nowhere"),
            ((".", "m3"), "no finished run of m3 in .*, only of m1, m2"),
            ((".", "m2", [["scenes_random_n4"]]), "no finished run of m2 on scenes_random_n4"),
            ((".", "m2", [["scenes_random_n2"], ["scenes_random_n4"]]), "no finished run of m2 on scenes_random_n4"),
            ((".", "m1", [["a", "b"]]), "no finished run of m1 on a or b in"),
        ],
    )
    def test_faults(self, results, arguments, said):
        with pytest.raises(UserError, match=said):
            choose([results / arguments[0]], *arguments[1:])

    def test_command_line(self, results, tmp_path, capsys):
        out = tmp_path / "r.html"
        code = invoke(["report", str(results), "-m", "m1", "-t", "scenes_random_n*", "--out", str(out), "--pictures", "1", "-q"])
        assert code == 0  # of the tasks that the glob names, those that have a run
        assert "2 runs" in capsys.readouterr().out
        assert invoke(["report", str(results), "-t", "scenes_adversarial_n*", "--out", str(out), "-q"]) == 2
        assert "There is no finished run on scenes_adversarial_n" in capsys.readouterr().err
        assert invoke(["report", str(results), "-m", "m1", "--out", str(out), "--pictures", "1"]) == 0
        assert re.fullmatch(r".*r\.html: 2 runs, 4 samples, 2 of them with images, 0\.\d MB\n", capsys.readouterr().out)
        assert invoke(["report", str(results), "--out", str(results)]) == 2

    def test_a_place_that_cannot_be_written(self, results, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        assert invoke(["report", str(results), "--out", str(tmp_path / "file" / "r.html"), "-q"]) == 2
        assert "Choose another file with --out." in capsys.readouterr().err
