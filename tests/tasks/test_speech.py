"""The speech task as its users meet it: sounds, commands, answers, messages."""

import dataclasses
import io
import itertools
import json
import math
import re
import sys
import tarfile

from common import ctc
from common.commands.config import EvaluateConfig
from common.errors import InputError
from common.serving.served import load_export
from tasks.speech import (
    audio,
    data,
    evaluate,
    features,
    grammar,
    model,
    predict,
    serving,
    synthesis,
    train,
)
from tasks.speech.config import PRESETS, Config
from tests.tasks import commands
from tests.tasks.own.speech import RATE, TINY, TONES, speak, texts, write_folder

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
import tensorflow_datasets as tfds


def command(name, *words, **kwargs):
    return commands.run(f"speech.{name}", *words, **kwargs)


def sounds(count, seed):
    rng = np.random.default_rng(seed)
    return [(text, speak(text, rng)) for text in texts(count, seed)]


# --- the commands ---------------------------------------------------------------------------------


def test_train_learns_exports_and_prints_one_json_line(trained):
    folder, done = trained
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result)[:6] == ["task", "dataset", "split", "examples", "seconds", "model"]
    assert result["dataset"] == "mine" and result["split"] == "test" and result["examples"] == 15
    assert result["wer"] <= 0.1 and result["cer"] <= 0.05
    assert {"words", "substitutions", "deletions", "insertions"} <= set(result)
    assert "language model: weight" in done.stderr
    version = folder / result["model"]
    assert version == folder / "saved_models" / "speech" / "1"
    commands.check_version(version, f"{result['wer']:.4f}", "| units | 28 |", "At most 5 s")


def test_evaluate_scores_the_export_as_train_did(trained, command_environment):
    folder, done = trained
    said = json.loads(done.stdout.splitlines()[-1])
    again = command("evaluate", folder=folder, environment=command_environment)
    assert again.returncode == 0, again.stderr
    scored = json.loads(again.stdout.splitlines()[-1])
    for name in said.keys() - {"seconds", "model"}:
        assert scored[name] == said[name]


def test_evaluate_scores_another_folder_whole(trained, tmp_path, capsys, served):
    write_folder(tmp_path / "other", 12, seed=4)
    evaluate.main(["--model", str(served.path), "--data", str(tmp_path / "other")])
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert result["examples"] == 12 and result["split"] == "all" and result["wer"] <= 0.2
    assert any(re.fullmatch(r"\d+ of 12 recordings without an error", line) for line in lines)


def test_predict_reads_any_sound_file_in_order_and_draws(trained, tmp_path, capsys, served):
    wanted = sounds(5, seed=11)
    paths = []
    for (_, sound), ending in zip(wanted, (".wav", ".flac", ".ogg", ".wav", ".aiff"), strict=True):
        paths.append(tmp_path / f"{len(paths)}{ending}")
        soundfile.write(paths[-1], sound, RATE)
    picture = tmp_path / "heard.png"
    predict.main(["--model", str(served.path), "--json", "--plot", str(picture), *map(str, paths)])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == list(map(str, paths))
    right = [row["text"] == text for row, (text, _) in zip(rows, wanted, strict=True)]
    assert sum(right) >= 4
    for row, (_, sound) in zip(rows, wanted, strict=True):
        assert 0.0 < row["confidence"] <= 1.0 and len(row["pieces"]) == 1
        assert row["seconds"] == pytest.approx(len(sound) / RATE, abs=1e-3)
    assert picture.stat().st_size > 5000


def test_predict_says_it_to_a_person(trained, tmp_path, capsys, served):
    ((text, sound),) = sounds(1, seed=3)
    soundfile.write(tmp_path / "a.wav", sound, RATE)
    predict.main(["--model", str(served.path), str(tmp_path / "a.wav")])
    line = capsys.readouterr().out.rstrip("\n")
    assert re.fullmatch(rf"{re.escape(str(tmp_path))}/a\.wav  +\d+ %  {text}", line)


def test_predict_and_evaluate_build_no_keras_model(trained):
    commands.check_no_keras_model("speech", "mine/wavs/r0.wav", folder=trained[0])


FINE_TUNING = ("--init", "saved_models/speech/1", *TINY)


