"""Several worker processes on this machine give the results of one process."""

import functools
import json
import os
import subprocess
import sys
import textwrap
import time

from common.errors import InputError
from common.serving.versions import versions
from common.training.checkpoint import CHECKPOINT, LOG
from common.training.distribution import (
    chief_first,
    from_chief,
    gather,
    make_strategy,
    split_batch,
    trace_step,
    wait_for_all,
    worker_index,
)
from tests.common.training import test_fit
from tests.ports import free_ports
from tests.tasks.exports import TASKS

import numpy as np
import pytest
import tensorflow as tf


def uneven(epoch):
    """Return batches of 15, 14 and a single row.

    So the workers get parts of different sizes, some of which the other worker never gets, and one
    part is empty.
    """
    rows = [np.arange(30), np.arange(30, 58), np.arange(58, 59), np.arange(59, 74)]
    parts = [test_fit.batches(r, size) for r, size in zip(rows, (15, 14, 1, 15), strict=True)]
    return functools.reduce(tf.data.Dataset.concatenate, parts)


def validation():
    """Return batches of 7 rows and of one, whose filler row on the other worker is not valid."""
    return test_fit.batches(np.arange(80, 95), 7)


WORKER = """
    import pathlib, sys
    from common.commands import cli
    from common.training import distribution
    from tests.common.training import test_distribution, test_fit
    import numpy as np

    def main(argv):
        folder, epochs = pathlib.Path(argv[0]), int(argv[1])
        strategy = distribution.make_strategy("multiworker")
        index = distribution.worker_index(strategy)
        with distribution.chief_first(strategy):
            # The other workers run this after the chief.
            if index == 0:
                (folder / "prepared").touch()
            assert (folder / "prepared").exists()
        model, fitted = test_fit.run(
            folder, epochs=epochs, strategy=strategy, clip_norm=0.5, average=0.5, resume=True,
            train=test_distribution.uneven, validation=test_distribution.validation(),
        )
        losses = [row["val_loss"] for row in fitted.history]
        errors = [row["val_error"] for row in fitted.history]
        np.savez(
            folder / f"worker_{index}.npz",
            weights=test_fit.weights(model), losses=losses, errors=errors,
        )
        distribution.wait_for_all(strategy)

    cli.run(main)
"""


def start(commands, folder, environment):
    """Start a cluster of one worker per command; the output of each goes to its own files."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(len(commands))]
    processes = []
    for index, command in enumerate(commands):
        task = {"type": "worker", "index": index}
        cluster = json.dumps({"cluster": {"worker": workers}, "task": task})
        with (
            open(folder / f"worker_{index}.out", "w") as out,
            open(folder / f"worker_{index}.err", "w") as error,
        ):
            processes.append(
                subprocess.Popen(
                    command,
                    cwd=folder,
                    env={**environment, "TF_CONFIG": cluster},
                    stdout=out,
                    stderr=error,
                )
            )
    return processes


def wait(processes, folder, seconds=300):
    """Wait for all processes; return their exit codes, or raise with the chief's messages."""
    try:
        return [process.wait(seconds) for process in processes]
    except subprocess.TimeoutExpired:
        raise AssertionError((folder / "worker_0.err").read_text()[-3000:]) from None
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture
def worker(tmp_path, command_environment, pytestconfig):
    """A function that starts two workers, which fit the model of `test_fit` in a folder."""
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    environment = {**command_environment, "PYTHONPATH": str(pytestconfig.rootpath)}

    def start_two(folder, epochs):
        folder.mkdir(exist_ok=True)
        command = [sys.executable, str(script), str(folder), str(epochs)]
        return start([command, command], tmp_path, environment)

    return start_two


def one_process(folder, epochs):
    """Run the same fit in this process."""
    return test_fit.run(
        folder,
        epochs=epochs,
        clip_norm=0.5,
        average=0.5,
        train=uneven,
        validation=validation(),
    )


@pytest.mark.distribution
def test_two_workers_give_the_result_of_one_process(tmp_path, worker):
    assert wait(worker(tmp_path / "two", 3), tmp_path) == [0, 0]
    model, fitted = one_process(tmp_path / "one", 3)
    results = [np.load(tmp_path / "two" / f"worker_{index}.npz") for index in range(2)]
    for name in results[0].files:  # includes the validation over all workers
        np.testing.assert_array_equal(results[0][name], results[1][name])
    np.testing.assert_allclose(results[0]["weights"], test_fit.weights(model), atol=1e-5)
    for column in ("loss", "error"):
        expected = [row[f"val_{column}"] for row in fitted.history]
        name = {"loss": "losses", "error": "errors"}[column]
        np.testing.assert_allclose(results[0][name], expected, rtol=1e-5)


