"""Train a tagger of named entities, export it, and score the export.

    python -m tasks.ner.train                                       # default data
    python -m tasks.ner.train --dataset wnut17 --manual_dir DIR --score test
    python -m tasks.ner.train --dataset everyday_entities+wikigold  # trained together
    python -m tasks.ner.train --data my.conll                       # or a folder
    python -m tasks.ner.train --data my.conll --init saved_models/ner/1

The last line is one JSON object; `seconds` in it is the training time.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from common.commands import cli, report
from common.commands.release import Card, describe_layers, release
from common.commands.run import Run, same_labels, start_run, warm_start
from common.data import epoch_seed
from common.datasets import Corpus
from common.errors import require
from common.serving.rows import text_limits
from common.serving.served import Served
from common.tables import SAMPLED
from common.training.distribution import worker_rows
from common.training.fit import Fitted, Validated, fit
from tasks.ner import evaluate
from tasks.ner.config import (
    COUNTED,
    DEFAULT,
    MIXABLE,
    MIXTURE,
    MODE,
    MONITOR,
    NO_LITERT,
    OFFLINE,
    PRESETS,
    TASK,
    Config,
    preset_for_size,
)
from tasks.ner.formats import (
    Columns,
    Sentence,
    count_training_sentences,
    entities,
    entity_types,
)

import numpy as np
from etils import epy

with epy.lazy_imports():
    from common import rnn_kernels, text, word_clusters, word_embedding
    from tasks.ner import augmentation, data, gazetteer, model, serving

    import keras
    import tensorflow as tf


# Settings that `--init` copies from the published model.
ARCHITECTURE = (
    "max_length",
    "word_length",
    "cell",
    "units",
    "layers",
    "members",
    "character_dimension",
    "character_filters",
    "clusters",
    "gazetteer",
)
WORDS, CHARACTERS = "vocabulary.txt", "characters.txt"
CLUSTER_DIMENSION = 50
# The letters and the digit that stand for unknown characters; see `data.Reader`.
STAND_INS = "Xx0"


def read_settings(argv: list[str]) -> Config:
    """Return the settings of a run; the preset of the user's own files follows from their size."""

    def own(config: Config) -> Config:
        assert config.data is not None
        return preset_for_size(count_training_sentences(config.data, COUNTED))

    presets = cli.with_mixture(PRESETS, argv, like=MIXTURE, mixable=MIXABLE)
    return cli.parse_train(Config, presets, default=DEFAULT, own=own, argv=argv, doc=__doc__)


def read_offline_settings(argv: list[str]) -> Callable[[], Config] | None:
    """Return a function that returns the settings for `OFFLINE`; None if the user named data."""
    if any(word.partition("=")[0] in ("--dataset", "--data") for word in argv):
        return None
    return lambda: cli.parse_train(Config, PRESETS, default=OFFLINE, argv=argv, doc=__doc__)


def with_obtainable_data(run: Run[Config], offline: Callable[[], Config] | None) -> Run[Config]:
    """Return the run, on other data with their preset if those of `DEFAULT` cannot be had."""
    reasons = data.not_obtainable(DEFAULT.split("+"), run.config) if offline else {}
    if offline is None or not reasons:
        return run
    cli.say(f"training on {OFFLINE} alone, since {' and '.join(reasons)} cannot be had:")
    cli.say("\n".join(f"  {reason}" for reason in reasons.values()))
    config = offline()
    if run.published is not None:
        config = config.with_architecture(run.published.settings["config"], ARCHITECTURE)
    return dataclasses.replace(run, config=config)


def new_vocabularies(
    rows: Iterable[Sentence], config: Config, folder: Path
) -> tuple[word_embedding.WordEmbedding, data.Reader]:
    """Make the vocabularies of the training sentences, and the embedding of their words."""
    counts: collections.Counter[str] = collections.Counter()
    used = set(STAND_INS)
    iterator = iter(rows)
    while block := list(itertools.islice(iterator, 1024)):
        tokens = [token for row in block for token in row.tokens]
        forms = data.word_forms(text.rewrite(tf.constant(tokens))).numpy()
        counts.update(form.decode() for form in forms)
        used.update(*tokens)
    embedding, words = word_embedding.new_embedding(
        counts,
        folder / WORDS,
        vectors=config.vectors,
        frequent_words=config.frequent_words,
        dimension=config.dimension,
        rare=config.rare_word_dropout,
        learnt_from=config.learned_from,
        subwords=config.subwords,
        seed=config.seed,
        word_dropout=config.word_dropout,
        subword_dropout=config.subword_dropout,
        members=config.members,
    )
    characters = sorted(c for c in used if c.isprintable() and not c.isspace())
    text.Vocabulary.write(folder / CHARACTERS, characters)
    return embedding, data.Reader(words, text.Vocabulary(folder / CHARACTERS), config.word_length)


