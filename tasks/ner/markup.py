"""Predictions as files: CoNLL, BRAT standoff, and an HTML page with the names marked.

A prediction is what `tasks.ner.predict.describe` returns.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import open_output

Prediction = Mapping[str, Any]

# Background colours of an HTML page, one per type in turn.
COLOURS = ("#ffd6d6", "#d6e8ff", "#d9f2d9", "#fff0c2", "#ead9ff", "#d4f3f3", "#ffdff3", "#e6e6e6")
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Named entities</title>
<style>
body { font: 1rem/1.8 sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
p { white-space: pre-wrap; overflow-wrap: anywhere; }
mark { color: inherit; padding: 0.15em 0.3em; border-radius: 0.3em; }
mark small { font-weight: bold; margin-left: 0.4em; }
"""


def writes(path: Path | None) -> bool:
    """Return whether `write` knows the ending of a file."""
    return path is not None and path.suffix.lower() in (".conll", ".ann", ".html")


def write(path: Path, predictions: Iterable[Prediction], types: Iterable[str]) -> Prediction:
    """Write predictions in the form that the ending of a file names, as they come.

    Args:
      path: `.conll`: a token, its tag and the probability of its entity on each line; `.ann`: BRAT
        standoff, with the texts in a file of the same name that ends in `.txt`; `.html`: a page.
      predictions: of texts, in order.
      types: the entity types of the model.

    Returns:
      The first prediction.

    Raises:
      InputError: there are no predictions.
    """
    first: list[Prediction] = []

    def watched() -> Iterator[Prediction]:
        for prediction in predictions:
            if not first:
                first.append(prediction)
            yield prediction
        if not first:  # an existing file stays as it is
            raise InputError("the input is empty: there is nothing to predict")

    suffix = path.suffix.lower()
    if suffix == ".ann":
        _write_brat(path, watched())
    else:
        lines = conll_lines(watched()) if suffix == ".conll" else html_lines(watched(), types)
        with open_output(path) as out:
            out.writelines(f"{line}\n" for line in lines)
    return first[0]


def conll_lines(predictions: Iterable[Prediction]) -> Iterator[str]:
    r"""Yield the lines of a CoNLL file; a text without a token has none.

    Example:
      >>> row = {"tokens": ["Hi", "Ada"], "tags": ["O", "B-PER"], "confidence": [0.9, 0.75]}
      >>> list(conll_lines([row]))
      ['Hi\t0.9000\tO', 'Ada\t0.7500\tB-PER', '']
    """
    for row in predictions:
        for token, tag, value in zip(row["tokens"], row["tags"], row["confidence"], strict=True):
            yield f"{token}\t{value:.4f}\t{tag}"
        if row["tokens"]:
            yield ""


def _write_brat(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write annotations to `path`, and the texts that they refer to next to it."""
    place = number = 0
    with open_output(path) as out, open_output(path.with_suffix(".txt")) as texts:
        for prediction in predictions:
            texts.write(prediction["text"] + "\n")
            for entity in prediction["entities"]:
                number += 1
                start, end = place + entity["start"], place + entity["end"]
                name = entity["text"].replace("\n", " ")
                out.write(f"T{number}\t{entity['type']} {start} {end}\t{name}\n")
                out.write(f"#{number}\tAnnotatorNotes T{number}\t{entity['probability']:.4f}\n")
            place += len(prediction["text"]) + 1


def html_lines(predictions: Iterable[Prediction], types: Iterable[str]) -> Iterator[str]:
    """Yield the lines of an HTML page, in which the probability of a name is its tooltip."""
    number = {kind: n for n, kind in enumerate(types)}
    yield _HEAD.rstrip()
    for kind, n in number.items():
        yield f".t{n} {{ background: {COLOURS[n % len(COLOURS)]}; }}  /* {_comment(kind)} */"
    yield "</style>\n</head>\n<body>"
    for prediction in predictions:
        yield f"<p>{mark(prediction['text'], prediction['entities'], _marker(number))}</p>"
    yield "</body>\n</html>"


def _comment(kind: str) -> str:
    return kind.replace("*/", "").replace("<", "")


def _marker(number: Mapping[str, int]) -> Callable[[str, Prediction], str]:
    def marked(name: str, entity: Prediction) -> str:
        kind, n = html.escape(entity["type"]), number[entity["type"]]
        title = f"{kind} {entity['probability']:.3f}"
        return f'<mark class="t{n}" title="{title}">{html.escape(name)}<small>{kind}</small></mark>'

    return marked


def mark(
    text: str, entities: Iterable[Prediction], marked: Callable[[str, Prediction], str]
) -> str:
    """Return an HTML text with its entities marked.

    Example:
      >>> mark("Ada & I", [{"start": 0, "end": 3}], lambda name, _: f"[{name}]")
      '[Ada] &amp; I'
    """
    parts, done = [], 0
    for entity in entities:
        parts += [html.escape(text[done : entity["start"]])]
        parts += [marked(text[entity["start"] : entity["end"]], entity)]
        done = entity["end"]
    return "".join([*parts, html.escape(text[done:])])
