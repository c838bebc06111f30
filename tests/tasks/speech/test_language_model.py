import math

from common import ctc
from tasks.speech import language_model
from tasks.speech.config import Config
from tasks.speech.language_model import Fusion, Predictions

import keras
import numpy as np
import pytest
import tensorflow as tf

LETTERS = (" ", "a", "b")
TRANSCRIPTS = ["ab ab", "ab", "ab ab ab"]


def log_probs_of(text, doubtful=(), probability=0.45):
    """Return `<float32>[steps, letters + 1]`: each letter of a text, then a blank.

    At the places in `doubtful`, "b" has the given probability and "a" most of the rest.
    """
    rows = []
    for place, letter in enumerate(text):
        row = np.full(len(LETTERS) + 1, 0.01)
        row[LETTERS.index(letter)] = 0.97
        if place in doubtful:
            row[1:3] = 0.98 - probability, probability
        rows += [row, [0.01, 0.01, 0.01, 0.97]]
    return np.log(np.array(rows, np.float32))


def predictions_of(*rows):
    frames = [len(row) for row in rows]
    padded = [np.pad(row, [(0, max(frames) - len(row)), (0, 0)]) for row in rows]
    return [Predictions(tf.constant(np.stack(padded)), tf.constant(frames))]


def config_of(**settings):
    return Config(beam=8, order=3, **{"lm_weights": (0.0, 0.5), "bonuses": (0.0, 1.0), **settings})


def test_the_model_learns_the_transcripts():
    config = Config(order=3, min_count=2)
    ngram = language_model.learn(TRANSCRIPTS, LETTERS, config)
    labels = [[LETTERS.index(letter) for letter in text] for text in TRANSCRIPTS]
    expected = ctc.Ngram(labels, symbols=3, order=3, min_count=2)
    for one, other in zip(ngram.tables, expected.tables, strict=True):
        np.testing.assert_array_equal(one, other)
    assert ngram.start == expected.start


def test_order_0_means_no_language_model():
    config = Config(order=0)
    ngram = language_model.learn(TRANSCRIPTS, LETTERS, config)
    assert ngram is None
    assert language_model.choose_fusion(None, [], [], ngram, LETTERS, config) == (0.0, 0.0)


def test_the_number_of_letters_is_limited(monkeypatch):
    monkeypatch.setattr(language_model, "MAX_LETTERS", 5)
    ngram = language_model.learn(TRANSCRIPTS, LETTERS, Config(order=3))
    expected = language_model.learn(TRANSCRIPTS[:2], LETTERS, Config(order=3))
    np.testing.assert_array_equal(ngram.tables.log_probs, expected.tables.log_probs)


def test_error_rates_are_those_of_a_beam_search_with_each_pair():
    config = config_of()
    ngram = language_model.learn(TRANSCRIPTS, LETTERS, config)
    predictions = predictions_of(log_probs_of("ab ab", doubtful=[1]), log_probs_of("ab"))
    rates = language_model.error_rates(predictions, ["ab ab", "ab"], ngram, LETTERS, config)
    assert list(rates) == [(0.0, 0.0), (0.0, 1.0), (0.5, 0.0), (0.5, 1.0)]
    # Without language model the doubtful letter is an "a": 1 of 3 words, 1 of 7 letters.
    assert rates[Fusion(0.0, 0.0)] == (pytest.approx(1 / 3), pytest.approx(1 / 7))
    assert rates[Fusion(0.5, 0.0)] == (0.0, 0.0)


class Network:
    """A model that returns its input `audio` as log-probabilities."""

    input = {"audio": None, "length": None}  # noqa: RUF012  (as of a Keras model)

    def __call__(self, inputs, training):
        assert set(inputs) == {"audio", "length"} and training is False
        return {"log_probs": inputs["audio"], "frames": inputs["length"]}


def batches_of(*rows):
    """Yield a batch of one recording for each text and log-probabilities."""
    for number, (_, log_probs) in enumerate(rows):
        yield {
            "audio": tf.constant(log_probs[None]),
            "length": tf.constant([len(log_probs)]),
            "number": tf.constant([number]),
        }


def choose(rows, **settings):
    config = config_of(**settings)
    ngram = language_model.learn(TRANSCRIPTS, LETTERS, config)
    texts = [text for text, _ in rows]
    return language_model.choose_fusion(Network(), batches_of(*rows), texts, ngram, LETTERS, config)


def test_the_weight_with_the_fewest_word_errors_is_chosen(capsys):
    doubtful = ("ab ab", log_probs_of("ab ab", doubtful=[1]))
    fusion = choose([doubtful, ("ab", log_probs_of("ab"))])
    assert fusion == Fusion(weight=0.5, bonus=0.0)
    expected = "language model: weight 0.5, bonus 0 (validation WER 0.0000, CER 0.0000)"
    assert expected in capsys.readouterr().err


def test_candidates_are_extended_until_the_best_lies_inside():
    rows = [("ab ab", log_probs_of("ab ab", doubtful=[1], probability=p)) for p in (0.3, 0.1)]
    assert choose(rows, lm_weights=(0.0, 0.2), bonuses=(0.0,)) == Fusion(0.4, 0.0)
    unknown = [("é", log_probs_of("ab"))]  # a letter that training lacks counts as an error
    assert choose(unknown, lm_weights=(0.0,), bonuses=(0.0,)) == Fusion(0.0, 0.0)


def test_a_language_model_that_misleads_gets_no_weight():
    row = ("aa", log_probs_of("aa", doubtful=[1]))
    assert choose([row], lm_weights=(2.0, 0.0), bonuses=(0.0,)) == Fusion(0.0, 0.0)


def test_equal_error_rates_choose_the_first_candidates():
    row = ("ab", log_probs_of("ab"))
    assert choose([row], lm_weights=(0.2, 0.0), bonuses=(0.5, 0.0)) == Fusion(0.2, 0.5)


def test_batches_after_the_maximum_number_of_recordings_are_not_read(monkeypatch):
    monkeypatch.setattr(language_model, "MAX_RECORDINGS", 2)
    rest = batches_of(*[("ab", log_probs_of("ab"))] * 5)
    predictions, numbers = language_model.predict(Network(), rest)
    assert len(predictions) == 2 and numbers == [0, 1]
    assert len(list(rest)) == 3


def test_a_keras_model_predicts_without_dropout():
    audio = keras.Input((None, 4), name="audio")
    length = keras.Input((), dtype="int32", name="length")
    dropped = keras.layers.Dropout(0.9)(audio)
    network = keras.Model(
        {"audio": audio, "length": length}, {"log_probs": dropped, "frames": length}
    )
    log_probs = log_probs_of("ab")
    ((prediction,), _) = language_model.predict(network, batches_of(("ab", log_probs)))
    np.testing.assert_array_equal(prediction.log_probs[0], log_probs)
    assert prediction.frames.numpy().tolist() == [len(log_probs)]
    assert math.isclose(float(tf.reduce_sum(tf.exp(prediction.log_probs[0, 0]))), 1.0, rel_tol=1e-5)
