import functools
import itertools

from common import sampling
from tasks.music import generation, model
from tasks.music.features import Past, look_back
from tasks.music.habits import Habits
from tasks.music.midi import KEYS
from tests.tasks.music.examples import heads, nll, random_model, random_notes, tiny_config

import keras
import numpy as np
import pytest
import tensorflow as tf

PRIMES = random_notes((3, 9), density=0.2, seed=4)
PRIMES[:, 5:7] = PRIMES[:, 2:4]
REQUEST = {
    "prime": PRIMES,
    "prime_length": np.array([4, 2, 0], np.int32),
    "length": np.array([14, 11, 14], np.int32),
    "temperature": np.array([1.0, 0.8, 1.0], np.float32),
    "top_p": np.array([1.0, 1.0, 0.9], np.float32),
    "seed": np.array([[1, 2], [3, 4], [-5, 6]], np.int32),
}


def sampled(layers, rows=slice(None), steps=14, **kwargs):
    inputs = {name: tf.constant(value[rows]) for name, value in REQUEST.items()}
    function = tf.function(lambda: generation.generate(layers, steps=steps, **inputs), **kwargs)
    return function().numpy()


@heads
@pytest.mark.thorough
def test_music_is_sampled_from_the_distribution_of_the_model(head):
    """Each frame is sampled again, in NumPy, from the model's output on the whole sequence."""
    built = random_model(head=head)
    layers = generation.parts(built)
    notes = sampled(layers)
    for row in range(3):
        given_frames, length = REQUEST["prime_length"][row], REQUEST["length"][row]
        assert np.array_equal(notes[row, :given_frames], PRIMES[row, :given_frames])
        assert not notes[row, length:].any()
    outlook = tf.function(lambda notes: _frames_to_come(layers, notes))

    @tf.function
    def log_probabilities(states, past, notes):
        return generation.Frame(layers.members, states, past).log_probabilities(notes)

    for row, step in ((0, 4), (0, 9), (0, 13), (1, 2), (1, 10), (2, 0), (2, 1), (2, 12)):
        before = notes[row : row + 1].copy()
        before[:, step:] = 0
        states, past = outlook(before)
        frame = functools.partial(
            log_probabilities,
            [state[:, step] for state in states],
            Past(*(value[:, step] for value in past)),
        )
        random = sampling.uniform(REQUEST["seed"][row : row + 1], step, KEYS + 1).numpy()[0]
        temperature, top_p = REQUEST["temperature"][row], REQUEST["top_p"][row]
        expected = _sample_with_numpy(frame, random, temperature, top_p)
        assert np.array_equal(notes[row, step] > 0, expected > 0)


def _frames_to_come(layers, notes):
    past = look_back(notes)
    outlook = layers.outlook(*past)
    return [member.encoder(outlook)[0] for member in layers.members], past


def _sample_with_numpy(log_probabilities, random, temperature, top_p):
    notes, last = np.zeros((1, KEYS), np.float32), -1
    for number in itertools.count():
        on, off = (
            np.exp(value.numpy()[0].astype(np.float64))
            for value in log_probabilities(tf.constant(notes))
        )
        np.testing.assert_allclose(on + off, 1.0, rtol=1e-5)
        choices, rest = [], 1.0
        for key in range(last + 1, KEYS):
            choices.append(rest * on[key])
            rest *= off[key]
        choices = np.array([*choices, rest])
        assert choices.sum() == pytest.approx(1.0, rel=1e-4)
        choices = choices ** (1 / temperature)
        choices /= choices.sum()
        order = np.argsort(-choices, kind="stable")
        nucleus = np.cumsum(choices[order]) - choices[order] < top_p
        choices[order[~nucleus]] = 0.0
        cumulative = np.cumsum(choices) / choices.sum()
        last = last + 1 + int((cumulative <= random[number]).sum())
        if last >= KEYS:
            return notes[0]
        notes[0, last] = 1.0


