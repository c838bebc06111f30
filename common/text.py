"""Text as graph ops: one tokeniser and one vocabulary for training and for serving.

Every step from a raw string to the ids of a model is TensorFlow code, so an export holds it and
clients send sentences, never ids.
"""

from __future__ import annotations

import collections
import functools
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError
from common.files import read_lines
from common.tensorflow_internals import UnsharedFile

import numpy as np
import tensorflow as tf

PADDING, UNKNOWN = "<pad>", "<unk>"  # ids 0 and 1; the tokeniser produces neither

# Invisible characters that belong to words of several scripts and to emoji: the zero-width
# non-joiner and joiner, and the tags that follow a flag.
_JOINER = r"\x{200C}\x{200D}"
_TAG = r"\x{E0020}-\x{E007F}"
# The double negation is RE2's only way to subtract from a class.
_BLANK = rf"(?:[\pZ\s]|[^\PC{_JOINER}{_TAG}])"
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
_NOT = rf"(?i)([\pL\pM])(n{_APOSTROPHE}t)([^\pL\pM\pN]|$)"
_LETTER = r"[\pL\pM\pN_]"
_CUT = "\x01"  # marks the ends of tokens; control characters are removed from texts before
_SYMBOL = rf"[^\pL\pN\s\x01{_JOINER}]"
_MARKS = rf"[\pM\x{{1F3FB}}-\x{{1F3FF}}{_TAG}]*"
# The first alternative that matches wins: contractions, initials, words and numbers with inner
# marks or joiners, runs of dots or dashes, flags, symbols that are joined, as in emoji, then any
# one symbol with its combining marks.
_TOKEN = (
    rf"(?i:n{_APOSTROPHE}t|{_APOSTROPHE}(?:s|m|re|ve|ll|d))\b"
    r"|(?:\pL\.){2,}"
    rf"|{_LETTER}+(?:(?:[-.,:]|[{_JOINER}]+){_LETTER}+)*"
    r"|\.{2,}|-{2,}"
    r"|[\x{1F1E6}-\x{1F1FF}]{2}"
    rf"|[\p{{So}}\p{{Sm}}]{_MARKS}(?:\x{{200D}}[\p{{So}}\p{{Sm}}]{_MARKS})+"
    rf"|{_SYMBOL}{_MARKS}"
)


def _repaired(text: tf.Tensor) -> tf.Tensor:
    return tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")


def select(rows: tf.RaggedTensor, kept: tf.Tensor) -> tf.RaggedTensor:
    """Return the values of ragged rows for which `kept` is true; `tf.ragged.boolean_mask`, faster.

    Args:
      rows: ragged `[rows, (values)]`.
      kept: `<bool>`, one for each of `rows.values`.

    Example:
      >>> select(tf.ragged.constant([[1, 2], [3]]), tf.constant([False, True, False])).to_list()
      [[2], []]
    """
    places = tf.where(kept)[:, 0]
    return tf.RaggedTensor.from_value_rowids(
        tf.gather(rows.values, places),
        tf.gather(rows.value_rowids(), places),
        nrows=rows.nrows(),
        validate=False,
    )


def rewrite(text: tf.Tensor | tf.RaggedTensor) -> tf.Tensor | tf.RaggedTensor:
    """Normalise accents, quotation marks, apostrophes and brackets, in texts or in tokens.

    The result is a key to look up: it may be shorter or longer than the text.

    Example:
      >>> rewrite(tf.constant(["``", "-LRB-", "’s"])).numpy().tolist()
      [b'"', b'(', b"'s"]
    """
    for pattern, replacement in _REWRITES:
        text = tf.strings.regex_replace(text, pattern, replacement)
    return compose(text)


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
    text = tf.strings.regex_replace(_repaired(text), f"{_BLANK}+", " ")
    for pattern, replacement in (*_REWRITES, (_NOT, r"\1 \2\3")):
        text = tf.strings.regex_replace(text, pattern, replacement)
    if lower:  # after the rewrites: `lower` ends a text at its first NUL
        text = tf.strings.lower(text, encoding="utf-8")
    # A joiner between two words is in no token.
    text = tf.strings.regex_replace(text, f"({_TOKEN})|[{_JOINER}]", r" \1 ")
    return compose(tf.strings.split(text))  # split first, as `locate` does


