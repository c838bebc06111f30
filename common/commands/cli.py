"""Command lines: flags from a config dataclass, messages, exit codes, and output."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from common.commands import cluster
from common.commands.config import (
    PLACES,
    BatchPredictConfig,
    PredictConfig,
    RunConfig,
    jsonable,
    without_place,
)
from common.datasets import parts_of
from common.errors import ExportError, InputError, TrainingError
from common.files import open_output
from common.messages import say

import tyro

__all__ = ["Scored", "command_line", "parse", "parse_train", "print_predictions", "print_result"]
__all__ += ["TRAINED_ON", "run", "run_subcommand", "say", "to_result", "with_datasets"]

C = TypeVar("C")
R = TypeVar("R", bound=RunConfig)

SCRIPT = "sequence-suite"  # the console script that setup.cfg names
TRAINED_ON = "that of the model's training"  # the default of `--dataset` in `evaluate`
_subcommand: list[str] = []  # words after the program's name, such as "ner" and "train"


@dataclasses.dataclass(frozen=True)
class Scored:
    """The score of an export on a split.

    Attributes:
      examples: the number of scored examples.
      seconds: the time of scoring.
      metrics: the metrics by name.
    """

    examples: int
    seconds: float
    metrics: dict[str, float]


def parse_train(
    config: type[R],
    presets: Mapping[str, R],
    *,
    default: str,
    argv: list[str],
    doc: str | None,
    own: Callable[[R], R] | None = None,
) -> R:
    """Parse a `train` command: `--dataset NAME` selects the preset, other flags override it.

    With `--workers` the workers are started, and the process ends when they have.

    Args:
      config: the task's dataclass.
      presets: a config per data set.
      default: name of the preset used without `--dataset`.
      argv: the words after the program's name.
      doc: printed at the top of `--help`.
      own: returns the preset of the user's own data, given the settings of a first parse, such as
        the path; None: the preset of `default`.

    Raises:
      InputError: an unknown data set, or values that the config refuses.
    """
    name = _flag(argv, "dataset")
    if name is not None and name not in presets:
        raise InputError(f"no data set {name!r}; known: {', '.join(presets)}")
    start = presets[name or default]
    doc = with_datasets(doc, presets, default)
    if name is None and _flag(argv, "data") is not None:
        if own is None:
            start = dataclasses.replace(start, dataset=None)
        else:
            first = tyro.cli(config, default=config(), args=argv, description=doc, prog=_program())
            start = own(first)
    parsed = tyro.cli(config, default=start, args=argv, description=doc, prog=_program())
    if parsed.workers > 1 and "TF_CONFIG" not in os.environ:
        cluster.run_workers(
            [*_words_after_python(), *argv],
            parsed.workers,
            address=parsed.cluster,
            max_failures=parsed.max_failures,
        )
        sys.exit(0)
    return parsed


def with_mixture(
    presets: Mapping[str, R], argv: Sequence[str], *, like: str, mixable: Sequence[str]
) -> Mapping[str, R]:
    """Return the presets, and one for the mixture of data sets that a command line names.

    Args:
      presets: a config per data set.
      argv: the words after the program's name.
      like: name of the mixture whose preset any other one has.
      mixable: the data sets that can be mixed.

    Raises:
      InputError: a part of the mixture is unknown or given twice.
    """
    name = _flag(argv, "dataset")
    if name is None or "+" not in name or name in presets:
        return presets
    parts_of(name, mixable)
    return {**presets, name: dataclasses.replace(presets[like], dataset=name)}


def with_datasets(doc: str | None, names: Iterable[str], default: str) -> str:
    """Return the text at the top of `--help`, followed by the names that `--dataset` accepts.

    Example:
      >>> with_datasets("Score it.", ["btc", "wnut17"], TRAINED_ON).splitlines()[-1]
      "Data sets for --dataset: btc, wnut17 (default: that of the model's training)."
    """
    return f"{doc}\n\nData sets for --dataset: {', '.join(names)} (default: {default})."


def parse(config: type[C], argv: list[str], doc: str | None) -> C:
    """Parse the flags of any other command.

    With `--workers` of a `predict` command the files are predicted, and the process ends.
    """
    parsed = tyro.cli(config, args=argv, description=doc, prog=_program())
    if isinstance(parsed, BatchPredictConfig) and parsed.workers > 1:
        from common.commands.predict_files import predict_files

        predict_files(_module_of(config), parsed)
        sys.exit(0)
    return parsed


def parse_first(config: type[C], argv: list[str], doc: str | None) -> tuple[C, list[str]]:
    """Parse the flags of a command that passes all other words on to another command.

    Returns:
      The flags, and the other words.
    """
    parsed, words = tyro.cli(
        config, args=argv, description=doc, prog=_program(), return_unknown_args=True
    )
    return parsed, words


def _module_of(config: type) -> str:
    """Return the name under which the module of a command's flags is imported."""
    if config.__module__ != "__main__":
        return config.__module__
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return main.__spec__.name
    assert main.__file__ is not None  # `python tasks/ner/predict.py`
    return ".".join(Path(main.__file__).resolve().with_suffix("").parts[-3:])


