"""Raw text in, stars out: the signatures that are exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.serving.targets import PORTABLE, Target, same, shared
from common.text import Vocabulary, tokenize

import keras
import numpy as np
import tensorflow as tf

# Requests with which an export is verified and warmed up.
SAMPLES = (
    "A warm and funny film.",
    "I would not sit through it again, not even for free!",
    "",
)


def stars_of(classes: int) -> np.ndarray:
    """Stars of each class, worst first: `round(1 + 4k / (classes - 1))`, halves rounded up.

    Example:
      >>> stars_of(5), stars_of(2), stars_of(3)
      ([1, 2, 3, 4, 5], [1, 5], [1, 3, 5])
    """
    return np.floor(1.0 + 4.0 * np.arange(classes) / (classes - 1) + 0.5).astype(np.int32)


def signatures(
    model: keras.Model,
    vocabulary: Vocabulary,
    labels: Sequence[str],
    max_length: int,
    target: Target = PORTABLE,
) -> Mapping[str, tf.types.experimental.PolymorphicFunction]:
    """Makes the exported functions.

    - `serving_default`: `text` `<string>[batch]` -> `label` `<string>[batch]`, `stars`
      `<int32>[batch]`, `probabilities` `<float32>[batch, classes]`.
    - `tensors`: `ids` `<int32>[batch, time]`, `length` `<int32>[batch]` -> `probabilities`.
    - `explain`: `text` -> `tokens` `<string>[batch, time]`, `attention` `<float32>[batch, time]`.

    Texts are cut at `max_length` tokens. A row without a word, or whose `length` is not between 1
    and `time`, gets the empty answer: label "", 0 stars, probabilities 0.
    """
    names = tf.constant(list(labels))
    stars = tf.constant(stars_of(len(labels)))
    text_spec = tf.TensorSpec([None], tf.string, name="text")

    def ask(ids: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model({"ids": ids, "length": length}, training=False)
        return {name: outputs[name] for name in ("probabilities", "attention")}

    core = target.core("core", ask, timed=["ids"], steps={"attention": same})

    @shared
    def run(ids: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        # At least one step, since a loop over none has no last state.
        ids = tf.pad(ids, [[0, 0], [0, tf.maximum(0, 1 - tf.shape(ids)[1])]])
        answered = (length > 0) & (length <= tf.shape(ids)[1])
        # A row that gets no answer is run as one step, since cuDNN refuses a batch with a row of
        # none, and blanked.
        outputs = core(ids=ids, length=tf.where(answered, length, 1))
        kept = tf.cast(answered, tf.float32)[:, None]
        return {name: tf.cast(value, tf.float32) * kept for name, value in outputs.items()}

    def encode(text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor, tf.Tensor]:
        tokens = tokenize(text)[:, :max_length]
        return tokens, vocabulary.ids(tokens).to_tensor(), tf.cast(tokens.row_lengths(), tf.int32)

    @tf.function(input_signature=[text_spec])
    def serving_default(text: tf.Tensor) -> dict[str, tf.Tensor]:
        _, ids, length = encode(text)
        probabilities = run(ids, length)["probabilities"]
        best = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
        answered = length > 0
        return {
            "label": tf.where(answered, tf.gather(names, best), ""),
            "stars": tf.where(answered, tf.gather(stars, best), 0),
            "probabilities": probabilities,
        }

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int32, name="ids"),
            tf.TensorSpec([None], tf.int32, name="length"),
        ]
    )
    def tensors(ids: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": run(ids, length)["probabilities"]}

    @tf.function(input_signature=[text_spec])
    def explain(text: tf.Tensor) -> dict[str, tf.Tensor]:
        tokens, ids, length = encode(text)
        return {
            "tokens": tokens.to_tensor(),
            "attention": run(ids, length)["attention"][:, : tf.shape(ids)[1]],
        }

    return {"serving_default": serving_default, "tensors": tensors, "explain": explain}


def examples(lengths: Sequence[int]) -> Mapping[str, list[dict[str, np.ndarray]]]:
    """Requests for each signature, one or more per bucket length."""
    texts, batches = [np.array(SAMPLES)], []
    for time in lengths:
        texts.append(np.array([SAMPLES[0], SAMPLES[2], " ".join(["film"] * time)]))
        ids = np.ones((2, time), np.int32)
        batches.append({"ids": ids, "length": np.array([time, max(1, time // 2)], np.int32)})
    asked = [{"text": text} for text in texts]
    return {"serving_default": asked, "tensors": batches, "explain": asked}
