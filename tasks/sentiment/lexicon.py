"""The lexicon of VADER: words and emoji with the mean rating of ten people.

Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
Text", ICWSM 2014. It comes with the package `vaderSentiment` (MIT), of which only two files are
read; nothing of it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from common.errors import require
from common.files import read_lines

import numpy as np

# Clauses in which a word of the lexicon is negated, or is not.
_SUBJECTS = ("it", "this", "the place", "the story", "she", "he", "i", "we", "they", "the service")
_NEGATED = (
    "{subject} was not {word}",
    "{subject} wasn't {word} at all",
    "{subject} isn't {word}",
    "{subject} does not {word}",
    "{subject} didn't {word}",
    "{subject} never {word}",
    "there was no {word}",
    "there is nothing {word} about it",
    "{subject} had no {word}",
    "nobody was {word}",
    "not {word}",
    "not {word} at all",
    "without any {word}",
    "hardly {word}",
)
_PLAIN = (
    "{subject} was {word}",
    "{subject} is really {word}",
    "{subject} does {word}",
    "{subject} always {word}",
    "there was {word}",
    "there is something {word} about it",
    "everybody was {word}",
    "so {word}",
)
# By how much a negation changes a rating, on average of many raters (Hutto and Gilbert 2014).
_NEGATION = -0.74

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


def clauses(ratings: Mapping[str, float], count: int, seed: int) -> list[tuple[str, float]]:
    """Make clauses in which a rated word is negated, and as many in which it is not.

    Args:
      ratings: words and their ratings; words rated between -1 and 1 are not used.
      count: number of clauses.
      seed: seed of their words.

    Returns:
      Pairs of a clause and its rating, by the rule of VADER for negations.

    Example:
      >>> clauses({"dull": -2.0}, 2, seed=0)
      [('not dull at all.', 1.48), ('the story does dull', -2.0)]
    """
    generator = np.random.default_rng(seed)
    words = [word for word, rating in ratings.items() if word.isalpha() and abs(rating) > 1]
    made = []
    for number in range(count):
        is_plain = bool(number % 2)
        frame = generator.choice(_PLAIN if is_plain else _NEGATED)
        word = str(generator.choice(words))
        clause = frame.format(subject=generator.choice(_SUBJECTS), word=word)
        end = generator.choice(["", ".", "!"])
        rating = ratings[word] * (1.0 if is_plain else _NEGATION)
        made.append((f"{clause}{end}", round(rating, 3)))
    return made
