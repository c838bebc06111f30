"""Asks an exported named-entity model about your own texts.

    python -m tasks.ner.predict "Ada Lovelace lived in London."
    python -m tasks.ner.predict --file letters.txt --output names.jsonl
    cat notes.txt | python -m tasks.ner.predict --json -

Words on the command line are texts, `-` reads lines from standard input, and each line of a file is
a text. On a terminal names are coloured, elsewhere they stand in brackets: [LOC London]. Texts of
any length are answered whole: those beyond the model's limit are cut behind the end of a sentence.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.commands import cli
from common.commands.config import PredictConfig
from common.data import map_in_order
from common.errors import InputError
from common.files import read_lines
from common.serving.served import Served, load_export
from tasks.ner import data
from tasks.ner.evaluate import TASK

import numpy as np
import tyro
from matplotlib.figure import Figure

# Terminal colours of the types, in the order of the model's: magenta, cyan, green, yellow, ...
COLOURS = (35, 36, 32, 33, 34, 31)
# So many characters are sent for each token of the limit: a huge text goes in pieces.
CHARACTERS = 12
SENTENCE_ENDS = (".", "!", "?", "...", ";")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(PredictConfig):
    """Flags of `predict`."""

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    """texts; - reads lines from standard input"""
    file: tuple[Path, ...] = ()
    """files of texts, one on each line"""
    plot: Path | None = None
    """draw the probability of each type at each word of the first text into this PNG"""
    batch_size: int = 64
    """texts a request"""


class Name(NamedTuple):
    """A name that was found: `text[start:end]`."""

    type: str
    start: int
    end: int


@dataclasses.dataclass
class Tagged:
    """What a model says of a text: its tokens, their tags, and where they stand."""

    tokens: list[str] = dataclasses.field(default_factory=list)
    tags: list[str] = dataclasses.field(default_factory=list)
    start: list[int] = dataclasses.field(default_factory=list)
    end: list[int] = dataclasses.field(default_factory=list)

    def append(self, piece: Tagged, count: int, offset: int) -> None:
        """Adds the first `count` tokens of the text's next piece, which begins at `offset`."""
        self.tokens += piece.tokens[:count]
        self.tags += piece.tags[:count]
        self.start += [place + offset for place in piece.start[:count]]
        self.end += [place + offset for place in piece.end[:count]]

    def names(self) -> list[Name]:
        """The names, in the order of the text."""
        found = data.entities(self.tags)
        return [Name(kind, self.start[a], self.end[b - 1]) for kind, a, b in found]


def read_texts(flags: Predict) -> Iterator[str]:
    """Yields the texts that the flags name, in order, without holding them all."""
    for text in cli.input_lines(flags.texts):
        # Bytes of the command line that are no UTF-8 come as surrogates, which nothing can encode.
        yield text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    for path in flags.file:
        yield from (line for _, line in read_lines(path))


def answers(
    served: Served, texts: Iterable[str], *, batch_size: int
) -> Iterator[tuple[str, Tagged]]:
    """Asks an export about texts of any length: gives each with its tags, in order."""
    limit = served.settings["max_tokens"]

    def ask(batch: list[str]) -> list[tuple[str, Tagged]]:
        done = [Tagged() for _ in batch]
        places = [0] * len(batch)
        while rows := [row for row, text in enumerate(batch) if places[row] < len(text)]:
            pieces = [_piece(batch[row], places[row], limit * CHARACTERS) for row in rows]
            found = served.call("serving_default", text=np.array(pieces, dtype=object))
            for index, (row, piece) in enumerate(zip(rows, pieces, strict=True)):
                tagged = _row(found, index)
                count, step = len(tagged.tokens), len(piece)
                if count == limit or (count and places[row] + step < len(batch[row])):
                    count = _cut(tagged)
                    step = tagged.end[count - 1]
                done[row].append(tagged, count, places[row])
                places[row] += step
        return list(zip(batch, done, strict=True))

    return map_in_order(ask, texts, batch_size=batch_size, length_of=len)


def _piece(text: str, start: int, most: int) -> str:
    """The text from `start` on, up to a blank before `most` characters if there is one."""
    if len(text) - start <= most:
        return text[start:]
    piece = text[start : start + most]
    blank = max(piece.rfind(" "), piece.rfind("\t"), piece.rfind("\n"))
    return piece[: blank + 1] or piece


