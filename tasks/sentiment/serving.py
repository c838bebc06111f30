"""The exported signatures: raw text -> class and stars."""

from __future__ import annotations

from collections.abc import Sequence

from common.serving.rows import length_fits, run_valid, shorten, within_budget
from common.serving.targets import PORTABLE, Examples, Run, Signatures, Target, same, shared
from common.text import Vocabulary
from tasks.sentiment.tokens import tokenize

import keras
import numpy as np
import tensorflow as tf

MOST = 131_072  # tokens of a request: its rows times the longest of them

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
    vocabulary: Vocabulary,
    labels: Sequence[str],
    max_length: int,
    target: Target = PORTABLE,
) -> Signatures:
    """Make the exported functions.

    - `serving_default`: `text` `<string>[batch]` -> `label` `<string>[batch]`, `stars`
      `<int32>[batch]`, `probabilities` `<float32>[batch, classes]`.
    - `tensors`: `ids` `<int32>[batch, time]`, `length` `<int32>[batch]` -> `probabilities`.
    - `explain`: `text` -> `tokens` `<string>[batch, time]`, `attention` `<float32>[batch, time]`.

    Texts are truncated to `max_length` tokens (and to 16,384 bytes); `tensors` accepts any
    number. A row without a token, or with a `length` outside 1..`time`, has the label "", 0 stars
    and probabilities of 0. So has a row beyond the budget of `MOST` tokens or 4 MiB of text;
    see `common.serving.rows.within_budget`.
    """
    run = _make_run(model, target)
    names = tf.constant(list(labels))
    stars = tf.constant(stars_of(len(labels)))
    text_spec = tf.TensorSpec([None], tf.string, name="text")
    ids_spec = tf.TensorSpec([None, None], tf.int32, name="ids")
    length_spec = tf.TensorSpec([None], tf.int32, name="length")

    def encode(text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor, tf.Tensor]:
        text = shorten(text)
        tokens = tokenize(text)[:, :max_length]
        return tokens, vocabulary.ids(tokens).to_tensor(), tf.cast(tokens.row_lengths(), tf.int32)

    @tf.function(input_signature=[text_spec])
    def serving_default(text: tf.Tensor) -> dict[str, tf.Tensor]:
        _, ids, length = encode(text)
        outputs = run(ids, length)
        probabilities, valid = outputs["probabilities"], outputs["valid"]
        best = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
        return {
            "label": tf.where(valid, tf.gather(names, best), ""),
            "stars": tf.where(valid, tf.gather(stars, best), 0),
            "probabilities": probabilities,
        }

    @tf.function(input_signature=[ids_spec, length_spec])
    def tensors(ids: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": run(ids, length)["probabilities"]}

    @tf.function(input_signature=[text_spec])
    def explain(text: tf.Tensor) -> dict[str, tf.Tensor]:
        tokens, ids, length = encode(text)
        return {"tokens": tokens.to_tensor(), "attention": run(ids, length)["attention"]}

    return {"serving_default": serving_default, "tensors": tensors, "explain": explain}


def _make_run(model: keras.Model, target: Target) -> Run:
    """Make the computation that all signatures share; it is numeric, so accelerators can run it.

    Returns:
      A function of `ids` and `length`, which returns `probabilities`, `attention`, and `valid`
      `<bool>[batch]`: which rows are computed.
    """

    def classify(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(inputs, training=False)
        return {name: tf.cast(outputs[name], tf.float32) for name in ("probabilities", "attention")}

    timed = {"attention": same}
    core = target.core("core", classify, timed=["ids"], steps=timed)

    @shared
    def run(ids: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs = {"ids": ids, "length": length}
        valid = within_budget(length_fits(length, ids), length, MOST)
        return {"valid": valid} | run_valid(
            core, inputs, valid, fill={"length": 1}, timed=["ids"], steps=timed
        )

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
