import itertools
import random
import sys

from common.datasets import SPLITS
from common.errors import InputError
from tasks.speech import audio, synthesis
from tests.tasks.own.speech import RATE

import numpy as np
import pytest


def test_no_variant_is_in_two_splits():
    for one, other in itertools.combinations(SPLITS, 2):
        assert not set(synthesis.VARIANTS[one]) & set(synthesis.VARIANTS[other])


def test_espeak_has_every_voice_and_they_differ():
    speaker = synthesis.synthesizer()
    one = speaker.say("hello world", synthesis.Voice("en-us", "f2"))
    assert 0.4 * RATE < len(one) < 2 * RATE and 0.05 < np.abs(one).max() <= 1.0
    assert not np.array_equal(one, speaker.say("hello world", synthesis.Voice("en-us", "m3")))
    assert len(speaker.say("hello world", synthesis.Voice("en-us", "f2", rate=240))) < len(one)
    for accent in synthesis.ACCENTS:
        for variant in itertools.chain(*synthesis.VARIANTS.values()):
            assert speaker.say("a", synthesis.Voice(accent, variant)).any()
    with pytest.raises(InputError, match=r"no voice 'en-us\+nobody'"):
        speaker.say("hello", synthesis.Voice("en-us", "nobody"))


def test_the_command_writes_a_sentence_to_a_file(tmp_path):
    synthesis.main(["call anna at nine", "--output", str(tmp_path / "a.wav"), "--variant", "m3"])
    sound = audio.read(tmp_path / "a.wav")
    expected = synthesis.synthesizer().say("call anna at nine", synthesis.Voice("en-us", "m3"))
    # The voices of eSpeak NG have jitter, so no two calls are equal.
    assert len(sound) == pytest.approx(len(expected), rel=0.01)
    loudness = np.sqrt(np.mean(sound**2)), np.sqrt(np.mean(expected**2))
    assert loudness[0] == pytest.approx(loudness[1], rel=0.1)


class FakeSynthesizer:
    """Records the calls of `say`, and returns ones."""

    def __init__(self):
        self.calls = []

    def say(self, text, voice):
        self.calls.append((text, voice))
        return np.ones(1000, np.float32)


def test_recordings_are_sentences_in_voices_of_their_split(monkeypatch):
    fake = FakeSynthesizer()
    monkeypatch.setattr(synthesis, "synthesizer", lambda: fake)
    rows = list(synthesis.recordings("test", 20, seed=1))
    assert fake.calls == [(sentence.spoken, voice) for sentence, voice, _ in rows]
    assert {voice.variant for _, voice, _ in rows} == set(synthesis.VARIANTS["test"])
    for _, _, sound in rows:
        silence = len(sound) - 1000
        assert 0.04 * RATE <= silence <= 0.5 * RATE and sound.sum() == 1000
        assert sound[0] == sound[-1] == 0.0
    # The voices and margins of the prepared data set; others need a new VERSION.
    assert rows[0][1] == synthesis.Voice("en", "adam", rate=150, pitch=49, range=35)
    assert [len(sound) for _, _, sound in rows[:3]] == [4093, 3597, 3318]


def test_random_voices_follow_the_seed():
    one, same, other = (synthesis.random_voice("train", random.Random(s)) for s in (1, 1, 2))
    assert one == same != other


def test_missing_libraries_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(InputError, match=r"espeakng_loader.*pip install -e '\.\[speech,espeak\]'"):
        synthesis.Synthesizer()
