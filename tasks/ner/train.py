"""Trains a tagger of named entities, exports it, and scores the export.

    python -m tasks.ner.train                                       # default data, minutes
    python -m tasks.ner.train --dataset wnut17 --manual_dir DIR --score test
    python -m tasks.ner.train --data my.conll                       # or a folder
    python -m tasks.ner.train --data my.conll --init saved_models/ner/1

The last line is one JSON object; `seconds` in it is the training time.
"""

from __future__ import annotations

import collections
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from common.commands import cli, report
from common.commands.release import Card, release
from common.data import epoch_seed
from common.datasets import Corpus
from common.errors import require
from common.serving import targets
from common.serving.served import Served, load_export
from common.text import Vocabulary, rewrite
from common.training.distribution import chief_first, make_strategy, worker_index
from common.training.fit import Fitted, fit, set_up, take_weights, warmed_cosine
from common.word_embedding import PACKAGED_VECTORS, WordEmbedding, new_embedding
from tasks.ner import data, evaluate, model, serving
from tasks.ner.config import DEFAULT, PRESETS, Config
from tasks.ner.data import Sentence

import keras
import numpy as np
import tensorflow as tf

# What a fine-tuned model takes over from the published one.
ARCHITECTURE = ("max_length", "word_length", "cell", "units", "layers", "members")
ARCHITECTURE += ("character_dimension", "character_filters")
WORDS, CHARACTERS = "vocabulary.txt", "characters.txt"
# Letters and digits for which an unknown character stands.
ALWAYS = "Xx0"


def new_vocabularies(
    rows: Sequence[Sentence], config: Config, folder: Path
) -> tuple[WordEmbedding, data.Reader]:
    """Takes words and characters from the training sentences, and what vectors there are."""
    tokens = tf.constant([token for row in rows for token in row.tokens])
    forms = data.word_forms(rewrite(tokens)).numpy()
    embedding, words = new_embedding(
        collections.Counter(form.decode() for form in forms),
        folder / WORDS,
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
    spelled = {c for row in rows for token in row.tokens for c in token}
    found = sorted(c for c in {*spelled, *ALWAYS} if c.isprintable() and not c.isspace())
    Vocabulary.write(folder / CHARACTERS, found)
    return embedding, data.Reader(words, Vocabulary(folder / CHARACTERS), config.word_length)


def new_model(
    corpus: Corpus, rows: Sequence[Sentence], config: Config, folder: Path
) -> tuple[keras.Model, data.Reader]:
    """Builds a model from nothing but the training data and pretrained vectors."""
    embedding, reader = new_vocabularies(rows, config, folder)
    shape = model.WordShape(len(reader.characters), name="shape")
    built = model.build(config, embedding, shape, tags=corpus.labels)
    shape.fill(reader.characters.words)
    return built, reader


def published_model(
    corpus: Corpus, rows: Sequence[Sentence], config: Config, folder: Path
) -> tuple[keras.Model, data.Reader]:
    """Builds on a published model: its vocabularies, its weights, its head if the tags agree."""
    source = load_export(config.init)
    paths = [shutil.copy(source.path / "assets" / name, folder) for name in (WORDS, CHARACTERS)]
    reader = data.Reader(*map(Vocabulary, paths), config.word_length)
    old = keras.models.load_model(source.path / "model.keras")
    embedding = WordEmbedding.from_config(old.get_layer("embedding").get_config())
    shape = model.WordShape(len(reader.characters), name="shape")
    built = model.build(config, embedding, shape, tags=corpus.labels)
    same_tags = tuple(source.settings["labels"]) == corpus.labels
    take_weights(built, old, but=None if same_tags else model.HEAD)
    return built, reader


def score_batches(
    batches: Iterable[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]],
    labels: Sequence[str],
) -> dict[str, float]:
    """The task's metrics over validation batches."""
    truth, predicted = [], []
    for batch, outputs in batches:
        for row, length in enumerate(batch["length"]):
            truth.append([labels[tag] for tag in batch["tags"][row, :length]])
            predicted.append([labels[tag] for tag in outputs["tags"][row, :length]])
    return evaluate.metrics(truth, predicted)


