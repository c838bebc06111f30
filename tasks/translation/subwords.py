"""Subwords: a small vocabulary that writes any text, and reads it back to the byte.

A text is cut into words in front of blanks and around marks (`words`), and each word from left to
right into the longest pieces that the vocabulary holds (`Subwords`), as WordPiece does (Wu et al.
2016). The pieces are strings of bytes and every byte is one of them, so there is no unknown word:
an emoji or a Chinese character becomes the bytes that it is made of. A blank belongs to the piece
behind it, so pieces put one behind the other are the text again.

Cutting is graph code, for exports take raw text. The pieces are learnt by byte-pair encoding
(Sennrich et al. 2016) with the library `tokenizers`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from common.errors import InputError, require

import tensorflow as tf

PAD, START, END = 0, 1, 2
SPECIAL = (b"<pad>", b"<s>", b"</s>")
LONGEST = 16  # bytes of a piece

# Letters with an apostrophe behind them ("l'", "don'"), a digit, or marks; each with its blank.
_WORD = r" ?(?:[\pL\pM]+['’]?|\pN|[^\s\pL\pM\pN]+)"
_CUT = "\x01"
# The bytes that a text can hold: `tidy` leaves no control characters, UTF-8 has no others.
_BYTES = [bytes([b]) for b in (*range(0x20, 0x7F), *range(0x80, 0xC0), *range(0xC2, 0xF5))]


def tidy(text: tf.Tensor, *, characters: int | None = None) -> tf.Tensor:
    r"""Repairs UTF-8, makes one blank of any run of blanks and control characters, and trims.

    Args:
      text: `<string>[...]`.
      characters: only so many of the first ones are looked at.

    Example:
      >>> tidy(tf.constant([" Où \n es-tu\xa0? "])).numpy()[0].decode()
      'Où es-tu ?'
    """
    if characters is not None:  # bytes first, so that no huge text is gone through
        text = tf.strings.substr(text, 0, 4 * characters)
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    if characters is not None:
        text = tf.strings.substr(text, 0, characters, unit="UTF8_CHAR")
    return tf.strings.strip(tf.strings.regex_replace(text, r"[\pZ\pC\s]+", " "))


def words(text: tf.Tensor) -> tf.RaggedTensor:
    """Cuts tidy text into words, each with the blank in front of it; the first one gets one, too.

    Example:
      >>> words(tf.constant(["Il n'a pas 20 ans."])).to_list()
      [[b' Il', b" n'", b'a', b' pas', b' 2', b'0', b' ans', b'.']]
    """
    spaced = tf.where(tf.equal(text, ""), "", tf.strings.join([" ", text]))
    marked = tf.strings.regex_replace(spaced, _WORD, rf"\0{_CUT}")
    parts = tf.strings.split(marked, _CUT)
    return tf.ragged.boolean_mask(parts, tf.not_equal(parts, ""))


def learn(texts: Iterable[bytes], path: str | Path, *, size: int) -> None:
    """Learns pieces by byte-pair encoding, and writes them: line k (from 0) is piece k.

    Args:
      texts: the training texts, of one language or several.
      path: the file to write.
      size: how many pieces, special ones included.

    Raises:
      InputError: `tokenizers` is not installed, or `size` is below the number of bytes.
    """
    tokenizers = require("tokenizers", "translation")
    if size < len(SPECIAL) + len(_BYTES):
        raise InputError(f"a vocabulary needs {len(SPECIAL) + len(_BYTES)} pieces or more")

    def tidy_words() -> Iterable[str]:
        # The library works on characters: byte b is shown to it as the character of that number.
        for batch in tf.data.Dataset.from_tensor_slices(list(texts)).batch(4096):
            for word in words(tidy(batch)).flat_values.numpy():
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
    tokenizer.train_from_iterator(tidy_words(), trainer)
    numbered = tokenizer.get_vocab()
    pieces = [piece.encode("latin-1") for piece in sorted(numbered, key=numbered.get)]
    Path(path).write_bytes(b"".join(piece + b"\n" for piece in (*SPECIAL, *pieces)))


class Subwords(tf.Module):
    """The pieces that a model reads and writes, with the tables that are exported with it.

    Args:
      path: the file written by `learn`; it becomes an asset of every export.

    Example:
      >>> subwords = Subwords("vocabulary.txt")
      >>> ids = subwords.encode(tf.constant(["Elle chante."]))
      >>> tf.gather(subwords.pieces, ids.flat_values)
      [b' Elle', b' chant', b'e', b'.']
      >>> subwords.decode(ids.to_tensor(), ids.row_lengths())
      [b'Elle chante.']
    """

    def __init__(self, path: str | Path):
        """Reads the pieces."""
        super().__init__(name="subwords")
        self.path = Path(path)
        try:
            listed = self.path.read_bytes().removesuffix(b"\n").split(b"\n")
        except OSError as error:
            raise InputError(f"cannot read: {error.strerror}", path) from error
        if tuple(listed[: len(SPECIAL)]) != SPECIAL or not set(_BYTES) <= set(listed):
            raise InputError(f"no vocabulary of subwords: expected {SPECIAL} and all bytes", path)
        self.pieces = tf.constant(listed)
        # A text that writes out "<pad>" must not make one.
        self._longest = max(map(len, listed[len(SPECIAL) :]))
        self._table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(self.path),
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            default_value=-1,
        )

    def __len__(self) -> int:
        return int(self.pieces.shape[0])

    def encode(
        self,
        text: tf.Tensor,
        *,
        characters: int | None = None,
        dropout: float = 0.0,
        seed: tf.Tensor | None = None,
    ) -> tf.RaggedTensor:
        """Cuts texts into the ids of their pieces.

        Args:
          text: `<string>[batch]`, raw.
          characters: only so many of the first ones are looked at.
          dropout: share of pieces of several bytes that are passed over, so that a word is cut in
            many ways (MaxMatch-Dropout, Hiraoka 2022); in one way within this batch.
          seed: `<int32>[2]` of the dropout.

        Returns:
          A ragged `<int32>[batch, (pieces)]`; an empty row for a text of blanks.
        """
        parts = words(tidy(text, characters=characters))
        different, places = tf.unique(parts.flat_values)
        return parts.with_values(
            tf.gather(self._cut(tf.concat([different, [" "]], axis=0), dropout, seed), places)
        ).merge_dims(1, 2)

    def _cut(
        self, word: tf.Tensor, dropout: float = 0.0, seed: tf.Tensor | None = None
    ) -> tf.RaggedTensor:
        """Longest pieces from the left: `<string>[words]` to ragged `<int32>[words, (pieces)]`."""
        length = tf.strings.length(word)
        # Behind the end stand bytes of no piece, so that no candidate reaches beyond it.
        padded = tf.strings.join([word, "\0" * self._longest])[:, None]
        sizes = tf.range(self._longest, 0, -1)

        def longest(k: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            at = tf.repeat(place[:, None], self._longest, axis=1)
            candidates = tf.strings.substr(
                tf.repeat(padded, self._longest, axis=1), at, tf.zeros_like(at) + sizes
            )
            ids = tf.cast(self._table.lookup(candidates), tf.int32)
            usable = ids >= len(SPECIAL)
            if dropout:
                chance = tf.random.stateless_uniform(
                    tf.shape(ids), tf.stack([seed[0], seed[1] + k])
                )
                usable &= (chance >= dropout) | (sizes == 1)
            best = tf.argmax(usable, axis=1, output_type=tf.int32)
            return tf.gather(ids, best, batch_dims=1), tf.gather(sizes, best)

        def body(k: tf.Tensor, place: tf.Tensor, found: tf.TensorArray) -> tuple:
            open_ = place < length
            ids, size = longest(k, place)
            found = found.write(k, tf.where(open_, ids, -1))
            return k + 1, tf.where(open_, place + size, place), found

        _, _, found = tf.while_loop(
            lambda k, place, found: tf.reduce_any(place < length),
            body,
            (0, tf.zeros_like(length), tf.TensorArray(tf.int32, 0, dynamic_size=True)),
        )
        ids = tf.transpose(found.stack())
        return tf.ragged.boolean_mask(ids, ids >= 0)

    def decode(self, ids: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Puts pieces together: the first `length` of `<int32>[batch, time]` to `<string>[batch]`.

        Invalid UTF-8, which a model could write byte by byte, is replaced.
        """
        real = tf.sequence_mask(length, tf.shape(ids)[1])
        pieces = tf.where(real, tf.gather(self.pieces, ids), "")
        text = tf.strings.reduce_join(pieces, axis=1)
        text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
        return tf.strings.strip(text)

    def spell(self, ids: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
        """The pieces as valid UTF-8 for people to look at: `<string>[batch, time]`, "" if not real.

        A blank in front of a piece stays.
        """
        pieces = tf.where(real, tf.gather(self.pieces, ids), "")
        return tf.strings.unicode_transcode(pieces, "UTF-8", "UTF-8", errors="replace")
