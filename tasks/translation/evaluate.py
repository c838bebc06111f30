"""Score an exported translation model.

    python -m tasks.translation.evaluate                                # its own data, test split
    python -m tasks.translation.evaluate --model saved_models/translation/1 --data my.tsv
    python -m tasks.translation.evaluate --dataset multi30k --manual_dir DIR --split validation

The last line is one JSON object: `bleu`, `bleu_lowercase` and `chrf`, from 0 to 100. They are
computed by sacrebleu, whose signatures are printed above. Each distinct source is translated once
and compared with all its references.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence
from typing import Any, Literal

from common.commands import cli
from common.commands.cli import Scored
from common.commands.config import EvaluateConfig
from common.errors import InputError, require
from common.serving.served import Served, load_export, text_request
from tasks.translation.config import PRESETS, TASK

import numpy as np
from etils import epy

with epy.lazy_imports():
    from tasks.translation import data

    import tensorflow as tf

PRINTED = 10  # translations in the report
_HAN = r"\u3400-\u9fff\U00020000-\U0003ffff"
_KANA = r"\u3041-\u30ff\uff66-\uff9d"
# Thai and Lao, Tibetan, Burmese and Khmer: blanks do not separate words.
_UNSPACED = r"\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff"
# Words of Korean, which blanks separate, are whole phrases.
_HANGUL = r"\uac00-\ud7a3"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig):
    """Flags of `evaluate`."""

    # One split more than other tasks have.
    split: Literal["train", "validation", "test", "test_2017"] = "test"  # type: ignore[assignment]
    """split to score (test_2017: of multi30k); a single file given by --data is scored whole"""
    source_column: str | None = None
    """column of the source in a table given by --data: a name in its header, or a number from 1"""
    target_column: str | None = None
    """column of the target"""


def choose_tokenizer(references: Sequence[Sequence[str]]) -> str:
    """Choose sacrebleu's tokenizer by the script of the references.

    It is `13a`, but `zh` for Chinese, and `char` for Japanese, Korean, and the languages that do
    not separate words by blanks. sacrebleu's `ja-mecab` and `ko-mecab` need dictionaries, and a
    score must not depend on what is installed.

    Example:
      >>> [choose_tokenizer([[text]]) for text in ("A cat.", "猫がいます。", "有一只猫。", "แมว")]
      ['13a', 'char', 'zh', 'char']
    """
    text = "".join(reference for row in references for reference in row)
    han, kana, unspaced, hangul, letters = (
        len(re.findall(pattern, text))
        for pattern in (*(f"[{part}]" for part in (_HAN, _KANA, _UNSPACED, _HANGUL)), r"[^\W\d_]")
    )
    # Vowel signs, which Python does not count as letters, are part of these scripts.
    if 2 * (han + kana + unspaced + hangul) <= max(letters, 1):
        return "13a"
    return "zh" if 2 * han > han + kana + unspaced + hangul and 20 * kana < han else "char"


def metrics(
    translations: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[str, float], list[str]]:
    """Compare translations with their references.

    Args:
      translations: one per source.
      references: one or more per source.

    Returns:
      `bleu` (cased, tokens by `choose_tokenizer`), `bleu_lowercase` and `chrf`, from 0 to 100, and
      the signature of each by sacrebleu.

    Raises:
      InputError: sacrebleu is not installed.

    Example:
      >>> scores, _ = metrics(["The cat sat on the mat."], [["The cat sat on the mat.", "A cat."]])
      >>> round(scores["bleu"], 6)
      100.0
    """
    sacrebleu = require("sacrebleu.metrics", "translation")
    most = max(map(len, references))
    # Column k holds the k-th reference of each source; sacrebleu accepts None for missing ones.
    columns = [[row[k] if k < len(row) else None for row in references] for k in range(most)]
    tokenizer = choose_tokenizer(references)
    scorers = {
        "bleu": sacrebleu.BLEU(tokenize=tokenizer),
        "bleu_lowercase": sacrebleu.BLEU(tokenize=tokenizer, lowercase=True),
        "chrf": sacrebleu.CHRF(),
    }
    scores = {
        name: scorer.corpus_score(list(translations), columns).score
        for name, scorer in scorers.items()
    }
    return scores, [f"{name}: {scorer.get_signature()}" for name, scorer in scorers.items()]


def references_by_source(pairs: tf.data.Dataset) -> dict[str, list[str]]:
    """Return each distinct source with its distinct targets, in the order of the data.

    Args:
      pairs: elements `{source: <string>[], target: <string>[]}`.

    Example:
      >>> pairs = data.as_dataset([("Oui.", "Yes."), ("Non.", "No."), ("Oui.", "Yeah.")])
      >>> references_by_source(pairs)
      {'Oui.': ['Yes.', 'Yeah.'], 'Non.': ['No.']}
    """
    references: dict[str, list[str]] = {}
    for pair in pairs.as_numpy_iterator():
        targets = references.setdefault(pair["source"].decode(), [])
        if (target := pair["target"].decode()) not in targets:
            targets.append(target)
    return references


@dataclasses.dataclass(frozen=True)
class ScoredTranslations(Scored):
    """The score of an export on a split, with the translation of each source.

    Attributes:
      sources: the distinct sources.
      translations: the translation of each.
      references: all references of each.
      signatures: sacrebleu's signatures of the metrics.
    """

    sources: list[str]
    translations: list[str]
    references: list[list[str]]
    signatures: list[str]


def score(served: Served, pairs: tf.data.Dataset, *, batch_size: int = 64) -> ScoredTranslations:
    """Score an export on sentence pairs, from raw text to raw text.

    Args:
      served: the export.
      pairs: elements `{source: <string>[], target: <string>[]}`.
      batch_size: sentences per request.
    """
    start = time.perf_counter()
    by_source = references_by_source(pairs)
    if not by_source:
        raise InputError("no sentence pairs in this split")
    sources, references = list(by_source), list(by_source.values())
    predictions = served.predict("serving_default", sources, text_request, batch_size=batch_size)
    translations = [bytes(outputs["translation"]).decode() for _, outputs in predictions]
    seconds = time.perf_counter() - start
    scores, signatures = metrics(translations, references)
    return ScoredTranslations(
        len(sources), seconds, scores, sources, translations, references, signatures
    )


def load_split(served: Served, flags: Evaluate) -> tuple[str, str, tf.data.Dataset]:
    """Return the name of the data, the split, and its sentence pairs."""
    source, target = served.settings["languages"]
    if path := flags.new_file(served.settings):
        columns = (flags.source_column, flags.target_column)
        return path.name, "all", data.as_dataset(data.read_file(path, (source, target), columns))
    config = served.settings["config"]
    columns = (
        flags.source_column or config.get("source_column"),
        flags.target_column or config.get("target_column"),
    )
    corpus = data.load(
        flags.or_trained_on(served.settings),
        languages=(source, target),
        seed=config["seed"],
        columns=columns,
    )
    if flags.split not in corpus.splits:
        raise InputError(f"{corpus.name} has no split {flags.split!r}")
    return corpus.name, flags.split, corpus.splits[flags.split]


def print_report(scored: ScoredTranslations) -> None:
    """Print some translations with their references, and the signatures of the metrics."""
    for place in np.linspace(0, len(scored.sources) - 1, min(PRINTED, len(scored.sources))):
        row = int(place)
        print(f"{scored.sources[row]}\n  -> {scored.translations[row]}")
        print(f"  == {' / '.join(scored.references[row])}")
    print("\n".join(scored.signatures))


def evaluate(flags: Evaluate) -> dict[str, Any]:
    """Score an export, print the report, and return the result of the command."""
    served = load_export(flags.model, TASK)
    name, split, pairs = load_split(served, flags)
    scored = score(served, pairs, batch_size=flags.batch_size)
    print_report(scored)
    return cli.to_result(TASK, name, split, scored, served.path)


def main(argv: list[str]) -> None:
    """Score and print; see the module."""
    doc = cli.with_datasets(__doc__, PRESETS, cli.TRAINED_ON)
    cli.print_result(evaluate(cli.parse(Evaluate, argv, doc=doc)))


if __name__ == "__main__":
    cli.run(main)
