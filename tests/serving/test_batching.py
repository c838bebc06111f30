"""The test double merges requests as the batching session of TF Serving does.

The docstrings name the files of github.com/tensorflow/serving and github.com/tensorflow/tensorflow
that say so.
"""

import concurrent.futures
import contextlib
import threading

from tests.serving import batching
from tests.serving.batching import Options, Scheduler
from tests.serving.config import StatusError, messages, read_batching

import numpy as np
import pytest
from google.protobuf import text_format


def parameters(text=""):
    return text_format.Parse(text, messages()["BatchingParameters"]())


def rows(*values):
    """Return inputs with one row for each value."""
    return {"x": np.array(values)[:, None]}


class Held:
    """A function for batches that waits until it is released, and keeps the rows of each batch."""

    def __init__(self):
        self.batches, self.started, self.release = [], threading.Event(), threading.Event()

    def __call__(self, inputs):
        self.started.set()
        assert self.release.wait(20)
        self.batches.append(inputs["x"].ravel().tolist())
        return {"y": inputs["x"] + 100}


@contextlib.contextmanager
def busy(text):
    """Yield a queue whose only thread runs a request of row 0, the function, and a thread pool."""
    held = Held()
    with (
        concurrent.futures.ThreadPoolExecutor(8) as pool,
        Scheduler(parameters(f"num_batch_threads {{ value: 1 }} {text}")) as scheduler,
    ):
        queue = scheduler.add(held)
        first = pool.submit(queue, rows(0))
        assert held.started.wait(20)
        try:
            yield queue, held, lambda *values: submit(pool, queue, *values)
        finally:
            held.release.set()
        assert first.result(20)["y"].tolist() == [[100]]


def submit(pool, queue, *values):
    """Send a request from another thread; return when the queue has it."""
    before = enqueued(queue)
    future = pool.submit(queue, rows(*values))
    for _ in range(2000):
        if future.done() or enqueued(queue) > before:
            return future
        threading.Event().wait(0.005)
    raise AssertionError("the request was not enqueued")


def enqueued(queue):
    return sum(len(batch.tasks) for batch in queue._batches)


# --- The file -------------------------------------------------------------------------------------


def test_every_parameter_of_the_file_is_read(tmp_path):
    """`BatchingParameters` of servables/tensorflow/session_bundle_config.proto."""
    path = tmp_path / "batching.config"
    path.write_text(
        "max_batch_size { value: 8 } batch_timeout_micros { value: 1500 } "
        "max_enqueued_batches { value: 7 } num_batch_threads { value: 3 } "
        'thread_pool_name { value: "mine" } allowed_batch_sizes: 2 allowed_batch_sizes: 8 '
        "pad_variable_length_inputs: true enable_large_batch_splitting { value: true } "
        "max_execution_batch_size { value: 4 }"
    )
    assert Options.read(read_batching(path)) == Options(
        request_limit=8,
        batch_limit=4,
        timeout=0.0015,
        max_enqueued=7,
        threads=3,
        pool="mine",
        allowed=(2, 8),
        pad=True,
        split=True,
    )
    with Scheduler(read_batching(path)):
        names = {thread.name for thread in threading.enumerate()}
    assert {"mine_0", "mine_1", "mine_2"} <= names


@pytest.mark.parametrize(
    "text",
    [
        "max_batch { value: 8 }",
        "max_batch_size: 8",
        "mixed_priority_batching_policy { value: 1 }",
        "allowed_batch_sizes { value: 8 }",
    ],
)
def test_an_unknown_field_is_an_error(text, tmp_path):
    """`ParseProtoTextFile` of util/proto_util.cc: the server does not start."""
    path = tmp_path / "batching.config"
    path.write_text(text)
    with pytest.raises(StatusError, match=r"Invalid protobuf file: '.*batching\.config'"):
        read_batching(path)


