"""The exported signatures: raw sound -> its text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from common import ctc
from common.serving.rows import length_fits, run_valid, within_budget
from common.serving.targets import (
    PORTABLE,
    Example,
    Examples,
    Run,
    Signatures,
    Target,
    choose_rows,
    same,
    shared,
)
from tasks.speech import words
from tasks.speech.audio import RATE, SHORTEST, SILENCE
from tasks.speech.features import WINDOW, count_padded_frames, count_steps
from tasks.speech.streaming import Stream

import keras
import numpy as np
import tensorflow as tf

MOST = 1280 * RATE  # samples of a request: its rows times the longest of them
LOUDEST = 1e5  # maximum absolute value of a sample; the power of larger ones would overflow

INPUTS = (
    tf.TensorSpec([None, None], tf.float32, name="audio"),
    tf.TensorSpec([None], tf.int32, name="length"),
)


class Recognizer:
    """A model and its beam search, as they are exported together.

    Args:
      model: model of `tasks.speech.model.build`.
      letters: the letter of each label.
      language_model: n-gram model of the letters, or None.
      weight: weight of the language model.
      bonus: bonus per letter.
      beam: number of hypotheses of the beam search.
      max_samples: maximum length; longer recordings are invalid.
      target: device of the export. Features are part of its core; the beam search runs on the host.
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
        self.model = model
        self.letters = tuple(letters)
        self.language_model = language_model
        self.weight, self.bonus, self.beam = weight, bonus, beam
        self.max_samples = max_samples
        self.target = target

    @property
    def stream(self) -> Stream | None:
        """The network chunk by chunk, if it is one of `--streaming`."""
        return Stream(self.model) if self.model.get_layer("log_mel").running else None

    @property
    def resources(self) -> list[tf.Module]:
        """The resources of an export in addition to the weights of the network."""
        return [] if self.language_model is None else [self.language_model]

    def run(self, audio: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        """Run the network; see `signatures` for the valid rows.

        Args:
          audio: `<float32>[batch, samples]`.
          length: `<int32>[batch]`.

        Returns:
          `log_probs` `<float32>[batch, steps, letters + 1]`, `frames` `<int32>[batch]` and
          `log_mel` `<float32>[batch, frames, bands]`, all 0 in invalid rows.
        """
        audio = audio[:, : self.max_samples + 1]
        # Samples after the end of a row may be NaN.
        audio = tf.where(tf.sequence_mask(length, tf.shape(audio)[1]), audio, 0.0)
        valid = length_fits(length, audio, at_least=SHORTEST, at_most=self.max_samples)
        valid &= tf.reduce_all(tf.abs(audio) <= LOUDEST, axis=1)  # false for NaN
        valid &= tf.reduce_any(tf.abs(audio) > SILENCE, axis=1)
        valid = within_budget(valid, length, MOST)
        outputs = run_valid(
            self._core(),
            {"audio": audio, "length": length},
            valid,
            fill={"audio": 0.0, "length": WINDOW},
            timed=["audio"],
        )
        # A static core may return any values after the end of a row.
        log_probs = outputs["log_probs"]
        real = tf.sequence_mask(outputs["frames"], tf.shape(log_probs)[1])[:, :, None]
        return {**outputs, "log_probs": tf.where(real, log_probs, 0.0)}

    def _core(self) -> Run:
        """Make the computation that an accelerator runs."""
        strides = self.model.get_layer("subsample").strides
        shorter = {length for length in self.target.lengths if length < self.max_samples}
        return self.target.core(
            "core",
            lambda **inputs: self.model(inputs, training=False),
            timed=["audio"],
            steps={
                "log_probs": lambda samples: count_steps(count_padded_frames(samples), strides),
                "log_mel": count_padded_frames,
            },
            lengths=sorted(shorter | {self.max_samples}),
        )

    def search(self, log_probs: tf.Tensor, frames: tf.Tensor) -> ctc.Hypotheses:
        """Return the best texts by the network and the language model; "" for no frames."""

        def run(log_probs: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
            log_probs, length, blanks = ctc.skip_blanks(log_probs, length)
            hypotheses = ctc.beam_search(
                log_probs,
                length,
                width=self.beam,
                language_model=self.language_model,
                weight=self.weight,
                bonus=self.bonus,
            )
            total = hypotheses.log_probability + blanks[:, None]
            return hypotheses._replace(log_probability=total)._asdict()

        valid = frames > 0
        inputs = {"log_probs": log_probs, "length": frames}
        outputs = run_valid(run, inputs, valid, fill={"length": 1}, timed=["log_probs"])
        return ctc.Hypotheses(**{**outputs, "tokens": choose_rows(valid, outputs["tokens"], -1)})

    def align(
        self, log_probs: tf.Tensor, frames: tf.Tensor, tokens: tf.Tensor, count: tf.Tensor
    ) -> tf.Tensor:
        """Return the place in the text of the letter at each frame, or -1; see `ctc.align`."""

        def run(log_probs: tf.Tensor, length: tf.Tensor, **text: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"path": ctc.align(log_probs, text["tokens"], length, text["count"])}

        valid = frames > 0
        inputs = {"log_probs": log_probs, "length": frames, "tokens": tokens, "count": count}
        steps = {"path": same}
        outputs = run_valid(
            run, inputs, valid, fill={"length": 1}, timed=["log_probs"], steps=steps
        )
        real = tf.sequence_mask(frames, tf.shape(log_probs)[1])
        return tf.where(real, outputs["path"], -1)

    def best_tokens(self, hypotheses: ctc.Hypotheses) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the best hypothesis with single spaces between its words, and its length.

        Args:
          hypotheses: of the search.

        Returns:
          `<int32>[batch, time]`, -1 after the length, and `<int32>[batch]`.
        """
        tokens = hypotheses.tokens[:, 0]
        if " " not in self.letters:
            return tokens, hypotheses.length[:, 0]
        space = self.letters.index(" ")
        before = tf.pad(tokens[:, :-1], [[0, 0], [1, 0]], constant_values=space)
        tokens, _ = ctc.compact(tf.where((tokens == space) & (before == space), -1, tokens))
        after = tf.pad(tokens[:, 1:], [[0, 0], [0, 1]], constant_values=-1)
        return ctc.compact(tf.where((tokens == space) & (after < 0), -1, tokens))

    def to_text(self, hypotheses: ctc.Hypotheses) -> dict[str, tf.Tensor]:
        """Return `text` and `confidence` of the best hypothesis; see `signatures`."""
        tokens, _ = self.best_tokens(hypotheses)
        # Token -1, which is padding, becomes the last of the names.
        names = tf.gather(tf.constant([*self.letters, ""]), tokens % (len(self.letters) + 1))
        text = tf.strings.reduce_join(names, axis=1)
        count = tf.cast(tf.maximum(hypotheses.length[:, 0], 1), tf.float32)
        confidence = tf.exp(hypotheses.log_probability[:, 0] / count)
        return {"text": text, "confidence": tf.where(text == "", 0.0, confidence)}

    def find_words(
        self, text: tf.Tensor, tokens: tf.Tensor, alignment: tf.Tensor, probabilities: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Return the words with their times and confidence; see `tasks.speech.words`."""
        return words.find_words(
            text,
            tokens,
            alignment,
            probabilities,
            space=self.letters.index(" ") if " " in self.letters else -1,
            step_seconds=0.01 * math.prod(self.model.get_layer("subsample").strides),
        )


def signatures(recognizer: Recognizer) -> Signatures:
    """Make the exported functions.

    All have the inputs `audio` `<float32>[batch, samples]` in -1..1 at 16 kHz and `length`
    `<int32>[batch]`.

    - `serving_default` -> `text` `<string>[batch]`, `confidence` `<float32>[batch]`, which is exp
      of the mean log-probability of a letter, summed over the paths of the text.
    - `tensors` -> `log_probs` `<float32>[batch, steps, letters + 1]`, the blank last, and `frames`
      `<int32>[batch]`, the number of valid steps.
    - `explain` -> the outputs of `serving_default`, `log_mel` `<float32>[batch, frames, bands]`,
      one frame every 10 ms, `symbol_probabilities` `<float32>[batch, steps, letters + 1]`,
      `frames`, `alignment` `<int32>[batch, steps]`, the index in the text of the letter at each
      step, or -1, and the words with times and confidence; see `tasks.speech.words.find_words`.

    A row is invalid if it contains NaN or a sample beyond +-`LOUDEST`, is silent, or has a `length`
    below 0.1 s, above the maximum or above `samples`. It has the text "" and confidence 0 (0
    frames), and never affects the other rows. So has a row beyond the budget of `MOST` samples; see
    `common.serving.rows.within_budget`.

    A model of `--streaming` has two more; see `stream_signatures`.
    """
    run, search = shared(recognizer.run), shared(recognizer.search)

    @tf.function(input_signature=INPUTS)
    def serving_default(audio: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = run(audio, length)
        return recognizer.to_text(search(outputs["log_probs"], outputs["frames"]))

    @tf.function(input_signature=INPUTS)
    def tensors(audio: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = run(audio, length)
        return {name: outputs[name] for name in ("log_probs", "frames")}

    @tf.function(input_signature=INPUTS)
    def explain(audio: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = run(audio, length)
        log_probs, frames = outputs["log_probs"], outputs["frames"]
        hypotheses = search(log_probs, frames)
        tokens, count = recognizer.best_tokens(hypotheses)
        real = tf.sequence_mask(frames, tf.shape(log_probs)[1])[:, :, None]
        probabilities = tf.where(real, tf.exp(log_probs), 0.0)
        alignment = recognizer.align(log_probs, frames, tf.maximum(tokens, 0), count)
        answer = recognizer.to_text(hypotheses)
        return {
            **answer,
            **recognizer.find_words(answer["text"], tokens, alignment, probabilities),
            "log_mel": outputs["log_mel"],
            "symbol_probabilities": probabilities,
            "frames": frames,
            "alignment": alignment,
        }

    found = {"serving_default": serving_default, "tensors": tensors, "explain": explain}
    stream = recognizer.stream
    return found if stream is None else {**found, **stream_signatures(recognizer, stream)}


def stream_signatures(recognizer: Recognizer, stream: Stream) -> Signatures:
    """Make the functions of a model of `--streaming`.

    - `stream`: `audio` `<float32>[batch, samples]`, the next chunk of each row, and `state`
      `<float32>[batch, size]`, zeros at the start of an utterance -> `log_probs`
      `<float32>[batch, steps, letters + 1]` of the chunk and the next `state`.
    - `decode`: `log_probs` `<float32>[batch, steps, letters + 1]`, those of all chunks so far, and
      `frames` `<int32>[batch]`, the steps of each row -> the outputs of `serving_default`.

    A chunk that contains NaN or a sample beyond +-`LOUDEST` counts as silence. A row of `decode`
    without steps, with more than the tensor or the maximum, or with NaN has the text "". Rows
    beyond the budget get zeros and "".
    """
    specs = {
        "audio": tf.TensorSpec([None, None], tf.float32, name="audio"),
        "state": tf.TensorSpec([None, stream.size], tf.float32, name="state"),
        "log_probs": tf.TensorSpec(
            [None, None, len(recognizer.letters) + 1], tf.float32, name="log_probs"
        ),
        "frames": tf.TensorSpec([None], tf.int32, name="frames"),
    }

    def advance(audio: tf.Tensor, state: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        log_probs, state = stream(audio, state, LOUDEST)
        return {"log_probs": log_probs, "state": state}

    @tf.function(input_signature=[specs["audio"], specs["state"]])
    def read(audio: tf.Tensor, state: tf.Tensor) -> dict[str, tf.Tensor]:
        length = tf.fill(tf.shape(state)[:1], tf.shape(audio)[1])
        return run_valid(
            advance,
            {"audio": audio, "state": state, "length": length},
            within_budget(tf.ones_like(length, tf.bool), length, MOST),
            fill={"length": stream.step},
            timed=["audio"],
            steps={"log_probs": lambda samples: tf.maximum(samples // stream.step, 1)},
        )

    @tf.function(input_signature=[specs["log_probs"], specs["frames"]])
    def decode(log_probs: tf.Tensor, frames: tf.Tensor) -> dict[str, tf.Tensor]:
        real = tf.sequence_mask(frames, tf.shape(log_probs)[1])[:, :, None]
        log_probs = tf.where(real, log_probs, 0.0)
        valid = length_fits(frames, log_probs, at_most=recognizer.max_samples // stream.step + 1)
        valid &= tf.reduce_all(log_probs <= 0.0, axis=[1, 2])  # false for NaN
        valid = within_budget(valid, frames, MOST // stream.step)
        return recognizer.to_text(recognizer.search(log_probs, tf.where(valid, frames, 0)))

    return {"stream": read, "decode": decode}


def examples(lengths: Sequence[int], recognizer: Recognizer | None = None) -> Examples:
    """Return requests for each signature: one per length, the first with a silent row.

    The others have one row, since recordings fill most of an export's warm-up file.

    Args:
      lengths: in samples.
      recognizer: adds those for the signatures of a model of `--streaming`.
    """
    requests: list[Example] = []
    for samples in lengths:
        time = np.arange(samples) / RATE
        # A sweep through the frequencies of speech.
        rows = [0.3 * np.sin(2 * np.pi * (200.0 + 900.0 * (time % 1.0)) * time)]
        if not requests:
            rows.append(np.zeros(samples))
        length = np.full(len(rows), samples, np.int32)
        requests.append({"audio": np.stack(rows).astype(np.float32), "length": length})
    found: Examples = {name: requests for name in ("serving_default", "tensors", "explain")}
    stream = None if recognizer is None else recognizer.stream
    if recognizer is None or stream is None:
        return found
    audio = requests[-1]["audio"][:, : stream.chunk]
    states = [np.full((1, stream.size), value, np.float32) for value in (0.0, 0.1)]
    chunks: list[Example] = [{"audio": audio, "state": state} for state in states]
    symbols = len(recognizer.letters) + 1
    log_probs = np.log(np.random.default_rng(0).dirichlet(np.ones(symbols), (1, 8)))
    decoded = {"log_probs": log_probs.astype(np.float32), "frames": np.array([8], np.int32)}
    return {**found, "stream": chunks, "decode": [decoded]}


def stream_settings(recognizer: Recognizer) -> dict[str, int]:
    """Return the settings of an export that a client of `stream_signatures` needs."""
    stream = recognizer.stream
    return {} if stream is None else {"chunk_samples": stream.chunk, "state_size": stream.size}


def example_lengths(max_samples: int, target: Target = PORTABLE) -> list[int]:
    """Return the lengths of the requests for an export.

    One with static shapes is verified at each of its lengths, others at short ones, since a second
    takes 200 kB of the export.
    """
    if target.name == "tpu":
        return list(target.lengths)
    return [min(RATE, max_samples), min(3 * RATE, max_samples)]
