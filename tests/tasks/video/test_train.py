"""The `train` command: its export, fine-tuning, resuming, and invalid flags."""

import json

from common.serving.served import load_export
from tasks.video import clips, train
from tests.tasks import commands
from tests.tasks.own.video import RATE, TINY, body
from tests.tasks.video.samples import call, noise

import numpy as np
import pytest


def test_train_learns_exports_and_prints_one_json_line(trained):
    folder, done = trained
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result)[:6] == ["task", "dataset", "split", "examples", "seconds", "model"]
    assert result["task"] == "video" and result["dataset"] == "clips" and result["examples"] == 18
    assert result["accuracy"] >= 0.85 and result["macro_f1"] >= 0.8
    version = folder / result["model"]
    assert version == folder / "saved_models" / "video" / "1"
    commands.check_version(version, f"{result['accuracy']:.4f}", "| units | 16 |")
    assert not (folder / "saved_models" / "video" / "run" / "clips").exists()


@pytest.mark.slow  # the same test of sentiment is not
def test_fine_tuning_replaces_the_head(trained, command_environment):
    folder, _ = trained
    for label in ("bowing", "waving"):
        (folder / "more" / label).mkdir(parents=True)
        for person in range(12):
            path = folder / "more" / label / f"{person}.mp4"
            path.write_bytes(clips.encode(body(label, person), RATE))
    done = commands.run(
        *("video.train", "--data", "more", "--init", "saved_models/video/1", "--epochs", 2),
        *("--output", "tuned", "--score", "none", "--units", 5, *TINY[:2]),
        folder=folder,
        environment=command_environment,
    )
    assert done.returncode == 0, done.stderr
    tuned = load_export(folder / "tuned" / "video")
    assert tuned.settings["labels"] == ["bowing", "waving"]
    assert tuned.settings["config"]["units"] == 16  # of the published model
    assert call(tuned, [body("bowing", 3)], [RATE])["probabilities"].shape == (1, 2)


@pytest.mark.slow  # the same tests of ner and of the loop itself are not
def test_training_killed_in_an_epoch_resumes_to_the_same_weights(trained, command_environment):
    folder = trained[0] / "resumed"
    folder.mkdir()
    words = ["--data", "../clips", "--epochs", 8, "--patience", 99, *TINY, "--deterministic"]
    words += ["--score", "none"]
    place = {"folder": folder, "environment": command_environment}
    commands.check_resumed_training("video", *words, **place)


@pytest.mark.slow  # the same test of sentiment is not
def test_bfloat16_and_mirrored_training_export_float32(trained, command_environment):
    words = ["--data", "clips", "--epochs", 2, "--score", "none", "--output", "bfloat16", *TINY]
    words += ["--precision", "bfloat16", "--strategy", "mirrored"]
    done = commands.run("video.train", *words, folder=trained[0], environment=command_environment)
    assert done.returncode == 0, done.stderr
    low = load_export(trained[0] / "bfloat16" / "video")
    outputs = call(low, [body("waving", 1), noise(3)], [RATE, 30.0])
    assert outputs["probabilities"].dtype == np.float32
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "ucf"], "no data set 'ucf'; known: gaits, hdm05"),
        (["--dataset", "gaits+fights"], "'gaits+fights': 'fights' cannot be mixed; known: gaits, "),
        (["--dataset", "gaits+gaits"], "'gaits+gaits': gaits is given twice"),
        (["--channels", "12"], "--channels must be multiples of 8"),
        (["--image_size", "50"], "--image_size must be a multiple of 16"),
        (["--zoom", "1"], "--zoom must be in [0, 1)"),
        (["--colours", "0"], "--colours must be positive, got 0"),
        (["--changes", "-1"], "--changes must be 0 or more, got -1"),
        (["--pose_weight", "-1"], "--pose_weight must be 0 or more, got -1"),
        (["--pose_weight", "2"], "--pose_weight needs --frame joints"),
        (
            ["--frame", "joints", "--pose_weight", "2"],
            "--pose_weight needs clips with known joints: --dataset hdm05, hdm05_views, ",
        ),
        (
            ["--data", "clips", "--frame", "joints", "--pose_weight", "2"],
            "--pose_weight needs clips with known joints",
        ),
        (
            ["--frame", "joints", "--channels", "8"],
            "--frame joints needs --backbone own and two or more --channels",
        ),
        (["--group", "a"], "--group needs --data"),
        (["--data", "a", "--group", "("], "--group is no regular expression"),
        (["--backbone", "mobilenet_v3"], "--backbone mobilenet_v3 and --backbone_weights PATH go"),
        (["--backbone_weights", "gone.h5"], "--backbone mobilenet_v3 and --backbone_weights"),
        (
            ["--backbone", "mobilenet_v3", "--backbone_weights", "gone.h5"],
            "gone.h5: no such file; --backbone_weights needs one",
        ),
        (["--dataset", "hdm05", "--pose"], "--pose and the pixels of 'hdm05' do not fit together"),
        (["--data", "gone"], "gone: no such folder; expected a folder with a folder of clips"),
    ],
)
def test_an_invalid_flag_gives_a_one_line_error(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    commands.check_refused(train.main, words, message, capsys, monkeypatch)