def train_model(
    corpus: Corpus, config: Config, folder: Path, strategy: tf.distribute.Strategy
) -> tuple[keras.Model, data.Reader, Fitted]:
    """Builds and fits; the model holds the best epoch's weights."""
    rows = data.sentences(corpus.splits["train"], corpus.labels)
    names = data.Names(rows, data.NAMES if config.listed_names else None)
    with strategy.scope():
        make = new_model if config.init is None else published_model
        built, reader = make(corpus, rows, config, folder)
        steps = math.ceil(len(rows) / config.batch_size)
        schedule = warmed_cosine(config.learning_rate, steps=steps * config.epochs)
        optimizer = keras.optimizers.Adam(schedule)

    def train(epoch: int) -> tf.data.Dataset:
        seed = epoch_seed(config.seed, epoch)
        varied = data.augment(
            rows, names, exchange=config.exchange, lower_case=config.lower_case, seed=seed
        )
        examples = data.as_dataset(varied, corpus.labels)
        return data.to_batches(examples, reader, config, shuffle_seed=seed)

    fitted = fit(
        built,
        optimizer=optimizer,
        losses=model.make_losses(built),
        train=train,
        validation=data.to_batches(corpus.splits["validation"], reader, config),
        score=lambda batches: score_batches(batches, corpus.labels),
        monitor="f1",
        mode="max",
        directory=folder,
        strategy=strategy,
        **config.fit_arguments(),
    )
    return built, reader, fitted


def main(argv: list[str]) -> None:
    """Data, model, fit, export, score; see the module."""
    config = cli.parse_train(Config, PRESETS, default=DEFAULT, argv=argv, doc=__doc__)
    require("seqeval", "ner")  # now, not after the first epoch
    strategy = make_strategy(config.strategy)
    config = config.with_published(ARCHITECTURE)
    target = targets.choose(
        config.target, evaluate.TASK, config.bucket_lengths(), no_litert=serving.NO_LITERT
    )
    set_up(seed=config.seed, deterministic=config.deterministic, precision=config.precision)
    with chief_first(strategy):
        corpus = data.load(config, seed=config.seed)
    folder = config.run_folder(evaluate.TASK, worker_index(strategy))
    built, reader, fitted = train_model(corpus, config, folder, strategy)

    def score(served: Served, plots: Path) -> tuple[int, dict[str, float]]:
        rows = data.sentences(corpus.splits[config.score], corpus.labels)
        scored = evaluate.score(served, rows, data.entity_types(corpus.labels))
        types, truth, predicted = scored.confusion()
        report.confusion_matrix(truth, predicted, types, plots / "confusion_matrix.png")
        evaluate.print_report(scored)
        return len(rows), scored.metrics

    release(
        task=evaluate.TASK,
        config=config,
        strategy=strategy,
        corpus=corpus,
        fitted=fitted,
        signatures=serving.signatures(built, reader, corpus.labels, config.max_length, target),
        model=built,
        resources=[reader],
        examples=serving.examples(config.bucket_lengths(), config.word_length),
        settings={"labels": corpus.labels, "max_tokens": config.max_length},
        score=score,
        card=make_card(corpus, config),
        target=target,
    )


def make_card(corpus: Corpus, config: Config) -> Card:
    """The model card's own words."""
    layers = f"{config.layers} bidirectional {config.cell} layer{'s' * (config.layers > 1)}"
    types = ", ".join(data.entity_types(corpus.labels))
    return Card(
        title=f"Named entities: {corpus.name}",
        summary=(
            f"Reads an English text and marks its names, of the types {types}. Word vectors, a "
            f"convolution over each word's characters, its shape, {layers} of {config.units} units "
            "each way, a CRF that keeps to IOB2"
            + (f"; {config.members} such networks answer together." * (config.members > 1) or ".")
        ),
        scores=(
            "Sentences went in as the data's own tokens, through `tokens`. `precision`, "
            "`recall` and `f1` are of whole names, strict IOB2, by seqeval.\n\n"
            "Words by the type of their name:\n\n"
            "![confusion matrix](assets.extra/confusion_matrix.png)"
        ),
        usage=(
            "Signature `serving_default`: `text` [batch] string -> `tokens`, `tags` [batch, time] "
            "string, `start`, `end` [batch, time] int32 (code points of the text, the end being "
            "one behind), `length` [batch] int32.\n\n"
            '```\ncurl -d \'{"inputs": {"text": ["Ada Lovelace lived in London."]}}\' \\\n'
            "  http://localhost:8501/v1/models/ner:predict\n```\n\n"
            f"What stands behind the first {config.max_length} tokens of a text is not answered. A "
            "text without a word gets length 0. `tokens` takes text that is cut into tokens "
            "already."
        ),
        data=(
            (f"Word vectors: `{config.vectors}`." if config.vectors else "")
            + (" GloVe 6B, licence: PDDL." if config.vectors == PACKAGED_VECTORS else "")
        ),
    )


if __name__ == "__main__":
    cli.run(main)
