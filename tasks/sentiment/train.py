"""Trains a sentiment classifier, exports it, and scores the export.

    python -m tasks.sentiment.train                                     # default data, minutes
    python -m tasks.sentiment.train --dataset sst5 --manual_dir DIR --score test
    python -m tasks.sentiment.train --data my.csv                       # columns text,label
    python -m tasks.sentiment.train --data my.csv --init saved_models/sentiment/1

The last line is one JSON object; `seconds` in it is the training time.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from common.commands import cli, report
from common.commands.release import Card, release
from common.data import epoch_seed
from common.datasets import Corpus
from common.serving import targets
from common.serving.served import Served, load_export
from common.text import Vocabulary, count_words
from common.training.distribution import chief_first, make_strategy, worker_index
from common.training.fit import Fitted, fit, set_up, take_weights, warmed_cosine
from common.word_embedding import PACKAGED_VECTORS, WordEmbedding, new_embedding
from tasks.sentiment import data, evaluate, litert, model, serving
from tasks.sentiment.config import DEFAULT, PRESETS, Config

import keras
import numpy as np
import tensorflow as tf

# What a fine-tuned model takes over from the published one.
ARCHITECTURE = ("max_length", "cell", "units", "layers", "pooling", "members")


def new_model(reviews: Corpus, config: Config, folder: Path) -> tuple[keras.Model, Vocabulary]:
    """Builds a model from nothing but the training data and pretrained vectors."""
    counts = count_words(reviews.splits["train"].map(lambda review: review["text"]))
    embedding, vocabulary = new_embedding(
        counts,
        folder / "vocabulary.txt",
        vectors=config.vectors,
        frequent_words=config.frequent_words,
        dimension=config.dimension,
        rare=config.rare_word_dropout,
        subwords=config.subwords,
        seed=config.seed,
        word_dropout=config.word_dropout,
        subword_dropout=config.subword_dropout,
        members=config.members,
    )
    return model.build(config, embedding, classes=len(reviews.labels)), vocabulary


def published_model(
    reviews: Corpus, config: Config, folder: Path
) -> tuple[keras.Model, Vocabulary]:
    """Builds on a published model: its vocabulary, its weights, and its head if classes agree."""
    source = load_export(config.init)
    path = shutil.copy(source.path / "assets" / "vocabulary.txt", folder / "vocabulary.txt")
    old = keras.models.load_model(source.path / "model.keras")
    embedding = WordEmbedding.from_config(old.get_layer("embedding").get_config())
    built = model.build(config, embedding, classes=len(reviews.labels))
    same_classes = tuple(source.settings["labels"]) == reviews.labels
    take_weights(built, old, but=None if same_classes else model.HEAD)
    return built, Vocabulary(path)


def score_batches(
    batches: Iterable[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]], classes: int
) -> dict[str, float]:
    """The task's metrics over validation batches."""
    truth, predicted = [], []
    for batch, outputs in batches:
        truth += batch["label"].tolist()
        predicted += outputs["probabilities"].argmax(axis=-1).tolist()
    return evaluate.metrics(truth, predicted, classes) if truth else {}


def train_model(
    reviews: Corpus, config: Config, folder: Path, strategy: tf.distribute.Strategy
) -> tuple[keras.Model, Vocabulary, Fitted]:
    """Builds and fits; the model holds the best epoch's weights."""
    with strategy.scope():
        make = new_model if config.init is None else published_model
        built, vocabulary = make(reviews, config, folder)
        steps = math.ceil(reviews.size("train") / config.batch_size)
        schedule = warmed_cosine(config.learning_rate, steps=steps * config.epochs)
        optimizer = keras.optimizers.Adam(schedule)
    classes = len(reviews.labels)
    fitted = fit(
        built,
        optimizer=optimizer,
        losses=model.make_losses(config, classes),
        train=lambda epoch: data.to_batches(
            reviews.splits["train"],
            vocabulary,
            config,
            shuffle_seed=epoch_seed(config.seed, epoch),
        ),
        validation=data.to_batches(reviews.splits["validation"], vocabulary, config),
        score=lambda batches: score_batches(batches, classes),
        monitor="accuracy",
        mode="max",
        directory=folder,
        strategy=strategy,
        **config.fit_arguments(),
    )
    return built, vocabulary, fitted


def main(argv: list[str]) -> None:
    """Data, model, fit, export, score; see the module."""
    config = cli.parse_train(Config, PRESETS, default=DEFAULT, argv=argv, doc=__doc__)
    strategy = make_strategy(config.strategy)
    config = config.with_published(ARCHITECTURE)
    target = targets.choose(config.target, evaluate.TASK, config.bucket_lengths(), no_litert=None)
    set_up(seed=config.seed, deterministic=config.deterministic, precision=config.precision)
    with chief_first(strategy):
        reviews = data.load(config, labels=config.labels, seed=config.seed)
    folder = config.run_folder(evaluate.TASK, worker_index(strategy))
    built, vocabulary, fitted = train_model(reviews, config, folder, strategy)

    def score(served: Served, plots: Path) -> tuple[int, dict[str, float]]:
        scored = evaluate.score(served, reviews.splits[config.score])
        picture = plots / "confusion_matrix.png"
        report.confusion_matrix(scored.truth, scored.predicted, reviews.labels, picture)
        return len(scored.truth), scored.metrics

    release(
        task=evaluate.TASK,
        config=config,
        strategy=strategy,
        corpus=reviews,
        fitted=fitted,
        signatures=serving.signatures(built, vocabulary, reviews.labels, config.max_length, target),
        model=built,
        resources=[vocabulary],
        examples=serving.examples(config.bucket_lengths()),
        settings={"labels": reviews.labels, "max_tokens": config.max_length},
        score=score,
        card=make_card(reviews, config),
        target=target,
        **({"publish": litert.publish, "load": litert.load} if target.name == "litert" else {}),
    )


def make_card(reviews: Corpus, config: Config) -> Card:
    """The model card's own words."""
    layers = f"{config.layers} bidirectional {config.cell} layer{'s' * (config.layers > 1)}"
    return Card(
        title=f"Sentiment: {reviews.name}",
        summary=(
            f"Reads an English text and gives one of {len(reviews.labels)} classes "
            f"({', '.join(reviews.labels)}, worst first) and 1 to 5 stars. Word vectors, {layers} "
            f"of {config.units} units each way, pooling by {' and '.join(config.pooling)}"
            + (f"; the mean of {config.members} such networks." if config.members > 1 else ".")
        ),
        scores=(
            "Raw texts went in. `mean_absolute_error` is in stars.\n\n"
            "![confusion matrix](assets.extra/confusion_matrix.png)"
        ),
        usage=(
            "Signature `serving_default`: `text` [batch] string -> `label` [batch] string, "
            "`stars` [batch] int32, `probabilities` [batch, classes] float32.\n\n"
            '```\ncurl -d \'{"inputs": {"text": ["A warm and funny film."]}}\' \\\n'
            "  http://localhost:8501/v1/models/sentiment:predict\n```\n\n"
            f"Texts are cut at {config.max_length} tokens. A text without a word gets label "
            '"", 0 stars and probabilities of 0.'
        ),
        data=(
            (f"Word vectors: `{config.vectors}`." if config.vectors else "")
            + (" GloVe 6B, licence: PDDL." if config.vectors == PACKAGED_VECTORS else "")
        ),
    )


if __name__ == "__main__":
    cli.run(main)
