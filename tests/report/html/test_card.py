"""Cards for the hub, read back with the hub's own classes."""

import pytest
import yaml
from huggingface_hub import EvalResultEntry, ModelCard, parse_eval_result_entries

from lad_eval.cli.main import invoke
from lad_eval.report.card import CardError, ResultsLink, eval_results, model_card
from lad_eval.run.folder.files import SPEC, read_run_json
from tests.report.html.looked import finished


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def runs(results):
    found = [finished(results, task, limit=limit) for task, limit in (("scenes_random_n4", 6), ("scenes_random_n2", 5))]
    return [(run.metrics, read_run_json(run.path / SPEC)) for run in found]


def test_the_hub_reads_the_model_index_back(runs):
    card = ModelCard(model_card(runs, ["vanilla", "lad"]))
    assert card.data.model_name == "formula"
    found = {(r.dataset_type, r.metric_type, r.metric_args["method"]): r for r in card.data.eval_results}
    assert len(found) == 2 * 3 * 2
    metrics, spec = runs[0]
    for method in ("vanilla", "lad"):
        figures = metrics["methods"][method]
        accuracy = found["scenes_random_n4", "accuracy", method]
        assert accuracy.metric_value == round(figures["accuracy"]["value"], 2)
        assert accuracy.metric_args["interval_95"] == f"{figures['accuracy']['low']:.2f} to {figures['accuracy']['high']:.2f}"
        assert found["scenes_random_n4", "recall_std", method].metric_value == round(figures["rstd"]["value"], 2)
        assert found["scenes_random_n4", "consistency", method].metric_value == round(figures["consistency"]["value"], 2)
    assert accuracy.dataset_split == "test[:6]"
    assert accuracy.dataset_args["data"] == spec["digests"]["data"]
    assert (accuracy.dataset_args["samples"], accuracy.dataset_args["permutations"]) == (6, 5)
    assert accuracy.task_type == "image-text-to-text"


def test_the_card_holds_its_tables_and_is_its_own_round_trip(runs):
    text = model_card(runs)
    assert text.startswith("---\n")
    assert "### scenes_random_n2" in text
    assert "| purified-attention " in text
    assert str(ModelCard(text)) == text


def test_the_hub_reads_eval_results_back(runs):
    text = eval_results(
        runs,
        "lad",
        dataset="owner/scenes",
        revision="0123456789abcdef" * 2 + "01234567",
        date="2026-11-27T10:30:00Z",
        source=ResultsLink("https://example.org/report.html", user="someone", org="lab"),
    )
    entries = parse_eval_result_entries(yaml.safe_load(text))
    assert [entry.task_id for entry in entries] == ["scenes_random_n4", "scenes_random_n2"]
    for entry, (metrics, _) in zip(entries, runs, strict=True):
        assert isinstance(entry, EvalResultEntry)
        assert entry.dataset_id == "owner/scenes"
        assert entry.value == round(metrics["methods"]["lad"]["accuracy"]["value"], 2)
        assert entry.notes.startswith("lad; ")
        assert "only the first samples of the task" in entry.notes
        assert (entry.source_url, entry.source_name) == ("https://example.org/report.html", "lad_eval")
        assert (entry.source_user, entry.source_org) == ("someone", "lab")
        assert (entry.dataset_revision, entry.date) == ("0123456789abcdef0123456789abcdef01234567", "2026-11-27T10:30:00Z")


def test_what_is_not_given_is_left_out(runs):
    entries = yaml.safe_load(eval_results(runs, "lad", dataset="owner/scenes"))
    assert [sorted(entry) for entry in entries] == [["dataset", "notes", "value"]] * 2
    assert [sorted(entry["dataset"]) for entry in entries] == [["id", "task_id"]] * 2


def test_an_undefined_figure_is_left_out(runs):
    metrics, spec = runs[0]
    figures = {**metrics["methods"]["lad"], "rstd": {"value": None}}
    card = ModelCard(model_card([({**metrics, "methods": {"lad": figures}}, spec)]))
    assert [r.metric_type for r in card.data.eval_results] == ["accuracy", "consistency"]


def test_faults_name_the_cure(runs):
    other = ({**runs[0][0], "model": "other"}, runs[0][1])
    with pytest.raises(CardError, match=r"runs of one model; these runs are of formula, other\. Choose with --model"):
        model_card([runs[0], other])
    with pytest.raises(CardError, match="there are none"):
        model_card([])
    with pytest.raises(CardError, match="several runs on scenes_random_n4"):
        model_card([runs[0], runs[0]])
    with pytest.raises(CardError, match="scenes_random_n4 has no cot, only vanilla, pride"):
        model_card(runs, ["cot"])
    with pytest.raises(CardError, match=r"'scenes' is not the id of a data set on the hub; write owner/name\."):
        eval_results(runs, "lad", dataset="scenes")
    with pytest.raises(CardError, match=r"'main' is not the commit of a data set; write its 40 hex digits\."):
        eval_results(runs, "lad", dataset="o/n", revision="main")
    with pytest.raises(CardError, match=r"'yesterday' is not a date of ISO 8601; write 2026-11-27 or"):
        eval_results(runs, "lad", dataset="o/n", date="yesterday")


def test_command_line(runs, results, tmp_path, capsys):
    out = tmp_path / "README.md"
    assert invoke(["export", "-f", "model-card", str(results), "--methods", "lad", "--out", str(out)]) == 0
    assert len(ModelCard.load(out).data.eval_results) == 6
    assert invoke(["export", "-f", "eval-results", str(results), "-t", "scenes_random_n2", "--dataset", "o/n"]) == 0
    assert [e["dataset"]["task_id"] for e in yaml.safe_load(capsys.readouterr().out)] == ["scenes_random_n2"]
    for arguments, said in (
        (["-f", "eval-results"], "needs --dataset owner/name"),
        (["-f", "eval-results", "--dataset", "o/n", "--methods", "lad,pride"], "at most one of --methods"),
        (["-f", "model-card", "--dataset", "o/n"], "--format model-card does not take --dataset"),
        (["-f", "eval-results", "--dataset", "o/n", "--source-org", "lab"], "need --source URL"),
        (["-f", "card"], "card"),
    ):
        assert invoke(["export", str(results), *arguments]) == 2
        assert said in capsys.readouterr().err
    assert invoke(["export", "-f", "model-card", str(results), "--out", str(tmp_path / "README.md" / "x")]) == 2
    assert "Choose another file with --out." in capsys.readouterr().err
