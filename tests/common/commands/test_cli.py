"""Flags, messages, exit codes and output of every command."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
import types

from common.commands import cli
from common.commands.config import PredictConfig, RunConfig
from common.errors import ExportError, InputError, TrainingError
from common.files import open_output

import numpy as np
import pytest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    units: int = 4
    noise: float = 0.5


@pytest.fixture(autouse=True)
def no_subcommand(monkeypatch):
    """Tests of other files may have run a subcommand in this process."""
    monkeypatch.setattr(cli, "_subcommand", [])


PRESETS = {
    "small": Config(dataset="small", units=8, epochs=3),
    "large": Config(dataset="large", units=512, learning_rate=0.5),
}


def parse(*words):
    return cli.parse_train(Config, PRESETS, default="small", argv=list(words), doc="Train.")


def test_a_data_set_selects_its_preset_and_flags_override_it():
    assert parse() == PRESETS["small"]
    assert parse("--dataset", "large") == PRESETS["large"]
    assert parse("--dataset=large", "--units", "7").units == 7
    assert parse("--dataset=large", "--units", "7").learning_rate == 0.5


@pytest.mark.parametrize("words", [["--dataset", "b+a"], ["--dataset=b+a"]])
def test_any_mixture_has_the_preset_of_the_named_one(words):
    presets = PRESETS | {"a+b": Config(dataset="a+b", units=5)}

    def read(*words):
        return cli.with_mixture(presets, words, like="a+b", mixable=["a", "b"])

    added = read("--epochs", "3", *words)
    assert added == presets | {"b+a": Config(dataset="b+a", units=5)}
    for known in (["--dataset", "a+b"], ["--dataset", "small"], ["--dataset", "c"], []):
        assert read(*known) == presets
    with pytest.raises(InputError, match=r"'a\+small': 'small' cannot be mixed; known: a, b"):
        read("--dataset=a+small")


def test_a_whole_number_for_a_float_field_becomes_a_float():
    config = Config(noise=2, learning_rate=1, epochs=3)
    assert [type(value) for value in (config.noise, config.learning_rate)] == [float, float]
    assert (config.noise, config.learning_rate, type(config.epochs)) == (2.0, 1.0, int)


def test_the_preset_of_own_data_may_follow_from_the_data(tmp_path):
    def own(first):
        return Config(units=len(first.data.name), noise=first.noise)

    def parse_own(*words):
        return cli.parse_train(Config, PRESETS, default="small", own=own, argv=[*words], doc="")

    config = parse_own("--data", str(tmp_path / "abc"), "--noise", "0.2", "--epochs", "2")
    assert (config.units, config.noise, config.epochs, config.dataset) == (3, 0.2, 2, None)
    assert parse_own("--data", str(tmp_path / "abc"), "--units", "9").units == 9
    assert parse_own() == PRESETS["small"]


def test_own_data_starts_from_the_default_preset_without_its_data_set(tmp_path):
    config = parse("--data", str(tmp_path))
    assert config.dataset is None and config.data == tmp_path and config.units == 8


def test_underscores_and_hyphens_both_work():
    assert parse("--learning_rate", "0.1") == parse("--learning-rate", "0.1")


def test_the_command_of_a_card_names_no_place_of_this_machine(monkeypatch):
    words = ["--dataset", "btc", "--manual_dir", "/home/ada/btc", "--data-dir=/home/ada/tfds"]
    words += ["--output", "/tmp/x", "--resume", "--init", "/home/ada/saved_models/ner/1"]
    words += ["--data=/home/ada/my.conll", "--epochs", "3", "--callbacks", "a b:c"]
    monkeypatch.setattr(sys, "argv", ["/home/ada/clone/tasks/ner/train.py", *words])
    shown = "--dataset btc --init ner/1 --data=ada/my.conll --epochs 3 --callbacks 'a b:c'"
    for program, expected in (
        ("python -m tasks.ner.train", f"python -m tasks.ner.train {shown}"),
        (None, f"python tasks/ner/train.py {shown}"),
        ("python -m notebook", ""),
    ):
        monkeypatch.setattr(cli, "_program", lambda program=program: program)
        assert cli.command_line() == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "huge"], "no data set 'huge'; known: small, large"),
        (["--dataset", "large", "--data", "x"], "not both"),
        (["--epochs", "0"], "--epochs must be 1 or more, got 0"),
        (["--learning_rate", "0"], "--learning_rate must be positive"),
        (["--batch_size", "0"], "--batch_size must be 1 or more, got 0"),
    ],
)
def test_invalid_flags_are_refused(words, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", *words])
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda argv: parse(*argv))
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_a_resumed_run_may_change_paths_but_not_the_model():
    one = parse("--output", "a", "--resume", "--verbose", "0").checkpoint_settings()
    assert one == parse("--output", "b").checkpoint_settings()
    assert one != parse("--units", "9").checkpoint_settings()
    json.dumps(one)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("no header", "a.csv", 1), 2, "error: a.csv, line 1: no header"),
        (TrainingError("the loss is nan"), 1, "error: the loss is nan"),
        (ExportError("no signature"), 1, "error: no signature"),
        (FileNotFoundError("no model yet"), 1, "error: no model yet"),
        (OSError(28, "No space left on device", "x/y"), 1, "error: No space left on device: x/y"),
        (KeyboardInterrupt(), 130, "stopped.\n"),
        (KeyboardInterrupt("the page is closed"), 130, "\nthe page is closed\n"),
    ],
)
def test_a_failure_is_one_message_and_an_exit_code(error, code, message, capsys, monkeypatch):
    def main(_):
        raise error

    monkeypatch.setattr(sys, "argv", ["train"])
    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    assert stop.value.code == code
    assert message in capsys.readouterr().err


def test_sigterm_stops_a_command_as_ctrl_c_does(capsys, monkeypatch):
    done = []

    def main(_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(9)
        finally:
            done.append("cleaned up")

    monkeypatch.setattr(sys, "argv", ["train"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as stop:
            cli.run(main)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stop.value.code == 143 and done == ["cleaned up"]
    assert capsys.readouterr().err == "\nstopped.\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_error_that_a_signal_caused_is_told_as_the_signal(number, code, capsys, monkeypatch):
    def main(_):
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        finally:  # as TensorFlow does where its tracing of a function is interrupted
            raise AssertionError("Concurrent access?")

    monkeypatch.setattr(sys, "argv", ["train"])
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored after `&`
    try:
        with pytest.raises(SystemExit) as stop:
            cli.run(main)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert stop.value.code == code
    assert capsys.readouterr().err == "\nstopped.\n"


@pytest.mark.parametrize(
    "words", [["--data", "my films.csv"], ["--data", "my films.csv", "--resume"]]
)
def test_ctrl_c_prints_the_command_that_resumes(words, capsys, monkeypatch):
    def main(_):
        raise KeyboardInterrupt

    module = types.SimpleNamespace(__spec__=types.SimpleNamespace(name="tasks.sentiment.train"))
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.setattr(sys, "argv", ["train", *words])
    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    assert stop.value.code == 130
    assert capsys.readouterr().err == (
        "\nstopped. Finished epochs are kept; to resume:\n"
        "  python -m tasks.sentiment.train --data 'my films.csv' --resume\n"
    )


@pytest.mark.parametrize(("verbose", "in_a_pipe"), [(0, 0), (1, 2), (2, 2)])
def test_a_progress_bar_is_for_a_terminal(verbose, in_a_pipe, monkeypatch):
    for is_terminal, expected in ((True, verbose), (False, in_a_pipe)):
        stream = io.StringIO()
        stream.isatty = lambda is_terminal=is_terminal: is_terminal
        monkeypatch.setattr(sys, "stdout", stream)
        assert Config(verbose=verbose).fit_arguments()["verbose"] == expected


PRINTS = """
import sys
from common.commands import cli
from common.errors import InputError
def main(words):
    for number in range(int(words[0])):
        print("row", number)
    if words[1:]:
        raise InputError(words[1])
