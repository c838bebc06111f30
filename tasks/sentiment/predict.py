"""Rate your own texts with an exported sentiment model.

    python -m tasks.sentiment.predict "There is nothing to like in this movie."
    python -m tasks.sentiment.predict --file reviews.csv --output stars.jsonl
    cat reviews.txt | python -m tasks.sentiment.predict -

Words on the command line are texts, `-` reads lines from standard input. A .csv or .tsv file is
read by its column `text`, a .jsonl file by its key `text`, any other file by its lines. Predictions
come in the order of the texts; a text without a word has no stars.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import plots
from common.commands import cli
from common.commands.config import Picture, TextPredictConfig
from common.errors import InputError
from common.serving import versions
from common.serving.model import Model
from common.serving.served import Served, load_version, text_request
from common.serving.versions import LITERT
from tasks.sentiment.config import TASK, FileSettings
from tasks.sentiment.formats import SUFFIXES, read_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(TextPredictConfig, FileSettings):
    """Flags of `predict`."""

    file: tuple[Path, ...] = ()
    """files of texts: .csv, .tsv or .jsonl with a column `text`, or one text per line"""
    plot: Picture | None = None
    """draw the attention weights of the words of the first text to this picture file;
    a name that ends in -dark gets dark colours"""

    def read_file(self, path: Path) -> Iterator[str]:
        """Yield the texts of one file."""
        if path.suffix.lower() in SUFFIXES:
            for row in read_rows(path, self.layout(), labelled=False):
                yield row.text
        else:
            yield from super().read_file(path)


def load_model(path: str | Path | None) -> Served:
    """Load a version, or the newest of a folder: a SavedModel or a LiteRT model."""
    published = versions.find(path, TASK)
    if (published.path / LITERT).exists():
        from tasks.sentiment import litert_export  # needs Keras

        return litert_export.load(published.path)
    return load_version(published)


@dataclasses.dataclass(frozen=True)
class Rating:
    """A text with its class, its stars and the probabilities of all classes.

    A text without a word has the label None, 0 stars and no probabilities; of one that is longer
    than the model reads, only the beginning is rated, and `truncated` is true.
    """

    text: str
    label: str | None
    stars: int
    probabilities: Mapping[str, float]
    truncated: bool = False


def load(path: str | Path | None = None, *, batch_size: int = 64) -> Model[str, Rating]:
    """Load a published model as a function of texts; see `common.serving.model`.

    Example::

        model = load()
        model("There is nothing to like in this movie.").stars  # 1
    """
    served = load_model(path)
    return Model(served, lambda texts: predict(served, texts, batch_size=batch_size))


def predict(served: Served, texts: Iterable[str], *, batch_size: int) -> Iterator[Rating]:
    """Rate texts, in order."""
    rows = served.predict("serving_default", texts, text_request, batch_size=batch_size)
    return (to_rating(text, outputs, served.settings["labels"]) for text, outputs in rows)


def to_rating(text: str, outputs: Mapping[str, Any], labels: Sequence[str]) -> Rating:
    """Return the rating of a text from its row of the outputs of `serving_default`."""
    if not outputs["stars"]:
        return Rating(text, None, 0, {})
    probabilities = [round(float(value), 6) for value in outputs["probabilities"]]
    return Rating(
        text,
        outputs["label"].decode(),
        int(outputs["stars"]),
        dict(zip(labels, probabilities, strict=True)),
        bool(outputs.get("truncated", False)),  # LiteRT models have no such output
    )


def describe(rating: Rating) -> dict[str, Any]:
    """Return a rating as plain values; `truncated` is left out if it is false."""
    values = dataclasses.asdict(rating)
    if not rating.stars:
        return {"text": rating.text, "label": None, "stars": 0, "message": "no word in this text"}
    return values if values.pop("truncated") is False else values | {"truncated": True}


def to_line(prediction: dict[str, Any]) -> str:
    """Format a prediction for a person.

    Example:
      >>> to_line({"text": "Bad.", "label": "1", "stars": 1, "probabilities": {"1": 0.9, "5": 0.1}})
      '★☆☆☆☆  1 star   90%  Bad.'
    """
    if not prediction["stars"]:
        return f"-----  {prediction['message']}  {prediction['text']!r}"
    stars, label = prediction["stars"], prediction["label"]
    bar = "★" * stars + "☆" * (5 - stars)
    count = f"{stars} star{'s' if stars > 1 else ' '}"
    name = "" if label.isdigit() else f"  {label}"
    probability = f"{prediction['probabilities'][label]:4.0%}"
    cut = "  (only its beginning was read)" if prediction.get("truncated") else ""
    return f"{bar}  {count} {probability}{name}  {prediction['text']}{cut}"


def draw(served: Served, text: str, path: Path) -> None:
    """Draw the words of a text with their attention weights, and the class probabilities."""
    request = text_request([text])
    explanation = served.call("explain", **request)
    tokens = [token.decode() for token in explanation["tokens"][0]]
    if not tokens:
        raise InputError(f"no word to draw in {text!r}")
    outputs = served.call("serving_default", **request)
    labels = served.settings["labels"]
    with plots.picture(path, (8, 1.5 + 0.28 * len(tokens))) as figure:
        left, right = figure.subplots(1, 2)
        left.barh(range(len(tokens)), explanation["attention"][0], color="C0")
        left.set_yticks(range(len(tokens)), tokens)
        left.invert_yaxis()
        left.set(xlabel="weight in the pooled text")
        right.bar(range(len(labels)), outputs["probabilities"][0], color="C1")
        right.set_xticks(range(len(labels)), labels)
        right.set(ylim=(0, 1), ylabel="probability")


def main(argv: list[str]) -> None:
    """Predict and print; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    served = load_model(flags.model)
    ratings = predict(served, flags.read_texts(), batch_size=flags.batch_size)
    predictions = map(describe, ratings)
    first = cli.print_predictions(flags, predictions, to_line=to_line)
    if flags.plot:
        draw(served, first["text"], flags.plot)


if __name__ == "__main__":
    cli.run(main)
