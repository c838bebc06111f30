"""The `predict` command: its inputs and outputs, and files of any length."""

import itertools
import json
import sys

from common.commands import cli
from common.errors import InputError
from tasks.video import clips, load, predict
from tests.tasks import commands
from tests.tasks.own.video import RATE, SIDE, body
from tests.tasks.video.samples import BAD_FILES, call, noise, write_video

import numpy as np
import pytest


def predict_one(shipped, path):
    (prediction,) = predict.predict_all(shipped, predict.Predict(clips=(path,), threshold=0.0))
    return prediction


# --- the command ----------------------------------------------------------------------------------


def write_clip(path, activity="standing up", person=1):
    path.write_bytes(clips.encode(body(activity, person), RATE))
    return path


def test_predict_continues_after_an_unreadable_file_and_draws(shipped, tmp_path, capsys):
    version, clip = str(shipped.path), write_clip(tmp_path / "a.mp4")
    (tmp_path / "bad.avi").write_bytes(b"no video" * 100)
    out = tmp_path / "out.jsonl"
    words = [str(clip), str(tmp_path / "bad.avi"), str(clip)]
    predict.main(["--model", version, "--output", str(out), *words])
    first, bad, last = (json.loads(line) for line in out.read_text().splitlines())
    assert first == last and first["activity"] == "standing up" and first["clip"] == str(clip)
    assert first["probability"] == max(first["probabilities"].values()) > 0.5
    assert first["seconds"] == 2.5 and len(first["windows"]) == 1
    assert bad["activity"] is None and "bad.avi: cannot be read as video" in bad["message"]
    picture = tmp_path / "activities.png"
    predict.main(["--model", version, "--plot", str(picture), str(clip)])
    assert capsys.readouterr().out.startswith("standing up ")
    assert picture.stat().st_size > 10_000


def test_an_unreadable_file_cannot_be_drawn(shipped, tmp_path):
    prediction = {"clip": "bad.avi", "activity": None, "message": "bad.avi: no video in this file"}
    picture = tmp_path / "activities.png"
    with pytest.raises(InputError, match=r"nothing to draw: bad\.avi: no video in this file"):
        predict.draw(shipped, prediction, picture)
    assert not picture.exists()


@pytest.mark.parametrize("name", BAD_FILES)
def test_an_unreadable_file_gives_a_one_line_error(shipped, tmp_path, name, capsys, monkeypatch):
    make, _ = BAD_FILES[name]
    make(tmp_path / name)
    words = ["--model", str(shipped.path.parent), str(tmp_path / name)]
    monkeypatch.setattr(sys, "argv", ["predict", *words])
    with pytest.raises(SystemExit) as stop:
        cli.run(predict.main)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2 and error.startswith("error: ") and name in error


