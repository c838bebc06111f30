"""The exported signatures: raw text -> class and stars."""

from __future__ import annotations

from collections.abc import Sequence

from common.serving.rows import length_fits, run_valid, shorten, within_budget
from common.serving.targets import PORTABLE, Examples, Run, Signatures, Target, same, shared
from tasks.sentiment.tokens import Reader

import keras
import numpy as np
import tensorflow as tf

MOST = 65_536  # tokens of a request: its rows times the longest of them
WINDOWS = 16  # of a text that are read

# Requests that verify an export and warm a server up.
SAMPLES = (
    "A warm and funny film.",
    "I would not sit through it again, not even for free!",
    "",
)


def stars_of(classes: int) -> np.ndarray:
    """Return the stars of each class, worst first: `round(1 + 4k / (classes - 1))`, half up.

    Example:
      >>> stars_of(5).tolist(), stars_of(2).tolist(), stars_of(3).tolist()
      ([1, 2, 3, 4, 5], [1, 5], [1, 3, 5])
    """
    return np.floor(1.0 + 4.0 * np.arange(classes) / (classes - 1) + 0.5).astype(np.int32)


def signatures(
    model: keras.Model,
    reader: Reader,
    labels: Sequence[str],
    window: int,
    target: Target = PORTABLE,
) -> Signatures:
    """Make the exported functions.

    - `serving_default`: `text` `<string>[batch]` -> `label` `<string>[batch]`, `stars`
      `<int32>[batch]`, `probabilities` `<float32>[batch, classes]`, `truncated` `<bool>[batch]`.
    - `tensors`: `ids` `<int32>[batch, time]`, `length` `<int32>[batch]` -> `probabilities`.
    - `explain`: `text` -> `tokens` `<string>[batch, time]`, `attention` `<float32>[batch, time]`.

    A text of more than `window` tokens is read in windows of equal length, whose probabilities are
    joined by `join`. `truncated` marks a text of more than `WINDOWS` windows or 16,384 bytes, of
    which only the first ones are read. `tensors` reads any number of tokens at once. A row without
    a token, or with a `length` outside 1..`time`, has the label "", 0 stars and probabilities of 0.
    So has a row beyond the budget of `MOST` tokens or 4 MiB of text; see
    `common.serving.rows.within_budget`.
    """
    run = _make_run(model, target)
    names = tf.constant(list(labels))
    stars = tf.constant(stars_of(len(labels)))
    text_spec = tf.TensorSpec([None], tf.string, name="text")
    ids_spec = tf.TensorSpec([None, None], tf.int32, name="ids")
    length_spec = tf.TensorSpec([None], tf.int32, name="length")

    @shared
    def classify(text: tf.Tensor) -> dict[str, tf.Tensor | tf.RaggedTensor]:
        read = shorten(text)
        tokens, ids = reader(read, WINDOWS * window + 1)
        is_long = tokens.row_lengths() > WINDOWS * window
        tokens, ids = tokens[:, : WINDOWS * window], ids[:, : WINDOWS * window]
        length = tf.cast(tokens.row_lengths(), tf.int32)
        valid = within_budget(length > 0, length, MOST)
        windows, row = split_windows(ids, window)
        outputs = run(
            windows.to_tensor(), tf.cast(windows.row_lengths(), tf.int32), tf.gather(valid, row)
        )
        probabilities, share = join(outputs["probabilities"], row, tf.size(text))
        attention = tf.RaggedTensor.from_tensor(
            outputs["attention"] * share[:, None], lengths=windows.row_lengths()
        )
        is_cut = tf.strings.length(text) > tf.strings.length(read)
        return {
            "valid": valid,
            "truncated": valid & (is_long | is_cut),
            "probabilities": probabilities,
            "tokens": tokens,
            "attention": tokens.with_flat_values(attention.flat_values),
        }

    @tf.function(input_signature=[text_spec])
    def serving_default(text: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = classify(text)
        probabilities, valid = outputs["probabilities"], outputs["valid"]
        best = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
        return {
            "label": tf.where(valid, tf.gather(names, best), ""),
            "stars": tf.where(valid, tf.gather(stars, best), 0),
            "probabilities": probabilities,
            "truncated": outputs["truncated"],
        }

    @tf.function(input_signature=[ids_spec, length_spec])
    def tensors(ids: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        valid = within_budget(length_fits(length, ids), length, MOST)
        return {"probabilities": run(ids, length, valid)["probabilities"]}

    @tf.function(input_signature=[text_spec])
    def explain(text: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = classify(text)
        return {name: outputs[name].to_tensor() for name in ("tokens", "attention")}

    return {"serving_default": serving_default, "tensors": tensors, "explain": explain}


def split_windows(ids: tf.RaggedTensor, window: int) -> tuple[tf.RaggedTensor, tf.Tensor]:
    """Split rows into windows of nearly equal length.

    Args:
      ids: ragged `[batch, (tokens)]`.
      window: maximum number of tokens of a window.

    Returns:
      The windows, ragged `[windows, (tokens)]`, and the row of each, `<int32>[windows]`. A row
      without a token has no window.

    Example:
      >>> windows, row = split_windows(tf.ragged.constant([[1, 2, 3], [], [4, 5]]), 2)
      >>> windows.to_list(), row.numpy().tolist()
      ([[1, 2], [3], [4, 5]], [0, 0, 2])
    """
    length = tf.cast(ids.row_lengths(), tf.int32)
    count = -(-length // window)
    size = -(-length // tf.maximum(count, 1))
    number = tf.ragged.range(count)  # of each window in its row
    row = tf.cast(number.value_rowids(), tf.int32)
    size = tf.gather(size, row)
    lengths = tf.clip_by_value(tf.gather(length, row) - number.flat_values * size, 0, size)
    return tf.RaggedTensor.from_row_lengths(ids.flat_values, lengths), row


def join(
    probabilities: tf.Tensor, row: tf.Tensor, rows: tf.Tensor | int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Join the probabilities of windows, so that a verdict outweighs windows that only report.

    The result is their mean. The weight of a window is its certainty (1 minus the entropy over its
    maximum) times the square of its polarity (the mean distance of a class from the middle one,
    over the largest).

    Args:
      probabilities: `<float32>[windows, classes]`; 0 for a window that was not computed.
      row: the row of each window, `<int32>[windows]`.
      rows: number of rows.

    Returns:
      The probabilities of the rows, `<float32>[rows, classes]`, and the weight of each window in
      its row, `<float32>[windows]`.

    Example:
      >>> joined, weight = join(tf.constant([[0.5, 0.5], [0.0, 1.0]]), tf.constant([0, 0]), 1)
      >>> joined.numpy().round(2).tolist(), weight.numpy().round(2).tolist()
      ([[0.0, 1.0]], [0.0, 1.0])
    """
    entropy = -tf.reduce_sum(tf.math.xlogy(probabilities, probabilities), axis=-1)
    classes = probabilities.shape[1]
    certainty = 1.0 - entropy / np.log(classes)
    distance = np.abs(np.linspace(-1.0, 1.0, classes, dtype=np.float32))
    polarity = tf.linalg.matvec(probabilities, distance)
    weight = tf.maximum(certainty * polarity**2, 1e-6)
    weight /= tf.gather(tf.math.unsorted_segment_sum(weight, row, rows), row)
    return tf.math.unsorted_segment_sum(probabilities * weight[:, None], row, rows), weight


def _make_run(model: keras.Model, target: Target) -> Run:
    """Make the computation that all signatures share; it is numeric, so accelerators can run it.

    Returns:
      A function of `ids`, `length`, and `valid` `<bool>[batch]`, which rows are computed. It
      returns `probabilities` and `attention`.
    """

    def classify(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(inputs, training=False)
        return {name: tf.cast(outputs[name], tf.float32) for name in ("probabilities", "attention")}

    timed = {"attention": same}
    core = target.core("core", classify, timed=["ids"], steps=timed)

    @shared
    def run(ids: tf.Tensor, length: tf.Tensor, valid: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs = {"ids": ids, "length": length}
        return run_valid(core, inputs, valid, fill={"length": 1}, timed=["ids"], steps=timed)

    return run


def examples(lengths: Sequence[int]) -> Examples:
    """Return requests for each signature, at least one per bucket length."""
    texts, numbers = [np.array(SAMPLES)], []
    for time in lengths:
        texts.append(np.array([SAMPLES[0], SAMPLES[2], " ".join(["film"] * time)]))
        length = np.array([time, max(1, time // 2)], np.int32)
        numbers.append({"ids": np.ones((2, time), np.int32), "length": length})
    requests = [{"text": text} for text in texts]
    return {"serving_default": requests, "tensors": numbers, "explain": requests}
