"""Find the named entities in your own texts.

    python -m tasks.ner.predict "Ada Lovelace lived in London."
    python -m tasks.ner.predict --file letters.txt --output names.jsonl   # or .conll .ann .html
    cat notes.txt | python -m tasks.ner.predict --json -

Words on the command line are texts, `-` reads lines from standard input, and each line of a file is
a text. Entities are coloured on a terminal and in brackets elsewhere: [LOC London]. Texts may have
any length: those beyond the model's limit are cut after the end of a sentence.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common import plots
from common.commands import cli
from common.commands.config import Picture, TextPredictConfig
from common.data import map_in_order
from common.errors import InputError
from common.serving.model import Model
from common.serving.served import Served, load_export, text_request
from tasks.ner import markup
from tasks.ner.config import TASK
from tasks.ner.formats import OUTSIDE, entities, entity_types

import numpy as np

# Terminal colours, one per type in turn: magenta, cyan, green, yellow, blue, red.
COLOURS = (35, 36, 32, 33, 34, 31)
# A text is sent in pieces of at most this many characters per token of the model's limit.
CHARACTERS_PER_TOKEN = 12
SENTENCE_ENDS = (".", "!", "?", "...", ";")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(TextPredictConfig):
    """Flags of `predict`."""

    output: Path | None = None
    """write to this file; .conll, .ann (BRAT, with the texts in .txt) and .html have their own
    form, any other ending gets one JSON object per line"""
    plot: Picture | None = None
    """draw the probability of each type at each word of the first text to this picture file;
    a name that ends in -dark gets dark colours"""


class Entity(NamedTuple):
    """A predicted entity: its type, its text, which is `text[start:end]`, and its probability."""

    label: str
    text: str
    start: int
    end: int
    probability: float = 1.0


@dataclasses.dataclass
class Tagged:
    """A text with its tokens, their tags, and their places in the text.

    The confidence of a token is the probability of its entity, or of `O`.
    """

    text: str = ""
    tokens: list[str] = dataclasses.field(default_factory=list)
    tags: list[str] = dataclasses.field(default_factory=list)
    start: list[int] = dataclasses.field(default_factory=list)
    end: list[int] = dataclasses.field(default_factory=list)
    confidence: list[float] = dataclasses.field(default_factory=list)

    def append(self, part: Tagged, count: int, offset: int) -> None:
        """Add the first `count` tokens of the text's next piece, which starts at `offset`."""
        self.tokens += part.tokens[:count]
        self.tags += part.tags[:count]
        self.start += [place + offset for place in part.start[:count]]
        self.end += [place + offset for place in part.end[:count]]
        self.confidence += part.confidence[:count]

    @property
    def entities(self) -> list[Entity]:
        """The entities, in the order of the text."""
        found = []
        for kind, first, end in entities(self.tags):
            low, high = self.start[first], self.end[end - 1]
            found.append(Entity(kind, self.text[low:high], low, high, self.confidence[first]))
        return found


def load(path: str | Path | None = None, *, batch_size: int = 64) -> Model[str, Tagged]:
    """Load a published model as a function of texts; see `common.serving.model`.

    Example::

        model = load()
        model("Ada Lovelace lived in London.").entities[0].text  # "Ada Lovelace"
    """
    served = load_export(path, TASK)
    return Model(served, lambda texts: predict(served, texts, batch_size=batch_size))


