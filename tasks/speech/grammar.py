"""Random English sentences for synthetic speech, in six categories.

The categories are commands, numbers, dates, spelled names, codes of letters and digits, and scenes
with rare letters. All sentences follow the rules and word lists below. Changes of either change the
prepared data set `spoken_commands`, and require a new version of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from common.datasets import split_by_hash

# The acceptance example of the default model. No sentence contains one of its word pairs.
HELD_OUT = "the quick brown fox jumped over the lazy dog"
_PAIRS = ("quick brown", "brown fox", "fox jumped", "lazy dog")


def _words(text: str) -> list[str]:
    return text.split()


_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ONES = _words("zero one two three four five six seven eight nine")
_TEENS = _words("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
_TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
_ORDINALS = _words(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
)
_MONTHS = _words(
    "january february march april may june july august september october november december"
)
_DAYS = _words("monday tuesday wednesday thursday friday saturday sunday")
_KEYWORDS = _words("yes no go stop help start enter erase repeat rubout up down left right on off")
_NAMES = _words(
    "anna ben carla david emma felix grace hugo irene jack kate leo maria nina oscar paula quentin "
    "rosa simon tina ursula victor wanda xavier yvonne zoe miller jackson fischer quigley vance "
    "brooks kovacs lopez dawson wright ziegler hamilton jefferson maxwell"
)
_DEVICES = _words(
    "lamp radio window door heater fan oven camera garage television music printer blind kettle"
)
_ROOMS = _words("kitchen bedroom bathroom office hall garden cellar attic")
_ANIMALS = _words(
    "fox dog cat zebra ox horse pony jackal lynx puma quail wolf hen goat badger camel rabbit mouse"
)
_ADJECTIVES = _words(
    "quick brown lazy grey black white young old clever sleepy hungry jolly vexed tiny huge proud"
)
_VERBS = _words("jumped walked climbed looked ran leapt crept flew hopped rolled stepped gazed")
_PREPOSITIONS = _words("over under behind past around near towards across")
_GOODS = _words(
    "boxes jugs waltzes quilts violins zippers taxis kites lemons bricks pickles wizards puzzles"
)


def number(value: int) -> str:
    """Return a number from 0 to 999,999 in words.

    Example:
      >>> number(1942), number(20_007)
      ('one thousand nine hundred and forty two', 'twenty thousand and seven')
    """
    if value < 10:
        return _ONES[value]
    if value < 20:
        return _TEENS[value - 10]
    if value < 100:
        tens, ones = divmod(value, 10)
        return _TENS[tens - 2] + (f" {_ONES[ones]}" if ones else "")
    unit, word = (1000, "thousand") if value >= 1000 else (100, "hundred")
    head, rest = divmod(value, unit)
    joint = " and " if 0 < rest < 100 else " "
    return f"{number(head)} {word}" + (joint + number(rest) if rest else "")


def ordinal(value: int) -> str:
    """Return the ordinal of a day of the month, from 1 to 30, in words.

    Example:
      >>> ordinal(3), ordinal(30), ordinal(22)
      ('third', 'thirtieth', 'twenty second')
    """
    if value <= 20:
        return _ORDINALS[value - 1]
    if value == 30:
        return "thirtieth"
    return f"{_TENS[value // 10 - 2]} {_ORDINALS[value % 10 - 1]}"


class Sentence(NamedTuple):
    """A sentence.

    Attributes:
      text: the transcript.
      spoken: the input of a synthesizer, which would read a spelled "a" as the article.
    """

    text: str
    spoken: str


def _plain(text: str) -> Sentence:
    return Sentence(text, text)


def _spelled(letters: str, before: str = "", after: str = "") -> Sentence:
    text = " ".join((*before.split(), *letters, *after.split()))
    names = ("eh" if letter == "a" else letter for letter in letters)
    spoken = " ".join((*before.split(), *names, *after.split()))
    return Sentence(text, spoken)


# Each function draws the words of ALL alternatives, then chooses one. So the order of the
# alternatives and of the words in them is part of the data set.


def _command(rng: random.Random) -> Sentence:
    device, room = rng.choice(_DEVICES), rng.choice(_ROOMS)
    return _plain(
        rng.choice(
            (
                f"turn {rng.choice(('on', 'off'))} the {device} in the {room}",
                f"open the {room} {rng.choice(('door', 'window', 'blind'))}",
                f"set a timer for {number(rng.randint(2, 59))} minutes",
                f"call {rng.choice(_NAMES)} on {rng.choice(_DAYS)}",
                f"wake me at {number(rng.randint(1, 12))} {number(rng.randint(10, 59))}",
                f"send {number(rng.randint(2, 19))} {rng.choice(_GOODS)} to {rng.choice(_NAMES)}",
                f"play the {ordinal(rng.randint(1, 20))} song again",
                f"{rng.choice(_KEYWORDS)} {rng.choice(_KEYWORDS)}",
                f"{rng.choice(_KEYWORDS)} the {device}",
            )
        )
    )


def _digits(rng: random.Random, count: int) -> str:
    zero = rng.choice(("zero", "oh"))
    digits = (rng.choice(_ONES) for _ in range(count))
    return " ".join(zero if digit == "zero" else digit for digit in digits)


def _short_number(rng: random.Random) -> str:
    """Return a number of up to four digits, as people say it."""
    return rng.choice(
        (
            _digits(rng, rng.randint(1, 4)),
            number(rng.randint(10, 99)),
            number(rng.randint(100, 999)).replace(" and ", " "),
            f"{number(rng.randint(1, 99))} {number(rng.randint(10, 99))}",
        )
    )


def _number(rng: random.Random) -> Sentence:
    return _plain(
        rng.choice(
            (
                _digits(rng, rng.randint(3, 8)),
                _digits(rng, rng.choice((5, 7, 10))),
                f"{_short_number(rng)} {_short_number(rng)}",
                number(rng.choice((rng.randrange(1000), rng.randrange(1_000_000)))),
            )
        )
    )


def _code(rng: random.Random) -> Sentence:
    letters = "".join(rng.choice(_LETTERS) for _ in range(rng.randint(1, 5)))
    before = rng.choice(("", rng.choice(_KEYWORDS)))
    return rng.choice(
        (
            _spelled(letters, before, _short_number(rng)),
            _plain(f"{rng.choice(_KEYWORDS)} {_short_number(rng)}"),
            _plain(rng.choice(_KEYWORDS)),
        )
    )


def _date(rng: random.Random) -> Sentence:
    date, month = rng.randint(1, 30), rng.choice(_MONTHS)
    day = ordinal(date)
    year = f"{rng.choice(('nineteen', 'twenty'))} {number(rng.randint(10, 99))}"
    return _plain(
        rng.choice(
            (
                f"the {day} of {month} {year}",
                f"{month} {day} {year}",
                f"{rng.choice(_DAYS)} the {day}",
                f"{rng.choice(_DAYS)} {month} the {day}",
                f"{number(date)} {month} {year}",
                f"{number(rng.randint(1, 12))} {number(date)} {number(rng.randint(10, 99))}",
            )
        )
    )


def _name(rng: random.Random) -> Sentence:
    if rng.random() < 0.4:
        letters = "".join(rng.choice(_LETTERS) for _ in range(rng.randint(3, 9)))
        return _spelled(letters)
    name = rng.choice(_NAMES)
    return _spelled(name, rng.choice(("", name, f"my name is {name}", "spell")))


def _scene(rng: random.Random) -> Sentence:
    first, second = rng.sample(_ADJECTIVES, 2)
    return _plain(
        rng.choice(
            (
                f"the {first} {second} {rng.choice(_ANIMALS)} {rng.choice(_VERBS)} "
                f"{rng.choice(_PREPOSITIONS)} the {rng.choice(_ADJECTIVES)} {rng.choice(_ANIMALS)}",
                f"a {first} {rng.choice(_ANIMALS)} {rng.choice(_VERBS)} "
                f"{rng.choice(_PREPOSITIONS)} {number(rng.randint(2, 20))} {second} "
                f"{rng.choice(_GOODS)}",
                f"{rng.choice(_NAMES)} packed {number(rng.randint(2, 99))} {first} "
                f"{rng.choice(_GOODS)} and a {rng.choice(_ANIMALS)}",
            )
        )
    )


CATEGORIES: tuple[Callable[[random.Random], Sentence], ...] = (
    _command,
    _number,
    _date,
    _name,
    _code,
    _scene,
)


def sentences(split: str, seed: int) -> Iterator[Sentence]:
    """Yield distinct sentences of a split without end, from each category in turn.

    The SHA-1 of a sentence determines its split, so no sentence is in two splits.

    Example:
      >>> next(sentences("train", seed=1)).text
      'set a timer for fifty one minutes'
    """
    rng = random.Random(f"{split} {seed}")
    previous: set[str] = set()
    while True:
        for draw in CATEGORIES:
            sentence = draw(rng)
            while not _is_valid(sentence.text, split, previous):
                sentence = draw(rng)
            previous.add(sentence.text)
            yield sentence


def _is_valid(text: str, split: str, previous: set[str]) -> bool:
    """Return whether a sentence is new, in the split, and different from `HELD_OUT`."""
    if text in previous or split_by_hash(text) != split:
        return False
    return not any(pair in text for pair in _PAIRS)
