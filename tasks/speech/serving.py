"""Sound in, text out: the signatures that are exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common import ctc
from common.serving.targets import PORTABLE, Target, shared
from tasks.speech.features import RATE, WINDOW, count_steps

import keras
import numpy as np
import tensorflow as tf

NO_LITERT = "LiteRT needs one fixed length, and every recording would pay for the longest"
SHORTEST = RATE // 10  # samples; nobody says a word in less than a tenth of a second
SILENCE = 1e-4  # a recording that is nowhere louder (-80 dB of full scale) is silent


class Recognizer(tf.Module):
    """A model and how its answers are searched, as they are exported together.

    Args:
      model: of `tasks.speech.model.build`.
      letters: in the order of the labels.
      language_model: over the letters, or `None`.
      weight: of the language model.
      bonus: for each letter.
      beam: prefixes that the search keeps.
      max_samples: longer recordings get no answer.
      target: what it is exported for. Spectra are part of its core; the search, which follows as
        many texts as differ, runs on the host.
    """

    def __init__(
        self,
        model: keras.Model,
        letters: Sequence[str],
        language_model: ctc.Ngram | None,
        *,
        weight: float,
        bonus: float,
        beam: int,
        max_samples: int,
        target: Target = PORTABLE,
    ):
        super().__init__(name="recognizer")
        self.model = model
        self.letters = tuple(letters)
        self.language_model = language_model
        self.weight, self.bonus, self.beam = weight, bonus, beam
        self.max_samples = max_samples
        self.target = target

    def run(self, audio: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        """Asks the model; rows that get no answer have 0 frames, and 0 everywhere."""
        # A batch of no rows is run as one row: convolutions have no result for none.
        rows = tf.shape(audio)[0]
        none = tf.maximum(0, 1 - rows)
        audio = tf.pad(audio[:, : self.max_samples + 1], [[0, none], [0, 0]])
        length = tf.pad(length, [[0, none]])
        samples = tf.shape(audio)[1]
        real = tf.sequence_mask(length, samples)
        sound = tf.where(real, audio, 0.0)
        good = tf.reduce_all(tf.math.is_finite(sound), axis=1)
        good &= tf.reduce_any(tf.abs(sound) > SILENCE, axis=1)
        good &= (length >= SHORTEST) & (length <= tf.minimum(samples, self.max_samples))
        sound = tf.where(good[:, None], sound, 0.0)
        strides = self.model.get_layer("subsample").strides
        core = self.target.core(
            "core",
            lambda **inputs: self.model(inputs, training=False),
            timed=["audio"],
            steps={
                "log_probs": lambda samples: count_steps(samples, strides)[1],
                "log_mel": lambda samples: count_steps(samples, strides)[0],
            },
            lengths=sorted(
                {n for n in self.target.lengths if n < self.max_samples} | {self.max_samples}
            ),
        )
        outputs = core(audio=sound, length=tf.where(good, length, WINDOW))
        frames = tf.where(good, outputs["frames"], 0)
        real = tf.sequence_mask(frames, tf.shape(outputs["log_probs"])[1])[:, :, None]
        outputs = {
            "log_probs": tf.where(real, outputs["log_probs"], 0.0),
            "frames": frames,
            "log_mel": tf.where(good[:, None, None], outputs["log_mel"], 0.0),
        }
        return {name: value[:rows] for name, value in outputs.items()}

    def search(self, log_probs: tf.Tensor, frames: tf.Tensor) -> ctc.Hypotheses:
        """The best texts by network and language model."""
        return ctc.beam_search(
            log_probs,
            frames,
            width=self.beam,
            language_model=self.language_model,
            weight=self.weight,
            bonus=self.bonus,
        )

    def tokens(self, found: ctc.Hypotheses) -> tuple[tf.Tensor, tf.Tensor]:
        """The best hypothesis without spaces that part no words, and its length."""
        tokens = found.tokens[:, 0]
        if " " not in self.letters:
            return tokens, found.length[:, 0]
        space = self.letters.index(" ")
        before = tf.pad(tokens[:, :-1], [[0, 0], [1, 0]], constant_values=space)
        tokens, _ = ctc.compact(tf.where((tokens == space) & (before == space), -1, tokens))
        after = tf.pad(tokens[:, 1:], [[0, 0], [0, 1]], constant_values=-1)
        return ctc.compact(tf.where((tokens == space) & (after < 0), -1, tokens))

    def read(self, found: ctc.Hypotheses) -> dict[str, tf.Tensor]:
        """The best hypothesis as `text` and `confidence`."""
        tokens, _ = self.tokens(found)
        # -1, which is nothing, is the last of the names.
        spelled = tf.gather(tf.constant([*self.letters, ""]), tokens % (len(self.letters) + 1))
        text = tf.strings.reduce_join(spelled, axis=1)
        count = tf.cast(tf.maximum(found.length[:, 0], 1), tf.float32)
        confidence = tf.exp(found.log_probability[:, 0] / count)
        return {"text": text, "confidence": tf.where(text == "", 0.0, confidence)}


def signatures(
    recognizer: Recognizer,
) -> Mapping[str, tf.types.experimental.PolymorphicFunction]:
    """Makes the exported functions.

    All take `audio` `<float32>[batch, samples]` in -1..1 at 16 kHz and `length` `<int32>[batch]`.

    - `serving_default` -> `text` `<string>[batch]`, `confidence` `<float32>[batch]`, which is exp
      of the mean log-probability of a letter, the text's paths taken together.
    - `tensors` -> `log_probs` `<float32>[batch, steps, letters + 1]`, the blank last, and `frames`
      `<int32>[batch]`, how many steps are real.
    - `explain` -> also `log_mel` `<float32>[batch, 10 ms frames, bands]`, `symbol_probabilities`
      `<float32>[batch, steps, letters + 1]`, `frames`, and `alignment` `<int32>[batch, steps]`, the
      place in the text of the letter at each step, or -1.

    A row that holds NaN, is silent, shorter than 0.1 s, longer than its tensor or than the stated
    maximum gets the text "" and confidence 0 (0 frames), and changes nothing for its neighbours.
    """
    inputs = [
        tf.TensorSpec([None, None], tf.float32, name="audio"),
        tf.TensorSpec([None], tf.int32, name="length"),
    ]

    run, search = shared(recognizer.run), shared(recognizer.search)

    @tf.function(input_signature=inputs)
    def serving_default(audio: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = run(audio, length)
        return recognizer.read(search(outputs["log_probs"], outputs["frames"]))

    @tf.function(input_signature=inputs)
    def tensors(audio: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = run(audio, length)
        return {"log_probs": outputs["log_probs"], "frames": outputs["frames"]}

    @tf.function(input_signature=inputs)
    def explain(audio: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = run(audio, length)
        log_probs, frames = outputs["log_probs"], outputs["frames"]
        found = search(log_probs, frames)
        tokens, count = recognizer.tokens(found)
        path = ctc.align(log_probs, tf.maximum(tokens, 0), frames, count)
        real = tf.sequence_mask(frames, tf.shape(log_probs)[1])[:, :, None]
        return {
            **recognizer.read(found),
            "log_mel": outputs["log_mel"],
            "symbol_probabilities": tf.where(real, tf.exp(log_probs), 0.0),
            "frames": frames,
            "alignment": path,
        }

    return {"serving_default": serving_default, "tensors": tensors, "explain": explain}


def examples(lengths: Sequence[int]) -> Mapping[str, list[dict[str, np.ndarray]]]:
    """Requests for each signature: a batch at every bucket length, one row of it silent."""
    batches = []
    for samples in lengths:
        time = np.arange(samples) / RATE
        # A sweep through the frequencies of speech, and nothing at all.
        sweep = 0.3 * np.sin(2 * np.pi * (200.0 + 900.0 * (time % 1.0)) * time)
        batches.append(
            {
                "audio": np.stack([sweep, np.zeros(samples)]).astype(np.float32),
                "length": np.array([samples, samples], np.int32),
            }
        )
    return {"serving_default": batches, "tensors": batches, "explain": batches}
