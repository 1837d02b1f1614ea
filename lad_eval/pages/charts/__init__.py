"""Charts as inline SVG. An XML writer makes them, so that no text in them can become markup; colours are classes of the page."""

from lad_eval.pages.charts.bars import bar, bars
from lad_eval.pages.charts.heatmap import heatmap
from lad_eval.pages.charts.interval import interval
from lad_eval.pages.charts.lines import Line, lines
from lad_eval.pages.charts.positions import Recall, multiple, positions

__all__ = ["Line", "Recall", "bar", "bars", "heatmap", "interval", "lines", "multiple", "positions"]
