"""Readers of the user's own files: a TSV file, or two parallel text files."""

from __future__ import annotations

from pathlib import Path

from common.errors import InputError
from common.files import read_lines

# A sentence and its translation.
Pair = tuple[str, str]


def read_pairs(path: Path, languages: tuple[str, str]) -> list[Pair]:
    """Read sentence pairs from a TSV file or from two parallel text files.

    Args:
      path: a `.tsv` file, or one of two parallel files. Parallel files have the same name and end
        in their language, such as `corpus.fr` and `corpus.en`.
      languages: source and target language.

    Raises:
      InputError: the file has another ending, or is malformed.
    """
    if path.suffix.lower() == ".tsv":
        return read_tsv(path)
    source, target = (path.with_suffix(f".{language}") for language in languages)
    if path not in (source, target):
        raise InputError(
            f"expected a .tsv file, or two parallel files that end in .{languages[0]} and "
            f".{languages[1]} (other languages: --source, --target_language)",
            path,
        )
    return read_parallel(source, target)


def read_tsv(path: Path) -> list[Pair]:
    """Read a file with a source, a tab and a target on each line.

    Raises:
      InputError: a line has another number of fields or an empty field, or there are no lines. The
        message names the file and the line.
    """
    pairs = []
    for number, line in read_lines(path):
        fields = line.split("\t")
        if len(fields) != 2:
            raise InputError(
                f"expected a source, a tab and a target, got {len(fields)} field(s)", path, number
            )
        source, target = (field.strip() for field in fields)
        if not source or not target:
            raise InputError(f"empty {'target' if source else 'source'}", path, number)
        pairs.append((source, target))
    if not pairs:
        raise InputError("no sentence pairs in this file", path)
    return pairs


def read_parallel(source: Path, target: Path) -> list[Pair]:
    """Read two text files in which line k of one is the translation of line k of the other.

    Raises:
      InputError: a line is empty, the numbers of lines differ, or there are no lines. The message
        names the file and the line.
    """
    sources, targets = _read_sentences(source), _read_sentences(target)
    if len(sources) != len(targets):
        raise InputError(
            f"{len(sources)} lines, but {target} has {len(targets)}: "
            "line k of one must be the translation of line k of the other",
            source,
        )
    if not sources:
        raise InputError("no sentence pairs in this file", source)
    return list(zip(sources, targets, strict=True))


def _read_sentences(path: Path) -> list[str]:
    sentences = []
    for number, line in read_lines(path):
        sentence = line.strip()
        if not sentence:
            raise InputError("empty line; every line needs its translation", path, number)
        sentences.append(sentence)
    return sentences
