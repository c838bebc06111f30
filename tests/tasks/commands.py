"""What the tests of the tasks share: commands run as a user runs them, and what all exports owe."""

import json
import signal
import subprocess
import sys
import time

from common import export


def run(command, *words, folder, environment, **kwargs):
    """Runs `python -m tasks.<command>`, such as `ner.train`, in a folder."""
    line = [sys.executable, "-m", f"tasks.{command}", *map(str, words)]
    return subprocess.run(
        line, cwd=folder, env=environment, capture_output=True, text=True, check=False, **kwargs
    )


def heed_ctrl_c():
    """For `preexec_fn`: a process started in the background of a shell ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def train_and_kill(task, *words, folder, environment, epochs=2, seconds=240):
    """Kills a training run in the middle of the epoch behind the first `epochs` ones.

    The words must ask for more epochs, which are still running then.
    """
    line = [sys.executable, "-m", f"tasks.{task}.train", *map(str, words)]
    process = subprocess.Popen(line, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    log = folder / "saved_models" / task / "run" / "log.csv"
    deadline = time.time() + seconds
    while not (log.exists() and len(log.read_text().splitlines()) > epochs):
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.02)
    time.sleep(0.2)  # in the middle of the next one
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert export.versions(log.parent.parent) == []


def check_signatures(served, golden):
    """Compares the names, types and shapes of an export's signatures with a file."""
    found = {}
    for name, function in served.functions.items():
        specs = function.structured_input_signature[1]
        found[name] = {
            "inputs": {k: [s.dtype.name, s.shape.as_list()] for k, s in sorted(specs.items())},
            "outputs": {
                k: [s.dtype.name, s.shape.as_list()]
                for k, s in sorted(function.structured_outputs.items())
            },
        }
    assert found == json.loads(golden.read_text())


def check_version(version, *expected):
    """A version has all its files, pictures included, and its card says all that is expected."""
    for name in ("saved_model.pb", "variables", "assets", "model.keras", "model_card.md"):
        assert (version / name).exists(), name
    card = (version / "model_card.md").read_text()
    for text in expected:
        assert text in card
    for line in card.splitlines():
        if line.startswith("!["):
            assert (version / line.split("(")[1].rstrip(")")).stat().st_size > 5000
