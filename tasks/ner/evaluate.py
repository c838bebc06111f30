"""Score an exported named-entity model.

    python -m tasks.ner.evaluate                                    # its own data, test split
    python -m tasks.ner.evaluate --model saved_models/ner/1 --data my.conll
    python -m tasks.ner.evaluate --dataset btc --manual_dir DIR     # held-out text of another kind
    python -m tasks.ner.evaluate --errors mistakes.jsonl            # the most confident first

The last line is one JSON object: `precision`, `recall` and `f1` of entities, as fractions. An
entity counts as correct if its type and both its ends are right (strict IOB2).
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.commands import cli, report
from common.commands.cli import Scored
from common.commands.config import EvaluateConfig, Picture
from common.errors import InputError, require
from common.files import open_output
from common.serving.served import Served, load_export
from tasks.ner.config import PRESETS, TASK, check_columns
from tasks.ner.formats import (
    OUTSIDE,
    Columns,
    Sentence,
    Span,
    entities,
    entity_types,
)

import numpy as np
from etils import epy

with epy.lazy_imports():
    from tasks.ner import data

    import sklearn.metrics

METRICS = ("precision", "recall", "f1")
SEQEVAL = ("precision", "recall", "f1-score")  # the same in seqeval's reports


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig):
    """Flags of `evaluate`."""

    token_column: int = 1
    """column of the token in the file of --data, from 1; negative: counted from the end"""
    tag_column: int = -1
    """column of the tag, counted as for --token_column"""
    plot: Picture | None = None
    """draw the confusion matrix of the types of words to this picture file;
    a name that ends in -dark gets dark colours"""
    errors: Path | None = None
    """write the mistakes to this file, the most confident first, one JSON object per line"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        check_columns(self.token_column, self.tag_column)


