"""Training: one loop for every task and every strategy, which can be killed and resumed.

`fit` of Keras fails with several workers (keras#20585), so this loop runs over `strategy.run`. It
drives the callback list of Keras, so every Keras callback works with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from common.errors import InputError, TrainingError
from common.training import checkpoint
from common.training.checkpoint import RunState
from common.training.distribution import gather, split_batch, trace_step, valid_rows, worker_index

import numpy as np
from etils import epy

with epy.lazy_imports():
    from common import rnn_kernels

    import keras
    import tensorflow as tf

Batch: TypeAlias = "Mapping[str, tf.Tensor]"
Losses: TypeAlias = "Callable[[Any, Batch], tuple[tf.Tensor, tf.Tensor]]"
# Batches of the validation data as NumPy, each with the outputs of the model.
Validated = Iterable[tuple[Mapping[str, np.ndarray], Any]]
# XLA compiles for seconds for each shape of a batch, and saves a third of a step.
SHORT_RUN = 500
READ_EVERY = 20  # steps
Score = Callable[[Validated], dict[str, float]]


def set_up(
    *, seed: int, deterministic: bool = False, precision: Literal["float32", "bfloat16"]
) -> None:
    """Seed Python, NumPy and TensorFlow, and set the precision of Keras; call before building.

    Args:
      seed: one seed for everything.
      deterministic: use kernels that repeat bit by bit; some are slower.
      precision: `bfloat16` computes in bfloat16 and keeps weights in float32.
    """
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    keras.config.set_dtype_policy(policy)


def warmed_cosine(
    peak: float, *, steps: int, warmup: float = 0.05
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return a learning rate that rises linearly, then falls to 0 along half a cosine.

    Args:
      peak: the highest rate.
      steps: the number of steps of the whole run.
      warmup: the fraction of the steps in which the rate rises.

    Example:
      >>> schedule = warmed_cosine(1e-3, steps=100)
      >>> [round(float(schedule(step)), 6) for step in (0, 5, 100)]
      [0.0, 0.001, 0.0]
    """
    rising = int(steps * warmup)
    return keras.optimizers.schedules.CosineDecay(
        0.0, steps - rising, warmup_target=peak, warmup_steps=rising
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Options of `fit` that do not depend on the model.

    Attributes:
      directory: the run's folder, for the checkpoint, `log.csv` and TensorBoard's events.
      epochs: maximum number of epochs.
      patience: stop after this many epochs without improvement.
      settings: JSON-able; a checkpoint resumes only under the same settings.
      fingerprints: what the model is made from -> its hash; a checkpoint resumes only on the same.
      steps: number of steps of all epochs; a run of fewer than `SHORT_RUN` is not compiled.
      resume: continue after the checkpoint in `directory`; without one, start anew.
      checkpoint_minutes: time between two checkpoints inside an epoch; each epoch ends with one.
      strategy: see `common.training.distribution`. Of several workers each calls `fit` with the
        same arguments. Only the chief writes to `directory`; the others start from its state.
      clip_norm: scale the gradients of all weights together down to this norm; None: never.
      average: momentum of an exponential moving average of the weights, which is then validated and
        kept (Polyak & Juditsky 1992); 0 keeps the weights themselves.
      callbacks: Keras callbacks; each worker runs its own.
      verbose: 0 silent, 1 progress bar, 2 one line per epoch; only the chief prints.
    """

    directory: Path
    epochs: int
    patience: int
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fingerprints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    steps: int | None = None
    resume: bool = False
    checkpoint_minutes: float = math.inf
    strategy: tf.distribute.Strategy | None = None
    clip_norm: float | None = None
    average: float = 0.0
    callbacks: Sequence[keras.callbacks.Callback] = ()
    verbose: int = 1


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The result of `fit`; the model holds the weights of the best epoch."""

    history: list[dict[str, float]]  # per epoch: loss, val_loss, the task's metrics, seconds
    best_epoch: int  # counted from 1
    seconds: float  # wall time of all epochs, including those before a resume


def fit(
    model: keras.Model,
    *,
    optimizer: keras.optimizers.Optimizer,
    losses: Losses,
    train: Callable[[int], tf.data.Dataset],
    validation: tf.data.Dataset,
    score: Score,
    monitor: str,
    mode: Literal["max", "min"],
    options: FitOptions,
) -> Fitted:
    """Fit a model, keep the best epoch by the task's own metric, and resume after a kill.

    Args:
      model: a functional model with a dict of named inputs, built under the strategy.
      optimizer: made under the strategy, without clipping (see `FitOptions.clip_norm`).
      losses: `(outputs, batch) -> (<float>[batch] losses, <float>[batch] weights)`. The loss of a
        step is the sum of the losses over the sum of the weights, both taken over all replicas, so
        that several devices compute the same as one. Losses come already weighted.
      train: `epoch (from 0) -> batches`; their order must follow from the epoch alone.
      validation: batches that are only evaluated.
      score: receives `(batch, outputs)` pairs as NumPy, returns the task's metrics by name.
      monitor: the metric of `score`, or `loss`, that selects the best epoch.
      mode: whether a larger or a smaller metric is better.
      options: see `FitOptions`.

    Raises:
      TrainingError: a loss that is not finite, or a checkpoint of other settings or shapes.
      InputError: no training or no validation examples.
    """
    strategy = options.strategy or tf.distribute.get_strategy()
    options.directory.mkdir(parents=True, exist_ok=True)
    averaged = _prepare_variables(model, optimizer, strategy, options.average)
    variables = {
        "model": [v.value for v in model.variables],
        "optimizer": [v.value for v in optimizer.variables],
        "average": averaged,
    }
    train_step = _make_train_step(model, optimizer, losses, strategy, options, averaged)
    test_step = _make_test_step(model, losses, strategy, options)
    state, best_weights = _start(model, variables, strategy, options)
    driver = _make_driver(model, strategy, options)
    model.stop_training = state.stopped
    driver.on_train_begin()
    start = time.perf_counter() - state.seconds

    def save() -> None:
        state.seconds = time.perf_counter() - start
        if worker_index(strategy) == 0:
            checkpoint.save(options.directory, state, variables, best_weights)

    for epoch in range(state.epoch, options.epochs):
        if model.stop_training:
            break
        driver.on_epoch_begin(epoch)
        logs = _train_epoch(train_step, train(epoch), strategy, driver, options, state, save)
        with _averaged_weights(model, averaged):
            metrics = _validate(test_step, validation, strategy, score)
            value = metrics[monitor]
            if state.best is None or (value > state.best if mode == "max" else value < state.best):
                state.best, state.best_epoch = value, epoch + 1
                best_weights = [v.numpy() for v in model.weights]
        logs |= {f"val_{name}": value for name, value in metrics.items()}
        driver.on_epoch_end(epoch, dict(logs))
        seconds = round(time.perf_counter() - start, 3)
        state.history.append({"epoch": epoch + 1, **logs, "seconds": seconds})
        state.epoch, state.step, state.loss = epoch + 1, 0, 0.0
        state.stopped = model.stop_training or epoch + 1 - state.best_epoch >= options.patience
        model.stop_training = state.stopped
        save()
    driver.on_train_end()
    for variable, weights in zip(model.weights, best_weights, strict=True):
        variable.assign(weights)
    return Fitted(state.history, state.best_epoch, state.seconds)


# --- The start ------------------------------------------------------------------------------------


def _prepare_variables(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    strategy: tf.distribute.Strategy,
    average: float,
) -> list[tf.Variable]:
    """Make the optimizer's variables; return those of the moving average, if there is one."""
    with strategy.scope():
        model.compile(optimizer=optimizer)
        optimizer.build(model.trainable_variables)
        averaged = model.trainable_variables if average else []
        return [tf.Variable(variable.value, trainable=False) for variable in averaged]


def _start(
    model: keras.Model,
    variables: checkpoint.Variables,
    strategy: tf.distribute.Strategy,
    options: FitOptions,
) -> tuple[RunState, list[np.ndarray]]:
    """Return the state from which the run starts, and its best weights so far."""
    state = RunState(json.loads(json.dumps(options.settings)), dict(options.fingerprints))
    best_weights = [v.numpy() for v in model.weights]
    if worker_index(strategy) == 0:
        if options.resume and checkpoint.exists(options.directory):
            state, best_weights = checkpoint.restore(options.directory, state, variables)
        else:
            checkpoint.clear(options.directory)
    return checkpoint.follow_chief(state, variables, best_weights, strategy)


def _make_driver(
    model: keras.Model, strategy: tf.distribute.Strategy, options: FitOptions
) -> keras.callbacks.CallbackList:
    is_chief = worker_index(strategy) == 0
    callbacks = [*options.callbacks]
    if is_chief and importlib.util.find_spec("tensorboard"):
        logs = str(options.directory / "tensorboard")
        callbacks.append(keras.callbacks.TensorBoard(logs, write_graph=False))
    return keras.callbacks.CallbackList(
        callbacks,
        add_history=True,
        add_progbar=is_chief and options.verbose > 0,
        model=model,
        verbose=options.verbose,
        epochs=options.epochs,
        steps=None,
    )


# --- Steps ----------------------------------------------------------------------------------------


def _inputs(model: keras.Model, batch: Batch) -> dict[str, tf.Tensor]:
    return {name: batch[name] for name in model.input}


def _make_train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    losses: Losses,
    strategy: tf.distribute.Strategy,
    options: FitOptions,
    averaged: list[tf.Variable],
) -> tf.types.experimental.PolymorphicFunction:
    def replica_step(batch: Batch, count: tf.Tensor | None) -> tf.Tensor:
        replica = tf.distribute.get_replica_context()
        with tf.GradientTape() as tape:
            outputs = model(_inputs(model, batch), training=True)
            values, weights = valid_rows(losses(outputs, batch), count)
            total = replica.all_reduce("sum", tf.reduce_sum(weights))
            loss = tf.math.divide_no_nan(tf.reduce_sum(values), total)
            penalties = tf.add_n(model.losses) if model.losses else 0.0
            objective = loss + penalties / strategy.num_replicas_in_sync
        gradients = tape.gradient(objective, model.trainable_variables)
        # Clip as one device would: after the sum over the replicas. The optimizer of Keras sums
        # again, hence the division, which is exact for powers of two.
        gradients = replica.all_reduce("sum", gradients)
        # That of an embedding comes as a slice for each use of a row. Adam of Keras would add up
        # the squares of the slices, and so would the norm, instead of squaring their sum.
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        if options.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, options.clip_norm)
        if strategy.num_replicas_in_sync > 1:
            fraction = 1.0 / strategy.num_replicas_in_sync
            gradients = [tf.math.scalar_mul(fraction, gradient) for gradient in gradients]
        optimizer.apply(gradients, model.trainable_variables)
        if averaged:
            _update_averages(averaged, model, optimizer, options.average)
        return objective

    @tf.function(reduce_retracing=not _needs_static_shapes(strategy))
    def train_step(batch: Batch, count: tf.Tensor | None) -> tf.Tensor:
        with _form(options):
            replica_losses = strategy.run(replica_step, args=(batch, count))
        return strategy.reduce("sum", replica_losses, axis=None)

    return train_step


