import dataclasses

from common.commands.config import EvaluateConfig
from common.datasets import SPLITS
from common.errors import InputError
from tasks.speech import data
from tasks.speech.config import Config
from tasks.speech.formats import read_folder
from tasks.speech.recording import Recording
from tests.tasks.own.speech import RATE, speak, texts, write_folder

import numpy as np
import pytest
import soundfile
import tensorflow as tf


def test_text_is_normalised_to_spoken_words():
    texts = data.normalise(["The quick  brown fox-cub’s Lunch!", "É VRAI, 5 km", "...", "\xa0x "])
    assert [text.decode() for text in texts.numpy()] == [
        "the quick brown fox cub's lunch",
        "é vrai 5 km",
        "",
        "x",
    ]
    assert data.alphabet(["ba", "a c"]) == (" ", "a", "b", "c")


def test_kaldi_folders_are_split_by_speaker(tmp_path):
    rng = np.random.default_rng(0)
    lines = {"wav.scp": [], "text": [], "utt2spk": []}
    for number in range(40):
        soundfile.write(tmp_path / f"{number}.wav", speak("ab", rng), RATE)
        lines["wav.scp"].append(f"u{number} {number}.wav")
        lines["text"].append(f"u{number} AB")
        lines["utt2spk"].append(f"u{number} s{number // 4}")
    for name, content in lines.items():
        (tmp_path / name).write_text("\n".join(content) + "\n")
    recordings = read_folder(tmp_path, [])
    assert recordings[7] == Recording("u7", tmp_path / "7.wav", "AB", "s1")
    parts = data.split_by_speaker(recordings, seed=1)
    speakers = {split: {row.speaker for row in rows} for split, rows in parts.items()}
    assert sum(map(len, parts.values())) == 40 and len(parts["test"]) == 4
    assert not speakers["train"] & (speakers["validation"] | speakers["test"])
    corpus = data.load(EvaluateConfig(data=tmp_path), seed=1)
    (row,) = corpus.splits["test"].take(1).as_numpy_iterator()
    assert row["text"] == b"ab" and row["audio"].dtype == np.float32 and corpus.size("test") == 4


def test_the_splits_of_a_folder_are_kept(tmp_path):
    for split, count in (("train", 3), ("dev", 2), ("test", 1)):
        write_folder(tmp_path / split, count, seed=count)
    corpus = data.load(EvaluateConfig(data=tmp_path), seed=1)
    assert [corpus.size(split) for split in SPLITS] == [3, 2, 1]


def test_own_recordings_that_cannot_be_used_are_skipped_up_to_a_limit(tmp_path, capsys):
    folder = write_folder(tmp_path / "mine", 30, seed=0)
    (folder / "wavs" / "r3.wav").write_text("no sound")
    soundfile.write(folder / "wavs" / "r4.wav", np.zeros(1), 48_000)
    lines = (folder / "metadata.csv").read_text().splitlines()
    lines[5] = "r5|...|..."
    (folder / "metadata.csv").write_text("\n".join(lines))
    source = EvaluateConfig(data=folder)
    with pytest.raises(InputError, match=r"3 of 30 recordings .* At most 5% .* --max_bad"):
        data.load(source, seed=1, max_bad=0.05)
    corpus = data.load(source, seed=1, max_bad=0.1)
    assert sum(corpus.size(split) for split in SPLITS) == 27
    message = capsys.readouterr().err
    assert "3 of 30 recordings cannot be used" in message
    for part in (
        "r3.wav: is not a readable",
        "r4.wav: contains no samples at 16 kHz",
        "'r5': no letter",
    ):
        assert part in message
    with pytest.raises(InputError, match="expected a folder"):
        data.load(EvaluateConfig(data=folder / "metadata.csv"), seed=1)


def survey_of(*rows):
    ids, texts, samples = zip(*rows, strict=True)
    return data.Survey(list(ids), list(texts), np.array(samples))


