"""Training: one loop for every task and every strategy, which can be killed and resumed.

Keras's own `fit` fails with several workers (keras#20585), so the loop is ours, over
`strategy.run`; but it drives Keras's callback list, so every Keras callback works with it.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import importlib.util
import io
import itertools
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from common.errors import InputError, TrainingError
from common.files import write_atomically
from common.training.distribution import (
    from_chief,
    gather,
    in_step,
    share,
    that_count,
    worker_index,
)

import keras
import numpy as np
import tensorflow as tf

Batch = Mapping[str, tf.Tensor]
Losses = Callable[[Any, Batch], tuple[tf.Tensor, tf.Tensor]]
Score = Callable[[Iterable[tuple[dict[str, np.ndarray], Any]]], dict[str, float]]

CHECKPOINT = "checkpoint.npz"
LOG = "log.csv"


def set_up(
    *, seed: int, deterministic: bool = False, precision: Literal["float32", "bfloat16"]
) -> None:
    """Seeds Python, NumPy and TensorFlow, and sets Keras's precision; call before building.

    Args:
      seed: one seed for everything.
      deterministic: asks TensorFlow for kernels that repeat bit by bit; some are slower.
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
    """A learning rate that rises to `peak` in a line, then falls to 0 along half a cosine.

    Args:
      peak: the highest rate.
      steps: of the whole run.
      warmup: the share of them in which it rises.

    Example:
      >>> schedule = warmed_cosine(1e-3, steps=100)
      >>> [float(schedule(step)) for step in (0, 5, 100)]
      [0.0, 0.001, 0.0]
    """
    rising = int(steps * warmup)
    return keras.optimizers.schedules.CosineDecay(
        0.0, steps - rising, warmup_target=peak, warmup_steps=rising
    )


def take_weights(model: keras.Model, other: keras.Model, *, but: str | None = None) -> None:
    """Gives a model the weights of another one of the same architecture, layer by layer.

    Args:
      model: takes them.
      other: has a layer of the same name for each layer with weights.
      but: layers whose names begin so keep their own.
    """
    for layer in model.layers:
        if layer.weights and (but is None or not layer.name.startswith(but)):
            layer.set_weights(other.get_layer(layer.name).get_weights())


