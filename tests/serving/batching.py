"""Merge requests as TensorFlow Model Server does, for its test double (`server.py`).

`Scheduler` and the queue in `Batcher` follow `SharedBatchScheduler` of
tensorflow/core/kernels/batching_util/shared_batch_scheduler.h (read at TensorFlow 2.21); how a
batch is merged and split follows tensorflow_serving/batching/batching_session.cc.
"""

import collections
import concurrent.futures
import dataclasses
import math
import os
import threading
import time

from tests.serving.config import StatusError

import numpy as np


@dataclasses.dataclass(frozen=True)
class Options:
    """Valid `BatchingParameters`.

    Attributes:
      request_limit: rows that one request may have.
      batch_limit: rows that one batch may have.
      timeout: seconds that a request waits for others.
      max_enqueued: batches that may wait, with the open one.
      threads: batches that run at the same time.
      pool: name of these threads.
      allowed: sizes to which batches are padded; empty for any.
      pad: whether inputs of unequal lengths are padded; otherwise they are refused.
      split: whether a request of more rows than a batch is split.
    """

    request_limit: int
    batch_limit: int
    timeout: float
    max_enqueued: int
    threads: int
    pool: str
    allowed: tuple
    pad: bool
    split: bool

    @classmethod
    def read(cls, parameters):
        """Apply the defaults and the checks of the server.

        Raises:
          StatusError: the server refuses them.
        """

        def value(name, default):
            return getattr(parameters, name).value if parameters.HasField(name) else default

        # `GetQueueOptions` of tensorflow_serving/servables/tensorflow/bundle_factory_util.h; the
        # defaults are those of `QueueOptions`.
        limit = value("max_batch_size", 1000)
        split = value("enable_large_batch_splitting", False)
        most = value("max_execution_batch_size", limit) if split else limit
        enqueued = value("max_enqueued_batches", 10)
        options = cls(
            request_limit=limit,
            batch_limit=most,
            timeout=value("batch_timeout_micros", 0) / 1e6,
            # `AddQueue` rewrites 0 "to retain old behavior".
            max_enqueued=enqueued if enqueued or split else 1,
            threads=value("num_batch_threads", os.cpu_count()),
            pool=value("thread_pool_name", "batch_threads"),
            allowed=tuple(parameters.allowed_batch_sizes),
            pad=parameters.pad_variable_length_inputs,
            split=split,
        )
        last = options.allowed[-1] if options.allowed else limit
        for wrong, message in [
            # `Create` and `AddQueueAfterRewritingOptions`
            (options.threads < 1, f"num_batch_threads must be positive; was {options.threads}"),
            (limit < 1, f"input_batch_size_limit must be positive; was {limit}"),
            (
                options.timeout < 0,
                f"batch_timeout_micros must be non-negative; was {options.timeout * 1e6:.0f}",
            ),
            (options.max_enqueued < 1, f"max_enqueued_batches must be positive; was {enqueued}"),
            (
                limit < most,
                "When enable_large_batch_splitting is true, input_batch_size_limit must be "
                "greater than or equal to max_execution_batch_size.",
            ),
            (
                # `WrapSessionForBatching` of bundle_factory_util.cc
                last != limit,
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was "
                f"{last}; expected {limit}",
            ),
        ]:
            if wrong:
                raise StatusError("INVALID_ARGUMENT", message)
        return options

    def padded(self, size):
        """Return the rows of a batch after padding (`RoundToLowestAllowedBatchSize`)."""
        return next((allowed for allowed in self.allowed if allowed >= size), size)


@dataclasses.dataclass
class Task:
    """A request, or a part of one that was split."""

    inputs: dict
    size: int
    future: concurrent.futures.Future = dataclasses.field(default_factory=concurrent.futures.Future)


@dataclasses.dataclass
class Batch:
    """Tasks that will run together. Its time starts with its first task."""

    tasks: list = dataclasses.field(default_factory=list)
    start: float = 0.0

    @property
    def size(self):
        return sum(task.size for task in self.tasks)


# --- Tensors --------------------------------------------------------------------------------------


def rows_of(inputs):
    """Return the number of rows (`ComputeTensorBatchSize` of batching_util.h)."""
    if not inputs:
        raise StatusError("INVALID_ARGUMENT", "Batching Run() must have at least one input tensor")
    if any(array.ndim == 0 for array in inputs.values()):
        message = "Batching Run() input tensors must have at least one dimension"
        raise StatusError("INVALID_ARGUMENT", message)
    sizes = {len(array) for array in inputs.values()}
    if len(sizes) > 1:
        message = "Batching Run() input tensors must have equal 0th-dimension size"
        raise StatusError("INVALID_ARGUMENT", message)
    return sizes.pop()


