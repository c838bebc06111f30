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
    import json
    import os
    from common import tables
    from common.commands import cli
    from tasks.{task} import train
    import numpy as np

    if "STORED" in os.environ:
        tables.LARGE = 0
    if "READ_ALL" in os.environ:
        train.worker_rows = lambda rows, strategy: slice(0, rows)
    read_rows, counted = tables.Table.read, []
    tables.Table.read = lambda self, rows: counted.append(len(rows)) or read_rows(self, rows)
    train_model = train.train_model

    def train_and_save(*arguments):
        trained = train_model(*arguments)
        worker = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
        np.savez(f"{{os.environ['WEIGHTS']}}_{{worker}}.npz", *trained[0].get_weights())
        raise SystemExit  # an export is the same for all

    train.train_model = train_and_save
    try:
        cli.run(train.main)
    finally:
        print("read", sum(counted), flush=True)
"""
# Random choices that depend on the rows. The networks make none of their own here, since these
# depend on the shapes of batches, and on the worker.
FLAGS = {
    "ner": (
        *("--exchange", "0.3", "--lower_case", "0.3", "--titles", "0.2"),
        *("--character_dropout", "0"),
    ),
    "translation": ("--subword_dropout", "0.1"),
}
EPOCHS = 2
# Rows of an epoch that only one worker reads. The score of ner needs all rows of validation.
ROWS = {"ner": 320, "translation": 320 + 40}
SCORE = {"ner": "val_f1", "translation": "val_chrf"}


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
        weights = {"WEIGHTS": str(tmp_path / name)}
        processes = test_distribution.start(
            [command] * workers, tmp_path, {**environment, **weights, **variables}
        )
        codes = test_distribution.wait(processes, tmp_path, seconds=900)
        texts = [(tmp_path / f"worker_{index}.out").read_text() for index in range(workers)]
        assert not any(codes), (tmp_path / "worker_0.err").read_text()[-2000:]
        with open(tmp_path / name / task / "run" / LOG, encoding="utf-8") as file:
            log = list(csv.DictReader(file))
        return log, np.load(tmp_path / f"{name}_0.npz"), [int(t.split("read ")[-1]) for t in texts]

    memory, weights, _ = run("memory", 1)
    stored, other, _ = run("stored", 1, STORED="1")
    for row, expected in zip(stored, memory, strict=True):
        assert {k: v for k, v in row.items() if "seconds" not in k} == (
            {k: v for k, v in expected.items() if "seconds" not in k}
        )
    for name in weights.files:
        np.testing.assert_array_equal(other[name], weights[name])
    every, _, all_counts = run("every", 2, STORED="1", READ_ALL="1")
    halves, _, counts = run("halves", 2, STORED="1")
    for row, expected in zip(halves, every, strict=True):
        for name in ("loss", "val_loss", SCORE[task]):
            assert float(row[name]) == pytest.approx(float(expected[name]), rel=1e-5), name
    # Two that read all read each row of an epoch twice.
    assert sum(all_counts) - sum(counts) == EPOCHS * ROWS[task]
    assert abs(counts[0] - counts[1]) < 0.2 * sum(counts)
