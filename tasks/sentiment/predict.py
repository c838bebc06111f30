"""Asks an exported sentiment model about your own texts.

    python -m tasks.sentiment.predict "There is nothing to like in this movie."
    python -m tasks.sentiment.predict --file reviews.csv --output answers.jsonl
    cat reviews.txt | python -m tasks.sentiment.predict -

Words on the command line are texts, `-` reads lines from standard input. A .csv or .tsv file is
read by its `text` column, any other file by its lines. Answers come in the order of the texts; an
answer without stars means that the text holds no word.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.commands import cli
from common.commands.config import PredictConfig
from common.errors import InputError
from common.files import read_lines, read_table
from common.serving.served import Served
from tasks.sentiment.evaluate import answers, load

import numpy as np
import tyro
from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(PredictConfig):
    """Flags of `predict`."""

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    """texts; - reads lines from standard input"""
    file: tuple[Path, ...] = ()
    """files of texts: .csv or .tsv with a column `text`, or a text on each line"""
    plot: Path | None = None
    """draw what the model looked at in the first text into this PNG"""
    batch_size: int = 64
    """texts a request"""


def read_texts(flags: Predict) -> Iterator[str]:
    """Yields the texts that the flags name, in order, without holding them all."""
    yield from cli.input_lines(flags.texts)
    for path in flags.file:
        if path.suffix.lower() in (".csv", ".tsv"):
            yield from (row["text"] for _, row in read_table(path, ("text",)))
        else:
            yield from (line for _, line in read_lines(path))


def describe(text: str, answer: dict[str, np.ndarray], labels: list[str]) -> dict[str, Any]:
    """One answer as plain values; a text without a word has the label None."""
    if not answer["stars"]:
        return {"text": text, "label": None, "stars": 0, "message": "no word in this text"}
    shares = [round(float(share), 6) for share in answer["probabilities"]]
    return {
        "text": text,
        "label": answer["label"].decode(),
        "stars": int(answer["stars"]),
        "probabilities": dict(zip(labels, shares, strict=True)),
    }


def to_line(said: dict[str, Any]) -> str:
    """One answer for a person.

    Example:
      >>> to_line({"text": "Bad.", "label": "1", "stars": 1, "probabilities": {"1": 0.9, "5": 0.1}})
      '★☆☆☆☆  1 star   90 %  Bad.'
    """
    if not said["stars"]:
        return f"-----  {said['message']}  {said['text']!r}"
    stars, share = said["stars"], said["probabilities"][said["label"]]
    drawn = "★" * stars + "☆" * (5 - stars)
    label = said["label"]
    named = "" if label.isdigit() else f"  {label}"
    return f"{drawn}  {stars} star{'s' if stars > 1 else ' '} {share:4.0%}{named}  {said['text']}"


def draw(served: Served, text: str, path: Path) -> None:
    """Draws the words of a text, each shaded by its share in the answer, and the classes."""
    seen = served.call("explain", text=np.array([text], dtype=object))
    tokens = [token.decode() for token in seen["tokens"][0]]
    if not tokens:
        raise InputError(f"no word to draw in {text!r}")
    shares = seen["attention"][0]
    answer = served.call("serving_default", text=np.array([text], dtype=object))
    figure = Figure(figsize=(8, 1.5 + 0.28 * len(tokens)), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.barh(range(len(tokens)), shares, color="tab:blue")
    left.set_yticks(range(len(tokens)), tokens)
    left.invert_yaxis()
    left.set(xlabel="share in the pooled text")
    labels = served.settings["labels"]
    right.bar(range(len(labels)), answer["probabilities"][0], color="tab:orange")
    right.set_xticks(range(len(labels)), labels)
    right.set(ylim=(0, 1), ylabel="probability")
    figure.savefig(path, dpi=120)


def main(argv: list[str]) -> None:
    """Asks and prints; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    if not flags.texts and not flags.file:
        raise InputError('give a text, as in: predict "A warm and funny film.", or --file PATH')
    served = load(flags.model)
    labels = served.settings["labels"]
    found = answers(served, read_texts(flags), batch_size=flags.batch_size)
    said = (describe(text, answer, labels) for text, answer in found)
    first = cli.print_answers(flags, said, to_line=to_line)
    if flags.plot:
        draw(served, first["text"], flags.plot)


if __name__ == "__main__":
    cli.run(main)
