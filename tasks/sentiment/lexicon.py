"""The lexicon of VADER: words and emoji with the mean rating of ten people.

Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
Text", ICWSM 2014. It comes with the package `vaderSentiment` (MIT), of which only two files are
read; nothing of it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from common.errors import require
from common.files import read_lines

# Frequent emoji whose descriptions tell too little; rated by us.
_MORE = {"👍": 2.0, "👎": -2.0, "💔": -2.5, "😉": 1.0, "🙌": 2.0, "👏": 2.0, "🎉": 2.0}
_MORE |= {"💩": -2.0, "🙄": -1.5, "🤮": -3.0, "🤢": -2.5, "😒": -1.5, "😑": -1.0, "💯": 2.0}


class Lexicon(NamedTuple):
    """Ratings from -4 to 4, and the words that describe each emoji."""

    ratings: dict[str, float]
    emoji: dict[str, list[str]]


def read_lexicon() -> Lexicon:
    """Read the lexicon from the installed package.

    An emoji has the mean rating of the words that describe it, if any of them is rated.

    Raises:
      InputError: the package is not installed.
    """
    package = require("vaderSentiment", "sentiment", ", or pass --no-lexicon")
    folder = Path(package.__path__[0])
    ratings: dict[str, float] = {}
    for _, line in read_lines(folder / "vader_lexicon.txt"):
        word, mean, *_ = line.split("\t")
        if any(map(str.isalnum, word)) and " " not in word:
            ratings.setdefault(word.lower(), float(mean))
    emoji = {}
    for _, line in read_lines(folder / "emoji_utf8_lexicon.txt"):
        symbol, _, description = line.partition("\t")
        if len(symbol) == 1:
            emoji[symbol] = description.lower().split()
    for symbol, words in emoji.items():
        if rated := [ratings[word] for word in words if word in ratings]:
            ratings[symbol] = sum(rated) / len(rated)
    return Lexicon(ratings | _MORE, emoji)
