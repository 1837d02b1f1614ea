"""The picture of recall by position: whole, the same twice, with what is nothing still to be seen."""

import re

import pytest

from lad_eval.cli.main import invoke
from lad_eval.errors import UserError
from lad_eval.report.charts import PositionBars, draw_positions
from tests.report.html.looked import METHODS, finished

VANILLA = PositionBars("vanilla", (30.0, 0.0, None, 96.0), (20.0, 0.0, None, 90.0), (40.0, 9.0, None, 100.0))
LAD = PositionBars("lad", (98.0, 93.0, 99.0, 100.0), (None,) * 4, (None,) * 4)


def drawn(path, *methods, title="Right 54 %", subtitle="m · t"):
    draw_positions(methods, title, subtitle, path)
    return path.read_text()


def test_it_has_title_names_and_numbers(tmp_path):
    svg = drawn(tmp_path / "p.svg", VANILLA, LAD)
    # The letters are outlines; what they say is in comments before them.
    said = re.findall(r"<!-- (.*?) -->", svg)
    assert {"Right 54 %", "m · t", "vanilla", "lad", "chance", "position of the right image"} <= set(said)
    assert [text for text in said if text in ("30", "96", "98", "93", "99")] == ["30", "96", "98", "93", "99"]
    assert drawn(tmp_path / "q.svg", VANILLA, LAD) == svg


def test_a_zero_is_drawn_and_an_unknown_is_not(tmp_path):
    whole = PositionBars("vanilla", (30.0, 5.0, 20.0, 96.0), (None,) * 4, (None,) * 4)
    zero = PositionBars("vanilla", (30.0, 0.0, 20.0, 96.0), (None,) * 4, (None,) * 4)
    stub = "stroke-width: 3"
    assert stub not in drawn(tmp_path / "p.svg", whole).replace("stroke: #ffffff; stroke-width: 3", "")
    assert stub in drawn(tmp_path / "p.svg", zero).replace("stroke: #ffffff; stroke-width: 3", "")
    unknown = drawn(tmp_path / "p.svg", PositionBars("vanilla", (30.0, None, 20.0, 96.0), (None,) * 4, (None,) * 4))
    assert stub not in unknown.replace("stroke: #ffffff; stroke-width: 3", "")


def test_many_methods_have_a_panel_each(tmp_path):
    several = [PositionBars(f"m{i}", LAD.values, LAD.low, LAD.high) for i in range(7)]
    svg = drawn(tmp_path / "p.svg", *several)
    assert len(set(re.findall(r'<g id="(axes_\d+)">', svg))) == 7
    assert len(re.findall(r"<!-- m\d -->", svg)) == 7


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"Cannot write the figure to .*p\.xyz"):
        draw_positions([LAD], "t", "s", tmp_path / "p.xyz")
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_drawn_leaves_the_earlier_one(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def half(figure, out, **options):
        out.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "p.svg").write_text("earlier")
    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(UserError, match=r"Cannot write the figure to .*p\.svg"):
        draw_positions([LAD], "t", "s", tmp_path / "p.svg")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("p.svg", "earlier")]


class TestCommand:
    """`lad-eval figure`."""

    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory):
        return finished(tmp_path_factory.mktemp("runs"), "scenes_random_n4", limit=8)

    def test_by_default_it_draws_the_finding(self, run, tmp_path, capsys):
        assert invoke(["figure", str(run.path), "--out", str(tmp_path / "p.svg")]) == 0
        assert capsys.readouterr().out == f"{tmp_path / 'p.svg'}\n"
        said = re.findall(r"<!-- (.*?) -->", (tmp_path / "p.svg").read_text())
        assert "formula · scenes_random_n4 · 8 samples x 5 orders, 95 % intervals" in said
        assert any(text.startswith("Right ") for text in said)
        assert {"vanilla", "lad"} <= set(said)

    def test_a_run_of_one_method_is_drawn_too(self, tmp_path):
        alone = finished(tmp_path, "scenes_random_n4", limit=3, methods=("vanilla",))
        assert invoke(["figure", str(alone.path), "--out", str(tmp_path / "p.svg")]) == 0

    def test_methods_by_name_and_a_wrong_one(self, run, tmp_path, capsys):
        assert invoke(["figure", str(run.path), "--methods", ",".join(METHODS), "--out", str(tmp_path / "p.svg")]) == 0
        assert invoke(["figure", str(run.path), "--methods", "sofa", "--out", str(tmp_path / "p.svg")]) == 2
        assert "holds no 'sofa', only vanilla, pride" in capsys.readouterr().err
