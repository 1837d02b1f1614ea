"""How far several runs are together, with a clock that the test moves."""

import pytest

from lad_eval.run import progress as module
from lad_eval.run.progress import Overall, Portion, duration


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


PORTIONS = [
    Portion("a", "a", "evidence", 10, 4),
    Portion("a, replies", "a", "greedy", 5, 4),
    Portion("b", "b", "evidence", 20, 8),
]


def test_every_kind_of_request_has_its_own_pace(clock):
    whole = Overall(PORTIONS, "paper", shown=False)
    assert (whole.fraction(), whole.seconds_left()) == (0.0, None)
    with whole.portion("a", "evidence", 10, 0, shown=False) as advance:
        clock.now += 2
        advance(5)  # 20 images in 2 s
        # Left: 20 images of a and 160 of b at 10 images a second; the replies have no pace yet.
        assert whole.seconds_left() == (18.0, False)
        assert whole.text() == "9 % of all, at least 18 s left"
        clock.now += 2
        advance(5)
    with whole.portion("a, replies", "greedy", 5, 0, shown=False) as advance:
        clock.now += 10
        advance(5)
    assert whole.seconds_left() == (16.0, True)
    assert whole.fraction() == pytest.approx(60 / 220)
    assert whole.text() == "27 % of all, about 16 s left"


def test_what_is_stored_is_done_and_took_no_time(clock):
    whole = Overall(PORTIONS[:1], "paper", shown=False)
    with whole.portion("a", "evidence", 10, 8, shown=False) as advance:
        assert whole.fraction() == pytest.approx(0.8)
        clock.now += 3
        advance(2)
    assert whole.seconds_left() == (0.0, True)
    assert whole.fraction() == 1.0


def test_a_process_s_share_may_be_more_than_was_foreseen(clock):
    """Samples are not divided among processes, and so one has a few requests more than another."""
    whole = Overall(PORTIONS[:1], "paper", shown=False)
    with whole.portion("a", "evidence", 12, 0, shown=False) as advance:
        assert whole.text() == "0 % of all"
        clock.now += 3
        advance(3)
        assert whole.text() == "25 % of all, about 9 s left"
        advance(9)
    assert whole.fraction() == 1.0


def test_a_line_for_each_run_says_which_of_how_many(clock, capsys):
    whole = Overall(PORTIONS, "paper", shown=True)
    for label, kind, total, done in (("a", "evidence", 10, 0), ("a, replies", "greedy", 5, 0), ("b", "evidence", 20, 20)):
        with whole.portion(label, kind, total, done, shown=True) as advance:
            clock.now += 1
            advance(total - done)
    assert capsys.readouterr().err.splitlines() == ["paper: a (1 of 2), 0 % of all"]  # b was stored: nothing to announce


def test_what_was_not_foreseen_is_shown_all_the_same(clock):
    whole = Overall(PORTIONS, "paper", shown=False)
    with whole.portion("c", "evidence", 3, 0, shown=False) as advance:
        advance(3)
    assert whole.fraction() == 0.0


def test_nothing_to_ask_is_all_done():
    assert Overall([], "paper", shown=True).fraction() == 1.0


@pytest.mark.parametrize(("seconds", "text"), [(0, "1 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text
