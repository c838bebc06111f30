"""Give an exported speech model the language of a text, without training its network anew.

    python -m tasks.speech.adapt --lm_text letters.txt
    python -m tasks.speech.adapt --model MODEL_DIR --lm_text letters.txt --words names.txt

The next version has the network of the model and a letter n-gram model of the text, one sentence
per line. Words of a list, one per line, are favoured. Letters that the network does not know are
left out.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.commands import cli
from common.commands.config import Settings
from common.errors import InputError
from common.files import read_lines
from common.messages import say
from common.serving import versions
from common.start_up import start_tensorflow
from tasks.speech.config import TASK, Config

from etils import epy

with epy.lazy_imports():
    from common.serving import publish
    from tasks.speech import data, language_model, serving

REPEATS = 10  # how often a favoured word counts
MODEL_CARD = "model_card.md"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapt(Settings):
    """Flags of this command."""

    lm_text: Path
    """text file of sentences, one per line, of which the language model is made"""
    words: Path | None = None
    """text file of words, one per line, which are favoured"""
    model: Path | None = None
    """version folder, or a task's folder (its newest version); default: saved_models/speech"""
    lm_weight: float | None = None
    """weight of the language model (default: that of the model, or 0.5 if it has none)"""
    bonus: float | None = None
    """bonus per letter (default: that of the model)"""


def read_texts(path: Path, letters: Sequence[str]) -> list[str]:
    """Return the lines of a file as transcripts, without letters that the network does not know.

    Raises:
      InputError: nothing is left.
    """
    known = set(letters)
    lines = data.normalise([line for _, line in read_lines(path)] or [""]).numpy()
    texts = ["".join(letter for letter in line.decode() if letter in known) for line in lines]
    texts = [" ".join(text.split()) for text in texts]
    if not any(texts):
        raise InputError("no letter that the model knows in it", path)
    return [text for text in texts if text]


def sentences(flags: Adapt, letters: Sequence[str]) -> Iterator[str]:
    """Yield the sentences of the text, and each favoured word several times, between spaces."""
    yield from read_texts(flags.lm_text, letters)
    if flags.words is not None:
        for word in read_texts(flags.words, letters):
            yield from [word, f" {word} " if " " in letters else word] * REPEATS


def adapt(published: versions.Published, flags: Adapt) -> Path:
    """Publish the next version of a model with another language model; return its folder.

    Raises:
      InputError: the model is for another target, or the text has no letter.
    """
    settings = dict(published.settings)
    if settings["config"]["target"] != "portable":
        raise InputError("only a model of --target portable can be adapted", published.path)
    letters = settings["letters"]
    own = settings["config"]
    config = Config(order=own["order"] or Config.order, min_count=own["min_count"])
    ngram = language_model.learn(sentences(flags, letters), letters, config)
    weight = settings["lm_weight"] or 0.5 if flags.lm_weight is None else flags.lm_weight
    bonus = settings["bonus"] if flags.bonus is None else flags.bonus
    recognizer = serving.Recognizer(
        published.model,
        letters,
        ngram,
        weight=weight,
        bonus=bonus,
        beam=own["beam"],
        max_samples=settings["max_samples"],
    )
    made_of = flags.lm_text.name if flags.words is None else f"{flags.lm_text.name} and a word list"

    def finish(staged: Path) -> None:
        for picture in (published.path / "assets.extra").glob("*.png"):
            shutil.copy(picture, staged / "assets.extra")
        card = (published.path / MODEL_CARD).read_text(encoding="utf-8")
        (staged / MODEL_CARD).write_text(
            f"{card}\n## Language model\n\nThe scores above are those of another language model. "
            f"The one of this version is made of {made_of} (weight {weight:g}, bonus {bonus:g}).\n",
            encoding="utf-8",
        )

    return publish.publish(
        serving.signatures(recognizer),
        model=published.model,
        resources=recognizer.resources,
        examples=serving.examples(serving.example_lengths(settings["max_samples"]), recognizer),
        settings={**settings, "lm_weight": weight, "bonus": bonus, "lm_text": made_of},
        directory=published.path.parent,
        finish=finish,
    )


def main(argv: list[str]) -> None:
    """Rebuild the language model and publish; see the module."""
    flags = cli.parse(Adapt, argv, doc=__doc__)
    published = versions.find(flags.model, TASK)
    start_tensorflow()
    say(f"published {adapt(published, flags)}")


if __name__ == "__main__":
    cli.run(main)
