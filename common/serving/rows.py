"""Rows of a request that are not computed: their outputs are empty, and no valid row changes.

A server merges the requests of several clients into one batch, so an exception would fail all of
them. Each task therefore marks the valid rows of a batch, runs these alone, and leaves the outputs
of the others blank:

    valid = length_fits(length, ids, at_most=LONGEST)
    valid = within_budget(valid, length, MOST)
    outputs = run_valid(
        core,
        {"ids": ids, "length": length},
        valid,
        fill={"length": 1},
        timed=["ids"],
        steps={"attention": same},
    )

So a rejected row costs nothing, and `LONGEST`, `MOST` and `MOST_ROWS` bound the cost of a request.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from common.serving.targets import Run, Steps, choose_rows, fit

from etils import epy

with epy.lazy_imports():
    import tensorflow as tf

MOST_ROWS = 1024  # of a request; its outputs hold all of them
LONGEST_TEXT = 16_384  # bytes of a text that are read
MOST_TEXT = 1 << 22  # bytes of the texts of a request: its rows times the longest of them


def length_fits(
    length: tf.Tensor, sequences: tf.Tensor, *, at_least: int = 1, at_most: int | None = None
) -> tf.Tensor:
    """Return which rows have a length that fits their tensor.

    Args:
      length: `<int32>[batch]`.
      sequences: `[batch, time, ...]`.
      at_least: the smallest valid length.
      at_most: the largest valid length; None: that of the tensor.

    Returns:
      `<bool>[batch]`.

    Example:
      >>> length_fits(tf.constant([0, 2, 3]), tf.zeros([3, 2])).numpy()
      array([False,  True, False])
    """
    time = tf.shape(sequences)[1]
    limit = time if at_most is None else tf.minimum(time, at_most)
    return (length >= at_least) & (length <= limit)


def within_budget(valid: tf.Tensor, length: tf.Tensor, budget: int) -> tf.Tensor:
    """Return which valid rows are computed: the shortest ones, up to the budget of a batch.

    A batch costs as much as its rows times its longest row. In order of length (and, among equals,
    in the order of the batch), a row is computed if the number of rows up to it, times its length,
    is within the budget. So only rows that are not longer than a row can displace it; and every row
    is computed if the rows of the batch, times the longest one, are within the budget. No row of a
    batch of more than `MOST_ROWS` is computed.

    Args:
      valid: `<bool>[batch]`; other rows cost nothing.
      length: `<int>[batch]`.
      budget: maximum number of rows times their longest length.

    Returns:
      `<bool>[batch]`.

    Example:
      >>> valid = tf.constant([True, True, True, False])
      >>> within_budget(valid, tf.constant([5, 2, 4, 1]), 8).numpy()
      array([False,  True,  True, False])
    """
    length = tf.cast(length, tf.int64)
    order = tf.argsort(tf.where(valid, length, length.dtype.max), stable=True)
    rank = tf.cast(tf.math.invert_permutation(order), tf.int64) + 1
    valid &= tf.size(length) <= MOST_ROWS
    return valid & (rank <= budget // tf.maximum(length, 1))  # a product could overflow


def shorten(text: tf.Tensor, *, longest: int = LONGEST_TEXT, budget: int = MOST_TEXT) -> tf.Tensor:
    """Bound the cost of reading texts, before they are split into words.

    Args:
      text: `<string>[batch]`.
      longest: the bytes of a text that are read; the remaining ones are ignored.
      budget: of the bytes of a batch; see `within_budget`.

    Returns:
      `<string>[batch]`; "" for a text beyond the budget.

    Example:
      >>> shorten(tf.constant(["a film", "a", "b"]), longest=4, budget=4).numpy().tolist()
      [b'', b'a', b'b']
    """
    text = tf.strings.substr(text, 0, longest)
    computed = within_budget(tf.ones_like(text, tf.bool), tf.strings.length(text), budget)
    return tf.where(computed, text, "")


def text_limits(unit: str, longest: int, budget: int) -> dict[str, int]:
    """Return the settings that state the limits of a task that reads texts.

    Args:
      unit: what a text is split into, such as `tokens`.
      longest: how many of them are read of a text.
      budget: of those of a request.

    Returns:
      These, the limits of `shorten`, and `max_rows`: how many texts a request may have at least.

    Example:
      >>> text_limits("tokens", 64, 131_072)["max_rows"]
      256
    """
    return {
        f"max_{unit}": longest,
        f"max_batch_{unit}": budget,
        "max_bytes": LONGEST_TEXT,
        "max_batch_bytes": MOST_TEXT,
        "max_rows": min(budget // longest, MOST_TEXT // LONGEST_TEXT, MOST_ROWS),
    }


def run_valid(
    run: Run,
    inputs: Mapping[str, tf.Tensor],
    valid: tf.Tensor,
    *,
    fill: Mapping[str, Any],
    timed: Collection[str] = (),
    steps: Mapping[str, Steps] | None = None,
) -> dict[str, tf.Tensor]:
    """Run the valid rows of a batch, up to the end of the longest one; the others are blank.

    `run` always receives at least one row and one step, because loops and convolutions have no
    result for none.

    Args:
      run: named tensors -> named numeric tensors, all with the batch first; see `Target.core`.
      inputs: its inputs; `length` `<int32>[batch]` is the number of steps of each row.
      valid: `<bool>[batch]`.
      fill: input name -> its value in the row that stands for none.
      timed: inputs with the time as second dimension; `run` receives as many steps as the longest
        valid row has.
      steps: outputs with a time as second dimension -> the number of their steps for a number of
        steps of the `timed` inputs. They get as many as those of `inputs` would have; other outputs
        have as many as `run` returned.

    Returns:
      The outputs of `run` for the rows of `inputs`, 0 in invalid rows.

    Example:
      >>> inputs = {"x": tf.constant([[1, 1, 1], [2, 2, 2]]), "length": tf.constant([2, 3])}
      >>> doubled = run_valid(
      ...     lambda x, length: {"y": 2 * x}, inputs, tf.constant([True, False]),
      ...     fill={"length": 1}, timed=["x"], steps={"y": lambda time: time})
      >>> doubled["y"].numpy().tolist()
      [[2, 2, 0], [0, 0, 0]]
    """
    rows = tf.reshape(tf.where(valid), [-1])
    chosen = {name: tf.gather(value, rows) for name, value in inputs.items()}
    longest = tf.reduce_max(tf.concat([chosen["length"], [1]], axis=0))
    added = tf.maximum(0, 1 - tf.size(rows))
    for name, value in chosen.items():
        if name in timed:
            value = fit(value, longest)
        margins = [[0, added], *[[0, 0]] * (len(value.shape) - 1)]
        filler = tf.cast(fill.get(name, 0), value.dtype)
        chosen[name] = tf.pad(value, margins, constant_values=filler)
    outputs = dict(run(**chosen))
    # The place of each row among the valid ones.
    place = tf.maximum(tf.cumsum(tf.cast(valid, tf.int32)) - 1, 0)
    for name, count in (steps or {}).items():
        time = tf.shape(inputs[next(iter(timed))])[1]
        outputs[name] = fit(outputs[name], count(time))
    return {name: choose_rows(valid, tf.gather(value, place)) for name, value in outputs.items()}