def predict(served: Served, texts: Iterable[str], *, batch_size: int) -> Iterator[Tagged]:
    """Tag texts of any length, in order."""
    limit = served.settings["max_tokens"]
    batch_size = min(batch_size, served.settings.get("max_rows", batch_size))
    # A character has up to four bytes.
    characters = min(limit * CHARACTERS_PER_TOKEN, served.settings.get("max_bytes", 1 << 20) // 4)

    def tag(batch: list[str]) -> list[Tagged]:
        """Tag the first piece of each text, then the next piece of each longer one, and so on."""
        tagged = [Tagged(text) for text in batch]
        places = [0] * len(batch)  # of each text, the end of its tagged part
        while rows := [row for row, text in enumerate(batch) if places[row] < len(text)]:
            pieces = [_piece(batch[row], places[row], characters) for row in rows]
            outputs = served.call("serving_default", **text_request(pieces))
            for index, (row, piece) in enumerate(zip(rows, pieces, strict=True)):
                part = _to_tagged(outputs, index)
                count, step = len(part.tokens), len(piece)
                is_last = places[row] + step == len(batch[row])
                if count == limit or (count and not is_last):
                    count = _cut(part)
                    step = part.end[count - 1]
                tagged[row].append(part, count, places[row])
                places[row] += step
        return tagged

    return map_in_order(tag, texts, batch_size=batch_size, length_of=len)


def _piece(text: str, start: int, limit: int) -> str:
    """Return the text from `start` on, up to a blank before `limit` characters if there is one."""
    if len(text) - start <= limit:
        return text[start:]
    piece = text[start : start + limit]
    blank = max(piece.rfind(" "), piece.rfind("\t"), piece.rfind("\n"))
    return piece[: blank + 1] or piece


def _to_tagged(outputs: dict[str, np.ndarray], row: int) -> Tagged:
    """Convert a row of the outputs of `serving_default` or `explain`."""
    count = outputs["length"][row]
    return Tagged(
        tokens=[token.decode() for token in outputs["tokens"][row, :count]],
        tags=[tag.decode() for tag in outputs["tags"][row, :count]],
        start=outputs["start"][row, :count].tolist(),
        end=outputs["end"][row, :count].tolist(),
        confidence=[round(value, 4) for value in outputs["confidence"][row, :count].tolist()],
    )


def _cut(tagged: Tagged) -> int:
    """Return the number of tokens to keep of a piece, if the text continues after it.

    It is the largest number, above half of the tokens, that ends a sentence, or else one that
    splits no entity, or else all tokens.
    """
    count = len(tagged.tokens)
    for end in range(count, count // 2, -1):
        if tagged.tokens[end - 1] in SENTENCE_ENDS and tagged.tags[end - 1] == OUTSIDE:
            return end
    for end in range(count - 1, count // 2, -1):
        if tagged.tags[end] == OUTSIDE:
            return end
    return count


def describe(tagged: Tagged) -> dict[str, Any]:
    """Return a prediction as plain values; offsets count code points, the end is excluded."""
    found = []
    for entity in tagged.entities:
        values = entity._asdict()
        found.append({"type": values.pop("label"), **values})
    prediction = {"text": tagged.text, "entities": found, **dataclasses.asdict(tagged)}
    return prediction if tagged.tokens else {**prediction, "message": "no word in this text"}


def mark(text: str, spans: Sequence[Entity], colours: dict[str, int] | None = None) -> str:
    """Return the text with its entities in brackets, or in colours if some are given.

    Example:
      >>> spans = [Entity("PER", "Ada", 0, 3), Entity("LOC", "Rome", 13, 17)]
      >>> mark("Ada lives in Rome.", spans)
      '[PER Ada] lives in [LOC Rome].'
    """
    parts, done = [], 0
    for kind, name, start, end, _ in spans:
        if colours is None:
            marked = f"[{kind} {name}]"
        else:
            marked = f"\x1b[1;{colours[kind]}m{name}\x1b[0;{colours[kind]}m {kind}\x1b[0m"
        parts += [text[done:start], marked]
        done = end
    return "".join([*parts, text[done:]])


def to_line(prediction: dict[str, Any], colours: dict[str, int] | None) -> str:
    """Format a prediction for a person."""
    if "message" in prediction:
        return f"-----  {prediction['message']}  {prediction['text']!r}"
    spans = [Entity(e["type"], e["text"], e["start"], e["end"]) for e in prediction["entities"]]
    return mark(prediction["text"], spans, colours)


def explain(served: Served, text: str) -> tuple[Tagged, tuple[str, ...], np.ndarray]:
    """Return a text with its tags, the types, and the probability of each type at each token.

    Only the first tokens are read, up to the model's limit.

    Returns:
      The tagged text, the names of the types, and `<float32>[tokens, types]`.
    """
    outputs = served.call("explain", **text_request([text]))
    tagged = _to_tagged(outputs, 0)
    labels = served.settings["labels"]
    types = entity_types(labels)
    of_type = np.array([[label[2:] == kind for kind in types] for label in labels])
    return tagged, types, outputs["probabilities"][0, : len(tagged.tokens)] @ of_type


def draw(served: Served, text: str, path: Path) -> None:
    """Draw the probability that each word of a text belongs to an entity of each type."""
    tagged, types, probabilities = explain(served, text)
    if not tagged.tokens:
        raise InputError(f"no word to draw in {text!r}")
    size = (2.5 + 0.5 * len(types), 1.0 + 0.28 * len(tagged.tokens))
    words = [
        token if tag == OUTSIDE else f"{token}  {tag}"
        for token, tag in zip(tagged.tokens, tagged.tags, strict=True)
    ]
    with plots.picture(path, size) as figure:
        axes = figure.subplots()
        image = axes.imshow(probabilities, vmin=0.0, vmax=1.0, aspect="auto")
        axes.set_xticks(range(len(types)), types, rotation=30, ha="right")
        axes.set_yticks(range(len(words)), words)
        figure.colorbar(image, label="probability")


def main(argv: list[str]) -> None:
    """Predict and print; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    served = load_export(flags.model, TASK)
    types = entity_types(served.settings["labels"])
    colours = {kind: COLOURS[n % len(COLOURS)] for n, kind in enumerate(types)}
    used = colours if sys.stdout.isatty() else None
    tagged = predict(served, flags.read_texts(), batch_size=flags.batch_size)
    predictions = map(describe, tagged)
    if flags.output is not None and markup.writes(flags.output):
        first = markup.write(flags.output, predictions, types)
    else:
        first = cli.print_predictions(flags, predictions, to_line=lambda p: to_line(p, used))
    if flags.plot:
        draw(served, first["text"], flags.plot)


if __name__ == "__main__":
    cli.run(main)
