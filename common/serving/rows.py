"""Invalid rows of a request: their outputs are empty, and they never disturb a valid row.

A server merges the requests of several clients into one batch, so an exception would fail all of
them. Each task therefore marks the valid rows of a batch, runs all rows with harmless values in
place of the invalid ones, and blanks the outputs of the latter:

    valid = length_fits(length, ids)
    outputs = run_valid(
        core,
        {"ids": ids, "length": length},
        valid,
        fill={"length": 1},
        timed=["ids"],
        steps={"attention": same},
    )

An invalid row runs as one step rather than none, since cuDNN refuses a batch with an empty row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from common.serving.targets import Run, Steps, choose_rows

from etils import epy

with epy.lazy_imports():
    import tensorflow as tf


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


def run_valid(
    run: Run,
    inputs: Mapping[str, tf.Tensor],
    valid: tf.Tensor,
    *,
    fill: Mapping[str, Any],
    timed: Collection[str] = (),
    steps: Mapping[str, Steps] | None = None,
) -> dict[str, tf.Tensor]:
    """Run a batch of any number of rows and steps, and blank the rows that are not valid.

    `run` always receives at least one row and one step, because loops and convolutions have no
    result for none.

    Args:
      run: named tensors -> named numeric tensors, all with the batch first; see `Target.core`.
      inputs: its inputs.
      valid: `<bool>[batch]`.
      fill: input name -> the value that the input takes in invalid and in added rows. Other inputs
        keep their values in invalid rows.
      timed: inputs with the time as second dimension.
      steps: outputs with a time as second dimension -> the number of their steps for a number of
        input steps. They are cut to that.

    Returns:
      The outputs of `run` for the rows of `inputs`, 0 in invalid rows.

    Example:
      >>> doubled = run_valid(
      ...     lambda x: {"y": 2 * x}, {"x": tf.constant([[1], [2]])}, tf.constant([True, False]),
      ...     fill={"x": 7}, timed=["x"])
      >>> doubled["y"].numpy().tolist()
      [[2], [0]]
    """
    rows = tf.shape(valid)[0]
    added = tf.maximum(0, 1 - rows)
    padded, time = {}, None
    for name, value in inputs.items():
        value = tf.convert_to_tensor(value)
        missing: Any = 0
        if name in timed:
            time = tf.shape(value)[1]
            missing = tf.maximum(0, 1 - time)
        filler = tf.cast(fill.get(name, 0), value.dtype)
        if name in fill:
            value = choose_rows(valid, value, filler)
        margins = [[0, added], [0, missing], *[[0, 0]] * (len(value.shape) - 2)]
        padded[name] = tf.pad(value, margins[: len(value.shape)], constant_values=filler)
    outputs = {}
    for name, value in run(**padded).items():
        value = value[:rows]
        if steps and name in steps:
            value = value[:, : steps[name](time)]
        outputs[name] = choose_rows(valid, value)
    return outputs
