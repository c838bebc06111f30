"""The microphone, by a double of `sounddevice`, and the texts of a stream of sound."""

import json
import sys
import types

from common import ctc
from common.commands.cli import Terminated
from common.errors import InputError
from tasks.speech import microphone, predict
from tests.tasks import commands
from tests.tasks.speech.recordings import english

import numpy as np
import pytest

LETTERS = ["a", "b"]
STEPS = 8  # of a block of 320 ms


class Scripted:
    """A model of `--streaming` that hears the value of each block: 1 = a, 2 = b, 0 = nothing."""

    def __init__(self):
        self.settings = {
            "letters": LETTERS,
            "step_seconds": 0.04,
            "max_samples": 160_000,
            "state_size": 1,
            "chunk_samples": 5_120,
        }

    def call(self, signature, /, **inputs):
        if signature == "decode":
            tokens = ctc.greedy(inputs["log_probs"], inputs["frames"]).tokens[0, 0].numpy()
            text = "".join(LETTERS[token] for token in tokens if token >= 0)
            return {"text": [text.encode()], "confidence": [0.5]}
        heard = int(inputs["audio"][0, 0])
        log_probs = np.full((1, STEPS, 3), -9.0, np.float32)
        log_probs[0, :, 2] = -0.1
        if heard:
            log_probs[0, 0, heard - 1] = -0.01
        assert inputs["state"].shape == (1, 1)
        return {"log_probs": log_probs, "state": inputs["state"] + 1}


def blocks(values):
    return [np.full(5_120, value, np.float32) for value in values]


def test_an_utterance_is_shown_in_parts_and_ends_at_a_pause():
    heard = list(microphone.listen(Scripted(), blocks([0, 1, 2, 0, 0, 0, 0, 1])))
    assert [(row.text, row.is_final) for row in heard] == [
        ("a", False),
        ("ab", False),
        ("ab", True),  # 0.8 s after the last letter
        ("a", False),
        ("a", True),  # the end of the sound
    ]
    assert all(type(row.is_final) is bool for row in heard)  # for JSON
    assert heard[0].start == 0.0 and heard[1].end == pytest.approx(0.96)
    assert heard[3].start == heard[2].end == pytest.approx(1.6)


def test_silence_is_forgotten_but_no_word_that_begins():
    heard = list(microphone.listen(Scripted(), blocks([0] * 30 + [1])))
    assert [(row.text, row.is_final) for row in heard] == [("a", False), ("a", True)]
    assert heard[0].start == pytest.approx(8.0)
    full = list(microphone.listen(Scripted(), blocks([1] * 40)))
    assert [len(row.text) for row in full if row.is_final] == [31, 9]  # at most 10 s


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Terminated])
def test_ctrl_c_ends_the_sound_with_its_last_text(stop):
    def interrupted():
        yield from blocks([1])
        raise stop

    heard = []
    if stop is KeyboardInterrupt:
        heard += microphone.listen(Scripted(), interrupted())
        assert [row.is_final for row in heard] == [False, True]
    else:  # SIGTERM ends the command
        with pytest.raises(Terminated):
            heard += microphone.listen(Scripted(), interrupted())


def make_double(monkeypatch, sound=None, error=None):
    """Put a double of `sounddevice` in its place, which plays a sound or fails."""
    module = types.ModuleType("sounddevice")

    class PortAudioError(Exception):
        pass

    class InputStream:
        active = False  # a device that has stopped

        def __init__(self, *, samplerate, blocksize, channels, dtype, callback):
            assert (samplerate, channels, dtype) == (16_000, 1, "float32")
            if error:
                raise PortAudioError(error)
            self.size, self.callback = blocksize, callback

        def __enter__(self):
            for start in range(0, len(sound) - self.size + 1, self.size):
                block = sound[start : start + self.size, None]
                self.callback(block, self.size, None, None)
            return self

        def __exit__(self, *_):
            pass

    module.PortAudioError, module.InputStream = PortAudioError, InputStream
    monkeypatch.setitem(sys.modules, "sounddevice", module)


def test_the_microphone_yields_mono_blocks_until_it_stops(monkeypatch, capsys):
    sound = np.arange(12, dtype=np.float32)
    make_double(monkeypatch, sound)
    assert [block.tolist() for block in microphone.record(5)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert "the microphone has stopped" in capsys.readouterr().err


def test_a_missing_library_or_microphone_has_a_clear_message(monkeypatch):
    make_double(monkeypatch, error="Error querying device -1")
    with pytest.raises(InputError, match=r"no microphone can be read \(Error querying device -1\)"):
        next(microphone.record(5))
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(InputError, match=r"sounddevice, which is not installed: .*microphone\]"):
        next(microphone.record(5))

    def without_port_audio(module, extra):
        raise OSError("PortAudio library not found")

    monkeypatch.setattr(microphone, "require", without_port_audio)
    with pytest.raises(InputError, match=r"finds no PortAudio .*apt install libportaudio2"):
        next(microphone.record(5))


@pytest.mark.parametrize(
    "words", [["a.wav"], ["--results", "x"], ["--plot", "x.png"], ["--subtitles", "a.srt"]]
)
def test_flags_for_files_are_refused(words, capsys, monkeypatch, in_user_folder):
    message = "--microphone takes no files, and no --plot, --subtitles, --results or --workers"
    words = ["--model", "gone", "--microphone", *words]
    commands.check_refused(predict.main, words, message, capsys, monkeypatch)


def test_predict_prints_what_the_microphone_hears(monkeypatch, capsys, shipped):
    expected = english()[:2]
    pause = np.zeros(2 * 16_000, np.float32)
    sound = np.concatenate([part for _, said in expected for part in (said, pause)])
    make_double(monkeypatch, sound)
    predict.main(["--model", str(shipped.path), "--microphone"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1] for line in lines] == [text for text, _ in expected]
    predict.main(["--model", str(shipped.path), "--microphone", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows if row["is_final"]] == [text for text, _ in expected]
    assert any(not row["is_final"] and row["text"] for row in rows)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    predict.main(["--model", str(shipped.path), "--microphone"])
    assert capsys.readouterr().out.count("\r\033[K") > 2
