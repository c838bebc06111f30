"""Buckets, padding, order, and maps in several processes."""

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

from common import data
from common.errors import InputError
from tests.common.processes import process_of

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st


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
    length_of = {}
    for batch in data.batches(examples(lengths), [4, 9, 20], 8, shuffle_seed=1):
        ids, length, rows = (batch[name].numpy() for name in ("ids", "length", "row"))
        assert ids.shape[1] in (4, 9, 20) and len(ids) <= 8
        for row, line, count in zip(rows, ids, length, strict=True):
            assert ids.shape[1] == min(b for b in (4, 9, 20) if b >= count)
            np.testing.assert_array_equal(line, [row] * count + [0] * (ids.shape[1] - count))
            assert row not in length_of
            length_of[row] = count
    assert [length_of[row] for row in sorted(length_of)] == lengths


def test_order_follows_from_seed_and_epoch():
    def rows(seed):
        batches = data.batches(examples([3] * 30), [4], 4, shuffle_seed=seed)
        return np.concatenate([batch["row"].numpy() for batch in batches]).tolist()

    first, second = data.epoch_seed(1, 0), data.epoch_seed(1, 1)
    assert rows(first) == rows(first) != rows(second)
    assert len({data.epoch_seed(seed, epoch) for seed in range(20) for epoch in range(20)}) == 400


@given(st.lists(st.text(max_size=9), max_size=60), st.integers(1, 7), st.integers(1, 3))
def test_results_come_in_the_order_of_the_caller(rows, batch_size, window):
    sizes = []

    def upper(batch):
        sizes.append(len(batch))
        return [text.upper() for text in batch]

    results = data.map_in_order(upper, rows, batch_size=batch_size, length_of=len, window=window)
    assert list(results) == [text.upper() for text in rows]
    assert all(size <= batch_size for size in sizes)


def test_the_rows_of_a_batch_times_its_longest_are_within_the_budget():
    batches = []

    def upper(batch):
        batches.append(sorted(map(len, batch)))
        return [text.upper() for text in batch]

    rows = ["a" * size for size in (9, 1, 4, 30, 2, 4, 4, 1)]
    results = data.map_in_order(upper, rows, batch_size=4, length_of=len, budget=10)
    assert list(results) == [text.upper() for text in rows]
    assert batches == [[1, 1, 2], [4, 4], [4], [9], [30]]


def test_only_a_window_of_rows_is_read_ahead():
    read = 0

    def rows():
        nonlocal read
        for read in range(1, 101):  # noqa: B007
            yield "x"

    results = data.map_in_order(list, rows(), batch_size=2, length_of=len, window=3)
    next(results)
    assert read == 6


def test_processes_return_results_in_order_and_raise_their_errors(monkeypatch):
    monkeypatch.setattr("common.data.cores", lambda: [0, 1])
    results = data.map_in_processes(process_of, [*range(240), *[-1] * 10])
    numbers, processes = zip(*itertools.islice(results, 240), strict=True)
    assert numbers == tuple(range(240)) and os.getpid() not in processes
    with pytest.raises(InputError, match="-1 is negative"):
        next(results)


@pytest.mark.parametrize("reason", ["one core", "a script"])
def test_one_core_or_a_script_uses_no_other_process(reason, monkeypatch):
    main = sys.modules["__main__"]
    count = 1 if reason == "one core" else 2
    monkeypatch.setattr("common.data.cores", lambda: list(range(count)))
    if reason == "a script":
        monkeypatch.setattr(main, "__spec__", None)
        monkeypatch.setattr(main, "__file__", "mine.py", raising=False)
    results = list(data.map_in_processes(process_of, list(range(250))))
    assert results == [(number, os.getpid()) for number in range(250)]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs the process list of Linux")
def test_processes_end_with_a_killed_parent():
    script = (
        "import sys\nfrom common import data\nfrom tests.common import processes\n"
        "def main():\n"
        "    for _, process in data.map_in_processes(processes.process_of, list(range(10**6))):\n"
        "        print(process, flush=True)\n"
        "main()\n"
    )
    line = [sys.executable, "-c", script]
    parent = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()

    def is_alive():  # the command line of a zombie process is empty
        command = Path(f"/proc/{child}/cmdline")
        return command.exists() and command.read_bytes()

    deadline = time.time() + 30
    while is_alive() and time.time() < deadline:
        time.sleep(0.1)
    assert not is_alive()
