"""Trains a gene finder, exports it, and scores the export.

    python -m tasks.dna.train                                           # two bacteria, minutes
    python -m tasks.dna.train --dataset drosophila --manual_dir DIR --score test
    python -m tasks.dna.train --data my.gb                              # or FASTA with GFF3
    python -m tasks.dna.train --data my.gb --init saved_models/dna/1

The last line is one JSON object; `seconds` in it is the training time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from common.commands import cli
from common.commands.release import Card, release
from common.datasets import Corpus
from common.errors import InputError
from common.serving import targets
from common.serving.served import Served, load_export
from common.training.distribution import chief_first, make_strategy, worker_index
from common.training.fit import Fitted, fit, set_up, take_weights, warmed_cosine
from tasks.dna import data, evaluate, genes, model, serving
from tasks.dna.config import DEFAULT, PRESETS, Config
from tasks.dna.genes import Grammar, Record

import keras
import numpy as np
import tensorflow as tf

MONITOR = "mean_f1"
# What a fine-tuned model takes over from the published one.
ARCHITECTURE = ("spliced", "start_codons", "filters", "kernel", "convolutions")
ARCHITECTURE += ("cell", "units", "layers")


def score_batches(
    batches: Iterable[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]],
    records: Sequence[Record],
    grammar: Grammar,
) -> dict[str, float]:
    """F1 at every level over validation batches, and their mean, by which an epoch is chosen."""
    tally = evaluate.Tally()
    for batch, outputs in batches:
        rows = zip(batch["index"], batch["length"], outputs["states"], strict=True)
        for index, length, states in rows:
            record = records[index]
            tally.add(record.genes, grammar.genes(states[:length]), len(record.sequence))
    found = {f"{level}_f1": tally.of(level)["f1"] for level in evaluate.LEVELS}
    return {MONITOR: float(np.mean(list(found.values()))), **found}


def train_model(
    corpus: Corpus, config: Config, strategy: tf.distribute.Strategy
) -> tuple[keras.Model, Fitted]:
    """Builds and fits; the model holds the best epoch's weights."""
    grammar = genes.grammar(config.spliced, config.start_codons)
    rows = {split: data.records(corpus.splits[split]) for split in ("train", "validation")}
    # Long records are cut between genes, which keeps validation batches small.
    held = [piece for record in rows["validation"] for piece in data.cut(record, data.PIECE)]
    paths = data.Paths(rows["train"], grammar)
    counts = paths.counts()
    cli.say(
        f"{paths.size:,} bases, {counts['legal']} legal genes; left out of the loss: "
        f"{counts['overlapping']} that overlap longer ones, {counts['illegal']} that break the "
        "grammar"
    )
    if not counts["legal"]:
        raise InputError(
            "no legal gene in the training records: are there CDS features, and do --spliced and "
            "--start_codons fit the organism?"
        )
    best = evaluate.ceiling(held, grammar)
    shown = ", ".join(f"{level} {best[f'{level}_f1']:.4f}" for level in evaluate.LEVELS)
    cli.say(f"F1 that perfect labels would reach on the validation split: {shown}")
    with strategy.scope():
        built = model.build(config)
        if config.init is None:
            model.fill(built, paths)
        else:
            source = load_export(config.init)
            take_weights(built, keras.models.load_model(source.path / "model.keras"))
        steps = data.steps_per_epoch(paths, config) * config.epochs
        optimizer = keras.optimizers.Adam(warmed_cosine(config.learning_rate, steps=steps))
    fitted = fit(
        built,
        optimizer=optimizer,
        losses=model.make_losses(built, config),
        train=lambda epoch: data.train_batches(paths, config, epoch),
        validation=data.validation_batches(data.Paths(held, grammar), 4),
        score=lambda batches: score_batches(batches, held, grammar),
        monitor=MONITOR,
        mode="max",
        directory=config.run_folder(evaluate.TASK, worker_index(strategy)),
        strategy=strategy,
        **config.fit_arguments(),
    )
    return built, fitted


def main(argv: list[str]) -> None:
    """Data, model, fit, export, score; see the module."""
    config = cli.parse_train(Config, PRESETS, default=DEFAULT, argv=argv, doc=__doc__)
    strategy = make_strategy(config.strategy)
    config = config.with_published(ARCHITECTURE)
    target = targets.choose(config.target, evaluate.TASK, no_litert=serving.NO_LITERT)
    set_up(seed=config.seed, deterministic=config.deterministic, precision=config.precision)
    with chief_first(strategy):
        corpus = data.load(config, seed=config.seed)
    built, fitted = train_model(corpus, config, strategy)
    grammar = genes.grammar(config.spliced, config.start_codons)

    def score(served: Served, plots: Path) -> tuple[int, dict[str, float]]:
        records = data.records(corpus.splits[config.score])
        scored = evaluate.score(served, records)
        evaluate.print_report(scored, evaluate.ceiling(records, grammar))
        evaluate.draw_confusion(scored.confusion, plots / "confusion_matrix.png")
        return scored.count, scored.tally.metrics()

    release(
        task=evaluate.TASK,
        config=config,
        strategy=strategy,
        corpus=corpus,
        fitted=fitted,
        signatures=serving.signatures(built, config, target),
        model=built,
        resources=[],
        examples=serving.examples(config),
        settings={
            "labels": list(genes.LABELS),
            "states": grammar.names,
            "channels": grammar.channels,
            "max_bases": config.max_length,
        },
        score=score,
        card=make_card(corpus, config),
        target=target,
    )


def make_card(corpus: Corpus, config: Config) -> Card:
    """The model card's own words."""
    grammar = genes.grammar(config.spliced, config.start_codons)
    kind = "genes with introns" if config.spliced else "genes without introns"
    return Card(
        title=f"DNA: {corpus.name}",
        summary=(
            f"Reads a DNA sequence and labels each base: intergenic, coding or intron, on either "
            f"strand; finds {kind}. {config.convolutions} convolutions over bases, "
            f"{config.layers} bidirectional {config.cell} layers of {config.units} units each way "
            f"over steps of nine, and a CRF of {grammar.states} states, whose every path is a row "
            "of legal genes."
        ),
        scores=(
            "Raw sequences went in. Figures are fractions, without the stop codon; see the "
            "task's README.\n\n"
            "![bases by true and predicted label](assets.extra/confusion_matrix.png)"
        ),
        usage=(
            "Signature `serving_default`: `sequence` [batch] string -> `labels` [batch] string, a "
            "letter of `.CcIi` for each base, `probabilities` [batch, bases, 5] float32.\n\n"
            '```\ncurl -d \'{"inputs": {"sequence": ["AGCCCCTGTGAGGAACTAG"]}}\' \\\n'
            "  http://localhost:8501/v1/models/dna:predict\n```\n\n"
            f"A sequence that is empty, longer than {config.max_length:,} bases or holds a letter "
            'that is not IUPAC gets labels "" and probabilities 0. `predict` takes any length.'
        ),
        data=f"Start codons: {', '.join(config.start_codons)}.",
    )


if __name__ == "__main__":
    cli.run(main)
