"""Train a sentiment classifier, export it, and score the export.

    python -m tasks.sentiment.train                                     # default data, minutes
    python -m tasks.sentiment.train --dataset sst5 --manual_dir DIR --score test
    python -m tasks.sentiment.train --data my.csv                       # columns text,label
    python -m tasks.sentiment.train --data my.csv --init saved_models/sentiment/1

The last line is one JSON object; `seconds` in it is the training time.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
from pathlib import Path

from common.commands import cli, report
from common.commands.release import Card, describe_layers, release
from common.commands.run import Run, same_labels, start_run, warm_start
from common.data import epoch_seed
from common.serving.publish import publish
from common.serving.rows import text_limits
from common.serving.served import Served
from common.training.distribution import worker_rows
from common.training.fit import Fitted, Validated, fit
from tasks.sentiment import evaluate, predict
from tasks.sentiment.config import DEFAULT, MODE, MONITOR, OWN, PRESETS, TASK, Config

import numpy as np
from etils import epy

with epy.lazy_imports():
    from common import text, word_clusters, word_embedding
    from tasks.sentiment import (
        data,
        datasets,
        lexicon,
        litert_export,
        model,
        serving,
        targets,
        tokens,
    )

    import keras
    import tensorflow as tf


# Settings that `--init` copies from the published model.
ARCHITECTURE = ("max_length", "cell", "units", "layers", "pooling", "members", "clusters")
WORDS = "vocabulary.txt"
CLUSTER_DIMENSION = 100


def with_clauses(reviews: data.Reviews, config: Config) -> data.Reviews:
    """Add clauses with words of the lexicon to the training split of rated texts.

    Words that occur there at least three times are used, since many others are hardly English.
    """
    counts = text.count_words(
        reviews.splits["train"].map(lambda review: review["text"]), tokens.tokenize
    )
    rated = lexicon.read_lexicon().ratings.items()
    frequent = {word: rating for word, rating in rated if counts[word] >= 3}
    made = lexicon.clauses(frequent, config.clauses, config.seed)
    texts, ratings = [clause for clause, _ in made], [rating for _, rating in made]
    columns = {
        "text": texts,
        "label": np.array([datasets.stars(rating) - 1 for rating in ratings]),
        "part": ["lexicon"] * len(texts),
        "rating": np.array(ratings, np.float32),
    }
    added = tf.data.Dataset.from_tensor_slices(columns)
    train = reviews.splits["train"].concatenate(added)
    return dataclasses.replace(reviews, splits={**reviews.splits, "train": train})


def report_long(reviews: data.Reviews, config: Config) -> None:
    """Say how many training texts are truncated."""
    texts = reviews.training_texts()
    total = int(texts.cardinality())
    lengths = texts.batch(1024).map(lambda batch: tokens.tokenize(batch).row_lengths())
    count = sum(int((block > config.max_length).sum()) for block in lengths.as_numpy_iterator())
    if count:
        sampled = "" if total == reviews.size("train") else " sampled"
        cli.say(
            f"{count} of {total}{sampled} training texts have more than "
            f"{config.max_length} tokens; training reads their first ones (--max_length)"
        )


def new_embedding(
    reviews: data.Reviews, config: Config, folder: Path
) -> tuple[word_embedding.WordEmbedding, tokens.Reader]:
    """Make the vocabulary of the training texts, and the embedding of its words."""
    counts = text.count_words(reviews.training_texts(), tokens.tokenize)
    known = lexicon.read_lexicon() if config.lexicon else lexicon.Lexicon({}, {})
    embedding, vocabulary = word_embedding.new_embedding(
        counts,
        folder / WORDS,
        vectors=config.vectors,
        frequent_words=config.frequent_words,
        dimension=config.dimension,
        rare=config.rare_word_dropout,
        least_count=config.least_count,
        subwords=config.subwords,
        seed=config.seed,
        word_dropout=config.word_dropout,
        subword_dropout=config.subword_dropout,
        ratings=known.ratings,
        descriptions=known.emoji,
    )
    return embedding, tokens.Reader(vocabulary)


def build_model(reviews: data.Reviews, run: Run[Config]) -> tuple[keras.Model, tokens.Reader]:
    """Build a new model, or with `--init` one that starts from a published model.

    The vocabulary of a published model is kept, and its head if the classes are the same.
    """
    published, classes = run.published, len(reviews.labels)
    clustered = run.config.clusters != "none"
    features = None
    if published is None:
        embedding, reader = new_embedding(reviews, run.config, run.folder)
        if clustered:
            features = word_clusters.new_layer(
                reader.vocabulary.words,
                word_clusters.fetch(run.config.data_dir),
                dimension=CLUSTER_DIMENSION,
                dropout=run.config.cluster_dropout,
            )
        return model.build(run.config, embedding, features, classes=classes), reader
    vocabulary = text.Vocabulary(shutil.copy(published.asset(WORDS), run.folder))
    embedding = published.model.get_layer(model.EMBEDDING).pack(packed=False)
    if clustered:
        settings = published.layer_settings(word_clusters.LAYER)
        features = word_clusters.ClusterFeatures.from_config(settings)
    built = model.build(run.config, embedding, features, classes=classes)
    head = None if same_labels(published, reviews.labels) else model.HEAD
    warm_start(built, published, head=head, done=[model.EMBEDDING])
    return built, tokens.Reader(vocabulary)


def score_batches(batches: Validated, classes: int) -> dict[str, float]:
    """Return the metrics of validation batches."""
    truth, predicted = [], []
    for batch, outputs in batches:
        truth += batch["label"].tolist()
        predicted += outputs["probabilities"].argmax(axis=-1).tolist()
    return evaluate.metrics(truth, predicted, classes) if truth else {}


def train_model(
    reviews: data.Reviews, run: Run[Config]
) -> tuple[keras.Model, tokens.Reader, Fitted]:
    """Build and fit a model, and pack it; it holds the weights of the best epoch."""
    config = run.config
    steps = run.steps(reviews.size("train"))
    with run.strategy.scope():
        built, reader = build_model(reviews, run)
        optimizer = run.make_adam(steps)
    classes = len(reviews.labels)
    class_counts = reviews.training_classes().tolist() if config.class_weights else None
    teach = targets.make_targets(config, classes, class_counts)
    judge = targets.make_targets(config, classes)

    def batches(split: str, made: targets.Targets, seed: int | None = None) -> tf.data.Dataset:
        if reviews.stored:
            own = functools.partial(worker_rows, strategy=run.strategy)
            return data.stored_batches(
                reviews.stored[split], reader, config, made, own=own, shuffle_seed=seed
            )
        return data.to_batches(reviews.splits[split], reader, config, made, shuffle_seed=seed)

    fitted = fit(
        built,
        optimizer=optimizer,
        losses=model.losses,
        train=lambda epoch: batches("train", teach, epoch_seed(config.seed, epoch)),
        validation=batches("validation", judge),
        score=lambda batches: score_batches(batches, classes),
        monitor=MONITOR,
        mode=MODE,
        options=run.fit_options(steps, reviews, [run.folder / WORDS]),
    )
    return model.pack(built, config), reader, fitted


def read_settings(argv: list[str]) -> Config:
    """Return the settings of a run."""
    return cli.parse_train(
        Config, PRESETS, default=DEFAULT, own=lambda _: OWN, argv=argv, doc=__doc__
    )


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
    run = start_run(
        TASK,
        config,
        architecture=ARCHITECTURE,
        lengths=Config.bucket_lengths,
        no_litert=None,
    )
    config = run.config
    with run.chief_first():
        reviews = data.load(
            config,
            layout=config.layout(),
            labels=config.labels,
            phrases=config.phrases,
            seed=config.seed,
        )
        if config.clusters != "none" and config.init is None:
            word_clusters.fetch(config.data_dir)  # before anything is trained
    if config.clauses:
        reviews = with_clauses(reviews, config)
    report_long(reviews, config)
    cli.say(f"classes from worst to best: {', '.join(reviews.labels)} (--labels sets the order)")
    built, reader, fitted = train_model(reviews, run)

    def score(served: Served, plots: Path) -> cli.Scored:
        scored = evaluate.score(served, reviews.splits[config.score])
        picture = plots / "confusion_matrix.png"
        report.confusion_matrix(scored.truth, scored.predicted, reviews.labels, picture)
        return scored

    return release(
        run,
        corpus=reviews,
        fitted=fitted,
        signatures=serving.signatures(built, reader, reviews.labels, config.max_length, run.target),
        model=built,
        resources=[reader],
        examples=serving.examples(config.bucket_lengths()),
        settings={
            "labels": reviews.labels,
            "window": config.max_length,
            **text_limits("tokens", serving.WINDOWS * config.max_length, serving.MOST),
        },
        score=score,
        card=make_card(reviews, config),
        publish=litert_export.publish if run.target.name == "litert" else publish,
        load=predict.load_model,
    )


def make_card(reviews: data.Reviews, config: Config) -> Card:
    """Return the task's texts for the model card."""
    layers = describe_layers(config.layers, config.cell, config.units)
    is_packaged = config.vectors == word_embedding.PACKAGED_VECTORS
    return Card(
        title=f"Sentiment: {reviews.name}",
        summary=(
            f"Reads an English text and predicts one of {len(reviews.labels)} classes "
            f"({', '.join(reviews.labels)}, worst first) and 1 to 5 stars. Word vectors, {layers}, "
            f"pooling by {' and '.join(config.pooling)}"
            + (f"; the mean of {config.members} such networks." if config.members > 1 else ".")
        ),
        scores=(
            "Raw texts were sent. `mean_absolute_error` is in stars.\n\n"
            "![confusion matrix](assets.extra/confusion_matrix.png)"
        ),
        usage=(
            "Signature `serving_default`: `text` [batch] string -> `label` [batch] string, "
            "`stars` [batch] int32, `probabilities` [batch, classes] float32.\n\n"
            '```\ncurl -d \'{"inputs": {"text": ["A warm and funny film."]}}\' \\\n'
            "  http://localhost:8501/v1/models/sentiment:predict\n```\n\n"
            f"A text of more than {config.max_length} tokens is read in windows; `truncated` "
            f"[batch] bool marks one of more than {serving.WINDOWS} windows, of which the rest is "
            'ignored. An empty text has the label "", 0 stars and probabilities of 0.'
        ),
        limits=(
            f"English texts with an opinion, like those of `{reviews.name}`. Irony, and negation "
            "over a distance, are often missed."
        ),
        data=(
            (f"Word vectors: `{config.vectors}`." if config.vectors else "")
            + (" GloVe 6B, licence: PDDL." if is_packaged else "")
            + (" Ratings of words: VADER's lexicon, licence: MIT." if config.lexicon else "")
            + (" Word clusters: Explosion vectors, CC0." if config.clusters != "none" else "")
        ),
    )


if __name__ == "__main__":
    cli.run(main)
