"""The exported signatures: raw text -> tokens, tags and their places in the text."""

from __future__ import annotations

from collections.abc import Sequence

from common.serving.rows import length_fits, run_valid, shorten, within_budget
from common.serving.targets import PORTABLE, Examples, Run, Signatures, Target, fit, same, shared
from tasks.ner.data import Reader
from tasks.ner.tokens import locate

import keras
import numpy as np
import tensorflow as tf

MOST = 49_152  # tokens of a request: its rows times the longest of them
LONGEST_TOKEN = 1_024  # bytes of a token that are read by signature `tokens`

# Requests that verify an export and warm a server up.
SAMPLES = (
    "Ada Lovelace lived in London.",
    "the british museum opens at ten, says Mr. O'Neill",
    "",
)


def signatures(
    model: keras.Model,
    reader: Reader,
    tags: Sequence[str],
    max_length: int,
    target: Target = PORTABLE,
) -> Signatures:
    """Make the exported functions.

    - `serving_default`: `text` `<string>[batch]` -> `tokens`, `tags` `<string>[batch, time]`,
      `start`, `end` `<int32>[batch, time]`, `confidence` `<float32>[batch, time]`, `length`
      `<int32>[batch]`. A token is `text[start:end]`, in code points of the repaired text. Its
      confidence is the probability of the entity to which it belongs, or else that of `O`.
    - `explain`: the same, and `probabilities` `<float32>[batch, time, tags]`.
    - `tensors`: `words` `<int32>[batch, time]`, `characters` `<int32>[batch, time, word length]`,
      `length` `<int32>[batch]` -> `tags` `<int32>[batch, time]`, `probabilities`, `confidence`.
    - `tokens`: `tokens` `<string>[batch, time]`, `length` `<int32>[batch]` -> `tags`
      `<string>[batch, time]`, `confidence`.

    Texts are truncated to `max_length` tokens (and to 16,384 bytes); `tensors` and `tokens`
    accept any number. Outputs after the end of a row are "" or 0. A row without a token, or with a
    `length` outside 1..`time`, has nothing but these. So has a row beyond the budget of `MOST`
    tokens or 4 MiB of text; see `common.serving.rows.within_budget`.
    """
    run = _make_run(model, target)
    names = tf.constant(list(tags))
    text_spec = tf.TensorSpec([None], tf.string, name="text")
    token_spec = tf.TensorSpec([None, None], tf.string, name="tokens")
    word_spec = tf.TensorSpec([None, None], tf.int32, name="words")
    character_spec = tf.TensorSpec([None, None, reader.word_length], tf.int32, name="characters")
    length_spec = tf.TensorSpec([None], tf.int32, name="length")

    def to_names(outputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return tf.where(outputs["real"], tf.gather(names, outputs["tags"]), "")

    def tag_tokens(tokens: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        # Only the tokens of computed rows are read.
        length = tf.where(within_budget(length_fits(length, tokens), length, MOST), length, 0)
        words, characters = reader(tf.RaggedTensor.from_tensor(tokens, lengths=length))
        time = tf.shape(tokens)[1]
        return {**run(fit(words, time), fit(characters, time), length), "length": length}

    def tag_text(text: tf.Tensor) -> dict[str, tf.Tensor]:
        text = shorten(text)
        tokens, start, end = (part[:, :max_length] for part in locate(text))
        outputs = tag_tokens(tokens.to_tensor(), tf.cast(tokens.row_lengths(), tf.int32))
        real = outputs["real"]
        return {
            "tokens": tf.where(real, tokens.to_tensor(), ""),
            "tags": to_names(outputs),
            "start": tf.where(real, start.to_tensor(), 0),
            "end": tf.where(real, end.to_tensor(), 0),
            "confidence": outputs["confidence"],
            "length": outputs["length"],
            "probabilities": outputs["probabilities"],
        }

    @tf.function(input_signature=[text_spec])
    def serving_default(text: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = tag_text(text)
        del outputs["probabilities"]
        return outputs

    @tf.function(input_signature=[text_spec])
    def explain(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return tag_text(text)

    @tf.function(input_signature=[word_spec, character_spec, length_spec])
    def tensors(words: tf.Tensor, characters: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = run(words, characters, length)
        return {name: outputs[name] for name in ("tags", "probabilities", "confidence")}

    @tf.function(input_signature=[token_spec, length_spec])
    def tokens(tokens: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        tokens = tf.strings.substr(tokens, 0, LONGEST_TOKEN)
        outputs = tag_tokens(tokens, length)
        return {"tags": to_names(outputs), "confidence": outputs["confidence"]}

    return {
        "serving_default": serving_default,
        "tensors": tensors,
        "tokens": tokens,
        "explain": explain,
    }


def _make_run(model: keras.Model, target: Target) -> Run:
    """Make the computation that all signatures share; it is numeric, so accelerators can run it.

    Returns:
      A function of `words`, `characters` and `length`, which returns `tags` (indices),
      `probabilities`, `confidence`, and `real` `<bool>[batch, time]`: which steps are tokens of a
      valid row.
    """

    def tag(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(inputs, training=False)
        probabilities = tf.cast(outputs["probabilities"], tf.float32)
        confidence = tf.cast(outputs["confidence"], tf.float32)
        return {"tags": outputs["tags"], "probabilities": probabilities, "confidence": confidence}

    timed = {"tags": same, "probabilities": same, "confidence": same}
    core = target.core("core", tag, timed=["words", "characters"], steps=timed)

    @shared
    def run(words: tf.Tensor, characters: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        valid = within_budget(length_fits(length, words), length, MOST)
        inputs = {"words": words, "characters": characters, "length": length}
        outputs = run_valid(
            core, inputs, valid, fill={"length": 1}, timed=["words", "characters"], steps=timed
        )
        # A static core may return any values after the end of a row.
        real = tf.sequence_mask(tf.where(valid, length, 0), tf.shape(words)[1])
        return {
            "tags": tf.where(real, outputs["tags"], 0),
            "probabilities": tf.where(real[..., None], outputs["probabilities"], 0.0),
            "confidence": tf.where(real, outputs["confidence"], 0.0),
            "real": real,
        }

    return run


def examples(lengths: Sequence[int], word_length: int) -> Examples:
    """Return requests for each signature, at least one per bucket length."""
    texts, numbers, strings = [np.array(SAMPLES)], [], []
    for time in lengths:
        texts.append(np.array([SAMPLES[0], SAMPLES[2], " ".join(["London"] * time)]))
        length = np.array([time, max(1, time // 2)], np.int32)
        characters = np.ones((2, time, word_length), np.int32)
        words = np.ones((2, time), np.int32)
        numbers.append({"words": words, "characters": characters, "length": length})
        strings.append({"tokens": np.full((2, time), "word", object), "length": length})
    requests = [{"text": text} for text in texts]
    return {"serving_default": requests, "tensors": numbers, "tokens": strings, "explain": requests}
