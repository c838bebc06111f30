"""The user's own files: their layouts, skipped rows, labels and splits."""

import collections
import itertools
import os
import subprocess
import sys

from common.errors import InputError
from tasks.sentiment import formats
from tasks.sentiment.formats import Layout, Row

import numpy as np
import pytest

# --- rows -----------------------------------------------------------------------------------------


def read(tmp_path, name, content, labelled=True, **layout):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(formats.read_rows(path, Layout(**layout), labelled=labelled))


def test_quotes_line_ends_other_columns_and_other_order(tmp_path):
    rows = read(tmp_path, "a.csv", 'Label,id,Text\n1,7,"a ""b"", c\nd"\n\n5,8,e\n')
    assert rows == [Row(2, 'a "b", c\nd', "1"), Row(5, "e", "5")]
    rows = read(tmp_path, "a.csv", "\ufefftext,label\r\na,1\r\n")
    assert rows == [Row(2, "a", "1")]


def test_a_quote_in_a_tsv_field_is_a_character(tmp_path):
    content = (
        'label\ttext\n1\t"Great" they said\n0\t"Great film\n1\tHe said "no"\n'
        '0\t"quoted ""x""\tinside"\n1\t"whole"\n1\t"two\nlines"\n0\tend\n'
    )
    rows = read(tmp_path, "a.tsv", content)
    texts = ['"Great" they said', '"Great film', 'He said "no"', "whole", "two\nlines", "end"]
    assert [row.text for row in rows] == texts
    first = read(tmp_path, "b.tsv", 'text\tlabel\n"two\n\nlines"\t1\n"open\t0\nlast\t1\n')
    assert [(row.text, row.label) for row in first] == [
        ("two\n\nlines", "1"),
        ('"open', "0"),
        ("last", "1"),
    ]


def test_columns_delimiter_and_encoding_are_settings(tmp_path):
    content = "stars;body\n5;café\n".encode("latin-1")
    layout = {"text_column": "body", "label_column": "stars", "delimiter": ";"}
    assert read(tmp_path, "a.csv", content, encoding="latin-1", **layout) == [Row(2, "café", "5")]
    with pytest.raises(InputError, match=r"a.csv, line 2: not UTF-8 at byte 6 .*--encoding"):
        read(tmp_path, "a.csv", content, **layout)


def test_json_lines_hold_text_and_label_of_any_type(tmp_path):
    content = '{"text": "a", "label": 1, "x": []}\n\n{"text": "b\\n", "label": "1.0"}\n'
    assert read(tmp_path, "a.jsonl", content) == [Row(1, "a", "1"), Row(3, "b", "1")]
    assert read(tmp_path, "b.jsonl", '{"text": "a"}\n', labelled=False) == [Row(1, "a", "")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "text,label\na,1\n,2\nb,\nc,1,2\nd\ne,nan\nf,2\n",
            "5 of 7 rows cannot be used (line 3: no ",
        ),
        (
            "a.tsv",
            "text\tlabel\na\t1\n \t2\nb\n\nf\t2\n",
            "(line 3: no text; line 4: 1 fields, expected 2)",
        ),
        (
            "a.jsonl",
            '{"text": "a", "label": 1}\n[]\nx\n{"text": "b"}\n{"text": null, "label": 1}\n'
            '{"text": "", "label": 2}\n{"text": "f", "label": 2}\n',
            "(line 2: no JSON object; line 3: no JSON; line 4: no key 'label'; ",
        ),
    ],
)
def test_bad_rows_are_skipped_and_reported(tmp_path, capsys, name, content, message):
    rows = read(tmp_path, name, content)
    assert [(row.text, row.label) for row in rows] == [("a", "1"), ("f", "2")]
    assert message in capsys.readouterr().err


def test_a_file_without_a_valid_row_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a.csv: no row can be used \(line 2: no label\)"):
        read(tmp_path, "a.csv", "text,label\nx,\n,1\n")


def test_texts_to_predict_may_be_empty(tmp_path, capsys):
    rows = read(tmp_path, "a.csv", 'id,text\n1,a\n2,\n3\n4,"b"\n', labelled=False)
    assert [row.text for row in rows] == ["a", "", "b"]
    assert "1 of 4 rows cannot be used (line 4: 1 fields, expected 2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.csv: empty file; expected a header with text and label"),
        (
            "text,stars\na,1\n",
            r"a.csv, line 1: no column 'label' \(found: text, stars\). Rename it",
        ),
        ('text,label\na,1\n"b,1\nc,1\n', "a.csv, line 3: malformed from here on: unexpected end"),
    ],
)
def test_files_that_cannot_be_read_name_the_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, "a.csv", content)


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(InputError, match=r"gone.csv: cannot read: No such file"):
        list(formats.read_rows(tmp_path / "gone.csv", Layout(), labelled=True))


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"delimiter": ", "}, "--delimiter must be one character"),
        ({"delimiter": '"'}, "--delimiter must be one character"),
        ({"encoding": "utf-9"}, "no encoding 'utf-9'"),
        ({"encoding": "utf-16"}, "convert the file to UTF-8"),
    ],
)
def test_invalid_layouts_are_refused(layout, message):
    with pytest.raises(InputError, match=message):
        Layout(**layout)


