"""The habits that all commands share: flags from a config dataclass, messages, results, output."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, Self, TextIO, TypeVar

from common.data import InputError
from common.export import ExportError
from common.training import TrainingError

import tyro

C = TypeVar("C", bound="RunConfig")

# The settings of a run that may change when it is resumed: they do not touch the weights.
NOT_IN_CHECKPOINT = ("output", "resume", "score", "manual_dir", "data_dir", "verbose")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every `train` command is told beside its task's own settings."""

    dataset: str | None = None
    """name of the data set; its preset gives the default of every other flag"""
    data: Path | None = None
    """your own file or folder instead of a data set (forms: see the task's README)"""
    manual_dir: Path | None = None
    """folder with files you have downloaded by hand; tried before the network"""
    data_dir: Path | None = None
    """where prepared data sets are kept (default: tensorflow-datasets' own folder)"""
    output: Path = Path("saved_models")
    """the export lands in OUTPUT/<task>/<n>/, checkpoint and logs in OUTPUT/<task>/run/"""
    epochs: int = 20
    """at most so many passes over the training data"""
    patience: int = 5
    """stop after so many epochs without a better validation score"""
    batch_size: int = 32
    """examples a step, over all devices together"""
    learning_rate: float = 1e-3
    """peak learning rate"""
    seed: int = 1
    """one seed for everything random"""
    deterministic: bool = False
    """kernels that repeat bit by bit (slower)"""
    resume: bool = False
    """go on from the last finished epoch of an interrupted run"""
    init: Path | None = None
    """start from this published model: its vocabulary and architecture are kept"""
    strategy: Literal["one", "mirrored"] = "one"
    """one device, or a copy on each device of this machine"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """number format of the computation; weights and answers stay float32"""
    target: Literal["portable"] = "portable"
    """what the export runs on: portable = any CPU or GPU"""
    score: Literal["validation", "test", "none"] = "validation"
    """split on which the export is scored; 'test' only for a final run"""
    verbose: Literal[0, 1, 2] = 1
    """0 = silent, 1 = progress bar, 2 = a line an epoch"""

    def __post_init__(self) -> None:
        """Checks what no type can say."""
        if self.data is not None and self.dataset is not None:
            raise InputError("give --dataset or --data, not both")
        for name in ("epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be 1 or more, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise InputError(f"--learning_rate must be positive, got {self.learning_rate}")

    def checkpoint_settings(self) -> dict[str, Any]:
        """The settings that a resumed run must share with the interrupted one."""
        settings = jsonable(dataclasses.asdict(self))
        return {name: settings[name] for name in settings if name not in NOT_IN_CHECKPOINT}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What every `evaluate` command is told."""

    model: Path | None = None
    """a version folder, or a task's folder (its newest version); default: saved_models/<task>"""
    dataset: str | None = None
    """data set to score on (default: the one the model was trained on)"""
    data: Path | None = None
    """your own file or folder to score on"""
    split: Literal["train", "validation", "test"] = "test"
    """which part of it; a single file given by --data is scored whole"""
    manual_dir: Path | None = None
    """folder with files you have downloaded by hand; tried before the network"""
    data_dir: Path | None = None
    """where prepared data sets are kept (default: tensorflow-datasets' own folder)"""
    batch_size: int = 64
    """examples a request"""

    def __post_init__(self) -> None:
        """Checks what no type can say."""
        if self.data is not None and self.dataset is not None:
            raise InputError("give --dataset or --data, not both")

    def or_trained_on(self, trained: Mapping[str, Any]) -> Self:
        """These flags; where they name no data, with the data that the model was trained on.

        Args:
          trained: `training_data` of the export's settings.
        """
        if self.data is not None or self.dataset is not None:
            return self
        own = None if trained["data"] is None else Path(trained["data"])
        return dataclasses.replace(self, dataset=trained["dataset"], data=own)

    def scores_whole_file(self, trained: Mapping[str, Any]) -> bool:
        """Whether all of a single file is to be scored.

        A file that the model was trained on is not: it is dealt into splits as it was then.
        """
        if self.data is None or not self.data.is_file():
            return False
        return trained["data"] is None or self.data.resolve() != Path(trained["data"]).resolve()


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
    return tyro.cli(config, default=start, args=argv, description=doc)


def parse(config: type[C], argv: list[str], doc: str) -> C:
    """Parses the flags of `evaluate` or `predict`."""
    return tyro.cli(config, args=argv, description=doc)


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
    except KeyboardInterrupt:
        _end(130, "stopped. Finished epochs of a training run are kept: add --resume to go on.")
    except InputError as error:
        _end(2, str(error))
    except (TrainingError, ExportError, FileNotFoundError) as error:
        _end(1, str(error))
    except BrokenPipeError:  # the reader of our output went away, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _end(1, f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
    sys.exit(0)


def _end(code: int, message: str) -> NoReturn:
    sys.stdout.flush()
    print(f"error: {message}" if code != 130 else f"\n{message}", file=sys.stderr)
    sys.exit(code)


def print_result(result: Mapping[str, Any]) -> None:
    """Prints the last line of `train` and `evaluate`: one JSON object."""
    print(json.dumps(jsonable(result)), flush=True)


def jsonable(value: Any) -> Any:
    """Turns paths, tuples and NumPy scalars inside `value` into what JSON has."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") else value


def say(message: str) -> None:
    """Tells the person at the terminal what happens; kept apart from results."""
    print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def open_output(path: Path | None) -> Iterator[TextIO]:
    """Opens `--output`, or standard output; a file appears whole or not at all."""
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    partial = path.with_name(f"{path.name}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            yield file
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


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
