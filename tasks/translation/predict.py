"""Translate your own sentences.

    python -m tasks.translation.predict "Voulez-vous chanter avec moi?"
    python -m tasks.translation.predict --n_best 3 --attention out.png "Où est la gare ?"
    python -m tasks.translation.predict --file letters.txt --output translations.jsonl
    cat letters.txt | python -m tasks.translation.predict -

Words on the command line are texts, `-` reads lines from standard input, and each line of a file is
a text. The model translates single sentences, so a text of several ones is split, and their
translations are joined: there is a line of output for each line of input, and an empty one for an
empty one. A translation of which the end is missing is marked in JSON and said on standard error.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import plots
from common.commands import cli
from common.commands.config import Count, Picture, TextPredictConfig
from common.errors import InputError
from common.serving.model import Model
from common.serving.served import Served, load_export, text_request
from tasks.translation.config import TASK
from tasks.translation.sentences import Sentence, join_sentences, split_sentences

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(TextPredictConfig):
    """Flags of `predict`."""

    n_best: Count = 1
    """translations of each sentence, best first; at most the beam of the export"""
    attention: Picture | None = None
    """draw the attention weights of the first sentence's translation to this picture file;
    a name that ends in -dark gets dark colours"""
    batch_size: Count = 32
    """sentences per request"""


@dataclasses.dataclass(frozen=True)
class Translation:
    """A text with its translation.

    Attributes:
      source: the text.
      text: the translation; "" if there was nothing to translate.
      score: log-probability divided by length, the mean over the sentences; the best is 0.
      truncated: whether the end of a sentence, or of its translation, is missing.
    """

    source: str
    text: str
    score: float
    truncated: bool = False


def load(path: str | Path | None = None, *, batch_size: int = 32) -> Model[str, Translation]:
    """Load a published model as a function of texts; see `common.serving.model`.

    A text may have several sentences.

    Example::

        model = load()
        model("Voulez-vous chanter avec moi?").text  # "Do you want to sing with me?"
    """
    served = load_export(path, TASK)

    def answer(texts: Iterable[str]) -> Iterator[Translation]:
        for one in predict(served, texts, n_best=1, batch_size=batch_size):
            translated = one["translation"] or ""
            yield Translation(one["text"], translated, one["score"], bool(one.get("truncated")))

    return Model(served, answer)


def predict(
    served: Served, texts: Iterable[str], *, n_best: int, batch_size: int
) -> Iterator[dict[str, Any]]:
    """Translate texts sentence by sentence; yield plain values for each text, in order.

    Args:
      served: the export.
      texts: read lazily.
      n_best: number of translations of each text.
      batch_size: sentences per request.
    """
    language = served.settings["languages"][0]
    split: collections.deque[tuple[str, list[Sentence]]] = collections.deque()

    def sentences() -> Iterator[str]:
        for text in texts:
            split.append((text, split_sentences(text, language)))
            yield from (sentence.text for sentence in split[-1][1])

    signature = "serving_default" if n_best == 1 else "explain"
    predictions = served.predict(signature, sentences(), text_request, batch_size=batch_size)
    translated = (describe(text, outputs, n_best) for text, outputs in predictions)
    for first in translated:
        text, parts = split.popleft()
        rest = itertools.islice(translated, len(parts) - 1)
        yield join_predictions(text, [first, *rest], [part.gap for part in parts])


def join_predictions(
    text: str, predictions: Sequence[dict[str, Any]], gaps: Sequence[str]
) -> dict[str, Any]:
    """Return the prediction for a text from those for its sentences.

    The score is the mean of those of the sentences. The k-th translation consists of the k-th ones
    of the sentences.

    Args:
      text: the text.
      predictions: for its sentences; at least one.
      gaps: the blanks after each sentence.

    Example:
      >>> one, two = ({"text": t, "translation": e, "score": -0.5}
      ...             for t, e in (("Va !", "Go!"), ("Non.", "No.")))
      >>> joined = join_predictions("Va ! Non.", [one, two], [" ", ""])
      >>> joined["translation"], joined["score"], len(joined["sentences"])
      ('Go! No.', -0.5, 2)
    """
    valid = [prediction for prediction in predictions if "message" not in prediction]
    if len(predictions) == 1 or not valid:
        return {**predictions[0], "text": text}

    def join(translations: Iterable[str | None]) -> str:
        return join_sentences([translation or "" for translation in translations], gaps)

    joined = {
        "text": text,
        "translation": join(prediction["translation"] for prediction in predictions),
        "score": round(sum(prediction["score"] for prediction in valid) / len(valid), 6),
    }
    if any(prediction.get("truncated") for prediction in predictions):
        joined["truncated"] = True
    if "n_best" in valid[0]:
        most = max(len(prediction["n_best"]) for prediction in valid)
        joined["n_best"] = [
            join_predictions(text, [_at_rank(one, rank) for one in predictions], gaps)
            for rank in range(most)
        ]
        joined["n_best"] = [
            {name: one[name] for name in ("translation", "score")} for one in joined["n_best"]
        ]
    return {**joined, "sentences": list(predictions)}


def _at_rank(prediction: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """Return the prediction with its translation of a rank, or its last one."""
    listed = prediction.get("n_best") or [prediction]
    chosen = listed[min(rank, len(listed) - 1)]
    plain = {name: prediction[name] for name in prediction if name != "n_best"}
    return {**plain, "translation": chosen["translation"], "score": chosen["score"]}


def describe(text: str, outputs: Mapping[str, Any], n_best: int) -> dict[str, Any]:
    """Return a prediction as plain values; the translation of an empty text is None.

    `truncated` is among them if the end of the text or of its translation is missing.

    Args:
      text: a sentence.
      outputs: its row of the outputs of `serving_default`; of `explain` if `n_best` is above 1.
      n_best: number of translations.

    Example:
      >>> describe("Va !", {"translation": b"Go!", "score": -0.25}, n_best=1)
      {'text': 'Va !', 'translation': 'Go!', 'score': -0.25}
    """
    if n_best == 1:
        hypotheses = [(outputs["translation"], outputs["score"])]
    else:
        pairs = zip(outputs["translations"], outputs["scores"], strict=True)
        hypotheses = list(pairs)[:n_best]
    if not hypotheses[0][0]:
        return {"text": text, "translation": None, "score": 0.0, "message": "nothing to translate"}
    described = [
        {"translation": translation.decode(), "score": round(float(score), 6)}
        for translation, score in hypotheses
        if translation
    ]
    prediction = {"text": text, **described[0]}
    if n_best > 1:
        prediction["n_best"] = described
    if outputs.get("truncated"):
        prediction["truncated"] = True
    return prediction


def to_line(prediction: dict[str, Any]) -> str:
    """Format a prediction for a person; several translations are listed with their scores.

    The line of a blank text is blank.

    Example:
      >>> to_line({"text": "Va !", "translation": "Go!", "score": -0.2})
      'Go!'
    """
    if not prediction["text"].strip():
        return ""
    if "message" in prediction:
        return f"-----  {prediction['message']}: {prediction['text']!r}"
    if "n_best" not in prediction:
        return prediction["translation"]
    return "\n".join(f"{one['score']:8.3f}  {one['translation']}" for one in prediction["n_best"])


def explain(served: Served, text: str) -> tuple[list[str], list[str], np.ndarray]:
    """Return the attention weights of the first sentence's translation.

    Returns:
      The subwords of the sentence, those of its translation, and `<float32>[target, source]`.
    """
    text = split_sentences(text, served.settings["languages"][0])[0].text
    outputs = served.call("explain", **text_request([text]))
    source, target = (
        [token.decode() for token in outputs[name][0] if token]
        for name in ("tokens", "target_tokens")
    )
    return source, target, outputs["attention"][0, : len(target), : len(source)]


def draw(served: Served, text: str, path: Path) -> None:
    """Draw the attention weights between the subwords of the first sentence and its translation."""
    source, target, weights = explain(served, text)
    if not source:
        raise InputError(f"nothing to draw in {text!r}")
    size = (2.0 + 0.4 * len(source), 1.5 + 0.3 * len(target))
    with plots.picture(path, size) as figure:
        axes = figure.subplots()
        image = axes.imshow(weights, vmin=0.0, vmax=1.0, aspect="auto")
        axes.set_xticks(range(len(source)), source, rotation=60, ha="right")
        axes.set_yticks(range(len(target)), target)
        axes.set(xlabel="source", ylabel="translation")
        figure.colorbar(image, label="attention weight")


def warn_of_truncated(
    predictions: Iterable[dict[str, Any]], longest: int
) -> Iterator[dict[str, Any]]:
    """Pass predictions on, and say on standard error which of them are truncated."""
    for prediction in predictions:
        for sentence in prediction.get("sentences", [prediction]):
            if sentence.get("truncated"):
                begins = sentence["text"].strip()[:40]
                cli.say(f"truncated, since it is longer than {longest} subwords: {begins!r}...")
        yield prediction


def main(argv: list[str]) -> None:
    """Predict and print; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    served = load_export(flags.model, TASK)
    beam = served.settings["config"]["beam"]
    if flags.n_best > beam:
        raise InputError(f"--n_best {flags.n_best} is more than the export's beam of {beam}")
    texts = flags.read_texts()
    predictions = predict(served, texts, n_best=flags.n_best, batch_size=flags.batch_size)
    predictions = warn_of_truncated(predictions, served.settings["max_subwords"])
    first = cli.print_predictions(flags, predictions, to_line=to_line)
    if flags.attention:
        draw(served, first["text"], flags.attention)


if __name__ == "__main__":
    cli.run(main)
