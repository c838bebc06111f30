"""Score an exported speech model.

    python -m tasks.speech.evaluate                                     # its own data, test split
    python -m tasks.speech.evaluate --model saved_models/speech/1 --data recordings
    python -m tasks.speech.evaluate --dataset an4 --manual_dir DIR --split validation

The last line is one JSON object. `wer` and `cer` are fractions, the errors over all words and
letters of the split; `substitutions`, `deletions` and `insertions` count words.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from common.commands import cli
from common.commands.cli import Scored
from common.commands.config import Count, EvaluateConfig
from common.errors import InputError, require
from common.serving.served import Served, load_export
from tasks.speech import audio
from tasks.speech.config import PRESETS, TASK, FolderSettings
from tasks.speech.formats import find_parts

import numpy as np
from etils import epy

with epy.lazy_imports():
    from tasks.speech import data

    import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig, FolderSettings):
    """Flags of `evaluate`."""

    batch_size: Count = 16
    """recordings per request"""
    show: int = 10
    """number of recordings to print, those with the most errors"""


def metrics(truth: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Return the word and character error rates of a whole split, by jiwer.

    Example:
      >>> rates = metrics(["go on", "stop"], ["go", "stop"])
      >>> {name: round(value, 3) for name, value in rates.items()}
      {'wer': 0.333, 'cer': 0.333, 'words': 3, 'substitutions': 0, 'deletions': 1, 'insertions': 0}
    """
    jiwer = require("jiwer", "speech")
    words = jiwer.process_words(list(truth), list(predicted))
    letters = jiwer.process_characters(list(truth), list(predicted))
    return {
        "wer": words.wer,
        "cer": letters.cer,
        "words": words.hits + words.substitutions + words.deletions,
        "substitutions": words.substitutions,
        "deletions": words.deletions,
        "insertions": words.insertions,
    }


@dataclasses.dataclass(frozen=True)
class ScoredTexts(Scored):
    """The score of an export on a split, with the transcripts of each recording."""

    ids: list[str]
    truth: list[str]
    predicted: list[str]
    audio_seconds: float  # duration of all recordings


def score(served: Served, recordings: tf.data.Dataset, *, batch_size: int = 16) -> ScoredTexts:
    """Score an export on recordings, from sound to text.

    Args:
      served: the export.
      recordings: elements of `data.load`.
      batch_size: recordings per request.
    """
    start = time.perf_counter()
    ids, truth, predicted, samples = [], [], [], 0
    predictions = served.predict(
        "serving_default",
        recordings.as_numpy_iterator(),
        _to_request,
        batch_size=batch_size,
        length_of=lambda row: len(row["audio"]),
        window=4,
    )
    for row, outputs in predictions:
        ids.append(row["id"].decode())
        truth.append(row["text"].decode())
        predicted.append(bytes(outputs["text"]).decode())
        samples += len(row["audio"])
    if not ids:
        raise InputError("no examples in this split")
    if empty := predicted.count(""):
        longest = served.settings["max_samples"]
        cli.say(f"{empty} of {len(ids)} recordings got an empty text (limit: {longest} samples)")
    seconds = time.perf_counter() - start
    return ScoredTexts(
        len(ids),
        seconds,
        metrics(truth, predicted),
        ids=ids,
        truth=truth,
        predicted=predicted,
        audio_seconds=samples / served.settings["sample_rate"],
    )


def _to_request(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return audio.request([row["audio"] for row in rows])


def load_split(served: Served, flags: Evaluate) -> tuple[str, str, tf.data.Dataset]:
    """Return the name of the data, the split, and its recordings as elements of `data.load`."""
    path = flags.new_data(served.settings)
    if path is not None and not find_parts(path):
        return (
            path.resolve().name,
            "all",
            data.load_part(path, max_bad=flags.max_bad, channel=flags.channel),
        )
    source = flags.or_trained_on(served.settings)
    seed = served.settings["config"]["seed"]
    corpus = data.load(source, seed=seed, max_bad=flags.max_bad, channel=flags.channel)
    return corpus.name, flags.split, corpus.splits[flags.split]


def print_report(scored: ScoredTexts, count: int) -> None:
    """Print up to `count` recordings with errors, those with the most wrong words first."""
    jiwer = require("jiwer", "speech")
    wrong = []
    for name, truth, predicted in zip(scored.ids, scored.truth, scored.predicted, strict=True):
        if truth != predicted:
            words = jiwer.process_words(truth, predicted)
            errors = words.substitutions + words.deletions + words.insertions
            wrong.append((errors, name, truth, predicted))
    for _, name, truth, predicted in sorted(wrong, key=lambda row: row[0], reverse=True)[:count]:
        print(f"{name}\n  truth      {truth}\n  prediction {predicted}")
    print(f"{scored.examples - len(wrong)} of {scored.examples} recordings without an error")
    print(f"{scored.audio_seconds:.0f} s of sound in {scored.seconds:.1f} s")


def evaluate(flags: Evaluate) -> dict[str, Any]:
    """Score an export, print the report, and return the result of the command."""
    served = load_export(flags.model, TASK)
    name, split, recordings = load_split(served, flags)
    scored = score(served, recordings, batch_size=flags.batch_size)
    print_report(scored, flags.show)
    return cli.to_result(TASK, name, split, scored, served.path)


def main(argv: list[str]) -> None:
    """Score and print; see the module."""
    doc = cli.with_datasets(__doc__, PRESETS, cli.TRAINED_ON)
    cli.print_result(evaluate(cli.parse(Evaluate, argv, doc=doc)))


if __name__ == "__main__":
    cli.run(main)