def new_lookups(words: Sequence[str], config: Config) -> list[word_clusters.ClusterFeatures]:
    """Make the layers of `model.lookups_of` for a vocabulary."""
    layers = []
    if config.clusters != "none":
        archive, dropout = word_clusters.fetch(config.data_dir), config.cluster_dropout
        clusters = word_clusters.new_layer(
            words, archive, dimension=CLUSTER_DIMENSION, dropout=dropout
        )
        layers.append(clusters)
    if config.gazetteer != "none":
        archive, dropout = gazetteer.fetch(config.data_dir), config.gazetteer_dropout
        layers.append(gazetteer.new_layer(words, archive, dropout=dropout))
    return layers


def build_model(
    corpus: Corpus, rows: Iterable[Sentence], run: Run[Config]
) -> tuple[keras.Model, data.Reader]:
    """Build a new model, or with `--init` one that starts from a published model.

    The vocabularies of a published model are kept, and its head if the tags are the same.
    """
    config, folder, published = run.config, run.folder, run.published
    if published is None:
        embedding, reader = new_vocabularies(rows, config, folder)
        lookups = new_lookups(reader.words.words, config)
    else:
        words, characters = (
            text.Vocabulary(shutil.copy(published.asset(name), folder))
            for name in (WORDS, CHARACTERS)
        )
        reader = data.Reader(words, characters, config.word_length)
        embedding = published.model.get_layer(model.EMBEDDING).pack(packed=False)
        lookups = [
            word_clusters.ClusterFeatures.from_config(published.layer_settings(name))
            for name in model.lookups_of(config)
        ]
    shape = model.WordShape(len(reader.characters), name=model.SHAPE)
    built = model.build(config, embedding, shape, lookups, tags=corpus.labels)
    if published is None:
        shape.fill(reader.characters.words)
    else:
        head = None if same_labels(published, corpus.labels) else model.HEAD
        warm_start(built, published, head=head, done=[model.EMBEDDING])
    return built, reader


class OutsideWeight:
    """Score validation batches, and choose the weight of `O` that scores best.

    Args:
      ensemble: the model's decoder.
      fixed: the only weight; None: those of `WEIGHTS`.
    """

    WEIGHTS = (1.4, 1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05)

    def __init__(self, ensemble: model.Committee, fixed: float | None):
        self.labels = ensemble.tags
        self.weights = self.WEIGHTS if fixed is None else (fixed,)
        states = len(self.labels)

        def decode(probabilities: tf.Tensor, length: tf.Tensor) -> list[tf.Tensor]:
            count = len(self.weights)
            weights = tf.repeat(tf.constant(self.weights, tf.float32), tf.size(length))
            probabilities = tf.tile(probabilities, [count, 1, 1])
            with rnn_kernels.portable():  # compiling each shape would take longer
                tags = ensemble.decode(probabilities, tf.tile(length, [count]), weights)
            return tf.split(tags, count)

        signature = (
            tf.TensorSpec([None, None, states], tf.float32),
            tf.TensorSpec([None], tf.int32),
        )
        self._decode = tf.function(decode, input_signature=signature, autograph=False)

    def score(self, batches: Validated) -> dict[str, float]:
        """Return the metrics of validation batches under the best weight, and the weight."""
        # Of each weight: true entities that are predicted, all true ones, all predicted ones.
        counts = np.zeros((len(self.weights), 3), np.int64)
        for batch, outputs in batches:
            lengths = batch["length"]
            truth = self._names(batch["tags"], lengths)
            decoded = self._decode(outputs["probabilities"], lengths)
            for row, tags in zip(counts, decoded, strict=True):
                row += count_entities(truth, self._names(tags.numpy(), lengths))
        scores = [2 * found / max(1, true + predicted) for found, true, predicted in counts]
        best = self._best(scores)
        found, true, predicted = counts[best].tolist()
        precision, recall = found / max(1, predicted), found / max(1, true)
        f1 = 2 * precision * recall / ((precision + recall) or 1.0)
        metrics = {"precision": precision, "recall": recall, "f1": f1}
        return {**metrics, "outside_weight": self.weights[best]}

    def _names(self, tags: np.ndarray, lengths: np.ndarray) -> list[list[str]]:
        return [
            [self.labels[tag] for tag in row[:length]]
            for row, length in zip(tags, lengths, strict=True)
        ]

    @staticmethod
    def _best(scores: Sequence[float]) -> int:
        """Return the place of the best score, which should have good neighbours, too."""
        padded = np.pad(scores, 1, mode="edge")
        return int(np.argmax(padded[:-2] + 2 * padded[1:-1] + padded[2:]))


