"""Training of the gene finder without introns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from common.commands import cli
from common.commands.run import Run, warm_start
from common.data import epoch_seed
from common.datasets import Corpus
from common.errors import InputError
from common.training.fit import Fitted, Validated, fit
from tasks.dna import data, frame_data, frame_model, gene_tables
from tasks.dna.config import MODE, MONITOR, Config
from tasks.dna.frame_data import Organisms, Windows
from tasks.dna.frame_model import WINDOW
from tasks.dna.gene_tables import Tables
from tasks.dna.genes import Record

import keras
import numpy as np
import tensorflow as tf

SHORT = 32  # candidates of a short window


def train_model(corpus: Corpus, run: Run[Config]) -> tuple[keras.Model, Fitted]:
    """Build and fit a model; it holds the weights of the best epoch."""
    config = run.config
    training, validation = (data.records(corpus.splits[name]) for name in ("train", "validation"))
    organisms = frame_data.by_organism(training)
    _check_genes(training)
    counted = count_organisms(organisms, config)
    with run.strategy.scope():
        if run.published is None:
            built = frame_model.build(config, len(organisms))
            built.get_layer("organisms").fill(*counted)
        else:
            layer = run.published.model.get_layer("organisms")
            built = frame_model.build(config, layer.count)
            warm_start(built, run.published)
            counted = Organisms(layer.contents.numpy(), Tables(*layer.tables))
    is_own = run.published is None
    windows = frame_data.concatenated(
        [
            part
            for number, records in enumerate(organisms.values())
            for part in read_organism(records, _others(counted, number, is_own), config)
        ]
    )
    held_out = frame_data.concatenated(
        [
            part
            for records in frame_data.by_organism(validation).values()
            for part in read_organism(records, counted, config)
        ]
    )
    count = int((windows.gene == 1).sum())
    cli.say(f"{len(windows.length):,} windows of candidates, with {count:,} genes")
    steps = int(batches(windows, config, 1).cardinality()) * config.epochs
    with run.strategy.scope():
        optimizer = run.make_adam(steps)
    fitted = fit(
        built,
        optimizer=optimizer,
        losses=frame_model.losses,
        train=lambda epoch: batches(windows, config, epoch),
        validation=validation_batches(held_out, 4 * config.batch_size),
        score=score_batches,
        monitor=MONITOR,
        mode=MODE,
        options=run.fit_options(steps, corpus),
    )
    return built, fitted


def _check_genes(records: Sequence[Record]) -> None:
    valid = sum(
        len(gene.exons) == 1 and not gene.pseudo for record in records for gene in record.genes
    )
    cli.say(f"{sum(len(record.sequence) for record in records):,} bases, {valid:,} valid genes")
    if not valid:
        raise InputError(
            "no valid gene in the training records: are there CDS features, and do --spliced and "
            "--start_codons fit the organism?"
        )


def count_organisms(organisms: Mapping[str, Sequence[Record]], config: Config) -> Organisms:
    """Return the organisms, which are in ascending order of their fractions of G and C."""
    contents = [frame_data.gc_content(records) for records in organisms.values()]
    tables = [frame_data.known_tables(records, config) for records in organisms.values()]
    return Organisms(np.array(contents, np.float32), frame_data.stacked(tables))


def _others(counted: Organisms, number: int, is_own: bool) -> Organisms:
    """Return all organisms but one, if it is among them and there are others."""
    if not is_own or len(counted.contents) < 2:
        return counted
    kept = [place for place in range(len(counted.contents)) if place != number]
    tables = Tables(*(tf.gather(table, kept) for table in counted.tables))
    return Organisms(counted.contents[kept], tables)


def read_organism(
    records: Sequence[Record], others: Organisms, config: Config
) -> Iterator[Windows]:
    """Yield the windows of an organism, in the three ways of `frame_data`.

    Args:
      records: of the organism.
      others: the other organisms.
      config: the settings.
    """
    adapted = adapt(records, others, config)
    for batch in frame_data.batched(frame_data.pieces(records)):
        yield frame_data.read(batch, adapted, others, config)
    for seed, tables in ((1, adapted), (2, None)):
        for batch in frame_data.batched(frame_data.contigs(records, seed)):
            yield frame_data.read(batch, tables, others, config)


def adapt(records: Sequence[Record], others: Organisms, config: Config) -> Tables:
    """Return the tables of an organism, counted without its annotation, as in `predict`."""
    bases, _ = frame_data.joined(list(frame_data.pieces(records)), frame_data.MOST)
    length = np.array([len(bases)], np.int32)
    content = gene_tables.gc_content(bases[None], length)
    similar = gene_tables.interpolate(content, others.contents, others.tables)
    stops = frame_data.is_stop(config.genetic_code)[None]

    @tf.function(autograph=False)
    def run() -> Tables:
        return gene_tables.adapt(
            tf.constant(bases[None]), length, similar, config.start_codons, stops
        )

    return run()


def validation_batches(windows: Windows, batch_size: int) -> tf.data.Dataset:
    """Return all windows in batches, in order."""
    rows = tf.data.Dataset.from_tensor_slices(windows._asdict())
    return rows.batch(batch_size).map(frame_data.widen)


def batches(windows: Windows, config: Config, epoch: int) -> tf.data.Dataset:
    """Return the batches of an epoch, in random order.

    Most contigs have few candidates. Their windows are shortened to `SHORT` candidates, and a batch
    has as many candidates of them as of others.
    """
    random = np.random.default_rng(epoch_seed(config.seed, epoch))
    order = random.permutation(len(windows.length))[: config.windows or None]
    is_short = windows.length[order] <= SHORT
    groups = [(part, WINDOW) for part in _cut(order[~is_short], config.batch_size)]
    several = config.batch_size * (WINDOW // SHORT)
    groups += [(part, SHORT) for part in _cut(order[is_short], several)]
    random.shuffle(groups)

    def rows() -> Iterator[dict[str, np.ndarray]]:
        for part, size in groups:
            chosen = {name: values[part] for name, values in windows._asdict().items()}
            yield {name: v[:, :size] if v.ndim > 1 else v for name, v in chosen.items()}

    signature = {
        name: tf.TensorSpec([None, *([None] * (v.ndim > 1)), *v.shape[2:]], v.dtype)
        for name, v in windows._asdict().items()
    }
    batches = tf.data.Dataset.from_generator(rows, output_signature=signature)
    batches = batches.apply(tf.data.experimental.assert_cardinality(len(groups)))
    return batches.map(frame_data.widen).prefetch(2)


def _cut(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut indices into parts of equal size; drop a shorter rest unless it is the only part."""
    if len(order) <= size:
        return [order] if len(order) else []
    return [order[at : at + size] for at in range(0, len(order) - size + 1, size)]


def score_batches(validated: Validated) -> dict[str, float]:
    """Return the F1 of stop codons and of whole genes among the candidates, and their mean."""
    exact = found = predicted = true = 0
    for batch, outputs in validated:
        known = batch["gene"] >= 0
        is_gene, positive = batch["gene"] == 1, outputs["gene"] > 0
        hits = is_gene & positive
        exact += int((hits & (outputs["start"].argmax(axis=-1) == batch["start"])).sum())
        found += int(hits.sum())
        predicted += int((positive & known).sum())
        true += int(is_gene.sum())
    scores = {
        f"{level}_f1": 2 * correct / max(1, predicted + true)
        for level, correct in (("gene", exact), ("stop", found))
    }
    return {MONITOR: float(np.mean(list(scores.values()))), **scores}