def pad_alike(arrays):
    """Pad arrays to one shape, each with its own first element (`PadTensor`, batching_util.cc)."""
    longest = np.max([array.shape[1:] for array in arrays], axis=0, initial=0)
    padded = []
    for array in arrays:
        padding = [(0, 0), *((0, int(n)) for n in longest - array.shape[1:])]
        if any(after for _, after in padding):
            if not array.size:
                message = "Got empty tensor in batch of non-empty tensors."
                raise StatusError("INVALID_ARGUMENT", message)
            array = np.pad(array, padding, constant_values=array.flat[0])
        padded.append(array)
    return padded


def merge(tasks, options):
    """Merge the inputs of tasks (`MergeInputTensors`).

    The server does not compare ranks: it writes out of bounds or aborts. Here that is an error.
    """
    rows = sum(len(next(iter(task.values()))) for task in tasks)
    merged = {}
    for name in tasks[0]:
        arrays = [task[name] for task in tasks]
        if len({array.ndim for array in arrays}) > 1:
            message = f"{name}: tensors of different ranks in one batch, on which the server aborts"
            raise StatusError("INTERNAL", message)
        if options.pad:
            arrays = pad_alike(arrays)
        elif len({array.shape[1:] for array in arrays}) > 1:
            message = (
                f"Tensors with name '{name}' from different tasks have different shapes and padding"
                " is turned off.Set pad_variable_length_inputs to true, or ensure that all tensors "
                "with the same namehave equal dimensions starting with the first dim."
            )
            raise StatusError("FAILED_PRECONDITION", message)
        # Rows up to an allowed size repeat the first row of the last task.
        arrays += [arrays[-1][:1]] * (options.padded(rows) - rows)
        merged[name] = np.concatenate(arrays)
    return merged


def split(outputs, sizes, rows):
    """Split the outputs of a batch of `rows` rows among its tasks (`SplitOutputTensors`)."""
    for array in outputs.values():
        if not array.ndim:
            raise StatusError("FAILED_PRECONDITION", "Batched output tensor has 0 dimensions")
        if len(array) != rows:
            message = (
                "Batched output tensor's 0th dimension does not equal the sum of the 0th "
                "dimension sizes of the input tensors"
            )
            raise StatusError("FAILED_PRECONDITION", message)
    ends = np.cumsum(sizes)
    return [
        {name: array[end - size : end] for name, array in outputs.items()}
        for size, end in zip(sizes, ends, strict=True)
    ]


def concatenate(parts):
    """Join the outputs of the parts of a request (`tensor::Concat` of tensor_util.cc).

    The server takes the shape of the first part and copies the bytes of all: where the others have
    another length it aborts, or mixes the rows. Here that is an error.
    """
    joined = {}
    for name in parts[0]:
        arrays = [part[name] for part in parts]
        if len({array.shape[1:] for array in arrays}) > 1:
            message = f"{name}: parts of different shapes, on which the server aborts or mixes rows"
            raise StatusError("INTERNAL", message)
        joined[name] = np.concatenate(arrays)
    return joined


# --- Queues ---------------------------------------------------------------------------------------


