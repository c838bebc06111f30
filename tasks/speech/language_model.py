"""Letter n-gram model of the training transcripts, and its weight in the beam search.

The beam search adds the log-probability of the language model to that of the network (shallow
fusion). The weight of the language model and the bonus of each letter are chosen on validation
data: every pair of candidates is tried, and the pair with the lowest word error rate is used.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from common import ctc
from common.commands import cli
from tasks.speech.config import Config
from tasks.speech.data import spell
from tasks.speech.evaluate import metrics

import keras
import tensorflow as tf

# Limits of the training text and of the validation data. More takes minutes and changes little.
MAX_LETTERS = 2_000_000
MAX_RECORDINGS = 300
MAX_EXTENSIONS = 6  # times that the candidates of weight and bonus are extended


class Fusion(NamedTuple):
    """Parameters of shallow fusion; see `common.ctc.beam_search`.

    Attributes:
      weight: weight of the language model.
      bonus: bonus per letter.
    """

    weight: float
    bonus: float


class Predictions(NamedTuple):
    """Outputs of the network on a batch.

    Attributes:
      log_probs: `<float32>[batch, steps, letters + 1]`.
      frames: `<int32>[batch]`, number of valid steps.
    """

    log_probs: tf.Tensor
    frames: tf.Tensor


def learn(texts: Iterable[str], letters: Sequence[str], config: Config) -> ctc.Ngram | None:
    """Train an n-gram model on transcripts, at most on about `MAX_LETTERS` letters of them.

    Args:
      texts: normalised transcripts, without other letters than `letters`.
      letters: the letter of each label.
      config: `order` and `min_count`.

    Returns:
      The model, or None if `order` is 0.

    Example:
      >>> ngram = learn(["go on", "go"], (" ", "g", "n", "o"), Config(order=2))
      >>> log_probs = ngram.tables.log_probs[ngram.start]
      >>> bool(log_probs[1] > log_probs[2])
      True
    """
    if not config.order:
        return None
    label_of = {letter: label for label, letter in enumerate(letters)}
    sequences, count = [], 0
    for text in texts:
        sequences.append([label_of[letter] for letter in text])
        count += len(text)
        if count > MAX_LETTERS:
            break
    return ctc.Ngram(
        sequences, symbols=len(letters), order=config.order, min_count=config.min_count
    )


def choose_fusion(
    model: keras.Model,
    batches: Iterable[Mapping[str, tf.Tensor]],
    texts: Sequence[str],
    language_model: ctc.Ngram | None,
    letters: Sequence[str],
    config: Config,
) -> Fusion:
    """Choose weight and bonus by the word error rate of a trained model on validation data.

    Args:
      model: the trained model; see `tasks.speech.model.build`.
      batches: validation data; see `tasks.speech.data.to_batches`. Batches after the first
        `MAX_RECORDINGS` recordings are ignored.
      texts: the transcript of each validation recording.
      language_model: the n-gram model, or None for no language model.
      letters: the letter of each label.
      config: width of the beam and candidates.

    Returns:
      The best pair of candidates, or zeros without a language model. While the best value is the
      largest of several, larger candidates are tried, too.
    """
    if language_model is None:
        return Fusion(0.0, 0.0)
    predictions, numbers = predict(model, batches)
    truth = [texts[number] for number in numbers]
    errors: dict[Fusion, tuple[float, float]] = {}
    for _ in range(MAX_EXTENSIONS + 1):
        errors |= error_rates(predictions, truth, language_model, letters, config)
        best = min(errors, key=lambda fusion: errors[fusion])
        weights = extend(config.lm_weights, best.weight)
        bonuses = extend(config.bonuses, best.bonus)
        if not (weights or bonuses):
            break
        config = dataclasses.replace(
            config, lm_weights=weights or (best.weight,), bonuses=bonuses or (best.bonus,)
        )
    wer, cer = errors[best]
    cli.say(
        f"language model: weight {best.weight:g}, bonus {best.bonus:g} (validation WER {wer:.4f}, "
        f"CER {cer:.4f})"
    )
    return best


def extend(candidates: Sequence[float], best: float) -> tuple[float, ...]:
    """Return the candidates around a best value that is the largest of several; else nothing.

    Example:
      >>> extend((0.0, 0.5, 1.0), 1.0), extend((0.0, 0.5, 1.0), 0.5), extend((1.0,), 1.0)
      ((1.0, 1.5), (), ())
    """
    ordered = sorted(candidates)
    if len(ordered) < 2 or best < ordered[-1]:
        return ()
    return best, round(best + ordered[-1] - ordered[-2], 6)


def predict(
    model: keras.Model, batches: Iterable[Mapping[str, tf.Tensor]]
) -> tuple[list[Predictions], list[int]]:
    """Run the network on the first batches, until there are `MAX_RECORDINGS` recordings.

    Returns:
      The outputs of each batch without certain blanks, and the numbers of all recordings in order.
    """

    @tf.function(reduce_retracing=True)
    def run(inputs: Mapping[str, tf.Tensor]) -> Predictions:
        outputs = model(inputs, training=False)
        log_probs, frames, _ = ctc.skip_blanks(outputs["log_probs"], outputs["frames"])
        return Predictions(log_probs, frames)

    predictions, numbers = [], []
    for batch in batches:
        predictions.append(run({name: batch[name] for name in model.input}))
        numbers += batch["number"].numpy().tolist()
        if len(numbers) >= MAX_RECORDINGS:
            break
    return predictions, numbers


def error_rates(
    predictions: Sequence[Predictions],
    texts: Sequence[str],
    language_model: ctc.Ngram,
    letters: Sequence[str],
    config: Config,
) -> dict[Fusion, tuple[float, float]]:
    """Compute the word and character error rates of every pair of candidates.

    Args:
      predictions: outputs of the network on each batch.
      texts: transcripts of all recordings.
      language_model: the n-gram model.
      letters: the letter of each label.
      config: width of the beam and candidates.

    Returns:
      WER and CER of each pair.
    """

    @tf.function(reduce_retracing=True)
    def search(
        log_probs: tf.Tensor, frames: tf.Tensor, weight: tf.Tensor, bonus: tf.Tensor
    ) -> tf.Tensor:
        hypotheses = ctc.beam_search(
            log_probs,
            frames,
            width=config.beam,
            language_model=language_model,
            weight=weight,
            bonus=bonus,
        )
        return hypotheses.tokens[:, 0]

    errors = {}
    for weight, bonus in itertools.product(config.lm_weights, config.bonuses):
        arguments = tf.constant(weight), tf.constant(bonus)
        hypotheses = [
            spell(letters, labels)
            for batch in predictions
            for labels in search(*batch, *arguments).numpy()
        ]
        rates = metrics(texts, hypotheses)
        errors[Fusion(weight, bonus)] = rates["wer"], rates["cer"]
    return errors
