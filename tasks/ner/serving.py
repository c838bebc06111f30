"""From raw text to tags and back to places in the text, all inside the exported graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.serving.targets import PORTABLE, Target, same, shared
from common.text import locate
from tasks.ner.data import Reader

import keras
import numpy as np
import tensorflow as tf

NO_LITERT = (
    "its answers are places in the raw text, and LiteRT has no ops that find the words there"
)
# Requests with which an export is verified and warmed up.
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
) -> Mapping[str, tf.types.experimental.PolymorphicFunction]:
    """Makes the exported functions.

    - `serving_default`: `text` `<string>[batch]` -> `tokens`, `tags` `<string>[batch, time]`,
      `start`, `end` `<int32>[batch, time]`, `length` `<int32>[batch]`. A token is
      `text[start:end]`, counted in code points of the repaired text.
    - `explain`: the same, and `probabilities` `<float32>[batch, time, tags]`.
    - `tensors`: `words` `<int32>[batch, time]`, `characters` `<int32>[batch, time, word length]`,
      `length` `<int32>[batch]` -> `tags` `<int32>[batch, time]`, `probabilities`.
    - `tokens`: `tokens` `<string>[batch, time]`, `length` `<int32>[batch]` -> `tags`
      `<string>[batch, time]`.

    Of a text, the first `max_length` tokens are answered; `tensors` and `tokens` take any number.
    Behind a row's length stand "", 0 and probabilities of 0. A row without a token, or whose
    `length` is not between 1 and `time`, gets nothing but these.
    """
    names = tf.constant(list(tags))
    text_spec = tf.TensorSpec([None], tf.string, name="text")
    length_spec = tf.TensorSpec([None], tf.int32, name="length")

    def ask(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(inputs, training=False)
        return {name: outputs[name] for name in ("tags", "probabilities")}

    timed = {"tags": same, "probabilities": same}
    core = target.core("core", ask, timed=["words", "characters"], steps=timed)

    @shared
    def run(
        words: tf.Tensor, characters: tf.Tensor, length: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Tags and probabilities, and which steps they stand for: `<bool>[batch, time]`."""
        # At least one step, since a loop over none has no last state.
        time = tf.shape(words)[1]
        missing = tf.maximum(0, 1 - time)
        words = tf.pad(words, [[0, 0], [0, missing]])
        characters = tf.pad(characters, [[0, 0], [0, missing], [0, 0]])
        answered = (length > 0) & (length <= time)
        # A row that gets no answer is run as one step, since cuDNN refuses a batch with a row of
        # none, and blanked.
        outputs = core(words=words, characters=characters, length=tf.where(answered, length, 1))
        real = tf.range(time)[None, :] < tf.where(answered, length, 0)[:, None]
        found = tf.where(real, outputs["tags"][:, :time], 0)
        probabilities = tf.cast(outputs["probabilities"][:, :time], tf.float32)
        return found, tf.where(real[..., None], probabilities, 0.0), real

    def read(text: tf.Tensor) -> dict[str, tf.Tensor]:
        tokens, start, end = (part[:, :max_length] for part in locate(text))
        length = tf.cast(tokens.row_lengths(), tf.int32)
        found, probabilities, real = run(*reader(tokens), length)
        return {
            "tokens": tokens.to_tensor(),
            "tags": tf.where(real, tf.gather(names, found), ""),
            "start": start.to_tensor(),
            "end": end.to_tensor(),
            "length": length,
            "probabilities": probabilities,
        }

    @tf.function(input_signature=[text_spec])
    def serving_default(text: tf.Tensor) -> dict[str, tf.Tensor]:
        answer = read(text)
        del answer["probabilities"]
        return answer

    @tf.function(input_signature=[text_spec])
    def explain(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return read(text)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int32, name="words"),
            tf.TensorSpec([None, None, reader.word_length], tf.int32, name="characters"),
            length_spec,
        ]
    )
    def tensors(words: tf.Tensor, characters: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        found, probabilities, _ = run(words, characters, length)
        return {"tags": found, "probabilities": probabilities}

    @tf.function(
        input_signature=[tf.TensorSpec([None, None], tf.string, name="tokens"), length_spec]
    )
    def tokens(tokens: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        words, characters = reader(tf.RaggedTensor.from_tensor(tokens))
        found, _, real = run(words, characters, length)
        return {"tags": tf.where(real, tf.gather(names, found), "")}

    return {
        "serving_default": serving_default,
        "tensors": tensors,
        "tokens": tokens,
        "explain": explain,
    }


def examples(lengths: Sequence[int], word_length: int) -> Mapping[str, list[dict[str, np.ndarray]]]:
    """Requests for each signature, one or more per bucket length."""
    texts, numbers, strings = [np.array(SAMPLES)], [], []
    for time in lengths:
        texts.append(np.array([SAMPLES[0], SAMPLES[2], " ".join(["London"] * time)]))
        length = np.array([time, max(1, time // 2)], np.int32)
        characters = np.ones((2, time, word_length), np.int32)
        words = np.ones((2, time), np.int32)
        numbers.append({"words": words, "characters": characters, "length": length})
        strings.append({"tokens": np.full((2, time), "word", object), "length": length})
    asked = [{"text": text} for text in texts]
    return {"serving_default": asked, "tensors": numbers, "tokens": strings, "explain": asked}
