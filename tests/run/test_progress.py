from lad_eval.run import progress as module
from lad_eval.run.progress import progress


def test_a_log_gets_lines_in_the_unit_that_is_counted(capsys, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    with progress("zips/a.zip", 2_000_000_000, 500_000_000, unit="bytes") as advance:
        advance(1_000_000)
    with progress("task", 10) as advance:
        advance(4)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("zips/a.zip: 501.0 MB/2.0 GB, ")
    assert "B/s, " in first
    assert second.startswith("task: 4/10 requests, ")


def test_what_is_done_or_not_shown_is_silent(capsys, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    for total, done, shown in ((5, 5, True), (0, 0, True), (5, 0, False)):
        with progress("x", total, done, shown=shown, unit="bytes") as advance:
            advance(1)
    assert capsys.readouterr().err == ""


def test_amounts_are_told_in_three_sizes():
    assert [module._amount(n, "bytes") for n in (0, 999, 1500, 2_340_000, 7e9)] == ["0 B", "999 B", "1.5 kB", "2.3 MB", "7.0 GB"]
    assert module._amount(2.25, "requests") == "2.2"
