"""Reading files, and all messages that a user can cause."""

import gzip
import os
import socket
import stat
import subprocess
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

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

    def hashed(paths):
        return files.hash_files(paths, tmp_path)

    hashes = {hashed([path]) for path in paths}
    hashes |= {hashed(paths[:2]), hashed(paths[1::-1]), hashed([])}
    before = hashed(paths)
    paths[2].write_bytes(b"clap")
    assert len(hashes | {before, hashed(paths)}) == 8
    # Workers keep equal files in folders of other names.
    folders = [tmp_path / name for name in "ab"]
    (tmp_path / "b" / "x.mp4").write_bytes(b"clip")
    one, other = (files.hash_files([folder / "x.mp4"], folder) for folder in folders)
    assert one == other
    with pytest.raises(InputError, match=r"z\.mp4: cannot read: No such file"):
        files.hash_files([tmp_path / "z.mp4"], tmp_path)


def test_writers_of_one_file_do_not_meet(tmp_path):
    path, contents = tmp_path / "file", [bytes([number]) * 100_000 for number in range(8)]
    together = threading.Barrier(len(contents))

    def write(content):
        together.wait()
        for _ in range(10):
            files.write_atomically(path, content)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(write, contents))
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("mask", [0o077, 0o022, 0o000])
def test_public_files_and_folders_have_the_same_modes_under_any_umask(tmp_path, mask):
    def mode(name):
        return stat.S_IMODE((tmp_path / name).stat().st_mode)

    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    before = os.umask(mask)
    try:
        files.write_atomically(tmp_path / "public.txt", b"", public=True)
        files.write_atomically(tmp_path / "own.txt", b"")
        files.make_public_folder(private / "made" / "deep")
    finally:
        os.umask(before)
    assert (mode("public.txt"), mode("own.txt")) == (0o644, 0o666 & ~mask)
    assert mode("private/made") & 0o755 == mode("private/made/deep") & 0o755 == 0o755
    assert mode("private") == 0o700  # a folder that was there
    files.make_public_folder(private)
    assert mode("private") == 0o755


@pytest.fixture(scope="module")
def ended():
    """The id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


DAY = 24 * 60 * 60


@pytest.mark.parametrize("is_folder", [True, False])
@pytest.mark.parametrize(
    ("owner", "age", "stays"),
    [
        ("{ended}-{host}", 0, False),
        ("{ended}-other-{host}", 0, True),
        ("{ended}-other-{host}", DAY - 60, True),
        ("{ended}-other-{host}", DAY + 60, False),
        ("1-{host}", DAY - 60, True),
        ("1-{host}", DAY + 60, False),
        ("{own}-{host}", DAY - 60, True),
        ("{own}-{host}", DAY + 60, False),  # the number of another process, long ago
        ("{ended}{ended}{ended}-{host}", 0, False),  # larger than any number of a process
        ("person", DAY + 60, True),
    ],
)
def test_what_killed_processes_left_is_removed(tmp_path, ended, owner, age, stays, is_folder):
    owner = owner.format(ended=ended, own=os.getpid(), host=socket.gethostname())
    path = tmp_path / f".left[.partial-{owner}-0a"
    touched = [path]
    if is_folder:
        path.mkdir()
        touched = [path / "variables", path]
    touched[0].write_bytes(b"half")
    for part in touched:
        os.utime(part, (time.time() - age,) * 2)
    files.write_atomically(tmp_path / "other", b"")
    assert path.exists()
    files.write_atomically(tmp_path / "left[", b"")
    assert path.exists() == stays


def test_a_folder_is_left_while_anything_in_it_changes(tmp_path):
    path = tmp_path / ".staging-1-another-host-0a"
    (path / "variables").mkdir(parents=True)
    (path / "variables" / "new").write_bytes(b"")
    for part in (path / "variables", path):
        os.utime(part, (time.time() - 2 * DAY,) * 2)
    files.remove_abandoned(tmp_path, ".staging")
    assert path.exists()
    os.utime(path / "variables" / "new", (time.time() - 2 * DAY,) * 2)
    files.remove_abandoned(tmp_path, ".staging")
    assert not path.exists()


def test_a_lock_is_held_by_one_thread_at_a_time(tmp_path):
    inside, largest = [], []

    def work(number):
        with files.locked(tmp_path / "lock"):
            inside.append(number)
            largest.append(len(inside))
            time.sleep(0.01)
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert largest == [1] * 8
    assert (tmp_path / "lock").read_bytes() == b""


@pytest.mark.parametrize("end", [b"\n", b"</tu>"])
def test_lines_are_counted_quickly_across_blocks(end, tmp_path):
    content = (b"x" * 1000 + end) * 3000 + b"rest"
    (tmp_path / "a.txt").write_bytes(content)
    with gzip.open(tmp_path / "a.txt.gz", "wb", compresslevel=1) as file:
        file.write(content)
    assert files.count_lines(tmp_path / "a.txt", end) == 3000
    assert files.count_lines(tmp_path / "a.txt.gz", end) == 3000
    (tmp_path / "cut.txt.gz").write_bytes((tmp_path / "a.txt.gz").read_bytes()[:-9])
    assert 0 < files.count_lines(tmp_path / "cut.txt.gz", end) <= 3000
    assert files.count_lines(tmp_path / "missing.txt", end) == 0
