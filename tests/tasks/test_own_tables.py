"""Large files of the user, for the tasks that keep them on disk: training is the same.

The same test of sentiment is in `tests/tasks/sentiment/test_tables.py`, since its batches differ
from those in memory.
"""

import csv
import sys
import textwrap
from importlib import import_module

from common.training.checkpoint import LOG
from tests.common.training import test_distribution

import numpy as np
import pytest

WORKER = """
    import os
    from common import tables
    from common.commands import cli
    from tasks.{task} import train
    import numpy as np

    if "STORED" in os.environ:
        tables.LARGE = 0
    read_rows, counted = tables.Table.read, []
    tables.Table.read = lambda self, rows: counted.append(len(rows)) or read_rows(self, rows)
    train_model = train.train_model

    def train_and_save(*arguments):
        trained = train_model(*arguments)
        np.savez(os.environ["WEIGHTS"], *trained[0].get_weights())
        return trained

    train.train_model = train_and_save
    try:
        cli.run(train.main)
    finally:
        print("read", sum(counted), flush=True)
"""
# Every random choice of these tasks that depends on the rows.
FLAGS = {
    "ner": ("--exchange", "0.3", "--lower_case", "0.3", "--titles", "0.2"),
    "translation": ("--subword_dropout", "0.1"),
}
EPOCHS = 3
# Rows that each process reads to make vocabularies, to encode and to vary, of 320 rows.
BESIDE = {"ner": 2, "translation": 3 + EPOCHS}


@pytest.mark.distribution
@pytest.mark.commands
@pytest.mark.parametrize("task", FLAGS)
def test_training_from_disk_is_that_from_memory_also_by_two_workers(
    task, tmp_path, command_environment, pytestconfig
):
    own = import_module(f"tests.tasks.own.{task}")
    own.write_data(tmp_path)
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER.format(task=task)))
    environment = {**command_environment, "PYTHONPATH": str(pytestconfig.rootpath)}
    words = ["--data", str(own.TRAIN[1]), *own.TINY, "--data_dir", str(tmp_path / "prepared")]
    words += ["--score", "none", "--epochs", str(EPOCHS), *FLAGS[task], "--deterministic"]

    def run(name, workers, **variables):
        strategy = ["--strategy", "multiworker"] if workers > 1 else []
        command = [sys.executable, str(script), *words, *strategy, "--output", name]
        weights = {"WEIGHTS": str(tmp_path / f"{name}.npz")}
        processes = test_distribution.start(
            [command] * workers, tmp_path, {**environment, **weights, **variables}
        )
        codes = test_distribution.wait(processes, tmp_path, seconds=900)
        texts = [(tmp_path / f"worker_{index}.out").read_text() for index in range(workers)]
        assert not any(codes), (tmp_path / "worker_0.err").read_text()[-2000:]
        with open(tmp_path / name / task / "run" / LOG, encoding="utf-8") as file:
            log = list(csv.DictReader(file))
        return log, np.load(tmp_path / f"{name}.npz"), [int(t.split("read ")[-1]) for t in texts]

    memory, weights, _ = run("memory", 1)
    stored, other, (alone,) = run("stored", 1, STORED="1")
    for row, expected in zip(stored, memory, strict=True):
        assert {k: v for k, v in row.items() if "seconds" not in k} == (
            {k: v for k, v in expected.items() if "seconds" not in k}
        )
    for name in weights.files:
        np.testing.assert_array_equal(other[name], weights[name])
    two, _, counts = run("two", 2, STORED="1")
    for row, expected in zip(two, memory, strict=True):
        for name in ("loss", "val_loss"):
            assert float(row[name]) == pytest.approx(float(expected[name]), rel=1e-5), name
    # Together they read each batch once.
    assert sum(counts) == pytest.approx(alone + 320 * BESIDE[task], rel=0.05)
    assert abs(counts[0] - counts[1]) < 0.2 * sum(counts)
