"""The `predict` command: the files that it writes, and its messages."""

import json
import sys

from common.commands import cli
from tasks.music import data, evaluate, midi, predict
from tests.tasks.own.music import chord_piece, write_midi

import keras
import numpy as np
import pytest
import scipy.io.wavfile

# --- the command ----------------------------------------------------------------------------------


def test_predict_writes_the_same_bytes_for_a_seed_and_other_music_for_another(
    trained, tmp_path, capsys
):
    version = str(trained[0] / "saved_models" / "music" / "1")
    words = ["--model", version, "--steps", "24", "--json"]
    files = {}
    for name, seed in (("one", "7"), ("two", "7"), ("other", "8")):
        out = tmp_path / f"{name}.mid"
        predict.main([*words, "--seed", seed, "--out", str(out)])
        prediction = json.loads(capsys.readouterr().out)
        assert prediction["midi"] == str(out)
        assert prediction["frames"] == 24 and prediction["notes"] > 0
        assert prediction["seconds"] == pytest.approx(24 * 60 / data.OWN_TEMPO)
        files[name] = [out.with_suffix(end).read_bytes() for end in (".mid", ".png", ".wav")]
    assert files["one"] == files["two"]
    assert all(a != b for a, b in zip(files["one"], files["other"], strict=True))
    rate, sound = scipy.io.wavfile.read(tmp_path / "one.wav")
    assert rate == midi.SAMPLE_RATE and sound.dtype == np.int16 and np.abs(sound).max() > 20_000
    assert abs(len(sound) / rate - prediction["seconds"]) < 3.0
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


def test_music_of_several_requests_is_that_of_one(served):
    prime = chord_piece(np.random.default_rng(5), 2)[None].astype(np.float32).repeat(5, axis=0)
    seeds = np.array([[0, 1], [0, 2], [3, 1], [9, 9], [0, 0]])
    options = {"steps": 20, "temperature": 1.0, "top_p": 1.0}
    whole = predict.compose(served, prime, seeds, **options)
    lengths = []

    class Counted(type(served)):
        def call(self, signature, /, **inputs):
            lengths.append((len(inputs["seed"]), int(inputs["steps"][0])))
            return super().call(signature, **inputs)

    limits = {"max_steps": 8, "max_batch_frames": 3 * (prime.shape[1] + 20)}
    counted = Counted(served.path, {**served.settings, **limits}, served.functions)
    np.testing.assert_array_equal(predict.compose(counted, prime, seeds, **options), whole)
    assert lengths == [(3, 8), (3, 8), (3, 4), (2, 8), (2, 8), (2, 4)]
    assert whole.shape == (5, prime.shape[1] + 20, 88)


def test_predict_and_evaluate_build_no_keras_model(trained, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a Keras model was built")

    monkeypatch.setattr(keras.Model, "__init__", refuse)
    monkeypatch.setattr(keras.saving, "deserialize_keras_object", refuse)
    version = str(trained[0] / "saved_models" / "music" / "1")
    predict.main(["--model", version, "--steps", "2", "--out", str(tmp_path / "a.mid")])
    evaluate.main(["--model", version, "--samples", "0", "--data", str(trained[0] / "midi")])


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
        (["--out", "new.wav"], "--out must end in .mid"),
        (["--tempo", "0"], "--tempo must be 10 to 1000"),
        (["--steps", "5000"], "more than 4,096 frames"),
        (["--prime", "absent.mid"], "absent.mid: cannot read"),
    ],
)
def test_invalid_input_gives_a_one_line_error(
    trained, words, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    version = str(trained[0] / "saved_models" / "music" / "1")
    monkeypatch.setattr(sys, "argv", ["predict", "--model", version, *words])
    with pytest.raises(SystemExit) as stop:
        cli.run(predict.main)
    assert stop.value.code == 2 and message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
