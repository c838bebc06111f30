"""Trains a translator, exports it, and scores the export.

    python -m tasks.translation.train                                   # default data, minutes
    python -m tasks.translation.train --dataset tatoeba --manual_dir DIR --score test
    python -m tasks.translation.train --data my.tsv                     # source TAB target
    python -m tasks.translation.train --data corpus.fr                  # and corpus.en beside it
    python -m tasks.translation.train --data my.tsv --init saved_models/translation/1

The last line is one JSON object; `seconds` in it is the training time.
"""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.commands import cli
from common.commands.release import Card, release
from common.data import bucket_lengths, epoch_seed, map_in_order
from common.datasets import Corpus
from common.errors import require
from common.serving import targets
from common.serving.served import Served, load_export
from common.training.distribution import chief_first, make_strategy, worker_index
from common.training.fit import Fitted, Score, fit, set_up, take_weights, warmed_cosine
from tasks.translation import data, evaluate, model, predict, serving
from tasks.translation.config import DEFAULT, PRESETS, Config
from tasks.translation.subwords import Subwords, learn

import keras
import tensorflow as tf

# What a fine-tuned model takes over from the published one.
ARCHITECTURE = (
    "source",
    "target_language",
    "max_length",
    "shared_subwords",
    "embedding",
    "cell",
    "units",
    "encoder_layers",
    "decoder_layers",
    "attention",
    "input_feeding",
)
VALIDATED = 1000  # sources whose translations are measured after each epoch
SOURCE, TARGET = "source_subwords.txt", "target_subwords.txt"


def new_subwords(corpus: Corpus, config: Config, folder: Path) -> tuple[Subwords, Subwords]:
    """Learns the subwords of both languages from the training part; the same ones if shared."""
    texts = {
        side: list(
            corpus.splits["train"].map(lambda pair, side=side: pair[side]).as_numpy_iterator()
        )
        for side in ("source", "target")
    }
    if config.shared_subwords:
        learn(texts["source"] + texts["target"], folder / TARGET, size=config.target_subwords)
        shared = Subwords(folder / TARGET)
        return shared, shared
    learn(texts["source"], folder / SOURCE, size=config.source_subwords)
    learn(texts["target"], folder / TARGET, size=config.target_subwords)
    return Subwords(folder / SOURCE), Subwords(folder / TARGET)


def published_subwords(config: Config, folder: Path) -> tuple[Subwords, Subwords]:
    """Takes over the subwords of the published model."""
    assets = load_export(config.init).path / "assets"
    names = (TARGET, TARGET) if config.shared_subwords else (SOURCE, TARGET)
    found = [Subwords(shutil.copy(assets / name, folder / name)) for name in names]
    return (found[1], found[1]) if config.shared_subwords else (found[0], found[1])


def make_score(
    built: keras.Model, reader: Subwords, writer: Subwords, pairs: tf.data.Dataset, config: Config
) -> Score:
    """Makes the validation score: BLEU of greedy translations of the first sources."""
    found = dict(itertools.islice(evaluate.with_references(pairs).items(), VALIDATED))

    @tf.function(reduce_retracing=True)
    def write(text: tf.Tensor) -> tf.Tensor:
        ids, length = data.encode_source(reader, text, max_length=config.max_length)
        best = model.translate(built, ids, length, max_length=config.max_length)
        return writer.decode(best.tokens[:, 0], best.length[:, 0])

    def ask(texts: list[str]) -> list[str]:
        return [text.decode() for text in write(tf.constant(texts)).numpy()]

    def score(batches: Iterable[Any]) -> dict[str, float]:
        for _ in batches:  # of them `fit` takes the loss
            pass
        translations = list(map_in_order(ask, found, batch_size=128, length_of=len))
        return {"bleu": evaluate.metrics(translations, list(found.values()))[0]["bleu"]}

    return score


