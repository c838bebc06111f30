"""Workers that a Ray cluster starts, of which some are killed."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap

from common.commands import cluster
from common.commands.config import RunConfig
from common.errors import InputError, TrainingError
from tests.tasks.own import sentiment as own

import numpy as np
import pytest
import tensorflow as tf

# Two processes, which fail as often as the file `failures` says, and print what they were given.
COMMAND = """
    import dataclasses, json, os, pathlib, sys
    from common.commands import cli
    from common.commands.config import RunConfig
    from common.errors import InputError

    def main(argv):
        config = cli.parse_train(RunConfig, {"x": RunConfig()}, default="x", argv=argv, doc="")
        place = json.loads(os.environ["TF_CONFIG"])
        index = place["task"]["index"]
        print("worker", index, len(set(place["cluster"]["worker"])), config.strategy, config.resume)
        if config.seed == 7:
            raise InputError("seven is no seed")
        left = pathlib.Path("failures")
        if index == 1 and left.exists():
            count = int(left.read_text())
            left.write_text(str(count - 1)) if count > 1 else left.unlink()
            os._exit(9)

    cli.run(main)
"""


@pytest.fixture
def run(tmp_path, command_environment, pytestconfig):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(COMMAND))

    def run(*words, failures=0):
        if failures:
            (tmp_path / "failures").write_text(str(failures))
        return subprocess.run(
            [sys.executable, str(script), "--workers", "2", *words],
            cwd=tmp_path,
            env={**command_environment, "PYTHONPATH": str(pytestconfig.rootpath)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.distribution
def test_lost_workers_are_started_again_and_resume(run):
    done = run(failures=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "worker 0 2 multiworker False",
        "worker 0 2 multiworker True",
        "worker 0 2 multiworker True",
    ]
    assert len(re.findall(r"^worker [01]: process \d+ on [\d.]+:\d+$", done.stderr, re.M)) == 6
    again = "worker 1 ended with exit code 9; starting all 2 again from the last checkpoint"
    assert done.stderr.count(again) == 2


@pytest.mark.distribution
def test_too_many_failures_and_wrong_input_end_the_run(run):
    done = run("--max_failures", "1", failures=3)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: worker 1 ended with exit code 9, after 1 restarts (--max_failures)"
    )
    done = run("--seed", "7")
    assert done.returncode == 2 and "seven is no seed" in done.stdout + done.stderr
    assert "starting all" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 2, "strategy": "tpu"}, "--workers 2 is not for --strategy tpu"),
        ({"cluster": "auto"}, "--cluster needs --workers 2 or more"),
        ({"workers": 0}, "--workers must be 1 or more, got 0"),
        ({"max_failures": -1}, "--max_failures must be 0 or more, got -1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        RunConfig(**settings)
    assert RunConfig(workers=2).strategy == "multiworker"


class Ray:
    """Stands for the library: it keeps the settings of its start, or does not start."""

    def __init__(self, error=None):
        self.error, self.settings, self.is_running = error, None, False

    def init(self, **settings):
        if self.error:
            raise self.error
        self.settings, self.is_running = settings, True

    def shutdown(self):
        self.is_running = False


def test_a_cluster_of_its_own_is_started_unless_one_is_named():
    own, named = Ray(), Ray()
    with cluster.connected(own, 2, None) as cores:
        assert own.is_running and own.settings["num_cpus"] == 2 * cores
    # Without an address Ray would join a cluster that happens to run on this machine.
    assert own.settings["address"] == "local" and not own.is_running
    with cluster.connected(named, 2, "10.0.0.1:6379"):
        assert named.settings["address"] == "10.0.0.1:6379"
        assert "num_cpus" not in named.settings


@pytest.mark.parametrize(
    ("address", "message"),
    [(None, "Ray did not start: timed out"), ("a:1", "Ray at a:1 cannot be reached: timed out")],
)
def test_ray_that_does_not_start_is_reported(address, message):
    with (
        pytest.raises(TrainingError, match=message),
        cluster.connected(Ray(ConnectionError("timed out")), 2, address),
    ):
        raise AssertionError


def weights(folder):
    reader = tf.train.load_checkpoint(str(folder / "sentiment" / "1" / "variables" / "variables"))
    names = [n for n in reader.get_variable_to_shape_map() if "CHECKPOINTABLE" not in n]
    return {name: reader.get_tensor(name) for name in sorted(names)}


@pytest.mark.slow
@pytest.mark.distribution
@pytest.mark.thorough
def test_a_training_of_which_a_worker_is_killed_twice_ends_as_an_undisturbed_one(
    tmp_path, command_environment, pytestconfig
):
    own.write_data(tmp_path)
    words = [*map(str, own.TRAIN)]
    words[words.index("--epochs") + 1] = "6"
    words[words.index("--score") + 1] = "none"
    words[words.index("--verbose") + 1] = "2"
    environment = {**command_environment, "PYTHONPATH": str(pytestconfig.rootpath)}

    def start(output):
        command = [sys.executable, "-m", "tasks.sentiment.train", *words]
        command += ["--workers", "2", "--deterministic", "--output", str(output)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes)

    whole = start(tmp_path / "whole")
    output, _ = whole.communicate()
    assert whole.returncode == 0, output
    process = start(tmp_path / "killed")
    lines, pids, kills = [], [], 0
    for line in process.stdout:
        lines.append(line)
        if found := re.match(r"worker \d: process (\d+) on", line):
            pids = [*pids, int(found[1])][-2:]
        epoch = re.match(r"Epoch (\d)/6", line)
        if epoch and kills < 2 and int(epoch[1]) == 2 + 2 * kills:
            os.kill(pids[kills], signal.SIGKILL)
            kills += 1
    process.stdout.close()
    assert process.wait() == 0, "".join(lines)
    assert kills == 2
    assert json.loads(lines[-1])["task"] == "sentiment"
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
