"""Settings shared by the `train`, `evaluate` and `predict` commands of all tasks.

Each dataclass is the documentation of its flags: a field's docstring is its help text. Settings are
checked when they are made, so a wrong flag is reported before anything runs.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import os
import random
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from common.errors import InputError
from common.files import read_lines
from common.serving import TargetName
from common.training import StrategyName

import tyro

# Settings that may change when a run is resumed: they do not affect the weights.
NOT_IN_CHECKPOINT = (
    *("output", "resume", "score", "manual_dir", "data_dir", "verbose", "target"),
    *("workers", "cluster", "max_failures", "callbacks", "checkpoint_minutes"),
)
# Settings that name folders of the machine that trains.
PLACES = ("output", "manual_dir", "data_dir")
PICTURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".eps", ".ps")


@dataclasses.dataclass(frozen=True)
class Check:
    """A condition on the value of a field, written in the type of the field.

    Attributes:
      require: receives the name of the flag and the value; raises `InputError` if it is invalid.
    """

    require: Callable[[str, Any], None]


def _require(condition: Callable[[Any], bool], valid: str) -> Check:
    def require(flag: str, value: Any) -> None:
        if not condition(value):
            raise InputError(f"{flag} must be {valid}, got {value}")

    return Check(require)


def require_picture(path: Path, flag: str) -> None:
    """Refuse a path where no picture can be written.

    Args:
      path: the file.
      flag: named in the message.

    Raises:
      InputError: the ending is unknown, or the folder is missing or cannot be written.
    """
    if path.suffix.lower() not in PICTURES:
        known = ", ".join(PICTURES)
        raise InputError(f"{flag} {path}: no picture format ends in {path.suffix!r}; use {known}")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"{flag} {path}: the file cannot be written; is {path.parent} a folder?")


@dataclasses.dataclass(frozen=True)
class Range:
    """The values of a field that `tune` tries, written in the type of the field.

    Attributes:
      low: the lowest value.
      high: the highest value.
      log: whether values are drawn evenly on a logarithmic scale.
    """

    low: float
    high: float
    log: bool = False

    def draw(self, generator: random.Random) -> float:
        """Return a random value of three digits, which a person can type."""
        if self.log:
            value = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = generator.uniform(self.low, self.high)
        return float(f"{value:.3g}")


@dataclasses.dataclass(frozen=True)
class Choice:
    """The few values of a field that `tune` tries, written in the type of the field."""

    values: tuple[int | float | str, ...]

    def draw(self, generator: random.Random) -> int | float | str:
        """Return one of the values."""
        return generator.choice(self.values)


def ranges(config: type) -> dict[str, Range | Choice]:
    """Return the fields of a config that `tune` searches, with their values."""
    return {
        name: note
        for name, hint in get_type_hints(config, include_extras=True).items()
        if get_origin(hint) is Annotated
        for note in get_args(hint)[1:]
        if isinstance(note, Range | Choice)
    }


# Types of fields; `Settings` runs their checks when it is made.
Count = Annotated[int, _require(lambda value: value >= 1, "1 or more")]
Fraction = Annotated[float, _require(lambda value: 0.0 <= value < 1.0, "in [0, 1)")]
Positive = Annotated[float, _require(lambda value: value > 0, "positive")]
Picture = Annotated[Path, Check(lambda flag, value: require_picture(value, flag))]  # to draw
# The same types with the values that `tune` tries.
LearningRate = Annotated[Positive, Range(5e-4, 1e-2, log=True)]
BatchSize = Annotated[Count, Choice((8, 16, 32, 64, 128))]
Dropout = Annotated[Fraction, Range(0.0, 0.6)]
Smoothing = Annotated[Fraction, Range(0.0, 0.2)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings whose values are checked by the types of their fields, such as `Count`."""

    def __post_init__(self) -> None:
        """Check the values; make whole numbers floats where the field is a float."""
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            value = getattr(self, name)
            is_optional = get_origin(hint) in (Union, types.UnionType)
            for kind in get_args(hint) if is_optional else (hint,):
                kind, *notes = get_args(kind) if get_origin(kind) is Annotated else (kind,)
                # Python takes a whole number where a float is meant; TensorFlow may not.
                if kind is float and isinstance(value, int):
                    object.__setattr__(self, name, float(value))
                for check in notes:
                    if isinstance(check, Check) and value is not None:
                        check.require(f"--{name}", value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """Settings shared by every `train` command."""

    dataset: str | None = None
    """name of the data set; its preset sets the defaults of all other flags"""
    data: Path | None = None
    """your own file or folder instead of a data set (formats: see the README of the task)"""
    manual_dir: Path | None = None
    """folder of files that you downloaded by hand; tried before the network"""
    data_dir: Path | None = None
    """folder of prepared data sets (default: that of tensorflow-datasets)"""
    output: Path = Path("saved_models")
    """the export is written to OUTPUT/<task>/<n>/, checkpoint and logs to OUTPUT/<task>/run/"""
    epochs: Count = 20
    """maximum number of passes over the training data"""
    patience: Count = 5
    """stop after this many epochs without improvement of the validation score"""
    batch_size: Count = 32
    """examples per step, over all devices together"""
    learning_rate: Positive = 1e-3
    """peak learning rate"""
    clip_norm: Positive = 5.0
    """largest norm of the gradients; larger ones are scaled down"""
    average: Fraction = 0.998
    """momentum of the moving average of the weights, which is scored and exported; 0 for none"""
    seed: int = 1
    """seed of all random numbers"""
    deterministic: bool = False
    """use kernels that repeat bit by bit (slower)"""
    resume: bool = False
    """continue an interrupted run after its last checkpoint"""
    checkpoint_minutes: Positive = 10.0
    """minutes between two checkpoints inside an epoch; each epoch ends with one"""
    init: Path | None = None
    """start from this published model; its vocabulary and architecture are kept"""
    strategy: StrategyName = "one"
    """one device; a copy on each device of this machine; the machines of TF_CONFIG; a TPU"""
    workers: Count = 1
    """processes that train together, each on its cores; they are started here (extra [cluster])"""
    cluster: str | None = None
    """address of the Ray cluster of the workers, or auto (default: this machine alone)"""
    max_failures: Annotated[int, _require(lambda value: value >= 0, "0 or more")] = 3
    """how often the workers are started again from the last checkpoint after one is lost"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """number format of the computation; weights and outputs stay float32"""
    target: TargetName = "portable"
    """device of the export: portable = any CPU or GPU; gpu = a GPU with cuDNN layers (needs a GPU
    to be made); tpu = a TPU, with static shapes; litert = small devices (sentiment)"""
    score: Literal["validation", "test", "none"] = "validation"
    """split on which the export is scored; use 'test' only for the final run"""
    callbacks: tuple[str, ...] = ()
    """functions MODULE:FUNCTION, each of which returns a Keras callback, such as that of Weights &
    Biases or MLflow; every worker calls them"""
    verbose: Literal[0, 1, 2] = 1
    """0 = silent, 1 = progress bar (in a pipe or file as 2), 2 = one line per epoch"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        _require_one_source(self.dataset, self.data)
        for name in self.callbacks:
            if not re.fullmatch(r"[\w.]+:\w+", name):
                raise InputError(f"--callbacks {name}: expected MODULE:FUNCTION")
        if self.workers > 1:
            if self.strategy not in ("one", "multiworker"):
                raise InputError(f"--workers {self.workers} is not for --strategy {self.strategy}")
            object.__setattr__(self, "strategy", "multiworker")
        elif self.cluster is not None:
            raise InputError("--cluster needs --workers 2 or more")

    def with_architecture(self, published: Mapping[str, Any], names: Iterable[str]) -> Self:
        """Return these settings with those of a published model that its weights demand.

        Args:
          published: the settings of the published model. A setting that did not exist then gets its
            default, which is the earlier behaviour.
          names: the settings that shape the weights.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        values = {name: published.get(name, defaults[name]) for name in names}
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return dataclasses.replace(self, **values)

    def fit_arguments(self) -> dict[str, Any]:
        """Return the options of `common.training.fit.fit` that come from the flags alone."""
        names = ["epochs", "patience", "clip_norm", "average", "resume", "verbose"]
        names.append("checkpoint_minutes")
        options = {name: getattr(self, name) for name in names}
        if not sys.stdout.isatty():  # Keras' bar would write colours and carriage returns
            options["verbose"] = 2 if self.verbose else 0
        callbacks = [make_callback(name) for name in self.callbacks]
        return {**options, "settings": self.checkpoint_settings(), "callbacks": callbacks}

    def checkpoint_settings(self) -> dict[str, Any]:
        """Return the settings that a resumed run must share with the interrupted one."""
        settings = jsonable(dataclasses.asdict(self))
        return {name: settings[name] for name in settings if name not in NOT_IN_CHECKPOINT}

    def published_settings(self) -> dict[str, Any]:
        """Return the settings that are published with a model, without places of this machine."""
        settings = jsonable(dataclasses.asdict(self))
        settings = {name: value for name, value in settings.items() if name not in PLACES}
        for name in ("data", "init"):
            if settings[name] is not None:
                settings[name] = without_place(settings[name])
        return settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Settings):
    """Settings shared by every `evaluate` command."""

    model: Path | None = None
    """version folder, or a task's folder (its newest version); default: saved_models/<task>"""
    dataset: str | None = None
    """data set to score on (default: the one that the model was trained on)"""
    data: Path | None = None
    """your own file or folder to score on"""
    split: Literal["train", "validation", "test"] = "test"
    """split to score; a single file given by --data is scored whole"""
    manual_dir: Path | None = None
    """folder of files that you downloaded by hand; tried before the network"""
    data_dir: Path | None = None
    """folder of prepared data sets (default: that of tensorflow-datasets)"""
    batch_size: Count = 64
    """examples per request"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        _require_one_source(self.dataset, self.data)

    def or_trained_on(self, settings: Mapping[str, Any]) -> Self:
        """Return these settings, with the data of the model's training where they name none.

        Args:
          settings: the settings of the export.
        """
        if self.data is not None or self.dataset is not None:
            return self
        trained = settings["training_data"]
        own = None if trained["data"] is None else Path(trained["data"])
        return dataclasses.replace(self, dataset=trained["dataset"], data=own)

    def new_data(self, settings: Mapping[str, Any]) -> Path | None:
        """Return the path given by `--data`, unless the model was trained on it.

        New data is scored whole. The data of the training is split as it was then, so that only its
        test part is scored.

        Args:
          settings: the settings of the export.
        """
        if self.data is None:
            return None
        trained = settings["training_data"]["data"]
        known = trained is not None and self.data.resolve() == Path(trained)
        return None if known else self.data

    def new_file(self, settings: Mapping[str, Any]) -> Path | None:
        """Return the path of `new_data` if it is a file; a folder may hold one file per split."""
        path = self.new_data(settings)
        return path if path is not None and path.is_file() else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictConfig(Settings):
    """Settings shared by every `predict` command."""

    model: Path | None = None
    """version folder, or a task's folder (its newest version); default: saved_models/<task>"""
    output: Path | None = None
    """write to this file instead of standard output"""
    json: bool = False
    """print one JSON object per line"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchPredictConfig(PredictConfig):
    """Settings of a `predict` command that reads many inputs."""

    INPUTS: ClassVar[str] = "file"  # the field that holds the files
    PART: ClassVar[str] = ".jsonl"  # the ending of the output of a file

    batch_size: Count = 64
    """inputs per request"""
    workers: Count = 1
    """processes that predict files in parallel, each into its part of the folder --output; * in
    file names is expanded, and files with a part are skipped (extra [cluster])"""
    cluster: str | None = None
    """address of the Ray cluster of the workers, or auto (default: this machine alone)"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        if self.cluster is not None and self.workers == 1:
            raise InputError("--cluster needs --workers 2 or more")

    @classmethod
    def place(cls) -> list[str]:
        """Return the words before the name of a file on the command line."""
        return [f"--{cls.INPUTS}"] if cls.INPUTS == "file" else []  # others are positional


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextPredictConfig(BatchPredictConfig):
    """Settings of a `predict` command that reads texts."""

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    """texts; - reads lines from standard input"""
    file: tuple[Path, ...] = ()
    """text files with one text per line"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        if not self.texts and not self.file:
            raise InputError("no text given: write it on the command line, or pass --file PATH")

    def read_file(self, path: Path) -> Iterator[str]:
        """Yield the texts of one file."""
        yield from (line for _, line in read_lines(path))

    def read_texts(self) -> Iterator[str]:
        """Yield all texts in order, without holding them in memory.

        Invalid UTF-8 on the command line or on standard input is replaced.
        """
        for text in self.texts:
            if text == "-":
                for line in sys.stdin.buffer:
                    yield line.decode("utf-8", errors="replace").rstrip("\r\n")
            else:  # Python reads invalid bytes as surrogates, which nothing can encode
                yield text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        for path in self.file:
            yield from self.read_file(path)


def make_callback(name: str) -> Any:
    """Return the Keras callback that the function `MODULE:FUNCTION` makes.

    The module is searched for in the working folder, too.

    Raises:
      InputError: there is no such function, or it returns no callback.
    """
    import keras

    module, _, function = name.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:  # the console script
        sys.path.append(os.getcwd())
    try:
        made = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise InputError(f"--callbacks {name}: {error}") from error
    if not isinstance(made, keras.callbacks.Callback):
        raise InputError(f"--callbacks {name}: it returns no keras.callbacks.Callback but {made!r}")
    return made


def without_place(path: str) -> str:
    """Return an absolute path by its last two names, as others may find it; else the path.

    Example:
      >>> without_place("/home/ada/saved_models/ner/1"), without_place("my/reviews.csv")
      ('ner/1', 'my/reviews.csv')
    """
    place = Path(path)
    return str(Path(*place.parts[1:][-2:])) if place.is_absolute() else path


def _require_one_source(dataset: str | None, data: Path | None) -> None:
    if data is not None and dataset is not None:
        raise InputError("give --dataset or --data, not both")


def jsonable(value: Any) -> Any:
    """Return `value` with the paths, tuples and NumPy scalars in it as JSON has them.

    Example:
      >>> jsonable({"path": Path("a"), "pair": (1, 2)})
      {'path': 'a', 'pair': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") else value
