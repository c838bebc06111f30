"""The music task as its users meet it: data, model, commands, answers, messages."""

import csv
import dataclasses
import itertools
import json
import sys

from common import decoding
from common.commands import cli
from common.errors import InputError
from common.serving.served import load_export
from tasks.music import data, evaluate, generation, midi, model, predict, serving, train
from tasks.music.config import PRESETS, Config
from tasks.music.data import KEYS, Piece
from tests.tasks import commands
from tests.tasks.own.music import CHORDS, TINY, chord_piece, write_folder, write_midi

import keras
import numpy as np
import pretty_midi
import pytest
import scipy.io
import scipy.io.wavfile
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

heads = pytest.mark.parametrize("head", ["joint", "independent"])


def tiny_config(**changes):
    plain = {"dropout": 0.0, "input_dropout": 0.0, "key_dropout": 0.0, "units": 12, "key_units": 6}
    return Config(**{**plain, "members": 2, **changes})


def random_model(low=36, high=48, seed=3, **changes):
    """A model whose weights are large enough for its answers to differ."""
    keras.utils.set_random_seed(seed)
    built = model.build(tiny_config(**changes), low=low, high=high, frames=98)
    for variable in built.trainable_variables:
        variable.assign(3.0 * variable + (0.5 if "out" in variable.path else 0.0))
    return built


def random_notes(shape, low=36, high=48, share=0.25, seed=0):
    notes = np.zeros((*shape, KEYS), np.float32)
    notes[..., low : high + 1] = (
        np.random.default_rng(seed).random((*shape, high + 1 - low)) < share
    )
    return notes


def nll(built, notes, length=None):
    length = np.full(len(notes), notes.shape[1]) if length is None else length
    return built({"notes": notes, "length": np.asarray(length, np.int32)})["nll"].numpy()


def request(rows=1, **changes):
    asked = {
        "prime": np.zeros((rows, 1, KEYS)),
        "prime_length": np.zeros(rows),
        "steps": np.full(rows, 6),
        "temperature": np.ones(rows),
        "top_p": np.ones(rows),
        "seed": np.stack([np.zeros(rows), np.arange(rows)], axis=1),
    }
    return {**asked, **{name: np.asarray(value) for name, value in changes.items()}}


# --- the commands ---------------------------------------------------------------------------------


def test_train_learns_exports_and_prints_one_json_line(trained):
    folder, done = trained
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result)[:6] == ["task", "dataset", "split", "examples", "seconds", "model"]
    assert result["dataset"] == "midi" and result["split"] == "test"
    # A chord is kept for two frames; the next one is certain to .85. So the best possible is 0.31
    # nats a frame and a little, where the place in the bar is known.
    assert 0.2 < result["nll"] < 0.8
    assert result["frame_accuracy"] > 0.85
    card = ("| units | 16 |", f"{result['nll']:.4f}", "assets.extra/samples.png")
    commands.check_version(folder / result["model"], *card)
    assert "longest copy (frames)" in done.stdout


def test_evaluate_scores_the_export_as_train_did(trained, command_environment):
    folder, done = trained
    said = json.loads(done.stdout.splitlines()[-1])
    again = commands.run(
        *("music.evaluate", "--samples", 4, "--plot", "samples.png"),
        folder=folder,
        environment=command_environment,
    )
    assert again.returncode == 0, again.stderr
    scored = json.loads(again.stdout.splitlines()[-1])
    for name in ("task", "dataset", "split", "examples", "frame_accuracy"):
        assert scored[name] == said[name]
    assert scored["nll"] == pytest.approx(said["nll"], rel=1e-6)
    assert (folder / "samples.png").stat().st_size > 20_000


def test_evaluate_scores_a_midi_file_as_the_model_does(trained, capsys):
    folder, _ = trained
    frames = chord_piece(np.random.default_rng(77), 8)
    write_midi(folder / "mine.mid", frames)
    version = folder / "saved_models" / "music" / "1"
    words = ["--model", str(version), "--data", str(folder / "mine.mid"), "--samples", "0"]
    evaluate.main(words)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["split"] == "all" and result["examples"] == 1
    built = keras.models.load_model(version / "model.keras")
    expected = nll(built, frames[None].astype(np.float32))[0, 1:].mean()
    assert result["nll"] == pytest.approx(expected, rel=1e-4)


def test_a_model_is_scored_where_its_training_data_is_gone(served, tmp_path, capsys):
    trained_on = {**served.settings["training_data"], "data": str(tmp_path / "gone")}
    moved = dataclasses.replace(served, settings={**served.settings, "training_data": trained_on})
    assert evaluate._training_pieces(moved, evaluate.Evaluate()) == []
    assert "the training data cannot be read" in capsys.readouterr().err
    with pytest.raises(InputError, match="gone: no such folder"):
        evaluate._training_pieces(moved, evaluate.Evaluate(plot=tmp_path / "a.png"))