def count_entities(
    truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> tuple[int, int, int]:
    """Return the numbers of true entities that are predicted, of all true and all predicted ones.

    It is much faster than seqeval, and needs no tables.
    """
    pairs = [
        ({*entities(true)}, {*entities(names)})
        for true, names in zip(truth, predicted, strict=True)
    ]
    found = sum(len(true & names) for true, names in pairs)
    return found, sum(len(true) for true, _ in pairs), sum(len(names) for _, names in pairs)


class Batches(NamedTuple):
    """The batches of a run: those of an epoch, and those of the validation split."""

    train: Callable[[int], tf.data.Dataset]
    validation: tf.data.Dataset


def fractions(config: Config) -> dict[str, float]:
    """Return the settings of `augmentation.vary`."""
    return {name: getattr(config, name) for name in ("exchange", "titles", "lower_case")}


def published_batches(
    corpus: Corpus, rows: Sequence[Sentence], reader: data.Reader, run: Run[Config]
) -> Batches:
    """Return the batches of a published data set, of which `rows` is the training split."""
    config = run.config
    listed = augmentation.NAMES if config.listed_names else None
    names = augmentation.Gazetteer(rows, listed)

    def train(epoch: int) -> tf.data.Dataset:
        seed = epoch_seed(config.seed, epoch)
        varied = augmentation.augment(rows, names, seed=seed, **fractions(config))
        examples = data.as_dataset(varied, corpus.labels)
        return data.to_batches(examples, reader, config, shuffle_seed=seed)

    return Batches(train, data.to_batches(corpus.splits["validation"], reader, config))


def own_batches(corpus: Corpus, reader: data.Reader, run: Run[Config]) -> Batches:
    """Return the batches of the user's own files, of which each worker reads its own rows."""
    config, rows = run.config, corpus.stored["train"]
    listed = augmentation.NAMES if config.listed_names else None
    names = augmentation.Gazetteer(rows if config.exchange else (), listed)
    to_batches = functools.partial(
        data.stored_batches,
        labels=corpus.labels,
        reader=reader,
        config=config,
        own=functools.partial(worker_rows, strategy=run.strategy),
    )

    def train(epoch: int) -> tf.data.Dataset:
        seed = epoch_seed(config.seed, epoch)

        # Each sentence has random numbers of its own, so that workers can read different ones.
        def vary(number: int, row: Sentence) -> Sentence:
            generator = np.random.default_rng([seed, number])
            return augmentation.vary(row, names, generator=generator, **fractions(config))

        return to_batches(rows, shuffle_seed=seed, vary=vary)

    # The score compares all predictions with their tags, so each worker reads all of these.
    validation = to_batches(corpus.stored["validation"], own=lambda rows: slice(0, rows))
    return Batches(train, validation)


def train_model(corpus: Corpus, run: Run[Config]) -> tuple[keras.Model, data.Reader, Fitted]:
    """Build and fit a model, and pack it; it holds the weights of the best epoch."""
    config = run.config
    steps = run.steps(corpus.size("train"))
    rows = [] if corpus.stored else data.sentences(corpus.splits["train"], corpus.labels)
    sampled = corpus.stored["train"].sample(SAMPLED) if corpus.stored else rows
    with run.strategy.scope():
        built, reader = build_model(corpus, sampled, run)
        optimizer = run.make_adam(steps)
    if corpus.stored:
        batches = own_batches(corpus, reader, run)
    else:
        batches = published_batches(corpus, rows, reader, run)
    ensemble = built.get_layer(model.COMMITTEE)
    validated = OutsideWeight(ensemble, config.outside_weight)
    fitted = fit(
        built,
        optimizer=optimizer,
        losses=model.make_losses(built),
        train=batches.train,
        validation=batches.validation,
        score=validated.score,
        monitor=MONITOR,
        mode=MODE,
        options=run.fit_options(steps, corpus, [run.folder / WORDS, run.folder / CHARACTERS]),
    )
    ensemble.outside_weight = fitted.history[fitted.best_epoch - 1]["val_outside_weight"]
    return model.pack(built, config, tags=corpus.labels), reader, fitted


def main(argv: list[str]) -> None:
    """Train as the flags say; see the module."""
    train(read_settings(argv), offline=read_offline_settings(argv))


def train(config: Config, *, offline: Callable[[], Config] | None = None) -> Path | None:
    """Train a model, publish it, and score its export, as the command does.

    Args:
      config: the settings; those of a data set are `PRESETS[name]`.
      offline: returns the settings for data that need no network, which replace those of `DEFAULT`
        if they cannot be had. None: that is an error.

    Returns:
      The version folder; None on workers that are not the chief.
    """
    require("seqeval", "ner")  # fail now, not after the first epoch
    run = start_run(
        TASK,
        config,
        architecture=ARCHITECTURE,
        lengths=Config.bucket_lengths,
        no_litert=NO_LITERT,
    )
    with run.chief_first():
        run = with_obtainable_data(run, offline)
        config = run.config
        columns = Columns(config.token_column, config.tag_column)
        corpus = data.load(config, seed=config.seed, columns=columns)
        if config.clusters != "none" and config.init is None:
            word_clusters.fetch(config.data_dir)
        if config.gazetteer != "none" and config.init is None:
            gazetteer.fetch(config.data_dir)
    built, reader, fitted = train_model(corpus, run)

    def score(served: Served, plots: Path) -> cli.Scored:
        rows = data.sentences(corpus.splits[config.score], corpus.labels)
        scored = evaluate.score(served, rows, entity_types(corpus.labels))
        types, truth, predicted = scored.confusion()
        report.confusion_matrix(truth, predicted, types, plots / "confusion_matrix.png")
        evaluate.print_report(scored)
        return scored

    return release(
        run,
        corpus=corpus,
        fitted=fitted,
        signatures=serving.signatures(built, reader, corpus.labels, config.max_length, run.target),
        model=built,
        resources=[reader],
        examples=serving.examples(config.bucket_lengths(), config.word_length),
        settings={
            "labels": corpus.labels,
            "outside_weight": built.get_layer(model.COMMITTEE).outside_weight,
            **text_limits("tokens", config.max_length, serving.MOST),
        },
        score=score,
        card=make_card(corpus, config, built.get_layer(model.COMMITTEE).outside_weight),
    )


def make_card(corpus: Corpus, config: Config, outside_weight: float) -> Card:
    """Return the task's texts for the model card; for the weight see `model.Committee`."""
    layers = describe_layers(config.layers, config.cell, config.units)
    is_packaged = config.vectors == word_embedding.PACKAGED_VECTORS
    types = ", ".join(entity_types(corpus.labels))
    return Card(
        title=f"Named entities: {corpus.name}",
        summary=(
            f"Reads an English text and marks its named entities, of the types {types}. Word "
            "vectors, a convolution over the characters and the shape of each word, "
            f"{layers}, a CRF with the constraints of IOB2"
            + (f"; an ensemble of {config.members} such networks." * (config.members > 1) or ".")
            + f" Before decoding, the probability of O is multiplied by {outside_weight:g}."
        ),
        scores=(
            "Sentences were sent as the data's own tokens, through `tokens`. `precision`, "
            "`recall` and `f1` are of whole entities, strict IOB2, by seqeval.\n\n"
            "Words by the type of their entity:\n\n"
            "![confusion matrix](assets.extra/confusion_matrix.png)"
        ),
        usage=(
            "Signature `serving_default`: `text` [batch] string -> `tokens`, `tags` [batch, time] "
            "string, `start`, `end` [batch, time] int32 (code points of the text, the end "
            "excluded), `confidence` [batch, time] float32 (probability of the whole entity, or of "
            "O), `length` [batch] int32.\n\n"
            '```\ncurl -d \'{"inputs": {"text": ["Ada Lovelace lived in London."]}}\' \\\n'
            "  http://localhost:8501/v1/models/ner:predict\n```\n\n"
            f"Tokens after the first {config.max_length} of a text are ignored. A text without a "
            "word has length 0. `tokens` accepts text that is already tokenised."
        ),
        limits=(
            f"English sentences like those of `{corpus.name}`, and the types {types} alone; names "
            "are neither nested nor discontinuous."
        ),
        data=(
            (f"Word vectors: `{config.vectors}`." if config.vectors else "")
            + (" GloVe 6B, licence: PDDL." if is_packaged else "")
            + (" Word clusters: Explosion vectors, CC0." if config.clusters != "none" else "")
            + (" Names of places: GeoNames, CC BY 4.0." if config.gazetteer != "none" else "")
        ),
    )


if __name__ == "__main__":
    cli.run(main)