@pytest.mark.distribution
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_worker_ends_the_run_and_a_restart_finishes_it(tmp_path, worker, victim):
    folder = tmp_path / "run"
    processes = worker(folder, 5000)
    deadline = time.time() + 120
    while not (folder / LOG).exists():
        assert time.time() < deadline and processes[0].poll() is None
        time.sleep(0.05)
    processes[victim].kill()
    processes[victim].wait()
    assert processes[1 - victim].wait(30) == 1  # within 30 seconds
    messages = (tmp_path / f"worker_{1 - victim}.err").read_text().splitlines()
    advice = "Finished epochs are kept: start all workers again with --resume."
    assert messages[-1] == f"error: another worker is lost. {advice}"

    done = len((folder / LOG).read_text().splitlines()) - 1
    epochs = done + 3
    assert wait(worker(folder, epochs), tmp_path) == [0, 0]
    assert len((folder / LOG).read_text().splitlines()) - 1 == epochs
    model, _ = one_process(tmp_path / "uninterrupted", epochs)
    resumed = np.load(folder / "worker_1.npz")["weights"]
    np.testing.assert_allclose(resumed, test_fit.weights(model), atol=1e-5)


@pytest.mark.distribution
@pytest.mark.parametrize(
    "task", [t if t == "sentiment" else pytest.param(t, marks=pytest.mark.slow) for t in TASKS]
)
def test_each_task_trains_on_two_workers(task, tmp_path, command_environment):
    own = __import__(f"tests.tasks.own.{task}", fromlist=["TRAIN"])
    own.write_data(tmp_path)
    command = [sys.executable, "-m", f"tasks.{task}.train", *map(str, own.TRAIN)]
    command += ["--epochs", "1", "--strategy", "multiworker"]
    processes = start([command, command], tmp_path, command_environment)
    codes = wait(processes, tmp_path, seconds=500)
    assert codes == [0, 0], (tmp_path / "worker_0.err").read_text()[-3000:]
    result = json.loads((tmp_path / "worker_0.out").read_text().splitlines()[-1])
    assert result["task"] == task and result["examples"] > 0
    folder = tmp_path / "saved_models" / task
    assert versions(folder) == [1]
    assert "the chief publishes" in (tmp_path / "worker_1.err").read_text()
    checkpoints = {path.relative_to(folder).as_posix() for path in folder.rglob(CHECKPOINT)}
    assert checkpoints == {f"run/{CHECKPOINT}"}


# --- Without other workers ------------------------------------------------------------------------


def test_a_step_is_traced_once_for_batches_of_all_sizes():
    strategy, traced = make_strategy("one"), []

    @tf.function
    def step(batch, count):
        assert count is None
        traced.append(batch["x"].shape.as_list())
        return tf.reduce_sum(batch["x"])

    batches = tf.data.Dataset.range(1, 6).map(lambda n: {"x": tf.ones([n])}).padded_batch(2)
    sums = [float(trace_step(step, batches, strategy)(*split_batch(b, strategy))) for b in batches]
    assert sums == [3.0, 7.0, 5.0] and traced == [[None, None]]


def test_one_process_changes_nothing():
    strategy = make_strategy("one")
    batch = {"x": tf.constant([[1.0], [2.0]]), "text": tf.constant(["a", "b"])}
    assert split_batch(batch, strategy) == (batch, None)
    np.testing.assert_array_equal(gather({"y": batch["x"]})["y"], [[1.0], [2.0]])
    np.testing.assert_array_equal(from_chief(np.array([1, 2], np.uint8), strategy), [1, 2])
    assert worker_index(strategy) == 0
    wait_for_all(strategy)
    with chief_first(strategy):
        pass


@pytest.mark.parametrize(
    "value",
    [
        None,
        "{",
        "[]",
        '{"cluster": {"worker": ["127.0.0.1:1"]}}',
        '{"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "chief", "index": 0}}',
    ],
)
def test_multiworker_needs_a_cluster(value, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if value is not None:
        monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(InputError, match="TF_CONFIG must name all workers and this one"):
        make_strategy("multiworker")


def test_a_missing_tpu_is_reported(monkeypatch):
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(InputError, match="--strategy tpu: no TPU was found"):
        make_strategy("tpu")
    assert "TF_CONFIG" not in os.environ
