"""The exported signatures: raw text -> its translation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection

from common.decoding import Decoded
from common.serving.rows import length_fits, run_valid, shorten, within_budget
from common.serving.targets import PORTABLE, Examples, Run, Signatures, Target, fit, shared
from tasks.translation.model import limit_length, translate
from tasks.translation.shortlist import Shortlist
from tasks.translation.sources import Source, encode_source
from tasks.translation.subwords import END, START, Subwords

import keras
import numpy as np
import tensorflow as tf

MOST = 16_384  # subwords of a request: its rows times the longest translation

# Requests that verify an export and warm a server up; the middle ones are unusual.
SAMPLES = ("Où est la gare ?", "", "\U0001f600 \u6771\u4eac", "Je ne sais pas. " * 8)


def signatures(
    model: keras.Model,
    reader: Subwords,
    writer: Subwords,
    *,
    max_length: int,
    beam: int,
    alpha: float,
    kinds: Collection[str] = (),
    shortlist: Shortlist | None = None,
    target: Target = PORTABLE,
) -> Signatures:
    """Make the exported functions.

    - `serving_default`: `text` `<string>[batch]` -> `translation` `<string>[batch]`, `score`
      `<float32>[batch]`, the length-normalised log-probability, and `truncated` `<bool>[batch]`,
      whether the end of the text or of its translation is missing.
    - `tensors`: `ids` `<int32>[batch, time]` with the end symbol, `length` `<int32>[batch]` ->
      `target_ids` `<int32>[batch, max_length]`, `target_length` `<int32>[batch]`, `score`.
    - `explain`: `text` -> `translations` `<string>[batch, n]` and `scores` `<float32>[batch, n]`,
      best first; `truncated`; `tokens` `<string>[batch, time]`, the subwords of the source;
      `target_tokens` `<string>[batch, steps]`, those of the best translation; `attention`
      `<float32>[batch, steps, time]`, the attention weights of each of them.

    Texts and translations are truncated to `max_length` subwords (texts also to 16,384
    bytes). The translation of an empty text is "" with score 0. So is that of a row whose `length`
    is not in 1..`time`, exceeds `max_length + 1`, or covers an id that is no subword; and that of a
    row beyond the budget of `MOST` subwords or 4 MiB of text, see
    `common.serving.rows.within_budget`.

    Args:
      model: model of `tasks.translation.model.build`.
      reader: subwords of the source language.
      writer: subwords of the target language.
      max_length: maximum number of subwords of a text and of its translation.
      beam: number of hypotheses of the beam search.
      alpha: exponent of the length normalisation.
      kinds: kinds of words that are copied, see `tasks.translation.sources`.
      shortlist: the subwords that translations may contain; None: all, as static shapes demand.
      target: device of the export.
    """
    limited = functools.partial(translate, model, max_length=max_length, shortlist=shortlist)
    search = functools.partial(limited, beam=beam, alpha=alpha)
    limits = {"size": len(reader), "max_length": max_length}
    run = _make_run(functools.partial(search, best=1), target, "core", **limits)
    run_all = _make_run(functools.partial(search, best=beam), target, "core_n_best", **limits)
    text_spec = tf.TensorSpec([None], tf.string, name="text")
    id_spec = tf.TensorSpec([None, None], tf.int32, name="ids")
    length_spec = tf.TensorSpec([None], tf.int32, name="length")

    def encode(text: tf.Tensor) -> Source:
        return encode_source(reader, shorten(text), max_length=max_length, kinds=kinds)

    def is_truncated(source: Source, outputs: dict[str, tf.Tensor]) -> tf.Tensor:
        at_limit = outputs["length"][:, 0] >= limit_length(source.length, max_length)
        return outputs["valid"] & (source.truncated | at_limit)

    @tf.function(input_signature=[text_spec])
    def serving_default(text: tf.Tensor) -> dict[str, tf.Tensor]:
        source = encode(text)
        outputs = run(source.ids, source.length)
        best = _best(outputs)
        return {
            "translation": source.decode(writer, best["tokens"], best["length"]),
            "score": best["score"],
            "truncated": is_truncated(source, outputs),
        }

    @tf.function(input_signature=[id_spec, length_spec])
    def tensors(ids: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        best = _best(run(ids, length))
        return {
            "target_ids": best["tokens"],
            "target_length": best["length"],
            "score": best["score"],
        }

    @tf.function(input_signature=[text_spec])
    def explain(text: tf.Tensor) -> dict[str, tf.Tensor]:
        source = encode(text)
        ids, outputs = source.ids, run_all(source.ids, source.length)
        length = tf.where(outputs["valid"], source.length, 0)
        target_ids, valid, attention = _attend(model, ids, length, outputs)
        real = tf.sequence_mask(length, tf.shape(ids)[1])
        return {
            "translations": _decode_all(source, writer, outputs["tokens"], outputs["length"]),
            "scores": outputs["score"],
            "truncated": is_truncated(source, outputs),
            "tokens": reader.to_tokens(ids, real, source.copies),
            "target_tokens": writer.to_tokens(target_ids, valid, source.copies),
            "attention": attention,
        }

    return {"serving_default": serving_default, "tensors": tensors, "explain": explain}


def _make_run(
    translate: Callable[[tf.Tensor, tf.Tensor], Decoded],
    target: Target,
    name: str,
    *,
    size: int,
    max_length: int,
) -> Run:
    """Make the computation that signatures share; it is numeric, so accelerators can run it.

    Args:
      translate: returns the hypotheses for `ids` and `length`.
      target: device of the export.
      name: of the computation.
      size: number of subwords of the source language.
      max_length: maximum number of subwords of a text and of its translation.

    Returns:
      A function of `ids` and `length`. It returns the hypotheses, best first, as `tokens`
      `<int32>[batch, beam, max_length]`, `length` `<int32>[batch, beam]` and `score`
      `<float32>[batch, beam]`; and `valid` `<bool>[batch]`: which rows are translated.
    """

    def search(ids: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        return translate(ids, length)._asdict()

    core = target.core(name, search, timed=["ids"])

    @shared
    def run(ids: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        in_vocabulary = (ids >= 0) & (ids < size)
        real = tf.sequence_mask(length, tf.shape(ids)[1])
        valid = length_fits(length, ids, at_most=max_length + 1)
        valid &= tf.reduce_all(in_vocabulary | ~real, axis=1)
        # A short text may have a long translation.
        valid = within_budget(valid, tf.fill(tf.shape(length), max_length), MOST)
        # Values in the padding may be no ids at all.
        inputs = {"ids": tf.where(in_vocabulary, ids, END), "length": length}
        outputs = run_valid(core, inputs, valid, fill={"ids": END, "length": 1}, timed=["ids"])
        return {**outputs, "valid": valid}

    return run


def _best(outputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Return the best hypothesis of each row."""
    return {name: outputs[name][:, 0] for name in ("tokens", "length", "score")}


