"""Where training runs: one device, all of this machine, several machines, or a TPU.

A strategy computes a step on several replicas of the model; here is what else a run on several of
them needs. Each worker reads the whole input and takes its own rows of each global batch, so that
every replica's share, and with it the result, follows from the batch alone. What only one worker
may do (checkpoints, logs, the export) the chief does: the worker named so, or the first one.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from common.errors import InputError

import numpy as np
import tensorflow as tf

StrategyName = Literal["one", "mirrored", "multiworker", "tpu"]


def make_strategy(name: StrategyName) -> tf.distribute.Strategy:
    """Makes the strategy under which a model is built and fitted.

    Args:
      name: `one`: TensorFlow's default, a GPU if there is one. `mirrored`: a copy of the model on
        each GPU of this machine (or on each logical CPU device, where there are several), each
        taking its share of the global batch. `multiworker`: the same over the machines of
        `TF_CONFIG`; call it before anything else of TensorFlow runs. `tpu`: the TPU that
        `TPU_NAME` names, or the one of this machine.

    Raises:
      InputError: there is no such cluster, or no such device.

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
    """Refuses a `TF_CONFIG` that names no cluster with this worker in it."""
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
            f"--strategy tpu: no TPU is found ({reason}). On a TPU VM install tensorflow-tpu in "
            "place of tensorflow; for one elsewhere set TPU_NAME"
        ) from error
    return resolver


# --- Workers --------------------------------------------------------------------------------------


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """Which of the workers this process is, counted from the chief, which is 0."""
    if not _has_workers(strategy):
        return 0
    resolver = strategy.cluster_resolver
    chiefs = len(resolver.cluster_spec().as_dict().get("chief", ()))
    return resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)


def _has_workers(strategy: tf.distribute.Strategy) -> bool:
    several = strategy.num_replicas_in_sync > 1
    return several and isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns when every worker has called it."""
    from_chief(np.zeros(1, np.float32), strategy)


@contextlib.contextmanager
def chief_first(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """What is done inside, the chief does alone, then all others: preparing data they share."""
    if worker_index(strategy):
        wait_for_all(strategy)
    yield
    if not worker_index(strategy):
        wait_for_all(strategy)


def from_chief(value: np.ndarray, strategy: tf.distribute.Strategy) -> np.ndarray:
    """Gives every worker the chief's value; all call it, with arrays of one shape and type.

    Example:
      >>> from_chief(np.array([3]), make_strategy("one"))
      array([3])
    """
    if not _has_workers(strategy):
        return value
    # A sum to which the others add nothing: their collective ops know sums, but no broadcast; and
    # of the whole numbers only two types.
    sent = value if np.issubdtype(value.dtype, np.floating) else value.astype(np.int64)
    values = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(0 * sent if context.replica_id_in_sync_group else sent)
    )
    return strategy.reduce("sum", values, axis=None).numpy().astype(value.dtype)


def is_lost_worker(error: tf.errors.OpError) -> bool:
    """Whether an operation failed since another worker no longer answers."""
    return "Collective ops is aborted" in error.message


# --- Batches --------------------------------------------------------------------------------------


def share(batch: Mapping[str, tf.Tensor], strategy: tf.distribute.Strategy) -> tuple[Any, Any]:
    """Deals the rows of a global batch out to the replicas of this worker.

    Replica `r` of `n` takes the rows from `r * rows // n` to `(r + 1) * rows // n`. Text stays
    behind where there are several replicas, since no accelerator takes it.

    Args:
      batch: tensors `[rows, ...]`, the same ones on every worker.
      strategy: with one replica, the batch itself is given back.

    Returns:
      What `strategy.run` takes: the rows, and how many of them count. A replica that gets none is
      given one which does not, since few models run on nothing. None: all count.
    """
    count = strategy.num_replicas_in_sync
    if count == 1:
        return batch, None
    rows = next(iter(batch.values())).shape[0]

    def bounds(context: tf.distribute.experimental.ValueContext) -> tuple[int, int]:
        replica = context.replica_id_in_sync_group
        return replica * rows // count, (replica + 1) * rows // count

    def rows_of(context: tf.distribute.experimental.ValueContext) -> dict[str, tf.Tensor]:
        first, end = bounds(context)
        part = slice(first, end) if first < end else slice(1)
        return {name: value[part] for name, value in _without_text(batch).items()}

    def count_of(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
        first, end = bounds(context)
        return tf.constant(end - first)

    deal = strategy.experimental_distribute_values_from_function
    return deal(rows_of), deal(count_of)


def that_count(values: Any, count: tf.Tensor | None) -> Any:
    """The first `count` rows of tensors `[rows, ...]`; all of them for None."""
    if count is None:
        return values
    return tf.nest.map_structure(lambda value: value[:count], values)


def _without_text(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if value.dtype != tf.string}


def in_step(
    function: tf.types.experimental.PolymorphicFunction,
    dataset: tf.data.Dataset,
    strategy: tf.distribute.Strategy,
) -> Callable[[Any], Any]:
    """Traces a function of a share for all shapes at once, and so once.

    One device would trace three times, the third time for any shape; each takes seconds. Workers
    know their common operations by the order in which they were traced: one that traced anew, since
    its share is the first of its size, while another one's is not, would wait for what the others
    never ask.

    Args:
      function: takes the two that `share` gives.
      dataset: the batches; lengths that vary must be unknown to TensorFlow.
      strategy: for a TPU, which wants each shape by itself, and for several devices of one machine
        the function itself is given back.
    """
    if strategy.num_replicas_in_sync == 1 and not isinstance(strategy, tf.distribute.TPUStrategy):
        return function.get_concrete_function(dataset.element_spec, None)
    if not _has_workers(strategy):
        return function
    # Of any number of rows; this is asked for its shapes alone.
    shares = dataset.map(_without_text).unbatch().batch(1).map(lambda rows: (rows, 1))
    dealt = strategy.distribute_datasets_from_function(lambda context: shares)
    return function.get_concrete_function(*dealt.element_spec)


def gather(outputs: Any) -> Any:
    """Puts the rows of all replicas together again, on each of them.

    Args:
      outputs: a structure of tensors `[rows, ...]`, inside of `strategy.run`.
    """
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync == 1:
        return outputs

    def from_all(value: tf.Tensor) -> tf.Tensor:
        # The workers' operations know no bfloat16.
        value = tf.cast(value, tf.float32) if value.dtype == tf.bfloat16 else value
        return replica.all_gather(value, axis=0)

    return tf.nest.map_structure(from_all, outputs)
