"""Rows in memory and on disk: the same, whole or not there, and read by number."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import weakref

from common import tables
from common.errors import InputError

import numpy as np
import pytest
import tensorflow as tf


def write(writer):
    for number in range(3000):
        writer.append(f"row {number}".encode() * (number % 3))
        writer.column("number", "i").append(number)
    writer.extend(b"abc", np.array([1, 0, 2]))
    writer.column("empty", "h")
    return {"total": len(writer)}


@pytest.fixture(params=["memory", "disk", "scratch"])
def table(request, tmp_path):
    make = {
        "memory": tables.in_memory,
        "disk": lambda write: tables.on_disk(tmp_path, ["key"], write, "writing"),
        "scratch": lambda write: tables.on_scratch(tmp_path, write),
    }
    return make[request.param](write)


def test_rows_and_numbers_are_read_as_they_were_written(table, tmp_path):
    assert len(table) == 3003 and table.facts["total"] == 3003
    assert table.read(np.array([2, 0, 1, 3002, 3001, 3000])) == (
        [b"row 2row 2", b"", b"row 1", b"bc", b"", b"a"]
    )
    assert table.sizes(np.array([2, 0])).tolist() == [10, 0]
    assert table.column("number").tolist() == list(range(3000))
    assert table.column("empty").tolist() == []
    assert not [path for path in tmp_path.iterdir() if "scratch" in path.name]


def test_rows_are_selected_sampled_and_read_in_blocks(table):
    rows = tables.Rows(table, np.arange(2999, -1, -1))
    assert list(rows.select(np.array([0, 2])).read()) == table.read(np.array([2999, 2997]))
    sample = rows.sample(100)
    assert len(sample) == 100 and (np.diff(sample.numbers) < 0).all()
    assert rows.sample(3000) is rows
    expected = [f"row {n}".encode() * (n % 3) for n in rows.numbers]
    assert list(rows.read()) == expected
    blocks = rows.blocks(
        lambda numbers: (np.array(table.read(numbers), object), numbers),
        {"text": tf.TensorSpec([None], tf.string), "number": tf.TensorSpec([None], tf.int64)},
    )
    found = list(blocks.unbatch().as_numpy_iterator())
    assert [row["text"] for row in found] == expected
    assert [row["number"] for row in found] == rows.numbers.tolist()


def test_a_table_is_written_once_for_each_key(tmp_path, capsys):
    def refuse(writer):
        raise AssertionError("written again")

    tables.on_disk(tmp_path, ["a", 1], write, "writing a")
    assert "writing a, into " in capsys.readouterr().err
    assert len(tables.on_disk(tmp_path, ["a", 1], refuse, "writing a")) == 3003
    assert capsys.readouterr().err == ""
    with pytest.raises(AssertionError, match="written again"):
        tables.on_disk(tmp_path, ["a", 2], refuse, "")
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_files_are_recognised_by_their_content(tmp_path):
    paths = [tmp_path / name for name in ("a.fr", "a.en")]
    for path in paths:
        path.write_text("1")

    def folder(settings=()):
        return tables.open_table(paths, settings, lambda _: {}, tmp_path / "root").folder

    first = folder()
    os.utime(paths[0], (1, 1))
    assert folder() == first != folder(["other"])
    paths[1].write_text("2")
    assert folder() != first
    assert tables.open_table(paths, [], lambda _: {}, None).folder is None
    paths[0].unlink()
    with pytest.raises(InputError, match=r"a\.fr: cannot read"):
        folder()


def test_rows_are_freed_with_their_data_set(tmp_path):
    references = []
    for _ in range(2):
        rows = tables.Rows(tables.on_scratch(tmp_path, write), np.arange(3000))
        references.append(weakref.ref(rows.table))
        blocks = rows.blocks(rows.table.sizes, {"size": tf.TensorSpec([None], tf.int32)})
        iterator = iter(blocks.skip(1).prefetch(1))
        del blocks, rows
        gc.collect()
        assert references[-1]() is not None  # the iterator reads it
        assert len(list(iterator)) == 2
        del iterator
    gc.collect()
    assert [reference() for reference in references] == [None, None]


SLOW = """
    import sys, time
    from pathlib import Path
    from common import tables

    def write(writer):
        writer.append(b"row")
        print("begun", flush=True)
        time.sleep(60)

    tables.on_disk(Path(sys.argv[1]), ["key"], write, "writing")
"""


def test_a_killed_process_leaves_no_half_table(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLOW), tmp_path], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert [path for path in tmp_path.iterdir() if "partial" in path.name]
    table = tables.on_disk(tmp_path, ["key"], write, "writing")  # waits for no dead process
    assert len(table) == 3003
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [table.folder.name]


def test_texts_have_one_hash_in_all_processes():
    assert tables.hash_text("é") == 3394012004367669963 != tables.hash_text("e")


def test_only_large_files_are_kept_on_disk(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text("12345")
    monkeypatch.setattr(tables, "LARGE", 9)
    assert tables.is_large([path, path]) and not tables.is_large([path, tmp_path / "missing"])
