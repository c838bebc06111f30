"""Read the files of users; write files whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from common.errors import InputError


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield `(line number from 1, line without its end)` of a UTF-8 text file.

    A byte-order mark and CRLF line ends are removed.

    Raises:
      InputError: the file is missing, a folder, or not UTF-8; names file and line.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115  (closed below; only errors of `open` are caught here)
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", path) from error
    with file:
        for number, raw in enumerate(file, start=1):
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


def read_table(path: str | Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield `(line number, {column: value})` of a CSV or TSV file with a header.

    The delimiter is a comma for `.csv` and a tab for any other ending. Quotes follow RFC 4180 and
    may include line ends. Other columns are ignored.

    Raises:
      InputError: no header, a missing column, a row with too few or too many fields.
    """
    delimiter = "," if Path(path).suffix.lower() == ".csv" else "\t"
    # A quoted value may hold line ends, so they are added again.
    rows = csv.reader(
        (line + "\n" for _, line in read_lines(path)), delimiter=delimiter, strict=True
    )
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        if not header:
            raise InputError(f"empty file; expected a header with {' and '.join(columns)}", path)
        for column in columns:
            if column not in header:
                raise InputError(
                    f"no column {column!r}; expected a header with {' and '.join(columns)}, "
                    f"got {delimiter.join(header)[:200]!r}",
                    path,
                    1,
                )
        places = {column: header.index(column) for column in columns}
        for row in rows:
            if not row:
                continue  # an empty line, as editors leave it at the end
            if len(row) != len(header):
                raise InputError(
                    f"expected {len(header)} fields, got {len(row)}", path, rows.line_num
                )
            yield rows.line_num, {column: row[place] for column, place in places.items()}
    except csv.Error as error:
        raise InputError(f"malformed: {error}", path, rows.line_num) from error


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


def hash_files(paths: Iterable[Path]) -> str:
    """Return a SHA-256 of the names of files and of their folders, and of their contents.

    Raises:
      InputError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(os.fsencode(path.parent.name) + b"/" + os.fsencode(path.name) + b"\0")
        try:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise InputError(f"cannot read: {error.strerror}", path) from error
    return digest.hexdigest()


@contextlib.contextmanager
def _replaced(*paths: Path) -> Iterator[list[Path]]:
    """Yield a temporary path for each file; they replace the files unless the block fails."""
    partials = [path.with_name(f"{path.name}.partial") for path in paths]
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


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file whole or not at all, even if the process is killed or the disk is full."""
    write_together({path: content})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Replace files so that each is whole, and none if one of them cannot be written."""
    with _replaced(*files) as partials:
        for partial, content in zip(partials, files.values(), strict=True):
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
