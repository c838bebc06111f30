"""Train a gene finder, export it, and score the export.

    python -m tasks.dna.train                                           # two bacteria, minutes
    python -m tasks.dna.train --dataset drosophila --manual_dir DIR --score test
    python -m tasks.dna.train --data my.gb                              # or FASTA with GFF3
    python -m tasks.dna.train --data my.gb --init saved_models/dna/1

The last line is one JSON object; `seconds` in it is the training time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.commands import cli
from common.commands.release import Card, describe_layers, release
from common.commands.run import Run, start_run, warm_start
from common.datasets import Corpus
from common.errors import InputError
from common.serving.rows import MOST_ROWS
from common.serving.served import Served
from common.serving.targets import Signatures, Target
from common.training.fit import Fitted, Validated, fit
from tasks.dna import evaluate
from tasks.dna.config import DEFAULT, MODE, MONITOR, NO_LITERT, PRESETS, TASK, Config
from tasks.dna.genes import LABELS, Record, cut

import numpy as np
from etils import epy

with epy.lazy_imports():
    from tasks.dna import data, frame_serving, frame_training, gene_tables, model, paths, serving
    from tasks.dna import grammar as grammars

    import keras

# Settings that `--init` copies from the published model.
ARCHITECTURE = (
    "spliced",
    "start_codons",
    "genetic_code",
    "filters",
    "kernel",
    "convolutions",
    "cell",
    "units",
    "layers",
)


def score_batches(
    batches: Validated, records: Sequence[Record], grammar: grammars.Grammar
) -> dict[str, float]:
    """Return F1 at every level on validation batches, and their mean, which selects the epoch."""
    tally = evaluate.Tally()
    for batch, outputs in batches:
        rows = zip(batch["index"], batch["length"], outputs["states"], strict=True)
        for index, length, states in rows:
            record = records[index]
            tally.add(record.genes, paths.genes_of(grammar, states[:length]), len(record.sequence))
    scores = {f"{level}_f1": tally.of(level)["f1"] for level in evaluate.LEVELS}
    return {MONITOR: float(np.mean(list(scores.values()))), **scores}


def encode_training_records(corpus: Corpus, grammar: grammars.Grammar) -> paths.EncodedRecords:
    """Return the training records with their paths, and print how many genes the grammar covers.

    Raises:
      InputError: it covers none.
    """
    encoded = paths.EncodedRecords(data.records(corpus.splits["train"]), grammar)
    counts = encoded.counts()
    cli.say(
        f"{encoded.size:,} bases, {counts['valid']} valid genes; excluded from the loss: "
        f"{counts['overlapping']} that overlap longer ones, {counts['invalid']} that break the "
        "grammar"
    )
    if not counts["valid"]:
        raise InputError(
            "no valid gene in the training records: are there CDS features, and do --spliced and "
            "--start_codons fit the organism?"
        )
    return encoded


def train_model(corpus: Corpus, run: Run[Config]) -> tuple[keras.Model, Fitted]:
    """Build and fit a model; it holds the weights of the best epoch."""
    config = run.config
    grammar = grammars.make_grammar(config.start_codons)
    # Long records are cut between genes, which keeps validation batches small.
    validation = [
        piece
        for record in data.records(corpus.splits["validation"])
        for piece in cut(record, data.PIECE)
    ]
    encoded = encode_training_records(corpus, grammar)
    if best := evaluate.ceiling(validation, dataclasses.asdict(config)):
        cli.say(f"F1 of perfect labels on the validation split: {evaluate.describe_f1(best)}")
    steps = data.steps_per_epoch(encoded, config) * config.epochs
    with run.strategy.scope():
        built = model.build(config)
        if run.published is None:
            model.fill(built, encoded)
        else:
            warm_start(built, run.published)
        optimizer = run.make_adam(steps)
    fitted = fit(
        built,
        optimizer=optimizer,
        losses=model.make_losses(built, config),
        train=lambda epoch: data.train_batches(encoded, config, epoch),
        validation=data.validation_batches(paths.EncodedRecords(validation, grammar), 4),
        score=lambda batches: score_batches(batches, validation, grammar),
        monitor=MONITOR,
        mode=MODE,
        options=run.fit_options(steps, corpus),
    )
    return built, fitted


def read_settings(argv: list[str]) -> Config:
    """Return the settings of a run."""
    return cli.parse_train(Config, PRESETS, default=DEFAULT, argv=argv, doc=__doc__)


def main(argv: list[str]) -> None:
    """Train as the flags say; see the module."""
    train(read_settings(argv))


def train(config: Config) -> Path | None:
    """Train a model, publish it, and score its export, as the command does.

    Args:
      config: the settings; those of a data set are `PRESETS[name]`.

    Returns:
      The version folder; None on workers that are not the chief.
    """
    run = start_run(TASK, config, architecture=ARCHITECTURE, no_litert=NO_LITERT)
    config = run.config
    with run.chief_first():
        corpus = data.load(config, seed=config.seed)
    train_one = train_model if config.spliced else frame_training.train_model
    built, fitted = train_one(corpus, run)

    def score(served: Served, plots: Path) -> cli.Scored:
        records = data.records(corpus.splits[config.score])
        scored = evaluate.score(served, records)
        evaluate.print_report(scored, evaluate.ceiling(records, dataclasses.asdict(config)))
        evaluate.draw_confusion(scored.confusion, plots / "confusion_matrix.png")
        return scored

    return release(
        run,
        corpus=corpus,
        fitted=fitted,
        signatures=signatures_of(built, config, run.target),
        model=built,
        resources=[],
        examples=(serving if config.spliced else frame_serving).examples(config),
        settings={
            "labels": list(LABELS),
            "max_bases": config.max_length,
            "max_rows": MOST_ROWS,
            **settings_of(config),
        },
        score=score,
        card=make_card(corpus, config),
    )


def signatures_of(built: keras.Model, config: Config, target: Target) -> Signatures:
    """Return the signatures of a model with introns, or without."""
    module = serving if config.spliced else frame_serving
    return module.signatures(built, config, target)


def settings_of(config: Config) -> dict[str, Any]:
    """Return what a client must know of the outputs."""
    if not config.spliced:
        return {
            "states": frame_serving.STATES,
            "channels": frame_serving.SIGNALS,
            "motifs": gene_tables.binding_names(),
            "max_batch_bases": frame_serving.MOST,
        }
    grammar = grammars.make_grammar(config.start_codons)
    return {
        "states": grammar.names,
        "channels": grammar.channels,
        "max_batch_bases": serving.MOST,
    }


def make_card(corpus: Corpus, config: Config) -> Card:
    """Return the task's texts for the model card."""
    layers = describe_layers(config.layers, config.cell, config.units)
    if config.spliced:
        states = grammars.make_grammar(config.start_codons).states
        kind, most = "genes with introns", serving.MOST
        limits = (
            f"DNA of the organism of `{corpus.name}`, whose start codons, codon usage and splice "
            "sites it knows. Only coding exons: untranslated exons are intergenic or intron."
        )
        network = (
            f"{config.convolutions} convolutions over bases, {layers} over steps of nine bases, "
            f"and a CRF of {states} states, whose paths are sequences of valid genes."
        )
    else:
        kind, most = "genes without introns", frame_serving.MOST
        limits = (
            "DNA of bacteria and archaea; it learns the habits of an organism from 20,000 bases "
            "and more of it. Genes of fewer than 90 bases (60 at the edge of a record), genes "
            "inside others, frame shifts and selenocysteine are not found."
        )
        network = (
            "Counted tables score open reading frames and their starts; signature `adapt` counts "
            f"those of another organism in its genome, without annotation. {layers} over open "
            "reading frames weigh them, and a dynamic program arranges the genes."
        )
    return Card(
        title=f"DNA: {corpus.name}",
        summary=(
            f"Reads a DNA sequence and labels each base: intergenic, coding or intron, on either "
            f"strand; finds {kind}. {network}"
        ),
        scores=(
            "Raw sequences were sent. Scores are fractions, without the stop codon; see the "
            "task's README.\n\n"
            "![bases by true and predicted label](assets.extra/confusion_matrix.png)"
        ),
        usage=(
            "Signature `serving_default`: `sequence` [batch] string -> `labels` [batch] string, a "
            "letter of `.CcIi` for each base, `probabilities` [batch, bases, 5] float32.\n\n"
            '```\ncurl -d \'{"inputs": {"sequence": ["AGCCCCTGTGAGGAACTAG"]}}\' \\\n'
            "  http://localhost:8501/v1/models/dna:predict\n```\n\n"
            f"A sequence that is empty, longer than {config.max_length:,} bases or holds a letter "
            'that is not IUPAC gets labels "" and probabilities 0. So do the longest rows of a '
            f"request whose rows, times the longest of them, are more than {most:,} bases. "
            "`predict` accepts any length."
        ),
        limits=limits,
        data=f"Start codons: {', '.join(config.start_codons)}.",
    )


if __name__ == "__main__":
    cli.run(main)
