"""Scores an exported speech model.

    python -m tasks.speech.evaluate                                     # its own data, test split
    python -m tasks.speech.evaluate --model saved_models/speech/1 --data recordings
    python -m tasks.speech.evaluate --dataset an4 --manual_dir DIR --split validation

The last line is one JSON object. `wer` and `cer` are fractions, errors over all words and letters
of the split; `substitutions`, `deletions` and `insertions` are of words.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common.commands import cli
from common.commands.config import EvaluateConfig
from common.data import map_in_order
from common.errors import InputError, require
from common.serving.served import Served, load_export
from tasks.speech import data

import numpy as np

TASK = "speech"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig):
    """Flags of `evaluate`."""

    batch_size: int = 16
    """recordings a request"""
    show: int = 10
    """print so many of the worst recordings"""


def metrics(truth: Sequence[str], said: Sequence[str]) -> dict[str, float]:
    """Word and character error rates of a whole corpus, by jiwer.

    Example:
      >>> metrics(["go on", "stop"], ["go", "stop"])
      {'wer': 0.333, 'cer': 0.333, 'words': 3, 'substitutions': 0, 'deletions': 1, 'insertions': 0}
    """
    jiwer = require("jiwer", "speech")
    words = jiwer.process_words(list(truth), list(said))
    letters = jiwer.process_characters(list(truth), list(said))
    return {
        "wer": words.wer,
        "cer": letters.cer,
        "words": words.hits + words.substitutions + words.deletions,
        "substitutions": words.substitutions,
        "deletions": words.deletions,
        "insertions": words.insertions,
    }


def answers(
    served: Served, sounds: Iterable[np.ndarray], *, batch_size: int
) -> Iterator[tuple[str, float]]:
    """Asks an export about sounds `<float32>[samples]`: text and confidence of each, in order."""

    def ask(batch: list[np.ndarray]) -> list[tuple[str, float]]:
        found = served.call("serving_default", **request(batch))
        texts = [text.decode() for text in found["text"]]
        return list(zip(texts, found["confidence"].tolist(), strict=True))

    return map_in_order(ask, sounds, batch_size=batch_size, length_of=len, window=4)


def request(sounds: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Sounds as the inputs of an export's signatures."""
    length = np.array([len(sound) for sound in sounds], np.int32)
    padded = np.zeros((len(sounds), length.max()), np.float32)
    for row, sound in zip(padded, sounds, strict=True):
        row[: len(sound)] = sound
    return {"audio": padded, "length": length}


@dataclasses.dataclass(frozen=True)
class Scored:
    """What an export said about a split."""

    ids: list[str]
    truth: list[str]
    said: list[str]
    metrics: dict[str, float]
    seconds: float
    audio_seconds: float


def score(served: Served, rows: Any, *, batch_size: int = 16) -> Scored:
    """Scores an export on a data set of `{id, audio, text}`, from sound to text."""
    start = time.perf_counter()
    ids, truth, samples = [], [], 0

    def sounds() -> Iterator[np.ndarray]:
        nonlocal samples
        for row in rows.as_numpy_iterator():
            ids.append(row["id"].decode())
            truth.append(row["text"].decode())
            samples += len(row["audio"])
            yield row["audio"]

    said = [text for text, _ in answers(served, sounds(), batch_size=batch_size)]
    if not said:
        raise InputError("no recordings in this split")
    longest = served.settings["max_samples"]
    if unanswered := sum(not text for text in said):
        cli.say(f"{unanswered} of {len(said)} recordings got no text (limit: {longest} samples)")
    seconds = time.perf_counter() - start
    rate = served.settings["sample_rate"]
    return Scored(ids, truth, said, metrics(truth, said), seconds, samples / rate)


def print_report(scored: Scored, count: int) -> None:
    """Prints the recordings with the most wrong words, as jiwer aligns them."""
    jiwer = require("jiwer", "speech")
    rows = list(zip(scored.ids, scored.truth, scored.said, strict=True))
    wrong = {row: jiwer.process_words(row[1], row[2]) for row in rows if row[1] != row[2]}

    def errors(row: tuple[str, str, str]) -> int:
        found = wrong[row]
        return found.substitutions + found.deletions + found.insertions

    for name, truth, said in sorted(wrong, key=errors, reverse=True)[:count]:
        print(f"{name}\n  said  {truth}\n  heard {said}")
    print(f"{len(rows) - len(wrong)} of {len(rows)} recordings without an error")
    print(f"{scored.audio_seconds:.0f} s of sound in {scored.seconds:.1f} s")


def main(argv: list[str]) -> None:
    """Scores and prints; see the module."""
    flags = cli.parse(Evaluate, argv, doc=__doc__)
    served = load_export(flags.model or Path("saved_models") / TASK)
    trained = served.settings["training_data"]
    flags = flags.or_trained_on(trained)
    if flags.data is not None and flags.data.resolve() != Path(trained["data"] or "").resolve():
        name, split = flags.data.name, "all"
        rows = data.as_dataset(data.read_folder(flags.data))
    else:
        corpus = data.load(flags, seed=served.settings["config"]["seed"])
        name, split, rows = corpus.name, flags.split, corpus.splits[flags.split]
    scored = score(served, rows, batch_size=flags.batch_size)
    print_report(scored, flags.show)
    cli.print_scored(
        TASK, name, split, len(scored.said), scored.seconds, served.path, scored.metrics
    )


if __name__ == "__main__":
    cli.run(main)
