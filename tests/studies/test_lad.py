import json
import re

import pytest

from lad_eval.cli.main import invoke
from lad_eval.run.execute import Settings
from lad_eval.studies.lad.family import TaskFamily, task_family
from lad_eval.studies.lad.run import lad_study

ONLY = "table2,table3,table4,table5,table7,figure2,figure3"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    base = tmp_path_factory.mktemp("paper")
    arguments = ["paper", "--model", "lad-tiny", "--limit", "2", "--runs", str(base / "runs"), "--out", str(base / "paper"), "-q"]
    assert invoke([*arguments, "--only", ONLY]) == 0
    return base, arguments


@pytest.mark.slow
def test_everything_is_written(made):
    folder = made[0] / "paper" / "lad-tiny"
    text = (folder / "paper.md").read_text()
    assert re.findall(r"^## (\w+ \d)", text, flags=re.M) == [
        "Figure 2", "Figure 3", "Table 2", "Table 3", "Table 4", "Table 5", "Table 7",
    ]  # fmt: skip
    assert "Only the first 2 samples of each task were evaluated." in text
    assert "Not shown: MMIU" in text
    assert (folder / "figures/figure3.pdf").read_bytes().startswith(b"%PDF")
    assert (folder / "tables/table4.tex").read_text().count("\\begin{tabular}") == 5
    costs = json.loads((folder / "costs.json").read_text())["costs"]
    assert [(c["candidates"], c["kind"]) for c in costs] == [(n, k) for n in (4, 8, 12) for k in ("vanilla", "with evidence")]
    assert all(c["seconds"] > 0 and c["ratio"] > 0 for c in costs)
    html = (folder / "report.html").read_text()
    assert "Table 7: Logit-attention divergence" in html
    assert "<h1>Position bias of lad-tiny on the scenes tasks</h1>" in html
    assert re.search(r'<p class="across">\d runs: right [^<]+ of the time; with LAD [^<]+</p>', html)
    # Every picture for a light and a dark page.
    assert html.count('srcset="data:image/svg') == html.count('<img src="data:image/svg') == 8
    assert not re.search(r'(src|href)="(?!data:|#|https://arxiv\.org)', html)


@pytest.mark.slow
def test_stored_evidence_gives_the_same_without_a_model(made, capsys):
    base, arguments = made
    page = base / "paper/lad-tiny/paper.md"
    before = page.read_text()
    page.unlink()
    assert invoke([*arguments, "--only", ONLY, "--stored"]) == 0
    assert page.read_text() == before


@pytest.mark.slow
def test_transfer_is_shown_as_far_as_there_is_data(made):
    base = made[0]
    scenes = task_family("scenes")
    lending = TaskFamily("scenes", scenes.tasks, {("random", 4): "flickr8k_random_n4"})
    settings = Settings("lad-tiny", (), (), limit=2, out=base / "runs", quiet=True, study="lad")
    output = lad_study(settings, lending, base / "lent", only=["table3"])
    (document,) = output.documents
    assert [row[:2] for row in document.tables[0].rows][:2] == [
        ("scenes random", "scenes random (own)"), ("scenes random", "scenes adversarial"),
    ]  # fmt: skip
    assert "flickr8k" in document.missing[-1]
    own, lent = document.tables[0].rows[:2]
    assert own[5:] == (None,) * 4
    assert lent[5].value == pytest.approx(own[3].value - lent[3].value)


@pytest.mark.slow
def test_what_is_not_stored_is_named(made, capsys):
    assert invoke([*made[1], "--only", "figure6", "--stored"]) == 2
    assert "figure6 cannot be made: there is no finished run of scenes_random_n4-calibration20" in capsys.readouterr().err


def test_wrong_names(capsys):
    assert invoke(["paper", "--model", "lad-tiny", "--only", "table44"]) == 2
    assert capsys.readouterr().err.startswith("error: Unknown study 'table44'. Did you mean 'table4'")
    assert invoke(["paper", "--model", "lad-tiny", "--only", " ,"]) == 2
    assert capsys.readouterr().err == "error: --only names none; `lad-eval ls studies` lists them.\n"
    assert invoke(["ls", "studies"]) == 0
    assert "table4   Ablation of LAD" in capsys.readouterr().out
    assert invoke(["paper", "--model", "no/such/model/at/all", "--family", "scenes"]) == 2
    assert "There is no model folder" in capsys.readouterr().err