def test_fine_tuning_keeps_the_letters(trained, tmp_path, command_environment):
    folder, _ = trained
    write_folder(tmp_path / "same", 30, seed=5)
    done = command(
        *("train", "--data", tmp_path / "same", "--output", tmp_path, *FINE_TUNING),
        *("--epochs", 3),
        folder=folder,
        environment=command_environment,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["wer"] <= 0.34
    assert load_export(tmp_path / "speech").settings["letters"] == [" ", "a", "b", "c"]


@pytest.mark.slow  # sentiment is tested likewise
def test_fine_tuning_replaces_the_head_for_new_letters(
    trained, tmp_path, command_environment, monkeypatch
):
    folder, _ = trained
    monkeypatch.setitem(TONES, "d", (3000.0, 200.0))
    write_folder(tmp_path / "more", 12, seed=6)
    done = command(
        *("train", "--data", tmp_path / "more", "--output", tmp_path, *FINE_TUNING),
        *("--epochs", 1, "--score", "none"),
        folder=folder,
        environment=command_environment,
    )
    assert done.returncode == 0, done.stderr
    tuned = load_export(tmp_path / "speech")
    assert tuned.settings["letters"] == [" ", "a", "b", "c", "d"]
    assert (
        tuned.call("tensors", **evaluate.request([sounds(1, 1)[0][1]]))["log_probs"].shape[2] == 6
    )


@pytest.mark.parametrize("module", [train, evaluate, predict])
def test_help_has_examples_and_defaults(module, capsys):
    commands.check_help(module, capsys)


@pytest.mark.slow  # that runs resume is tested on ner and on the loop itself, too
def test_training_killed_in_an_epoch_resumes_to_the_same_weights(tmp_path, command_environment):
    write_folder(tmp_path / "mine", 120, seed=1)
    words = ["--data", "mine", "--epochs", "5", *TINY, "--deterministic", "--score", "none"]
    words += ["--dropout", "0.2", "--time_masks", "1", "--batch_size", "2", "--order", "0"]
    commands.train_and_kill("speech", *words, folder=tmp_path, environment=command_environment)
    resumed = command("train", "--resume", *words, folder=tmp_path, environment=command_environment)
    assert resumed.returncode == 0, resumed.stderr
    whole = command(
        *("train", *words, "--output", "whole"), folder=tmp_path, environment=command_environment
    )
    assert whole.returncode == 0, whole.stderr
    one, other = (
        keras.models.load_model(tmp_path / root / "speech" / "1" / "model.keras")
        for root in ("saved_models", "whole")
    )
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# --- bad files ------------------------------------------------------------------------------------


def bad_files(folder):
    """Files that users try, and what they are told."""
    sound = speak("ab c", np.random.default_rng(0))
    soundfile.write(folder / "short.wav", sound[2000:2800], RATE)
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    broken = sound.copy()
    broken[5000] = np.nan
    soundfile.write(folder / "nan.wav", broken, RATE, subtype="FLOAT")
    soundfile.write(folder / "none.wav", np.zeros(0), RATE)
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is no sound at all, but a text with another name\n")
    (folder / "folder.wav").mkdir()
    return {
        "short.wav": "0.05 s of sound are too short: 0.1 s is the least",
        "silent.wav": "silent",
        "nan.wav": "holds NaN or infinite samples",
        "none.wav": "holds no samples",
        "empty.wav": "is empty",
        "text.wav": "no sound file that can be read",
        "folder.wav": "is a folder",
        "missing.wav": "no such file",
    }


def test_each_bad_file_has_its_message_and_spoils_no_other(tmp_path, capsys, served):
    messages = bad_files(tmp_path)
    soundfile.write(tmp_path / "good.wav", speak("ab", np.random.default_rng(1)), RATE)
    names = [*messages, "good.wav"]
    paths = [str(tmp_path / name) for name in names]
    with pytest.raises(InputError, match="6 of 9 files could not be read"):
        predict.main(["--model", str(served.path), "--json", *paths])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == paths
    for row, name in zip(rows, names[:-1], strict=False):
        assert messages[name] in row["message"]
        assert row["text"] == "" and row["confidence"] == 0.0
    assert rows[-1]["text"] == "ab" and "message" not in rows[-1]


def test_a_bad_file_ends_the_command_with_one_message(tmp_path, command_environment, served):
    (tmp_path / "text.wav").write_text("words\n")
    done = command(
        *("predict", "--model", served.path, "text.wav"),
        folder=tmp_path,
        environment=command_environment,
    )
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: 1 of 1 files")
    assert "text.wav  [no sound file that can be read" in done.stdout


def test_a_stereo_mp3_at_44100_hz_is_heard_as_its_mono_original(tmp_path, served):
    rng = np.random.default_rng(2)
    sound = speak("cab ba", rng, 44_100)
    soundfile.write(tmp_path / "a.mp3", np.stack([sound, sound], axis=1), 44_100)
    read = audio.read(tmp_path / "a.mp3")
    assert abs(len(read) - len(sound) * RATE / 44_100) < 0.1 * RATE and read.dtype == np.float32
    ((said),) = predict.transcribe(served, [tmp_path / "a.mp3"], batch_size=4)
    assert said["text"] == "cab ba"


def test_ten_minutes_are_transcribed_in_order_in_bounded_memory(tmp_path, served, monkeypatch):
    """Pieces are cut at silences, so no word is lost; no more than a block and a piece is held."""
    rng = np.random.default_rng(7)
    words, size = [], 0
    with soundfile.SoundFile(tmp_path / "long.flac", "w", RATE, 1) as file:
        while size < 600 * RATE:
            word = "".join(rng.choice(list(TONES), 3))
            sound = np.concatenate([speak(word, rng), rng.normal(size=RATE) * 0.002])
            file.write(sound)
            words.append(word)
            size += len(sound)
    longest = 0
    original = audio.quietest

    def watch(sound, *arguments):
        nonlocal longest
        longest = max(longest, len(sound))
        return original(sound, *arguments)

    monkeypatch.setattr(audio, "quietest", watch)
    ((said),) = predict.transcribe(served, [tmp_path / "long.flac"], batch_size=16)
    assert longest == served.settings["max_samples"]
    starts = [piece["start"] for piece in said["pieces"]]
    assert starts == sorted(starts) and len(starts) > 100
    for piece, following in itertools.pairwise(said["pieces"]):
        assert piece["end"] == pytest.approx(following["start"], abs=2e-3)
        assert piece["end"] - piece["start"] <= longest / RATE
    assert evaluate.metrics([" ".join(words)], [said["text"]])["wer"] <= 0.1


def test_pieces_are_the_recording_cut_where_it_is_quiet(tmp_path):
    rng = np.random.default_rng(0)
    loud = [rng.uniform(-0.5, 0.5, RATE * n) for n in (3, 2, 4, 1)]
    quiet = np.zeros(RATE // 2)
    parts = [part for sound in loud for part in (sound, quiet)]
    soundfile.write(tmp_path / "a.wav", np.concatenate(parts), RATE, subtype="FLOAT")
    found = list(audio.pieces(tmp_path / "a.wav", 5 * RATE))
    whole = audio.read(tmp_path / "a.wav")
    np.testing.assert_array_equal(np.concatenate([piece for _, piece in found]), whole)
    for start, _ in found[1:]:
        assert not np.abs(whole[start - 100 : start + 100]).any()
    ((start, alone),) = audio.pieces(tmp_path / "a.wav", 20 * RATE)
    assert start == 0 and len(alone) == len(whole)


# --- answers --------------------------------------------------------------------------------------


def test_the_signatures_are_those_of_the_golden_file(served, pytestconfig):
    commands.check_signatures(served, pytestconfig.rootpath / "tests/golden/speech.json")


def test_batch_mates_and_order_change_nothing(served):
    batch = [sound for _, sound in sounds(9, seed=8)]
    together = served.call("serving_default", **evaluate.request(batch))
    for row, sound in enumerate(batch):
        alone = served.call("serving_default", **evaluate.request([sound]))
        assert alone["text"][0] == together["text"][row]
        np.testing.assert_allclose(
            alone["confidence"][0], together["confidence"][row], rtol=1e-4, atol=1e-6
        )


def test_junk_in_the_padding_changes_nothing(served):
    asked = evaluate.request([sound for _, sound in sounds(4, seed=9)])
    junk = np.pad(asked["audio"], [(0, 0), (0, 5000)])
    for row, count in enumerate(asked["length"]):
        junk[row, count:] = np.random.default_rng(row).normal(size=junk.shape[1] - count) * 9
        junk[row, -1] = np.nan
    plain = served.call("tensors", **asked)
    padded = served.call("tensors", audio=junk, length=asked["length"])
    np.testing.assert_array_equal(plain["frames"], padded["frames"])
    for row, count in enumerate(plain["frames"]):
        np.testing.assert_allclose(
            padded["log_probs"][row, :count], plain["log_probs"][row, :count], atol=1e-4
        )
    a, b = (
        served.call("serving_default", audio=x, length=asked["length"])
        for x in (asked["audio"], junk)
    )
    assert a["text"].tolist() == b["text"].tolist()


def test_bad_rows_get_the_empty_answer_and_spoil_no_neighbour(served):
    (text, sound), *_ = sounds(1, seed=3)
    asked = evaluate.request([sound] * 7)
    audio_, length = asked["audio"].copy(), asked["length"].copy()
    audio_[0, 3000] = np.nan
    length[1], length[2], length[3], length[4] = 0, -5, 1599, audio_.shape[1] + 1
    audio_[5] = 0.0
    good = served.call("serving_default", **evaluate.request([sound]))
    found = served.call("serving_default", audio=audio_, length=length)
    assert found["text"].tolist() == [b""] * 6 + [text.encode()]
    assert found["confidence"][:6].tolist() == [0.0] * 6
    np.testing.assert_allclose(found["confidence"][6], good["confidence"][0], rtol=1e-4)
    scores = served.call("tensors", audio=audio_, length=length)
    assert not scores["frames"][:6].any() and not scores["log_probs"][:6].any()
    seen = served.call("explain", audio=audio_, length=length)
    assert (seen["alignment"][:6] == -1).all() and not seen["log_mel"][:6].any()


def test_rows_beyond_the_maximum_get_the_empty_answer(served):
    longest = served.settings["max_samples"]
    sound = np.tile(speak("abc", np.random.default_rng(0)), 20)[: longest + 1]
    found = served.call("serving_default", **evaluate.request([sound, sound[:longest]]))
    assert found["text"][0] == b"" and found["text"][1] != b""


@pytest.mark.parametrize("shape", [(1, 0), (2, 1), (1, 300)])
def test_the_shortest_requests_are_answered(served, shape):
    for name in served.functions:
        answer = served.call(name, audio=np.ones(shape), length=np.full(shape[0], shape[1]))
        assert all(len(value) == shape[0] for value in answer.values())


def test_confidence_is_the_mean_probability_of_a_letter(served):
    asked = evaluate.request([sound for _, sound in sounds(6, seed=12)])
    said, scores = served.call("serving_default", **asked), served.call("tensors", **asked)
    letters = served.settings["letters"]
    for row, text in enumerate(said["text"]):
        label = [letters.index(letter) for letter in text.decode()]
        total = ctc.log_likelihood(
            scores["log_probs"][row : row + 1], [label], [scores["frames"][row]], [len(label)]
        )
        expected = math.exp(float(total[0]) / len(label))
        # The beam keeps nearly all paths of the text.
        assert said["confidence"][row] == pytest.approx(expected, rel=0.02)


def test_spaces_that_part_no_words_are_left_out():
    recognizer = serving.Recognizer(
        None, (" ", "a", "b"), None, weight=0.0, bonus=0.0, beam=1, max_samples=1
    )
    rows = [[0, 1, 0, 0, 2, 0], [0, 0, 0, -1, -1, -1], [1, 2, -1, -1, -1, -1], [-1] * 6]
    tokens = tf.constant(rows)[:, None]
    length = tf.constant([[6], [3], [2], [0]])
    found = ctc.Hypotheses(tokens, length, tf.fill([4, 1], -2.0), tf.fill([4, 1], -2.0))
    said = recognizer.read(found)
    assert said["text"].numpy().tolist() == [b"a b", b"", b"ab", b""]
    expected = [math.exp(-2 / 6), 0.0, math.exp(-1), 0.0]
    np.testing.assert_allclose(said["confidence"], expected, rtol=1e-5)
    assert recognizer.tokens(found)[1].numpy().tolist() == [3, 0, 2, 0]


def test_explain_shows_where_each_letter_is_heard(served):
    wanted = sounds(5, seed=13)
    seen = served.call("explain", **evaluate.request([sound for _, sound in wanted]))
    said = served.call("serving_default", **evaluate.request([sound for _, sound in wanted]))
    assert seen["text"].tolist() == said["text"].tolist()
    for row, text in enumerate(seen["text"]):
        count = seen["frames"][row]
        place = seen["alignment"][row]
        assert (place[count:] == -1).all() and not seen["symbol_probabilities"][row, count:].any()
        heard = [index for index, _ in itertools.groupby(place[place >= 0])]
        assert heard == list(range(len(text)))
        sums = seen["symbol_probabilities"][row, :count].sum(axis=1)
        np.testing.assert_allclose(sums, 1.0, atol=1e-5)


def test_the_keras_file_loads_in_a_notebook_and_agrees(served):
    live = keras.models.load_model(served.path / "model.keras")
    asked = evaluate.request([sound for _, sound in sounds(3, seed=14)])
    outputs, found = live(asked), served.call("tensors", **asked)
    np.testing.assert_array_equal(outputs["frames"], found["frames"])
    for whole, answer, frames in zip(
        outputs["log_probs"], found["log_probs"], found["frames"], strict=True
    ):
        np.testing.assert_allclose(whole[:frames], answer[:frames], atol=1e-4)
        np.testing.assert_array_equal(answer[frames:], 0.0)  # the export tells nothing of padding


# --- features -------------------------------------------------------------------------------------


def mel_by_numpy(sound, bands):
    """The features from their definition, frame by frame."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.stack([sound[k : k + 400] for k in range(0, len(sound) - 399, 160)])
    power = np.abs(np.fft.rfft(frames * window, 512)) ** 2
    mel = lambda hertz: 1127.0 * np.log1p(np.asarray(hertz) / 700.0)  # noqa: E731
    edges = np.linspace(mel(60.0), mel(7600.0), bands + 2)
    at = mel(np.arange(257) * RATE / 512)
    filters = np.zeros((257, bands))
    for band in range(bands):
        low, middle, high = edges[band : band + 3]
        rise, fall = (at - low) / (middle - low), (high - at) / (high - middle)
        filters[:, band] = np.maximum(0.0, np.minimum(rise, fall))
    filters[0] = 0.0
    return power @ filters


def test_features_equal_their_definition_in_numpy():
    sound = speak("abc", np.random.default_rng(0))
    energies = mel_by_numpy(sound.astype(np.float64), 40)
    found = features.mel_energies(tf.constant(sound[None]), 40)[0].numpy()
    np.testing.assert_allclose(found, energies, rtol=2e-3, atol=1e-5 * energies.max())
    values = np.log(energies / energies.mean() + 1e-6)
    values = (values - values.mean(0)) / np.sqrt(values.var(0) + 1e-2)
    normalised, frames = features.log_mel(tf.constant(sound[None]), [len(sound)], 40)
    assert int(frames[0]) == len(energies)
    np.testing.assert_allclose(normalised[0], values, atol=2e-2)


def test_loudness_and_padding_change_no_feature():
    sound = speak("abc", np.random.default_rng(1))
    plain, frames = features.log_mel(tf.constant(sound[None]), [len(sound)], 32)
    junk = np.concatenate([sound, np.random.default_rng(2).normal(size=3000)])[None]
    for other in (0.01 * sound[None], junk.astype(np.float32)):
        values, count = features.log_mel(tf.constant(other), [len(sound)], 32)
        assert int(count[0]) == int(frames[0])
        np.testing.assert_allclose(values[:, : int(count[0])], plain, atol=2e-3)
        assert not values[:, int(count[0]) :].numpy().any()


@pytest.mark.parametrize("samples", [0, 399, 400, 559, 560, 7777])
def test_frames_are_the_whole_windows(samples):
    values, frames = features.log_mel(tf.ones([1, max(samples, 1)]), [samples], 16)
    expected = max(0, 1 + (samples - 400) // 160) if samples >= 400 else 0
    assert int(frames[0]) == expected and values.shape[1] == max(expected, 1)


@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (3, 1), (2, 2)])
def test_convolutions_count_their_steps_and_ignore_padding(strides):
    layer = features.Subsample(4, strides)
    rng = np.random.default_rng(0)
    for frames in (1, 2, 7, 10, 11, 12):
        x = rng.normal(size=(1, frames, 10)).astype(np.float32)
        plain, steps = layer(tf.constant(x), tf.constant([frames]))
        padded = np.concatenate([x, np.zeros((1, 9, 10), np.float32)], axis=1)
        more, same = layer(tf.constant(padded), tf.constant([frames]))
        assert int(steps[0]) == int(same[0]) == plain.shape[1]
        samples = 400 + 160 * (frames - 1)
        assert data.steps_of([samples], strides)[0] == int(steps[0])
        np.testing.assert_allclose(more[:, : plain.shape[1]], plain, atol=1e-5)
        assert not more[:, plain.shape[1] :].numpy().any()


def test_augmentation_hides_stretches_in_training_only():
    layer = features.SpecAugment(2, 0.2, 2, 5, seed=1)
    x = tf.ones([64, 50, 20])
    frames = tf.constant([50] * 32 + [25] * 32)
    assert layer(x, frames, training=False) is x
    hidden = 1.0 - layer(x, frames, training=True).numpy()
    times, bands = hidden.min(axis=2), hidden.min(axis=1)
    assert 0 < times.sum(axis=1).max() <= 2 * (0.2 * 50 + 1)
    assert 0 < bands.sum(axis=1).max() <= 2 * (5 + 1)
    assert not times[32:, 26:].any()
    assert len({row.tobytes() for row in hidden}) > 32
    again = features.SpecAugment.from_config(layer.get_config())
    np.testing.assert_array_equal(1.0 - again(x, frames, training=True).numpy(), hidden)


def test_speed_changes_pitch_and_length_and_keeps_loudness():
    time = np.arange(2 * RATE) / RATE
    sound = tf.constant(0.5 * np.sin(2 * np.pi * 1000.0 * time), tf.float32)
    for factor in (0.9, 1.0, 1.1):
        played = data.change_speed(sound, factor).numpy()
        assert len(played) == pytest.approx(2 * RATE / factor, rel=0.01)
        spectrum = np.abs(np.fft.rfft(played * np.hanning(len(played))))
        peak = spectrum.argmax() * RATE / len(played)
        assert peak == pytest.approx(1000.0 * 2 * RATE / len(played), abs=1.0)
        assert np.abs(played[2000:-2000]).max() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_allclose(data.change_speed(sound, 1.0), sound, atol=1e-4)


def test_augmentation_follows_its_seed():
    sound = tf.constant(speak("abc", np.random.default_rng(0)))
    config = Config(speed=0.1, noise=10.0)
    one, same, other = (
        data.augment(sound, tf.constant(seed, tf.int64), config).numpy()
        for seed in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(one, same)
    assert one.shape != other.shape or not np.allclose(one, other)
    assert 0.88 * len(sound) <= len(one) <= 1.12 * len(sound)


# --- model, metrics -------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru", "simple_rnn"])
def test_more_padding_changes_no_model(cell):
    config = Config(units=5, layers=2, channels=3, bands=16, cell=cell, strides=(3, 1))
    built = model.build(config, symbols=3)
    rng = np.random.default_rng(0)
    sound = rng.normal(size=(2, 6000)).astype(np.float32)
    length = np.array([6000, 2500], np.int32)
    plain = built({"audio": sound, "length": length})
    junk = np.pad(sound, [(0, 0), (0, 3000)], constant_values=7.0)
    padded = built({"audio": junk, "length": length})
    np.testing.assert_array_equal(plain["frames"], padded["frames"])
    for row, count in enumerate(plain["frames"].numpy()):
        np.testing.assert_allclose(
            padded["log_probs"][row, :count], plain["log_probs"][row, :count], atol=1e-4
        )
    np.testing.assert_allclose(np.exp(plain["log_probs"]).sum(axis=2), 1.0, atol=1e-5)


def test_losses_are_ctc_per_letter():
    rng = np.random.default_rng(0)
    log_probs = tf.nn.log_softmax(tf.constant(rng.normal(size=(2, 9, 4)), tf.float32))
    batch = {
        "label": tf.constant([[0, 1, 2, 0, 0], [2, 2, 0, 0, 0]]),
        "label_length": tf.constant([3, 2]),
    }
    values, weights = model.losses({"log_probs": log_probs, "frames": tf.constant([9, 7])}, batch)
    expected = tf.nn.ctc_loss(
        batch["label"], log_probs, [3, 2], [9, 7], logits_time_major=False, blank_index=3
    )
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    assert weights.numpy().tolist() == [3.0, 2.0]


def edits(truth, said):
    """Levenshtein's distance, by its recursion."""
    row = list(range(len(said) + 1))
    for i, a in enumerate(truth, start=1):
        last, row[0] = row[0], i
        for j, b in enumerate(said, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def test_metrics_equal_edit_distances_over_the_corpus():
    truth = ["go on", "stop it now", "yes"]
    said = ["go", "stop at it know", ""]
    found = evaluate.metrics(truth, said)
    pairs = list(zip(truth, said, strict=True))
    words = sum(edits(a.split(), b.split()) for a, b in pairs)
    letters = sum(edits(a, b) for a, b in pairs)
    assert found["wer"] == pytest.approx(words / 6) and found["words"] == 6
    assert found["cer"] == pytest.approx(letters / sum(map(len, truth)))
    assert found["substitutions"] + found["deletions"] + found["insertions"] == words
    assert (found["deletions"], found["insertions"]) == (2, 1)


def test_every_preset_is_sound_and_trains_the_set_it_names():
    for name, preset in PRESETS.items():
        assert preset.dataset == name and name in data.SOURCES


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dropout": 1.0}, "--dropout must be in"),
        ({"units": 0}, "--units must be 1 or more"),
        ({"strides": (0, 1)}, "--strides"),
        ({"band_width": 99}, "--band_width"),
        ({"order": -1}, "--order"),
        ({"max_seconds": 0.0}, "--max_seconds"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Config(**wrong)


# --- data -----------------------------------------------------------------------------------------


def flags(**kwargs):
    return EvaluateConfig(**kwargs)


def test_text_is_normalised_to_what_is_spoken():
    found = data.normalise(["The quick  brown fox-cub’s Lunch!", "É VRAI, 5 km", "...", "\xa0x "])
    assert [text.decode() for text in found.numpy()] == [
        "the quick brown fox cub's lunch",
        "é vrai 5 km",
        "",
        "x",
    ]
    assert data.alphabet(["ba", "a c"]) == (" ", "a", "b", "c")


def test_kaldi_folders_are_read_and_dealt_by_speaker(tmp_path):
    rng = np.random.default_rng(0)
    lines = {"wav.scp": [], "text": [], "utt2spk": []}
    for number in range(40):
        soundfile.write(tmp_path / f"{number}.wav", speak("ab", rng), RATE)
        lines["wav.scp"].append(f"u{number} {number}.wav")
        lines["text"].append(f"u{number} AB")
        lines["utt2spk"].append(f"u{number} s{number // 4}")
    for name, content in lines.items():
        (tmp_path / name).write_text("\n".join(content) + "\n")
    found = data.read_folder(tmp_path)
    assert found[7] == data.Recording("u7", tmp_path / "7.wav", "AB", "s1")
    parts = data.deal(found, seed=1)
    speakers = {split: {row.speaker for row in rows} for split, rows in parts.items()}
    assert sum(map(len, parts.values())) == 40 and len(parts["test"]) == 4
    assert not speakers["train"] & (speakers["validation"] | speakers["test"])
    corpus = data.load(flags(data=tmp_path), seed=1)
    (row,) = corpus.splits["test"].take(1).as_numpy_iterator()
    assert row["text"] == b"ab" and row["audio"].dtype == np.float32 and corpus.size("test") == 4


def test_a_folder_with_parts_is_taken_as_it_is(tmp_path):
    for split, count in (("train", 3), ("dev", 2), ("test", 1)):
        write_folder(tmp_path / split, count, seed=count)
    corpus = data.load(flags(data=tmp_path), seed=1)
    assert [corpus.size(split) for split in data.SPLITS] == [3, 2, 1]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "expected metadata.csv"),
        ({"metadata.csv": "a\n"}, r"metadata.csv, line 1: expected id\|text"),
        ({"metadata.csv": "a|x\na|y\n", "a.wav": ""}, "line 2: id 'a' stands here twice"),
        ({"metadata.csv": "b|x\n"}, "line 1: no sound file b.wav"),
        ({"metadata.csv": "../b|x\n"}, "leads out of the folder"),
        ({"metadata.csv": "\n"}, "no recordings listed"),
        ({"wav.scp": "a a.wav\n", "a.wav": ""}, "text: cannot read"),
        ({"wav.scp": "a a.wav\n", "text": "b x\n", "a.wav": ""}, "line 1: 'a' has no line in text"),
        (
            {"wav.scp": "a a.wav\n", "text": "a x\nb y\n", "a.wav": ""},
            "line 2: 'b' has no line in wav.scp",
        ),
        ({"wav.scp": "a sox a.sph -t wav - |\n", "text": "a x\n"}, "a command instead of a path"),
        ({"wav.scp": "a a.wav\n", "text": "a x\n"}, "no file 'a.wav'"),
        ({"wav.scp": "a\n", "text": "a x\n"}, "expected an id and path"),
        ({"wav.scp": "", "text": "", "segments": ""}, "segments are not read"),
    ],
)
def test_malformed_folders_are_named(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        data.read_folder(tmp_path)


def test_own_files_that_hold_no_sound_are_named(tmp_path):
    write_folder(tmp_path / "mine", 12, seed=0)
    (tmp_path / "mine" / "wavs" / "r3.wav").write_text("no sound")
    with pytest.raises(InputError, match=r"r3.wav: no sound file that can be read"):
        data.load(flags(data=tmp_path / "mine"), seed=1)
    with pytest.raises(InputError, match="expected a folder"):
        data.load(flags(data=tmp_path / "mine" / "metadata.csv"), seed=1)


def found(*rows):
    ids, said, samples = zip(*rows, strict=True)
    return data.Survey(list(ids), list(said), np.array(samples))


def test_recordings_from_which_nothing_can_be_learnt_are_found_before_training():
    config = Config(strides=(2, 2), speed=0.1, max_seconds=2.0)
    good = ("good", "abc", RATE)
    data.check(found(good), config, "train")
    # 5 letters of which one repeats need 6 steps: 24 frames, 400 + 23 * 160 samples, 1.1 faster.
    needed = 400 + 20 * 160
    data.check(found(("e", "abbcd", math.ceil(needed * 1.1))), config, "train")
    with pytest.raises(InputError, match=r"1 of 2 train recordings are too short .* first 'e'"):
        data.check(found(good, ("e", "abbcd", needed)), config, "train")
    with pytest.raises(InputError, match=r"longer than --max_seconds 2: first 'long', 2\.50 s"):
        data.check(found(good, ("long", "a", 5 * RATE // 2)), config, "train")
    with pytest.raises(InputError, match="1 of 1 test recordings are without a letter"):
        data.check(found(("mute", "", RATE)), config, "test")


def test_batches_hold_every_recording_once_with_its_label():
    rows = sounds(23, seed=1)
    dataset = tf.data.Dataset.from_generator(
        lambda: ({"id": str(i), "audio": s, "text": t} for i, (t, s) in enumerate(rows)),
        output_signature={
            "id": tf.TensorSpec((), tf.string),
            "audio": tf.TensorSpec((None,), tf.float32),
            "text": tf.TensorSpec((), tf.string),
        },
    )
    looked = data.survey(dataset)
    assert looked.texts == [text for text, _ in rows]
    letters = data.alphabet(looked.texts)
    config = Config(batch_size=4, speed=0.1)
    lengths = looked.bucket_lengths(3, 1.0)
    assert len(lengths) <= 3 and lengths[-1] >= looked.samples.max()
    seen = []
    for batch in data.to_batches(dataset, letters, lengths, 9, config):
        assert batch["audio"].shape[1] in lengths and batch["label"].shape[1] == 9
        for row in range(len(batch["length"])):
            text = train.spell(letters, batch["label"][row, : batch["label_length"][row]].numpy())
            sound = batch["audio"][row, : batch["length"][row]].numpy()
            ((_, original),) = [r for r in rows if len(r[1]) == len(sound) and r[0] == text][:1]
            seen.append(text)
            assert sound.shape == original.shape
    assert sorted(seen) == sorted(text for text, _ in rows)
    stretched = looked.bucket_lengths(3, 1.0 / 0.9)
    orders = [
        [
            b["length"].numpy().tolist()
            for b in data.to_batches(dataset, letters, stretched, 9, config, seed=seed)
        ]
        for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sum(map(len, orders[0])) == 23


def test_catalogue_sets_come_with_their_transcripts(tmp_path, monkeypatch):
    monkeypatch.setattr("requests.head", lambda *_, **__: None)
    with tfds.testing.mock_data(num_examples=8):
        for name in ("librispeech", "ljspeech", "speech_commands"):
            corpus = data.load(flags(dataset=name, data_dir=tmp_path), seed=1)
            assert set(corpus.splits) == set(data.SPLITS)
            for row in corpus.splits["train"].take(2).as_numpy_iterator():
                assert row["audio"].dtype == np.float32 and row["audio"].ndim == 1
                assert isinstance(row["text"], bytes)
            if name == "speech_commands":
                said = {row["text"].decode() for row in corpus.splits["train"].as_numpy_iterator()}
                assert said <= {
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
        data.load(flags(dataset="timit"), seed=1)


# --- AN4 ------------------------------------------------------------------------------------------


def an4_files(kind):
    """A small AN4: name -> bytes; six utterances of three speakers, and a test one."""
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
    monkeypatch.setattr(data.An4, "VALIDATION", 2)
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
    given = flags(dataset="an4", manual_dir=manual, data_dir=tmp_path / "d")
    corpus = data.load(given, seed=1)
    assert [corpus.size(split) for split in data.SPLITS] == [4, 2, 1]
    for split in data.SPLITS:
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
def test_a_damaged_an4_is_named(tmp_path, change, message, monkeypatch):
    monkeypatch.setattr(data.An4, "VALIDATION", 2)
    files, _ = an4_files("wav")
    for name, content in {**files, **change}.items():
        if content is not None:
            (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "m" / name).write_bytes(content)
    given = flags(dataset="an4", manual_dir=tmp_path / "m", data_dir=tmp_path / "d")
    with pytest.raises(InputError, match=message):
        data.load(given, seed=1)


def test_an4_that_is_not_there_or_changed_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"needs an4_sphere.tar.gz .*--manual_dir FOLDER"):
        data.load(flags(dataset="an4", data_dir=tmp_path), seed=1)
    (tmp_path / "an4_sphere.tar.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="its SHA-256 is"):
        data.load(flags(dataset="an4", manual_dir=tmp_path, data_dir=tmp_path), seed=1)
    (tmp_path / "an4_sphere.tar.gz").rename(tmp_path / "an4_raw.bigendian.tar.gz")
    with pytest.raises(InputError, match="no archive that can be read"):
        data.load(flags(dataset="an4", manual_dir=tmp_path, data_dir=tmp_path), seed=1)


def test_an4_has_its_published_counts_and_speakers_held_out(shared_data, tmp_path):
    manual = shared_data / "speech" / "an4"
    corpus = data.load(flags(dataset="an4", manual_dir=manual, data_dir=tmp_path), seed=1)
    assert [corpus.size(split) for split in data.SPLITS] == [848, 100, 130]
    speakers = {}
    for split in data.SPLITS:
        looked = data.survey(corpus.splits[split])
        speakers[split] = {name.split("-")[1] for name in looked.ids}
        if split != "test":
            config = dataclasses.replace(PRESETS["an4"], speed=0.0 if split != "train" else 0.1)
            data.check(looked, config, split)
    assert [len(speakers[split]) for split in data.SPLITS] == [66, 8, 10]
    assert not speakers["train"] & speakers["validation"]


# --- synthetic speech -----------------------------------------------------------------------------


def test_no_voice_and_no_sentence_of_one_split_is_in_another():
    made = {
        split: [
            sentence.text
            for sentence, _ in zip(grammar.sentences(split, 1), range(1000), strict=False)
        ]
        for split in data.SPLITS
    }
    voices = synthesis.VARIANTS
    for one, other in itertools.combinations(data.SPLITS, 2):
        assert not set(made[one]) & set(made[other])
        assert not set(voices[one]) & set(voices[other])
    for split, sentences in made.items():
        assert len(set(sentences)) == 1000
        assert grammar.HELD_OUT not in sentences
        assert sentences == [
            s.text for s, _ in zip(grammar.sentences(split, 1), range(1000), strict=False)
        ]
        assert set("".join(sentences)) == set("abcdefghijklmnopqrstuvwxyz ")


def test_the_held_out_sentence_stands_in_no_file_of_ours(pytestconfig):
    for path in (pytestconfig.rootpath / "tasks" / "speech").glob("*.py"):
        allowed = {"grammar.py": 1}.get(path.name, 0)
        assert path.read_text().lower().count(grammar.HELD_OUT) == allowed, path.name


def test_numbers_and_ordinals_in_words():
    assert [grammar.number(n) for n in (0, 13, 40, 99, 100, 342, 20_007, 110_100)] == [
        "zero",
        "thirteen",
        "forty",
        "ninety nine",
        "one hundred",
        "three hundred and forty two",
        "twenty thousand and seven",
        "one hundred and ten thousand one hundred",
    ]
    assert [grammar.ordinal(n) for n in (1, 12, 20, 21, 30)] == [
        "first",
        "twelfth",
        "twentieth",
        "twenty first",
        "thirtieth",
    ]


def test_espeak_has_each_voice_and_says_it_its_own_way():
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


def test_a_sentence_is_said_into_a_file(tmp_path):
    synthesis.main(["call anna at nine", "--output", str(tmp_path / "a.wav"), "--variant", "m3"])
    sound = audio.read(tmp_path / "a.wav")
    expected = synthesis.synthesizer().say("call anna at nine", synthesis.Voice("en-us", "m3"))
    # eSpeak NG's voices jitter, so it never says the same twice.
    assert len(sound) == pytest.approx(len(expected), rel=0.01)
    loudness = np.sqrt(np.mean(sound**2)), np.sqrt(np.mean(expected**2))
    assert loudness[0] == pytest.approx(loudness[1], rel=0.1)


def test_the_default_data_is_spoken_once_and_kept(tmp_path, monkeypatch):
    sizes = {"train": 10, "validation": 5, "test": 5}
    monkeypatch.setattr(data.SpokenCommands, "SIZES", sizes)
    corpus = data.load(flags(dataset="spoken_commands", data_dir=tmp_path), seed=1)
    assert {split: corpus.size(split) for split in sizes} == sizes
    looked = data.survey(corpus.splits["train"])
    made = [
        sentence.text for sentence, _ in zip(grammar.sentences("train", 1), range(10), strict=False)
    ]
    assert sorted(looked.texts) == sorted(made)
    data.check(looked, PRESETS["spoken_commands"], "train")

    def refuse(*_):
        raise AssertionError("spoken again")

    monkeypatch.setattr(synthesis.Synthesizer, "say", refuse)
    again = data.load(flags(dataset="spoken_commands", data_dir=tmp_path), seed=1)
    assert data.survey(again.splits["train"]).texts == looked.texts


def test_missing_libraries_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(InputError, match=r"espeakng_loader.*pip install -e '\.\[speech,espeak\]'"):
        synthesis.Synthesizer()
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(InputError, match=r"soundfile.*pip install -e '\.\[speech\]'"):
        audio.read("x.wav")
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(InputError, match=r"jiwer.*pip install -e '\.\[speech\]'"):
        evaluate.metrics(["a"], ["a"])
