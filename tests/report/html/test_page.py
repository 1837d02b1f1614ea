"""The page as text: whole, alone, honest about what is missing, and safe whatever the data says."""

import base64
import hashlib
import json
import re

import pytest

from lad_eval.metrics import significance
from lad_eval.report.html import pictures, write_report
from lad_eval.report.html.load import choose, definitions_of
from lad_eval.report.html.text import clean, without_paths
from lad_eval.run.folder.stored import StoredRun
from tests.report.html.looked import METHODS, finished, photos
from tests.report.html.pages import HOSTILE, Page, written


def test_every_element_closes_and_every_id_is_unique(page):
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_page_asks_nothing_of_anyone(page, text):
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), (tag, name, value)
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text


def test_the_policy_lets_nothing_through_but_this_pages_own_script_and_style(page):
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    scripts = [text for tag, text in page.texts if tag == "script" and not text.startswith("{")]
    styles = [text for tag, text in page.texts if tag == "style"]
    assert (len(scripts), len(styles)) == (1, 1)
    for kind, content in (("script-src", scripts[0]), ("style-src", styles[0])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_captions_come_back_as_they_were_and_never_as_markup(page, text):
    captions = page.data()["runs"]["run-1"]["caption"]
    assert all(caption is not None for caption in captions)
    shown = {clean(c)[:60] for c in HOSTILE}
    assert {c[:60] for c in captions} & shown
    assert "<img src=x" not in text
    assert "<svg onload" not in text
    assert "{{ 7*7 }}" in json.dumps(captions)
    assert "49" not in [t for tag, t in page.texts if tag == "bdi"]
    assert not re.search(r"[\x00-\x08\x1b]", text)


def test_data_cannot_end_its_script(text):
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S).group(1)
    assert "<" not in data
    json.loads(data)


def test_a_long_caption_is_cut(page):
    assert max(map(len, page.data()["runs"]["run-1"]["caption"])) <= 400


def test_published_figures_stand_apart(album, tmp_path):
    run, _ = album
    metrics = {**run.metrics, "reported": {"formula": {"lad": [94.94, 4.2, 84.3]}, "another": {"lad": [11.11, None, None]}}}
    text = written(StoredRun(run.path, metrics), tmp_path / "r.html")
    assert '<th scope="row">lad</th><td>94.9</td><td>4.2</td><td>84.3</td>' in text
    assert "not measured here" in text
    assert "<td>11.1</td>" not in text


def test_clean_leaves_text_and_replaces_what_cannot_be_shown():
    assert clean("a < b & 'c' \u202e") == "a < b & 'c' \u202e"
    assert clean("\ud800 lone \x00\x07") == "? lone \ufffd\ufffd"
    assert len(clean("x" * 9999)) == 2000


def test_every_method_has_its_row_matrix_and_line(page):
    for method in METHODS:
        kinds = [tag for tag, a in page.elements if a.get("data-method") == method]
        assert {"tr", "figure", "g"} <= set(kinds)
    assert [a["value"] for a in page.all("input", type="checkbox")] == list(METHODS)


def test_every_picture_of_a_chart_has_words(page):
    for attributes in page.all("svg"):
        assert attributes["role"] == "img"
        assert attributes["aria-label"]
    for attributes in page.all("img"):
        assert re.fullmatch(r"Image [A-D] at position [1-4](, the right one)?", attributes["alt"])


def test_pictures_are_small_and_few(album, tmp_path):
    run, path = album
    definitions = definitions_of([str(path)])
    page = Page(written(run, tmp_path / "r.html", definitions=definitions, pictured=2))
    held = [names for names in page.data()["runs"]["run-1"]["pictures"] if names]
    assert [len(names) for names in held] == [4, 4]
    none = Page(written(run, tmp_path / "r.html", definitions=definitions, pictured=0))
    assert none.all("img") == []
    assert none.data()["pictures"] == {}


def test_pictures_together_are_bounded(album, tmp_path, monkeypatch):
    run, path = album
    monkeypatch.setattr(pictures, "MOST_BYTES", 1500)
    monkeypatch.setattr("lad_eval.report.html.page.MOST_BYTES", 1500)
    text = written(run, tmp_path / "r.html", definitions=definitions_of([str(path)]))
    assert sum(len(uri) for uri in set(re.findall(r"data:image/\w+;base64,[\w+/=]+", text))) < 2500
    assert "A page holds at most" in text


def test_the_same_runs_give_the_same_bytes(album, tmp_path, text):
    run, path = album
    assert written(run, tmp_path / "r.html", definitions=definitions_of([str(path)])) == text


def test_no_path_of_this_machine_is_in_the_page(album, text):
    assert str(album[0].path) not in text
    assert str(album[1].parent) not in text


def test_runs_are_told_apart(album, tmp_path):
    run, _ = album
    other = finished(tmp_path, "scenes_random_n4", name="other", limit=4)
    write_report([run, other, run], tmp_path / "r.html")
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert [a["data-tab"] for a in page.all("a") if "data-tab" in a] == ["run-1", "run-2", "run-3"]
    assert "Position bias of 2 models" in [t for tag, t in page.texts if tag == "h1"]
    hashes = [t for tag, t in page.texts if tag == "span" and t == run.metrics["run"][:6]]
    assert len(hashes) >= 2
    assert page.data()["runs"]["run-2"]["sample"] == [f"scenes-random-n4-s0-test-000{i}" for i in range(4)]


