"""The chart of recall by position: numbers stand clear of every interval, whichever method it belongs to."""

from xml.etree import ElementTree

import pytest

from lad_eval.report.html.positions import Recall, positions

HALF_STROKE = 3.5  # of an interval, whose ends are round
ASCENT, CLEAR = 9.0, 4.0  # of the numbers' letters, in pixels; and the least gap to an interval


def chart(*series):
    return ElementTree.fromstring(str(positions(series, chance=25.0, label="recall", width=350.0, height=280.0)))


def recall(name, values, low, high):
    return Recall(name, values, low, high, f"m-{name}")


def texts(root):
    return [(float(text.get("x")), float(text.get("y")), text.text) for text in root.iter("text") if "value" in text.get("class")]


def spans(root):
    lines = [line for line in root.iter("line") if line.get("class") == "span"]
    return [(float(line.get("x1")), *sorted((float(line.get("y1")), float(line.get("y2"))))) for line in lines]


@pytest.mark.parametrize(
    "other",
    [
        recall("b", (0.0, 50.0, 100.0), (0.0, 10.0, 30.0), (70.0, 90.0, 100.0)),  # reaches beyond the first on both sides
        recall("b", (50.0, 60.0, 20.0), (49.0, 40.0, 0.0), (51.0, 70.0, 45.0)),
        recall("b", (40.0, None, 40.0), (None, None, 40.0), (None, None, 40.0)),
    ],
)
def test_numbers_stand_clear_of_the_intervals_of_both_methods(other):
    root = chart(recall("a", (50.0, 60.0, 40.0), (20.0, 55.0, 30.0), (60.0, 65.0, 50.0)), other)
    numbers = texts(root)
    assert len(numbers) == 3 + sum(value is not None for value in other.values)
    for x, y, text in numbers:
        for at, top, bottom in spans(root):
            gap = max(top - HALF_STROKE - y, (y - ASCENT) - (bottom + HALF_STROKE))
            assert at != x or gap >= CLEAR, text


def test_numbers_at_both_ends_of_the_scale_stay_inside_and_off_the_names_of_positions():
    root = chart(
        recall("a", (100.0, 0.0, 0.0), (20.0, 0.0, 0.0), (100.0, 70.0, 80.0)), recall("b", (0.0,) * 3, (0.0,) * 3, (40.0,) * 3)
    )
    names = [float(text.get("y")) for text in root.iter("text") if text.get("class") == "tick middle"]
    for _, y, _ in texts(root):
        assert y - ASCENT > 0
        assert y + ASCENT < min(names)
