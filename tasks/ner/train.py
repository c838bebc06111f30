"""Train a tagger of named entities, export it, and score the export.

    python -m tasks.ner.train                                       # default data, minutes
    python -m tasks.ner.train --dataset wnut17 --manual_dir DIR --score test
    python -m tasks.ner.train --data my.conll                       # or a folder
    python -m tasks.ner.train --data my.conll --init saved_models/ner/1

The last line is one JSON object; `seconds` in it is the training time.
"""

from __future__ import annotations

import collections
import shutil
from collections.abc import Sequence
from pathlib import Path

from common.commands import cli, report
from common.commands.release import Card, describe_layers, release
from common.commands.run import Run, same_labels, start_run, warm_start
from common.data import epoch_seed
from common.datasets import Corpus
from common.errors import require
from common.serving.rows import text_limits
from common.serving.served import Served
from common.training.fit import Fitted, Validated, fit
from tasks.ner import evaluate
from tasks.ner.config import DEFAULT, NO_LITERT, PRESETS, TASK, Config
from tasks.ner.formats import Sentence, entity_types

from etils import epy

with epy.lazy_imports():
    from common import text, word_embedding
    from tasks.ner import augmentation, data, model, serving

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
)
WORDS, CHARACTERS = "vocabulary.txt", "characters.txt"
# The letters and the digit that stand for unknown characters; see `data.Reader`.
STAND_INS = "Xx0"


def new_vocabularies(
    rows: Sequence[Sentence], config: Config, folder: Path
) -> tuple[word_embedding.WordEmbedding, data.Reader]:
    """Make the vocabularies of the training sentences, and the embedding of their words."""
    tokens = tf.constant([token for row in rows for token in row.tokens])
    forms = data.word_forms(text.rewrite(tokens)).numpy()
    embedding, words = word_embedding.new_embedding(
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
    used = {c for row in rows for token in row.tokens for c in token}
    characters = sorted(c for c in {*used, *STAND_INS} if c.isprintable() and not c.isspace())
    text.Vocabulary.write(folder / CHARACTERS, characters)
    return embedding, data.Reader(words, text.Vocabulary(folder / CHARACTERS), config.word_length)


def build_model(
    corpus: Corpus, rows: Sequence[Sentence], run: Run[Config]
) -> tuple[keras.Model, data.Reader]:
    """Build a new model, or with `--init` one that starts from a published model.

    The vocabularies of a published model are kept, and its head if the tags are the same.
    """
    config, folder, published = run.config, run.folder, run.published
    if published is None:
        embedding, reader = new_vocabularies(rows, config, folder)
    else:
        words, characters = (
            text.Vocabulary(shutil.copy(published.asset(name), folder))
            for name in (WORDS, CHARACTERS)
        )
        reader = data.Reader(words, characters, config.word_length)
        settings = published.layer_settings("embedding")
        embedding = word_embedding.WordEmbedding.from_config(settings)
    shape = model.WordShape(len(reader.characters), name="shape")
    built = model.build(config, embedding, shape, tags=corpus.labels)
    if published is None:
        shape.fill(reader.characters.words)
    else:
        head = None if same_labels(published, corpus.labels) else model.HEAD
        warm_start(built, published, head=head)
    return built, reader


def score_batches(batches: Validated, labels: Sequence[str]) -> dict[str, float]:
    """Return the metrics of validation batches."""
    truth, predicted = [], []
    for batch, outputs in batches:
        for row, length in enumerate(batch["length"]):
            truth.append([labels[tag] for tag in batch["tags"][row, :length]])
            predicted.append([labels[tag] for tag in outputs["tags"][row, :length]])
    return evaluate.metrics(truth, predicted)


def train_model(corpus: Corpus, run: Run[Config]) -> tuple[keras.Model, data.Reader, Fitted]:
    """Build and fit a model; it holds the weights of the best epoch."""
    config = run.config
    rows = data.sentences(corpus.splits["train"], corpus.labels)
    gazetteer = augmentation.Gazetteer(rows, augmentation.NAMES if config.listed_names else None)
    steps = run.steps(len(rows))
    with run.strategy.scope():
        built, reader = build_model(corpus, rows, run)
        optimizer = run.make_adam(steps)

    def train(epoch: int) -> tf.data.Dataset:
        seed = epoch_seed(config.seed, epoch)
        varied = augmentation.augment(
            rows, gazetteer, exchange=config.exchange, lower_case=config.lower_case, seed=seed
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
        options=run.fit_options(steps, corpus, [run.folder / WORDS, run.folder / CHARACTERS]),
    )
    return built, reader, fitted


def main(argv: list[str]) -> None:
    """Data, model, fit, export, score; see the module."""
    config = cli.parse_train(Config, PRESETS, default=DEFAULT, argv=argv, doc=__doc__)
    require("seqeval", "ner")  # fail now, not after the first epoch
    run = start_run(
        TASK,
        config,
        architecture=ARCHITECTURE,
        lengths=Config.bucket_lengths,
        no_litert=NO_LITERT,
    )
    config = run.config
    with run.chief_first():
        corpus = data.load(config, seed=config.seed)
    built, reader, fitted = train_model(corpus, run)

    def score(served: Served, plots: Path) -> cli.Scored:
        rows = data.sentences(corpus.splits[config.score], corpus.labels)
        scored = evaluate.score(served, rows, entity_types(corpus.labels))
        types, truth, predicted = scored.confusion()
        report.confusion_matrix(truth, predicted, types, plots / "confusion_matrix.png")
        evaluate.print_report(scored)
        return scored

    release(
        run,
        corpus=corpus,
        fitted=fitted,
        signatures=serving.signatures(built, reader, corpus.labels, config.max_length, run.target),
        model=built,
        resources=[reader],
        examples=serving.examples(config.bucket_lengths(), config.word_length),
        settings={
            "labels": corpus.labels,
            **text_limits("tokens", config.max_length, serving.MOST),
        },
        score=score,
        card=make_card(corpus, config),
    )


def make_card(corpus: Corpus, config: Config) -> Card:
    """Return the task's texts for the model card."""
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
            "excluded), `length` [batch] int32.\n\n"
            '```\ncurl -d \'{"inputs": {"text": ["Ada Lovelace lived in London."]}}\' \\\n'
            "  http://localhost:8501/v1/models/ner:predict\n```\n\n"
            f"Tokens after the first {config.max_length} of a text are ignored. A text without a "
            "word has length 0. `tokens` accepts text that is already tokenised."
        ),
        data=(
            (f"Word vectors: `{config.vectors}`." if config.vectors else "")
            + (" GloVe 6B, licence: PDDL." if is_packaged else "")
        ),
    )


if __name__ == "__main__":
    cli.run(main)