def test_missing_parameters_have_the_defaults_of_the_scheduler():
    """`QueueOptions` of tensorflow/core/kernels/batching_util/shared_batch_scheduler.h."""
    options = Options.read(parameters())
    assert (options.request_limit, options.batch_limit, options.max_enqueued) == (1000, 1000, 10)
    assert options.timeout == 0 and options.pool == "batch_threads" and not options.pad
    assert Options.read(parameters("max_enqueued_batches { value: 0 }")).max_enqueued == 1
    # `max_execution_batch_size` counts only with splitting (bundle_factory_util.h).
    text = "max_batch_size { value: 8 } max_execution_batch_size { value: 4 }"
    assert Options.read(parameters(text)).batch_limit == 8
    text = "max_batch_size { value: 8 } enable_large_batch_splitting { value: true }"
    assert Options.read(parameters(text)).batch_limit == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_batch_threads { value: 0 }", "num_batch_threads must be positive; was 0"),
        ("max_batch_size { value: 0 }", "input_batch_size_limit must be positive; was 0"),
        ("batch_timeout_micros { value: -5 }", "must be non-negative; was -5"),
        (
            "max_enqueued_batches { value: 0 } enable_large_batch_splitting { value: true }",
            "max_enqueued_batches must be positive; was 0",
        ),
        (
            "max_batch_size { value: 4 } max_execution_batch_size { value: 5 } "
            "enable_large_batch_splitting { value: true }",
            "greater than or equal to max_execution_batch_size",
        ),
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: 2 allowed_batch_sizes: 4",
            "must match max_batch_size; last entry was 4; expected 8",
        ),
    ],
)
def test_parameters_that_the_server_refuses(text, message):
    """`AddQueue` of shared_batch_scheduler.h; for sizes `WrapSessionForBatching`."""
    with pytest.raises(StatusError, match=message) as refused:
        Scheduler(parameters(text))
    assert refused.value.code == "INVALID_ARGUMENT"


# --- Merging --------------------------------------------------------------------------------------


def test_shorter_inputs_are_padded_with_their_first_element():
    """`PadTensor` of tensorflow_serving/batching/batching_util.cc."""
    options = Options.read(parameters("pad_variable_length_inputs: true"))
    merged = batching.merge(
        [
            {"x": np.array([[7, 8, 9]]), "s": np.array([b"a"], object)},
            {"x": np.array([[1, 2], [3, 4]]), "s": np.array([b"b", b"c"], object)},
        ],
        options,
    )
    assert merged["x"].tolist() == [[7, 8, 9], [1, 2, 1], [3, 4, 1]]
    assert merged["s"].tolist() == [b"a", b"b", b"c"]
    with pytest.raises(StatusError, match="empty tensor in batch of non-empty"):
        batching.merge([{"x": np.zeros((1, 2))}, {"x": np.zeros((1, 0))}], options)


def test_without_padding_unequal_lengths_fail_the_batch():
    """`MergeInputTensors` of tensorflow_serving/batching/batching_session.cc."""
    options = Options.read(parameters())
    with pytest.raises(StatusError, match="different shapes and padding is turned off") as refused:
        batching.merge([{"x": np.zeros((1, 2))}, {"x": np.zeros((1, 3))}], options)
    assert refused.value.code == "FAILED_PRECONDITION"
    merged = batching.merge([{"x": np.zeros((1, 2))}, {"x": np.ones((2, 2))}], options)
    assert merged["x"].tolist() == [[0, 0], [1, 1], [1, 1]]


def test_a_batch_grows_to_an_allowed_size_by_the_first_row_of_its_last_request():
    """`MergeInputTensors`, `SplitOutputTensors`, `RoundToLowestAllowedBatchSize`."""
    text = "max_batch_size { value: 8 } " + " ".join(f"allowed_batch_sizes: {n}" for n in (2, 4, 8))
    with busy(text) as (queue, held, send):
        one, two = send(1), send(2, 3)
    assert held.batches == [[0, 0], [1, 2, 3, 2]]
    assert one.result(20)["y"].tolist() == [[101]]
    assert two.result(20)["y"].tolist() == [[102], [103]]
    assert [queue.options.padded(n) for n in (1, 2, 3, 5, 8)] == [2, 2, 4, 8, 8]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"y": np.zeros(())}, "Batched output tensor has 0 dimensions"),
        ({"y": np.zeros((1, 2))}, "0th dimension does not equal the sum of the 0th dimension"),
    ],
)
def test_outputs_without_a_row_for_each_request_fail_the_batch(outputs, message):
    """`SplitOutputTensors` of tensorflow_serving/batching/batching_session.cc."""
    with Scheduler(parameters()) as scheduler:
        queue = scheduler.add(lambda inputs: outputs)
        with pytest.raises(StatusError, match=message) as refused:
            queue(rows(1, 2))
    assert refused.value.code == "FAILED_PRECONDITION"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "at least one input tensor"),
        ({"x": np.zeros(())}, "at least one dimension"),
        ({"x": np.zeros((2, 1)), "y": np.zeros((1, 1))}, "equal 0th-dimension size"),
    ],
)
def test_requests_without_a_number_of_rows_are_refused(inputs, message):
    """`ComputeTensorBatchSize` of tensorflow_serving/batching/batching_util.h."""
    with Scheduler(parameters()) as scheduler:
        queue = scheduler.add(lambda inputs: inputs)
        with pytest.raises(StatusError, match=message) as refused:
            queue(inputs)
    assert refused.value.code == "INVALID_ARGUMENT"


