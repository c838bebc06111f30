from common.errors import InputError
from tasks.speech import formats
from tasks.speech.recording import Recording
from tests.tasks.own.speech import write_folder

import pytest
import soundfile


def write_files(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def read(folder):
    """Read a folder in which every line can be used."""
    skipped = []
    recordings = formats.read_folder(folder, skipped)
    assert not skipped
    return recordings


def test_ljspeech_folders_are_read(tmp_path):
    lines = "a|One.|one\n\nsub/b|Two|2| two \nc.WAV|three\n"
    sounds = ("wavs/a.flac", "sub/b.MP3", "c.WAV")
    write_files(tmp_path, {"metadata.csv": lines, **dict.fromkeys(sounds, "")})
    assert read(tmp_path) == [
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
    assert read(tmp_path) == [
        Recording("u1", tmp_path / "a.wav", "ONE", "s1"),
        Recording("u2", other, "TWO WORDS", ""),
    ]


def test_columns_are_found_by_their_header_or_by_their_values(tmp_path):
    sounds = {f"{name}.wav": "" for name in "abc"}
    expected = {"a": ("One.", "anna"), "b": ("Two.", "ben"), "c": ("One.", "ben")}
    for lines in (
        "speaker|file_name|Transcription\nanna | a.wav | One.\nben|b.wav|Two.\nben|c.wav|One.\n",
        "a|One.|anna\nb |Two. | ben\nc|One.|ben\n",
    ):
        write_files(tmp_path, {"metadata.csv": lines, **sounds})
        found = {row.path.stem: (row.text, row.speaker) for row in read(tmp_path)}
        assert found == expected
    digits = "a|7|seven\nb|8|eight\nc|7|seven\n"  # a normalised text, although it repeats
    write_files(tmp_path, {"metadata.csv": digits})
    assert [row.text for row in read(tmp_path)] == ["seven", "eight", "seven"]


def test_tables_with_commas_or_tabs_are_read_by_their_header(tmp_path):
    sounds = {"a.wav": "", "clips/b.mp3": ""}
    for lines in (
        'file_name,speaker_id,transcription\na.wav,anna,"Well, one."\nb.mp3,ben,Two\n',
        "client_id\tpath\tsentence\tup_votes\nanna\ta.wav\tWell, one.\t2\nben\tb.mp3\tTwo\t0\n",
    ):
        write_files(tmp_path, {"metadata.csv": lines, **sounds})
        assert read(tmp_path) == [
            Recording("a.wav", tmp_path / "a.wav", "Well, one.", "anna"),
            Recording("b.mp3", tmp_path / "clips/b.mp3", "Two", "ben"),
        ]


def test_common_voice_folders_have_a_table_for_each_split(tmp_path):
    header = "client_id\tpath\tsentence\n"
    files = {"clips/a.mp3": "", "validated.tsv": header + "anna\ta.mp3\tOne\n"}
    files |= {f"{split}.tsv": header + f"{split}\ta.mp3\tOne\n" for split in ("train", "dev")}
    write_files(tmp_path, files)
    assert formats.find_parts(tmp_path) == {}
    expected = Recording("a.mp3", tmp_path / "clips/a.mp3", "One", "anna")
    assert read(tmp_path) == [expected]
    write_files(tmp_path, {"test.tsv": header})
    parts = formats.find_parts(tmp_path)
    names = {split: path.name for split, path in parts.items()}
    assert names == {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
    assert read(parts["validation"]) == [expected._replace(speaker="dev")]


def test_librispeech_trees_are_read_with_their_speakers(tmp_path):
    for part in ("train-clean-100", "dev-clean", "test-clean"):
        files = {
            f"{part}/19/198/19-198.trans.txt": "19-198-0000 ONE TWO\n19-198-0001 THREE\n",
            f"{part}/19/198/19-198-0000.flac": "",
            f"{part}/26/495/26-495.trans.txt": "26-495-0000 FOUR\n",
            f"{part}/26/495/26-495-0000.flac": "",
        }
        write_files(tmp_path, files)
    parts = formats.find_parts(tmp_path)
    assert parts["validation"] == tmp_path / "dev-clean"
    skipped = []
    rows = formats.read_folder(parts["train"], skipped)
    assert [(row.id, row.text, row.speaker) for row in rows] == [
        ("19-198-0000", "ONE TWO", "19"),
        ("26-495-0000", "FOUR", "26"),
    ]
    ((place, reason),) = skipped
    assert place == "19-198.trans.txt, line 2" and "no sound file 19-198-0001" in reason


def test_tabs_separate_the_fields_of_kaldis_files(tmp_path):
    files = {"wav.scp": "u1\ta.wav\n", "text": "u1 \t ONE  TWO\n", "a.wav": ""}
    write_files(tmp_path, files)
    assert read(tmp_path) == [Recording("u1", tmp_path / "a.wav", "ONE  TWO")]


@pytest.mark.parametrize(
    ("files", "place", "reason"),
    [
        ({"metadata.csv": "b\na|x\n"}, "metadata.csv, line 1", "expected id|text, got 'b'"),
        ({"metadata.csv": "a|x\n\na|y\n"}, "metadata.csv, line 3", "duplicate id 'a'"),
        ({"metadata.csv": "a|x\nb|y\n"}, "metadata.csv, line 2", "no sound file b.wav"),
        ({"metadata.csv": "a|x\na| \n"}, "metadata.csv, line 2", "no text"),
        ({"metadata.csv": "a|x\n../a|x\n"}, "metadata.csv, line 2", "points outside the folder"),
        ({"wav.scp": "a a.wav\nb a.wav", "text": "a x\n"}, "wav.scp, line 2", "no line in text"),
        ({"wav.scp": "a a.wav\n", "text": "a x\nb y\n"}, "text, line 2", "no line in wav.scp"),
        ({"wav.scp": "a a.wav\nb b.wav", "text": "a x\nb y"}, "wav.scp, line 2", "no file 'b.wav'"),
        ({"wav.scp": "a a.wav\nb\n", "text": "a x\n"}, "wav.scp, line 2", "an id and path"),
        ({"wav.scp": "a a.wav\na c\n", "text": "a x\n"}, "wav.scp, line 2", "duplicate id 'a'"),
    ],
)
def test_lines_that_cannot_be_used_are_skipped_and_named(tmp_path, files, place, reason):
    write_files(tmp_path, {**files, "a.wav": ""})
    skipped = []
    assert [row.id for row in formats.read_folder(tmp_path, skipped)] == ["a"]
    ((where, why),) = skipped
    assert where == place and reason in why


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "expected metadata.csv"),
        ({"metadata.csv": "\n"}, "no recordings listed"),
        ({"wav.scp": "a a.wav\n", "a.wav": ""}, "text: cannot read"),
        ({"wav.scp": "", "text": "", "segments": ""}, "no recordings listed"),
    ],
)
def test_folders_of_another_kind_are_refused(tmp_path, files, message):
    write_files(tmp_path, files)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_the_size_of_a_folder_is_that_of_its_training_part(tmp_path):
    write_folder(tmp_path / "whole", 10, seed=0)
    (tmp_path / "whole" / "wavs" / "r3.wav").write_text("no sound")
    count, hours, longest = formats.measure_folder(tmp_path / "whole")
    sounds = [soundfile.info(path).duration for path in (tmp_path / "whole/wavs").glob("r[!3]*")]
    assert count == 7 and longest == max(sounds)
    assert hours == pytest.approx(0.8 * sum(sounds) / 3600)
    for split, size in (("train", 3), ("val", 1), ("test", 1)):
        write_folder(tmp_path / "parts" / split, size, seed=size)
    assert formats.measure_folder(tmp_path / "parts")[0] == 3
