"""The command itself, on a CPU: all of it but the GPU."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_command_runs_to_its_last_line(command_environment):
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu", "--device", "CPU", "--repeats", "2"],
        capture_output=True,
        text=True,
        check=False,
        env=command_environment,
    )
    facts = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout[-3000:]
    assert facts["failed"] == {} and facts["passed"] > 40
    assert facts["train_keras_over_ours"] > 0 and facts["export_keras_over_ours"] > 0


@pytest.mark.commands
def test_without_a_gpu_the_command_says_so(command_environment):
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu"],
        capture_output=True,
        text=True,
        check=False,
        env=command_environment,
    )
    assert done.returncode == 1
    assert "finds no GPU" in json.loads(done.stdout.splitlines()[-1])["error"]
