"""Reading files, and all messages that a user can cause."""

import os
import zipfile

from common import files
from common.errors import InputError

import pytest


def test_line_ends_and_a_byte_order_mark_are_removed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffé\r\nb\n\nc".encode())
    assert list(files.read_lines(path)) == [(1, "é"), (2, "b"), (3, ""), (4, "c")]


def test_invalid_utf8_is_reported_with_file_and_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\nbad \xe9 here\n")
    with pytest.raises(InputError, match=r"a.txt, line 2: not UTF-8 at byte 5"):
        list(files.read_lines(path))


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(InputError, match=r"gone.txt: cannot read: No such file"):
        list(files.read_lines(tmp_path / "gone.txt"))


def test_tables_with_quotes_line_ends_other_columns_and_other_order(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('Label,id,Text\n1,7,"a ""b"", c\nd"\n\n5,8,e\n', encoding="utf-8")
    assert list(files.read_table(path, ("text", "label"))) == [
        (3, {"text": 'a "b", c\nd', "label": "1"}),
        (5, {"text": "e", "label": "5"}),
    ]
    path = tmp_path / "a.tsv"
    path.write_text("text\tlabel\na, b\t1\n", encoding="utf-8")
    assert list(files.read_table(path, ("text", "label"))) == [(2, {"text": "a, b", "label": "1"})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty file; expected a header with text and label"),
        ("text,stars\na,1\n", "line 1: no column 'label'; expected a header"),
        ("text,label\na,1,2\n", "line 2: expected 2 fields, got 3"),
        ("text,label\na\n", "line 2: expected 2 fields, got 1"),
        ('text,label\n"a,1\n', "malformed: unexpected end of data"),
    ],
)
def test_malformed_tables_are_reported_with_the_line(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        list(files.read_table(path, ("text", "label")))


def test_members_of_archives_are_read_and_bad_archives_reported(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("in/side.txt", "content")
    assert files.read_member(tmp_path / "a.whl", "in/side.txt") == b"content"
    with pytest.raises(InputError, match=r"a.whl: cannot read 'gone'"):
        files.read_member(tmp_path / "a.whl", "gone")
    (tmp_path / "b.whl").write_bytes(b"not an archive")
    with pytest.raises(InputError, match=r"b.whl: cannot read 'x'"):
        files.read_member(tmp_path / "b.whl", "x")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_atomically(path, b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_files_appear_together_or_not_at_all(tmp_path):
    contents = {tmp_path / "a.mid": b"a", tmp_path / "absent" / "b.mid": b"b"}
    with pytest.raises(FileNotFoundError):
        files.write_together(contents)
    assert list(tmp_path.iterdir()) == []


def test_a_hash_of_files_depends_on_their_names_folders_and_contents(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.mp4").write_bytes(b"clip")
        (tmp_path / folder / "y.mp4").write_bytes(b"clip")
    paths = [tmp_path / "a" / "x.mp4", tmp_path / "a" / "y.mp4", tmp_path / "b" / "x.mp4"]
    hashes = {files.hash_files([path]) for path in paths}
    hashes |= {files.hash_files(paths[:2]), files.hash_files(paths[1::-1]), files.hash_files([])}
    before = files.hash_files(paths)
    paths[2].write_bytes(b"clap")
    assert len(hashes | {before, files.hash_files(paths)}) == 8
    with pytest.raises(InputError, match=r"z\.mp4: cannot read: No such file"):
        files.hash_files([tmp_path / "z.mp4"])
