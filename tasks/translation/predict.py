"""Translate your own sentences.

    python -m tasks.translation.predict "Voulez-vous chanter avec moi?"
    python -m tasks.translation.predict --n_best 3 --attention out.png "Où est la gare ?"
    python -m tasks.translation.predict --file letters.txt --output translations.jsonl
    cat letters.txt | python -m tasks.translation.predict -

Words on the command line are sentences, `-` reads lines from standard input, and each line of a
file is a sentence. The model was trained on single sentences, so split longer texts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from common.commands import cli
from common.commands.config import Count, Picture, TextPredictConfig
from common.errors import InputError
from common.serving.served import Served, load_export, text_request
from tasks.translation.config import TASK


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(TextPredictConfig):
    """Flags of `predict`."""

    n_best: Count = 1
    """translations of each sentence, best first; at most the beam of the export"""
    attention: Picture | None = None
    """draw the attention weights of the first sentence's translation to this picture file"""
    batch_size: Count = 32
    """sentences per request"""


def predict(
    served: Served, texts: Iterable[str], *, n_best: int, batch_size: int
) -> Iterator[dict[str, Any]]:
    """Translate texts; yield the prediction for each as plain values, in order."""
    signature = "serving_default" if n_best == 1 else "explain"
    predictions = served.predict(signature, texts, text_request, batch_size=batch_size)
    return (describe(text, outputs, n_best) for text, outputs in predictions)


def describe(text: str, outputs: Mapping[str, Any], n_best: int) -> dict[str, Any]:
    """Return a prediction as plain values; the translation of an empty text is None.

    Args:
      text: the source.
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
    return {"text": text, **described[0]} | ({"n_best": described} if n_best > 1 else {})


def to_line(prediction: dict[str, Any]) -> str:
    """Format a prediction for a person; several translations are listed with their scores.

    Example:
      >>> to_line({"text": "Va !", "translation": "Go!", "score": -0.2})
      'Go!'
    """
    if "message" in prediction:
        return f"-----  {prediction['message']}: {prediction['text']!r}"
    if "n_best" not in prediction:
        return prediction["translation"]
    return "\n".join(f"{one['score']:8.3f}  {one['translation']}" for one in prediction["n_best"])


def draw(served: Served, text: str, path: Path) -> None:
    """Draw the attention weights between the subwords of a text and of its best translation."""
    from matplotlib.figure import Figure

    outputs = served.call("explain", **text_request([text]))
    source, target = (
        [token.decode() for token in outputs[name][0] if token]
        for name in ("tokens", "target_tokens")
    )
    if not source:
        raise InputError(f"nothing to draw in {text!r}")
    size = (2.0 + 0.4 * len(source), 1.5 + 0.3 * len(target))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    weights = outputs["attention"][0, : len(target), : len(source)]
    image = axes.imshow(weights, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(source)), source, rotation=60, ha="right")
    axes.set_yticks(range(len(target)), target)
    axes.set(xlabel="source", ylabel="translation")
    figure.colorbar(image, label="attention weight")
    figure.savefig(path, dpi=120)


def main(argv: list[str]) -> None:
    """Predict and print; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    served = load_export(flags.model, TASK)
    beam = served.settings["config"]["beam"]
    if flags.n_best > beam:
        raise InputError(f"--n_best {flags.n_best} is more than the export's beam of {beam}")
    texts = flags.read_texts()
    predictions = predict(served, texts, n_best=flags.n_best, batch_size=flags.batch_size)
    first = cli.print_predictions(flags, predictions, to_line=to_line)
    if flags.attention:
        draw(served, first["text"], flags.attention)


if __name__ == "__main__":
    cli.run(main)
