"""The data sets by name, read through `data.load`."""

import dataclasses
import io
import tarfile
import types

from common.commands.config import EvaluateConfig
from common.datasets import SPLITS
from common.errors import InputError
from tasks.speech import audio, data, datasets, grammar, synthesis
from tasks.speech.config import PRESETS
from tests.tasks.own.speech import RATE, speak

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds


def test_catalogue_sets_come_with_their_transcripts(tmp_path, monkeypatch):
    monkeypatch.setattr("requests.head", lambda *_, **__: None)
    with tfds.testing.mock_data(num_examples=8):
        for name in ("librispeech", "ljspeech", "speech_commands"):
            corpus = data.load(EvaluateConfig(dataset=name, data_dir=tmp_path), seed=1)
            assert set(corpus.splits) == set(SPLITS)
            for row in corpus.splits["train"].take(2).as_numpy_iterator():
                assert row["audio"].dtype == np.float32 and row["audio"].ndim == 1
                assert isinstance(row["text"], bytes)
            if name == "speech_commands":
                words = {row["text"].decode() for row in corpus.splits["train"].as_numpy_iterator()}
                assert words <= {
                    "down",
                    "go",
                    "left",
                    "no",
                    "off",
                    "on",
                    "right",
                    "stop",
                    "up",
                    "yes",
                }
    with pytest.raises(InputError, match="no data set 'timit'"):
        data.load(EvaluateConfig(dataset="timit"), seed=1)
    with pytest.raises(InputError, match=r"'an4\+timit': 'timit' cannot be mixed; known: spoken_"):
        data.load(EvaluateConfig(dataset="an4+timit"), seed=1)


def an4_files(kind):
    """Return a small AN4, name -> bytes: 6 training utterances of 3 speakers, 1 test utterance."""
    rng = np.random.default_rng(0)
    lists = {part: ([], []) for part in ("train", "test")}
    files, samples = {}, {}
    rows = [
        ("train", "an4_clstk", speaker, n) for speaker in ("fash", "mblw", "fbbh") for n in (1, 2)
    ]
    for part, folder, speaker, n in [*rows, ("test", "an4test_clstk", "fcaw", 1)]:
        name = f"an{n}-{speaker}-b"
        sound = audio.to_int16(speak("ab", rng))
        lists[part][0].append(f"{folder}/{speaker}/{name}")
        spelled = f"<s> A B </s> ({name})" if part == "train" else f"A B ({name})"
        lists[part][1].append(spelled)
        buffer = io.BytesIO()
        if kind == "raw":
            buffer.write(sound.astype(">i2").tobytes())
        else:
            formats = {"sph": "NIST", "wav": "WAV", "flac": "FLAC"}
            soundfile.write(buffer, sound, RATE, format=formats[kind], subtype="PCM_16")
        files[f"wav/{folder}/{speaker}/{name}.{kind}"] = buffer.getvalue()
        samples[name] = sound
    for part, (ids, transcripts) in lists.items():
        files[f"etc/an4_{part}.fileids"] = "\n".join(ids).encode() + b"\n"
        files[f"etc/an4_{part}.transcription"] = "\n".join(transcripts).encode() + b"\n"
    return files, samples


@pytest.mark.parametrize("kind", ["flac", "wav", "sph", "raw", "archive"])
def test_an4_in_each_of_its_forms(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(datasets.An4, "VALIDATION", 2)
    files, samples = an4_files("raw" if kind == "archive" else kind)
    manual = tmp_path / "manual"
    manual.mkdir()
    if kind == "archive":
        with tarfile.open(manual / "an4_raw.bigendian.tar.gz", "w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(f"an4/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    else:
        for name, content in files.items():
            (manual / name).parent.mkdir(parents=True, exist_ok=True)
            (manual / name).write_bytes(content)
    source = EvaluateConfig(dataset="an4", manual_dir=manual, data_dir=tmp_path / "d")
    corpus = data.load(source, seed=1)
    assert [corpus.size(split) for split in SPLITS] == [4, 2, 1]
    for split in SPLITS:
        for row in corpus.splits[split].as_numpy_iterator():
            assert row["text"] == b"a b"
            np.testing.assert_array_equal(
                row["audio"], samples[row["id"].decode()].astype(np.float32) / 2.0**15
            )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"etc/an4_train.transcription": b"A B\n"}, r"line 1: expected WORDS \(id\)"),
        ({"etc/an4_train.fileids": b"an4_clstk/fash/an9\n"}, "an9 has no transcript"),
        ({"wav/an4_clstk/fash/an1-fash-b.wav": None}, "an1-fash-b.flac .* is missing"),
        ({"etc/an4_test.fileids": None}, "etc/an4_test.fileids is missing"),
    ],
)
def test_a_damaged_an4_is_refused(tmp_path, change, message, monkeypatch):
    monkeypatch.setattr(datasets.An4, "VALIDATION", 2)
    files, _ = an4_files("wav")
    for name, content in {**files, **change}.items():
        if content is not None:
            (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "m" / name).write_bytes(content)
    source = EvaluateConfig(dataset="an4", manual_dir=tmp_path / "m", data_dir=tmp_path / "d")
    with pytest.raises(InputError, match=message):
        data.load(source, seed=1)