# The model `gone` does not exist: these flags are refused before a model is loaded.
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no clip given: name a video file, as in `predict clip.avi`"),
        (["a.avi", "--window", "0"], "--window must be positive, got 0"),
    ],
)
def test_an_invalid_flag_gives_a_one_line_error(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ["--model", "gone", *words]
    commands.check_refused(predict.main, words, message, capsys, monkeypatch)


# --- files of any length --------------------------------------------------------------------------


def test_a_long_file_is_split_into_windows(shipped, tmp_path, monkeypatch):
    """10,000 frames: first still pictures of one body, then of another; memory stays bounded."""
    pictures = np.stack([body("waving", 1)[3], noise(1)[0]])
    path = write_video(tmp_path / "long.avi", pictures[[0] * 5000 + [1] * 5000], rate=100)
    lengths = []
    original = predict.np.stack

    def stack(part, *others, **options):
        lengths.append(len(part))
        return original(part, *others, **options)

    monkeypatch.setattr(predict.np, "stack", stack)
    prediction = predict_one(shipped, path)
    assert prediction["seconds"] == 100.0 and max(lengths) == 30
    spans = [(window["start"], window["end"]) for window in prediction["windows"]]
    assert spans[:2] == [(0.0, 3.0), (1.5, 4.5)] and spans[-1][1] == 100.0
    assert all(b[0] <= a[1] for a, b in itertools.pairwise(spans))
    alone = call(shipped, [clips.read(path, rate=10.0)[:30]], [10.0])
    first = prediction["windows"][0]
    assert first["activity"] == alone["activity"][0].decode()
    assert first["probability"] == pytest.approx(alone["probabilities"].max(), abs=1e-3)


@pytest.mark.parametrize("count", [1, 6, 7, 8, 11, 12, 13, 30])
def test_windows_cover_every_frame_and_are_few(count):
    parts = list(predict.windows(iter(range(count)), longest=6, window=4))
    assert [frames[0] for _, frames in parts] == [start for start, _ in parts]
    assert sorted({frame for _, frames in parts for frame in frames}) == list(range(count))
    assert len(parts) == (1 if count <= 6 else -(-(count - 4) // 2) + 1)


def test_a_single_frame_is_a_clip(tmp_path, shipped):
    path = write_video(tmp_path / "one.avi", body("waving", 1)[:1], rate=25)
    assert clips.read(path, rate=12.5).shape == (1, SIDE, SIDE, 3)
    prediction = predict_one(shipped, path)
    assert prediction["activity"] in shipped.settings["labels"]
    assert prediction["seconds"] == 1 / shipped.settings["frame_rate"]


# --- events ---------------------------------------------------------------------------------------


def test_windows_are_obeyed_at_any_length():
    split = dict(longest=12, window=4, whole=False)
    assert [len(part) for _, part in predict.windows(range(6), **split)] == [4, 4]
    assert [start for start, _ in predict.windows(range(9), hop=1, **split)] == [0, 1, 2, 3, 4, 5]
    assert [start for start, _ in predict.windows(range(9), hop=4, **split)] == [0, 4, 8]
    assert [len(part) for _, part in predict.windows(range(2), **split)] == [2]


def test_events_are_written_as_a_table_and_as_subtitles(shipped, tmp_path, capsys):
    version = str(shipped.path)
    pictures = np.concatenate([body("waving", 1), body("standing up", 1)])
    path = write_video(tmp_path / "long.avi", pictures, rate=RATE)
    words = ["--model", version, str(path), "--window", "1", "--hop", "0.5", "--threshold", "0"]
    predict.main([*words, "--events", str(tmp_path / "a.csv"), "--json"])
    prediction = json.loads(capsys.readouterr().out)
    spans = [(window["start"], window["end"]) for window in prediction["windows"]]
    assert spans[:2] == [(0.0, 1.0), (0.5, 1.5)]
    table = (tmp_path / "a.csv").read_text().splitlines()
    assert table[0] == "clip,start,end,activity,probability"
    assert len(table) == 1 + len(prediction["events"])
    assert prediction["events"][0]["start"] == 0.0
    assert prediction["events"][-1]["end"] == prediction["seconds"]
    predict.main([*words[:-1], "0.99999", "--events", str(tmp_path / "a.srt")])
    assert "none of these" in capsys.readouterr().out
    assert (tmp_path / "a.srt").read_text().count("-->") < len(prediction["events"]) + 1


def test_a_camera_is_read_window_by_window(shipped, monkeypatch, tmp_path, capsys):
    path = write_video(tmp_path / "a.avi", np.repeat(body("waving", 1), 2, axis=0), rate=RATE)
    opened = []

    def open_camera(library, number):
        opened.append(number)
        return library.open(str(path))

    monkeypatch.setattr(clips, "_open_camera", open_camera)
    predict.main(["--model", str(shipped.path.parent), "--webcam", "2", "--window", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert opened == [2] and len(lines) == 4 and all("camera 2" in line for line in lines)


def test_a_missing_camera_is_told(shipped):
    with pytest.raises(InputError, match=r"camera 77 cannot be opened|cameras are not supported"):
        next(clips.read_frames(77, rate=10.0))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.avi", "--hop", "9"], "--hop must not exceed --window"),
        (["a.avi", "--events", "a.txt"], "--events must end in .csv or .srt, got 'a.txt'"),
        (["a.avi", "b.avi", "--events", "a.srt"], "subtitles are of one clip"),
        (["a.avi", "--webcam", "0"], "--webcam takes no files"),
        (["a.avi", "--workers", "2", "--events", "a.csv"], "--workers takes no --webcam, no --ev"),
        (["a.avi", "--threshold", "1.5"], "--threshold must be in [0, 1)"),
    ],
)
def test_flags_of_events_are_checked(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    commands.check_refused(predict.main, ["--model", "gone", *words], message, capsys, monkeypatch)


def test_load_answers_one_clip_and_several(shipped, tmp_path):
    clip = write_clip(tmp_path / "a.mp4")
    model = load(shipped.path)
    activity = model(str(clip))
    expected = predict_one(shipped, clip)
    assert activity.probabilities == pytest.approx(expected["probabilities"], abs=1e-5)
    assert [one.path for one in model([clip, clip])] == [clip, clip]
    assert activity.label in (*shipped.settings["labels"], "none of these")
