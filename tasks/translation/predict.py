"""Asks an exported translation model about your own sentences.

    python -m tasks.translation.predict "Voulez-vous chanter avec moi?"
    python -m tasks.translation.predict --n_best 3 --attention out.png "Où est la gare ?"
    python -m tasks.translation.predict --file letters.txt --output answers.jsonl
    cat letters.txt | python -m tasks.translation.predict -

Words on the command line are sentences, `-` reads lines from standard input, `--file` reads the
lines of files. Answers come in the order of the sentences. The model was trained on single
sentences, so give it one at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.commands import cli
from common.commands.config import PredictConfig
from common.errors import InputError
from common.files import read_lines
from common.serving.served import Served, load_export
from tasks.translation.evaluate import TASK, answers

import numpy as np
import tyro
from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(PredictConfig):
    """Flags of `predict`."""

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    """sentences; - reads lines from standard input"""
    file: tuple[Path, ...] = ()
    """text files with a sentence on each line"""
    n_best: int = 1
    """so many translations of each sentence, best first; at most as many as the export's beam"""
    attention: Path | None = None
    """draw which words of the first sentence its translation looked at into this PNG"""
    batch_size: int = 32
    """sentences a request"""

    def __post_init__(self) -> None:
        """Checks what no type can say."""
        if self.n_best < 1 or self.batch_size < 1:
            raise InputError("--n_best and --batch_size must be 1 or more")


def read_texts(flags: Predict) -> Iterator[str]:
    """Yields the sentences that the flags name, in order, without holding them all."""
    yield from cli.input_lines(flags.texts)
    for path in flags.file:
        yield from (line for _, line in read_lines(path))


def describe(text: str, answer: dict[str, np.ndarray], n_best: int) -> dict[str, Any]:
    """One answer as plain values; a text of blanks has the translation None.

    Args:
      text: what was asked.
      answer: its row of `serving_default`, or of `explain` where more than one is wanted.
      n_best: how many.
    """
    if n_best == 1:
        found = [(answer["translation"], answer["score"])]
    else:
        found = list(zip(answer["translations"], answer["scores"], strict=True))[:n_best]
    if not found[0][0]:
        return {"text": text, "translation": None, "score": 0.0, "message": "nothing to translate"}
    listed = [
        {"translation": translation.decode(), "score": round(float(score), 6)}
        for translation, score in found
        if translation
    ]
    return {"text": text, **listed[0]} | ({"n_best": listed} if n_best > 1 else {})


def to_line(said: dict[str, Any]) -> str:
    """One answer for a person; several translations come with their scores.

    Example:
      >>> to_line({"text": "Va !", "translation": "Go!", "score": -0.2})
      'Go!'
    """
    if said["translation"] is None:
        return f"-----  {said['message']}: {said['text']!r}"
    if "n_best" not in said:
        return said["translation"]
    return "\n".join(f"{one['score']:8.3f}  {one['translation']}" for one in said["n_best"])


def draw(served: Served, text: str, path: Path) -> None:
    """Draws which subwords of a sentence each subword of its translation looked at."""
    seen = served.call("explain", text=np.array([text], dtype=object))
    source, target = (
        [token.decode() for token in seen[name][0] if token] for name in ("tokens", "target_tokens")
    )
    if not source:
        raise InputError(f"nothing to draw in {text!r}")
    shares = seen["attention"][0, : len(target), : len(source)]
    figure = Figure(
        figsize=(2.0 + 0.4 * len(source), 1.5 + 0.3 * len(target)), layout="constrained"
    )
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(source)), source, rotation=60, ha="right")
    axes.set_yticks(range(len(target)), target)
    axes.set(xlabel="read", ylabel="written")
    figure.colorbar(picture, label="share of attention")
    figure.savefig(path, dpi=120)


def main(argv: list[str]) -> None:
    """Asks and prints; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    if not flags.texts and not flags.file:
        raise InputError('give a sentence, as in: predict "Où est la gare ?", or --file PATH')
    served = load_export(flags.model or Path("saved_models") / TASK)
    beam = served.settings["config"]["beam"]
    if flags.n_best > beam:
        raise InputError(f"--n_best {flags.n_best} is more than the export's beam of {beam}")
    signature = "serving_default" if flags.n_best == 1 else "explain"
    found = answers(served, read_texts(flags), batch_size=flags.batch_size, signature=signature)
    said = (describe(text, answer, flags.n_best) for text, answer in found)
    first = cli.print_answers(flags, said, to_line=to_line)
    if flags.attention:
        draw(served, first["text"], flags.attention)


if __name__ == "__main__":
    cli.run(main)
