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
        # Other rows are read in larger blocks.
        print("read", sum(count for count in counted if count <= {batch}), flush=True)
"""
# Random choices that depend on the rows. The networks make none of their own here, since these
# depend on the shapes of batches, and on the worker.
FLAGS = {
    "ner": (
        *("--exchange", "0.3", "--lower_case", "0.3", "--titles", "0.2"),
        *("--character_dropout", "0"),
    ),
    "translation": ("--subword_dropout", "0.1", "--no-dictionary"),
}
EPOCHS, BATCH = 2, 16
TRAIN, VALIDATION = 160, 20  # of 200 rows
SCORE = {"ner": "val_f1", "translation": "val_chrf"}


def write_rows(task, folder):
    """Write 200 rows of a task's own data, more than a batch to validate on; return the flags."""
    own = import_module(f"tests.tasks.own.{task}")
    if task == "ner":
        path = own.write_conll(folder / "my.conll", own.own_sentences(200, seed=0))
    else:
        path = own.write_tsv(folder / "my.tsv", own.own_pairs()[:200])
    return ["--data", str(path), *own.TINY, "--batch_size", str(BATCH)]


@pytest.mark.distribution
@pytest.mark.commands
@pytest.mark.parametrize("task", FLAGS)
def test_training_from_disk_is_that_from_memory_also_by_two_workers(
    task, tmp_path, command_environment, pytestconfig
):
    words = [*write_rows(task, tmp_path), "--data_dir", str(tmp_path / "prepared")]
    words += ["--score", "none", "--epochs", str(EPOCHS), *FLAGS[task], "--deterministic"]
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER.format(task=task, batch=BATCH)))
    environment = {**command_environment, "PYTHONPATH": str(pytestconfig.rootpath)}
    environment["TF_NUM_INTRAOP_THREADS"] = "1"  # two processes run at a time

    def start(name, workers, **variables):
        strategy = ["--strategy", "multiworker"] if workers > 1 else []
        folder = tmp_path / name
        folder.mkdir()
        command = [sys.executable, str(script), *words, *strategy, "--output", str(folder)]
        weights = {"WEIGHTS": str(folder)}
        return test_distribution.start(
            [command] * workers, folder, {**environment, **weights, **variables}
        )

    def end(name, processes):
        folder = tmp_path / name
        codes = test_distribution.wait(processes, folder, seconds=900)
        assert not any(codes), (folder / "worker_0.err").read_text()[-2000:]
        texts = [(folder / f"worker_{index}.out").read_text() for index in range(len(processes))]
        with open(folder / task / "run" / LOG, encoding="utf-8") as file:
            log = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
        return log, np.load(f"{folder}_0.npz"), [int(t.split("read ")[-1]) for t in texts]

    started = start("memory", 1), start("stored", 1, STORED="1")
    memory, weights, _ = end("memory", started[0])
    stored, other, (count,) = end("stored", started[1])
    assert stored == memory
    for name in weights.files:
        np.testing.assert_array_equal(other[name], weights[name])
    assert count == EPOCHS * (TRAIN + VALIDATION)

    two, other, counts = end("two", start("two", 2, STORED="1"))
    for row, expected in zip(two, stored, strict=True):
        for name in ("loss", "val_loss", SCORE[task]):
            assert float(row[name]) == pytest.approx(float(expected[name]), rel=1e-5), name
    for name in weights.files:
        np.testing.assert_allclose(other[name], weights[name], atol=1e-4)
    # The score of ner needs all rows of the validation split on each worker.
    shared = EPOCHS * VALIDATION if task == "ner" else 0
    assert sum(counts) == count + shared
    assert abs(counts[0] - counts[1]) < 0.2 * sum(counts)
