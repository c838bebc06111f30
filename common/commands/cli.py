"""The habits that all commands share: flags from a config dataclass, messages, results, output."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from common.commands.config import PredictConfig, RunConfig, jsonable
from common.errors import ExportError, InputError, TrainingError
from common.files import open_output
from common.training.distribution import is_lost_worker

import tensorflow as tf
import tyro

C = TypeVar("C", bound="RunConfig")


def parse_train(
    config: type[C], presets: Mapping[str, C], *, default: str, argv: list[str], doc: str
) -> C:
    """Parses a `train` command: `--dataset NAME` picks the preset, the other flags override it.

    Args:
      config: the task's dataclass.
      presets: a config per data set.
      default: the preset where neither `--dataset` nor `--data` is given; the settings of
        `--data` are also its own.
      argv: the words behind the program's name.
      doc: printed on top of `--help`.

    Raises:
      InputError: an unknown data set, or values that the config refuses.
    """
    name = _flag(argv, "dataset")
    if name is not None and name not in presets:
        raise InputError(f"no data set {name!r}; known: {', '.join(presets)}")
    start = presets[name or default]
    if name is None and _flag(argv, "data") is not None:
        start = dataclasses.replace(start, dataset=None)
    return tyro.cli(config, default=start, args=argv, description=doc, prog=_program())


def parse(config: type[C], argv: list[str], doc: str, *, command: str = "") -> C:
    """Parses the flags of `evaluate` or `predict`; `command` is the word before them, if any."""
    program = _program()
    prog = f"{program} {command}" if program and command else program
    return tyro.cli(config, args=argv, description=doc, prog=prog)


def _program() -> str | None:
    """What the user typed, `python -m tasks.sentiment.train`, where Python knows it."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else None


def _flag(argv: list[str], name: str) -> str | None:
    for index, word in enumerate(argv):
        if word == f"--{name}" and index + 1 < len(argv):
            return argv[index + 1]
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
    return None


def run(main: Callable[[list[str]], None]) -> NoReturn:
    """Runs a command; ends the process with one clear message where a user can act on it.

    Exit codes: 0 done, 1 the run failed, 2 wrong input or flags, 130 stopped by Ctrl-C.
    """
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt as stop:
        _end(130, str(stop) or _to_go_on())
    except InputError as error:
        _end(2, str(error))
    except (TrainingError, ExportError, FileNotFoundError) as error:
        _end(1, str(error))
    except tf.errors.OpError as error:
        if not is_lost_worker(error):
            raise
        kept = "Finished epochs are kept: start all workers again with --resume."
        _end(1, f"another worker is lost. {kept}")
    except BrokenPipeError:  # the reader of our output went away, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _end(1, f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
    sys.exit(0)


def _to_go_on() -> str:
    """What Ctrl-C says of a command; of `train`, how to go on with it."""
    program = _program() or ""
    if not program.endswith(".train"):
        return "stopped."
    words = [word for word in sys.argv[1:] if word != "--resume"]
    again = f"{program} {shlex.join([*words, '--resume'])}"
    return f"stopped. Finished epochs are kept; to go on:\n  {again}"


def _end(code: int, message: str) -> NoReturn:
    sys.stdout.flush()
    print(f"error: {message}" if code != 130 else f"\n{message}", file=sys.stderr)
    sys.exit(code)


def print_result(result: Mapping[str, Any]) -> None:
    """Prints the last line of `train` and `evaluate`: one JSON object."""
    print(json.dumps(jsonable(result)), flush=True)


def print_scored(
    task: str,
    dataset: str,
    split: str,
    examples: int,
    seconds: float,
    model: Path,
    metrics: Mapping[str, Any],
) -> None:
    """Prints the last line of `train` and `evaluate`, whose fields come in this order."""
    print_result(
        {
            "task": task,
            "dataset": dataset,
            "split": split,
            "examples": examples,
            "seconds": round(seconds, 3),
            "model": model,
            **metrics,
        }
    )


def print_answers(
    flags: PredictConfig,
    answers: Iterable[dict[str, Any]],
    *,
    to_line: Callable[[dict[str, Any]], str],
) -> dict[str, Any]:
    """Prints a `predict` command's answers as they come; gives the first one, for a picture.

    Args:
      flags: say where to, and whether for programs.
      answers: as plain values, which is how programs get them.
      to_line: one answer for a person.

    Raises:
      InputError: there is no answer, since nothing was asked.
    """
    first = None
    as_json = flags.json or flags.output is not None
    with open_output(flags.output) as out:
        for said in answers:
            first = said if first is None else first
            line = json.dumps(jsonable(said), ensure_ascii=False) if as_json else to_line(said)
            print(line, file=out)
    if first is None:
        raise InputError("nothing was asked: the input is empty")
    return first


def say(message: str) -> None:
    """Tells the person at the terminal what happens; kept apart from results."""
    print(message, file=sys.stderr, flush=True)


def input_lines(words: Iterable[str]) -> Iterator[str]:
    """Yields what a `predict` command is asked about; the word `-` stands for standard input.

    Invalid UTF-8 on standard input is replaced, as the exports themselves do.
    """
    for word in words:
        if word == "-":
            for line in sys.stdin.buffer:
                yield line.decode("utf-8", errors="replace").rstrip("\r\n")
        else:
            yield word
