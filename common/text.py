"""Text as graph ops: one tokeniser and one vocabulary for training and for serving.

Every step from a raw string to the ids of a model is TensorFlow code, so an export holds it and
clients send sentences, never ids.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from pathlib import Path

from common.errors import InputError
from common.files import read_lines

import numpy as np
import tensorflow as tf

PADDING, UNKNOWN = "<pad>", "<unk>"  # ids 0 and 1; the tokeniser produces neither

_BLANK = r"[\pZ\pC\s]"
_APOSTROPHE = "['’‘`´]"
# Forms of several characters that are always one token.
_FIXED = ("``|''", r"(?i)-l[rcs]b-", r"(?i)-r[rcs]b-", r"\\[/*]")
# The normal form of a token. Brackets and quotes of the Penn Treebank, which many public corpora
# use, become the same tokens as a user's quotation marks.
_REWRITES = (
    (r"``|''|[“”„«»]", '"'),
    (_APOSTROPHE, "'"),
    (r"(?i)-l[rcs]b-", "("),
    (r"(?i)-r[rcs]b-", ")"),
    (r"\\([/*])", r"\1"),
)
# "don't" -> "do n't"; RE2 cannot look ahead, so the next character is part of the match.
_NOT = rf"(?i)(\pL)(n{_APOSTROPHE}t)([^\pL\pN]|$)"
_LETTER = r"[\pL\pM\pN_]"
_CUT = "\x01"  # marks the ends of tokens; control characters are removed from texts before
# The first alternative that matches wins: contractions, initials, words and numbers with inner
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
    """Normalise quotation marks, apostrophes and brackets, in texts or in tokens.

    Example:
      >>> rewrite(tf.constant(["``", "-LRB-", "’s"])).numpy().tolist()
      [b'"', b'(', b"'s"]
    """
    for pattern, replacement in _REWRITES:
        text = tf.strings.regex_replace(text, pattern, replacement)
    return text


def tokenize(text: tf.Tensor, *, lower: bool = True) -> tf.RaggedTensor:
    r"""Split text into words and punctuation marks, inside the graph.

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
    if lower:  # after the rewrites: `lower` ends a text at its first NUL
        text = tf.strings.lower(text, encoding="utf-8")
    return tf.strings.split(tf.strings.regex_replace(text, _TOKEN, r" \0 "))


def locate(text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
    r"""Split text as `tokenize` does, and return the place of each token in the text.

    Tokens are spelled as in the text; `rewrite` turns them into those of `tokenize(text,
    lower=False)`.

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
    # Every step keeps all code points and only inserts marks between them.
    marked = tf.strings.regex_replace(_repaired(text), _BLANK, " ")
    for pattern in _FIXED:
        marked = tf.strings.regex_replace(marked, pattern, rf"{_CUT}\0{_CUT}")
    marked = tf.strings.regex_replace(marked, _NOT, rf"\1{_CUT}\2\3")
    token = "|".join((*_FIXED, _TOKEN))
    marked = tf.strings.regex_replace(marked, token, rf"{_CUT}\0{_CUT}")
    tokens = tf.strings.split(tf.strings.regex_replace(marked, _CUT, " "))
    # A blank at both ends separates the tokens of neighbouring texts.
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
    """The words of a model, with a look-up table that is exported with it.

    Id 0 is padding, id 1 any unknown word, and the words follow from id 2 on. On disk a vocabulary
    is a text file with one word per line, where line k has id k.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp(), "vocabulary.txt")
      >>> Vocabulary.write(path, ["good", "bad"])
      >>> Vocabulary(path).ids(tf.ragged.constant([["bad", "zebra"]])).to_list()
      [[3, 1]]
    """

    def __init__(self, path: str | Path):
        """Read the file written by `write`; it becomes an asset of every export."""
        super().__init__(name="vocabulary")
        self.path = Path(path)
        words = [line for _, line in read_lines(self.path)]
        if words[:2] != [PADDING, UNKNOWN]:
            raise InputError(f"expected {PADDING} and {UNKNOWN} on the first lines", path, 1)
        # An array, since TensorFlow would track every item of a list.
        self._words = np.array(words, object)
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
        """Write the two reserved lines and `words`, most frequent first."""
        lines = [PADDING, UNKNOWN, *words]
        Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    @property
    def words(self) -> list[str]:
        """All words in the order of their ids."""
        return self._words.tolist()

    def __len__(self) -> int:
        return len(self._words)

    def ids(self, tokens: tf.RaggedTensor | tf.Tensor) -> tf.RaggedTensor | tf.Tensor:
        """Look words up: `<string>[...]` to `<int32>[...]`, ragged or dense as the input."""
        return tf.cast(self._table.lookup(tokens), tf.int32)


def count_words(texts: tf.data.Dataset) -> collections.Counter[str]:
    """Count the lower-cased tokens of a data set of strings, in the order of first appearance.

    Example:
      >>> count_words(tf.data.Dataset.from_tensor_slices(["A film.", "a play"]))
      Counter({'a': 2, 'film': 1, '.': 1, 'play': 1})
    """
    counts: collections.Counter[str] = collections.Counter()
    for tokens in texts.batch(1024).map(lambda text: tokenize(text).flat_values):
        counts.update(token.decode() for token in tokens.numpy())
    return counts


def frequent(counts: Mapping[str, int], *, at_least: int = 1) -> list[str]:
    """Return the words that occur `at_least` times, most frequent first, ties alphabetically.

    Example:
      >>> frequent({"b": 2, "c": 1, "a": 2}, at_least=2)
      ['a', 'b']
    """
    words = [(word, count) for word, count in counts.items() if count >= at_least]
    return [word for word, _ in sorted(words, key=lambda item: (-item[1], item[0]))]
