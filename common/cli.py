"""The habits that all commands share: flags from a config dataclass, messages, results, output."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, Self, TextIO, TypeVar

from common import export
from common.data import InputError
from common.distribution import StrategyName, is_lost_worker
from common.export import ExportError
from common.targets import TargetName
from common.training import TrainingError

import tensorflow as tf
import tyro

C = TypeVar("C", bound="RunConfig")

# The settings of a run that may change when it is resumed: they do not touch the weights.
NOT_IN_CHECKPOINT = ("output", "resume", "score", "manual_dir", "data_dir", "verbose", "target")


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
    clip_norm: float = 5.0
    """gradients are scaled down to this norm"""
    average: float = 0.998
    """momentum of the moving average of the weights that is measured and exported; 0 for none"""
    seed: int = 1
    """one seed for everything random"""
    deterministic: bool = False
    """kernels that repeat bit by bit (slower)"""
    resume: bool = False
    """go on from the last finished epoch of an interrupted run"""
    init: Path | None = None
    """start from this published model: its vocabulary and architecture are kept"""
    strategy: StrategyName = "one"
    """one device; a copy on each device of this machine; on the machines of TF_CONFIG; on a TPU"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """number format of the computation; weights and answers stay float32"""
    target: TargetName = "portable"
    """what the export runs on: portable = any CPU or GPU; gpu = a GPU, with cuDNN's layers (made
    where one is); tpu = a TPU, with static shapes inside; litert = small devices (sentiment)"""
    score: Literal["validation", "test", "none"] = "validation"
    """split on which the export is scored; 'test' only for a final run"""
    verbose: Literal[0, 1, 2] = 1
    """0 = silent, 1 = progress bar (in a pipe or file as 2), 2 = a line an epoch"""

    def __post_init__(self) -> None:
        """Checks what no type can say; makes whole numbers floats where a float is meant."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            # Python takes a whole number where a float is meant; TensorFlow may not.
            if field.type in ("float", float) and isinstance(value, int):
                object.__setattr__(self, field.name, float(value))
        if self.data is not None and self.dataset is not None:
            raise InputError("give --dataset or --data, not both")
        self.require_counts("epochs", "patience", "batch_size")
        self.require_shares("average")
        self.require_positive("learning_rate", "clip_norm")

    def require_counts(self, *names: str) -> None:
        """Refuses settings below 1."""
        self._require(names, lambda value: value >= 1, "1 or more")

    def require_shares(self, *names: str) -> None:
        """Refuses settings that are no share of something, 1 excluded."""
        self._require(names, lambda value: 0.0 <= value < 1.0, "in [0, 1)")

    def require_positive(self, *names: str) -> None:
        """Refuses settings of 0 and less."""
        self._require(names, lambda value: value > 0, "positive")

    def _require(self, names: Iterable[str], good: Callable[[Any], bool], what: str) -> None:
        for name in names:
            if not good(getattr(self, name)):
                raise InputError(f"--{name} must be {what}, got {getattr(self, name)}")

    def with_published(self, names: Iterable[str]) -> Self:
        """These settings; for `--init` with those of the published model that its weights demand.

        Args:
          names: of the settings that shape the weights.
        """
        if self.init is None:
            return self
        published = export.load(self.init).settings["config"]
        taken = {name: published[name] for name in names}
        taken = {k: tuple(v) if isinstance(v, list) else v for k, v in taken.items()}
        return dataclasses.replace(self, **taken)

    def run_folder(self, task: str, worker: int = 0) -> Path:
        """Where a run's checkpoint and logs live; made if it is not there.

        Args:
          task: the folder of its versions.
          worker: those that are not the chief have a folder inside for what they prepare.
        """
        folder = self.output / task / "run"
        if worker:
            folder /= f"worker-{worker}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def fit_arguments(self) -> dict[str, Any]:
        """The arguments of `common.training.fit` that come from the flags alone."""
        names = ("epochs", "patience", "clip_norm", "average", "resume", "verbose")
        chosen = {name: getattr(self, name) for name in names}
        if not sys.stdout.isatty():  # where Keras' bar would leave its colours and carriage returns
            chosen["verbose"] = 2 if self.verbose else 0
        return {**chosen, "settings": self.checkpoint_settings()}

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What every `predict` command is told."""

    model: Path | None = None
    """a version folder, or a task's folder (its newest version); default: saved_models/<task>"""
    output: Path | None = None
    """write here instead of to standard output"""
    json: bool = False
    """print one JSON object a line"""


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
