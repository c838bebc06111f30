"""Read the files of users; write files whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import gzip
import hashlib
import os
import re
import secrets
import shutil
import socket
import sys
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, TextIO

from common.errors import InputError

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

ABANDONED_SECONDS = 24 * 60 * 60


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield `(line number from 1, line without its end)` of a UTF-8 text file.

    A byte-order mark and CRLF line ends are removed. A file that ends in `.gz` is decompressed.

    Raises:
      InputError: the file is missing, a folder, damaged, or not UTF-8; names file and line.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115  (closed below; only errors of `open` are caught here)
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", path) from error
    with file:
        for number, raw in enumerate(_decompressed(file, path), start=1):
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            try:
                yield number, raw.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"not UTF-8 at byte {error.start + 1} of the line (convert the file, "
                    "for example with iconv)",
                    path,
                    number,
                ) from error


def _decompressed(file: BinaryIO, path: str | Path) -> Iterator[bytes]:
    """Yield the lines of an open file."""
    if Path(path).suffix.lower() != ".gz":
        yield from file
        return
    try:
        with gzip.open(file) as lines:
            yield from lines
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot decompress: {error}", path) from error


def count_lines(path: Path, end: bytes = b"\n") -> int:
    """Return the number of lines of a file, quickly; a damaged file has fewer.

    Args:
      path: the file; one that ends in `.gz` is decompressed.
      end: bytes that are counted instead of line ends, such as `</tu>`.
    """
    count, rest = 0, b""
    with (
        contextlib.suppress(OSError, EOFError, zlib.error),
        gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as file,
    ):
        while block := file.read(2**20):
            block = rest + block
            count += block.count(end)
            rest = block[len(block) - len(end) + 1 :]
    return count


def read_member(archive: Path, member: str) -> bytes:
    """Read one file of a zip archive or wheel into memory; nothing is extracted to disk.

    Raises:
      InputError: the file is no archive, or has no such member.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            return file.read(member)
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"cannot read {member!r}: {error}", archive) from error


def hash_files(paths: Iterable[Path], root: Path) -> str:
    """Return a SHA-256 of the contents of files and of their paths below a folder.

    Raises:
      InputError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(os.fsencode(path.relative_to(root).as_posix()) + b"\0")
        try:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise InputError(f"cannot read: {error.strerror}", path) from error
    return digest.hexdigest()


# --- Writing --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _replaced(*paths: Path) -> Iterator[list[Path]]:
    """Yield a temporary path for each file; they replace the files unless the block fails."""
    for path in paths:
        remove_abandoned(path.parent, f".{path.name}.partial")
    partials = [unique_path(path.parent, f".{path.name}.partial") for path in paths]
    try:
        yield partials
        for partial, path in zip(partials, paths, strict=True):
            os.replace(partial, path)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def open_output(path: Path | None) -> Iterator[TextIO]:
    """Open `--output`, or standard output; a file appears whole or not at all."""
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    with _replaced(path) as (partial,), open(partial, "w", encoding="utf-8") as file:
        yield file


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield the path of a file that replaces `path`, whole, unless the block fails."""
    with _replaced(path) as (partial,):
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())


def write_atomically(path: Path, content: bytes, *, public: bool = False) -> None:
    """Replace a file whole or not at all, even if the process is killed or the disk is full.

    Args:
      path: of the file.
      content: all of it.
      public: whether every user may read it, whatever the umask.
    """
    write_together({path: content}, public=public)


def write_together(files: Mapping[Path, bytes], *, public: bool = False) -> None:
    """Replace files so that each is whole, and none if one of them cannot be written."""
    with _replaced(*files) as partials:
        for partial, content in zip(partials, files.values(), strict=True):
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if public:
                make_public(partial)


def make_public(path: Path) -> None:
    """Let every user read a file or list a folder: mode 644 or 755, whatever the umask."""
    with contextlib.suppress(OSError):  # a file system without modes
        path.chmod(0o755 if path.is_dir() else 0o644)


def make_public_folder(path: Path) -> None:
    """Make a folder with its missing parents, and let every user list them, whatever the umask."""
    made = [folder for folder in (path, *path.parents) if folder == path or not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in made:
        with contextlib.suppress(OSError):  # another user's, or a file system without modes
            folder.chmod(folder.stat().st_mode | 0o055)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other thread or process is in a block with the same path.

    The system releases the lock of a killed process. Without `fcntl`, as on Windows, nothing is
    locked.

    Args:
      path: an empty file, which is made and stays.
    """
    handle = open_locked(path)
    try:
        yield
    finally:
        os.close(handle)  # releases the lock


def open_locked(path: Path, *, wait: bool = True) -> int:
    """Open a file that only one process at a time may have open by this function.

    Args:
      path: of the file, which is made if it is missing.
      wait: whether to wait for another process.

    Returns:
      The descriptor; closing it, or the end of the process, releases the lock.

    Raises:
      BlockingIOError: another process has it open, and `wait` is false.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if fcntl is None:
        return handle
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if wait or isinstance(error, BlockingIOError):
            os.close(handle)
            raise
        # A file system without locks.
    return handle


# --- What killed processes leave ------------------------------------------------------------------


def unique_path(directory: Path, prefix: str) -> Path:
    """Return a new path for unfinished content: `prefix-PID-HOST-random`."""
    owner = f"{os.getpid()}-{socket.gethostname()}"
    return directory / f"{prefix}-{owner}-{secrets.token_hex(4)}"


def remove_abandoned(directory: Path, prefix: str) -> None:
    """Remove the paths of `unique_path` whose process was killed.

    Those of ended processes of this host are removed at once. A process of another host cannot be
    looked up; the number of a living one may belong to another process by now, and 1 is alive in
    every container. These are removed after a day without change.
    """
    pattern = re.compile(re.escape(prefix) + r"-(\d+)-(.+)-[0-9a-f]+")
    for path in directory.glob(f"{glob.escape(prefix)}-*"):
        match = pattern.fullmatch(path.name)
        if match is None:
            continue
        ended = match[2] == socket.gethostname() and not _is_alive(int(match[1]))
        if ended or time.time() - _last_change(path) > ABANDONED_SECONDS:
            with contextlib.suppress(OSError):  # another user's, or removed meanwhile
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only tests
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # a process of another user
        pass
    return True


def _last_change(path: Path) -> float:
    """Return the time of the last change of a file, or of anything in a folder."""
    times = [0.0]
    for part in (path, *path.rglob("*")):
        with contextlib.suppress(OSError):  # another user's, or finished meanwhile
            times.append(part.stat().st_mtime)
    return max(times)


def expand(paths: Iterable[Path]) -> list[Path]:
    """Return files in order, with patterns such as `reviews/*.csv` replaced by what they match.

    Raises:
      InputError: a pattern matches nothing.
    """
    files: list[Path] = []
    for path in paths:
        if path.exists() or not glob.has_magic(str(path)):
            files.append(path)
            continue
        found = sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not found:
            raise InputError("no file has such a name", path)
        files += (file for file in found if file.is_file())
    return list(dict.fromkeys(files))