cli.run(main)
"""


BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def print_to(output, *words):
    """Return the exit code and the messages of a command that prints rows."""
    line = [sys.executable, "-c", PRINTS, *words]
    options = {"stdout": output, "stderr": subprocess.PIPE, "text": True, "env": BUFFERED}
    done = subprocess.run(line, check=False, **options)
    return done.returncode, done.stderr


# The first row fits into the buffer, which is written at the end; 100,000 rows do not.
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [(["1"], 1, ""), (["100000"], 1, ""), (["1", "no header"], 2, "error: no header\n")],
)
def test_a_reader_that_has_gone_is_no_error(words, code, message):
    reader, writer = os.pipe()
    os.close(reader)
    assert print_to(writer, *words) == (code, message)
    os.close(writer)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_at_the_end_is_one_message():
    with open("/dev/full", "w") as full:
        assert print_to(full, "1") == (1, "error: No space left on device\n")


def test_an_unexpected_error_keeps_its_traceback(monkeypatch):
    def main(_):
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["train"])
    with pytest.raises(ZeroDivisionError):
        cli.run(main)


def test_results_are_one_line_of_plain_json(capsys, tmp_path):
    cli.print_result({"model": tmp_path, "f1": np.float32(0.5), "n": np.int64(3), "l": ("a",)})
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"model": str(tmp_path), "f1": 0.5, "n": 3, "l": ["a"]}


def test_output_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "out"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), open_output(path) as file:
        file.write("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["out"]
    with open_output(path) as file:
        file.write("whole")
    assert path.read_text() == "whole" and os.listdir(tmp_path) == ["out"]


def test_scores_have_their_fields_in_a_fixed_order(capsys, tmp_path):
    scored = cli.Scored(examples=7, seconds=1.23456, metrics={"f1": 0.5})
    cli.print_result(cli.to_result("ner", "mine.conll", "all", scored, tmp_path))
    line = json.loads(capsys.readouterr().out)
    assert list(line) == ["task", "dataset", "split", "examples", "seconds", "model", "f1"]
    assert line["seconds"] == 1.235 and line["examples"] == 7


def test_predictions_are_lines_for_a_person_and_json_in_a_file(capsys, tmp_path):
    predictions = [{"label": "é"}, {"label": "b"}]
    first = cli.print_predictions(PredictConfig(), iter(predictions), to_line=lambda p: p["label"])
    assert first == {"label": "é"} and capsys.readouterr().out == "é\nb\n"
    out = tmp_path / "out.jsonl"
    cli.print_predictions(PredictConfig(output=out), predictions, to_line=str)
    assert out.read_text(encoding="utf-8") == '{"label": "é"}\n{"label": "b"}\n'
    with pytest.raises(InputError, match="the input is empty"):
        cli.print_predictions(PredictConfig(output=out), [], to_line=str)
    assert out.read_text(encoding="utf-8").startswith('{"label": "é"}')  # the old file is kept
