"""Progress of long loops."""

import re

from common.progress import progress

import pytest


def test_rows_pass_unchanged_and_short_loops_are_silent(capsys):
    assert list(progress(iter("abc"), total=3, unit="letters")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("total", "expected"),
    [(3, r"1 of 3 letters, about \d+ s left"), (0, "1 letters")],
)
def test_a_long_loop_prints_lines_with_the_time_left(total, expected, capsys):
    list(progress("abc", total=total, unit="letters", seconds=0.0))
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(expected, lines[0]) and len(lines) == (2 if total else 3)


def test_rows_may_have_places_of_their_own(capsys):
    rows = progress(
        "ab", total=9, unit="lines", seconds=0.0, place=lambda row: {"a": 3, "b": 9}[row]
    )
    assert list(rows) == ["a", "b"]
    assert re.fullmatch(r"3 of 9 lines, about \d+ s left\n", capsys.readouterr().err)


def test_a_bar_is_drawn_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(progress("ab", total=9, unit="lines", place=" ab".index)) == ["a", "b"]
    assert re.search(r"2/9 .*lines", capsys.readouterr().err)
