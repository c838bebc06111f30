"""Tables on disk: the same examples and splits as in memory, read once, and by rows."""

import csv
import itertools
import sys
import textwrap

import common.tables
from common.commands.config import EvaluateConfig
from common.errors import InputError
from common.text import Vocabulary
from common.training.checkpoint import LOG
from common.training.distribution import worker_rows
from tasks.sentiment import data, tables
from tasks.sentiment.config import Config
from tasks.sentiment.formats import Layout
from tasks.sentiment.targets import make_targets
from tasks.sentiment.tokens import Reader
from tests.common.training import test_distribution
from tests.tasks.own import sentiment as own

import numpy as np
import pytest

TEXT = "text,label\n" + "".join(
    f'"Row {n}, ""quoted""{" and long" * (n % 9)}\nsecond line é",{1 + n % 3}.0\n'
    for n in range(120)
)
BAD = "no fields\nonly a text,\n,2\n"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text(TEXT + BAD, encoding="utf-8")
    return EvaluateConfig(data=path, data_dir=tmp_path / "prepared")


@pytest.fixture
def small(monkeypatch):
    """Let every file count as a large one."""
    monkeypatch.setattr(common.tables, "LARGE", 0)


def examples(reviews):
    return {
        split: [(row["text"].decode(), int(row["label"])) for row in rows.as_numpy_iterator()]
        for split, rows in reviews.splits.items()
    }


def test_a_large_file_has_the_examples_and_splits_of_one_in_memory(source, monkeypatch, capsys):
    in_memory = data.load(source, seed=3)
    expected = capsys.readouterr().err
    assert "skipped 3 of 123 rows" in expected and not in_memory.stored
    monkeypatch.setattr(common.tables, "LARGE", 0)
    stored = data.load(source, seed=3)
    assert expected in capsys.readouterr().err
    assert stored.labels == in_memory.labels == ("1", "2", "3")
    for split, rows in examples(in_memory).items():
        assert sorted(rows) == sorted(examples(stored)[split])
        assert stored.size(split) == in_memory.size(split) == len(stored.stored[split].numbers)
    assert stored.training_classes().tolist() == in_memory.training_classes().tolist()
    texts = {text.decode() for text in stored.training_texts().as_numpy_iterator()}
    assert texts == {text for text, _ in examples(in_memory)["train"]}


def test_a_file_is_read_once_and_again_if_its_content_or_layout_changes(
    source, small, monkeypatch, capsys
):
    first = data.load(source, seed=1)
    capsys.readouterr()

    def refuse(*args, **kwargs):
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(tables, "read_valid", refuse)
        again = data.load(source, seed=1)
        assert "skipped 3 of 123 rows" in capsys.readouterr().err  # said each time
        assert again.fingerprint() == first.fingerprint()
        assert data.load(source, seed=2).fingerprint() != first.fingerprint()
        with pytest.raises(AssertionError, match="read again"):
            data.load(source, labels=("3", "2", "1"), seed=1)
    changed = TEXT.replace("Row 7,", "Row 8,")
    source.data.write_text(changed, encoding="utf-8")
    assert data.load(source, seed=1).fingerprint() != first.fingerprint()
    assert "reading it once" in capsys.readouterr().err


def test_labels_keep_the_given_order(source, small):
    ordered = data.load(source, labels=("3", "1", "2"), seed=1)
    labels = {text.split(",")[0]: label for text, label in examples(ordered)["train"]}
    number = next(int(name.split()[1]) for name in labels)
    assert ("3", "1", "2")[labels[f"Row {number}"]] == str(1 + number % 3)
    with pytest.raises(InputError, match=r"my\.csv, line 6: unknown label '3'; expected 1, 2"):
        data.load(source, labels=("1", "2"), seed=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\n", "no texts in this file"),
        ("text,label\n,\n", r"no row can be used \(line 2: no text\)"),
        (f"text,label\n{'a,1' + chr(10)}", "every label is '1'; expected 2 to 10 classes"),
        ("".join(["text,label\n", *(f"a,{n}\n" for n in range(40))]), "40 different labels"),
        ("".join(["text,label\n", *(f"a,{n}\n" for n in range(2000))]), "1000 labels differ"),
        ('text,label\n"a,1\n', "malformed from here on"),
    ],
)
def test_a_bad_file_is_refused_and_leaves_nothing(content, message, source, small):
    source.data.write_text(content)
    with pytest.raises(InputError, match=message):
        data.load(source, seed=1)
    left = [path for path in source.data_dir.rglob("*") if path.is_dir()]
    assert not [path for path in left if "partial" in path.name]


