"""The devices of a training run: one, all of this machine, several machines, or a TPU.

A strategy of TensorFlow computes a step on several replicas of the model; this module adds the rest
that a run on several replicas needs. Each worker takes its own rows of each global batch, so the
rows of a replica, and with them the result, follow from the batch alone. Most inputs are read whole
by each worker; `worker_rows` lets an input skip the rows of the others.
Only the chief writes checkpoints, logs and the export. It is the worker of that name, or the first.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from common.errors import InputError
from common.training import StrategyName

import numpy as np
from etils import epy

with epy.lazy_imports():
    import tensorflow as tf


def make_strategy(name: StrategyName) -> tf.distribute.Strategy:
    """Make the strategy under which a model is built and fitted.

    Args:
      name: `one`: TensorFlow's default, a GPU if there is one. `mirrored`: a copy of the model on
        each GPU of this machine (or on each logical CPU device, if there are several), each with
        its part of the global batch. `multiworker`: the same over the machines of `TF_CONFIG`; call
        it before anything else of TensorFlow runs. `tpu`: the TPU that `TPU_NAME` names, or the one
        of this machine.

    Raises:
      InputError: the cluster or the device is missing.

    Example:
      >>> make_strategy("one").num_replicas_in_sync
      1
    """
    if name == "one":
        return tf.distribute.get_strategy()
    if name == "multiworker":
        _require_cluster()
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        return tf.distribute.TPUStrategy(_connect_to_tpu())
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _require_cluster() -> None:
    """Refuse a `TF_CONFIG` that names no cluster with this worker in it."""
    form = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'
    try:
        config = json.loads(os.environ.get("TF_CONFIG", "{}"))
        task = config["task"]
        config["cluster"][task["type"]][int(task["index"])]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(
            "--strategy multiworker: the environment variable TF_CONFIG must name all workers and "
            f"this one, as in {form}; each worker is started with its own index"
        ) from error


def _connect_to_tpu() -> tf.distribute.cluster_resolver.TPUClusterResolver:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            os.environ.get("TPU_NAME", "local")
        )
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"--strategy tpu: no TPU was found ({reason}). On a TPU VM install tensorflow-tpu in "
            "place of tensorflow; for another machine set TPU_NAME"
        ) from error
    return resolver


# --- Workers --------------------------------------------------------------------------------------


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """Return the index of this process among the workers; the chief is 0."""
    if not _has_workers(strategy):
        return 0
    resolver = strategy.cluster_resolver
    chiefs = len(resolver.cluster_spec().as_dict().get("chief", ()))
    return resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)


def _has_workers(strategy: tf.distribute.Strategy) -> bool:
    several = strategy.num_replicas_in_sync > 1
    return several and isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Block until every worker has called it."""
    from_chief(np.zeros(1, np.float32), strategy)