def test_predict_writes_the_same_bytes_for_a_seed_and_other_music_for_another(
    trained, tmp_path, capsys
):
    version = str(trained[0] / "saved_models" / "music" / "1")
    words = ["--model", version, "--steps", "24", "--json"]
    files = {}
    for name, seed in (("one", "7"), ("two", "7"), ("other", "8")):
        out = tmp_path / f"{name}.mid"
        predict.main([*words, "--seed", seed, "--out", str(out)])
        said = json.loads(capsys.readouterr().out)
        assert said["midi"] == str(out) and said["frames"] == 24 and said["notes"] > 0
        assert said["seconds"] == pytest.approx(24 * 60 / data.OWN_TEMPO)
        files[name] = [out.with_suffix(end).read_bytes() for end in (".mid", ".png", ".wav")]
    assert files["one"] == files["two"]
    assert all(a != b for a, b in zip(files["one"], files["other"], strict=True))
    rate, sound = scipy.io.wavfile.read(tmp_path / "one.wav")
    assert rate == midi.SAMPLE_RATE and sound.dtype == np.int16 and np.abs(sound).max() > 20_000
    assert abs(len(sound) / rate - said["seconds"]) < 3.0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == sorted(
        [".mid", ".png", ".wav"] * 3
    )


def test_a_continuation_keeps_the_frames_of_the_prime(trained, tmp_path, capsys):
    version = str(trained[0] / "saved_models" / "music" / "1")
    frames = chord_piece(np.random.default_rng(5), 4)
    prime = write_midi(tmp_path / "prime.mid", frames)
    out = tmp_path / "more.mid"
    words = ["--model", version, "--prime", str(prime), "--out", str(out)]
    predict.main([*words, "--steps", "8", "--tempo", "60"])
    assert "16 frames (8 of them given)" in capsys.readouterr().out
    made = midi.read_midi(out, 1)
    assert np.array_equal(made[:8], frames)
    predict.main([*words, "--steps", "3", "--prime_steps", "4"])
    assert np.array_equal(midi.read_midi(out, 1)[:4], frames[:4])
    predict.main([*words, "--steps", "0"])
    assert np.array_equal(midi.read_midi(out, 1), frames)


