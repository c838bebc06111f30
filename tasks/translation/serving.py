"""Raw text in, its translation out: the signatures that are exported."""

from __future__ import annotations

from collections.abc import Mapping

from common.decoding import Decoded
from common.serving.targets import PORTABLE, Target, shared
from tasks.translation.data import encode_source
from tasks.translation.model import translate
from tasks.translation.subwords import END, START, Subwords

import keras
import numpy as np
import tensorflow as tf

NO_LITERT = "LiteRT needs fixed lengths, and every sentence would pay for the longest search"
# Requests with which an export is verified and warmed up; the middle ones are bad rows.
SAMPLES = ("Où est la gare ?", "", "\U0001f600 \u6771\u4eac", "Je ne sais pas. " * 8)


def signatures(
    model: keras.Model,
    reader: Subwords,
    writer: Subwords,
    *,
    max_length: int,
    beam: int,
    alpha: float,
    target: Target = PORTABLE,
) -> Mapping[str, tf.types.experimental.PolymorphicFunction]:
    """Makes the exported functions.

    - `serving_default`: `text` `<string>[batch]` -> `translation` `<string>[batch]`, `score`
      `<float32>[batch]`, the length-normalised log-probability.
    - `tensors`: `ids` `<int32>[batch, time]` with the end mark, `length` `<int32>[batch]` ->
      `target_ids` `<int32>[batch, max_length]`, `target_length` `<int32>[batch]`, `score`.
    - `explain`: `text` -> `translations` `<string>[batch, n]` and `scores` `<float32>[batch, n]`,
      best first; `tokens` `<string>[batch, time]`, the source's subwords; `target_tokens`
      `<string>[batch, steps]`, the best translation's; `attention` `<float32>[batch, steps, time]`,
      what each of them looked at.

    Texts are cut at `max_length` subwords, translations at as many. A text of blanks, or a row
    whose `length` is not between 1 and `time` (and `max_length + 1`) or whose ids are none, gets
    the empty answer: "" and score 0.
    """
    size = len(reader)

    def ask(ids: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        chosen = {"max_length": max_length, "beam": beam, "alpha": alpha}
        return translate(model, ids, length, **chosen)._asdict()

    # The whole search; only the pictures' attention, in `explain`, is computed on the host.
    core = target.core("core", ask, timed=["ids"])

    @shared
    def search(ids: tf.Tensor, length: tf.Tensor) -> tuple[Decoded, tf.Tensor]:
        """Hypotheses of each row, and whether it is answered at all."""
        time = tf.shape(ids)[1]
        ids = tf.pad(ids, [[0, 0], [0, tf.maximum(0, 1 - time)]])
        real = tf.sequence_mask(length, tf.shape(ids)[1])
        known = (ids >= 0) & (ids < size)
        answered = (length > 0) & (length <= tf.minimum(time, max_length + 1))
        answered &= tf.reduce_all(known | ~real, axis=1)
        # A row without an answer is run as one step and blanked, so that it cannot raise.
        ids = tf.where(known & answered[:, None], ids, END)
        found = Decoded(**core(ids=ids, length=tf.where(answered, length, 1)))
        kept = answered[:, None]
        return Decoded(
            tf.where(kept[:, :, None], found.tokens, 0),
            tf.where(kept, found.length, 0),
            tf.where(kept, found.score, 0.0),
        ), answered

    text_spec = tf.TensorSpec([None], tf.string, name="text")

    @tf.function(input_signature=[text_spec])
    def serving_default(text: tf.Tensor) -> dict[str, tf.Tensor]:
        found, _ = search(*encode_source(reader, text, max_length=max_length))
        return {
            "translation": writer.decode(found.tokens[:, 0], found.length[:, 0]),
            "score": found.score[:, 0],
        }

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int32, name="ids"),
            tf.TensorSpec([None], tf.int32, name="length"),
        ]
    )
    def tensors(ids: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        found, _ = search(ids, length)
        return {
            "target_ids": found.tokens[:, 0],
            "target_length": found.length[:, 0],
            "score": found.score[:, 0],
        }

    @tf.function(input_signature=[text_spec])
    def explain(text: tf.Tensor) -> dict[str, tf.Tensor]:
        ids, length = encode_source(reader, text, max_length=max_length)
        found, answered = search(ids, length)
        best, steps = found.tokens[:, 0], tf.where(answered, found.length[:, 0] + 1, 0)
        best = best[:, : tf.maximum(0, tf.reduce_max(steps) - 1)]
        started = tf.pad(best, [[0, 0], [1, 0]], constant_values=START)
        inputs = {"ids": ids, "length": tf.maximum(length, 1), "target_ids": started}
        looked = model(inputs, training=False)["attention"]
        ended = tf.pad(best, [[0, 0], [0, 1]])
        place = tf.range(tf.shape(ended)[1])
        ended = tf.where(place == steps[:, None] - 1, END, ended)
        written = tf.sequence_mask(steps, tf.shape(ended)[1])
        rows, places = tf.shape(text)[0], tf.shape(found.tokens)[1]
        flat = writer.decode(
            tf.reshape(found.tokens, [-1, max_length]), tf.reshape(found.length, [-1])
        )
        return {
            "translations": tf.reshape(flat, [rows, places]),
            "scores": found.score,
            "tokens": reader.spell(ids, tf.sequence_mask(length, tf.shape(ids)[1])),
            "target_tokens": writer.spell(ended, written),
            "attention": tf.where(written[:, :, None], looked, 0.0),
        }

    return {"serving_default": serving_default, "tensors": tensors, "explain": explain}


def examples(max_length: int) -> Mapping[str, list[dict[str, np.ndarray]]]:
    """Requests for each signature: short and long ones, bad rows among them."""
    texts = [{"text": np.array(SAMPLES[:3])}, {"text": np.array(SAMPLES)}]
    batches = []
    for time in (8, max_length + 1):
        ids = np.full((3, time), 40, np.int32)
        ids[:2, -1] = END
        batches.append({"ids": ids, "length": np.array([time, time // 2, 0], np.int32)})
    return {"serving_default": texts, "tensors": batches, "explain": texts}
