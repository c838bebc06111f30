"""Sources in one form: typography, capitals, and words that are copied.

Forms that mean the same get the same subwords: apostrophes and quotation marks of every kind,
French marks with and without a blank before them, and a sentence in capital letters, whose
translation is then written in capitals, too.

Addresses, tags, numbers and rare names are not translated. A placeholder stands for each of them in
the source, the model writes it where it belongs in the translation, and decoding replaces it by the
word itself. In training, a word gets a placeholder where it stands on both sides. `choose_kinds`
finds out which kinds of words are copied in a corpus. In one without any, nothing is copied.

Everything is graph code, because exports accept raw text.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from common.text import select
from tasks.translation.subwords import (
    END,
    FIRST_COPY,
    LINK,
    LONGEST,
    MOST_COPIES,
    NUMBER,
    Subwords,
    clean,
    split_words,
)

import tensorflow as tf

LINKS, NUMBERS, NAMES = "links", "numbers", "names"
KINDS = (LINKS, NUMBERS, NAMES)
RARE = 3  # pieces of a rare word
# Copied words of a corpus from which a model learns to copy; fewer teach it nothing.
LEAST_COPIES = 100
# Fraction of the known names that get a placeholder in training, so that it stands in many
# sentences.
KNOWN_NAMES = 0.2

# French sets marks and quotes off by a blank.
_SAME = (
    ("[’‘`´ʼ]", "'"),
    ("« ?|[“”„‟]", '"'),
    (" ?»", '"'),
    (r"(\S) ([?!;:]+(?:[ \"']|$))", r"\1\2"),
)


def unify(text: tf.Tensor) -> tf.Tensor:
    r"""Write apostrophes, quotation marks and blanks before marks in one way.

    It applies to sources only: translations keep the typography of the training data.

    Args:
      text: `<string>[...]`, cleaned.

    Example:
      >>> [t.decode() for t in unify(tf.constant(["« L’été ? »", "Qui : moi !"])).numpy()]
      ['"L\'été?"', 'Qui: moi!']
    """
    for pattern, replacement in _SAME:
        text = tf.strings.regex_replace(text, pattern, replacement)
    return text


def sentence_case(text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Write sentences in capitals in small letters, and the first letter as a capital.

    Args:
      text: `<string>[...]`, cleaned.

    Returns:
      The texts, and `<bool>[...]`: which were written in capitals.

    Example:
      >>> texts, loud = sentence_case(tf.constant(["JE SORS !", "je sors", "La SNCF"]))
      >>> texts.numpy().tolist(), loud.numpy().tolist()
      ([b'Je sors !', b'Je sors', b'La SNCF'], [True, False, False])
    """
    loud = tf.strings.regex_full_match(text, r"(?s).*\p{Lu}{2}.*")
    # Letters without case, as in Japanese, say nothing about the Latin ones among them.
    loud &= ~tf.strings.regex_full_match(text, r"(?s).*[\p{Ll}\p{Lo}].*")
    text = tf.where(loud, tf.strings.lower(text, encoding="utf-8"), text)
    head = tf.strings.regex_replace(text, r"(?s)^([^\pL\pN]*\pL?).*", r"\1")
    tail = tf.strings.substr(text, tf.strings.length(head), tf.strings.length(text))
    raised = tf.strings.join([tf.strings.upper(head, encoding="utf-8"), tail])
    is_link = tf.strings.regex_full_match(text, f"(?s)(?:{LINK}).*")
    return tf.where(is_link, text, raised), loud


