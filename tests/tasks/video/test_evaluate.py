"""The `evaluate` command and its metrics."""

import json
from pathlib import Path

from common.errors import InputError
from tasks.video import clips, evaluate
from tests.tasks import commands
from tests.tasks.own.video import CLASSES, RATE, body
from tests.tasks.video.samples import make_folder

import pytest


def test_evaluate_scores_the_export_as_train_did(trained, command_environment):
    folder, done = trained
    expected = json.loads(done.stdout.splitlines()[-1])
    again = commands.run("video.evaluate", folder=folder, environment=command_environment)
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout.splitlines()[-1])
    for name in ("task", "dataset", "split", "examples", "accuracy", "macro_f1"):
        assert result[name] == expected[name]
    for label in CLASSES:  # the confusion table
        assert f"\n| {label} |" in again.stdout


def test_an_own_folder_is_scored_whole(shipped, tmp_path, capsys):
    wrong = {"waving": "standing up", "sitting down": "sitting down"}
    for folder, label in wrong.items():  # clips of one class lie in the folder of another
        (tmp_path / "mine" / folder).mkdir(parents=True)
        for person in range(50, 54):
            path = tmp_path / "mine" / folder / f"{person}.mp4"
            path.write_bytes(clips.encode(body(label, person), RATE))
    evaluate.main(["--model", str(shipped.path), "--data", str(tmp_path / "mine")])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["split"] == "all" and result["examples"] == 8 and result["dataset"] == "mine"
    assert result["accuracy"] <= 0.5
    (tmp_path / "mine" / "waving").rename(tmp_path / "mine" / "flying")
    with pytest.raises(InputError, match=r"mine/flying: unknown class; expected walking"):
        evaluate.main(["--model", str(shipped.path), "--data", str(tmp_path / "mine")])


def test_the_working_folder_is_scored_whole(shipped, tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "mine", **{label: ["a.mp4", "b.mp4"] for label in CLASSES})
    monkeypatch.chdir(folder)
    name, split, examples = evaluate.load_split(shipped, evaluate.Evaluate(data=Path(".")))
    assert (name, split, int(examples.cardinality())) == ("mine", "all", 6)


def test_the_folder_of_the_training_is_scored_on_its_test_split(served, trained):
    flags = evaluate.Evaluate(data=Path(served.settings["training_data"]["data"]))
    name, split, examples = evaluate.load_split(served, flags)
    assert (name, split, int(examples.cardinality())) == ("clips", "test", 18)


def test_metrics_are_fractions():
    result = evaluate.metrics([0, 4, 2, 2], [0, 3, 2, 0])
    assert result["accuracy"] == 0.5
    # F1 of 0: 2/3, of 2: 2/3, of 3 and 4: 0.
    assert result["macro_f1"] == pytest.approx(1 / 3)