def test_a_folder_has_a_table_for_each_split(tmp_path, small, capsys):
    folder = tmp_path / "folder"
    folder.mkdir()
    for split, text in (("train", "a"), ("dev", "B."), ("test", "A!")):
        own.write_csv(folder / f"{split}.csv", [(text, "yes"), (f"{split} text", "no")])
    source = EvaluateConfig(data=folder, data_dir=tmp_path / "prepared")
    reviews = data.load(source, seed=1)
    assert "1 of 2 texts of test are in train, too" in capsys.readouterr().err
    assert reviews.labels == ("no", "yes")
    assert examples(reviews)["test"] == [("A!", 1), ("test text", 0)]
    own.write_csv(folder / "test.csv", [("a", "yes"), ("b", "maybe")])
    with pytest.raises(InputError, match=r"test\.csv, line 3: unknown label 'maybe'"):
        data.load(source, seed=1)


def whole(count):
    return slice(0, count)


@pytest.fixture
def rows(tmp_path):
    """A table of 3000 rows that is sorted by class, as files of users often are."""
    path = tmp_path / "sorted.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows((f"{n:04} {'long ' * (n % 30)}", n // 1500) for n in range(3000))
    texts = tables.open_texts(path, Layout(), (), tmp_path / "tables")
    return texts.select(np.arange(0, 3000, 2))


def read(batches):
    return [(batch["text"].tolist(), batch["label"].tolist()) for batch in batches]


