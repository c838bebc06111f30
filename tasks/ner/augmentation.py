"""Augmentation of training sentences: other entities, titles before persons, small letters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from common.files import read_lines
from tasks.ner.datasets import SENTENCES
from tasks.ner.formats import OUTSIDE, Sentence, entities
from tasks.ner.tokens import tokenize

import numpy as np
import tensorflow as tf

NAMES = SENTENCES / "names"
# Types of other data sets that use the lists of a type here.
ALIASES = {"person": "PER", "location": "LOC"}
# Written before a name, and no part of it, as in CoNLL-2003.
TITLES: tuple[str, ...] = ("Dr.", "Mr.", "Mrs.", "Ms.", "Prof.", "Rev.", "Capt.", "Gen.", "Sen.")
TITLES += ("Gov.", "Lt.", "Dr", "Mr", "Mrs", "Ms", "Prof", "Professor", "President", "Captain")
TITLES += ("Doctor",)


class Gazetteer:
    """Lists of entity names by type, from which replacements are drawn.

    A type may have several lists, since not all of its names fit the same contexts: adjectives like
    "French" and titles of films are both MISC. A name is replaced by one of the list that contains
    it. A name that no list contains belongs to the last list of its type.

    Args:
      rows: sentences, whose entities are added to the lists.
      folder: folder of files `TYPE.txt`, or `TYPE_LIST.txt` if a type has several lists, with a
        name on each line. None: no lists other than the entities of `rows`.

    Example:
      >>> gazetteer = Gazetteer([Sentence(["Ada", "saw", "Mary"], ["B-PER", "O", "B-PER"])])
      >>> gazetteer.draw("PER", ["Ada"], np.random.default_rng(0))
      ['Mary']
    """

    def __init__(self, rows: Iterable[Sentence], folder: Path | None = None):
        # type -> its lists, each a dict: lower-cased name -> tokens.
        self._lists: dict[str, list[dict[str, list[str]]]] = {}
        for path in [] if folder is None else sorted(folder.glob("*.txt")):
            names = _read_names(path)
            list_type = path.stem.partition("_")[0]
            aliases = [alias for alias, name in ALIASES.items() if name == list_type]
            for entity_type in (list_type, *aliases):
                self._lists.setdefault(entity_type, []).append({_key(n): n for n in names})
        for row in rows:
            for entity_type, start, end in entities(row.tags):
                name = row.tokens[start:end]
                self._list_of(entity_type, name).setdefault(_key(name), name)
        # As sequences, since `draw` indexes them.
        self._names = {
            entity_type: [list(names.values()) for names in lists]
            for entity_type, lists in self._lists.items()
        }

    def _list_of(self, entity_type: str, name: Sequence[str]) -> dict[str, list[str]]:
        """Return the list to which a name belongs."""
        lists = self._lists.setdefault(entity_type, [{}])
        key = _key(name)
        return next((names for names in lists if key in names), lists[-1])

    def draw(
        self, entity_type: str, name: Sequence[str], generator: np.random.Generator
    ) -> list[str]:
        """Draw a name from the list to which `name` belongs.

        The result is lower-cased if `name` has no capitals.
        """
        number = self._lists[entity_type].index(self._list_of(entity_type, name))
        names = self._names[entity_type][number]
        drawn = names[generator.integers(len(names))]
        is_lower = "".join(name) == "".join(name).lower()
        return [token.lower() for token in drawn] if is_lower else drawn


def _read_names(path: Path) -> list[list[str]]:
    """Read a name per line, as tokens."""
    lines = [line for _, line in read_lines(path) if line.strip()]
    tokens = tokenize(tf.constant(lines)).to_list()
    return [[token.decode() for token in name] for name in tokens]


def _key(name: Sequence[str]) -> str:
    """Return the form in which names are compared."""
    return " ".join(name).lower()


def augment(
    rows: Iterable[Sentence],
    gazetteer: Gazetteer,
    *,
    exchange: float,
    lower_case: float,
    seed: int,
    titles: float = 0.0,
) -> list[Sentence]:
    """Replace entities by others of the same type, and lower-case some sentences.

    Args:
      rows: sentences.
      gazetteer: source of the replacements.
      exchange: fraction of entities that are replaced.
      titles: fraction of persons that get a title, which is not part of the entity.
      lower_case: fraction of sentences that are lower-cased.
      seed: seed of all random choices.

    Returns:
      The augmented sentences, in the order of `rows`.
    """
    generator = np.random.default_rng(seed)
    fractions = {"exchange": exchange, "titles": titles, "lower_case": lower_case}
    return [vary(row, gazetteer, generator=generator, **fractions) for row in rows]


def vary(
    row: Sentence,
    gazetteer: Gazetteer,
    *,
    exchange: float,
    titles: float,
    lower_case: float,
    generator: np.random.Generator,
) -> Sentence:
    """Return a sentence as `augment` changes it; the generator makes all random choices."""
    tokens, tags = _replace_entities(row, gazetteer, exchange, generator)
    if titles:
        tokens, tags = _add_titles(Sentence(tokens, tags), titles, generator)
    if generator.random() < lower_case:
        tokens = [token.lower() for token in tokens]
    return Sentence(tokens, tags)


def _replace_entities(
    row: Sentence, gazetteer: Gazetteer, fraction: float, generator: np.random.Generator
) -> Sentence:
    """Replace a fraction of the entities of a sentence."""
    tokens: list[str] = []
    tags: list[str] = []
    copied = 0  # tokens of `row` that are already in the result
    for entity_type, start, end in entities(row.tags):
        name = row.tokens[start:end]
        if generator.random() < fraction:
            name = gazetteer.draw(entity_type, name, generator)
        tokens += [*row.tokens[copied:start], *name]
        inside = [f"I-{entity_type}"] * (len(name) - 1)
        tags += [*row.tags[copied:start], f"B-{entity_type}", *inside]
        copied = end
    return Sentence([*tokens, *row.tokens[copied:]], [*tags, *row.tags[copied:]])


def _add_titles(row: Sentence, fraction: float, generator: np.random.Generator) -> Sentence:
    """Put a title before a fraction of the persons of a sentence, unless they have one."""
    tokens, tags = list(row.tokens), list(row.tags)
    for entity_type, start, _ in reversed(entities(row.tags)):  # so that places stay right
        is_person = ALIASES.get(entity_type, entity_type) == "PER"
        has_title = not set(row.tokens[max(0, start - 1) : start + 1]).isdisjoint(TITLES)
        is_name = row.tokens[start][:1].isupper()  # not @name
        if is_person and is_name and not has_title and generator.random() < fraction:
            tokens.insert(start, TITLES[generator.integers(len(TITLES))])
            tags.insert(start, OUTSIDE)
    return Sentence(tokens, tags)
