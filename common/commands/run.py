"""The start of every `train`: where the run computes, what it starts from, where it writes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from common.commands.config import RunConfig
from common.datasets import Corpus
from common.errors import InputError
from common.files import hash_files, make_public_folder
from common.serving import targets, versions
from common.serving.targets import Target
from common.serving.versions import Published
from common.start_up import start_runtime, without_lines
from common.training import checkpoint, distribution
from common.training.fit import FitOptions, set_up, warmed_cosine

from etils import epy

with epy.lazy_imports():
    import keras
    import tensorflow as tf

C = TypeVar("C", bound=RunConfig)


@dataclasses.dataclass(frozen=True)
class Run(Generic[C]):
    """One training run.

    Attributes:
      task: name of the task.
      config: the settings; with `--init`, the architecture is that of the published model.
      strategy: the devices; see `common.training.distribution`.
      target: the device of the export; see `common.serving.targets`.
      published: the model given by `--init`.
    """

    task: str
    config: C
    strategy: tf.distribute.Strategy
    target: Target
    published: Published | None = None

    @property
    def folder(self) -> Path:
        """The folder of checkpoint, logs and vocabularies; made if missing, locked until the end.

        Raises:
          InputError: another process trains in it.
        """
        folder = self.config.output / self.task / "run"
        make_public_folder(folder.parent)  # versions are published there
        if worker := distribution.worker_index(self.strategy):
            folder /= f"worker-{worker}"  # other workers never write to the chief's files
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.lock(folder)
        return folder

    def chief_first(self) -> contextlib.AbstractContextManager[None]:
        """Run the block on the chief first, then on the other workers; for preparing data."""
        return distribution.chief_first(self.strategy)

    def steps(self, examples: int) -> int:
        """Return the number of steps of all epochs over this number of training examples."""
        return math.ceil(examples / self.config.batch_size) * self.config.epochs

    def fit_options(
        self, steps: int, corpus: Corpus, vocabularies: Sequence[Path] = ()
    ) -> FitOptions:
        """Return the options of `common.training.fit.fit`.

        Args:
          steps: number of steps of the run.
          corpus: the data; a run resumes only on the same.
          vocabularies: the files in the run's folder that were made from the data.
        """
        fingerprints = {
            "training data": corpus.fingerprint(),
            "labels": json.dumps(corpus.labels),
            "vocabulary": hash_files(vocabularies, self.folder),
        }
        return FitOptions(
            directory=self.folder,
            strategy=self.strategy,
            steps=steps,
            fingerprints=fingerprints,
            **self.config.fit_arguments(),
        )

    def make_adam(self, steps: int, **options: Any) -> keras.optimizers.Adam:
        """Return an Adam optimizer whose learning rate follows `warmed_cosine` over the run.

        Args:
          steps: number of steps of the run.
          **options: further arguments of `keras.optimizers.Adam`.
        """
        return keras.optimizers.Adam(
            warmed_cosine(self.config.learning_rate, steps=steps), **options
        )


def start_run(
    task: str,
    config: C,
    *,
    architecture: Iterable[str],
    lengths: Callable[[C], Sequence[int]] = lambda config: (),
    no_litert: str | None = targets.NO_LITERT,
) -> Run[C]:
    """Start a training run: connect its devices, seed it, and find the model of `--init`.

    Args:
      task: name of the task.
      config: the settings.
      architecture: settings that `--init` takes from the published model, since its weights demand
        them.
      lengths: the lengths of an export with static shapes, from the final settings.
      no_litert: why the task has no LiteRT export; None if it has one.

    Raises:
      InputError: the devices are missing, or the published model is of another task.
      FileNotFoundError, ExportError: there is no published model at `--init`.
    """
    published = None if config.init is None else versions.find(config.init, task)
    if published is not None:
        if not (published.path / versions.ARCHITECTURE).is_file():
            raise InputError(
                f"--init {published.path}: this version holds no {versions.ARCHITECTURE} (LiteRT "
                "exports and those of earlier releases have none). Pass another version."
            )
        config = config.with_architecture(published.settings["config"], architecture)
    with without_lines():
        target = targets.choose(config.target, task, lengths(config), no_litert=no_litert)
        strategy = distribution.make_strategy(config.strategy)
        start_runtime()
    set_up(seed=config.seed, deterministic=config.deterministic, precision=config.precision)
    return Run(task, config, strategy, target, published)


def warm_start(
    model: keras.Model,
    published: Published,
    *,
    head: str | None = None,
    done: Collection[str] = (),
) -> None:
    """Copy the weights of a published model into a new model of the same architecture.

    Args:
      model: the new model.
      published: the model given by `--init`.
      head: prefix of the layers that keep their own weights, where the classes differ. None: all
        weights are copied.
      done: names of layers that have their weights already.
    """
    for layer in model.layers:
        if layer.name in done:
            continue
        if layer.weights and (head is None or not layer.name.startswith(head)):
            layer.set_weights(published.model.get_layer(layer.name).get_weights())


def same_labels(published: Published, labels: Sequence[Any], *, name: str = "labels") -> bool:
    """Return whether a published model has these labels, in this order."""
    return list(published.settings[name]) == list(labels)
