"""Settings shared by the `train`, `evaluate` and `predict` commands of all tasks."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from common.errors import InputError
from common.serving.served import load_export
from common.serving.targets import TargetName
from common.training.distribution import StrategyName

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
        self.require_fractions("average")
        self.require_positive("learning_rate", "clip_norm")

    def require_counts(self, *names: str) -> None:
        """Refuses settings below 1."""
        self._require(names, lambda value: value >= 1, "1 or more")

    def require_fractions(self, *names: str) -> None:
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
        published = load_export(self.init).settings["config"]
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
        """The arguments of `common.training.fit.fit` that come from the flags alone."""
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


def jsonable(value: Any) -> Any:
    """Turns paths, tuples and NumPy scalars inside `value` into what JSON has."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") else value