@contextlib.contextmanager
def chief_first(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Run the block on the chief first, then on the other workers; for preparing shared data."""
    if worker_index(strategy):
        wait_for_all(strategy)
    yield
    if not worker_index(strategy):
        wait_for_all(strategy)


def from_chief(value: np.ndarray, strategy: tf.distribute.Strategy) -> np.ndarray:
    """Return the chief's value on every worker; all call it, with arrays of one shape and type.

    Example:
      >>> from_chief(np.array([3]), make_strategy("one"))
      array([3])
    """
    if not _has_workers(strategy):
        return value
    # A sum to which the other workers add 0: their collective ops have no broadcast. They support
    # only two types of whole numbers.
    summand = value if np.issubdtype(value.dtype, np.floating) else value.astype(np.int64)
    values = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(0 * summand if context.replica_id_in_sync_group else summand)
    )
    return strategy.reduce("sum", values, axis=None).numpy().astype(value.dtype)


def is_lost_worker(error: Exception) -> bool:
    """Return whether an operation failed because another worker no longer responds."""
    return isinstance(error, tf.errors.OpError) and "Collective ops is aborted" in error.message


# --- Batches --------------------------------------------------------------------------------------


def split_batch(
    batch: Mapping[str, tf.Tensor], strategy: tf.distribute.Strategy
) -> tuple[Any, Any]:
    """Split the rows of a global batch over the replicas of this worker.

    Replica `r` of `n` receives the rows from `r * rows // n` to `(r + 1) * rows // n`. Several
    replicas receive no text, since accelerators do not support it.

    Args:
      batch: tensors `[rows, ...]`, the same on every worker.
      strategy: with one replica, the batch itself is returned.

    Returns:
      The arguments of `strategy.run`: the rows, and how many of them are valid. A replica without
      rows receives one that is not valid, since few models run on none. None: all are valid.
    """
    count = strategy.num_replicas_in_sync
    if count == 1:
        return batch, None
    rows = next(iter(batch.values())).shape[0]

    def bounds(context: tf.distribute.experimental.ValueContext) -> tuple[int, int]:
        return _bounds(rows, context.replica_id_in_sync_group, count)

    def rows_of(context: tf.distribute.experimental.ValueContext) -> dict[str, tf.Tensor]:
        first, end = bounds(context)
        part = slice(first, end) if first < end else slice(1)
        return {name: value[part] for name, value in _without_text(batch).items()}

    def count_of(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
        first, end = bounds(context)
        return tf.constant(end - first)

    distribute = strategy.experimental_distribute_values_from_function
    return distribute(rows_of), distribute(count_of)


def _bounds(rows: int, part: int, parts: int) -> tuple[int, int]:
    return part * rows // parts, (part + 1) * rows // parts


def worker_rows(rows: int, strategy: tf.distribute.Strategy) -> slice:
    """Return the rows of a global batch that `split_batch` gives to the replicas of this worker.

    The other rows are never computed here, so a worker need not read them.

    Example:
      >>> worker_rows(32, make_strategy("one"))
      slice(0, 32, None)
    """
    if not _has_workers(strategy):
        return slice(0, rows)
    addresses = strategy.cluster_resolver.cluster_spec().as_dict()
    workers = sum(len(addresses.get(kind, ())) for kind in ("chief", "worker"))
    return slice(*_bounds(rows, worker_index(strategy), workers))


def valid_rows(values: Any, count: tf.Tensor | None) -> Any:
    """Return the first `count` rows of tensors `[rows, ...]`; all of them for None."""
    if count is None:
        return values
    return tf.nest.map_structure(lambda value: value[:count], values)


def _without_text(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if value.dtype != tf.string}


def trace_step(
    function: tf.types.experimental.PolymorphicFunction,
    dataset: tf.data.Dataset,
    strategy: tf.distribute.Strategy,
) -> Callable[..., Any]:
    """Trace a step once, for batches of all shapes.

    One device would trace three times, the third time for any shape; each trace takes seconds.
    Workers identify their collective operations by the order of tracing. A worker that traced anew,
    for a number of rows that it sees first, would wait forever for the others.

    Args:
      function: accepts the two results of `split_batch`.
      dataset: the batches; variable lengths must be unknown to TensorFlow.
      strategy: for a TPU, which compiles each shape separately, and for several devices of one
        machine, the function itself is returned.
    """
    if strategy.num_replicas_in_sync == 1 and not isinstance(strategy, tf.distribute.TPUStrategy):
        return function.get_concrete_function(dataset.element_spec, None)
    if not _has_workers(strategy):
        return function
    # The data set of the rows of one worker, of any number; it only serves for its shapes.
    parts = dataset.map(_without_text).unbatch().batch(1).map(lambda rows: (rows, 1))
    distributed = strategy.distribute_datasets_from_function(lambda context: parts)
    return function.get_concrete_function(*distributed.element_spec)


def gather(outputs: Any) -> Any:
    """Concatenate the rows of all replicas, on each of them.

    Args:
      outputs: a structure of tensors `[rows, ...]`, inside of `strategy.run`.
    """
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync == 1:
        return outputs

    def from_all(value: tf.Tensor) -> tf.Tensor:
        # The collective operations of workers do not support bfloat16.
        value = tf.cast(value, tf.float32) if value.dtype == tf.bfloat16 else value
        return replica.all_gather(value, axis=0)

    return tf.nest.map_structure(from_all, outputs)