def test_an4_that_is_not_there_or_changed_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"needs an4_sphere.tar.gz .*--manual_dir FOLDER"):
        data.load(EvaluateConfig(dataset="an4", data_dir=tmp_path), seed=1)
    (tmp_path / "an4_sphere.tar.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="its SHA-256 is"):
        data.load(EvaluateConfig(dataset="an4", manual_dir=tmp_path, data_dir=tmp_path), seed=1)
    (tmp_path / "an4_sphere.tar.gz").rename(tmp_path / "an4_raw.bigendian.tar.gz")
    with pytest.raises(InputError, match="is not a readable archive"):
        data.load(EvaluateConfig(dataset="an4", manual_dir=tmp_path, data_dir=tmp_path), seed=1)


@pytest.fixture
def small_mixture(tmp_path, monkeypatch):
    """Return the flags of both data sets with few recordings; the synthesizers are a stand-in."""
    random = np.random.default_rng(2)
    texts = {"train": "c cab", "validation": "bac", "test": "cc"}
    voice = types.SimpleNamespace(family="stand-in", name="beep")

    def recordings(split, count, seed):
        for _ in range(count):
            yield types.SimpleNamespace(text=texts[split]), voice, speak(texts[split], random)

    monkeypatch.setattr(synthesis, "check_installed", lambda: None)
    monkeypatch.setattr(synthesis, "recordings", recordings)
    sizes = {"train": 12, "validation": 3, "test": 2}
    monkeypatch.setattr(datasets.SpokenCommands, "SIZES", sizes)
    monkeypatch.setattr(datasets.An4, "VALIDATION", 2)
    for name, content in an4_files("wav")[0].items():
        path = tmp_path / "manual" / "an4" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    where = {"manual_dir": tmp_path / "manual", "data_dir": tmp_path / "d"}
    return EvaluateConfig(dataset="spoken_commands+an4", **where)


def test_synthetic_and_recorded_speech_train_together(small_mixture, tmp_path):
    missing = dataclasses.replace(small_mixture, manual_dir=None)
    with pytest.raises(InputError, match=r"'an4' needs an4_sphere.*--manual_dir FOLDER"):
        data.load(missing, seed=1)
    assert not (tmp_path / "d").exists()  # nothing is spoken before
    corpus = data.load(small_mixture, seed=1)
    assert corpus.name == "spoken_commands+an4"
    assert [corpus.size(split) for split in SPLITS] == [12 + 4, 3 + 2, 2 + 1]
    assert corpus.licence.startswith("spoken_commands: no recordings of people")
    assert corpus.licence.endswith("; an4: free for any use")
    assert "eSpeak NG" in corpus.citation and "Acero" in corpus.citation

    def read(corpus):
        return {
            split: [(row["id"], row["text"].decode()) for row in rows.as_numpy_iterator()]
            for split, rows in corpus.splits.items()
        }

    rows = read(corpus)
    texts = [text for _, text in rows["train"]]
    assert set(texts) == {"a b", "c cab"} and data.alphabet(texts) == (*" abc",)
    assert [texts[n : n + 4].count("a b") for n in (0, 4, 8, 12)] == [1, 1, 1, 1]
    assert [text for _, text in rows["validation"]] == ["bac", "a b", "bac", "a b", "bac"]
    # Every part keeps its own splits, and so its speakers.
    parts = [dataclasses.replace(small_mixture, dataset=n) for n in corpus.name.split("+")]
    spoken, recorded = (read(data.load(part, seed=1)) for part in parts)
    assert all(sorted(rows[split]) == sorted(spoken[split] + recorded[split]) for split in SPLITS)


def test_an4_has_its_published_counts_and_speakers_held_out(shared_data, tmp_path):
    manual = shared_data / "speech" / "an4"
    corpus = data.load(EvaluateConfig(dataset="an4", manual_dir=manual, data_dir=tmp_path), seed=1)
    assert [corpus.size(split) for split in SPLITS] == [848, 100, 130]
    speakers = {}
    for split in SPLITS:
        survey = data.survey(corpus.splits[split])
        speakers[split] = {name.split("-")[1] for name in survey.ids}
        if split != "test":
            good, _ = data.usable(survey, PRESETS["an4"], split, source="an4")
            assert good.all()
    assert [len(speakers[split]) for split in SPLITS] == [66, 8, 10]
    assert not speakers["train"] & speakers["validation"]


def test_the_default_data_set_is_spoken_once(tmp_path, monkeypatch):
    sizes = {"train": 10, "validation": 5, "test": 5}
    monkeypatch.setattr(datasets.SpokenCommands, "SIZES", sizes)
    corpus = data.load(EvaluateConfig(dataset="spoken_commands", data_dir=tmp_path), seed=1)
    assert {split: corpus.size(split) for split in sizes} == sizes
    survey = data.survey(corpus.splits["train"])
    sentences = [
        sentence.text for sentence, _ in zip(grammar.sentences("train", 1), range(10), strict=False)
    ]
    assert sorted(survey.texts) == sorted(sentences)
    good, _ = data.usable(survey, PRESETS["spoken_commands"], "train", source="spoken_commands")
    assert good.all()

    def refuse(*_):
        raise AssertionError("spoken again")

    monkeypatch.setattr(synthesis, "speak", refuse)
    again = data.load(EvaluateConfig(dataset="spoken_commands", data_dir=tmp_path), seed=1)
    assert data.survey(again.splits["train"]).texts == survey.texts