def _update_averages(
    averaged: list[tf.Variable],
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    momentum: float,
) -> None:
    # Early averages would remember the random start, so the momentum rises to its value.
    step = tf.cast(optimizer.iterations, tf.float32)
    momentum = tf.minimum(momentum, step / (step + 10.0))
    for mean, variable in zip(averaged, model.trainable_variables, strict=True):
        mean.assign(momentum * mean + (1.0 - momentum) * variable.value)


def _make_test_step(
    model: keras.Model, losses: Losses, strategy: tf.distribute.Strategy, options: FitOptions
) -> tf.types.experimental.PolymorphicFunction:
    def replica_step(batch: Batch, count: tf.Tensor | None) -> Any:
        replica = tf.distribute.get_replica_context()
        outputs = model(_inputs(model, batch), training=False)
        values, weights = valid_rows(losses(outputs, batch), count)
        sums = replica.all_reduce("sum", [tf.reduce_sum(values), tf.reduce_sum(weights)])
        return gather(valid_rows(outputs, count)), sums

    @tf.function(reduce_retracing=not _needs_static_shapes(strategy))
    def test_step(batch: Batch, count: tf.Tensor | None) -> Any:
        with _form(options):
            return strategy.run(replica_step, args=(batch, count))

    return test_step


def _form(options: FitOptions) -> contextlib.AbstractContextManager[None]:
    """Return the context in which steps are traced: without compiled scans in a short run."""
    is_short = options.steps is not None and options.steps < SHORT_RUN
    return rnn_kernels.portable() if is_short else contextlib.nullcontext()


