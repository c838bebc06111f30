from tasks.speech import augmentation
from tasks.speech.config import Config
from tasks.speech.features import count_frames, count_steps
from tests.tasks.own.speech import RATE, speak

import numpy as np
import pytest
import tensorflow as tf

PLAIN = {"speed": 0.0, "rooms": 0.0, "telephone": 0.0, "silence": 0.0}


def test_speed_changes_pitch_and_length_and_keeps_loudness():
    time = np.arange(2 * RATE) / RATE
    sound = tf.constant(0.5 * np.sin(2 * np.pi * 1000.0 * time), tf.float32)
    for factor in (0.9, 1.0, 1.1):
        played = augmentation.change_speed(sound, factor).numpy()
        assert len(played) == pytest.approx(2 * RATE / factor, rel=0.01)
        spectrum = np.abs(np.fft.rfft(played * np.hanning(len(played))))
        peak = spectrum.argmax() * RATE / len(played)
        assert peak == pytest.approx(1000.0 * 2 * RATE / len(played), abs=1.0)
        assert np.abs(played[2000:-2000]).max() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_allclose(augmentation.change_speed(sound, 1.0), sound, atol=1e-4)


def test_augmentation_follows_its_seed():
    sound = tf.constant(speak("abc", np.random.default_rng(0)))
    config = Config(speed=0.1, noise=10.0)
    one, same, other = (
        augmentation.augment(sound, tf.constant(seed, tf.int64), config).numpy()
        for seed in ([1, 2], [1, 2], [1, 4])
    )
    np.testing.assert_array_equal(one, same)
    assert one.shape != other.shape or not np.allclose(one, other)
    assert 0.88 * len(sound) <= len(one) <= 1.12 * len(sound)


def test_silence_is_added_around_half_of_the_recordings_and_noise_to_most():
    sound = tf.constant(speak("abc", np.random.default_rng(0)))
    config = Config(**{**PLAIN, "silence": 0.5}, noise=20.0)
    augmented = [
        augmentation.augment(sound, tf.constant([3, n], tf.int64), config) for n in range(200)
    ]
    added = np.array([len(row) - len(sound) for row in augmented])
    assert added.min() >= 0 and 0.45 * RATE < added.max() <= 0.5 * RATE
    assert 70 <= (added > 0).sum() <= 130
    # Two hundred samples at the start of the longest silences: digital zeros, or noise.
    starts = [np.abs(row[:200]).max() for row in augmented if len(row) - len(sound) > RATE // 4]
    assert 0.0 in starts and sum(start > 1e-4 for start in starts) > len(starts) // 2


@pytest.mark.parametrize(("noise", "quietest"), [(0.0, 50.0), (20.0, 50.0), (60.0, 60.0)])
def test_noise_is_between_the_given_loudness_and_50_db_below_the_speech(noise, quietest):
    sound = speak("abc", np.random.default_rng(0))
    config = Config(**PLAIN, noise=noise)
    rows = [
        augmentation.augment(tf.constant(sound), tf.constant([5, n], tf.int64), config).numpy()
        for n in range(60)
    ]
    added = np.array([np.mean((row - sound) ** 2) for row in rows])
    decibels = 10.0 * np.log10(np.mean(sound**2) / added[added > 0.0])
    assert 40 <= len(decibels) < 60
    assert noise - 0.1 <= decibels.min() <= noise + 6.0
    assert quietest - 6.0 <= decibels.max() <= quietest + 0.1


def test_a_recording_keeps_its_speed_if_it_would_be_too_short_for_its_text():
    sound = tf.constant(speak("abc", np.random.default_rng(0)))
    config = Config(**{**PLAIN, "speed": 0.5})
    steps = int(count_steps(count_frames(len(sound)), config.strides))
    lengths = {
        needed: [
            len(augmentation.augment(sound, tf.constant([1, n], tf.int64), config, needed=needed))
            for n in range(20)
        ]
        for needed in (0, steps)
    }
    assert min(lengths[0]) < len(sound) == min(lengths[steps]) < max(lengths[steps])


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_the_power_of_noise_falls_with_the_frequency(slope):
    noise = augmentation.coloured_noise(
        tf.constant(10 * RATE), slope, tf.constant([0, 1], tf.int64)
    )
    assert noise.shape == (10 * RATE,)
    power = np.abs(np.fft.rfft(noise)) ** 2
    hertz = np.fft.rfftfreq(len(noise), 1 / RATE)
    bands = [power[(hertz > low) & (hertz < 2 * low)].mean() for low in (200, 3200)]
    assert np.log2(bands[0] / bands[1]) / 4 == pytest.approx(slope, abs=0.15)
    assert np.mean(np.square(noise)) == pytest.approx(1.0, abs=1e-3)


def test_a_room_adds_an_echo_that_decays_and_is_weaker_than_the_sound():
    click = tf.constant(np.eye(1, RATE, 100)[0], tf.float32)
    for seed in range(20):
        heard = augmentation.add_room(click, tf.constant([seed, 0], tf.int64)).numpy()
        assert heard.shape == click.shape and np.abs(heard[:100]).max() < 1e-5
        echo = heard.copy()
        echo[100] -= click[100]
        energy = np.cumsum(echo[::-1] ** 2)[::-1]
        assert 10**-1.6 < energy[0] < 1.01
        # -60 dB after 0.1 to 0.6 s, so at least -10 dB and at most -60 dB after 0.1 s.
        assert 1e-7 < energy[100 + RATE // 10] / energy[0] < 0.12


def test_a_telephone_leaves_its_band_alone():
    noise = tf.constant(np.random.default_rng(0).normal(size=2 * RATE), tf.float32)
    hertz = np.fft.rfftfreq(2 * RATE, 1 / RATE)
    before = np.abs(np.fft.rfft(noise))
    for seed in range(10):
        heard = augmentation.telephone(noise, tf.constant([seed, 0], tf.int64)).numpy()
        after = np.abs(np.fft.rfft(heard))
        inside = (hertz > 310) & (hertz < 3390)
        np.testing.assert_allclose(after[inside], before[inside], rtol=1e-3, atol=0.05)
        assert after[hertz > 4060].max() < 1e-3 * before.mean()


def test_rooms_and_telephones_change_their_share_of_the_recordings():
    sound = tf.constant(speak("abc", np.random.default_rng(0)))
    for name in ("rooms", "telephone"):
        config = Config(**{**PLAIN, name: 0.3}, noise=300.0)
        changed = [
            not np.allclose(
                augmentation.augment(sound, tf.constant([1, n], tf.int64), config), sound, atol=1e-4
            )
            for n in range(100)
        ]
        assert 15 <= sum(changed) <= 45, name
