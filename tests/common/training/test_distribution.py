"""Several worker processes on this machine, against one process."""

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import textwrap
import time

from common.errors import InputError
from common.serving.served import versions
from common.training.distribution import (
    chief_first,
    from_chief,
    gather,
    in_step,
    make_strategy,
    share,
    wait_for_all,
    worker_index,
)
from common.training.fit import CHECKPOINT, LOG
from tests.common.training import test_fit
from tests.tasks.exports import TASKS

import numpy as np
import pytest
import tensorflow as tf


def uneven(epoch):
    """Batches of 15, 14 and a single row.

    Shares differ, some have a size that only one of the workers has seen, and one is empty.
    """
    rows = [np.arange(30), np.arange(30, 58), np.arange(58, 59), np.arange(59, 74)]
    parts = [test_fit.batches(r, size) for r, size in zip(rows, (15, 14, 1, 15), strict=True)]
    return functools.reduce(tf.data.Dataset.concatenate, parts)


def validation():
    """Batches of 7 rows and of a single one, whose stand-in on the other worker must not count."""
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
            # Those that come later find what the chief has written.
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


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def start(commands, folder, environment):
    """Starts a cluster of one worker for each command; standard error goes to a file each."""
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
    """Waits for all; gives their exit codes, or says what they said."""
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
    """Starts two workers that fit the model of `test_fit` in a folder."""
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    environment = {**command_environment, "PYTHONPATH": str(pytestconfig.rootpath)}

    def start_two(folder, epochs):
        folder.mkdir(exist_ok=True)
        command = [sys.executable, str(script), str(folder), str(epochs)]
        return start([command, command], tmp_path, environment)

    return start_two


def one_process(folder, epochs):
    """The same fit in this process."""
    return test_fit.run(
        folder,
        epochs=epochs,
        clip_norm=0.5,
        average=0.5,
        train=uneven,
        validation=validation(),
    )


@pytest.mark.distribution
def test_two_workers_give_what_one_process_gives(tmp_path, worker):
    assert wait(worker(tmp_path / "two", 3), tmp_path) == [0, 0]
    model, fitted = one_process(tmp_path / "one", 3)
    found = [np.load(tmp_path / "two" / f"worker_{index}.npz") for index in range(2)]
    for name in found[0].files:  # validation over all workers included
        np.testing.assert_array_equal(found[0][name], found[1][name])
    np.testing.assert_allclose(found[0]["weights"], test_fit.weights(model), atol=1e-5)
    for column in ("loss", "error"):
        expected = [row[f"val_{column}"] for row in fitted.history]
        name = {"loss": "losses", "error": "errors"}[column]
        np.testing.assert_allclose(found[0][name], expected, rtol=1e-5)


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
    said = (tmp_path / f"worker_{1 - victim}.err").read_text().splitlines()
    kept = "Finished epochs are kept: start all workers again with --resume."
    assert said[-1] == f"error: another worker is lost. {kept}"

    done = len((folder / LOG).read_text().splitlines()) - 1
    epochs = done + 3
    assert wait(worker(folder, epochs), tmp_path) == [0, 0]
    assert len((folder / LOG).read_text().splitlines()) - 1 == epochs
    model, _ = one_process(tmp_path / "undisturbed", epochs)
    found = np.load(folder / "worker_1.npz")["weights"]
    np.testing.assert_allclose(found, test_fit.weights(model), atol=1e-5)


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
    kept = {path.relative_to(folder).as_posix() for path in folder.rglob(CHECKPOINT)}
    assert kept == {f"run/{CHECKPOINT}"}


# --- without other workers ------------------------------------------------------------------------


def test_a_step_is_traced_once_whatever_the_sizes_of_the_batches():
    strategy, traced = make_strategy("one"), []

    @tf.function
    def step(batch, count):
        assert count is None
        traced.append(batch["x"].shape.as_list())
        return tf.reduce_sum(batch["x"])

    batches = tf.data.Dataset.range(1, 6).map(lambda n: {"x": tf.ones([n])}).padded_batch(2)
    sums = [float(in_step(step, batches, strategy)(*share(b, strategy))) for b in batches]
    assert sums == [3.0, 7.0, 5.0] and traced == [[None, None]]


def test_alone_nothing_changes():
    strategy = make_strategy("one")
    batch = {"x": tf.constant([[1.0], [2.0]]), "text": tf.constant(["a", "b"])}
    assert share(batch, strategy) == (batch, None)
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
def test_a_cluster_must_be_named(value, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if value is not None:
        monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(InputError, match="TF_CONFIG must name all workers and this one"):
        make_strategy("multiworker")


def test_a_tpu_must_be_there(monkeypatch):
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(InputError, match="--strategy tpu: no TPU is found"):
        make_strategy("tpu")
    assert "TF_CONFIG" not in os.environ