def test_predict_and_evaluate_build_no_keras_model(trained, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a Keras model was built")

    monkeypatch.setattr(keras.Model, "__init__", refuse)
    monkeypatch.setattr(keras.models, "load_model", refuse)
    version = str(trained[0] / "saved_models" / "music" / "1")
    predict.main(["--model", version, "--steps", "2", "--out", str(tmp_path / "a.mid")])
    evaluate.main(["--model", version, "--samples", "0", "--data", str(trained[0] / "midi")])


@pytest.mark.slow  # dna is tested likewise
def test_fine_tuning_takes_the_weights_over(trained, command_environment):
    folder, done = trained
    write_folder(folder / "new", 30, seed=9)
    words = ["--data", "new", "--init", "saved_models/music/1", "--output", "tuned", "--epochs"]
    tuned = commands.run(
        *("music.train", *words, 1, "--learning_rate", "0.0001", "--verbose", 0),
        folder=folder,
        environment=command_environment,
    )
    assert tuned.returncode == 0, tuned.stderr
    before = json.loads(done.stdout.splitlines()[-1])["nll"]
    assert json.loads(tuned.stdout.splitlines()[-1])["nll"] < before + 0.3
    assert load_export(folder / "tuned" / "music").settings["config"]["units"] == 16


@pytest.mark.slow  # that runs resume is tested on ner and on the loop itself, too
def test_training_killed_in_an_epoch_resumes_to_the_same_weights(tmp_path, command_environment):
    write_folder(tmp_path / "midi", 60, seed=2)
    words = ["--data", "midi", "--epochs", 6, "--deterministic", *TINY, "--batch_size", 4]
    words += ["--score", "none"]
    commands.train_and_kill("music", *words, folder=tmp_path, environment=command_environment)
    again = {"folder": tmp_path, "environment": command_environment}
    resumed = commands.run("music.train", *words, "--resume", **again)
    assert resumed.returncode == 0, resumed.stderr
    whole = commands.run("music.train", *words, "--output", "whole", **again)
    assert whole.returncode == 0, whole.stderr
    logs = []
    for output in ("saved_models", "whole"):
        with open(tmp_path / output / "music" / "run" / "log.csv", encoding="utf-8") as file:
            logs.append([{**row, "seconds": None} for row in csv.DictReader(file)])
    assert logs[0] == logs[1] and len(logs[0]) == 6


@pytest.mark.parametrize("module", [train, evaluate, predict])
def test_help_has_examples_and_defaults(module, capsys):
    commands.check_help(module, capsys)


def test_the_signatures_are_those_of_the_golden_file(served, pytestconfig):
    commands.check_signatures(served, pytestconfig.rootpath / "tests/golden/music.json")


# --- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "-1"], "--steps must be 0 or more, got -1"),
        (["--steps", "0"], "--steps 0 without --prime makes no music"),
        (["--temperature", "-0.5"], "--temperature must be 0 or more"),
        (["--temperature", "nan"], "--temperature must be 0 or more"),
        (["--top_p", "1.5"], "--top_p must be in [0, 1]"),
        (["--seed", "-3"], "--seed must be 0 to"),
        (["--prime_steps", "4"], "--prime_steps needs --prime"),
        (["--out", "new.wav"], "--out must end in .mid"),
        (["--tempo", "0"], "--tempo must be 10 to 1000"),
        (["--steps", "5000"], "more than 4,096 frames"),
        (["--prime", "absent.mid"], "absent.mid: cannot read"),
    ],
)
def test_predict_says_what_is_wrong(trained, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    version = str(trained[0] / "saved_models" / "music" / "1")
    monkeypatch.setattr(sys, "argv", ["predict", "--model", version, *words])
    with pytest.raises(SystemExit) as stop:
        cli.run(predict.main)
    assert stop.value.code == 2 and message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transpose": 13}, "--transpose must be 0 to 12"),
        ({"max_length": 1}, "--max_length must be 2 or more"),
        ({"steps_per_quarter": 0}, "--steps_per_quarter must be 1 or more"),
        ({"steps_per_quarter": 100}, "--steps_per_quarter must be 1 to 48"),
        ({"dropout": 1.0}, r"--dropout must be in \[0, 1\)"),
        ({"members": 0}, "--members must be 1 or more"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(InputError, match=message):
        Config(**changes)


def test_presets_are_what_they_are_called():
    assert all(config.dataset == name for name, config in PRESETS.items())
    assert set(PRESETS) == set(data.GRIDS) == set(data.LICENCES)


def test_files_appear_together_or_not_at_all(tmp_path):
    files = {tmp_path / "a.mid": b"a", tmp_path / "absent" / "b.mid": b"b"}
    with pytest.raises(FileNotFoundError):
        predict.write_together(files)
    assert list(tmp_path.iterdir()) == []


# --- MIDI -----------------------------------------------------------------------------------------


def song_of(*tracks, resolution=480, tempo=120.0):
    """A song of tracks `(is_drum, [(pitch, start, end)])`, in quarter notes."""
    song = pretty_midi.PrettyMIDI(resolution=resolution, initial_tempo=tempo)
    for is_drum, notes in tracks:
        instrument = pretty_midi.Instrument(0, is_drum=is_drum)
        beat = 60.0 / tempo
        instrument.notes = [pretty_midi.Note(90, p, a * beat, b * beat) for p, a, b in notes]
        song.instruments.append(instrument)
    return song


TUNE = [(60, 0, 1), (62, 1, 1.5), (64, 1.5, 3)]
BASS = [(36, 0, 2), (43, 2, 3)]


@pytest.mark.parametrize(("resolution", "tempo"), [(480, 120.0), (96, 63.0), (220, 200.0)])
def test_frames_depend_neither_on_tempo_nor_on_resolution(tmp_path, resolution, tempo):
    song = song_of(
        (False, TUNE), (False, BASS), (True, [(38, 0, 4)]), resolution=resolution, tempo=tempo
    )
    song.write(str(tmp_path / "a.mid"))
    frames = midi.read_midi(tmp_path / "a.mid", 2)
    sounding = [(np.flatnonzero(row) + 21).tolist() for row in frames]
    assert sounding == [[36, 60], [36, 60], [36, 62], [36, 64], [43, 64], [43, 64]]


def test_silence_around_is_left_out_and_short_notes_get_a_step(tmp_path):
    song_of((False, [(60, 4, 4.05), (64, 6, 7)])).write(str(tmp_path / "a.mid"))
    frames = midi.read_midi(tmp_path / "a.mid", 1)
    assert frames.shape == (3, KEYS) and frames.sum(axis=1).tolist() == [1, 0, 1]


def test_notes_beyond_the_piano_are_moved_by_octaves():
    frames = midi.to_frames(np.array([20, 0, 109, 127]), np.zeros(4, int), np.ones(4, int))
    assert (np.flatnonzero(frames[0]) + 21).tolist() == [24, 32, 97, 103]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.floats(0.0, 0.5))
def test_frames_and_notes_tell_the_same(seed, time, share):
    frames = (np.random.default_rng(seed).random((time, KEYS)) < share).astype(np.uint8)
    frames[0, 0] = frames[-1, 5] = 1  # no silence at the ends
    key, start, end = np.array(midi.to_notes(frames)).T
    assert np.array_equal(midi.to_frames(key + midi.LOWEST, start, end), frames)
    assert (end > start).all()


def test_midi_files_read_as_they_were_written(tmp_path):
    frames = random_notes((40,), 10, 80, share=0.1).astype(np.uint8)
    for steps in (1, 2, 4, 12):
        write_midi(tmp_path / "a.mid", frames, steps_per_quarter=steps, tempo=77)
        assert np.array_equal(midi.read_midi(tmp_path / "a.mid", steps), frames)


def broken_files(folder):
    whole = midi.midi_bytes(song_of((False, TUNE)))
    drums = midi.midi_bytes(song_of((True, [(38, 0, 1)])))
    silent = midi.midi_bytes(song_of((False, [])))
    files = {
        "empty.mid": (b"", "empty file"),
        "text.mid": (b"no music", "no MIDI file: it does not begin with MThd"),
        "truncated.mid": (whole[:-9], "broken MIDI file"),
        "header.mid": (whole[:14], "broken MIDI file|no note in it"),
        "drums.mid": (drums, "only drums, no pitched note"),
        "silent.mid": (silent, "no note in it"),
        "smpte.mid": (whole[:12] + b"\xe8\x28" + whole[14:], "broken|SMPTE"),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    return {name: message for name, (_, message) in files.items()}


def test_every_broken_file_of_a_folder_is_named(tmp_path):
    broken = broken_files(tmp_path)
    write_midi(tmp_path / "good.mid", chord_piece(np.random.default_rng(0)))
    for name, message in broken.items():
        with pytest.raises(InputError, match=f"{name}: ({message})"):
            midi.read_midi(tmp_path / name, 4)
    with pytest.raises(InputError) as error:
        data.read_folder(tmp_path, 4)
    assert f"{len(broken)} of {len(broken) + 1} files cannot be used" in str(error.value)
    assert all(name in str(error.value) for name in broken)
    assert "good.mid" not in str(error.value)


def test_a_command_says_what_is_wrong_with_the_users_files(tmp_path, capsys, monkeypatch):
    broken_files(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.run(train.main)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "drums.mid: only drums" in said and "Traceback" not in said
    for path, message in (
        (tmp_path / "absent", "no such folder"),
        (tmp_path / "drums.mid", "a file;"),
    ):
        with pytest.raises(InputError, match=message):
            train.main(["--data", str(path)])


# --- data -----------------------------------------------------------------------------------------


def test_the_same_music_twice_is_kept_once_so_that_no_split_shares_it(tmp_path):
    folder = write_folder(tmp_path / "midi", 12, seed=1)
    first = (folder / "000.mid").read_bytes()
    (folder / "copy").mkdir()
    (folder / "copy" / "again.MID").write_bytes(first)
    (folder / "notes.txt").write_text("no music")
    rows = data.read_folder(folder, 1)
    names = [row.name for row in rows]
    assert names[0] == "000.mid" and not any("again" in name for name in names)
    assert len({row.notes.tobytes() for row in rows}) == len(rows) >= 10


def test_folders_that_are_split_already_stay_so(tmp_path):
    for number, split in enumerate(("train", "validation", "test")):
        write_folder(tmp_path / "mine" / split, 3 + number, seed=number)
    corpus = data.load(Config(data=tmp_path / "mine"), steps_per_quarter=1, seed=1)
    assert {split: corpus.size(split) for split in corpus.splits} == {
        "train": 3,
        "validation": 4,
        "test": 5,
    }
    first = data.pieces(corpus.splits["train"])[0]
    assert first.name == "000.mid" and first.notes.dtype == np.uint8


def test_published_sets_are_read_whole_from_manual_dir(shared_data, tmp_path):
    folder = shared_data / "music" / "boulanger_lewandowski"
    sizes = {"jsb_chorales": (229, 76, 77, 4648), "nottingham": (694, 173, 170, 44293)}
    for name, (*counts, frames) in sizes.items():
        config = Config(dataset=name, manual_dir=folder, data_dir=tmp_path)
        corpus = data.load(config, steps_per_quarter=4, seed=1)
        assert [corpus.size(split) for split in data.SPLITS] == counts
        assert "boulanger2012" in corpus.citation and "do not redistribute" in corpus.licence
        rows = data.pieces(corpus.splits["test"])
        # What the published scores are means over.
        assert sum(len(row.notes) - 1 for row in rows) == frames


def test_the_marginal_baseline_on_jsb_is_what_numpy_says(shared_data):
    """With nothing but its bias, the model is the baseline of independent key frequencies."""
    path = shared_data / "music" / "boulanger_lewandowski" / "JSB_Chorales.mat"
    splits = data.read_matrices(path)
    train_frames = np.concatenate(splits["train"])
    share = (train_frames.sum(axis=0) + 0.5) / (len(train_frames) + 1.0)
    built = model.build(tiny_config(members=1, head="independent"), low=0, high=87, frames=13807)
    for variable in built.trainable_variables:
        variable.assign(np.log(share / (1 - share)) if "base" in variable.path else 0.0 * variable)
    total, frames = 0.0, 0
    for batch in data.validation_batches([Piece("", row) for row in splits["test"]]):
        pair = (
            {name: value.numpy() for name, value in batch.items()},
            {"nll": nll(built, batch["notes"].numpy(), batch["length"].numpy())},
        )
        found = train.score_batches([pair])["nll"]
        count = int((pair[0]["length"] - 1).sum())
        total, frames = total + found * count, frames + count
    targets = np.concatenate([row[1:] for row in splits["test"]]).astype(np.float64)
    expected = -(targets * np.log(share) + (1 - targets) * np.log(1 - share)).sum(axis=1).mean()
    assert frames == len(targets) == 4648
    assert total / frames == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(11.06, abs=0.15)


def test_other_matlab_files_are_refused(tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="no MATLAB file of piano rolls"):
        data.read_matrices(path)
    rolls = np.empty((1, 1), object)
    rolls[0, 0] = np.full((4, 88), 7)
    scipy.io.savemat(path, {"traindata": rolls, "validdata": rolls, "testdata": rolls})
    with pytest.raises(InputError, match=r"expected zeros and ones of \[time, 88\]"):
        data.read_matrices(path)


def melody(intervals, start=40):
    top = start + np.cumsum([0, *intervals])
    return Piece("", np.eye(KEYS, dtype=np.uint8)[np.repeat(top, 2)])


def test_settings_of_one_tune_are_found_in_any_key():
    random = np.random.default_rng(0)
    tune, other = (random.choice([-2, -1, 1, 2, 3, -3], size=30).tolist() for _ in range(2))
    rows = [melody(tune), melody(other), melody(tune, 45), melody([5, -5, *tune[:20], 1, 1, -2])]
    assert data.same_tune(rows) == [[0, 2, 3], [1]]
    assert data.melody_runs(melody([2, 2, 1]).notes, 2) == {(2, 2), (2, 1)}


def test_transposition_stays_within_the_keys_of_the_training_music():
    row = Piece("", random_notes((40,), 30, 50).astype(np.uint8))
    random = np.random.default_rng(0)
    config = Config(transpose=6, max_length=16)
    lowest, starts = set(), set()
    for _ in range(200):
        notes = data.vary(row, config, random, low=28, high=53).notes
        keys = np.flatnonzero(notes.any(axis=0))
        assert notes.shape == (16, KEYS) and keys[0] >= 28 and keys[-1] <= 53
        shift = next(
            s
            for s in range(-6, 7)
            for t in range(25)
            if np.array_equal(np.roll(row.notes[t : t + 16], s, 1), notes)
        )
        lowest.add(shift)
        starts.add(notes.tobytes())
    assert lowest == {-2, -1, 0, 1, 2, 3} and len(starts) > 60
    same = data.vary(row, Config(max_length=64), random, low=28, high=53)
    assert np.array_equal(same.notes, row.notes)


def test_an_epoch_follows_from_its_seed():
    rows = [Piece("", random_notes((n,), seed=n).astype(np.uint8)) for n in range(4, 30)]
    batches = [
        [
            batch["notes"].numpy().tobytes()
            for batch in data.train_batches(rows, Config(transpose=3), low=30, high=60, seed=seed)
        ]
        for seed in (1, 1, 2)
    ]
    assert batches[0] == batches[1] != batches[2]


def test_training_music_without_a_note_is_refused():
    with pytest.raises(InputError, match="no note in the training data"):
        data.key_range([Piece("", np.zeros((4, KEYS), np.uint8))])


@pytest.mark.slow
def test_no_tune_of_the_chorales_stands_in_two_splits(tmp_path):
    config = Config(dataset="bach_chorales", data_dir=tmp_path)
    corpus = data.load(config, steps_per_quarter=2, seed=1)
    rows = {split: data.pieces(corpus.splits[split]) for split in data.SPLITS}
    assert [len(rows[split]) for split in data.SPLITS] == [297, 39, 30]
    runs = {split: [data.melody_runs(row.notes, 10) for row in rows[split]] for split in rows}
    for one, other in itertools.combinations(data.SPLITS, 2):
        for a, b in itertools.product(runs[one], runs[other]):
            assert len(a & b) < 0.2 * max(1, min(len(a), len(b)))


# --- the model ------------------------------------------------------------------------------------


def test_repeats_are_those_that_a_search_finds():
    random = np.random.default_rng(1)
    notes = np.eye(KEYS, dtype=np.float32)[random.integers(0, 3, size=(3, 60))]
    notes[:, :, 60:] = notes[:, :, :28][:, :, ::-1] * 0.0
    notes[1, 45:] = notes[1, 5:20]  # a long repeat
    place, length = (value.numpy() for value in tf.function(model.repeats)(notes))
    for kind in range(2):
        for row, step in itertools.product(range(3), range(60)):
            best, following = 0, 0
            for other in range(1, step):
                run = 0
                while run < min(other, model.LONGEST_RUN) and np.array_equal(
                    notes[row, other - 1 - run], notes[row, step - 1 - run]
                ):
                    run += 1
                if run >= best and run:
                    best, following = run, other
            assert length[kind, row, step] == best
            if best:
                assert place[kind, row, step] == following


def test_frames_have_an_identity_of_their_own():
    notes = random_notes((500,), 0, 87, share=0.1)
    notes[100:200] = notes[:100]
    found = model.identities(notes).numpy()
    for kind, same in ((0, lambda a, b: np.array_equal(a, b)), (1, lambda a, b: top(a) == top(b))):
        for a, b in itertools.product(range(0, 500, 7), range(500)):
            assert (found[kind, a] == found[kind, b]) == same(notes[a], notes[b])


def top(row):
    return max(np.flatnonzero(row), default=-1)


@heads
def test_the_probabilities_of_all_frames_add_up_to_one(head):
    """By enumeration of the 64 frames of six keys; the other 82 keys are silent."""
    built = random_model(40, 45, head=head)
    notes = np.repeat(random_notes((1, 7), 40, 45, share=0.4), 64, axis=0)
    notes[:, 4, 40:46] = list(itertools.product([0, 1], repeat=6))
    found = nll(built, notes)
    outside = (1 - 1 / 100) ** 82  # Laplace's rule: 98 frames, none with these keys
    assert np.exp(-found[:, 4].astype(np.float64)).sum() == pytest.approx(outside, rel=1e-5)
    assert np.ptp(found[:, 4]) > 3.0  # they are not all the same
    # A frame tells nothing of those before it, and does of those behind it.
    assert np.ptp(found[:, :4], axis=0).max() == 0.0
    assert np.ptp(found[:, 5:], axis=0).min() > 0.01


def test_only_the_joint_head_looks_at_the_keys_below():
    for head, depends in (("joint", True), ("independent", False)):
        built = random_model(36, 48, head=head)
        keys = generation.parts(built).members[0].keys
        past = tf.function(model.look_back)(random_notes((1, 5)))
        rows = model.Past(*(value[:, -1] for value in past))
        state = tf.ones([1, 12])
        one, other = (np.zeros((1, KEYS), np.float32) for _ in range(2))
        other[0, 42] = 1.0
        frame = generation.Frame([generation.Member(None, keys)], [state], rows)
        found = [frame.call(notes)[0].numpy()[0] for notes in (one, other)]
        assert np.array_equal(found[0][:43], found[1][:43])
        assert (np.abs(found[0] - found[1])[43:49].max() > 1e-3) == depends


@heads
def test_padding_changes_nothing(head):
    built = random_model(head=head)
    notes = random_notes((3, 20))
    length = [20, 9, 2]
    found = nll(built, notes, length)
    junk = np.concatenate([notes, np.full((3, 7, KEYS), 0.7, np.float32)], axis=1)
    junk[1, 9:] = 0.3
    again = nll(built, junk, length)
    for row, n in enumerate(length):
        np.testing.assert_allclose(again[row, :n], found[row, :n], rtol=1e-5)
        assert not found[row, n:].any() and not again[row, n:].any()


def test_a_model_comes_back_from_its_file(tmp_path):
    built, notes = random_model(), random_notes((2, 9))
    built.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(nll(again, notes), nll(built, notes))


def test_members_answer_with_their_mean_probability():
    logits = np.random.default_rng(0).normal(size=(4, 3, KEYS)).astype(np.float32)
    on, off = (value.numpy() for value in model.mean_log_odds(logits))
    shares = (1 / (1 + np.exp(-logits.astype(np.float64)))).mean(axis=1)
    np.testing.assert_allclose(np.exp(on), shares, rtol=1e-5)
    np.testing.assert_allclose(np.exp(off), 1 - shares, rtol=1e-5)


# --- generation -----------------------------------------------------------------------------------

PRIMES = random_notes((3, 9), share=0.2, seed=4)
PRIMES[:, 5:7] = PRIMES[:, 2:4]
ASKED = {
    "prime": PRIMES,
    "prime_length": np.array([4, 2, 0], np.int32),
    "length": np.array([14, 11, 14], np.int32),
    "temperature": np.array([1.0, 0.8, 1.0], np.float32),
    "top_p": np.array([1.0, 1.0, 0.9], np.float32),
    "seed": np.array([[1, 2], [3, 4], [-5, 6]], np.int32),
}


def sampled(layers, rows=slice(None), steps=14, **kwargs):
    asked = {name: tf.constant(value[rows]) for name, value in ASKED.items()}
    function = tf.function(lambda: generation.generate(layers, steps=steps, **asked), **kwargs)
    return function().numpy()


@heads
def test_music_is_drawn_from_the_models_own_distribution(head):
    """Each frame is drawn again from whole-sequence outputs and NumPy, and is the same."""
    built = random_model(head=head)
    layers = generation.parts(built)
    found = sampled(layers)
    for row in range(3):
        given_frames, length = ASKED["prime_length"][row], ASKED["length"][row]
        assert np.array_equal(found[row, :given_frames], PRIMES[row, :given_frames])
        assert not found[row, length:].any()
    outlook = tf.function(lambda notes: _frames_to_come(layers, notes))
    for row, step in ((0, 4), (0, 9), (0, 13), (1, 2), (1, 10), (2, 0), (2, 1), (2, 12)):
        before = found[row : row + 1].copy()
        before[:, step:] = 0
        states, past = outlook(before)
        frame = generation.Frame(
            layers.members,
            [state[:, step] for state in states],
            model.Past(*(value[:, step] for value in past)),
        )
        draws = decoding.uniform(ASKED["seed"][row : row + 1], step, KEYS + 1).numpy()[0]
        expected = _draw_with_numpy(frame, draws, ASKED["temperature"][row], ASKED["top_p"][row])
        assert np.array_equal(found[row, step], expected)


def _frames_to_come(layers, notes):
    past = model.look_back(notes)
    outlook = layers.outlook(*past)
    return [member.encoder(outlook)[0] for member in layers.members], past


def _draw_with_numpy(frame, draws, temperature, top_p):
    notes, last = np.zeros((1, KEYS), np.float32), -1
    for number in itertools.count():
        on, off = (np.exp(value.numpy()[0].astype(np.float64)) for value in frame.call(notes))
        np.testing.assert_allclose(on + off, 1.0, rtol=1e-5)
        ways, left = [], 1.0
        for key in range(last + 1, KEYS):
            ways.append(left * on[key])
            left *= off[key]
        ways = np.array([*ways, left])
        assert ways.sum() == pytest.approx(1.0, rel=1e-4)
        ways = ways ** (1 / temperature)
        ways /= ways.sum()
        order = np.argsort(-ways, kind="stable")
        kept = np.cumsum(ways[order]) - ways[order] < top_p
        ways[order[~kept]] = 0.0
        cumulative = np.cumsum(ways) / ways.sum()
        last = last + 1 + int((cumulative <= draws[number]).sum())
        if last >= KEYS:
            return notes[0]
        notes[0, last] = 1.0


def test_frames_come_as_often_as_their_probability_says():
    keras.utils.set_random_seed(5)
    built = model.build(tiny_config(members=1), low=40, high=43, frames=10**6)
    for variable in built.trainable_variables:
        if "base" in variable.path:
            variable.assign(0.0 * variable - 0.3)
    layers = generation.parts(built)
    count = 4000
    asked = {
        "prime": tf.zeros([count, 1, KEYS]),
        "prime_length": tf.zeros(count, tf.int32),
        "length": tf.ones(count, tf.int32),
        "temperature": tf.ones(count),
        "top_p": tf.ones(count),
        "seed": tf.stack([tf.zeros(count, tf.int32), tf.range(count)], axis=1),
    }
    found = tf.function(lambda: generation.generate(layers, steps=1, **asked))().numpy()[:, 0]
    frames = np.zeros((16, 1, KEYS), np.float32)
    frames[:, 0, 40:44] = list(itertools.product([0, 1], repeat=4))
    shares = np.exp(-nll(built, frames)[:, 0])
    seen = np.array([(found == frame).all(axis=1).mean() for frame in frames[:, 0]])
    error = np.sqrt(shares * (1 - shares) / count)
    assert (np.abs(seen - shares) < 4.5 * error + 1e-3).all()
    assert np.count_nonzero(shares > 0.02) >= 8


def test_a_row_answers_as_it_does_alone_and_compiled():
    layers = generation.parts(random_model())
    together = sampled(layers)
    alone = sampled(layers, rows=slice(1, 2))
    assert np.array_equal(alone[0], together[1])
    compiled = sampled(layers, jit_compile=True)
    assert np.array_equal(compiled, together)


def test_temperature_0_takes_the_likeliest_and_a_huge_one_anything(served):
    cold = served.call("serving_default", **request(3, temperature=[0.0, 0.0, 0.0]))["notes"]
    assert np.array_equal(cold[0], cold[1]) and np.array_equal(cold[0], cold[2])
    assert tuple(np.flatnonzero(cold[0, 0])) in CHORDS.values()
    narrow = served.call("serving_default", **request(3, top_p=[0.0, 0.0, 0.0]))["notes"]
    assert np.array_equal(narrow, cold)
    hot = served.call("serving_default", **request(3, temperature=np.full(3, 1e30)))
    assert np.isin(hot["notes"], (0, 1)).all() and (hot["length"] == 6).all()
    # From the lowest of 88 keys on, each of what is left is as likely as the end.
    assert hot["notes"][:, :, 60:].any() and hot["notes"][:, :, :20].any()


def test_bad_rows_get_the_empty_answer_and_leave_their_neighbours_alone(served):
    prime = np.zeros((10, 4, KEYS), np.float32)
    prime[:, :, CHORDS["C"]] = 1.0
    prime[1, 1, 5] = np.nan
    prime[2, 3, 5] = np.nan  # behind the end of its prime
    asked = request(
        10,
        prime=prime,
        prime_length=[2, 2, 2, 5, -1, 2, 2, 2, 2, 4],
        steps=[3, 3, 3, 3, 3, -1, 2**31 - 1, 3, 3, 0],
        temperature=[1, 1, 1, 1, 1, 1, 1, np.nan, -1, 1],
        top_p=np.full(10, 0.9),
    )
    answer = served.call("serving_default", **asked)
    assert answer["length"].tolist() == [5, 0, 5, 0, 0, 0, 0, 0, 0, 4]
    assert not answer["notes"][answer["length"] == 0].any()
    alone = served.call("serving_default", **{name: value[:1] for name, value in asked.items()})
    assert np.array_equal(alone["notes"][0], answer["notes"][0])
    assert np.array_equal(answer["notes"][9, :4], prime[9])
    high = served.call("serving_default", **request(2, top_p=[1.5, np.nan]))
    assert high["length"].tolist() == [0, 0] and not high["notes"].any()


def test_seeds_give_other_music(served):
    answer = served.call("serving_default", **request(6, steps=np.full(6, 16)))["notes"]
    assert len({row.tobytes() for row in answer}) == 6
    again = served.call("serving_default", **request(6, steps=np.full(6, 16)))["notes"]
    assert np.array_equal(again, answer)


@heads
def test_likely_keys_are_chosen_in_order(head):
    """Against one key after the other in Python."""
    layers = generation.parts(random_model(head=head))
    notes = random_notes((2, 6))
    states, past = tf.function(lambda n: _frames_to_come(layers, n))(notes)
    rows = lambda value: tf.reshape(value, [-1, *value.shape[2:]])  # noqa: E731
    frame = generation.Frame(
        layers.members, [rows(s) for s in states], model.Past(*map(rows, past))
    )
    found = tf.function(frame.likely)().numpy()
    chosen = np.zeros((12, KEYS), np.float32)
    for key in range(KEYS):
        share = np.exp(frame.call(chosen)[0].numpy()[:, key])
        np.testing.assert_allclose(found[:, key], share, rtol=1e-4)
        chosen[:, key] = share >= 0.5
    assert 0 < chosen.sum() < 12 * 13


def test_scoring_in_chunks_changes_nothing(monkeypatch):
    built = random_model()
    notes, length = random_notes((3, 9)), tf.constant([9, 4, 1])

    def score():
        parts = generation.parts(built)
        return tf.function(lambda notes, length: serving.score(parts, notes, length))(notes, length)

    whole = score()
    monkeypatch.setattr(serving, "CHUNK", 3)
    for name, value in score().items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-5, atol=1e-7)
    expected = nll(built, notes, [9, 4, 1])[:, 1:]
    np.testing.assert_allclose(whole["nll"][:2], expected[:2], rtol=1e-5)
    assert not whole["nll"][2].numpy().any() and not whole["probabilities"][1, 3:].numpy().any()


def test_bad_rows_are_not_scored(served):
    notes = random_notes((5, 6))
    notes[1, 2, 3] = np.nan
    answer = served.call("tensors", notes=notes, length=[6, 6, 1, 7, -2])
    assert answer["nll"].shape == (5, 5) and answer["probabilities"].shape == (5, 5, KEYS)
    assert (answer["nll"][0] > 0).all() and not answer["nll"][1:].any()
    assert not answer["probabilities"][1:].any()
    for time in (0, 1):
        nothing = served.call("tensors", notes=np.zeros((2, time, KEYS)), length=[time, 0])
        assert nothing["nll"].shape == (2, 0)


# --- evaluation -----------------------------------------------------------------------------------


def test_chorales_are_not_scored_by_a_model_that_learnt_them():
    with pytest.raises(InputError, match="which shares pieces with 'jsb_chorales'"):
        evaluate.check_no_leak("bach_chorales", "jsb_chorales")
    evaluate.check_no_leak("jsb_chorales", "jsb_chorales")
    evaluate.check_no_leak(None, "nottingham")


def test_metrics_are_those_of_numpy():
    truth = [random_notes((n,), seed=n) for n in (5, 9)]
    random = np.random.default_rng(0)
    shares = [random.random((n - 1, KEYS)) for n in (5, 9)]
    losses = [random.random(n - 1) for n in (5, 9)]
    found = evaluate.metrics(truth, losses, shares)
    hits = sum(((s >= 0.5) & (t[1:] > 0)).sum() for s, t in zip(shares, truth, strict=True))
    wrong = sum(((s >= 0.5) & (t[1:] == 0)).sum() for s, t in zip(shares, truth, strict=True))
    missed = sum(((s < 0.5) & (t[1:] > 0)).sum() for s, t in zip(shares, truth, strict=True))
    assert found["frame_accuracy"] == pytest.approx(hits / (hits + wrong + missed))
    assert found["nll"] == pytest.approx((losses[0].sum() + losses[1].sum()) / 12)


def test_copies_are_those_that_a_search_finds():
    random = np.random.default_rng(2)
    eye = np.eye(KEYS, dtype=np.uint8)
    training = [eye[30 + random.integers(0, 2, size=n)] for n in (20, 30)]
    piece = eye[30 + random.integers(0, 2, size=25)]

    def search(piece, others):
        return [
            max(
                length
                for length in range(step + 2)
                if length == 0
                or any(
                    np.array_equal(piece[step + 1 - length : step + 1], other[i : i + length])
                    for other in others
                    for i in range(len(other) - length + 1)
                )
            )
            for step in range(len(piece))
        ]

    found = evaluate.copied_runs([piece, training[0]], training)
    assert found[0].tolist() == search(piece, training)
    assert found[1].tolist() == search(training[0], training[1:])  # not with itself
    moved = np.roll(training[1], 5, axis=1)
    assert evaluate.copied_runs([moved], training)[0].max() == 0
    assert evaluate.copied_runs([moved], training, transpose=6)[0][-1] == 30


def test_statistics_of_a_hand_made_piece():
    piece = np.zeros((6, KEYS), np.uint8)
    for frame, keys in enumerate([(39, 43), (39, 43), (39, 44), (), (39, 56), (39, 51)]):
        piece[frame, keys] = 1
    found = evaluate.describe([piece], [np.ones((3, KEYS), np.uint8)], 0)
    figures = found.figures
    assert figures["notes a frame"] == pytest.approx(10 / 6)
    assert figures["different frames"] == pytest.approx(5 / 6)
    assert figures["frames as the one before"] == pytest.approx(1 / 5)
    assert figures["notes held from the frame before"] == pytest.approx(4 / 8)
    assert figures["melody moves by 1 or 2 semitones"] == pytest.approx(1 / 3)
    assert figures["melody moves by more than 5"] == pytest.approx(1 / 3)
    assert figures["longest copy (frames)"] == 0
    assert found.notes_per_frame[[0, 2]].tolist() == pytest.approx([1 / 6, 5 / 6])
    assert found.pitch_classes[0] == pytest.approx(6 / 10)  # key 39 is a C, and so is key 51
    assert found.chords[[0, 4, 5]].tolist() == pytest.approx([1 / 5, 2 / 5, 2 / 5])
    assert found.melody[[12 + 1, 24, 12 - 5]].tolist() == pytest.approx([1 / 3] * 3)
    assert evaluate.distance(found.chords, found.chords) == 0.0
