"""All seven exports on the Triton inference server: written by others, and run without a GPU.

    python -m pytest -n 0 tests -m triton

The first run makes an environment of 2 GB in `.pytest_cache`; see `server.py`. All requests are
sent by NVIDIA's client library, in a process of its own.
"""

import threading

from common.serving import check
from tests.serving import test_robustness as fuzz
from tests.tasks.exports import TASKS
from tests.triton.server import add_version

import numpy as np
import pytest
from hypothesis import given, settings

pytestmark = [pytest.mark.triton, pytest.mark.timeout(3600)]


def records(version):
    """Yield the signature, inputs and outputs of each warm-up record."""
    for record in check.read_records(version):
        inputs, outputs = (
            check.to_arrays(side) for side in (record.request.inputs, record.response.outputs)
        )
        yield record.request.model_spec.signature_name, inputs, outputs


def rows(version):
    """Return each row of the records of `serving_default`: its inputs and outputs."""
    return [
        tuple(
            {name: array[n : n + 1] for name, array in side.items()} for side in (inputs, outputs)
        )
        for signature, inputs, outputs in records(version)
        if signature == "serving_default"
        for n in range(len(next(iter(inputs.values()))))
    ]


def as_types(served, inputs):
    """Return inputs of `serving_default` in the types of its tensors."""
    specs = served.functions["serving_default"].structured_input_signature[1]
    return {
        name: np.asarray(array).astype(specs[name].dtype.as_numpy_dtype)
        for name, array in inputs.items()
    }


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("task", TASKS)
def test_every_warm_up_record_gets_its_recorded_outputs(task, protocol, server, root):
    signatures, inputs, expected = zip(*records(root / task / "1"), strict=True)
    requests = [(task, *one) for one in zip(signatures, inputs, strict=True)]
    _, results = server.send(requests, protocol=protocol)
    assert set(signatures) == set(check.read_signatures(root / task / "1"))
    for (_, version, outputs), recorded in zip(results, expected, strict=True):
        assert version == 1, outputs  # an error has none
        assert set(outputs) == set(recorded)
        for name, array in recorded.items():
            assert check.difference(outputs[name], array) <= 1e-5, name


@pytest.mark.parametrize("task", TASKS)
def test_64_clients_at_once_get_their_own_outputs(task, server, root):
    answers = rows(root / task / "1")
    chosen = [answers[n % len(answers)] for n in range(512)]
    before = server.counts(task)
    _, results = server.send([(task, "serving_default", inputs) for inputs, _ in chosen], 64)
    requests, executions = np.subtract(server.counts(task), before)
    assert requests == 512 and executions < 256  # Triton has merged them
    # As in tests/serving/test_server.py: sums of logarithms of some hundreds, in another order.
    tolerance = 1e-3 if task == "dna" else 1e-5
    for (_, version, outputs), (_, recorded) in zip(results, chosen, strict=True):
        assert version == 1, outputs
        fuzz.assert_rows_equal(outputs, recorded, tolerance)


def fuzzed(task, count):
    """Return `count` random rows, most of them invalid in some way; always the same."""
    drawn = []

    @given(fuzz.STRATEGIES[task])
    @settings(max_examples=count, derandomize=True, database=None, deadline=None)
    def draw(row):
        drawn.append(row)

    draw()
    return (drawn * count)[:count]  # Hypothesis draws no row twice, and fewer if there are fewer


@pytest.mark.parametrize("task", TASKS)
def test_1000_fuzzed_rows_never_change_the_good_rows_merged_with_them(task, server, served):
    good = fuzz.rows_of(task)[:2]
    mixed = [row for n, bad in enumerate(fuzzed(task, 1000)) for row in (bad, good[n % 2])]
    inputs = [as_types(served[task], fuzz.request(task, [row], n)) for n, row in enumerate(mixed)]
    before = server.counts(task)
    _, results = server.send([(task, "serving_default", one) for one in inputs], 64)
    requests, executions = np.subtract(server.counts(task), before)
    assert requests == len(mixed) and executions < len(mixed) / 2
    alone = [served[task].call("serving_default", **inputs[1 + 2 * n]) for n in range(2)]
    for n, (_, version, outputs) in enumerate(results):
        assert version == 1, outputs
        fuzz.check_outputs(served[task], task, [mixed[n]], outputs)
        if n % 2:
            fuzz.assert_rows_equal(outputs, alone[n // 2 % 2])


def test_versions_are_replaced_under_traffic_without_an_error(server, repository, root):
    answers = rows(root / "sentiment" / "1")
    chosen = [answers[n % len(answers)] for n in range(500)]
    requests = [("sentiment", "serving_default", inputs) for inputs, _ in chosen]
    results, stop = [], threading.Event()

    def traffic():
        while not stop.is_set():
            results.extend(server.send(requests, clients=8)[1])

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        for version in (2, 3, 4, 5):
            add_version(repository, "sentiment", version, root / "sentiment" / "1")
            server.load("sentiment")
    finally:
        stop.set()
        thread.join()
    results.extend(server.send(requests, clients=8)[1])
    versions = [version for _, version, _ in results]
    assert versions[0] == 1 and set(versions) == {1, 2, 3, 4, 5}
    for (_, _, outputs), (_, recorded) in zip(results, chosen * len(results), strict=False):
        fuzz.assert_rows_equal(outputs, recorded)


def test_errors_reach_one_client_and_the_server_lives(server, root):
    inputs, recorded = rows(root / "sentiment" / "1")[0]
    (text,) = inputs.values()
    bad = [
        ("sentiment", "serving_default", {"text": text[None, None]}),  # rank
        ("sentiment", "serving_default", {"text": np.zeros(1, np.float32)}),  # type
        ("sentiment", "serving_default", {"text": np.repeat(text, 65)}),  # rows
        ("sentiment", "other", {"text": text}),
        ("another", "serving_default", {"text": text}),
    ]
    _, results = server.send([*bad, ("sentiment", "serving_default", inputs)])
    *errors, (_, _, outputs) = results
    assert [version for _, version, _ in errors] == [None] * len(bad)
    fuzz.assert_rows_equal(outputs, recorded)


def test_memory_stays_flat_over_10000_requests(server, root):
    requests = []
    for task in TASKS:
        requests += [(task, "serving_default", inputs) for inputs, _ in rows(root / task / "1")]
    many = (requests * 10_000)[:10_000]
    server.send(many[:2_000], 8, outputs=False)
    before = server.megabytes()
    _, results = server.send(many, 8, outputs=False)
    after = server.megabytes()
    assert all(version for _, version, _ in results)
    growth = {name: round(after[name] - size, 1) for name, size in before.items()}
    print(f"megabytes: {before}, after 10,000 requests: {growth} more")
    assert max(growth.values()) < 20
