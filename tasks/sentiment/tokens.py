r"""Tokens of opinions: emoji, emoticons, web addresses and names of users are one token each.

All of it is graph code, for training and for serving. Emoticons become the emoji of the same
meaning, so both share one vector.
"""

from __future__ import annotations

from common import text as common_text

import tensorflow as tf

# Invisible marks inside words or emoji: soft hyphen, joiners, direction marks, emoji variants and
# skin tones.
_INVISIBLE = r"[\x{AD}\x{200B}\x{200D}-\x{200F}\x{2060}\x{FEFF}\x{FE0E}\x{FE0F}\x{1F3FB}-\x{1F3FF}]"
_EYES, _NOSE = "[:=]", "['^o-]?"
_END = r"(\s|$|[.,!?])"
# The first of these comes first: an address holds ":/".
_REWRITES = (
    (r"(?i)<br\s*/?>", " "),
    (r"(?i)\b(?:https?://|www\.)\S+", " http "),
    (r"(^|\s)@\w+", r"\1 @ "),
    (r"</3", " 💔 "),
    (r"<3+", " ❤ "),
    (rf">{_EYES}-?[(\[]+", " 😠 "),
    (rf"{_EYES}[',]-?[(\[]+", " 😢 "),
    (rf"{_EYES}[',]-?[)\]]+", " 😂 "),
    (rf"{_EYES}{_NOSE}[)\]}}]+", " 🙂 "),
    (rf"{_EYES}{_NOSE}[(\[{{]+", " 🙁 "),
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
    text = tf.strings.regex_replace(text, _INVISIBLE, "")
    for pattern, replacement in _REWRITES:
        text = tf.strings.regex_replace(text, pattern, replacement)
    return common_text.tokenize(text)
