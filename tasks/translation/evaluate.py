"""Scores an exported translation model.

    python -m tasks.translation.evaluate                                # its own data, test split
    python -m tasks.translation.evaluate --model saved_models/translation/1 --data my.tsv
    python -m tasks.translation.evaluate --dataset multi30k --manual_dir DIR --split validation

The last line is one JSON object. `bleu`, `bleu_lowercase` and `chrf` are on 0..100, by sacrebleu,
whose signatures are printed above it. Every distinct source is translated once, and compared with
all its references.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from common.commands import cli
from common.commands.config import EvaluateConfig
from common.data import map_in_order
from common.errors import InputError, require
from common.serving.served import Served, load_export
from tasks.translation import data

import numpy as np

TASK = "translation"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig):
    """Flags of `evaluate`."""

    split: Literal["train", "validation", "test", "test_2017"] = "test"
    """which part of it (test_2017: of multi30k); a single file given by --data is scored whole"""


def metrics(
    translations: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[str, float], list[str]]:
    """Compares translations with their references.

    Args:
      translations: one for each source.
      references: one or more for each source.

    Returns:
      `bleu` (cased, 13a tokens), `bleu_lowercase` and `chrf`, on 0..100, and sacrebleu's signature
      of each.

    Raises:
      InputError: sacrebleu is not installed.

    Example:
      >>> scores, _ = metrics(["The cat sat on the mat."], [["The cat sat on the mat.", "A cat."]])
      >>> scores["bleu"]
      100.0
    """
    scorers = require("sacrebleu.metrics", "translation")
    most = max(map(len, references))
    # sacrebleu takes a list for the first references, one for the second ones, and so on.
    columns = [[row[k] if k < len(row) else None for row in references] for k in range(most)]
    # The number of references varies, as sacrebleu's signature then says ("nrefs:var").
    scorers = {
        "bleu": scorers.BLEU(),
        "bleu_lowercase": scorers.BLEU(lowercase=True),
        "chrf": scorers.CHRF(),
    }
    scores = {
        name: scorer.corpus_score(list(translations), columns).score
        for name, scorer in scorers.items()
    }
    return scores, [f"{name}: {scorer.get_signature()}" for name, scorer in scorers.items()]


def answers(
    served: Served, texts: Iterable[str], *, batch_size: int, signature: str
) -> Iterable[tuple[str, dict[str, np.ndarray]]]:
    """Asks an export about texts: gives each with its answer, in order."""

    def ask(batch: list[str]) -> list[tuple[str, dict[str, np.ndarray]]]:
        outputs = served.call(signature, text=np.array(batch, dtype=object))
        rows = ({name: value[row] for name, value in outputs.items()} for row in range(len(batch)))
        return list(zip(batch, rows, strict=True))

    return map_in_order(ask, texts, batch_size=batch_size, length_of=len)


def with_references(pairs: Any) -> dict[str, list[str]]:
    """Each distinct source of a data set of `{source, target}`, with all its targets."""
    found: dict[str, list[str]] = {}
    for row in pairs.as_numpy_iterator():
        targets = found.setdefault(row["source"].decode(), [])
        if (target := row["target"].decode()) not in targets:
            targets.append(target)
    return found


@dataclasses.dataclass(frozen=True)
class Scored:
    """What an export made of a split."""

    sources: list[str]
    translations: list[str]
    references: list[list[str]]
    metrics: dict[str, float]
    signatures: list[str]
    seconds: float


def score(served: Served, pairs: Any, *, batch_size: int = 64) -> Scored:
    """Scores an export on a data set of `{source, target}`, from raw text to raw text."""
    start = time.perf_counter()
    found = with_references(pairs)
    if not found:
        raise InputError("no sentence pairs in this split")
    said = answers(served, found, batch_size=batch_size, signature="serving_default")
    translations = [answer["translation"].decode() for _, answer in said]
    seconds = time.perf_counter() - start
    references = list(found.values())
    scores, signatures = metrics(translations, references)
    return Scored(list(found), translations, references, scores, signatures, seconds)


def _load_split(served: Served, flags: Evaluate) -> tuple[str, str, Any]:
    """Finds what to score: its name, the split, and a data set of `{source, target}`."""
    languages = tuple(served.settings["languages"])
    trained = served.settings["training_data"]
    flags = flags.or_trained_on(trained)
    if flags.scores_whole_file(trained):
        pairs = data.read_pairs(flags.data, languages)
        return flags.data.name, "all", data.as_dataset(pairs)
    corpus = data.load(flags, languages=languages, seed=served.settings["config"]["seed"])
    if flags.split not in corpus.splits:
        raise InputError(f"{corpus.name} has no split {flags.split!r}")
    return corpus.name, flags.split, corpus.splits[flags.split]


def print_report(scored: Scored, *, count: int = 10) -> None:
    """Prints some translations beside their references, and the signatures of the metrics."""
    for place in np.linspace(0, len(scored.sources) - 1, min(count, len(scored.sources))):
        row = int(place)
        print(f"{scored.sources[row]}\n  -> {scored.translations[row]}")
        print(f"  == {' / '.join(scored.references[row])}")
    print("\n".join(scored.signatures))


def main(argv: list[str]) -> None:
    """Scores and prints; see the module."""
    flags = cli.parse(Evaluate, argv, doc=__doc__)
    served = load_export(flags.model or Path("saved_models") / TASK)
    name, split, pairs = _load_split(served, flags)
    scored = score(served, pairs, batch_size=flags.batch_size)
    print_report(scored)
    count, seconds = len(scored.sources), scored.seconds
    cli.print_scored(TASK, name, split, count, seconds, served.path, scored.metrics)


if __name__ == "__main__":
    cli.run(main)