def by_type(
    truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> dict[str, dict[str, float]]:
    """Return precision, recall and F1 of entities, by seqeval in its strict mode.

    Args:
      truth: the tags of each sentence, in IOB2.
      predicted: the predicted tags of each sentence.

    Returns:
      A row of `precision`, `recall`, `f1-score` and `support` for each type that occurs in either
      argument, and one for all types, `micro avg`.

    Example:
      >>> by_type([["B-PER", "I-PER", "O"]], [["B-PER", "O", "O"]])["micro avg"]["f1-score"]
      0.0
    """
    scorers = require("seqeval.metrics", "ner")
    if not entity_types(tag for tags in [*truth, *predicted] for tag in tags):
        # seqeval fails if there is no entity at all.
        return {"micro avg": {"precision": 0.0, "recall": 0.0, "f1-score": 0.0, "support": 0}}
    rows = scorers.classification_report(
        [list(tags) for tags in truth],
        [list(tags) for tags in predicted],
        mode="strict",
        scheme=require("seqeval.scheme", "ner").IOB2,
        output_dict=True,
        zero_division=0,
    )
    return {
        name: {key: value.item() if hasattr(value, "item") else value for key, value in row.items()}
        for name, row in rows.items()
        if name not in ("macro avg", "weighted avg")
    }


def metrics(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return the `precision`, `recall` and `f1` of all entities.

    Example:
      >>> metrics([["B-PER", "O", "B-LOC"]], [["B-PER", "O", "O"]])
      {'precision': 1.0, 'recall': 0.5, 'f1': 0.6666666666666666}
    """
    row = by_type(truth, predicted)["micro avg"]
    return {name: float(row[key]) for name, key in zip(METRICS, SEQEVAL, strict=True)}


def token_request(sentences: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """Return the inputs of signature `tokens` for sentences of tokens.

    Example:
      >>> token_request([["Hello", "Ada"], ["Hi"]])["tokens"].tolist()
      [['Hello', 'Ada'], ['Hi', '']]
    """
    length = np.array([len(tokens) for tokens in sentences], np.int32)
    padded = np.full((len(sentences), max(length)), "", dtype=object)
    for row, tokens in enumerate(sentences):
        padded[row, : len(tokens)] = tokens
    return {"tokens": padded, "length": length}


class Prediction(NamedTuple):
    """The predicted tags of a sentence, and the confidence of each; see `tasks.ner.serving`."""

    tags: list[str]
    confidence: Sequence[float]


def tag(
    served: Served, rows: Iterable[Sentence], *, batch_size: int
) -> Iterator[tuple[Sentence, Prediction]]:
    """Yield sentences with their predictions, in order; their own tags are ignored."""
    predictions = served.predict(
        "tokens",
        rows,
        lambda batch: token_request([row.tokens for row in batch]),
        batch_size=batch_size,
        length_of=lambda row: len(row.tokens),
        budget=served.settings.get("max_batch_tokens"),
    )
    for row, outputs in predictions:
        count = len(row.tokens)
        tags = [sys.intern(name.decode()) for name in outputs["tags"][:count]]
        yield row, Prediction(tags, outputs["confidence"][:count].copy())


@dataclasses.dataclass(frozen=True)
class ScoredTags(Scored):
    """The score of an export on a split, with the tags of each sentence."""

    truth: list[list[str]]
    predicted: list[list[str]]
    confidence: list[Sequence[float]] = dataclasses.field(default_factory=list)

    def confusion(self) -> tuple[list[str], list[int], list[int]]:
        """Return the types of words, `O` first, and the true and predicted type of each word."""
        every = self.truth + self.predicted
        types = [OUTSIDE, *entity_types(name for row in every for name in row)]
        index = {OUTSIDE: 0} | {
            f"{part}-{kind}": n for n, kind in enumerate(types) if n for part in "BI"
        }
        truth = [index[name] for row in self.truth for name in row]
        return types, truth, [index[name] for row in self.predicted for name in row]


def score(
    served: Served, rows: Iterable[Sentence], types: Sequence[str], *, batch_size: int = 64
) -> ScoredTags:
    """Score an export on sentences.

    Args:
      served: the export.
      rows: sentences with their true tags, read once; their tokens are not kept.
      types: the entity types that are scored; predictions of other types count as `O`.
      batch_size: sentences per request.
    """
    start = time.perf_counter()
    truth, predicted, confidence = [], [], []
    for row, prediction in tag(served, rows, batch_size=batch_size):
        truth.append([sys.intern(name) for name in row.tags])
        predicted.append([name if name[2:] in types else OUTSIDE for name in prediction.tags])
        confidence.append(prediction.confidence)
    if not truth:
        raise InputError("no examples in this split")
    seconds = time.perf_counter() - start
    return ScoredTags(len(truth), seconds, metrics(truth, predicted), truth, predicted, confidence)


def mistakes(rows: Iterable[Sentence], scored: ScoredTags) -> list[dict[str, Any]]:
    """Return the mistakes, the most confident first.

    Entities of truth and prediction that overlap are one mistake. Its confidence is the probability
    of a predicted entity that is wrong. If there is none, it is that of `O` at the missed entity,
    where it is least certain.

    Args:
      rows: the sentences that were scored.
      scored: from `score`.
    """
    every = []
    for number, (row, confidence) in enumerate(zip(rows, scored.confidence, strict=True)):
        truth, predicted = entities(scored.truth[number]), entities(scored.predicted[number])
        for spans in _overlapping({*truth, *predicted}):
            missed = [span for span in spans if span in truth and span not in predicted]
            wrong = [span for span in spans if span in predicted and span not in truth]
            if not missed and not wrong:
                continue
            values = [confidence[start] for _, start, _ in wrong]
            values = values or [min(confidence[start:end]) for _, start, end in missed]
            every.append(
                {
                    "confidence": round(float(max(values)), 4),
                    "true": [_describe(row, span) for span in spans if span in truth],
                    "predicted": [_describe(row, span) for span in spans if span in predicted],
                    "sentence": number + 1,
                    "text": " ".join(row.tokens),
                }
            )
    return sorted(every, key=lambda mistake: -mistake["confidence"])


def _describe(row: Sentence, span: Span) -> dict[str, str]:
    kind, start, end = span
    return {"type": kind, "text": " ".join(row.tokens[start:end])}


def _overlapping(spans: Iterable[Span]) -> list[list[Span]]:
    """Group spans that overlap, directly or through others.

    Example:
      >>> _overlapping([("A", 0, 2), ("B", 1, 3), ("A", 3, 4)])
      [[('A', 0, 2), ('B', 1, 3)], [('A', 3, 4)]]
    """
    groups: list[list[Span]] = []
    reached = 0
    for span in sorted(spans, key=lambda span: span[1:]):
        if groups and span[1] < reached:
            groups[-1].append(span)
        else:
            groups.append([span])
        reached = max(reached, span[2])
    return groups


def check_types(model_types: Sequence[str], types: Sequence[str], name: str) -> None:
    """Say which types of the data the model cannot predict; their entities count as missed.

    Args:
      model_types: the entity types of the model.
      types: those of the data.
      name: the name of the data, for the message.

    Raises:
      InputError: the model has none of the types.
    """
    unknown = ", ".join(sorted(set(types) - set(model_types)))
    if unknown and not set(types) & set(model_types):
        raise InputError(
            f"{name} has entities of type {unknown}; the model knows only "
            f"{', '.join(model_types)}. Score it on data whose types it knows."
        )
    if unknown:
        cli.say(
            f"the model does not know these types of {name}: {unknown}; their entities count as "
            "missed"
        )


def load_split(
    served: Served, flags: Evaluate
) -> tuple[str, str, Iterable[Sentence], tuple[str, ...]]:
    """Return the name of the data, the split, its sentences, and the entity types of the data."""
    columns = Columns(flags.token_column, flags.tag_column)
    if path := flags.new_file(served.settings):
        rows = data.open_file(path, columns, flags.data_dir)
        return path.name, "all", rows, tuple(sorted(rows.types()))
    config = served.settings["config"]
    if flags.data is None:  # the model's own data are read as in training
        columns = Columns(config["token_column"], config["tag_column"])
    corpus = data.load(flags.or_trained_on(served.settings), seed=config["seed"], columns=columns)
    split = data.sentences(corpus.splits[flags.split], corpus.labels)
    return corpus.name, flags.split, split, entity_types(corpus.labels)


def print_report(scored: ScoredTags) -> None:
    """Print precision, recall and F1 per type, and the confusion table of the types of words."""
    rows = [
        {
            "type": "all" if name == "micro avg" else name,
            **{metric: float(row[key]) for metric, key in zip(METRICS, SEQEVAL, strict=True)},
            "entities": int(row["support"]),
        }
        for name, row in by_type(scored.truth, scored.predicted).items()
    ]
    print(f"Entities, by seqeval (strict IOB2):\n\n{report.table(rows)}")
    types, truth, predicted = scored.confusion()
    counts = sklearn.metrics.confusion_matrix(truth, predicted, labels=range(len(types)))
    print(f"\nWords by the type of their entity:\n\n{report.confusion_table(counts, types)}\n")


def evaluate(flags: Evaluate) -> dict[str, Any]:
    """Score an export, print the report, and return the result of the command."""
    served = load_export(flags.model, TASK)
    name, split, rows, types = load_split(served, flags)
    model_types = entity_types(served.settings["labels"])
    check_types(model_types, types, name)
    if not set(model_types) <= set(types):
        listed = ", ".join(types) or "none"
        cli.say(f"scored on the types of {name}: {listed}; others count as no entity")
    scored = score(served, rows, types, batch_size=flags.batch_size)
    print_report(scored)
    if flags.errors:
        with open_output(flags.errors) as out:
            for mistake in mistakes(rows, scored):
                print(json.dumps(mistake, ensure_ascii=False), file=out)
    if flags.plot:
        word_types, truth, predicted = scored.confusion()
        report.confusion_matrix(truth, predicted, word_types, flags.plot)
    return cli.to_result(TASK, name, split, scored, served.path)


def main(argv: list[str]) -> None:
    """Score and print; see the module."""
    doc = cli.with_datasets(__doc__, PRESETS, cli.TRAINED_ON)
    cli.print_result(evaluate(cli.parse(Evaluate, argv, doc=doc)))


if __name__ == "__main__":
    cli.run(main)
