from common.errors import InputError
from tasks.speech import audio, data, kaldi
from tasks.speech.audio import Part
from tasks.speech.recording import Recording
from tests.tasks.own.speech import RATE

import numpy as np
import pytest
import soundfile


def write_stereo(path, seconds=3):
    """Write -0.5 and 0.25 in turn, a second each, in the first channel, and 0.1 in the second."""
    first = np.repeat([-0.5, 0.25] * seconds, RATE)[: seconds * RATE]
    soundfile.write(path, np.stack([first, np.full(len(first), 0.1)], axis=1), RATE)


def test_segments_and_pipes_are_read_without_a_shell(tmp_path):
    write_stereo(tmp_path / "a.flac")
    write_stereo(tmp_path / "b.wav")
    lists = {
        "wav.scp": "r1 flac -c -d -s a.flac |\nr2 /opt/bin/sph2pipe -f wav -p -c 2 b.wav |\n",
        "segments": "u1 r1 1.0 2.0\nu2 r1 2.5 -1\nu3 r2 0 0.5\n",
        "text": "u1 ONE\nu2 TWO\nu3 THREE\n",
        "utt2spk": "u1 anna\nu2 anna\nu3 ben\n",
    }
    for name, content in lists.items():
        (tmp_path / name).write_text(content)
    skipped = []
    recordings = list(kaldi.read_kaldi(tmp_path, skipped))
    assert skipped == []
    assert recordings == [
        Recording("u1", tmp_path / "a.flac", "ONE", "anna", Part("mix", 1.0, 2.0)),
        Recording("u2", tmp_path / "a.flac", "TWO", "anna", Part("mix", 2.5, None)),
        Recording("u3", tmp_path / "b.wav", "THREE", "ben", Part("2", 0.0, 0.5)),
    ]
    sounds = [audio.read(row.path, part=row.part) for row in recordings]
    assert [len(sound) for sound in sounds] == [RATE, RATE // 2, RATE // 2]
    for sound, level in zip(sounds, (0.175, -0.2, 0.1), strict=True):
        np.testing.assert_allclose(sound, level, atol=1e-4)
    assert [audio.measure(row.path, row.part) for row in recordings] == [1.0, 0.5, 0.5]
    # The flag names a channel where the command does not.
    rows = data.as_dataset(recordings, skipped, "1").as_numpy_iterator()
    levels = [row["audio"].mean() for row in rows]
    assert levels == pytest.approx([0.25, -0.5, 0.1], abs=1e-4)


@pytest.mark.parametrize(
    "value",
    [
        "sox a.sph -t wav - |",
        "flac -c -d a.flac b.flac |",
        "flac -c -d |",
        "flac -c -d --skip=1:00 a.flac |",
        "sph2pipe -f wav -t 1:2 a.sph |",
        "sph2pipe -c 3 a.sph |",
        "flac -c -d a.flac | sox - -t wav - |",
        "cat a.wav; rm b.wav |",
        'flac -c -d "a.flac |',
        "|",
    ],
)
def test_other_commands_are_refused(value):
    with pytest.raises(InputError, match="commands are not run"):
        kaldi.parse_sound(value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("u2 r1 1.0", "expected an id, a recording, start and end, got 'r1 1.0'"),
        ("u2 r1 one 2", "expected an id, a recording"),
        ("u2 r9 1 2", "'r9' has no line in wav.scp"),
        ("u2 r1 2 1", "expected 0 <= start < end in seconds, got 2 and 1"),
        ("u2 r1 nan 1", "expected 0 <= start < end"),
        ("u2 r2 0 1", "its sound 'r2' is skipped"),
    ],
)
def test_segments_that_cannot_be_used_are_skipped_and_named(tmp_path, line, reason):
    write_stereo(tmp_path / "a.wav")
    (tmp_path / "wav.scp").write_text("r1 a.wav\nr2 gone.wav\n")
    (tmp_path / "segments").write_text(f"u1 r1 0 1\n{line}\n")
    (tmp_path / "text").write_text("u1 x\nu2 y\n")
    skipped = []
    assert [row.id for row in kaldi.read_kaldi(tmp_path, skipped)] == ["u1"]
    assert skipped[0] == ("wav.scp, line 2", "no file 'gone.wav'")
    assert skipped[1][0] == "segments, line 2" and reason in skipped[1][1]