@dataclasses.dataclass
class _State:
    """What a run knows beside its variables; saved with them in one file."""

    settings: dict[str, Any]
    epoch: int = 0  # finished epochs
    best: float | None = None
    best_epoch: int = 0
    seconds: float = 0.0
    stopped: bool = False
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What `fit` hands back; the model holds the best epoch's weights."""

    history: list[dict[str, float]]  # a row an epoch: loss, val_loss, the task's metrics, seconds
    best_epoch: int  # counted from 1
    seconds: float  # wall time of all epochs, those before a resume included


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
    epochs: int,
    patience: int,
    directory: Path,
    settings: Mapping[str, Any],
    resume: bool = False,
    strategy: tf.distribute.Strategy | None = None,
    clip_norm: float | None = None,
    average: float = 0.0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
) -> Fitted:
    """Fits a model, keeps the best epoch by the task's own metric, and can go on after a kill.

    Args:
      model: a functional model with a dict of named inputs, built under `strategy`.
      optimizer: made under `strategy`, without clipping (see `clip_norm`).
      losses: `(outputs, batch) -> (<float>[batch] losses, <float>[batch] weights)`. A step's loss
        is the sum of the one over the sum of the other, both taken over all replicas, so that
        several devices give what one gives. Losses come already weighted.
      train: `epoch (from 0) -> batches`; the order must follow from the epoch alone.
      validation: batches; never used but to measure.
      score: takes `(batch, outputs)` pairs as NumPy, gives the task's metrics by name.
      monitor: the metric of `score` that names the best epoch.
      mode: whether more of it is better.
      epochs: at most so many.
      patience: stops after so many epochs without a better one.
      directory: the run's folder: checkpoint, `log.csv`, TensorBoard's events.
      settings: JSON-able; a checkpoint is resumed only under the same settings.
      resume: goes on from the last finished epoch in `directory`; without one, starts anew.
      strategy: see `common.training.distribution`. Of several workers each calls this with the same
        arguments; the chief alone writes to `directory`, and the others start from what it has.
      clip_norm: scales the gradients of all weights together down to this norm.
      average: momentum of an exponential moving average of the weights, which is then what is
        measured and kept (Polyak & Juditsky 1992); 0 keeps the weights themselves.
      callbacks: further Keras callbacks.
      verbose: 0 silent, 1 progress bar, 2 a line an epoch; of several workers the chief speaks.

    Raises:
      TrainingError: a loss that is not finite, or a checkpoint of other settings or shapes.
      InputError: no training or no validation examples.
    """
    strategy = strategy or tf.distribute.get_strategy()
    directory.mkdir(parents=True, exist_ok=True)
    with strategy.scope():
        model.compile(optimizer=optimizer)
        optimizer.build(model.trainable_variables)
        averaged = [tf.Variable(v.value, trainable=False) for v in model.trainable_variables]
    if not average:
        averaged = []
    train_step = _make_train_step(model, optimizer, losses, strategy, clip_norm, average, averaged)
    test_step = _make_test_step(model, losses, strategy)

    state = _State(settings=json.loads(json.dumps(settings)))
    variables = {
        "model": [v.value for v in model.variables],
        "optimizer": [v.value for v in optimizer.variables],
        "average": averaged,
    }
    best_weights = [v.numpy() for v in model.weights]
    checkpoint = directory / CHECKPOINT
    chief = worker_index(strategy) == 0
    if chief and resume and checkpoint.exists():
        state, best_weights = _restore(checkpoint, state.settings, variables)
    elif chief:
        _clear(directory)
    state, best_weights = _follow_chief(state, variables, best_weights, strategy)

    if chief and importlib.util.find_spec("tensorboard"):
        board = keras.callbacks.TensorBoard(str(directory / "tensorboard"), write_graph=False)
        callbacks = [*callbacks, board]
    driver = keras.callbacks.CallbackList(
        list(callbacks),
        add_history=True,
        add_progbar=chief and verbose > 0,
        model=model,
        verbose=verbose,
        epochs=epochs,
        steps=None,
    )
    model.stop_training = state.stopped
    driver.on_train_begin()
    for epoch in range(state.epoch, epochs):
        if model.stop_training:
            break
        start = time.perf_counter()
        driver.on_epoch_begin(epoch)
        logs = _train_epoch(train_step, train(epoch), strategy, driver, epoch, directory)
        with _averaged_weights(model, averaged):
            validated = _validate(test_step, validation, strategy, score)
            measured = validated[monitor]
            better = state.best is None or (measured > state.best) == (mode == "max")
            if better and measured != state.best:
                state.best, state.best_epoch = measured, epoch + 1
                best_weights = [v.numpy() for v in model.weights]
        logs |= {f"val_{name}": value for name, value in validated.items()}
        driver.on_epoch_end(epoch, dict(logs))
        state.seconds += time.perf_counter() - start
        state.history.append({"epoch": epoch + 1, **logs, "seconds": round(state.seconds, 3)})
        state.epoch = epoch + 1
        state.stopped = model.stop_training or epoch + 1 - state.best_epoch >= patience
        model.stop_training = state.stopped
        if chief:
            _save(checkpoint, state, variables, best_weights)
            _write_log(directory / LOG, state.history)
    driver.on_train_end()
    for variable, value in zip(model.weights, best_weights, strict=True):
        variable.assign(value)
    return Fitted(state.history, state.best_epoch, state.seconds)


# --- steps ----------------------------------------------------------------------------------------


def _inputs(model: keras.Model, batch: Batch) -> dict[str, tf.Tensor]:
    return {name: batch[name] for name in model.input}