# --- The queue ------------------------------------------------------------------------------------


def test_a_batch_holds_the_requests_that_fit():
    """`ScheduleWithoutOrEagerSplitImpl` of shared_batch_scheduler.h."""
    with busy("max_batch_size { value: 4 }") as (queue, held, send):
        futures = [send(1, 2), send(3, 4, 5), send(6), send(7, 8, 9, 10), send(11, 12)]
        with pytest.raises(StatusError, match="Task size 5 is larger than maximum input batch s"):
            queue(rows(*range(5)))
    assert held.batches == [[0], [1, 2], [3, 4, 5, 6], [7, 8, 9, 10], [11, 12]]
    assert queue.sizes == [1, 1, 2, 1, 1]
    assert [f.result(20)["y"].tolist() for f in futures[1:3]] == [[[103], [104], [105]], [[106]]]


def test_a_full_queue_refuses_requests():
    """`ValidateBatchTaskQueueCapacity` of shared_batch_scheduler.h."""
    text = "max_batch_size { value: 2 } max_enqueued_batches { value: 2 }"
    with busy(text) as (queue, _, send):
        futures = [send(1, 2), send(3)]
        with pytest.raises(StatusError, match="full; currently 2 batches enqueued") as refused:
            queue(rows(8, 9))
        assert refused.value.code == "UNAVAILABLE"
        futures.append(send(4))  # there is room in the open batch
    assert [len(future.result(20)["y"]) for future in futures] == [2, 1, 1]


SPLITTING = "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 3 } "


def test_a_large_request_is_split_over_batches():
    """`SplitInputTask` of batching_session.cc: the first part fills the open batch."""
    with busy(SPLITTING + "max_batch_size { value: 10 }") as (queue, held, send):
        small, large, last = send(1), send(2, 3, 4, 5, 6, 7, 8), send(9, 10)
        with pytest.raises(StatusError, match="Task size 11 is larger than maximum input batch s"):
            queue(rows(*range(11)))
    assert held.batches == [[0], [1, 2, 3], [4, 5, 6], [7, 8, 9], [10]]
    assert small.result(20)["y"].tolist() == [[101]]
    assert large.result(20)["y"].ravel().tolist() == [102, 103, 104, 105, 106, 107, 108]
    assert last.result(20)["y"].ravel().tolist() == [109, 110]


def test_with_splitting_a_full_queue_counts_rows():
    """`SchedulingCapacityInternal` of shared_batch_scheduler.h."""
    text = SPLITTING + "max_batch_size { value: 10 } max_enqueued_batches { value: 2 }"
    with busy(text) as (queue, _, send):
        fits = send(1, 2, 3, 4)
        message = "full; task size is 3 but scheduling capacity is only 2 .num_enqueued_batches=2"
        with pytest.raises(StatusError, match=message) as refused:
            queue(rows(5, 6, 7))
        assert refused.value.code == "UNAVAILABLE"
    assert len(fits.result(20)["y"]) == 4


def test_parts_with_outputs_of_different_lengths_cannot_be_joined():
    """`tensor::Concat` of tensorflow/core/framework/tensor_util.cc compares no shapes.

    It takes the shape of the first part and copies the bytes of all: the server aborts, or mixes
    the rows. So `batching.config` must not split requests.
    """
    lengths = iter([2, 3])

    def call(inputs):
        return {"y": np.zeros((len(inputs["x"]), next(lengths)))}

    with (
        Scheduler(parameters(SPLITTING + "num_batch_threads { value: 1 }")) as scheduler,
        pytest.raises(StatusError, match="y: parts of different shapes") as refused,
    ):
        scheduler.add(call)(rows(1, 2, 3, 4))
    assert refused.value.code == "INTERNAL"


