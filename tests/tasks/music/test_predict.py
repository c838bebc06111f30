"""The `predict` command: the files that it writes, and its messages."""

import json
import sys
from pathlib import Path

from common.commands import cli
from common.errors import InputError
from tasks.music import evaluate, midi, predict, smf
from tasks.music.predict import load
from tasks.music.smf import Meter, Note, Song
from tests.tasks.own.music import chord_piece, write_folder, write_midi

import keras
import numpy as np
import pytest
import scipy.io.wavfile

STEPS = 2  # frames per quarter note of the model in `saved_models/`


def seconds(frames, served):
    return round(frames / STEPS * 60 / served.settings["tempo"], 3)


# --- the command ----------------------------------------------------------------------------------


def test_predict_writes_the_same_bytes_for_a_seed_and_other_music_for_another(
    shipped, tmp_path, capsys
):
    version = str(shipped.path)
    words = ["--model", version, "--steps", "24", "--json"]
    files = {}
    for name, seed in (("one", "7"), ("two", "7"), ("other", "8")):
        out = tmp_path / f"{name}.mid"
        predict.main([*words, "--seed", seed, "--out", str(out)])
        prediction = json.loads(capsys.readouterr().out)
        assert prediction["midi"] == str(out)
        assert prediction["frames"] == 24 and prediction["notes"] > 0
        assert prediction["seconds"] == pytest.approx(seconds(24, shipped))
        files[name] = [out.with_suffix(end).read_bytes() for end in (".mid", ".png", ".wav")]
    assert files["one"] == files["two"]
    assert all(a != b for a, b in zip(files["one"], files["other"], strict=True))
    rate, sound = scipy.io.wavfile.read(tmp_path / "one.wav")
    assert rate == midi.SAMPLE_RATE and sound.dtype == np.int16 and np.abs(sound).max() > 20_000
    assert abs(len(sound) / rate - prediction["seconds"]) < 3.0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == sorted(
        [".mid", ".png", ".wav"] * 3
    )


def test_a_continuation_keeps_the_frames_of_the_prime(shipped, tmp_path, capsys):
    version = str(shipped.path)
    frames = chord_piece(np.random.default_rng(5), 4)
    prime = write_midi(tmp_path / "prime.mid", frames, steps_per_quarter=STEPS)
    out = tmp_path / "more.mid"
    words = ["--model", version, "--prime", str(prime), "--out", str(out)]
    predict.main([*words, "--steps", "8", "--tempo", "60"])
    assert "16 frames (8 of them given)" in capsys.readouterr().out
    made = midi.read_midi(out, STEPS)
    assert np.array_equal(made[:8], frames)
    predict.main([*words, "--steps", "3", "--prime_steps", "4"])
    assert np.array_equal(midi.read_midi(out, STEPS)[:4], frames[:4])
    predict.main([*words, "--steps", "0"])
    assert np.array_equal(midi.read_midi(out, STEPS), frames)


def test_load_composes_from_nothing_and_continues_files_and_frames(shipped, tmp_path):
    frames = chord_piece(np.random.default_rng(5), 2)
    prime = write_midi(tmp_path / "prime.mid", frames, steps_per_quarter=STEPS)
    model = load(shipped.path, steps=6, seed=7)
    piece = model(12)
    assert len(piece.frames) == 12 and (piece.given, piece.seed) == (0, 7) and piece.notes
    assert {tone.pitch - midi.LOWEST for tone in piece.notes} == set(
        np.flatnonzero(piece.frames.any(axis=0))
    )
    assert piece.seconds == pytest.approx(seconds(12, shipped))
    again, other, more, same = model([12, 12, str(prime), frames])
    np.testing.assert_array_equal(again.frames, piece.frames)
    assert other.seed == 8 and not np.array_equal(other.frames, piece.frames)
    for continued in (more, same):
        assert (continued.given, len(continued.frames)) == (len(frames), len(frames) + 6)
        np.testing.assert_array_equal(continued.frames[: len(frames)] > 0, frames > 0)
    written = more.write(tmp_path / "more.mid")
    assert np.array_equal(midi.read_midi(written["midi"], STEPS)[: len(frames)], frames)
    with pytest.raises(InputError, match=r"--steps must be 0 or more, got -1"):
        model(-1)


def test_music_of_several_requests_is_that_of_one(shipped):
    prime = chord_piece(np.random.default_rng(5), 2)[None].astype(np.float32).repeat(5, axis=0)
    seeds = np.array([[0, 1], [0, 2], [3, 1], [9, 9], [0, 0]])
    options = {"steps": 20, "temperature": 1.0, "top_p": 1.0}
    whole = predict.compose(shipped, prime, seeds, **options)
    lengths = []

    class Counted(type(shipped)):
        def call(self, signature, /, **inputs):
            lengths.append((len(inputs["seed"]), int(inputs["steps"][0])))
            return super().call(signature, **inputs)

    limits = {"max_steps": 8, "max_batch_frames": 3 * (prime.shape[1] + 20)}
    counted = Counted(shipped.path, {**shipped.settings, **limits}, shipped.functions)
    np.testing.assert_array_equal(predict.compose(counted, prime, seeds, **options), whole)
    assert lengths == [(3, 8), (3, 8), (3, 4), (2, 8), (2, 8), (2, 4)]
    assert whole.shape == (5, prime.shape[1] + 20, 88)


