r"""Tokens of opinions: emoji, emoticons, web addresses and names of users are one token each.

All of it is graph code, for training and for serving. Emoticons become the emoji of the same
meaning, so both share one vector.
"""

from __future__ import annotations

from collections.abc import Callable

from common import text as common_text
from common.word_embedding import LONGEST_PART, SHORTEST_PART

import tensorflow as tf

# Invisible marks inside words or emoji: soft hyphen, joiners, direction marks, emoji variants and
# skin tones.
_INVISIBLE = r"[\x{AD}\x{200B}\x{200D}-\x{200F}\x{2060}\x{FEFF}\x{FE0E}\x{FE0F}\x{1F3FB}-\x{1F3FF}]"
_EYES, _NOSE = "[:=]", "['^o-]?"
_END = r"(\s|$|[.,!?])"
# The first of these comes first: an address holds ":/".
_REWRITES = (
    (r"\s+", "  "),  # two, since a match may include those around an emoticon
    (r"(?i)<br\s*/?>", " "),
    (r"(?i)\b(?:https?://|www\.)\S+", " http "),
    (r"(^|\s)@\w+", r"\1 @ "),
    (r"</3", " 💔 "),
    (r"<3+", " ❤ "),
    (rf">{_EYES}-?[(\[]+", " 😠 "),
    (rf"{_EYES}[',]-?[(\[]+", " 😢 "),
    (rf"{_EYES}[',]-?[)\]]+", " 😂 "),
    (rf"{_EYES}{_NOSE}[)\]}}]+", " 🙂 "),
    (rf"{_EYES}{_NOSE}[(\[{{]+(\W|$)", r" 🙁 \1"),
    (rf"(^|\s)\(+{_NOSE}[:=]", r"\1 🙂 "),
    (rf"(^|\s)\)+{_NOSE}[:=]", r"\1 🙁 "),
    (r";-?[)\]]+", " 😉 "),
    (rf"(^|[^\w])(?:[:=;]-?|[xX])D+{_END}", r"\1 😀 \2"),
    (rf"(^|[^\w])[:=;]-?[pPb]{_END}", r"\1 😛 \2"),
    (rf"(^|[^\w])[:=]-?[/\\|]{_END}", r"\1 😕 \2"),
    (rf"(^|[^\w])[:=]-?[oO]{_END}", r"\1 😮 \2"),
    (rf"(^|[^\w])[:;=]-?\*+{_END}", r"\1 😘 \2"),
    (r"\^_*\^", " 😊 "),
    (r"(^|\s)-_+-", r"\1 😑 "),
)


def tokenize(text: tf.Tensor) -> tf.RaggedTensor:
    r"""Split texts into lower-cased tokens; see `common.text.tokenize`.

    Args:
      text: `<string>[batch]`, UTF-8.

    Returns:
      A ragged `<string>[batch, (tokens)]`; an empty row for a text of blanks.

    Example:
      >>> rows = tokenize(tf.constant(["@ann Loved it :-) https://example.org/a?b"])).to_list()
      >>> " ".join(token.decode() for token in rows[0])
      '@ loved it 🙂 http'
    """
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    text = _narrow(tf.strings.regex_replace(text, _INVISIBLE, ""))
    for pattern, replacement in _REWRITES:
        text = tf.strings.regex_replace(text, pattern, replacement)
    return common_text.tokenize(text)


def _narrow(text: tf.Tensor) -> tf.Tensor:
    """Replace full-width forms of ASCII, as keyboards for Chinese and Japanese produce them."""
    codes = tf.strings.unicode_decode(text, "UTF-8")
    flat = codes.flat_values
    is_wide = (flat >= 0xFF01) & (flat <= 0xFF5E)
    narrow = codes.with_flat_values(tf.where(is_wide, flat - 0xFEE0, flat))
    return tf.strings.unicode_encode(narrow, "UTF-8")


class Reader(tf.Module):
    """Convert texts to tokens and their ids; exported with the model.

    A word that is not in the vocabulary is read as its parts: "buzz-obsessed" as "buzz obsessed",
    "stylishness" as "stylish"; see `common.word_embedding.known_part`.

    Args:
      vocabulary: the words of the model.

    Example:
      >>> import tempfile, pathlib
      >>> path = pathlib.Path(tempfile.mkdtemp(), "words.txt")
      >>> common_text.Vocabulary.write(path, ["stylish", "plot"])
      >>> tokens, ids = Reader(common_text.Vocabulary(path))(tf.constant(["Plot-stylishness!"]))
      >>> tokens.to_list(), ids.to_list()
      ([[b'plot', b'stylish', b'!']], [[3, 2, 1]])
    """

    def __init__(self, vocabulary: common_text.Vocabulary):
        super().__init__(name="reader")
        self.vocabulary = vocabulary

    def __call__(
        self, text: tf.Tensor, longest: int | None = None
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """Read texts.

        Args:
          text: `<string>[batch]`.
          longest: maximum number of tokens; later ones are ignored. None: no maximum.

        Returns:
          `tokens` `<string>` and `ids` `<int32>`, both ragged `[batch, (tokens)]`.
        """
        tokens = tokenize(text)[:, :longest]
        for split in (_split_compound, self._known_part):
            tokens = self._replace_unknown(tokens, split)
        tokens = tokens[:, :longest]
        return tokens, self.vocabulary.ids(tokens)

    def _replace_unknown(
        self, tokens: tf.RaggedTensor, split: Callable[[tf.Tensor], tf.Tensor]
    ) -> tf.RaggedTensor:
        """Replace unknown tokens by the tokens in the result of `split`, which blanks separate."""
        flat = tokens.flat_values
        places = tf.where(self.vocabulary.ids(flat) == 1)
        parts = split(tf.gather_nd(flat, places))
        flat = tf.tensor_scatter_nd_update(flat, places, parts)
        return tokens.with_flat_values(tf.strings.split(flat)).merge_dims(1, 2)

    def _known_part(self, words: tf.Tensor) -> tf.Tensor:
        """Return the known part of each word, or the word; see `common.word_embedding`."""
        count = tf.strings.length(words, unit="UTF8_CHAR")[:, None]
        # The longest part comes first, and the word itself last.
        sizes = tf.range(LONGEST_PART, SHORTEST_PART - 1, -1)[None]
        is_part = (sizes < count) & (2 * sizes >= count)
        sizes = tf.where(is_part, sizes, 0)
        repeated = tf.repeat(words[:, None], LONGEST_PART - SHORTEST_PART + 1, axis=1)
        parts = tf.strings.substr(repeated, tf.zeros_like(sizes), sizes, unit="UTF8_CHAR")
        known = tf.pad(self.vocabulary.ids(parts) > 1, [[0, 0], [0, 1]], constant_values=True)
        candidates = tf.concat([parts, words[:, None]], axis=1)
        best = tf.argmax(tf.cast(known, tf.int32), axis=1)
        return tf.gather(candidates, best, batch_dims=1)


def _split_compound(words: tf.Tensor) -> tf.Tensor:
    """Put blanks for the punctuation inside words."""
    parts = tf.strings.strip(tf.strings.regex_replace(words, r"[^\pL\pM\pN]+", " "))
    return tf.where(parts == "", words, parts)