# --- labels and splits ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "ordered"),
    [
        (("10", "9", "2.5"), ("2.5", "9", "10")),
        (("good", "bad", "10"), ("10", "bad", "good")),
    ],
)
def test_labels_are_ordered_by_value_or_alphabetically(labels, ordered):
    assert formats.order_labels(labels, "x") == ordered


@pytest.mark.parametrize(
    ("count", "message"),
    [(0, "no texts"), (1, "every label is '0'"), (11, "11 different labels; expected 2 to 10")],
)
def test_one_label_and_more_than_ten_are_refused(count, message):
    with pytest.raises(InputError, match=message):
        formats.order_labels([str(n) for n in range(count)], "x")


def test_unknown_labels_are_refused():
    rows = [Row(2, "x", "1"), Row(3, "y", "3")]
    with pytest.raises(InputError, match=r"my.csv, line 3: unknown label '3'; expected 1, 2"):
        formats.index_labels(rows, ("1", "2"), "my.csv")


@pytest.mark.slow  # starts processes
def test_the_order_of_labels_does_not_depend_on_the_hash_seed(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,1\nb,1.0\nc,2\nd,bad\ne,Bad\n")
    code = (
        "from tasks.sentiment.formats import *; rows = read_rows(Path('a.csv'), Layout(), "
        "labelled=True); print(order_labels([row.label for row in rows], 'a.csv'))"
    )
    outputs = {
        subprocess.check_output(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        )
        for seed in range(4)
    }
    assert outputs == {b"('1', '2', 'Bad', 'bad')\n"}


def split_stratified(examples, seed):
    keys = np.array([formats.row_key(text) for text, _ in examples], np.uint64)
    parts = formats.split_stratified(keys, np.array([label for _, label in examples]), seed)
    return {split: [examples[row] for row in rows] for split, rows in parts.items()}


def test_splits_are_stratified_and_keep_duplicates_together():
    examples = [(f"good {n}", 1) for n in range(180)] + [(f"bad {n}", 0) for n in range(20)]
    examples += [("Good 3!", 1), ("good, 7", 0), ("rare", 2), ("rare too", 2)]
    splits = split_stratified(examples, seed=3)
    assert sorted(itertools.chain(*splits.values())) == sorted(examples)
    counts = {split: collections.Counter(k for _, k in splits[split]) for split in splits}
    for split in ("validation", "test"):
        assert 18 <= counts[split][1] <= 20 and 2 <= counts[split][0] <= 3 and not counts[split][2]
    keys = [{formats.normalise(text) for text, _ in rows} for rows in splits.values()]
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    assert split_stratified(examples, seed=3) == splits
    assert split_stratified(examples, seed=4) != splits


def test_the_split_is_that_of_a_loop_over_groups():
    """The reference, which holds all texts, made the splits of earlier releases."""
    random = np.random.default_rng(0)
    examples = [(f"Text {random.integers(300)}.", int(random.integers(4))) for _ in range(1000)]
    examples += [("!?", 3), ("?", 3), ("", 3), ("one", 9), ("two", 9)]
    groups, classes = {}, {}
    for text, label in examples:
        groups.setdefault(formats.normalise(text) or text, []).append((text, label))
    for group in groups.values():
        classes.setdefault(group[0][1], []).append(group)
    generator = np.random.default_rng(5)
    expected = {"train": [], "validation": [], "test": []}
    for label in sorted(classes):
        members = classes[label]
        tenth = max(1, round(len(members) / 10)) if len(members) >= 3 else 0
        for place, number in enumerate(generator.permutation(len(members))):
            split = "test" if place < tenth else "validation" if place < 2 * tenth else "train"
            expected[split] += members[number]
    assert split_stratified(examples, seed=5) == expected


def test_too_few_examples_to_split_are_refused():
    with pytest.raises(InputError, match="9 examples are too few to split"):
        split_stratified([("a", 0)] * 9, seed=1)
    with pytest.raises(InputError, match="fewer than 3 distinct texts"):
        split_stratified([("a", 0), ("b", 1)] * 9, seed=1)