def test_predict_and_evaluate_build_no_keras_model(shipped, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a Keras model was built")

    monkeypatch.setattr(keras.Model, "__init__", refuse)
    monkeypatch.setattr(keras.saving, "deserialize_keras_object", refuse)
    version = str(shipped.path)
    predict.main(["--model", version, "--steps", "2", "--out", str(tmp_path / "a.mid")])
    folder = write_folder(tmp_path / "midi", 3, seed=0)
    evaluate.main(["--model", version, "--samples", "0", "--data", str(folder)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "-1"], "--steps must be 0 or more, got -1"),
        (["--steps", "0"], "--steps 0 without --prime makes no music"),
        (["--temperature", "-0.5"], "--temperature must be 0 to 1000"),
        (["--temperature", "nan"], "--temperature must be 0 to 1000"),
        (["--top_p", "1.5"], "--top_p must be in [0, 1]"),
        (["--seed", "-3"], "--seed must be 0 to"),
        (["--prime_steps", "4"], "--prime_steps needs --prime"),
        (["--key", "H"], "--key must be one of C, Db, D"),
        (["--key", "C", "--prime", "a.mid"], "--key and --prime: the key is that of the prime"),
        (["--count", "0"], "--count must be 1 or more"),
        (["--prime", "a.mid", "--prime_part", "end"], "--prime_part needs --prime_steps"),
        (["--out", "new.wav"], "--out must end in .mid"),
        (["--tempo", "0"], "--tempo must be 10 to 1000"),
        (["--steps", "5000"], "--steps 5000 is too many: a piece has up to 4,096 frames"),
        (["--prime", "absent.mid"], "absent.mid: cannot read"),
    ],
)
def test_invalid_input_gives_a_one_line_error(
    shipped, words, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    version = str(shipped.path)
    monkeypatch.setattr(sys, "argv", ["predict", "--model", version, *words])
    with pytest.raises(SystemExit) as stop:
        cli.run(predict.main)
    assert stop.value.code == 2 and message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# --- a prime --------------------------------------------------------------------------------------


def test_velocities_lengths_and_tempos_of_a_prime_are_kept(shipped, tmp_path, capsys):
    notes = [Note(60, 0, 450, 33), Note(64, 480, 960, 99), Note(67, 480, 700, 64)]
    song = Song(480, notes, tempos=[(0, 72.0), (480, 96.0)], meters=[Meter(0, 3, 4)])
    (tmp_path / "prime.mid").write_bytes(smf.encode(song))
    version = str(shipped.path)
    out = tmp_path / "more.mid"
    words = ["--model", version, "--prime", str(tmp_path / "prime.mid"), "--out", str(out)]
    predict.main([*words, "--steps", "0"])
    again = smf.parse(out.read_bytes())
    scale = again.resolution / 480
    assert [(n.pitch, n.start / scale, n.end / scale, n.velocity) for n in again.notes] == notes
    assert [round(tempo, 2) for _, tempo in again.tempos] == [72.0, 96.0]
    assert [meter[1:] for meter in again.meters] == [(3, 4)]
    predict.main([*words, "--steps", "8"])
    more = smf.parse(out.read_bytes())
    assert more.notes[0][3] == 33 and {n.velocity for n in more.notes[3:]} == {64}
    predict.main([*words, "--steps", "8", "--tempo", "50"])
    assert [round(tempo) for _, tempo in smf.parse(out.read_bytes()).tempos] == [50]


def test_the_end_of_a_prime_can_be_continued(tmp_path, shipped):
    frames = chord_piece(np.random.default_rng(5), 8)
    prime = write_midi(tmp_path / "prime.mid", frames, steps_per_quarter=STEPS)
    flags = predict.Predict(prime=prime, prime_steps=4, prime_part="end", steps=3)
    assert np.array_equal(predict.read_prime(flags, shipped.settings), frames[-4:])
    # A prime that is longer than the model reads: the last bars are read, and all of it is kept.
    long = np.tile(frames, (270, 1)).astype(np.float32)
    flags = predict.Predict(steps=5, temperature=0.0)
    notes = predict.generate(shipped, long, flags)
    assert len(notes) == len(long) + 5 and np.array_equal(notes[: len(long)] > 0, long > 0)
    end = predict.generate(shipped, long[-96 * 42 :], flags)
    assert np.array_equal(notes[-5:], end[-5:])


def test_several_pieces_in_a_key(shipped, tmp_path, capsys):
    version = str(shipped.path)
    out = tmp_path / "new.mid"
    words = ["--model", version, "--steps", "12", "--out", str(out), "--seed", "3", "--json"]
    predict.main([*words, "--count", "3", "--key", "D"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["midi"] for row in rows] == [str(tmp_path / f"new-{n}.mid") for n in (1, 2, 3)]
    assert [row["seed"] for row in rows] == [3, 4, 5]
    for row in rows:
        assert midi.main_scale(midi.read_midi(Path(row["midi"]), STEPS)) == 2
    predict.main([*words[:-3], "--seed", "4"])
    alone = midi.read_midi(out, STEPS)
    moved = midi.read_midi(tmp_path / "new-2.mid", STEPS)
    assert np.array_equal(predict.to_key(alone, "D"), moved)


def test_a_missing_library_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pretty_midi", None)
    song = Song(480, [Note(60, 0, 480, 80)], tempos=[(0, 90.0)])
    with pytest.raises(
        InputError, match=r"this needs pretty_midi, .*: pip install -e '\.\[music\]'"
    ):
        midi.wav_bytes(song)
