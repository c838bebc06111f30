"""Paragraphs as sentences, since a model translates one sentence at a time.

A sentence ends at a mark (`.`, `!`, `?`, `…` and those of other scripts) that blanks and no small
letter follow. Abbreviations, initials, and numbers in lists and dates do not end one. In Chinese
and Japanese no blank is needed. Languages without such marks, such as Thai, are not split.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

# Before a point that ends no sentence, in small letters; these only before a number.
_NUMBERED = "no nos nr núm fig vol p pp chap art pag pág blz"
_TITLES = "dr prof st vs cf tel"
ABBREVIATIONS = {
    "de": "hr fr frl bzw ca evtl ggf inkl str vgl abb bd jh z.b d.h u.a o.ä bspw sog",
    "en": "mr mrs ms messrs jr sr rev hon gen col capt lt sgt gov sen rep approx dept ave "
    "blvd mt e.g i.e inc ltd",
    "es": "sr sra srta sres d dña dra ud uds av p.ej ee.uu",
    "fr": "m mm mme mmes mlle mlles me mgr ste pr av bd env tél janv févr avr juil sept "
    "oct nov déc c.-à-d p.ex",
    "it": "sig sigg dott avv ing",
    "nl": "dhr mevr mw bijv d.w.z o.a",
    "pt": "sr sra srs dra av exmo exma",
    "ru": "г ул д стр им т.е т.д т.п",
}
_ORDINALS = ("de", "da", "fi", "nb", "cs", "pl")  # write "3. Mai" for a date

_CLOSING = r"[\"'”’»)\]]*(?:\s?»)?"
# A mark of Chinese and Japanese, or another one before a blank; each with closing quotes.
_END = re.compile(
    rf"(?:[。！？｡]+[」』）”’\"')]*(?P<gap>\s*)|(?P<mark>[.!?…؟۔।॥։။።។]+){_CLOSING}(?P<blank>\s+))"
)
_BEFORE = re.compile(r"[^\s\"'“‘«(\[]*$")


class Sentence(NamedTuple):
    """A sentence of a text.

    Attributes:
      text: without blanks at its ends.
      gap: the blanks between it and the next one, maybe with line ends.
    """

    text: str
    gap: str


def split_sentences(text: str, language: str) -> list[Sentence]:
    """Split a text into its sentences.

    Args:
      text: any number of lines; each begins a sentence.
      language: code of its language, such as `fr` or `fr-CA`.

    Returns:
      The sentences; their texts and gaps together are the text without the blanks at its ends.

    Example:
      >>> split_sentences("M. Dupont dort. Et toi ?", "fr")
      [Sentence(text='M. Dupont dort.', gap=' '), Sentence(text='Et toi ?', gap='')]
    """
    sentences = []
    parts = re.split(r"(\s*[\r\n]\s*)", text.strip())
    for line, end in zip(parts[::2], [*parts[1::2], ""], strict=True):
        start = 0
        for match in _END.finditer(line):
            gap = match["gap"] if match["mark"] is None else match["blank"]
            if match.end() < len(line) and _ends_sentence(line[start:], match, start, language):
                sentences.append(Sentence(line[start : match.end() - len(gap)], gap))
                start = match.end()
        sentences.append(Sentence(line[start:], end))
    return sentences


def _ends_sentence(rest: str, match: re.Match[str], start: int, language: str) -> bool:
    """Return whether a mark in a line ends the sentence that begins at `start`."""
    if match["mark"] is None:
        return True
    after = match.string[match.end()]
    if after.islower():
        return False
    if match["mark"] != ".":
        return True
    found = _BEFORE.search(match.string[start : match.start("mark")])
    word = found[0] if found else ""
    code = re.split("[-_]", language.lower())[0]
    abbreviations = f"{_TITLES} {ABBREVIATIONS.get(code, '')}".split()
    if word.lower() in abbreviations or (after.isdecimal() and word.lower() in _NUMBERED.split()):
        return False
    if word.isdecimal():
        # The number of an item, or a date.
        return not (rest.startswith(f"{word}.") or (code in _ORDINALS and len(word) <= 2))
    is_initial = len(word) == 1 and word.isupper() and word != "I"
    is_acronym = word.isupper() and re.fullmatch(r"(?:[^\W\d_]\.)+[^\W\d_]", word) is not None
    return not (is_initial or is_acronym)


def join_sentences(translations: Sequence[str], gaps: Sequence[str]) -> str:
    """Join translated sentences by the gaps of their sources.

    Chinese and Japanese need no blank between sentences; other languages do.

    Args:
      translations: of the sentences.
      gaps: after each of them in the source.

    Example:
      >>> join_sentences(["Hello.", "Goodbye."], ["", ""])
      'Hello. Goodbye.'
      >>> join_sentences(["はい。", "いいえ。"], [" ", ""])
      'はい。いいえ。'
    """
    parts = []
    for translation, gap in zip(translations, gaps, strict=True):
        is_line_end = "\n" in gap or "\r" in gap
        needs_none = re.search(r"[。！？｡][」』）]*$", translation)
        parts += [translation, gap if is_line_end else "" if needs_none else gap or " "]
    return "".join(parts).rstrip(" ")
