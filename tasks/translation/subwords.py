"""Subwords: a small vocabulary that encodes any text and decodes it byte for byte.

A text is split into words before spaces and around punctuation (`split_words`). Each word is split
from left to right into the longest pieces of the vocabulary (`Subwords`), as in WordPiece (Wu et
al. 2016). Pieces are byte strings and every byte is a piece, so no word is unknown: an emoji or a
Chinese character becomes its bytes. A space belongs to the piece that follows it, so the
concatenated pieces are the text again.

Encoding is graph code, because exports accept raw text. The pieces are learnt by byte-pair encoding
(Sennrich et al. 2016) with the library `tokenizers`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.errors import InputError, require
from common.text import compose, select

import tensorflow as tf

PAD, START, END = 0, 1, 2
MOST_COPIES = 8  # words of a sentence that are copied; the others are translated
FIRST_COPY = 3  # id of the first placeholder; each has a form without and one with a leading space
_COPIES = [f"{space}<{k}>".encode() for k in range(MOST_COPIES) for space in ("", " ")]
SPECIAL = (b"<pad>", b"<s>", b"</s>", *_COPIES)
LONGEST = 16  # maximum length of a piece in bytes

# Joiners that words of several scripts need: the zero-width non-joiner and joiner.
_JOINER = r"\x{200C}\x{200D}"
# A run of letters with a trailing apostrophe ("l'", "don'"), a digit, or a run of other characters;
# each with a leading space.
_PARTS = rf"[\pL\pM{_JOINER}]+['’]?|\pN|[^\s\pL\pM\pN]+"
# Web and mail addresses and tags; numbers of several digits. They are one word where words may be
# copied.
LINK = (
    r"(?i:https?://|www\.)[^\s<>\"]*[^\s<>\"'.,;:!?)\]}]"
    r"|[\pL\pN_.+-]+@[\pL\pN-]+(?:\.[\pL\pN-]+)+"
    r"|</?[A-Za-z][^<>]*>"
)
NUMBER = r"\pN{1,3}(?: \pN{3})+(?:[.,]\pN+)?|\pN[\pN.,:/]*\pN"
_SEPARATOR = "\x01"
# The bytes of cleaned text: `clean` removes control characters, and UTF-8 has no other bytes.
_BYTES = [bytes([b]) for b in (*range(0x20, 0x7F), *range(0x80, 0xC0), *range(0xC2, 0xF5))]

# RE2 subtracts from a class by a double negation: blanks without the ideographic space, and format
# characters without joiners and the tags of emoji.
_BLANK = r"(?:[^\PZ\x{3000}]|[\s\p{Cc}\p{Co}])+"
_TAGS = r"\x{E0020}-\x{E007F}"
_INVISIBLE = rf"[^\P{{Cf}}{_JOINER}{_TAGS}]"
# A text without anything visible, or blanks at its ends.
_MARGINS = rf"^[ \x{{3000}}{_JOINER}{_TAGS}]+$|^[ \x{{3000}}]+|[ \x{{3000}}]+$"


def lookup_table(words: Sequence[str | bytes], *, unknown: int) -> tf.lookup.StaticHashTable:
    """Return a table from each word to its place in `words`.

    The words are a tensor. TensorFlow would give a table that reads a file the name of that file:
    within a process, a second vocabulary of the same path would get the words of the first one.

    Args:
      words: different words.
      unknown: the value of all other words.

    Example:
      >>> lookup_table(["a", "b"], unknown=-1).lookup(tf.constant(["b", "c"])).numpy()
      array([ 1, -1])
    """
    places = tf.range(len(words), dtype=tf.int64)
    initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(words, tf.string), places)
    return tf.lookup.StaticHashTable(initializer, default_value=unknown)


def clean(text: tf.Tensor, *, characters: int | None = None) -> tf.Tensor:
    r"""Repair UTF-8, compose accents, collapse whitespace to single spaces, and strip.

    Control characters count as whitespace. Invisible format characters are removed, except joiners
    and the tags of emoji. The ideographic space stays as it is inside a text; a text without
    anything visible becomes empty.

    Args:
      text: `<string>[...]`.
      characters: maximum number of characters; the remaining ones are ignored.

    Example:
      >>> clean(tf.constant([" Où \n es-tu\xa0? "])).numpy()[0].decode()
      'Où es-tu ?'
    """
    if characters is not None:  # bytes first, so that a huge text is never scanned
        text = tf.strings.substr(text, 0, 4 * characters)
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    if characters is not None:
        text = tf.strings.substr(text, 0, characters, unit="UTF8_CHAR")
    text = tf.strings.regex_replace(text, _BLANK, " ")
    text = compose(tf.strings.regex_replace(text, _INVISIBLE, ""))
    return tf.strings.regex_replace(text, _MARGINS, "")


def split_words(text: tf.Tensor, *, whole: bool = False) -> tf.RaggedTensor:
    """Split cleaned text into words; the first word gets a leading space.

    Args:
      text: `<string>[batch]`.
      whole: whether addresses, tags and numbers are one word each.

    Returns:
      A ragged `<string>[batch, (words)]`.

    Example:
      >>> split_words(tf.constant(["Il n'a pas 20 ans."])).to_list()
      [[b' Il', b" n'", b'a', b' pas', b' 2', b'0', b' ans', b'.']]
      >>> split_words(tf.constant(["20 ans."]), whole=True).to_list()
      [[b' 20', b' ans', b'.']]
    """
    spaced = tf.where(tf.equal(text, ""), "", tf.strings.join([" ", text]))
    pattern = f"{LINK}|{NUMBER}|{_PARTS}" if whole else _PARTS
    separated = tf.strings.regex_replace(spaced, f" ?(?:{pattern})", rf"\0{_SEPARATOR}")
    words = tf.strings.split(separated, _SEPARATOR)
    return select(words, tf.not_equal(words.values, ""))


def learn(texts: Iterable[bytes], path: str | Path, *, size: int) -> None:
    """Learn pieces by byte-pair encoding and write them to a file, piece k on line k (from 0).

    Args:
      texts: training texts, in one or more languages, in the form that is encoded.
      path: file to write.
      size: maximum number of pieces, including the special ones.

    Raises:
      InputError: `tokenizers` is not installed, or `size` is smaller than the number of bytes.
    """
    tokenizers = require("tokenizers", "translation")
    least = len(SPECIAL) + len(_BYTES)
    if size < least:
        raise InputError(
            f"a vocabulary needs {least} pieces or more, got {size}; "
            "see --source_subwords and --target_subwords"
        )

    def words() -> Iterable[str]:
        # The library works on characters, so byte b is passed as character number b.
        iterator = iter(texts)
        while batch := list(itertools.islice(iterator, 4096)):
            for word in split_words(clean(tf.constant(batch))).flat_values.numpy():
                yield word.decode("latin-1")

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL),
        initial_alphabet=[byte.decode("latin-1") for byte in _BYTES],
        limit_alphabet=len(_BYTES),
        max_token_length=LONGEST,
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(words(), trainer)
    index = tokenizer.get_vocab()
    pieces = [piece.encode("latin-1") for piece in sorted(index, key=index.get)]
    Path(path).write_bytes(b"".join(piece + b"\n" for piece in (*SPECIAL, *pieces)))


class Subwords(tf.Module):
    """Subword vocabulary, with the lookup table that is exported with the model.

    Args:
      path: file written by `learn`; it becomes an asset of every export.

    Attributes:
      pieces: `<string>[pieces]`.

    Example:
      >>> import tempfile
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = Path(folder.name, "subwords.txt")
      >>> learn([b"Elle chante.", b"Il dansait."] * 5, path, size=256)
      >>> subwords = Subwords(path)
      >>> ids = subwords.encode(tf.constant(["Elle chantera."]))
      >>> tf.gather(subwords.pieces, ids).to_list()
      [[b' Elle', b' chante', b'r', b'a', b'.']]
      >>> subwords.decode(ids.to_tensor(), ids.row_lengths()).numpy()
      array([b'Elle chantera.'], dtype=object)
      >>> folder.cleanup()
    """

    def __init__(self, path: str | Path):
        """Read the pieces.

        Raises:
          InputError: the file cannot be read, or is no vocabulary.
        """
        super().__init__(name="subwords")
        self.path = Path(path)
        try:
            pieces = self.path.read_bytes().removesuffix(b"\n").split(b"\n")
        except OSError as error:
            raise InputError(f"cannot read: {error.strerror}", path) from error
        if tuple(pieces[: len(SPECIAL)]) != SPECIAL or not set(_BYTES) <= set(pieces):
            raise InputError(f"not a subword vocabulary: expected {SPECIAL} and all bytes", path)
        if len(set(pieces)) < len(pieces):
            raise InputError("not a subword vocabulary: a piece stands on two lines", path)
        self.pieces = tf.constant(pieces)
        self._longest = max(map(len, pieces[len(SPECIAL) :]))
        self._table = lookup_table(pieces, unknown=-1)
        # Exports copy the file, from which `--init` reads the pieces.
        self._asset = tf.saved_model.Asset(str(self.path))

    def __len__(self) -> int:
        return int(self.pieces.shape[0])

    def encode(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Encode raw texts as ids of pieces.

        Args:
          text: `<string>[batch]`.

        Returns:
          A ragged `<int32>[batch, (pieces)]`; the row of an empty text is empty.
        """
        return self.encode_words(split_words(clean(text))).merge_dims(1, 2)

    def encode_words(
        self, words: tf.RaggedTensor, *, dropout: float = 0.0, seed: tf.Tensor = (0, 0)
    ) -> tf.RaggedTensor:
        """Encode words as ids of pieces.

        Args:
          words: ragged `<string>[batch, (words)]`; see `split_words`.
          dropout: fraction of matching pieces of several bytes that are skipped at random, so that
            a word is split in different ways (MaxMatch-Dropout, Hiraoka 2022). Within a batch, a
            word is split in one way.
          seed: `<int32>[2]`, seed of the dropout.

        Returns:
          A ragged `<int32>[batch, (words), (pieces)]`.
        """
        unique, places = tf.unique(words.flat_values)
        # The added word keeps the loop of `_split` from running zero times.
        pieces = self._split(tf.concat([unique, [" "]], axis=0), dropout, seed)
        return words.with_values(tf.gather(pieces, places))

    def _split(self, words: tf.Tensor, dropout: float, seed: tf.Tensor) -> tf.RaggedTensor:
        """Split words into their longest pieces, from left to right.

        Args:
          words: `<string>[words]`, at least one.
          dropout: see `encode_words`.
          seed: see there.

        Returns:
          A ragged `<int32>[words, (pieces)]`.
        """
        length = tf.strings.length(words)
        # No piece has a zero byte, so no candidate extends past the end of its word.
        padded = tf.strings.join([words, "\0" * self._longest])[:, None]
        sizes = tf.range(self._longest, 0, -1)

        def longest(k: tf.Tensor, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """Return id and size of the longest piece at `start` `<int32>[words]`."""
            starts = tf.repeat(start[:, None], self._longest, axis=1)
            candidates = tf.strings.substr(
                tf.repeat(padded, self._longest, axis=1), starts, tf.zeros_like(starts) + sizes
            )
            ids = tf.cast(self._table.lookup(candidates), tf.int32)
            usable = ids >= len(SPECIAL)  # text that contains "<pad>" is no padding
            if dropout:
                chance = tf.random.stateless_uniform(
                    tf.shape(ids), tf.stack([seed[0], seed[1] + k])
                )
                usable &= (chance >= dropout) | (sizes == 1)
            best = tf.argmax(usable, axis=1, output_type=tf.int32)
            return tf.gather(ids, best, batch_dims=1), tf.gather(sizes, best)

        def body(
            k: tf.Tensor, start: tf.Tensor, pieces: tf.TensorArray
        ) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
            unfinished = start < length
            ids, size = longest(k, start)
            pieces = pieces.write(k, tf.where(unfinished, ids, -1))
            return k + 1, tf.where(unfinished, start + size, start), pieces

        _, _, pieces = tf.while_loop(
            lambda k, start, pieces: tf.reduce_any(start < length),
            body,
            (0, tf.zeros_like(length), tf.TensorArray(tf.int32, 0, dynamic_size=True)),
        )
        ids = tf.transpose(pieces.stack())
        count = tf.math.count_nonzero(ids >= 0, axis=1)
        real = tf.gather_nd(ids, tf.where(ids >= 0))
        return tf.RaggedTensor.from_row_lengths(real, count, validate=False)

    def decode(
        self, ids: tf.Tensor, length: tf.Tensor, copies: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Decode ids to text.

        Invalid UTF-8, which a model can write byte by byte, is replaced by U+FFFD.

        Args:
          ids: `<int32>[batch, time]`.
          length: `<int32>[batch]`, number of valid ids of each row.
          copies: `<string>[batch, MOST_COPIES]`, the words that placeholders stand for; "" if none.

        Returns:
          `<string>[batch]`.
        """
        pieces = self._spell(ids, tf.sequence_mask(length, tf.shape(ids)[1]), copies)
        text = tf.strings.reduce_join(pieces, axis=1)
        text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
        return tf.strings.strip(text)

    def to_tokens(
        self, ids: tf.Tensor, valid: tf.Tensor, copies: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Return the pieces as valid UTF-8, for display; leading spaces are kept.

        Args:
          ids: `<int32>[batch, time]`.
          valid: `<bool>[batch, time]`.
          copies: see `decode`.

        Returns:
          `<string>[batch, time]`; "" where `valid` is False.
        """
        pieces = self._spell(ids, valid, copies)
        return tf.strings.unicode_transcode(pieces, "UTF-8", "UTF-8", errors="replace")

    def _spell(self, ids: tf.Tensor, valid: tf.Tensor, copies: tf.Tensor | None) -> tf.Tensor:
        """Return the pieces of ids, with the words of placeholders; "" where not `valid`."""
        pieces = tf.gather(self.pieces, ids)
        number = ids - FIRST_COPY
        is_copy = (number >= 0) & (number < 2 * MOST_COPIES)
        words = tf.zeros_like(pieces)
        if copies is not None:
            number = tf.clip_by_value(number, 0, 2 * MOST_COPIES - 1)
            words = tf.gather(copies, number // 2, batch_dims=1)
            spaced = (number % 2 == 1) & tf.not_equal(words, "")
            words = tf.strings.join([tf.where(spaced, " ", ""), words])
        return tf.where(valid, tf.where(is_copy, words, pieces), "")