def _row(found: dict[str, np.ndarray], row: int) -> Tagged:
    count = found["length"][row]
    texts = ([text.decode() for text in found[name][row, :count]] for name in ("tokens", "tags"))
    return Tagged(*texts, *(found[name][row, :count].tolist() for name in ("start", "end")))


def _cut(tagged: Tagged) -> int:
    """How many tokens are kept of a piece behind which the text goes on; one or more.

    As many as possible, so that they end with a sentence, or else not inside a name; but half of
    them at least.
    """
    count = len(tagged.tokens)
    for kept in range(count, count // 2, -1):
        if tagged.tokens[kept - 1] in SENTENCE_ENDS and tagged.tags[kept - 1] == data.OUTSIDE:
            return kept
    for kept in range(count - 1, count // 2, -1):
        if tagged.tags[kept] == data.OUTSIDE:
            return kept
    return count


def describe(text: str, tagged: Tagged) -> dict[str, Any]:
    """One answer as plain values; offsets count code points, the end is one behind."""
    said: dict[str, Any] = {
        "text": text,
        "entities": [
            {"type": kind, "text": text[start:end], "start": start, "end": end}
            for kind, start, end in tagged.names()
        ],
        **dataclasses.asdict(tagged),
    }
    return said if tagged.tokens else {**said, "message": "no word in this text"}


def mark(text: str, names: Sequence[Name], colours: dict[str, int] | None = None) -> str:
    """The text with its names in brackets, or in colours where some are given.

    Example:
      >>> mark("Ada lives in Rome.", [Name("PER", 0, 3), Name("LOC", 13, 17)])
      '[PER Ada] lives in [LOC Rome].'
    """
    parts, done = [], 0
    for kind, start, end in names:
        name = text[start:end]
        if colours is None:
            shown = f"[{kind} {name}]"
        else:
            shown = f"\x1b[1;{colours[kind]}m{name}\x1b[0;{colours[kind]}m {kind}\x1b[0m"
        parts += [text[done:start], shown]
        done = end
    return "".join([*parts, text[done:]])


def to_line(said: dict[str, Any], colours: dict[str, int] | None) -> str:
    """One answer for a person."""
    if "message" in said:
        return f"-----  {said['message']}  {said['text']!r}"
    names = [Name(name["type"], name["start"], name["end"]) for name in said["entities"]]
    return mark(said["text"], names, colours)


def draw(served: Served, text: str, path: Path) -> None:
    """Draws how likely each word of a text is to belong to a name of each type."""
    seen = served.call("explain", text=np.array([text], dtype=object))
    tagged = _row(seen, 0)
    if not tagged.tokens:
        raise InputError(f"no word to draw in {text!r}")
    labels = served.settings["labels"]
    types = data.entity_types(labels)
    of_type = np.array([[label[2:] == kind for kind in types] for label in labels])
    shares = seen["probabilities"][0, : len(tagged.tokens)] @ of_type
    figure = Figure(
        figsize=(2.5 + 0.5 * len(types), 1.0 + 0.28 * len(tagged.tokens)), layout="constrained"
    )
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(types)), types, rotation=30, ha="right")
    axes.set_yticks(
        range(len(tagged.tokens)),
        [
            token if tag == data.OUTSIDE else f"{token}  {tag}"
            for token, tag in zip(tagged.tokens, tagged.tags, strict=True)
        ],
    )
    figure.colorbar(image, label="probability")
    figure.savefig(path, dpi=120)


def main(argv: list[str]) -> None:
    """Asks and prints; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    if not flags.texts and not flags.file:
        raise InputError('give a text, as in: predict "Ada lives in Rome.", or --file PATH')
    served = load_export(flags.model or Path("saved_models") / TASK)
    types = data.entity_types(served.settings["labels"])
    colours = {kind: COLOURS[n % len(COLOURS)] for n, kind in enumerate(types)}
    shown = colours if sys.stdout.isatty() else None
    found = answers(served, read_texts(flags), batch_size=flags.batch_size)
    said = (describe(text, tagged) for text, tagged in found)
    first = cli.print_answers(flags, said, to_line=lambda answer: to_line(answer, shown))
    if flags.plot:
        draw(served, first["text"], flags.plot)


if __name__ == "__main__":
    cli.run(main)