def test_each_epoch_has_every_row_once_in_an_order_of_its_own(rows):
    first, again, other, plain = (
        read(rows.batches(16, seed=seed, own=whole).as_numpy_iterator()) for seed in (1, 1, 2, None)
    )
    assert first == again != other
    expected = sorted(
        (f"{n:04} {'long ' * (n % 30)}".strip(), n // 1500) for n in range(0, 3000, 2)
    )
    for batches in (first, other, plain):
        assert {len(texts) for texts, _ in batches} == {16, 1500 % 16}
        pairs = itertools.chain(*(zip(*batch, strict=True) for batch in batches))
        flat = [(text.decode(), label) for text, label in pairs]
        assert sorted(flat) == expected
    # Rows of all parts of the table meet in a batch, and they have similar sizes.
    assert sum(len(set(labels)) == 2 for _, labels in first) > 0.95 * len(first)
    spreads = [np.ptp([len(text) for text in texts]) for texts, _ in first]
    assert np.mean(spreads) < 10 < np.ptp([len(text) for text, _ in expected])


def test_workers_read_their_own_rows_of_the_same_batches(rows, monkeypatch):
    counted = []
    read_rows = common.tables.Table.read
    monkeypatch.setattr(
        common.tables.Table,
        "read",
        lambda self, rows: counted.append(len(rows)) or read_rows(self, rows),
    )
    alone = read(rows.batches(16, seed=1, own=whole).as_numpy_iterator())
    assert sum(counted) == 1500
    counted.clear()
    halves = [
        read(rows.batches(16, seed=1, own=half).as_numpy_iterator())
        for half in (lambda n: slice(0, n // 2), lambda n: slice(n // 2, n))
    ]
    assert sum(counted) == 1500
    for one, left, right in zip(alone, *halves, strict=True):
        middle = len(one[0]) // 2
        assert left[0][:middle] + right[0][middle:] == one[0]
        assert set(left[0][middle:] + right[0][:middle]) == {b""}
        assert left[1] == right[1] == one[1]


def test_a_sample_is_random_and_in_order(rows):
    sample = rows.sample(300)
    assert len(sample.numbers) == 300 and (np.diff(sample.numbers) > 0).all()
    assert 100 < (sample.classes == 1).sum() < 200
    assert rows.sample(5000) is rows


def test_batches_hold_the_ids_of_those_in_memory(rows, tmp_path):
    rows = rows.sample(100)
    Vocabulary.write(tmp_path / "words.txt", ["long", *(f"{n:04}" for n in rows.numbers)])
    reader = Reader(Vocabulary(tmp_path / "words.txt"))
    config = Config(max_length=20, batch_size=16)
    targets = make_targets(config, 2)
    stored = data.stored_batches(rows, reader, config, targets, own=whole, shuffle_seed=1)
    in_memory = data.to_batches(rows.as_dataset(), reader, config, targets, shuffle_seed=1)

    def examples(batches):
        found = set()
        for batch in batches.as_numpy_iterator():
            assert batch["ids"].shape[1] in config.bucket_lengths()
            assert batch["ids"].dtype == np.int32 and batch["length"].dtype == np.int32
            columns = (batch[name] for name in ("ids", "length", "label", "target", "weight"))
            for ids, length, label, target, weight in zip(*columns, strict=True):
                assert not ids[length:].any() and ids[:length].all()
                found.add((*ids[:length], int(label), *target, float(weight)))
        return found

    found = examples(stored)
    assert found == examples(in_memory) and len(found) == 100


WORKER = """
    import os
    from common.commands import cli
    from common import tables
    from common.tables import Table
    from tasks.sentiment import train

    tables.LARGE = 0
    if os.environ["READS"] == "all":
        train.worker_rows = lambda rows, strategy: slice(0, rows)
    read_rows, counted = Table.read, []
    Table.read = lambda self, rows: counted.append(len(rows)) or read_rows(self, rows)
    try:
        cli.run(train.main)
    finally:
        print("read", sum(counted), flush=True)
"""


@pytest.mark.distribution
@pytest.mark.commands
def test_two_workers_read_half_each_and_train_as_if_both_read_all(
    tmp_path, command_environment, pytestconfig
):
    own.write_data(tmp_path)
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    words = [*map(str, own.TRAIN), "--data_dir", str(tmp_path / "prepared")]
    words[words.index("--score") + 1] = "none"
    words[words.index("--epochs") + 1] = "3"
    words += ["--dropout", "0", "--subword_dropout", "0", "--strategy", "multiworker"]
    logs, counts = [], []
    for output in ("all", "half"):
        environment = {**command_environment, "PYTHONPATH": str(pytestconfig.rootpath)}
        environment |= {"READS": output}
        command = [sys.executable, str(script), *words, "--output", output]
        processes = test_distribution.start([command] * 2, tmp_path, environment)
        assert test_distribution.wait(processes, tmp_path) == [0, 0], [
            (tmp_path / f"worker_{index}.err").read_text()[-2000:] for index in (0, 1)
        ]
        with open(tmp_path / output / "sentiment" / "run" / LOG, encoding="utf-8") as file:
            logs.append([{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)])
        texts = [(tmp_path / f"worker_{index}.out").read_text() for index in (0, 1)]
        counts.append([int(text.rpartition("read ")[2]) for text in texts])
    for one, two in zip(*logs, strict=True):
        for name in ("loss", "val_loss", "val_accuracy"):
            assert two[name] == pytest.approx(one[name], rel=1e-5), name
    # Each worker counts the vocabulary in two passes over all 319 training texts.
    every, halves = ([count - 2 * 319 for count in row] for row in counts)
    assert every[0] == every[1] == sum(halves)
    assert abs(halves[0] - halves[1]) < 0.1 * sum(halves)


def test_rows_of_one_process_are_all_rows():
    assert worker_rows(7, test_distribution.make_strategy("one")) == slice(0, 7)