def train_model(
    corpus: Corpus, config: Config, folder: Path, strategy: tf.distribute.Strategy
) -> tuple[keras.Model, Subwords, Subwords, Fitted]:
    """Builds and fits; the model holds the best epoch's weights."""
    if config.init is None:
        reader, writer = new_subwords(corpus, config, folder)
    else:
        reader, writer = published_subwords(config, folder)

    def cut(split: str, *, dropout: float = 0.0, seed: int = 0) -> data.Encoded:
        return data.encode(
            corpus.splits[split],
            reader,
            writer,
            max_length=config.max_length,
            subword_dropout=dropout,
            seed=seed,
        )

    whole = cut("train")

    def train_batches(epoch: int) -> tf.data.Dataset:
        seed = epoch_seed(config.seed, epoch)
        dropout = config.subword_dropout
        pairs = cut("train", dropout=dropout, seed=seed) if dropout else whole
        return data.to_batches(pairs, batch_size=config.batch_size, shuffle_seed=seed)

    with strategy.scope():
        built = model.build(config, source_size=len(reader), target_size=len(writer))
        if config.init is not None:
            path = load_export(config.init).path / "model.keras"
            take_weights(built, keras.models.load_model(path))
        steps = math.ceil(whole.source.nrows() / config.batch_size)
        schedule = warmed_cosine(config.learning_rate, steps=steps * config.epochs)
        optimizer = keras.optimizers.Adam(schedule, beta_2=0.98)
    fitted = fit(
        built,
        optimizer=optimizer,
        losses=model.make_losses(built, label_smoothing=config.label_smoothing),
        train=train_batches,
        validation=data.to_batches(cut("validation"), batch_size=config.batch_size),
        score=make_score(built, reader, writer, corpus.splits["validation"], config),
        monitor="bleu",
        mode="max",
        directory=folder,
        strategy=strategy,
        **config.fit_arguments(),
    )
    return built, reader, writer, fitted


def main(argv: list[str]) -> None:
    """Data, model, fit, export, score; see the module."""
    config = cli.parse_train(Config, PRESETS, default=DEFAULT, argv=argv, doc=__doc__)
    require("sacrebleu", "translation")  # now, not after the first epoch
    strategy = make_strategy(config.strategy)
    config = config.with_published(ARCHITECTURE)
    target = targets.choose(
        config.target,
        evaluate.TASK,
        bucket_lengths(config.max_length + 1),
        no_litert=serving.NO_LITERT,
    )
    set_up(seed=config.seed, deterministic=config.deterministic, precision=config.precision)
    languages = (config.source, config.target_language)
    with chief_first(strategy):
        corpus = data.load(config, languages=languages, seed=config.seed)
    folder = config.run_folder(evaluate.TASK, worker_index(strategy))
    built, reader, writer, fitted = train_model(corpus, config, folder, strategy)

    def score(served: Served, plots: Path) -> tuple[int, dict[str, float]]:
        scored = evaluate.score(served, corpus.splits[config.score])
        evaluate.print_report(scored)
        predict.draw(served, max(scored.sources[:50], key=len), plots / "attention.png")
        return len(scored.sources), scored.metrics

    release(
        task=evaluate.TASK,
        config=config,
        strategy=strategy,
        corpus=corpus,
        fitted=fitted,
        signatures=serving.signatures(
            built,
            reader,
            writer,
            max_length=config.max_length,
            beam=config.beam,
            alpha=config.length_penalty,
            target=target,
        ),
        model=built,
        resources=[writer] if reader is writer else [reader, writer],
        examples=serving.examples(config.max_length),
        settings={"languages": languages, "max_subwords": config.max_length},
        score=score,
        card=make_card(corpus, config),
        target=target,
    )


def make_card(corpus: Corpus, config: Config) -> Card:
    """The model card's own words."""
    feeding = ", input feeding" if config.input_feeding else ""
    return Card(
        title=f"Translation: {corpus.name}, {config.source} to {config.target_language}",
        summary=(
            f"Reads a sentence in {config.source!r} and writes it in {config.target_language!r}. "
            f"Subwords; an encoder of {config.encoder_layers} bidirectional {config.cell} "
            f"layer(s) and a decoder of {config.decoder_layers} layer(s) of {config.units} units "
            f"with {config.attention} attention{feeding}; beam search with {config.beam} "
            "hypotheses."
        ),
        scores=(
            "Raw texts went in; each distinct one was translated once and compared with all its "
            "references by sacrebleu.\n\n![attention](assets.extra/attention.png)"
        ),
        usage=(
            "Signature `serving_default`: `text` [batch] string -> `translation` [batch] string, "
            "`score` [batch] float32, the length-normalised log-probability.\n\n"
            '```\ncurl -d \'{"inputs": {"text": ["Où est la gare ?"]}}\' \\\n'
            "  http://localhost:8501/v1/models/translation:predict\n```\n\n"
            f"Texts are cut at {config.max_length} subwords, translations at as many. A text of "
            'blanks gets translation "" and score 0.'
        ),
    )


if __name__ == "__main__":
    cli.run(main)
