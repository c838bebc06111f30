import itertools
import random

from common.datasets import SPLITS
from common.errors import InputError
from tasks.speech import audio, synthesis
from tasks.speech.voices import Voice
from tests.tasks.own.speech import RATE

import numpy as np
import pytest


def test_no_speaker_is_in_two_splits_and_the_family_of_the_test_split_in_no_training():
    names = {
        split: {(group.family, name) for group in groups for name in group.names}
        for split, groups in synthesis.SPEAKERS.items()
    }
    variants = {
        split: {(family, name.rpartition("+")[2]) for family, name in rows}
        for split, rows in names.items()
    }
    for one, other in itertools.combinations(SPLITS, 2):
        assert not variants[one] & variants[other]
    families = {split: {family for family, _ in rows} for split, rows in names.items()}
    assert not families["test"] & families["train"]
    assert len(families["train"]) >= 3


def test_the_command_writes_a_sentence_to_a_file(tmp_path):
    output = str(tmp_path / "a.wav")
    synthesis.main(["Call Anna at nine", "--output", output, "--voice", "espeak:en-us+m3"])
    assert RATE // 2 < len(audio.read(tmp_path / "a.wav")) < 2 * RATE
    with pytest.raises(InputError, match="a family of espeak, pico, piper, hibari: m3"):
        synthesis.main(["hello", "--output", output, "--voice", "m3"])


def test_recordings_are_sentences_in_voices_of_their_split(monkeypatch):
    requests = []

    def speak(rows):
        requests.extend(rows)
        return [np.ones(1000, np.float32)] * len(rows)

    monkeypatch.setattr(synthesis, "speak", speak)
    rows = list(synthesis.recordings("validation", 40, seed=1))
    assert requests == [(sentence.spoken, voice) for sentence, voice, _ in rows]
    groups = synthesis.SPEAKERS["validation"]
    assert {voice.family for _, voice, _ in rows} == {group.family for group in groups}
    for _, voice, sound in rows:
        assert voice.pitch == voice.formants == 1.0  # they vary in training
        silence = len(sound) - 1000
        assert 0.04 * RATE <= silence <= 0.5 * RATE and sound.sum() == 1000
        assert sound[0] == sound[-1] == 0.0


def test_random_voices_follow_the_seed():
    one, same, other = (synthesis.random_voice("train", random.Random(s)) for s in (1, 1, 2))
    assert one == same != other and isinstance(one, Voice)
    # The voices of the prepared data set; others need a new VERSION.
    assert one[:2] == ("espeak", "en-us+m6")
    assert one[2:] == pytest.approx((1.0477, 0.9724, 0.9118), abs=1e-4)