def _decode_all(
    source: Source, writer: Subwords, tokens: tf.Tensor, length: tf.Tensor
) -> tf.Tensor:
    """Decode `<int32>[batch, n, steps]` of `length` `<int32>[batch, n]` to `<string>[batch, n]`."""
    flat = tf.reshape(tokens, [-1, tokens.shape[2]])
    text = source.repeat(length.shape[1]).decode(writer, flat, tf.reshape(length, [-1]))
    return tf.reshape(text, tf.shape(length))


def _attend(
    model: keras.Model, ids: tf.Tensor, length: tf.Tensor, outputs: dict[str, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Compute the attention of the best translations; on the host also in an export for a TPU.

    Args:
      model: model of `tasks.translation.model.build`.
      ids: `<int32>[batch, time]`, the sources.
      length: `<int32>[batch]`.
      outputs: result of `run` for these.

    Returns:
      `(target_ids <int32>[batch, steps], valid <bool>[batch, steps],
      attention <float32>[batch, steps, time])`. The translations have their end symbol. The
      attention is 0 in steps that are not valid.
    """
    steps = tf.where(outputs["valid"], outputs["length"][:, 0] + 1, 0)
    best = outputs["tokens"][:, 0, : tf.maximum(0, tf.reduce_max(tf.concat([steps, [0]], 0)) - 1)]
    started = tf.pad(best, [[0, 0], [1, 0]], constant_values=START)

    def attend(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"attention": model(inputs, training=False)["attention"]}

    inputs = {"ids": ids, "length": length, "target_ids": started}
    outputs = run_valid(attend, inputs, outputs["valid"], fill={"length": 1}, timed=["ids"])
    attention = outputs["attention"]
    place = tf.range(tf.shape(started)[1])
    ended = tf.where(place == steps[:, None] - 1, END, tf.pad(best, [[0, 0], [0, 1]]))
    valid = tf.sequence_mask(steps, tf.shape(started)[1])
    attention = fit(tf.transpose(attention, [0, 2, 1]), tf.shape(ids)[1])
    return ended, valid, tf.where(valid[:, :, None], tf.transpose(attention, [0, 2, 1]), 0.0)


def examples(max_length: int) -> Examples:
    """Return requests for each signature: short and long ones, some with invalid rows."""
    texts = [{"text": np.array(SAMPLES[:3])}, {"text": np.array(SAMPLES)}]
    batches = []
    for time in (8, max_length + 1):
        ids = np.full((3, time), 40, np.int32)
        ids[:2, -1] = END
        batches.append({"ids": ids, "length": np.array([time, time // 2, 0], np.int32)})
    return {"serving_default": texts, "tensors": batches, "explain": texts}
