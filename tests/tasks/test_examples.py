"""The command `examples`: seven inputs, and what the models in the repository answer to them."""

import importlib
import json
import time
import types

from common.errors import ExportError
from common.serving.versions import SHIPPED
from tasks import __main__ as front
from tasks import examples
from tasks.sentiment import Rating

import pytest


def test_there_is_an_example_for_each_task():
    assert sorted(examples.ASK) == sorted(front.TASKS)


def test_answers_are_printed_and_failures_do_not_stop_the_others(tmp_path, monkeypatch, capsys):
    places = []

    def load(path):
        places.append(path)
        rating = Rating("", "1", 1, {"1": 0.75, "2": 0.25})
        return Double(rating, types.SimpleNamespace(path=path / "3"))

    class Double:
        def __init__(self, result, served):
            self.result, self.served = result, served

        def __call__(self, _):
            return self.result

    monkeypatch.setattr(importlib.import_module("tasks.sentiment"), "load", load)
    with pytest.raises(ExportError, match=r"^1 of 2 examples failed: ner$"):
        front.main(["examples", "ner", "sentiment", "--models", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"ner          error: {tmp_path}/ner holds no published model")
    assert lines[1] == "sentiment    There is nothing to like in this movie."
    assert lines[2].startswith("             -> 1 star (75.0 %, ")
    assert places == [tmp_path / "sentiment"]
    result = json.loads(lines[3])
    assert (len(lines), result["right"]) == (4, 1)
    failed, answered = result["examples"]
    assert failed["task"] == "ner" and "holds no published model" in failed["error"]
    assert answered["model"] == str(tmp_path / "sentiment" / "3") and answered["is_right"]
    assert answered["confidence"] == 0.75 and answered["milliseconds"] >= 0


@pytest.mark.commands
def test_the_models_in_the_repository_answer_all_seven(tmp_path, capsys):
    models, output = tmp_path / "models", tmp_path / "output"
    for task in front.TASKS:  # version 1 alone: a clone may hold newer ones of its user
        (models / task).mkdir(parents=True)
        (models / task / "1").symlink_to(SHIPPED / task / "1")
    start = time.process_time()  # not of the clock, which other tests slow down
    front.main(["examples", "--models", str(models), "--output", str(output)])
    assert time.process_time() - start < 60
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["task"] for row in result["examples"] if not row["is_right"]] == []
    assert result["right"] == 7
    assert all(0 < row["confidence"] <= 1 for row in result["examples"])
    assert {path.name for path in output.iterdir()} == {
        *("fox.wav", "running.mp4", "melody.mid", "melody.png", "melody.wav")
    }