def _make_train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    losses: Losses,
    strategy: tf.distribute.Strategy,
    clip_norm: float | None,
    average: float,
    averaged: list[tf.Variable],
) -> Callable[[Batch, tf.Tensor | None], tf.Tensor]:
    def replica_step(batch: Batch, count: tf.Tensor | None) -> tf.Tensor:
        replica = tf.distribute.get_replica_context()
        with tf.GradientTape() as tape:
            found = losses(model(_inputs(model, batch), training=True), batch)
            values, weights = that_count(found, count)
            total = replica.all_reduce("sum", tf.reduce_sum(weights))
            loss = tf.math.divide_no_nan(tf.reduce_sum(values), total)
            penalties = tf.add_n(model.losses) if model.losses else 0.0
            objective = loss + penalties / strategy.num_replicas_in_sync
        gradients = tape.gradient(objective, model.trainable_variables)
        # Clipped as one device would clip them: after they are summed over the replicas. Keras's
        # optimizer sums them again, hence the division, which is exact for powers of two.
        gradients = replica.all_reduce("sum", gradients)
        if clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, clip_norm)
        if strategy.num_replicas_in_sync > 1:
            share = 1.0 / strategy.num_replicas_in_sync
            gradients = [tf.math.scalar_mul(share, gradient) for gradient in gradients]
        optimizer.apply(gradients, model.trainable_variables)
        if averaged:
            # Early averages would remember the random start, so the momentum rises to its value.
            step = tf.cast(optimizer.iterations, tf.float32)
            momentum = tf.minimum(average, step / (step + 10.0))
            for mean, variable in zip(averaged, model.trainable_variables, strict=True):
                mean.assign(momentum * mean + (1.0 - momentum) * variable.value)
        return objective

    @tf.function(reduce_retracing=not _needs_static_shapes(strategy))
    def train_step(batch: Batch, count: tf.Tensor | None) -> tf.Tensor:
        return strategy.reduce("sum", strategy.run(replica_step, args=(batch, count)), axis=None)

    return train_step


def _make_test_step(
    model: keras.Model, losses: Losses, strategy: tf.distribute.Strategy
) -> Callable[[Batch, tf.Tensor | None], Any]:
    def replica_step(batch: Batch, count: tf.Tensor | None) -> Any:
        replica = tf.distribute.get_replica_context()
        outputs = model(_inputs(model, batch), training=False)
        values, weights = that_count(losses(outputs, batch), count)
        sums = replica.all_reduce("sum", [tf.reduce_sum(values), tf.reduce_sum(weights)])
        return gather(that_count(outputs, count)), sums

    @tf.function(reduce_retracing=not _needs_static_shapes(strategy))
    def test_step(batch: Batch, count: tf.Tensor | None) -> Any:
        return strategy.run(replica_step, args=(batch, count))

    return test_step


def _needs_static_shapes(strategy: tf.distribute.Strategy) -> bool:
    """Whether each shape of a batch must be traced by itself."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def _without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same batches without tf.data's autotuning.

    Its thread sleeps for up to a minute between two looks at the pipeline, and an iterator that
    ends meanwhile waits for it: 17 idle seconds were seen at the end of an epoch of 28.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _train_epoch(
    train_step: Callable[[Batch, tf.Tensor | None], tf.Tensor],
    dataset: tf.data.Dataset,
    strategy: tf.distribute.Strategy,
    driver: keras.callbacks.CallbackList,
    epoch: int,
    directory: Path,
) -> dict[str, float]:
    total, steps = 0.0, 0
    step = in_step(train_step, dataset, strategy)
    for batch in _without_autotuning(dataset):
        driver.on_train_batch_begin(steps)
        loss = float(step(*share(batch, strategy)))
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {steps + 1} of epoch {epoch + 1}. The last finished "
                f"epoch is kept in {directory}; try a smaller --learning_rate or --clip_norm, and "
                "look for extreme values in the data."
            )
        total, steps = total + loss, steps + 1
        driver.on_train_batch_end(steps - 1, {"loss": total / steps})
        if driver.model.stop_training:  # a callback asked for it
            break
    if not steps:
        raise InputError("no training examples")
    return {"loss": total / steps}


def _validate(
    test_step: Callable[[Batch, tf.Tensor | None], Any],
    dataset: tf.data.Dataset,
    strategy: tf.distribute.Strategy,
    score: Score,
) -> dict[str, float]:
    sums = np.zeros(2)

    def answers() -> Iterator[tuple[dict[str, np.ndarray], Any]]:
        for batch in _without_autotuning(dataset):
            # All replicas have the same.
            outputs, (loss, weight) = tf.nest.map_structure(
                lambda value: strategy.experimental_local_results(value)[0].numpy(),
                step(*share(batch, strategy)),
            )
            sums[:] += float(loss), float(weight)
            yield {name: value.numpy() for name, value in batch.items()}, outputs

    step = in_step(test_step, dataset, strategy)
    metrics = {name: float(value) for name, value in score(answers()).items()}
    if not sums[1]:
        raise InputError("no validation examples")
    return {"loss": float(sums[0] / sums[1]), **metrics}


@contextlib.contextmanager
def _averaged_weights(model: keras.Model, averaged: list[tf.Variable]) -> Iterator[None]:
    """Puts averaged weights, where there are some, in the model's place while it is measured."""
    own = [v.numpy() for v in model.trainable_variables] if averaged else []
    for variable, mean in zip(model.trainable_variables, averaged, strict=False):
        variable.assign(mean)
    yield
    for variable, value in zip(model.trainable_variables, own, strict=False):
        variable.assign(value)