@pytest.mark.thorough
def test_frames_are_as_frequent_as_they_are_probable():
    keras.utils.set_random_seed(5)
    built = model.build(tiny_config(members=1), low=40, high=43, frames=10**6)
    for variable in built.trainable_variables:
        if "base" in variable.path:
            variable.assign(0.0 * variable - 0.3)
    layers = generation.parts(built)
    count = 4000
    inputs = {
        "prime": tf.zeros([count, 1, KEYS]),
        "prime_length": tf.zeros(count, tf.int32),
        "length": tf.ones(count, tf.int32),
        "temperature": tf.ones(count),
        "top_p": tf.ones(count),
        "seed": tf.stack([tf.zeros(count, tf.int32), tf.range(count)], axis=1),
    }
    notes = tf.function(lambda: generation.generate(layers, steps=1, **inputs))().numpy()[:, 0]
    frames = np.zeros((16, 1, KEYS), np.float32)
    frames[:, 0, 40:44] = list(itertools.product([0, 1], repeat=4))
    probabilities = np.exp(-nll(built, frames)[:, 0])
    frequencies = np.array([(notes == frame).all(axis=1).mean() for frame in frames[:, 0]])
    error = np.sqrt(probabilities * (1 - probabilities) / count)
    assert (np.abs(frequencies - probabilities) < 4.5 * error + 1e-3).all()
    assert np.count_nonzero(probabilities > 0.02) >= 8


@pytest.mark.thorough
def test_a_row_alone_and_compiled_gives_the_same_music():
    kept = Habits(38, 47, voices=3, parallels=False, leaps=False, tonal=True)
    kept = kept._replace(longest_note=4, longest_key=5, longest_frame=3)
    layers = generation.parts(random_model(), kept)
    together = sampled(layers)
    alone = sampled(layers, rows=slice(1, 2))
    assert np.array_equal(alone[0], together[1])
    compiled = sampled(layers, jit_compile=True)
    assert np.array_equal(compiled, together)


@heads
@pytest.mark.thorough
def test_greedy_probabilities_choose_the_lower_keys_in_order(head):
    """Against a loop over the keys in Python."""
    layers = generation.parts(random_model(head=head))
    notes = random_notes((2, 6))
    states, past = tf.function(lambda n: _frames_to_come(layers, n))(notes)
    rows = lambda value: tf.reshape(value, [-1, *value.shape[2:]])  # noqa: E731
    frame = generation.Frame(layers.members, [rows(s) for s in states], Past(*map(rows, past)))
    probabilities = tf.function(frame.greedy_probabilities)().numpy()
    log_probabilities = tf.function(frame.log_probabilities)
    chosen = np.zeros((12, KEYS), np.float32)
    for key in range(KEYS):
        expected = np.exp(log_probabilities(tf.constant(chosen))[0].numpy()[:, key])
        np.testing.assert_allclose(probabilities[:, key], expected, rtol=1e-4)
        chosen[:, key] = expected >= 0.5
    assert 0 < chosen.sum() < 12 * 13


@pytest.mark.thorough
def test_strikes_are_sampled_from_the_distribution_of_the_model():
    """Each strike is sampled again, in NumPy, key by key."""
    built = random_model()
    for variable in built.trainable_variables:
        if "offset" in variable.path:
            variable.assign(0.5)
    layers = generation.parts(built)
    notes = sampled(layers)
    outlook = tf.function(lambda notes: _frames_to_come(layers, notes))
    count = 0
    for row in range(3):
        for step in range(max(1, REQUEST["prime_length"][row]), REQUEST["length"][row]):
            before = notes[row : row + 1].copy()
            before[:, step:] = 0
            states, past = outlook(before)
            frame = generation.Frame(
                layers.members,
                [state[:, step] for state in states],
                Past(*(value[:, step] for value in past)),
            )
            now = (notes[row : row + 1, step] > 0).astype(np.float32)
            held = now * (notes[row : row + 1, step - 1] > 0)
            random = sampling.uniform(REQUEST["seed"][row : row + 1], -1 - step, KEYS).numpy()[0]
            struck = np.zeros((1, KEYS), np.float32)
            prepared = frame._prepare_strikes(tf.constant(now))
            for key in np.flatnonzero(held[0]):
                on, off = frame._strike_log_odds(prepared, held, tf.constant(struck))
                odds = (on - off).numpy()[0, key] / REQUEST["temperature"][row]
                struck[0, key] = random[key] < 1 / (1 + np.exp(-odds))
                count += 1
            assert np.array_equal(notes[row, step] == 2, struck[0] == 1)
    assert count > 10


def test_strikes_change_only_the_likelihood_of_strikes():
    """The NLL of keys stays comparable with that of music without onsets."""
    built = random_model()
    notes = random_notes((2, 8), density=0.4)
    again = notes.copy()
    again[:, 5] += again[:, 5] * again[:, 4]
    length = np.array([8, 8], np.int32)
    plain, struck = (built({"notes": rows, "length": length}) for rows in (notes, again))
    np.testing.assert_allclose(struck["nll"][:, :6], plain["nll"][:, :6], rtol=1e-6)
    assert np.any(np.abs(struck["strike_nll"][:, 5] - plain["strike_nll"][:, 5]) > 1e-3)
    assert not np.any(plain["strike_nll"][:, 0])
