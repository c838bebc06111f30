from common.errors import InputError
from tasks.speech import formats
from tasks.speech.formats import Recording

import pytest


def write_files(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def test_ljspeech_folders_are_read(tmp_path):
    lines = "a|One.|one\n\nsub/b|Two|2| two \nc.WAV|three\n"
    sounds = ("wavs/a.flac", "sub/b.MP3", "c.WAV")
    write_files(tmp_path, {"metadata.csv": lines, **dict.fromkeys(sounds, "")})
    assert formats.read_folder(tmp_path) == [
        Recording("a", tmp_path / "wavs/a.flac", "one"),
        Recording("sub/b", tmp_path / "sub/b.MP3", "two"),
        Recording("c.WAV", tmp_path / "c.WAV", "three"),
    ]


def test_kaldi_folders_are_read(tmp_path):
    other = tmp_path / "elsewhere" / "b.flac"
    files = {
        "wav.scp": f"u1 a.wav\nu2 {other}\n",
        "text": "u2 TWO WORDS\n\nu1 ONE\n",
        "utt2spk": "u1 s1\n",
        "a.wav": "",
        "elsewhere/b.flac": "",
    }
    write_files(tmp_path, files)
    assert formats.read_folder(tmp_path) == [
        Recording("u1", tmp_path / "a.wav", "ONE", "s1"),
        Recording("u2", other, "TWO WORDS", ""),
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "expected metadata.csv"),
        ({"metadata.csv": "a\n"}, r"metadata.csv, line 1: expected id\|text"),
        ({"metadata.csv": "a|x\na|y\n", "a.wav": ""}, "line 2: duplicate id 'a'"),
        ({"metadata.csv": "b|x\n"}, "line 1: no sound file b.wav"),
        ({"metadata.csv": "../b|x\n"}, "points outside the folder"),
        ({"metadata.csv": "\n"}, "no recordings listed"),
        ({"wav.scp": "a a.wav\n", "a.wav": ""}, "text: cannot read"),
        ({"wav.scp": "a a.wav\n", "text": "b x\n", "a.wav": ""}, "line 1: 'a' has no line in text"),
        (
            {"wav.scp": "a a.wav\n", "text": "a x\nb y\n", "a.wav": ""},
            "line 2: 'b' has no line in wav.scp",
        ),
        (
            {"wav.scp": "a sox a.sph -t wav - |\n", "text": "a x\n"},
            "line 1: expected a path, got a command",
        ),
        ({"wav.scp": "a a.wav\n", "text": "a x\n"}, "no file 'a.wav'"),
        ({"wav.scp": "a\n", "text": "a x\n"}, "expected an id and path"),
        ({"wav.scp": "a x\na y\n", "text": "a x\n"}, "line 2: duplicate id 'a'"),
        ({"wav.scp": "", "text": "", "segments": ""}, "segments: not supported"),
    ],
)
def test_malformed_folders_are_refused(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        formats.read_folder(tmp_path)
