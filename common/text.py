"""Text as graph ops: one tokeniser and one vocabulary for training and for serving.

Everything that stands between a raw string and the ids a model eats is TensorFlow code, so an
export holds it and a client sends sentences, never ids. What is learnt once from the training
text (which words there are, where their pretrained vectors lie) is plain Python.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from pathlib import Path

from common.errors import InputError
from common.files import read_lines

import tensorflow as tf

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
