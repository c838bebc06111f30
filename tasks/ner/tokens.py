"""Tokens of raw text: those of `common.text`, cut and joined as in annotated corpora.

Annotated sentences have "Dr.", "Inc.", "@name" and "#tag" as one token, and no token with two
names, which users write where a blank is missing: "London,Paris", "it.Next".
"""

from __future__ import annotations

from common import text as common_text

import tensorflow as tf

# Abbreviations that keep their dot.
_TITLES = "Dr Mr Mrs Ms Messrs Prof St Rev Hon Fr Gen Col Maj Capt Cmdr Lt Sgt Cpl Pvt Sen Rep Gov"
_COMPANIES = "Inc Ltd Co Corp Bros Jr Sr Mt Ft Ave Blvd Dept Univ Assn"
_SMALL = "dr mr mrs ms prof inc ltd corp jr sr vs etc approx"
_LOUD = "DR MR MRS MS PROF ST INC LTD CO CORP JR SR"
ABBREVIATIONS = tuple(f"{_TITLES} {_COMPANIES} {_SMALL} {_LOUD}".split())
_ABBREVIATION = rf"(^|[^\pL\pM\pN_.\-])({'|'.join(ABBREVIATIONS)})"
# They stand for marks that belong to a token, because they count as a part of a letter and as
# letters: a variation selector that no character uses, and two letters of a script that nobody can
# read. In texts they count as blanks.
_DOT, _AT, _HASH = "\U000e01ef", "\U00010600", "\U00010601"
_INSIDE = (
    (rf"{_ABBREVIATION}\.", rf"\1\2{_DOT}"),
    (r"(^|[^\pL\pM\pN_@#.&])@([\pL_])", rf"\1{_AT}\2"),
    (r"(^|[^\pL\pM\pN_@#.&])#([\pL_])", rf"\1{_HASH}\2"),
)

_MARK = "\x01"  # inserted where a token is cut; control characters count as blanks
_CUTS = (
    (r"([,:;])(\pL)", rf"\1{_MARK}\2"),  # "London,Paris": cut after the comma
    (r"(\pL)([,:;])", rf"\1{_MARK}\2"),  # "Paris,2020": before it
    (r"([\p{Ll}\pN]\.)(\p{Lu})", rf"\1{_MARK}\2"),  # "it.Next", but not "example.org"
)


def locate(text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
    r"""Split text into tokens, and return the place of each token in the text.

    Args:
      text: `<string>[batch]`, UTF-8.

    Returns:
      `(tokens, start, end)`, ragged `<string>` and twice `<int32>[batch, (tokens)]`. Offsets count
      code points of the repaired text, in which each invalid sequence is one U+FFFD;
      `text[start:end]` is the token.

    Example:
      >>> tokens, start, end = locate(tf.constant(["Dr. No left Rome,Paris."]))
      >>> tokens.to_list()
      [[b'Dr.', b'No', b'left', b'Rome', b',', b'Paris', b'.']]
      >>> start.to_list(), end.to_list()
      ([[0, 4, 7, 12, 16, 17, 22]], [[3, 6, 11, 16, 17, 22, 23]])
    """
    marked = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    marked = tf.strings.regex_replace(marked, f"[{_MARK}{_DOT}{_AT}{_HASH}]", " ")
    for pattern, replacement in _CUTS:
        marked = tf.strings.regex_replace(marked, pattern, replacement)
    for pattern, replacement in _INSIDE:
        marked = tf.strings.regex_replace(marked, pattern, replacement)
    tokens, start, end = common_text.locate(marked)
    spelled = tokens.flat_values
    for stand_in, mark in ((_DOT, "."), (_AT, "@"), (_HASH, "#")):
        spelled = tf.strings.regex_replace(spelled, stand_in, mark)
    # The marks before each token of its text are not counted; no mark is inside a token.
    codes = tf.strings.unicode_decode(tf.strings.join([marked, " "]), "UTF-8")
    marks = tf.cumsum(tf.cast(codes.flat_values == ord(_MARK), tf.int32), exclusive=True)
    first = tf.gather(codes.row_starts(), start.value_rowids())
    place = first + tf.cast(start.flat_values, tf.int64)
    before = tf.gather(marks, place) - tf.gather(marks, first)
    return (
        tokens.with_flat_values(spelled),
        start.with_flat_values(start.flat_values - before),
        end.with_flat_values(end.flat_values - before),
    )


def tokenize(text: tf.Tensor) -> tf.RaggedTensor:
    """Return the tokens of `locate`, in the normal form of `common.text.rewrite`.

    Example:
      >>> tokenize(tf.constant(["Mr. Lee’s"])).to_list()
      [[b'Mr.', b'Lee', b"'s"]]
    """
    return common_text.rewrite(locate(text)[0])