def run_subcommand(
    name: Sequence[str], main: Callable[[list[str]], None], argv: Sequence[str]
) -> None:
    """Run a command whose name are the first words of the command line, such as `ner train`."""
    _subcommand[:] = name
    main([*argv])


def _program() -> str | None:
    """Return the words typed, `python -m tasks.sentiment.train`, where Python knows them."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        program = f"python -m {spec.name.removesuffix('.__main__')}"
    elif Path(sys.argv[0]).stem == SCRIPT:
        program = SCRIPT
    else:
        return None
    return " ".join([program, *_subcommand])


def _words_after_python() -> list[str]:
    """Return the words after `python` that run this command, without its flags."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = [sys.argv[0]] if spec is None else ["-m", spec.name.removesuffix(".__main__")]
    return [*program, *_subcommand]


def command_line() -> str:
    """Return the command that was typed, as somebody else may type it; "" for a call from Python.

    Flags that name folders of this machine or only resume the run are left out, and of other
    absolute paths the last names are kept.
    """
    program = _program() or f"python {'/'.join(Path(sys.argv[0]).parts[-3:])}"
    if not program.removesuffix(".py").endswith("train"):
        return ""
    words, typed = [], iter(sys.argv[1 + len(_subcommand) :])
    for word in typed:
        name, equals, value = word.partition("=")
        flag = name.removeprefix("--").replace("-", "_") if name.startswith("--") else ""
        if flag in PLACES:
            if not equals:
                next(typed, None)
        elif flag != "resume":
            words.append(name + equals + without_place(value) if equals else without_place(word))
    return f"{program} {shlex.join(words)}".rstrip()


def _flag(argv: Sequence[str], name: str) -> str | None:
    for index, word in enumerate(argv):
        if word == f"--{name}" and index + 1 < len(argv):
            return argv[index + 1]
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
    return None


