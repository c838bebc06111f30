"""The list of the tasks, and one command that trains them all."""

import dataclasses
import importlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import common
from common.commands import cli, report
from common.errors import InputError, TrainingError
from common.serving.versions import GRAPH, SHIPPED, card_scores
from tasks import __main__ as front
from tasks.ner import config as ner
from tests.tasks import commands
from tests.tasks.own import ner as own_ner
from tests.tasks.own import sentiment as own_sentiment

import pytest


def command(*words, folder, environment):
    line = [sys.executable, "-m", "tasks", *map(str, words)]
    return subprocess.run(
        line, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


# --- The list -------------------------------------------------------------------------------------


def test_the_list_shows_every_task_and_the_newest_score(capsys, tmp_path):
    (tmp_path / "sentiment").mkdir()
    (tmp_path / "sentiment" / "1").symlink_to(SHIPPED / "sentiment" / "1")
    card = (SHIPPED / "sentiment" / "1" / "model_card.md").read_text(encoding="utf-8")
    examples, accuracy = re.search(r"(?m)^\| validation \| (\d+) \| ([\d.]+) \|", card).groups()
    front.main(["--models", str(tmp_path), "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert tuple(row["task"] for row in rows) == front.TASKS
    row = rows[0]
    assert row["versions"] == [1] and row["data"] == "rated_texts"
    assert row["scores"]["split"] == "validation"
    assert (row["scores"]["examples"], row["scores"]["accuracy"]) == (examples, accuracy)
    assert rows[1]["versions"] == [] and rows[1]["data"] == f"{ner.DEFAULT} (default)"

    front.main(["--models", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and lines[0].split() == ["task", "data", "model", "score", "versions"]
    assert f"accuracy {accuracy} (validation)" in lines[1]


def test_an_empty_list_shows_the_training_command(tmp_path, capsys):
    front.main(["--models", str(tmp_path)])
    assert capsys.readouterr().out.endswith("yet: python -m tasks train --quick\n")


def test_scores_are_read_back_from_a_model_card(tmp_path):
    path = tmp_path / "model_card.md"
    shown = report.table([{"split": "test", "examples": 12, "wer": 0.25}])
    report.model_card(
        path,
        header={},
        title="T",
        summary="S",
        sections={"Scores": f"{shown}\n\nOf it."},
        settings={"a": 1},
    )
    assert card_scores(path) == {"split": "test", "examples": "12", "wer": "0.2500"}
    report.model_card(
        path,
        header={},
        title="T",
        summary="S",
        sections={"Scores": "Not scored."},
        settings={"a": 1},
    )
    assert card_scores(path) == {}


# --- Flags ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", front.TASKS)
def test_quick_settings_are_valid_and_smaller_than_the_defaults(task):
    module = importlib.import_module(f"tasks.{task}.config")
    words = front.Train(quick=True, resume=True).words(task)
    config = cli.parse_train(
        module.Config, module.PRESETS, default=module.DEFAULT, argv=words, doc=""
    )
    dataset = module.QUICK.get("dataset", module.DEFAULT)  # a part of the default data
    default = module.PRESETS[dataset]
    expected = dataclasses.replace(default, **module.QUICK, verbose=2, resume=True)
    assert config == dataclasses.replace(expected, output=front.QUICK_MODELS)
    assert config.epochs < default.epochs
    assert dataset in (*module.DEFAULT.split("+"), getattr(module, "OFFLINE", None))


def test_the_quick_run_has_a_folder_of_its_own():
    quick, default = front.Train(quick=True), front.Train()
    assert quick.words("ner")[:2] == ["--output", "quick_models"]
    assert default.words("ner")[:2] == ["--output", "saved_models"]
    assert "--quick --resume --output quick_models " in quick.resuming_command(["ner"])
    assert front.Train(quick=True, output=Path("own")).folder == Path("own")


@pytest.mark.parametrize("task", front.TASKS)
def test_the_command_that_calls_a_new_export_is_valid(task):
    words = shlex.split(front.calling_command(task, front.QUICK_MODELS))
    assert words[:3] == ["python", "-m", f"tasks.{task}.predict"]
    module = importlib.import_module(words[2])
    assert cli.parse(module.Predict, words[3:], doc="").model == Path("quick_models", task)
    assert "--model" not in front.calling_command(task, Path("saved_models"))


def test_flags_are_passed_on(tmp_path):
    words = front.Train(output=tmp_path, data_dir=tmp_path / "d", score="none").words("ner")
    assert words == [
        *("--output", str(tmp_path), "--score", "none", "--verbose", "2"),
        *("--data_dir", str(tmp_path / "d")),
    ]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--version"], 0, f"sequence-suite {common.__version__}"),
        (["ner", "predict", "--help"], 0, "usage: sequence-suite ner predict "),
        (["train", "--help"], 0, "usage: sequence-suite train "),
        (["ner"], 2, "error: ner needs a command: train, tune, evaluate, predict or push"),
        (
            ["ner", "guess"],
            2,
            "error: ner has no command 'guess'; use train, tune, evaluate, predict or push",
        ),
        (
            ["ner", "predict", "--model", "gone", "x"],
            1,
            "error: gone holds no published model (in /",
        ),
        (["trian"], 2, "error: no command 'trian'; use examples, train, demo, completion, sentim"),
    ],
)
def test_the_script_runs_the_commands(words, code, message, tmp_path, command_environment):
    script = Path(sys.executable).with_name("sequence-suite")
    done = subprocess.run(
        [script, *words],
        cwd=tmp_path,
        env=command_environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert (done.stderr if code else done.stdout).startswith(message)


def test_another_backend_of_keras_is_refused(command_environment):
    done = subprocess.run(
        [sys.executable, "-c", "import common"],
        env={**command_environment, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "ImportError: KERAS_BACKEND is 'jax', and this project needs tensorflow" in done.stderr


def test_wrong_commands_are_refused_without_colours(tmp_path, command_environment):
    with pytest.raises(InputError, match=r"no command 'trian'; use examples, train, .*ner.*, or"):
        front.main(["trian"])
    environment = {**command_environment, "PYTHONPATH": os.getcwd()}
    done = command("train", "--help", folder=tmp_path, environment=environment)
    assert done.returncode == 0 and done.stdout.startswith("usage: python -m tasks train ")
    assert "sequence-suite train --quick" in done.stdout and "\x1b" not in done.stdout
    done = command("train", "chess", folder=tmp_path, environment=environment)
    assert done.returncode == 2 and "invalid choice 'chess'" in done.stderr


# --- Training -------------------------------------------------------------------------------------


def test_the_output_of_a_task_is_split_into_lines_and_progress_bars():
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stream, os.fdopen(write, "wb") as target:
        target.write(b"10%\r\x1b[A20%\rEpoch 1/2\n\xff\nlast")
        target.close()
        lines = list(front.read_output(stream))
    assert lines == [
        *[("10%", False), ("20%", False), ("Epoch 1/2", True), ("\ufffd", True), ("last", True)]
    ]


def test_the_clock_runs_only_on_a_terminal(monkeypatch):
    for is_terminal, expected in ((False, ""), (True, "\r\x1b[K[00:00] ner 10%")):
        stream = io.StringIO()
        stream.isatty = lambda is_terminal=is_terminal: is_terminal
        monkeypatch.setattr(sys, "stderr", stream)
        clock = front.Clock(["ner", "dna"])
        clock.tick("ner", "10%")
        assert stream.getvalue() == expected
        clock.tick("dna", "20%")
        clock.tick("ner", "")
        assert stream.getvalue().endswith("[00:00] ner 10% | dna 20%" if is_terminal else "")
        clock.print_line("ner", "Epoch 1/2")
        assert stream.getvalue().endswith("[1/2 ner 00:00] Epoch 1/2\n")


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    """A folder in which `train` trains tiny models on the user's own files."""
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)
    own = {"sentiment": own_sentiment, "ner": own_ner}
    for module in own.values():
        module.write_data(tmp_path)
    monkeypatch.setattr(
        front.Train,
        "words",
        lambda _, task: [*map(str, own[task].TRAIN), "--output", str(tmp_path / "out")],
    )
    return tmp_path


@pytest.mark.commands
def test_a_failing_task_does_not_stop_the_others(own_data, monkeypatch, capsys):
    # Only ner needs this library, which cannot be imported.
    hidden = own_data / "hidden" / "seqeval"
    hidden.mkdir(parents=True)
    error = "ModuleNotFoundError(\"No module named 'seqeval'\", name='seqeval')"
    (hidden / "__init__.py").write_text(f"raise {error}\n")
    monkeypatch.setenv("PYTHONPATH", f"{hidden.parent}{os.pathsep}{os.environ['PYTHONPATH']}")
    with pytest.raises(TrainingError) as failed:
        front.train(["ner", "sentiment", "ner", "--output", "out"])
    assert str(failed.value) == (
        "1 of 2 tasks failed: ner. When that is fixed:\n"
        "  python -m tasks train --resume --output out --score validation ner"
    )
    printed = capsys.readouterr()
    result = json.loads(printed.out.splitlines()[-1])
    assert result["failed"] == ["ner"]
    ner, sentiment = result["tasks"]
    assert "pip install -e '.[ner]'" in ner["error"]
    version = own_data / "out" / "sentiment" / "1"
    assert sentiment["model"] == str(version) and sentiment["accuracy"] > 0.9
    files = [path for path in version.rglob("*") if path.is_file()]
    assert sentiment["size"] == sum(path.stat().st_size for path in files)
    assert 0 < sentiment["seconds"] < sentiment["wall_seconds"] <= result["seconds"]

    header, *rows = printed.out.splitlines()[:3]
    assert header.split() == ["task", "data", "metric", "score", "published", "time", "size"]
    assert "failed" in rows[0] and "pip install -e '.[ner]'" in rows[0]
    assert f"{sentiment['accuracy']:.3f}" in rows[1] and " MB" in rows[1]
    assert "[2/2 sentiment " in printed.err and "\x1b" not in printed.err + printed.out


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_quick_run_trains_all_seven_on_their_default_data(tmp_path, command_environment):
    environment = {**command_environment, "PYTHONPATH": os.getcwd()}
    done = command("train", "--quick", folder=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["failed"] == [] and [row["task"] for row in result["tasks"]] == [*front.TASKS]
    for row in result["tasks"]:
        assert front.METRICS[row["task"]] in row and row["split"] == "validation"
        assert (tmp_path / row["model"] / GRAPH).is_file()
        assert row["model"] == f"quick_models/{row['task']}/1"


def test_ctrl_c_names_all_tasks_that_are_not_trained(monkeypatch):
    def train_one(task, words, clock, running):
        if task == "dna":
            raise KeyboardInterrupt
        return {"task": task, **({"error": "no data"} if task == "ner" else {})}

    monkeypatch.setattr(front, "train_one", train_one)
    monkeypatch.setattr(front, "_use", lambda share: None)  # not the cores of this process
    with pytest.raises(
        KeyboardInterrupt, match=r"^stopped\. Finished .*\n.*--score validation ner dna$"
    ):
        front.train_side_by_side(["ner", "music", "dna"], front.Train())


def test_results_come_in_the_order_of_the_tasks(monkeypatch):
    def train_one(task, words, clock, running):
        return {"task": task}

    monkeypatch.setattr(front, "train_one", train_one)
    monkeypatch.setattr(front, "_use", lambda share: None)
    rows = front.train_side_by_side(["music", "dna"], front.Train(jobs=2))
    assert [row["task"] for row in rows] == ["music", "dna"]
    assert sorted(front.LONGEST_FIRST) == sorted(front.TASKS)


INTERRUPTED = """
from common.commands import cli
from tasks import __main__ as front
front.Train.words = lambda self, task: {words!r} + ["--resume"] * self.resume
cli.run(front.main)
"""


@pytest.mark.commands
@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_finished_epochs_and_prints_the_command_that_resumes(
    own_data, signal_number, code
):
    words = [*map(str, own_sentiment.TRAIN), "--output", "out", "--epochs", "2000"]
    words.remove("6")
    words.remove("--epochs")
    words += ["--patience", "2000"]
    line = [sys.executable, "-c", INTERRUPTED.format(words=words), "train", "sentiment", "ner"]
    line += ["--jobs", "1"]
    process = subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=own_data,
        preexec_fn=commands.heed_ctrl_c,
    )
    log = own_data / "out" / "sentiment" / "run" / "log.csv"
    deadline = time.time() + 240
    while not log.exists():
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.05)
    process.send_signal(signal_number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code and out == ""
    assert "stopped in sentiment. Finished epochs are kept; to resume:\n" in err
    assert err.endswith("--output saved_models --score validation --jobs 1 sentiment ner\n")
    assert "Traceback" not in err
    assert (log.parent / "checkpoint.npz").exists()
    finished = len(log.read_text().splitlines())
    time.sleep(2)
    assert len(log.read_text().splitlines()) == finished  # the task's process has ended, too
