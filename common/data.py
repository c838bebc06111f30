"""Batches: length buckets, right padding, and maps in order or in processes."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from common.start_up import cores

import numpy as np
from etils import epy

with epy.lazy_imports():
    import tensorflow as tf

Row = TypeVar("Row")
Result = TypeVar("Result")

SHUFFLED = 50_000  # examples held in memory for shuffling


def bucket_lengths(longest: int, count: int = 6) -> list[int]:
    """Return a few fixed lengths for batches, so that few shapes are compiled.

    From `longest` down, each length is about the next one divided by the fourth root of ten, in
    multiples of eight.

    Example:
      >>> bucket_lengths(100)
      [8, 16, 24, 32, 64, 100]
    """
    lengths = {longest}
    length = float(longest)
    while len(lengths) < count and length > 8:
        length /= 10**0.25
        lengths.add(min(longest, -8 * int(-length // 8)))
    return sorted(lengths)


def batches(
    examples: tf.data.Dataset,
    lengths: Sequence[int],
    batch_size: int,
    *,
    shuffle_seed: int | None = None,
) -> tf.data.Dataset:
    """Group examples of similar length into right-padded batches of few fixed lengths.

    Args:
      examples: a data set of dicts with a `length`; none is longer than `lengths[-1]`.
      lengths: the bucket lengths, in rising order.
      batch_size: examples per batch; the last batch of a bucket may be smaller.
      shuffle_seed: seed of the order. None: no shuffling.

    Returns:
      A data set of dicts of tensors `[batch, bucket length, ...]`.
    """
    if shuffle_seed is not None:
        examples = examples.shuffle(SHUFFLED, seed=shuffle_seed, reshuffle_each_iteration=False)
    return examples.bucket_by_sequence_length(
        lambda example: example["length"],
        bucket_boundaries=[length + 1 for length in lengths],  # the bounds of tf.data are exclusive
        bucket_batch_sizes=[batch_size] * (len(lengths) + 1),
        pad_to_bucket_boundary=True,
    ).prefetch(tf.data.AUTOTUNE)


def epoch_seed(seed: int, epoch: int) -> int:
    """Return a seed for the order of one epoch, which does not depend on earlier epochs."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0] >> 1)


def map_in_processes(function: Callable[[Row], Result], rows: Sequence[Row]) -> Iterator[Result]:
    """Yield the results of `map`, computed by one process per core (at most eight).

    This is for work in pure Python. The processes are spawned, since a forked copy of a process
    that runs TensorFlow can hang. Each imports the main module of this process and the module of
    `function`, so fewer than 200 rows are mapped in this process. So are the rows of a script:
    spawned processes would run its main part again.

    Args:
      function: a function of a module that does not import TensorFlow, since each process would
        import it. The function, the rows and the results are pickled between processes.
      rows: its arguments.

    Raises:
      Exception: any exception of `function`.

    Example:
      >>> list(map_in_processes(abs, [1.0, -4.0]))
      [1.0, 4.0]
    """
    main, count = sys.modules["__main__"], min(len(cores()), len(rows) // 100, 8)
    is_script = getattr(main, "__spec__", None) is None and hasattr(main, "__file__")
    if is_script or count < 2:
        yield from map(function, rows)
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        count, multiprocessing.get_context("spawn"), initializer=_live_with_parent
    )
    try:
        yield from pool.map(function, rows, chunksize=8)
    finally:
        pool.shutdown(cancel_futures=True)


def _live_with_parent() -> None:
    """Ignore Ctrl-C, and end when the parent ends, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a child

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def map_in_order(
    function: Callable[[list[Row]], Sequence[Result]],
    rows: Iterable[Row],
    *,
    batch_size: int,
    length_of: Callable[[Row], int],
    window: int = 64,
    budget: int | None = None,
) -> Iterator[Result]:
    """Map rows in batches of similar length; yield the results in the order of the rows.

    Memory is bounded: `window` batches are read ahead, sorted by length, mapped, and put back in
    order.

    Args:
      function: batch -> the results of its rows.
      rows: read lazily.
      batch_size: maximum number of rows in a batch.
      length_of: the length by which rows are sorted.
      window: batches that are read ahead.
      budget: maximum number of rows of a batch times its longest length; one row may exceed it.

    Example:
      >>> rows = ["abc", "a"]
      >>> list(map_in_order(lambda b: [s.upper() for s in b], rows, batch_size=1, length_of=len))
      ['ABC', 'A']
    """
    iterator = iter(rows)
    while chunk := [row for _, row in zip(range(window * batch_size), iterator, strict=False)]:
        order = sorted(range(len(chunk)), key=lambda index: length_of(chunk[index]))
        results: list[Any] = [None] * len(chunk)
        while order:
            count = min(batch_size, len(order))
            while budget and count > 1 and count * length_of(chunk[order[count - 1]]) > budget:
                count -= 1
            places, order = order[:count], order[count:]
            batch = function([chunk[place] for place in places])
            for place, result in zip(places, batch, strict=True):
                results[place] = result
        yield from results
