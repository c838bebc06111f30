from common.errors import InputError
from common.messages import report_skipped

import pytest


def test_skipped_items_are_counted_and_the_first_ones_are_named(capsys):
    skipped = [(f"line {number}", "no text") for number in range(1, 8)]
    report_skipped("a.csv", skipped, total=1_000, unit="rows", limit=0.1)
    named = "; ".join(f"line {number}: no text" for number in range(1, 6))
    expected = f"a.csv: skipped 7 of 1,000 rows cannot be used ({named}; and 2 more)\n"
    assert capsys.readouterr().err == expected
    report_skipped("a.csv", [], total=10, unit="rows", limit=0.0)
    assert not capsys.readouterr().err


def test_too_many_skipped_items_are_an_error():
    skipped = [("line 1", "no text")]
    with pytest.raises(InputError, match=r"a\.csv: 1 of 10 rows .* At most 5% .* --max_bad"):
        report_skipped("a.csv", skipped, total=10, unit="rows", limit=0.05)
    with pytest.raises(InputError, match=r"1 of 1 rows cannot be used \(line 1: no text\)$"):
        report_skipped("a.csv", skipped, total=1, unit="rows", limit=1.0)
