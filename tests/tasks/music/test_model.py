import itertools

from tasks.music import generation, model
from tasks.music.features import Past, look_back
from tasks.music.midi import KEYS
from tests.tasks.music.examples import heads, nll, random_model, random_notes

import keras
import numpy as np
import pytest
import tensorflow as tf


@heads
def test_the_probabilities_of_all_frames_add_up_to_one(head):
    """By enumeration of the 64 frames of six keys; the other 82 keys are silent."""
    built = random_model(40, 45, head=head)
    notes = np.repeat(random_notes((1, 7), 40, 45, density=0.4), 64, axis=0)
    notes[:, 4, 40:46] = list(itertools.product([0, 1], repeat=6))
    values = nll(built, notes)
    outside = (1 - 1 / 100) ** 82  # Laplace's rule: 98 frames, none with these keys
    assert np.exp(-values[:, 4].astype(np.float64)).sum() == pytest.approx(outside, rel=1e-5)
    assert np.ptp(values[:, 4]) > 3.0  # the probabilities differ
    # A frame has no effect on those before it, and an effect on those after it.
    assert np.ptp(values[:, :4], axis=0).max() == 0.0
    assert np.ptp(values[:, 5:], axis=0).min() > 0.01


def test_only_the_joint_head_depends_on_the_lower_keys():
    for head, depends in (("joint", True), ("independent", False)):
        built = random_model(36, 48, head=head)
        keys = generation.parts(built).members[0].keys
        past = tf.function(look_back)(random_notes((1, 5)))
        rows = Past(*(value[:, -1] for value in past))
        state = tf.ones([1, 12])
        one, other = (np.zeros((1, KEYS), np.float32) for _ in range(2))
        other[0, 42] = 1.0
        frame = generation.Frame([generation.Member(None, keys, None)], [state], rows)
        values = [frame.log_probabilities(notes)[0].numpy()[0] for notes in (one, other)]
        assert np.array_equal(values[0][:43], values[1][:43])
        assert (np.abs(values[0] - values[1])[43:49].max() > 1e-3) == depends


@heads
def test_padding_never_affects_the_result(head):
    built = random_model(head=head)
    notes = random_notes((3, 20))
    length = [20, 9, 2]
    values = nll(built, notes, length)
    junk = np.concatenate([notes, np.full((3, 7, KEYS), 0.7, np.float32)], axis=1)
    junk[1, 9:] = 0.3
    again = nll(built, junk, length)
    for row, n in enumerate(length):
        np.testing.assert_allclose(again[row, :n], values[row, :n], rtol=1e-5)
        assert not values[row, n:].any() and not again[row, n:].any()


def test_a_saved_model_loads_with_the_same_weights(tmp_path):
    built, notes = random_model(), random_notes((2, 9))
    built.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(nll(again, notes), nll(built, notes))


def test_the_ensemble_has_the_mean_probability_of_its_members():
    logits = np.random.default_rng(0).normal(size=(4, 3, KEYS)).astype(np.float32)
    on, off = (value.numpy() for value in model.mean_log_odds(logits))
    mean = (1 / (1 + np.exp(-logits.astype(np.float64)))).mean(axis=1)
    np.testing.assert_allclose(np.exp(on), mean, rtol=1e-5)
    np.testing.assert_allclose(np.exp(off), 1 - mean, rtol=1e-5)
