from tasks.speech import features
from tests.tasks.own.speech import RATE, speak

import numpy as np
import pytest
import tensorflow as tf


def mel_by_numpy(sound, bands):
    """Mel energies by their definition, frame by frame."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.stack([sound[k : k + 400] for k in range(0, len(sound) - 399, 160)])
    power = np.abs(np.fft.rfft(frames * window, 512)) ** 2
    mel = lambda hertz: 1127.0 * np.log1p(np.asarray(hertz) / 700.0)  # noqa: E731
    edges = np.linspace(mel(60.0), mel(7600.0), bands + 2)
    at = mel(np.arange(257) * RATE / 512)
    filters = np.zeros((257, bands))
    for band in range(bands):
        low, middle, high = edges[band : band + 3]
        rise, fall = (at - low) / (middle - low), (high - at) / (high - middle)
        filters[:, band] = np.maximum(0.0, np.minimum(rise, fall))
    filters[0] = 0.0
    return power @ filters


def test_features_equal_their_definition_in_numpy():
    sound = speak("abc", np.random.default_rng(0))
    energies = mel_by_numpy(sound.astype(np.float64), 40)
    computed = features.mel_energies(tf.constant(sound[None]), 40)[0].numpy()
    np.testing.assert_allclose(computed, energies, rtol=2e-3, atol=1e-5 * energies.max())
    totals = energies.sum(1)
    smooth = np.convolve(totals, np.ones(5), "same")
    smooth /= np.convolve(np.ones(len(totals)), np.ones(5), "same")
    noise, loudest = np.sort(smooth)[len(totals) // 20], smooth.max()
    speech = totals >= np.clip(4.0 * noise, 1e-3 * loudest, 0.1 * loudest)
    assert 0 < speech.sum() < len(speech)
    values = np.log(energies / energies[speech].mean() + 1e-6)
    values = (values - values[speech].mean(0)) / np.sqrt(values[speech].var(0) + 1e-2)
    normalised, frames = features.log_mel(tf.constant(sound[None]), [len(sound)], 40)
    assert int(frames[0]) == len(energies)
    np.testing.assert_allclose(normalised[0], values, atol=2e-2)


def test_loudness_and_padding_change_no_feature():
    sound = speak("abc", np.random.default_rng(1))
    plain, frames = features.log_mel(tf.constant(sound[None]), [len(sound)], 32)
    junk = np.concatenate([sound, np.random.default_rng(2).normal(size=3000)])[None]
    for other in (0.01 * sound[None], junk.astype(np.float32)):
        values, count = features.log_mel(tf.constant(other), [len(sound)], 32)
        assert int(count[0]) == int(frames[0])
        np.testing.assert_allclose(values[:, : int(count[0])], plain, atol=2e-3)
        assert not values[:, int(count[0]) :].numpy().any()


@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_silence_around_speech_changes_no_feature_of_the_speech(noise):
    sound = speak("abc", np.random.default_rng(1))
    plain, frames = features.log_mel(tf.constant(sound[None]), [len(sound)], 32)
    pause = noise * np.random.default_rng(2).normal(size=2 * RATE)
    click = np.zeros(RATE // 10)
    click[500] = 0.5
    for before, after in ((pause, pause), (np.zeros(0), pause), (click, pause)):
        longer = np.concatenate([before, sound, after])[None].astype(np.float32)
        values, _ = features.log_mel(tf.constant(longer), [longer.shape[1]], 32)
        start = len(before) // 160
        inside = slice(3, int(frames[0]) - 3)  # frames of sound alone
        shifted = values[0, start : start + int(frames[0])]
        tolerance = 0.3 if len(before) == len(click) else 1e-3
        np.testing.assert_allclose(shifted[inside], plain[0, inside], atol=tolerance)


@pytest.mark.parametrize("level", [1e-3, 1e-2, 3e-2])
def test_noise_before_and_after_changes_no_feature_of_speech_in_noise(level):
    rng = np.random.default_rng(1)
    sound = np.pad(speak("abc", rng), 2 * RATE)
    longer = (sound + level * rng.normal(size=len(sound))).astype(np.float32)[None]
    plain, frames = features.log_mel(tf.constant(longer[:, 2 * RATE : -2 * RATE]), [10**6], 32)
    values, _ = features.log_mel(tf.constant(longer), [longer.shape[1]], 32)
    shifted = values[0, 200 : 200 + int(frames[0])]
    assert np.abs(shifted - plain[0]).mean() < 0.05


def test_speech_stands_out_of_noise():
    energies = tf.constant([[[0.03]] * 10 + [[1.0]] * 10 + [[0.03]] * 10 + [[9.0]] * 5])
    found = features.find_speech(energies, [30]).numpy()[0]
    assert found[10:20].all() and not found[:10].any() and not found[20:].any()
    steady = features.find_speech(tf.ones([1, 20, 3]), [20]).numpy()
    assert steady.all()  # as loud as the loudest, whatever the noise is


@pytest.mark.parametrize("samples", [0, 399, 400, 559, 560, 7777])
def test_frames_are_the_whole_windows(samples):
    values, frames = features.log_mel(tf.ones([1, max(samples, 1)]), [samples], 16)
    expected = max(0, 1 + (samples - 400) // 160) if samples >= 400 else 0
    assert int(frames[0]) == expected and values.shape[1] == max(expected, 1)


@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (3, 1), (2, 2)])
def test_convolutions_count_their_steps_and_ignore_padding(strides):
    layer = features.Subsample(4, strides)
    rng = np.random.default_rng(0)
    for frames in (1, 2, 7, 10, 11, 12):
        x = rng.normal(size=(1, frames, 10)).astype(np.float32)
        plain, steps = layer(tf.constant(x), tf.constant([frames]))
        padded = np.concatenate([x, np.zeros((1, 9, 10), np.float32)], axis=1)
        more, same = layer(tf.constant(padded), tf.constant([frames]))
        assert int(steps[0]) == int(same[0]) == plain.shape[1]
        samples = 400 + 160 * (frames - 1)
        counted = features.count_steps(features.count_frames([samples]), strides)
        assert int(counted[0]) == int(steps[0])
        np.testing.assert_allclose(more[:, : plain.shape[1]], plain, atol=1e-5)
        assert not more[:, plain.shape[1] :].numpy().any()


def test_spec_augment_masks_in_training_only():
    layer = features.SpecAugment(2, 0.2, 2, 5, seed=1)
    x = tf.ones([64, 50, 20])
    frames = tf.constant([50] * 32 + [25] * 32)
    assert layer(x, frames, training=False) is x
    masks = 1.0 - layer(x, frames, training=True).numpy()
    times, bands = masks.min(axis=2), masks.min(axis=1)
    assert 0 < times.sum(axis=1).max() <= 2 * (0.2 * 50 + 1)
    assert 0 < bands.sum(axis=1).max() <= 2 * (5 + 1)
    assert not times[32:, 26:].any()
    assert len({row.tobytes() for row in masks}) > 32
    again = features.SpecAugment.from_config(layer.get_config())
    np.testing.assert_array_equal(1.0 - again(x, frames, training=True).numpy(), masks)


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 561, 7777])
def test_padded_frames_are_those_of_log_mel(samples):
    values, _ = features.log_mel(tf.ones([1, samples]), [samples], 16)
    assert int(features.count_padded_frames(samples)) == values.shape[1]