def _needs_static_shapes(strategy: tf.distribute.Strategy) -> bool:
    """Return whether each shape of a batch must be traced by itself."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


# --- Epochs ---------------------------------------------------------------------------------------


def _without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Return the same batches without the autotuning of tf.data.

    Its thread sleeps for up to a minute, and an iterator that ends meanwhile waits for it.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _train_epoch(
    train_step: tf.types.experimental.PolymorphicFunction,
    dataset: tf.data.Dataset,
    strategy: tf.distribute.Strategy,
    driver: keras.callbacks.CallbackList,
    options: FitOptions,
    state: RunState,
    save: Callable[[], None],
) -> dict[str, float]:
    """Run the steps of an epoch after those that `state` has, and save now and then.

    Args:
      train_step: a batch -> its loss.
      dataset: all batches of the epoch.
      strategy: of the run.
      driver: the callbacks.
      options: of the run.
      state: of the run.
      save: writes a checkpoint of it.
    """
    losses, steps = _EpochLosses(state, options.directory), state.step
    step = trace_step(train_step, dataset, strategy)
    saved = time.monotonic()
    for batch in _without_autotuning(dataset.skip(steps) if steps else dataset):
        driver.on_train_batch_begin(steps)
        losses.add(step(*split_batch(batch, strategy)))
        steps += 1
        driver.on_train_batch_end(steps - 1, {"loss": losses.mean})
        if driver.model.stop_training:  # set by a callback
            break
        if time.monotonic() - saved >= 60.0 * options.checkpoint_minutes:
            losses.read()
            state.step, state.loss = steps, losses.total
            save()
            saved = time.monotonic()
    if not steps:
        raise InputError("no training examples")
    losses.read()
    return {"loss": losses.mean}


class _EpochLosses:
    """The losses of the steps of an epoch, read every `READ_EVERY` steps.

    Reading waits for the device, which otherwise computes while the next batch is prepared.

    Attributes:
      mean: the mean of the losses read so far.
      total: their sum.
    """

    def __init__(self, state: RunState, directory: Path) -> None:
        self.epoch, self.directory = state.epoch, directory
        self.total, self._steps = state.loss, state.step
        self.mean = self.total / self._steps if self._steps else math.nan
        self._unread: list[tf.Tensor] = []

    def add(self, loss: tf.Tensor) -> None:
        self._unread.append(loss)
        # The first is read at once, so that a progress bar has something to show.
        if not self._steps or len(self._unread) == READ_EVERY:
            self.read()

    def read(self) -> None:
        """Read all losses; raise a `TrainingError` that names the first that is not finite."""
        if not self._unread:
            return
        for loss in to_numpy(self._unread):
            self._steps += 1
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} at step {self._steps} of epoch {self.epoch + 1}. The last "
                    f"checkpoint is kept in {self.directory}; try a smaller --learning_rate or "
                    "--clip_norm, and look for extreme values in the data."
                )
            self.total += float(loss)
        self._unread.clear()
        self.mean = self.total / self._steps


def to_numpy(tensors: Sequence[tf.Tensor]) -> np.ndarray:
    """Read scalars from the device, all at once; wait until they are computed."""
    return tf.stack(tensors).numpy()


def _validate(
    test_step: tf.types.experimental.PolymorphicFunction,
    dataset: tf.data.Dataset,
    strategy: tf.distribute.Strategy,
    score: Score,
) -> dict[str, float]:
    sums = np.zeros(2)
    step = trace_step(test_step, dataset, strategy)

    def outputs_of_batches() -> Iterator[tuple[Mapping[str, np.ndarray], Any]]:
        for batch in _without_autotuning(dataset):
            # All replicas return the same values.
            outputs, (loss, weight) = tf.nest.map_structure(
                lambda value: strategy.experimental_local_results(value)[0].numpy(),
                step(*split_batch(batch, strategy)),
            )
            sums[:] += float(loss), float(weight)
            yield {name: value.numpy() for name, value in batch.items()}, outputs

    metrics = {name: float(value) for name, value in score(outputs_of_batches()).items()}
    if not sums[1]:
        raise InputError("no validation examples")
    return {"loss": float(sums[0] / sums[1]), **metrics}


@contextlib.contextmanager
def _averaged_weights(model: keras.Model, averaged: list[tf.Variable]) -> Iterator[None]:
    """Assign the averaged weights, if there are any, while the model is validated."""
    own = [v.numpy() for v in model.trainable_variables] if averaged else []
    for variable, mean in zip(model.trainable_variables, averaged, strict=False):
        variable.assign(mean)
    yield
    for variable, value in zip(model.trainable_variables, own, strict=False):
        variable.assign(value)
