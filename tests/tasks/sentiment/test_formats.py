from common.errors import InputError
from tasks.sentiment import formats
from tests.tasks.own.sentiment import write_csv

import pytest


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "my.csv: no reviews in this file"),
        ([("x", "1"), ("", "2")], "my.csv, line 3: empty text"),
        ([("x", "1"), ("y", " ")], "my.csv, line 3: empty label"),
        ([("x", "1"), ("y", "3")], "my.csv, line 3: unknown label '3'; expected 1, 2"),
    ],
)
def test_invalid_rows_are_refused(tmp_path, rows, message):
    path = write_csv(tmp_path / "my.csv", rows)
    with pytest.raises(InputError, match=message):
        formats.read_examples(path, ("1", "2"))


@pytest.mark.parametrize(
    ("labels", "ordered"),
    [
        (("10", "9", "2.5"), ("2.5", "9", "10")),
        (("good", "bad", "10"), ("10", "bad", "good")),
    ],
)
def test_labels_are_ordered_by_value_or_alphabetically(tmp_path, labels, ordered):
    path = write_csv(tmp_path / "my.csv", [("x", label) for label in labels])
    assert formats.read_labels(path) == ordered


@pytest.mark.parametrize(
    ("count", "message"), [(1, "every label is '0'"), (11, "11 different labels")]
)
def test_one_label_and_more_than_ten_are_refused(tmp_path, count, message):
    path = write_csv(tmp_path / "my.csv", [("x", str(n)) for n in range(count)])
    with pytest.raises(InputError, match=f"{message}; expected 2 to 10 classes"):
        formats.read_labels(path)
