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
