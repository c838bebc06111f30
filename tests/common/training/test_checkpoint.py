"""The folder of a run: damaged and foreign checkpoints, and the lock of the folder."""

import os
import shutil
import subprocess
import sys

from common.errors import InputError, TrainingError
from common.training import checkpoint
from common.training.checkpoint import BEFORE, CHECKPOINT, RunState

import numpy as np
import pytest
import tensorflow as tf

SETTINGS = {"units": 4, "seed": 1}
FINGERPRINTS = {"training data": "1a", "labels": "2b", "vocabulary": "3c"}
START = RunState(SETTINGS, FINGERPRINTS)


def variables(value=0.0):
    return {
        "model": [tf.Variable(np.full((3, 2), value)), tf.Variable(np.full(5000, value))],
        "optimizer": [tf.Variable(np.int64(value))],
    }


def save_epochs(folder, count):
    """Write the checkpoint of each epoch, whose variables all hold its number."""
    for epoch in range(1, count + 1):
        row = {"epoch": epoch, "loss": 1.0 / epoch}
        state = RunState(SETTINGS, FINGERPRINTS, epoch=epoch, history=[row] * epoch)
        checkpoint.save(folder, state, variables(epoch), [np.full(3, epoch)])


def restored_epoch(folder):
    """Return the epoch of the restored checkpoint, after checking that all of it is restored."""
    restored = variables()
    state, best = checkpoint.restore(folder, START, restored)
    for variable in tf.nest.flatten(restored):
        np.testing.assert_array_equal(variable, np.full(variable.shape, state.epoch))
    np.testing.assert_array_equal(best, [np.full(3, state.epoch)])
    assert [row["epoch"] for row in state.history] == [state.epoch] * state.epoch
    return state.epoch


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # within the values of the long variable
    path.write_bytes(content)


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": cut,
    "garbage": lambda path: path.write_bytes(os.urandom(999)),
    "pickle": lambda path: path.write_bytes(b"\x80\x04K\x01."),
    "one bit": flip,
    "another archive": lambda path: np.savez(path, other=np.zeros(3)),
    "no state": lambda path: np.savez(path, state=np.frombuffer(b"[1]", np.uint8)),
    "missing": lambda path: path.unlink(),
}
damages = pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)


@damages
def test_the_epoch_before_replaces_a_damaged_checkpoint(damage, tmp_path, capsys):
    save_epochs(tmp_path, 3)
    damage(tmp_path / CHECKPOINT)
    is_missing = not (tmp_path / CHECKPOINT).exists()
    assert restored_epoch(tmp_path) == 2
    printed = capsys.readouterr().err
    if not is_missing:  # a run killed between two writes; nothing is wrong with its files
        assert f"{tmp_path / CHECKPOINT} is damaged (" in printed
        assert f"the run resumes from {tmp_path / BEFORE}" in printed
    # The next save keeps the good one as the one before, not the damaged one.
    checkpoint.save(
        tmp_path, RunState(SETTINGS, FINGERPRINTS, 3, history=[{}] * 3), variables(3), []
    )
    (tmp_path / CHECKPOINT).unlink()
    assert restored_epoch(tmp_path) == 2


@damages
def test_a_run_with_damaged_checkpoints_only_is_not_resumed(damage, tmp_path):
    save_epochs(tmp_path, 1)
    damage(tmp_path / CHECKPOINT)
    if not checkpoint.exists(tmp_path):  # then it starts anew
        return
    with pytest.raises(TrainingError, match=r"is damaged .*leave out --resume to start anew"):
        checkpoint.restore(tmp_path, START, variables())


def test_what_has_changed_is_named(tmp_path):
    save_epochs(tmp_path, 1)
    for name in FINGERPRINTS:
        other = RunState(SETTINGS, {**FINGERPRINTS, name: "other"})
        with pytest.raises(TrainingError, match=rf"{CHECKPOINT} was made from other {name}: "):
            checkpoint.restore(tmp_path, other, variables())
    other = RunState({**SETTINGS, "seed": 2}, FINGERPRINTS)
    with pytest.raises(TrainingError, match="was made with another seed: give the same settings"):
        checkpoint.restore(tmp_path, other, variables())
    assert restored_epoch(tmp_path) == 1


def test_clear_removes_every_checkpoint(tmp_path):
    save_epochs(tmp_path, 2)
    checkpoint.clear(tmp_path)
    assert not checkpoint.exists(tmp_path) and not list(tmp_path.iterdir())


HOLD = """
import pathlib, sys
from common.training import checkpoint
checkpoint.lock(pathlib.Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_folder_is_locked_until_its_process_ends(tmp_path, pytestconfig):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=pytestconfig.rootpath
    ) as holder:
        assert holder.stdout.readline() == b"locked\n"
        reason = rf"another training run uses this folder \(process {holder.pid}\).*--output"
        with pytest.raises(InputError, match=reason):
            checkpoint.lock(tmp_path)
        holder.kill()
    checkpoint.lock(tmp_path)
    checkpoint.lock(tmp_path)  # the same process may train again
    shutil.rmtree(tmp_path)