def test_a_page_reports_what_metrics_json_says(album, text):
    for figure in album[0].metrics["methods"].values():
        accuracy = figure["accuracy"]
        assert f"{accuracy['value']:.1f}" in text
        assert f"[{accuracy['low']:.1f}, {accuracy['high']:.1f}]" in text
        p = figure["position_test"]["p_value"]
        assert f"<td>{'&lt; 0.001' if p < 0.001 else f'{p:.3f}'}</td>" in text


def test_methods_that_are_no_worse_than_the_best_are_marked(album, text):
    tables = {name: album[0].predictions_of(name) for name in album[0].methods}
    accuracies = {name: figure["accuracy"]["value"] for name, figure in album[0].metrics["methods"].items()}
    tested = significance({name: table.grid.correct for name, table in tables.items()})
    tied = {name for name, found in tested.items() if found.tied and accuracies[name] < max(accuracies.values())}
    rows = re.findall(r'data-method="([^"]+)"><th.*?<td class="main">(.*?)</td>', text)
    assert {name for name, cell in rows if "†" in cell} == tied


def test_the_finding_comes_first(album, text):
    """One sentence, the chart and two matrices, the table; nothing else before them."""
    from lad_eval.report.html.finding import finding_of

    finding = finding_of(album[0].metrics)
    main = text[text.index("<main") :]
    heading = re.search(r'<h2 class="finding"[^>]*>(.*?)</h2>', main, re.S)
    assert re.sub(r"<[^>]+>", "", heading.group(1)).strip() == finding.title
    marks = [
        'class="finding"',
        "Recall by the position of the right image",
        "As the model answers",
        "With ",
        'class="numbers summary"',
    ]
    places = [main.index(mark) for mark in [*marks, "More metrics"]]
    assert places == sorted(places)
    title = re.search(r"<title>(.*?)</title>", text).group(1)
    assert title == f"formula: {finding.title}"


def test_marks_are_those_of_the_terminal(album, text):
    from lad_eval.run.folder.rows import rows_of

    rows = rows_of(album[0].metrics)
    shown = dict(re.findall(r'data-method="([^"]+)"><th.*?<td class="main">(.*?)</td>', text))
    assert {row.method for row in rows if row.tied} == {name for name, cell in shown.items() if "†" in cell}
    best = re.findall(r'<tr class="best" data-method="([^"]+)"', text)
    assert best == [row.method for row in rows if row.accuracy == max(r.accuracy for r in rows)]


def test_a_run_finds_its_own_pictures(album, tmp_path):
    """The task's file is not named, and need not even exist any more: the run notes where its data is."""
    import shutil

    path = photos(tmp_path / "data", [f"caption {i}" for i in range(30)])
    run = finished(tmp_path / "runs", path)
    path.rename(path.with_name("renamed.yaml"))
    found = written(run, tmp_path / "r.html")
    data = Page(found).data()["runs"]["run-1"]
    assert data["caption"][0].startswith("caption ")
    assert sum(names is not None for names in data["pictures"]) == len(data["sample"])
    assert str(tmp_path) not in found
    shutil.rmtree(tmp_path / "data" / "photos")
    gone = written(run, tmp_path / "r.html")
    assert "photos: no such folder of images." in gone
    assert str(tmp_path) not in gone


def test_many_methods_are_small_charts_and_few_share_one(tmp_path):
    few = finished(tmp_path / "few", "scenes_random_n4", limit=3)
    assert 'class="multiples"' not in written(few, tmp_path / "r.html")
    many = finished(tmp_path / "many", "scenes_random_n4", limit=3, methods=(*METHODS, "lad-paper"))
    text = written(many, tmp_path / "r.html")
    small = re.findall(r'<div class="multiple" data-method="([^"]+)">.*?</svg></div>', text, re.S)
    assert small == many.methods
    assert len(small) == 7


def test_tasks_come_in_the_order_of_their_definition(tmp_path):
    tasks = ["scenes_adversarial_n4", "scenes_random_n12", "scenes_random_n2", "scenes_random_n4"]
    for task in tasks:
        finished(tmp_path, task, limit=1, methods=("vanilla",))
    shown = [run.metrics["task"] for run in choose([tmp_path])]
    assert shown == ["scenes_random_n2", "scenes_random_n4", "scenes_adversarial_n4", "scenes_random_n12"]


def test_methods_of_exactly_the_best_accuracy_are_marked_alike(tmp_path):
    run = finished(tmp_path, "scenes_random_n4", limit=4, methods=("vanilla", "lad", "purified-attention"))
    metrics = json.loads(json.dumps(run.metrics))
    metrics["methods"]["purified-attention"]["accuracy"] = metrics["methods"]["lad"]["accuracy"]
    metrics["tests"]["accuracy"]["lad"]["purified-attention"] = 1.0
    text = written(StoredRun(run.path, metrics), tmp_path / "r.html")
    assert re.findall(r'<tr class="best" data-method="([^"]+)"', text) == ["lad", "purified-attention"]
    cells = dict(re.findall(r'data-method="([^"]+)"><th.*?<td class="main">(.*?)</td>', text))
    assert not any("†" in cells[name] for name in ("lad", "purified-attention"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Cannot read /a/b c/predictions.parquet: it is", "Cannot read predictions.parquet: it is"),
        ("'/x/y.json'\n and C:\\Users\\me\\z.png", "'y.json' and z.png"),
        ("see https://arxiv.org/abs/1, tasks/a.yaml, 1/2 and a / b", "see https://arxiv.org/abs/1, tasks/a.yaml, 1/2 and a / b"),
    ],
)
def test_messages_lose_their_folders_only(text, shown):
    assert without_paths(text) == shown
