"""Everything between examples and batches: where files come from, splits, buckets, order."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

Row = TypeVar("Row")
Answer = TypeVar("Answer")


# --- files ----------------------------------------------------------------------------------------


# --- data sets ------------------------------------------------------------------------------------


# --- batches --------------------------------------------------------------------------------------


def bucket_lengths(longest: int, count: int = 6) -> list[int]:
    """Chooses few fixed lengths for batches, so that few shapes are compiled.

    Lengths grow by about the fourth root of ten from step to step, down from `longest`, in
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
    length_of: Callable[[Mapping[str, tf.Tensor]], tf.Tensor] = lambda example: example["length"],
    shuffle_seed: int | None = None,
    buffer: int = 50_000,
) -> tf.data.Dataset:
    """Groups examples of like length into right-padded batches of few fixed lengths.

    Args:
      examples: a data set of dicts; no sequence longer than `lengths[-1]`.
      lengths: the bucket lengths, rising.
      batch_size: examples a batch; the last batch of a bucket may be smaller.
      length_of: the length of an example.
      shuffle_seed: shuffles examples first, the same way for the same seed. None: no shuffling.
      buffer: examples held for shuffling.

    Returns:
      A data set of dicts of tensors `[batch, bucket length, ...]`.
    """
    if shuffle_seed is not None:
        examples = examples.shuffle(buffer, seed=shuffle_seed, reshuffle_each_iteration=False)
    return examples.bucket_by_sequence_length(
        length_of,
        bucket_boundaries=[length + 1 for length in lengths],  # tf.data's bounds are exclusive
        bucket_batch_sizes=[batch_size] * (len(lengths) + 1),
        pad_to_bucket_boundary=True,
    ).prefetch(tf.data.AUTOTUNE)


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed for an epoch's own order: known without having run the epochs before it."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0] >> 1)


def map_in_processes(function: Callable[[Row], Answer], rows: Sequence[Row]) -> Iterator[Answer]:
    """What `map` gives, made by a process for each core, eight at most: for work in pure Python.

    The processes are new ones, since a copy of a process that runs TensorFlow can stand still. Each
    imports what `function` needs, which takes seconds: fewer than 200 rows are not worth it. A
    script, which each of them would run if its main part has no guard, gets plain `map`, too.

    Args:
      function: of a module; it, the rows and the answers travel between processes.
      rows: what it is given.

    Raises:
      Exception: what `function` raised.

    Example:
      >>> list(map_in_processes(math.sqrt, [1.0, 4.0, 9.0]))
      [1.0, 2.0, 3.0]
    """
    # No more than eight, for each holds an imported TensorFlow: 700 MB.
    main, count = sys.modules["__main__"], min(os.cpu_count() or 1, len(rows) // 100, 8)
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
    """Leaves Ctrl-C to the parent, and ends when that ends, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def map_in_order(
    function: Callable[[list[Row]], Sequence[Answer]],
    rows: Iterable[Row],
    *,
    batch_size: int,
    length_of: Callable[[Row], int],
    window: int = 64,
) -> Iterator[Answer]:
    """Answers rows in batches of like length, and gives the answers in the rows' own order.

    Memory is bounded: `window` batches are read ahead, sorted by length, answered, and put back.

    Example:
      >>> list(map_in_order(lambda b: [s.upper() for s in b], ["abc", "a"], batch_size=1,
      ...                   length_of=len))
      ['ABC', 'A']
    """
    iterator = iter(rows)
    while chunk := [row for _, row in zip(range(window * batch_size), iterator, strict=False)]:
        order = sorted(range(len(chunk)), key=lambda index: length_of(chunk[index]))
        answers: list[Any] = [None] * len(chunk)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            results = function([chunk[place] for place in places])
            for place, answer in zip(places, results, strict=True):
                answers[place] = answer
        yield from answers