# --- the run's folder -----------------------------------------------------------------------------


def _save(
    path: Path, state: _State, variables: dict[str, list], best_weights: list[np.ndarray]
) -> None:
    arrays = {
        f"{kind}/{index}": variable.numpy()
        for kind, kept in variables.items()
        for index, variable in enumerate(kept)
    }
    arrays |= {f"best/{index}": value for index, value in enumerate(best_weights)}
    arrays["state"] = np.frombuffer(json.dumps(dataclasses.asdict(state)).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def _restore(
    path: Path, settings: dict[str, Any], variables: dict[str, list]
) -> tuple[_State, list[np.ndarray]]:
    with np.load(path, allow_pickle=False) as arrays:
        state = _State(**json.loads(arrays["state"].tobytes()))
        if state.settings != settings:
            changed = sorted(
                name
                for name in settings.keys() | state.settings.keys()
                if settings.get(name) != state.settings.get(name)
            )
            raise TrainingError(
                f"{path} was made with another {', '.join(changed)}: give the same settings to go "
                "on, or leave out --resume to start anew"
            )
        for kind, kept in variables.items():
            for index, variable in enumerate(kept):
                value = arrays[f"{kind}/{index}"]
                if value.shape != tuple(variable.shape):
                    raise TrainingError(
                        f"{path} holds a variable of shape {value.shape} where {variable.name} "
                        f"has {tuple(variable.shape)}: the training data has changed since"
                    )
                variable.assign(value)
        count = sum(name.startswith("best/") for name in arrays.files)
        return state, [arrays[f"best/{index}"] for index in range(count)]


def _follow_chief(
    state: _State,
    variables: dict[str, list],
    best_weights: list[np.ndarray],
    strategy: tf.distribute.Strategy,
) -> tuple[_State, list[np.ndarray]]:
    """Starts every worker from what the chief has; with one process, this changes nothing."""
    text = np.frombuffer(json.dumps(dataclasses.asdict(state)).encode(), np.uint8)
    size = int(from_chief(np.array(text.size), strategy))
    chiefs = _State(**json.loads(from_chief(np.resize(text, size), strategy).tobytes()))
    if chiefs.settings != state.settings:
        raise TrainingError(f"worker {worker_index(strategy)} has other settings than the chief")
    for variable in itertools.chain(*variables.values()):
        variable.assign(from_chief(variable.numpy(), strategy))
    return chiefs, [from_chief(weights, strategy) for weights in best_weights]


def _clear(directory: Path) -> None:
    for name in (CHECKPOINT, LOG):
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(directory / "tensorboard", ignore_errors=True)


def _write_log(path: Path, history: list[dict[str, float]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, history[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, text.getvalue().encode())