def prepare(text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return raw sources in the form that is encoded, and which were written in capitals."""
    return sentence_case(unify(clean(text)))


# --- Copies ---------------------------------------------------------------------------------------


class Words(NamedTuple):
    """The words of sentences, and which of them are copied.

    Attributes:
      words: ragged `<string>[batch, (words)]`.
      pieces: ragged `<int32>[batch, (words), (pieces)]`.
      copies: ragged `<int32>[batch, (words)]`, the number of the placeholder of each word; -1 for
        a word that is translated.
    """

    words: tf.RaggedTensor
    pieces: tf.RaggedTensor
    copies: tf.RaggedTensor


def find_copies(
    words: tf.RaggedTensor,
    pieces: tf.RaggedTensor,
    kinds: Collection[str],
    *,
    known_names: float = 0.0,
    seed: tf.Tensor = (0, 0),
) -> Words:
    """Find the words of sources that are copied: up to `MOST_COPIES` of a sentence.

    A name is a word of letters with a capital that does not begin a sentence.

    Args:
      words: ragged `<string>[batch, (words)]`, of `split_words` with `whole`.
      pieces: ragged `<int32>[batch, (words), (pieces)]`.
      kinds: of `KINDS`; rare names only.
      known_names: fraction of the names that are not rare to copy.
      seed: `<int32>[2]`, seed of their choice.
    """
    of_kind = _words_by_kind(words)
    known = tf.random.stateless_uniform(tf.shape(words.values), seed) < known_names
    of_kind[NAMES] &= (pieces.values.row_lengths() >= RARE) | known
    is_copied = tf.zeros_like(words.values, tf.bool)
    for kind in kinds:
        is_copied |= of_kind[kind]
    count = tf.cumsum(tf.cast(is_copied, tf.int32), exclusive=True)
    number = count - tf.gather(tf.concat([count, [0]], 0), _row_starts(words))
    number = tf.where(is_copied & (number < MOST_COPIES), number, -1)
    return Words(words, pieces, words.with_values(number))


def _words_by_kind(words: tf.RaggedTensor) -> dict[str, tf.Tensor]:
    """Return for each kind which of `words.values` are of it; all names, rare or not."""
    flat = words.values
    bare = tf.strings.regex_replace(flat, "^ ", "")
    before = tf.concat([["."], flat], axis=0)[:-1]
    begins = (_place(words) == 0) | tf.strings.regex_full_match(before, r"(?s).*[.!?:\"(…。]")
    return {
        LINKS: tf.strings.regex_full_match(bare, LINK),
        NUMBERS: tf.strings.regex_full_match(bare, NUMBER),
        NAMES: ~begins & tf.strings.regex_full_match(flat, r" \p{Lu}[\pL\pM]+"),
    }


def _row_starts(rows: tf.RaggedTensor) -> tf.Tensor:
    """Return the place of the first value of its row, for each value."""
    return tf.gather(rows.row_starts(), rows.value_rowids())


def _place(rows: tf.RaggedTensor) -> tf.Tensor:
    """Return the place of each value in its row."""
    return tf.range(tf.size(rows.values, tf.int64)) - _row_starts(rows)


def copied_words(source: Words) -> tf.Tensor:
    """Return the words that placeholders stand for: `<string>[batch, MOST_COPIES]`, "" if none.

    The copies must be numbered from 0, as by `find_copies`.
    """
    bare = tf.strings.regex_replace(source.words.flat_values, "^ ", "")
    copied = select(source.words.with_values(bare), source.copies.flat_values >= 0)
    return copied.to_tensor("", shape=[None, MOST_COPIES])


def match_copies(source: Words, target: Words) -> tuple[Words, Words]:
    """Keep the copies of the source that stand in the target, and number them there, too."""
    words = copied_words(source)
    bare = tf.strings.regex_replace(target.words.flat_values, "^ ", "")
    rows = target.words.value_rowids()
    equal = tf.equal(bare[:, None], tf.gather(words, rows)) & tf.not_equal(bare, "")[:, None]
    number = tf.argmax(equal, axis=1, output_type=tf.int32)
    number = tf.where(tf.reduce_any(equal, axis=1), number, -1)
    used = tf.math.unsorted_segment_max(
        tf.one_hot(number, MOST_COPIES, dtype=tf.int32), rows, tf.shape(words)[0]
    )
    numbers = source.copies.flat_values
    places = tf.stack([tf.cast(source.copies.value_rowids(), tf.int32), numbers], axis=1)
    is_used = tf.gather_nd(used, tf.maximum(places, 0)) > 0
    numbers = tf.where((numbers >= 0) & is_used, numbers, -1)
    return (
        source._replace(copies=source.copies.with_values(numbers)),
        target._replace(copies=target.words.with_values(number)),
    )


def to_ids(words: Words) -> tf.RaggedTensor:
    """Return the ids of words, those of placeholders for copied words.

    Returns:
      A ragged `<int32>[batch, (pieces)]`.
    """
    pieces = words.pieces.values
    number = words.copies.flat_values
    spaced = tf.strings.regex_full_match(words.words.flat_values, "(?s) .*")
    placeholder = FIRST_COPY + 2 * number + tf.cast(spaced, tf.int32)
    rows = pieces.value_rowids()
    is_copied = tf.gather(number >= 0, rows)
    ids = tf.where(is_copied, tf.gather(placeholder, rows), pieces.values)
    ids = select(pieces.with_values(ids), ~is_copied | (_place(pieces) == 0))
    return words.pieces.with_values(ids).merge_dims(1, 2)


def encode_pairs(
    reader: Subwords,
    writer: Subwords,
    source: tf.Tensor,
    target: tf.Tensor,
    *,
    kinds: Collection[str] = (),
    subword_dropout: float = 0.0,
    seed: tf.Tensor = (0, 0),
) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
    """Encode sentence pairs; words that are copied have the same placeholder on both sides.

    Args:
      reader: subwords of the source language.
      writer: subwords of the target language.
      source: `<string>[batch]`.
      target: `<string>[batch]`.
      kinds: kinds of words that are copied.
      subword_dropout: dropout on both sides; see `Subwords.encode_words`.
      seed: `<int32>[2]`, seed of the dropout, and of the known names that are copied.

    Returns:
      Two ragged `<int32>[batch, (pieces)]`.
    """
    source, loud = prepare(source)
    target = clean(target)
    # A sentence in capitals is another example of the sentence in small letters.
    target = tf.where(loud, sentence_case(target)[0], target)
    words, translated = split_words(source, whole=True), split_words(target, whole=True)
    pieces = reader.encode_words(words)  # without dropout, which makes words look rare
    sources = find_copies(words, pieces, kinds, known_names=KNOWN_NAMES, seed=seed)
    none = tf.fill(tf.shape(translated.flat_values), -1)
    # Another seed than that of the source: both sides are split independently.
    other = (seed[0] + 1, seed[1])
    written = writer.encode_words(translated, dropout=subword_dropout, seed=other)
    targets = Words(translated, written, translated.with_values(none))
    if kinds:
        sources, targets = match_copies(sources, targets)
    if subword_dropout:
        pieces = reader.encode_words(words, dropout=subword_dropout, seed=seed)
    return to_ids(sources._replace(pieces=pieces)), to_ids(targets)


def choose_kinds(
    pairs: tf.data.Dataset, reader: Subwords, writer: Subwords
) -> tuple[tuple[str, ...], int]:
    """Choose the kinds of words that translations of a corpus copy.

    A kind is copied if most of its words stand on both sides. Links, which are rare, are also
    copied if there are none.

    Args:
      pairs: elements `{source: <string>[], target: <string>[]}`.
      reader: subwords of the source language.
      writer: subwords of the target language.

    Returns:
      The kinds, and the number of copied words that teach the model; no kinds if there are fewer
      than `LEAST_COPIES`.
    """

    def count(batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        words = split_words(prepare(batch["source"])[0], whole=True)
        pieces = reader.encode_words(words)
        target = split_words(clean(batch["target"]), whole=True)
        target = Words(target, writer.encode_words(target), tf.zeros_like(target, tf.int32))
        found = find_copies(words, pieces, KINDS, known_names=KNOWN_NAMES)
        matched, _ = match_copies(found, target)
        of_kind = tf.stack([_words_by_kind(words)[kind] for kind in KINDS])
        counts = [
            tf.math.count_nonzero(of_kind & (copies.flat_values >= 0), axis=1)
            for copies in (found.copies, matched.copies)
        ]
        return tf.stack(counts)

    counts = sum(pairs.batch(1024).map(count, tf.data.AUTOTUNE)).numpy()
    rows = dict(zip(KINDS, counts.T.tolist(), strict=True))
    kinds = tuple(
        kind
        for kind, (found, matched) in rows.items()
        if 2 * matched >= found and (matched or kind == LINKS)
    )
    lessons = sum(rows[kind][1] for kind in kinds)
    return (kinds, lessons) if lessons >= LEAST_COPIES else ((), lessons)


# --- Sources of a model ---------------------------------------------------------------------------


class Source(NamedTuple):
    """Raw texts as the inputs of a model, and what decoding needs.

    Attributes:
      ids: `<int32>[batch, time]`, right-padded, with the end symbol.
      length: `<int32>[batch]`, with the end symbol; 0 for an empty text.
      copies: `<string>[batch, MOST_COPIES]`, the words that placeholders stand for; "" if none.
      loud: `<bool>[batch]`, which texts are written in capitals.
      truncated: `<bool>[batch]`, of which texts only the beginning is encoded.
    """

    ids: tf.Tensor
    length: tf.Tensor
    copies: tf.Tensor
    loud: tf.Tensor
    truncated: tf.Tensor

    def decode(self, writer: Subwords, ids: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Decode the translations `<int32>[batch, time]` of these sources to `<string>[batch]`."""
        text = writer.decode(ids, length, self.copies)
        return tf.where(self.loud, tf.strings.upper(text, encoding="utf-8"), text)

    def repeat(self, count: int) -> Source:
        """Return each row `count` times, for as many translations of it."""
        return Source(*(tf.repeat(x, count, axis=0) for x in self))


def encode_source(
    reader: Subwords, text: tf.Tensor, *, max_length: int, kinds: Collection[str] = ()
) -> Source:
    """Encode raw source texts as the model's inputs.

    Args:
      reader: subwords of the source language.
      text: `<string>[batch]`.
      max_length: maximum number of subwords; longer texts are truncated.
      kinds: kinds of words that are copied.
    """
    # A subword has at most LONGEST bytes, so characters after these are rarely used.
    characters = LONGEST * max_length
    text = tf.strings.strip(text)
    long = tf.strings.length(text, unit="UTF8_CHAR") > characters
    text, loud = sentence_case(unify(clean(text, characters=characters)))
    words = split_words(text, whole=True)
    found = find_copies(words, reader.encode_words(words), kinds)
    ragged = to_ids(found)
    truncated = long | (ragged.row_lengths() > max_length)
    ragged = ragged[:, :max_length]
    length = tf.cast(ragged.row_lengths(), tf.int32)
    ids = tf.concat([ragged, tf.fill([ragged.nrows(), 1], END)], axis=1).to_tensor()
    length = tf.where(length > 0, length + 1, 0)
    return Source(ids, length, copied_words(found), loud, truncated & (length > 0))