def test_an_error_reaches_every_request_of_its_batch_and_no_other():
    calls = []

    def call(inputs):
        calls.append(len(inputs["x"]))
        if np.any(inputs["x"] < 0):
            raise StatusError("INVALID_ARGUMENT", "negative")
        return inputs

    with Scheduler(parameters(SPLITTING + "num_batch_threads { value: 1 }")) as scheduler:
        queue = scheduler.add(call)
        with pytest.raises(StatusError, match="negative"):
            queue(rows(1, 2, 3, -4))  # only its second part fails
        assert queue(rows(5))["x"].tolist() == [[5]]
    assert calls == [3, 1, 1]


def test_a_request_of_no_rows_waits_for_the_next_one():
    """`PeekBatchPriorityImpl` of shared_batch_scheduler.h: a batch without rows is not due."""
    with (
        concurrent.futures.ThreadPoolExecutor(2) as pool,
        Scheduler(parameters("max_batch_size { value: 4 }")) as scheduler,
    ):
        queue = scheduler.add(lambda inputs: {"y": inputs["x"]})
        empty = pool.submit(queue, {"x": np.zeros((0, 1))})
        with pytest.raises(concurrent.futures.TimeoutError):
            empty.result(0.3)
        assert queue(rows(1))["y"].tolist() == [[1]]
        assert empty.result(20)["y"].shape == (0, 1)
        stays = pool.submit(queue, {"x": np.zeros((0, 1))})
        threading.Event().wait(0.1)
        scheduler.remove(queue)
        assert stays.result(20)["y"].shape == (0, 1)


def test_all_queues_share_the_threads_and_take_turns():
    """`GetNextWorkItem_Locked` of shared_batch_scheduler.h: one batch of a queue, then the next."""
    held, order = threading.Event(), []

    def call(name):
        def run(inputs):
            assert held.wait(20)
            order.append(name)
            return inputs

        return run

    text = "num_batch_threads { value: 1 } max_batch_size { value: 1 }"
    with (
        concurrent.futures.ThreadPoolExecutor(8) as pool,
        Scheduler(parameters(text)) as scheduler,
    ):
        queues = [scheduler.add(call(name)) for name in "ab"]
        futures = [pool.submit(queues[0], rows(0)) for _ in range(4)]
        while enqueued(queues[0]) < 3:  # the fourth is running
            threading.Event().wait(0.005)
        futures += [pool.submit(queues[1], rows(0)) for _ in range(3)]
        while enqueued(queues[1]) < 3:
            threading.Event().wait(0.005)
        held.set()
        concurrent.futures.wait(futures, timeout=20)
    assert "".join(order) in ("ababab" + "a", "aababab")


def test_no_request_waits_for_the_next_one():
    """Idle threads compete for the requests; one that comes too late continues with its batch."""
    text = "max_batch_size { value: 64 } num_batch_threads { value: 8 } "
    with (
        concurrent.futures.ThreadPoolExecutor(8) as pool,
        Scheduler(parameters(text + "batch_timeout_micros { value: 200 }")) as scheduler,
    ):
        queue = scheduler.add(lambda inputs: {"y": inputs["x"] + 1})
        for wave in range(300):
            futures = [pool.submit(queue, rows(wave)) for _ in range(8)]
            _, pending = concurrent.futures.wait(futures, timeout=20)
            assert not pending, f"{len(pending)} requests of wave {wave} are still waiting"
            assert [future.result()["y"].item() for future in futures] == [wave + 1] * 8


def test_the_timeout_bounds_the_wait_of_a_single_request():
    """`PeekBatchPriorityImpl`: an open batch is due `batch_timeout_micros` after its first task."""
    with Scheduler(parameters("batch_timeout_micros { value: 300000 }")) as scheduler:
        queue, timer = scheduler.add(lambda inputs: inputs), threading.Event()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            future = pool.submit(queue, rows(1))
            timer.wait(0.1)
            assert not future.done()
            assert future.result(20)["x"].tolist() == [[1]]