def run(main: Callable[[list[str]], None]) -> NoReturn:
    """Run a command; end the process with one clear message where a user can act on it.

    Exit codes: 0 done, 1 the run failed, 2 wrong input or flags, 130 stopped by Ctrl-C, 143 by
    SIGTERM, which servers and schedulers send.
    """
    _signals.clear()
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as after `&`
        signal.signal(signal.SIGINT, _stop)
    try:
        _run_until_signal(main)
        _flush()
    except KeyboardInterrupt as stop:
        _end(STOPPED[type(stop)], str(stop) or _how_to_resume())
    except InputError as error:
        _end(2, str(error))
    except (TrainingError, ExportError, FileNotFoundError) as error:
        _end(1, str(error))
    except BrokenPipeError:  # the reader of our output has gone, as in `| head`
        _drop_output()
        sys.exit(1)
    except OSError as error:
        _end(1, f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
    except Exception as error:
        if not _is_lost_worker(error):
            raise
        advice = "Finished epochs are kept: start all workers again with --resume."
        _end(1, f"another worker is lost. {advice}")
    sys.exit(0)


class Terminated(KeyboardInterrupt):
    """SIGTERM was received; it stops a command in the way of Ctrl-C."""


STOPPED = {KeyboardInterrupt: 130, Terminated: 143}  # the exit codes of shells: 128 + signal
_signals: list[type[KeyboardInterrupt]] = []  # the received ones


def _stop(number: int, _: Any) -> NoReturn:
    """Stop the command; Python calls this in the main thread, between two operations."""
    _signals.append(Terminated if number == signal.SIGTERM else KeyboardInterrupt)
    raise _signals[-1]


def _run_until_signal(main: Callable[[list[str]], None]) -> None:
    """Run a command; whatever ends it after a signal is the signal's doing.

    TensorFlow raises errors of its own where a signal interrupts its tracing of a function.
    """
    try:
        main(sys.argv[1:])
    except Exception as error:
        if _signals:
            raise _signals[0] from error
        raise


def _is_lost_worker(error: Exception) -> bool:
    """Return whether TensorFlow lost the connection to another worker."""
    if "tensorflow" not in sys.modules:
        return False
    from common.training.distribution import is_lost_worker

    return is_lost_worker(error)


def _how_to_resume() -> str:
    """Return the message of a stopped command, with the command that resumes it if there is one."""
    program = _program() or ""
    if not program.endswith((".train", " train", ".tune", " tune")):
        return "stopped."
    words = [word for word in sys.argv[1 + len(_subcommand) :] if word != "--resume"]
    again = f"{program} {shlex.join([*words, '--resume'])}"
    return f"stopped. Finished epochs are kept; to resume:\n  {again}"


def _flush() -> None:
    """Write what is left of the output: Python would do so at exit, and print a failure there."""
    if sys.stdout is not None:  # closed, as by `>&-`
        sys.stdout.flush()


def _drop_output() -> None:
    """Drop the output that cannot be written, so that Python does not try again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end(code: int, message: str) -> NoReturn:
    try:
        _flush()
    except OSError:  # its reader has gone, or the disk is full
        _drop_output()
    is_stopped = code in STOPPED.values()
    print(f"\n{message}" if is_stopped else f"error: {message}", file=sys.stderr)
    sys.exit(code)


def print_result(result: Mapping[str, Any]) -> None:
    """Print the last line of a command: one JSON object."""
    print(json.dumps(jsonable(result)), flush=True)


def to_result(task: str, dataset: str, split: str, scored: Scored, model: Path) -> dict[str, Any]:
    """Return the result of `train` and `evaluate`, with its fields in a fixed order."""
    return {
        "task": task,
        "dataset": dataset,
        "split": split,
        "examples": scored.examples,
        "seconds": round(scored.seconds, 3),
        "model": model,
        **scored.metrics,
    }


def print_predictions(
    flags: PredictConfig,
    predictions: Iterable[dict[str, Any]],
    *,
    to_line: Callable[[dict[str, Any]], str],
) -> dict[str, Any]:
    """Print the predictions of a `predict` command as they come.

    Args:
      flags: where to print, and whether as JSON.
      predictions: plain values, which are the JSON objects.
      to_line: formats a prediction for a person.

    Returns:
      The first prediction, for a picture.

    Raises:
      InputError: there are no predictions, because the input is empty.
    """
    first = None
    as_json = flags.json or flags.output is not None
    with open_output(flags.output) as out:
        for prediction in predictions:
            first = prediction if first is None else first
            line = (
                json.dumps(jsonable(prediction), ensure_ascii=False)
                if as_json
                else to_line(prediction)
            )
            print(line, file=out)
        if first is None:  # an existing output file stays as it is
            raise InputError("the input is empty: there is nothing to predict")
    return first