class Batcher:
    """Merge requests to one signature that arrive together, and split the outputs again.

    Args:
      call: runs a batch: inputs -> outputs.
      options: the `Options`.
      changed: the condition of the scheduler, which guards all queues.

    Attributes:
      sizes: the number of requests in each batch.
    """

    def __init__(self, call, options, changed):
        self.call, self.options = call, options
        self.sizes = []
        self._changed = changed
        # The last batch is open: tasks are added to it. The others wait for a thread.
        self._batches = collections.deque([Batch()])
        self._closed = False
        self._running = 0

    def __call__(self, inputs):
        whole = Task(inputs, rows_of(inputs))
        with self._changed:
            if self._closed:  # the version is unloaded, and this request holds it still
                return self.call(inputs)
            parts = self._schedule(whole)
            self._changed.notify_all()
        outputs = [part.future.result() for part in parts]
        return outputs[0] if len(outputs) == 1 else concatenate(outputs)

    def close(self):
        """Run what waits, then end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._running and not self._batches[0].tasks)

    def due(self):
        """Return the time at which the next batch must run, infinity if none waits.

        An open batch of no rows has no such time: a request of no rows waits for the next one.
        """
        first = self._batches[0]
        if len(self._batches) > 1 or first.size >= self.options.batch_limit:
            return -math.inf
        if self._closed and first.tasks:
            return -math.inf
        return first.start + self.options.timeout if first.size else math.inf

    def take(self):
        """Remove the first batch, to run it."""
        if len(self._batches) == 1:
            self._batches.append(Batch())
        self._running += 1
        return self._batches.popleft().tasks

    def run(self, tasks):
        """Run a batch, and give each task its outputs or the error of all."""
        self.sizes.append(len(tasks))
        sizes = [task.size for task in tasks]
        try:
            outputs = self.call(merge([task.inputs for task in tasks], self.options))
            results = split(outputs, sizes, self.options.padded(sum(sizes)))
        except BaseException as error:
            for task in tasks:
                task.future.set_exception(error)
        else:
            for task, result in zip(tasks, results, strict=True):
                task.future.set_result(result)
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def _schedule(self, task):
        """Add a task to the queue; return it, or its parts (`ScheduleWithoutOrEagerSplitImpl`)."""
        self._check_capacity(task.size)
        most = self.options.batch_limit
        parts = [task]
        free = most - self._batches[-1].size
        if self.options.split and task.size > free:
            ends = [*range(free or most, task.size, most), task.size]
            parts = [
                Task({name: array[start:end] for name, array in task.inputs.items()}, end - start)
                for start, end in zip([0, *ends[:-1]], ends, strict=True)
            ]
        for part in parts:
            if self._batches[-1].size + part.size > most:
                self._batches.append(Batch())
            batch = self._batches[-1]
            if not batch.tasks:
                batch.start = time.monotonic()
            batch.tasks.append(part)
        return parts

    def _check_capacity(self, size):
        """Refuse a request for which there is no room (`ValidateBatchTaskQueueCapacity`)."""
        options, enqueued, used = self.options, len(self._batches), self._batches[-1].size
        if size > options.request_limit:
            message = (
                f"Task size {size} is larger than maximum input batch size {options.request_limit}"
            )
            raise StatusError("INVALID_ARGUMENT", message)
        full = "The batch scheduling queue to which this task was submitted is full; "
        most = options.batch_limit
        capacity = (options.max_enqueued - enqueued) * most + most - used
        if options.split and size > capacity:
            message = (
                f"{full}task size is {size} but scheduling capacity is only {capacity} "
                f"(num_enqueued_batches={enqueued}, max_enqueued_batches={options.max_enqueued}, "
                f"open_batch_size={used}, max_execution_batch_size={most})"
            )
            raise StatusError("UNAVAILABLE", message)
        if not options.split and used + size > most and enqueued >= options.max_enqueued:
            message = (
                f"{full}currently {enqueued} batches enqueued and max_enqueued_batches is "
                f"{options.max_enqueued}"
            )
            raise StatusError("UNAVAILABLE", message)


class Scheduler:
    """The threads that run the batches of all queues in turn.

    Args:
      parameters: the `BatchingParameters`.
    """

    def __init__(self, parameters):
        self.options = Options.read(parameters)
        self._changed = threading.Condition()
        self._queues = collections.deque()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{self.options.pool}_{n}", daemon=True)
            for n in range(self.options.threads)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for queue in list(self._queues):
            self.remove(queue)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def add(self, call):
        """Return a queue for batches that `call` runs."""
        queue = Batcher(call, self.options, self._changed)
        with self._changed:
            self._queues.append(queue)
        return queue

    def remove(self, queue):
        """Run what waits in a queue, then forget it."""
        queue.close()
        with self._changed:
            self._queues.remove(queue)

    def _work(self):
        while True:
            with self._changed:
                while not (queue := self._next()):
                    if self._closed:
                        return
                    due = min((queue.due() for queue in self._queues), default=math.inf)
                    wait = None if due == math.inf else max(0.0, due - time.monotonic())
                    self._changed.wait(wait)
                tasks = queue.take()
            queue.run(tasks)

    def _next(self):
        """Return the next queue, in turn, of which a batch is due."""
        for _ in range(len(self._queues)):
            self._queues.rotate(-1)
            if self._queues[-1].due() <= time.monotonic():
                return self._queues[-1]
        return None
