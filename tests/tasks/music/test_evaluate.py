"""The `evaluate` command and its metrics."""

import dataclasses
import json

from common.errors import InputError
from common.serving.versions import find
from tasks.music import evaluate
from tasks.music.formats import Piece
from tasks.music.midi import KEYS
from tests.tasks import commands
from tests.tasks.music.examples import nll, random_notes
from tests.tasks.own.music import chord_piece, write_midi

import numpy as np
import pytest

# --- the command ----------------------------------------------------------------------------------


def test_evaluate_scores_the_export_as_train_did(trained, command_environment):
    folder, done = trained
    expected = json.loads(done.stdout.splitlines()[-1])
    again = commands.run(
        *("music.evaluate", "--samples", 4, "--plot", "samples.png"),
        folder=folder,
        environment=command_environment,
    )
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout.splitlines()[-1])
    for name in ("task", "dataset", "split", "examples", "frame_accuracy"):
        assert result[name] == expected[name]
    assert result["nll"] == pytest.approx(expected["nll"], rel=1e-6)
    assert (folder / "samples.png").stat().st_size > 20_000


def test_evaluate_scores_a_midi_file_as_the_model_does(shipped, tmp_path, capsys):
    frames = chord_piece(np.random.default_rng(77), 8)
    path = write_midi(tmp_path / "mine.mid", frames, steps_per_quarter=2)
    words = ["--model", str(shipped.path), "--data", str(path), "--samples", "0"]
    evaluate.main(words)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["split"] == "all" and result["examples"] == 1
    built = find(shipped.path).model
    expected = nll(built, frames[None].astype(np.float32))[0, 1:].mean()
    assert result["nll"] == pytest.approx(expected, rel=1e-4)


def test_a_piece_longer_than_a_request_is_scored_in_parts(shipped):
    frames = chord_piece(np.random.default_rng(7), 10)
    assert len(frames) == 20
    piece = Piece("long", frames)
    whole = evaluate.score(shipped, [piece]).metrics["nll"]
    split = dataclasses.replace(shipped, settings={**shipped.settings, "max_frames": 16})
    parts = evaluate.score(split, [piece]).metrics["nll"]
    # Frames 2 to 16 of the first 16, and 17 to 20 after the eight before them.
    request = evaluate.piece_request([piece, Piece("end", frames[8:])])
    nll = shipped.call("tensors", **request)["nll"]
    expected = np.concatenate([nll[0, :15], nll[1, 7:11]])
    assert parts == pytest.approx(expected.mean(), rel=1e-5)
    assert parts != pytest.approx(whole, rel=1e-6)


def test_a_new_folder_is_scored_whole_unless_it_has_splits(shipped, capsys, monkeypatch, tmp_path):
    version = str(shipped.path)
    random = np.random.default_rng(78)
    for folder in (tmp_path, *(tmp_path / "split" / name for name in ("train", "validation"))):
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(3):
            write_midi(folder / f"{number}.mid", chord_piece(random, 8 + number))
    (tmp_path / "split" / "test").mkdir()
    write_midi(tmp_path / "split" / "test" / "a.mid", chord_piece(random, 9))
    monkeypatch.chdir(tmp_path / "split")
    evaluate.main(["--model", version, "--data", ".", "--samples", "0"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["dataset"], result["split"], result["examples"]) == ("split", "test", 1)
    monkeypatch.chdir(tmp_path / "split" / "train")
    evaluate.main(["--model", version, "--data", ".", "--samples", "0"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["dataset"], result["split"], result["examples"]) == ("train", "all", 3)


def test_a_model_is_scored_where_its_training_data_is_gone(shipped, tmp_path, capsys):
    trained_on = {**shipped.settings["training_data"], "dataset": None}
    trained_on["data"] = str(tmp_path / "gone")
    moved = dataclasses.replace(shipped, settings={**shipped.settings, "training_data": trained_on})
    assert evaluate.load_training_pieces(moved, evaluate.Evaluate()) == []
    assert "the training data cannot be read" in capsys.readouterr().err
    with pytest.raises(InputError, match="gone: no such folder"):
        evaluate.load_training_pieces(moved, evaluate.Evaluate(plot=tmp_path / "a.png", samples=4))


def test_chorales_are_not_scored_by_a_model_trained_on_them():
    with pytest.raises(InputError, match="which shares pieces with 'jsb_chorales'"):
        evaluate.check_no_leak("bach_chorales", "jsb_chorales")
    evaluate.check_no_leak("jsb_chorales", "jsb_chorales")
    evaluate.check_no_leak(None, "nottingham")


# The model `gone` does not exist: these flags are refused before a model is loaded.
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "gone", "--samples", "-1"], "--samples must be 0 or more, got -1"),
        (["--samples", "0", "--plot", "a.png"], "--plot draws samples: give --samples 1 or more"),
    ],
)
def test_an_invalid_flag_gives_a_one_line_error(
    words, message, capsys, monkeypatch, in_user_folder
):
    commands.check_refused(evaluate.main, words, message, capsys, monkeypatch)


# --- metrics --------------------------------------------------------------------------------------


def test_metrics_are_those_of_numpy():
    truth = [random_notes((n,), seed=n) for n in (5, 9)]
    random = np.random.default_rng(0)
    probabilities = [random.random((n - 1, KEYS)) for n in (5, 9)]
    losses = [random.random(n - 1) for n in (5, 9)]
    result = evaluate.metrics(truth, losses, probabilities)
    pairs = list(zip(probabilities, truth, strict=True))
    hits = sum(((p >= 0.5) & (t[1:] > 0)).sum() for p, t in pairs)
    wrong = sum(((p >= 0.5) & (t[1:] == 0)).sum() for p, t in pairs)
    missed = sum(((p < 0.5) & (t[1:] > 0)).sum() for p, t in pairs)
    assert result["frame_accuracy"] == pytest.approx(hits / (hits + wrong + missed))
    assert result["nll"] == pytest.approx((losses[0].sum() + losses[1].sum()) / 12)