def locate(text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
    r"""Split text as `tokenize` does, and return the place of each token in the text.

    Tokens are spelled as in the text; `rewrite` turns them into those of `tokenize(text,
    lower=False)`. Offsets always count the characters of the text as it was sent.

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
    marked = tf.strings.regex_replace(marked, f"{token}|[{_JOINER}]+", rf"{_CUT}\0{_CUT}")
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
    # A joiner between two words is no token.
    real = ~tf.strings.regex_full_match(tokens.flat_values, f"[{_JOINER}]+")
    start, end = (select(tokens.with_flat_values(x), real) for x in (start, end))
    return select(tokens, real), start, end


# --- Normal form C --------------------------------------------------------------------------------


class _Composition(NamedTuple):
    """Unicode's canonical compositions, as sorted arrays to search.

    Attributes:
      pairs: `<int64>[pairs]`, two characters that compose, `first << 21 | second`.
      composed: `<int32>[pairs]`, the character that each pair becomes.
      replaced: `<int32>[characters]`, characters that are no part of normal form C.
      replacements: `<int32>[characters, 3]`, what replaces each; -1 after its last character.
      pattern: regular expression of the texts that may have to change.
    """

    pairs: np.ndarray
    composed: np.ndarray
    replaced: np.ndarray
    replacements: np.ndarray
    pattern: str


@functools.cache
def _composition() -> _Composition:
    """Collect the compositions from Python's Unicode database; Hangul follows a rule instead."""
    pairs, replacements = {}, {}
    letters = (code for code in range(0x30000) if not 0xAC00 <= code < 0xE000)
    for code in letters:
        parts = unicodedata.decomposition(chr(code)).split()
        if not parts or parts[0].startswith("<"):  # a compatibility form, which is kept
            continue
        normal = [ord(character) for character in unicodedata.normalize("NFC", chr(code))]
        if normal != [code]:
            replacements[code] = normal + [-1] * (3 - len(normal))
        elif len(parts) == 2:
            pairs[int(parts[0], 16) << 21 | int(parts[1], 16)] = code
    changing = {pair & 0x1FFFFF for pair in pairs} | set(replacements)
    ends = "".join(rf"\x{{{code:X}}}" for code in sorted(changing))
    return _Composition(
        pairs=np.array(sorted(pairs), np.int64),
        composed=np.array([pairs[pair] for pair in sorted(pairs)], np.int32),
        replaced=np.array(sorted(replacements), np.int32),
        replacements=np.array([replacements[code] for code in sorted(replacements)], np.int32),
        pattern=rf"(?s).*[{ends}\x{{1161}}-\x{{1175}}\x{{11A8}}-\x{{11C2}}].*",
    )


def compose(text: tf.Tensor | tf.RaggedTensor) -> tf.Tensor | tf.RaggedTensor:
    r"""Return text in Unicode's normal form C: an accent and its letter become one character.

    TensorFlow has no op for this. Marks are not reordered, so a letter with marks in an order that
    no keyboard and no normal form produces may stay as it is.

    Args:
      text: `<string>[...]`, valid UTF-8.

    Returns:
      The same shape.

    Reference:
      - [Unicode Standard Annex 15: Unicode normalization forms](
        https://unicode.org/reports/tr15/)

    Example:
      >>> compose(tf.constant(["e\u0301te\u0301"])).numpy()[0].decode() == "\u00e9t\u00e9"
      True
    """
    if isinstance(text, tf.RaggedTensor):
        return text.with_flat_values(compose(text.flat_values))
    flat = tf.reshape(text, [-1])
    changes = tf.reduce_any(tf.strings.regex_full_match(flat, _composition().pattern))
    composed = tf.cond(changes, lambda: _compose_codes(flat), lambda: flat)
    return tf.reshape(composed, tf.shape(text))


def _compose_codes(text: tf.Tensor) -> tf.Tensor:
    """Compose the characters of `<string>[texts]`."""
    table = _composition()
    codes = tf.strings.unicode_decode(text, "UTF-8")
    place, is_replaced = _find(table.replaced, codes.flat_values)
    kept = tf.pad(codes.flat_values[:, None], [[0, 0], [0, 2]], constant_values=-1)
    parts = tf.where(is_replaced[:, None], tf.gather(table.replacements, place), kept)
    rows, codes = tf.repeat(codes.value_rowids(), 3), tf.reshape(parts, [-1])
    kept = tf.where(codes >= 0)[:, 0]
    rows, codes = tf.gather(rows, kept), tf.gather(codes, kept)
    shapes = (tf.TensorShape([]), tf.TensorShape([None]), tf.TensorShape([None]))
    _, rows, codes = tf.while_loop(
        lambda done, rows, codes: done < 3,  # no letter composes with more marks
        lambda done, rows, codes: (done + 1, *_compose_pairs(rows, codes)),
        (0, rows, codes),
        shape_invariants=shapes,
    )
    composed = tf.RaggedTensor.from_value_rowids(
        codes, rows, nrows=tf.size(text, tf.int64), validate=False
    )
    return tf.strings.unicode_encode(composed, "UTF-8")


def _compose_pairs(rows: tf.Tensor, first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Replace neighbouring characters of a row that compose, from the left, each at most once."""
    table = _composition()
    second = tf.concat([first[1:], [0]], axis=0)
    together = tf.concat([rows[1:] == rows[:-1], [False]], axis=0)[: tf.size(first)]
    second = tf.where(together, second[: tf.size(first)], 0)
    pairs = tf.bitwise.left_shift(tf.cast(first, tf.int64), 21) + tf.cast(second, tf.int64)
    place, hit = _find(table.pairs, pairs)
    composed = tf.gather(table.composed, place)
    # Hangul: leading consonant and vowel; these and a trailing consonant.
    lead, vowel, trail = first - 0x1100, second - 0x1161, second - 0x11A7
    syllable = (lead >= 0) & (lead < 19) & (vowel >= 0) & (vowel < 21)
    closes = (first >= 0xAC00) & (first < 0xD7A4) & ((first - 0xAC00) % 28 == 0)
    closes &= (trail > 0) & (trail < 28)
    composed = tf.where(syllable, 0xAC00 + (lead * 21 + vowel) * 28, composed)
    composed = tf.where(closes, first + trail, composed)
    hit |= syllable | closes
    taken = tf.concat([[False], hit], axis=0)[: tf.size(first)]  # second character of a pair
    hit &= ~taken
    taken = tf.concat([[False], hit], axis=0)[: tf.size(first)]
    kept = tf.where(~taken)[:, 0]
    return tf.gather(rows, kept), tf.gather(tf.where(hit, composed, first), kept)


def _find(table: np.ndarray, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the place of each value in a sorted table, and whether it is there."""
    place = tf.minimum(tf.searchsorted(table, values), len(table) - 1)
    return place, tf.gather(table, place) == values


# --- Vocabulary -----------------------------------------------------------------------------------


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
        """Read the file written by `write`; it becomes an asset of every export.

        Raises:
          InputError: the file cannot be read, is no vocabulary, or has a word twice.
        """
        super().__init__(name="vocabulary")
        self.path = Path(path)
        words = [line for _, line in read_lines(self.path)]
        if words[:2] != [PADDING, UNKNOWN]:
            raise InputError(f"expected {PADDING} and {UNKNOWN} on the first lines", path, 1)
        if len(set(words)) < len(words):
            [(word, _)] = collections.Counter(words).most_common(1)
            raise InputError(f"the word {word!r} stands on two lines", path)
        # An array, since TensorFlow would track every item of a list.
        self._words = np.array(words, object)
        # Exports copy the file, from which `--init` reads the words, too.
        initializer = UnsharedFile(str(self.path))
        self._table = tf.lookup.StaticHashTable(initializer, default_value=1)

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


def count_words(
    texts: tf.data.Dataset, split: Callable[[tf.Tensor], tf.RaggedTensor] = tokenize
) -> collections.Counter[str]:
    """Count the lower-cased tokens of a data set of strings, in the order of first appearance.

    Args:
      texts: `<string>[]` elements.
      split: the tokeniser.

    Example:
      >>> count_words(tf.data.Dataset.from_tensor_slices(["A film.", "a play"]))
      Counter({'a': 2, 'film': 1, '.': 1, 'play': 1})
    """
    counts: collections.Counter[str] = collections.Counter()
    for tokens in texts.batch(1024).map(lambda text: split(text).flat_values):
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