def test_recordings_that_cannot_be_learnt_are_left_out(capsys):
    config = Config(strides=(2, 2), speed=0.1, max_seconds=2.0, max_bad=0.5)
    # 5 letters of which one repeats need 6 steps: 21 frames, 400 + 20 * 160 samples.
    needed = 400 + 20 * 160
    rows = [("good", "abc", RATE), ("e", "abbcd", needed), ("mute", "", RATE)]
    rows += [("long", "a", 5 * RATE // 2), ("f", "abbcd", needed - 1), ("last", "a", RATE)]
    good, kept = data.usable(survey_of(*rows), config, "train", source="mine")
    assert good.tolist() == [True, True, False, False, False, True]
    assert kept.ids == ["good", "e", "last"] and kept.samples.tolist() == [RATE, needed, RATE]
    message = capsys.readouterr().err
    assert "mine, train: skipped 3 of 6 recordings" in message
    for part in ("'long', 2.50 s, 'a': longer than --max_seconds 2", "'mute'", "too short for the"):
        assert part in message
    dataset = tf.data.Dataset.range(6)
    assert [*data.keep(dataset, good).as_numpy_iterator()] == [0, 1, 5]
    assert data.keep(dataset, good).cardinality() == 3
    with pytest.raises(InputError, match="3 of 6 recordings cannot be used"):
        strict = dataclasses.replace(config, max_bad=0.4)
        data.usable(survey_of(*rows), strict, "train", source="mine")


def test_transcripts_of_both_normal_forms_have_one_alphabet():
    texts = data.normalise(["\u00e9t\u00e9", "e\u0301te\u0301"]).numpy()
    assert data.alphabet([text.decode() for text in texts]) == ("t", "\u00e9")


def test_batches_hold_every_recording_once_with_its_label():
    rng = np.random.default_rng(1)
    rows = [(text, speak(text, rng)) for text in texts(23, 1)]
    dataset = tf.data.Dataset.from_generator(
        lambda: ({"id": str(i), "audio": s, "text": t} for i, (t, s) in enumerate(rows)),
        output_signature={
            "id": tf.TensorSpec((), tf.string),
            "audio": tf.TensorSpec((None,), tf.float32),
            "text": tf.TensorSpec((), tf.string),
        },
    )
    survey = data.survey(dataset)
    assert survey.texts == [text for text, _ in rows]
    letters = data.alphabet(survey.texts)
    config = Config(batch_size=4, speed=0.1)
    lengths = survey.bucket_lengths(3, 1.0)
    assert len(lengths) <= 3 and lengths[-1] >= survey.samples.max()
    batched = []
    for batch in data.to_batches(dataset, letters, lengths, 9, config):
        assert batch["audio"].shape[1] in lengths and batch["label"].shape[1] == 9
        for row in range(len(batch["length"])):
            text = data.spell(letters, batch["label"][row, : batch["label_length"][row]].numpy())
            sound = batch["audio"][row, : batch["length"][row]].numpy()
            ((_, original),) = [r for r in rows if len(r[1]) == len(sound) and r[0] == text][:1]
            batched.append(text)
            assert sound.shape == original.shape
    assert sorted(batched) == sorted(text for text, _ in rows)
    stretched = survey.bucket_lengths(3, 1.0 / 0.9, config.silence)
    orders = [
        [
            b["length"].numpy().tolist()
            for b in data.to_batches(dataset, letters, stretched, 9, config, seed=seed)
        ]
        for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sum(map(len, orders[0])) == 23


def test_some_recordings_are_replaced_by_noise_without_a_text():
    rows = [
        {"id": str(n), "audio": speak("ab", np.random.default_rng(n)), "text": "ab"}
        for n in range(60)
    ]
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(rows),
        output_signature={
            "id": tf.TensorSpec((), tf.string),
            "audio": tf.TensorSpec((None,), tf.float32),
            "text": tf.TensorSpec((), tf.string),
        },
    )
    config = Config(batch_size=60, nothing=0.3, silence=0.0, speed=0.0)
    (batch,) = data.to_batches(dataset, ("a", "b"), [3 * RATE], 2, config, seed=1)
    is_empty = batch["label_length"].numpy() == 0
    assert 8 <= is_empty.sum() <= 30 and not batch["label"].numpy()[is_empty].any()
    for label, empty in zip(batch["label"], is_empty, strict=True):
        assert empty or label.numpy().tolist() == [0, 1]
    assert sorted(batch["number"].numpy()) == list(range(60))
    (batch,) = data.to_batches(dataset, ("a", "b"), [3 * RATE], 2, config)
    assert batch["label_length"].numpy().all()
