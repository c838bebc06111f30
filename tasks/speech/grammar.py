"""Sentences to be spoken: commands, numbers, dates, spelled names, and sentences with rare letters.

All are made by rules from the word lists below. `spoken` is what the synthesiser is told where that
is not the transcript: it would read the letter a as the article.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from common.datasets import split_by_hash

# What the default model is tried on; no sentence with two of its pairs is ever made.
HELD_OUT = "the quick brown fox jumped over the lazy dog"
_PAIRS = ("quick brown", "brown fox", "fox jumped", "lazy dog")


def _words(text: str) -> list[str]:
    return text.split()


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
_WORDS = _words("yes no go stop help start enter erase repeat rubout up down left right on off")
_NAMES = _words(
    "anna ben carla david emma felix grace hugo irene jack kate leo maria nina oscar paula quentin "
    "rosa simon tina ursula victor wanda xavier yvonne zoe miller jackson fischer quigley vance "
    "brooks kovacs lopez dawson wright ziegler hamilton jefferson maxwell"
)
_THINGS = _words(
    "lamp radio window door heater fan oven camera garage television music printer blind kettle"
)
_ROOMS = _words("kitchen bedroom bathroom office hall garden cellar attic")
_ANIMALS = _words(
    "fox dog cat zebra ox horse pony jackal lynx puma quail wolf hen goat badger camel rabbit mouse"
)
_KINDS = _words(
    "quick brown lazy grey black white young old clever sleepy hungry jolly vexed tiny huge proud"
)
_ACTS = _words("jumped walked climbed looked ran leapt crept flew hopped rolled stepped gazed")
_PLACES = _words("over under behind past around near towards across")
_GOODS = _words(
    "boxes jugs waltzes quilts violins zippers taxis kites lemons bricks pickles wizards puzzles"
)


def number(value: int) -> str:
    """A number from 0 to 999,999 in words.

    Example:
    >>> number(1942), number(20_007), number(100)
    ('one thousand nine hundred and forty two', 'twenty thousand and seven', 'one hundred')
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
    """A day of the month in words.

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
    """A transcript, and what the synthesiser is told."""

    text: str
    spoken: str


def _plain(text: str) -> Sentence:
    return Sentence(text, text)


def _spelled(letters: str, before: str = "") -> Sentence:
    said = " ".join("ay" if letter == "a" else letter for letter in letters)
    return Sentence(f"{before} {' '.join(letters)}".strip(), f"{before} {said}".strip())


def _command(rng: random.Random) -> Sentence:
    thing, room = rng.choice(_THINGS), rng.choice(_ROOMS)
    return _plain(
        rng.choice(
            (
                f"turn {rng.choice(('on', 'off'))} the {thing} in the {room}",
                f"open the {room} {rng.choice(('door', 'window', 'blind'))}",
                f"set a timer for {number(rng.randint(2, 59))} minutes",
                f"call {rng.choice(_NAMES)} on {rng.choice(_DAYS)}",
                f"wake me at {number(rng.randint(1, 12))} {number(rng.randint(10, 59))}",
                f"send {number(rng.randint(2, 19))} {rng.choice(_GOODS)} to {rng.choice(_NAMES)}",
                f"play the {ordinal(rng.randint(1, 20))} song again",
                f"{rng.choice(_WORDS)} {rng.choice(_WORDS)}",
                f"{rng.choice(_WORDS)} the {thing}",
            )
        )
    )


def _number(rng: random.Random) -> Sentence:
    if rng.random() < 0.5:
        return _plain(" ".join(rng.choice(_ONES) for _ in range(rng.randint(3, 8))))
    return _plain(number(rng.choice((rng.randrange(1000), rng.randrange(1_000_000)))))


def _date(rng: random.Random) -> Sentence:
    day, month = ordinal(rng.randint(1, 30)), rng.choice(_MONTHS)
    year = f"{rng.choice(('nineteen', 'twenty'))} {number(rng.randint(10, 99))}"
    return _plain(
        rng.choice(
            (
                f"the {day} of {month} {year}",
                f"{month} {day} {year}",
                f"{rng.choice(_DAYS)} the {day}",
                f"{rng.choice(_DAYS)} {month} the {day}",
            )
        )
    )


def _name(rng: random.Random) -> Sentence:
    if rng.random() < 0.4:
        letters = "".join(
            rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 7))
        )
        return _spelled(letters)
    name = rng.choice(_NAMES)
    return _spelled(name, rng.choice(("", name, f"my name is {name}", "spell")))


def _scene(rng: random.Random) -> Sentence:
    first, second = rng.sample(_KINDS, 2)
    return _plain(
        rng.choice(
            (
                f"the {first} {second} {rng.choice(_ANIMALS)} {rng.choice(_ACTS)} "
                f"{rng.choice(_PLACES)} the {rng.choice(_KINDS)} {rng.choice(_ANIMALS)}",
                f"a {first} {rng.choice(_ANIMALS)} {rng.choice(_ACTS)} {rng.choice(_PLACES)} "
                f"{number(rng.randint(2, 20))} {second} {rng.choice(_GOODS)}",
                f"{rng.choice(_NAMES)} packed {number(rng.randint(2, 99))} {first} "
                f"{rng.choice(_GOODS)} and a {rng.choice(_ANIMALS)}",
            )
        )
    )


KINDS: tuple[Callable[[random.Random], Sentence], ...] = (_command, _number, _date, _name, _scene)


def sentences(split: str, seed: int) -> Iterator[Sentence]:
    """Yields sentences of a split without end, the five kinds in turn, none twice.

    A sentence belongs to the split that its SHA-1 says, so that no split holds one of another.
    """
    rng = random.Random(f"{split} {seed}")
    seen = set()
    while True:
        for kind in KINDS:
            while True:
                made = kind(rng)
                if made.text in seen or split_by_hash(made.text) != split:
                    continue
                if not any(pair in made.text for pair in _PAIRS):
                    break
            seen.add(made.text)
            yield made
