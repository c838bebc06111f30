"""Train a translator, export it, and score the export.

    python -m tasks.translation.train                                   # Tatoeba, about an hour
    python -m tasks.translation.train --dataset phrase_book             # no download, minutes
    python -m tasks.translation.train --source en --target_language fr  # the other direction
    python -m tasks.translation.train --dataset tatoeba --manual_dir DIR --score test
    python -m tasks.translation.train --data my.tsv                     # source TAB target
    python -m tasks.translation.train --data corpus.fr                  # and corpus.en next to it
    python -m tasks.translation.train --data my.tsv --init saved_models/translation/1

The last line is one JSON object; `seconds` in it is the training time.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common import tables
from common.commands import cli
from common.commands.release import Card, release
from common.commands.run import Run, start_run, warm_start
from common.data import epoch_seed, map_in_order
from common.datasets import Corpus
from common.errors import require
from common.files import hash_files
from common.serving.rows import text_limits
from common.serving.served import Served
from common.serving.versions import Published
from common.training.distribution import worker_rows
from common.training.fit import Fitted, Score, Validated, fit
from tasks.translation import evaluate, predict
from tasks.translation.config import (
    DEFAULT,
    MIXABLE,
    MIXTURE,
    MODE,
    MONITOR,
    MOST_PAIRS,
    NO_LITERT,
    OFFLINE,
    PRESETS,
    TASK,
    Config,
    preset_for_size,
)
from tasks.translation.formats import count_pairs

import numpy as np
from etils import epy

with epy.lazy_imports():
    from tasks.translation import data, dictionary, model, serving, shortlist, sources, subwords

    import keras
    import tensorflow as tf


# Settings that `--init` copies from the published model.
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
    "lexical",
    "members",
)
VALIDATED = 1000  # sources that are translated after each epoch for the validation BLEU
REFERENCES = 100_000  # validation pairs among which all their references are found
SOURCE, TARGET = "source_subwords.txt", "target_subwords.txt"
SHORTLIST = "shortlist.npz"
# In the model card, in the language that the model reads.
QUESTIONS = {
    "de": "Wo ist der Bahnhof?",
    "en": "Where is the station?",
    "fr": "Où est la gare ?",
    "pt": "Onde fica a estação?",
}


class Vocabularies(NamedTuple):
    """The subwords of both languages; the same object twice if the languages share them."""

    reader: subwords.Subwords
    writer: subwords.Subwords


def subword_files(config: Config) -> list[str]:
    """Return the names of the files that hold the subwords of the source and of the target."""
    return [TARGET] if config.shared_subwords else [SOURCE, TARGET]


def new_vocabularies(corpus: Corpus, config: Config, folder: Path) -> Vocabularies:
    """Learn the subwords of both languages from the training split."""
    pairs = data.sample(corpus).batch(4096)  # much faster than one by one

    def read() -> Iterator[bytes]:
        for batch in pairs:
            yield from sources.prepare(batch["source"])[0].numpy().tolist()

    def written() -> Iterator[bytes]:
        for batch in pairs:
            yield from batch["target"].numpy().tolist()

    if config.shared_subwords:
        both_sides = itertools.chain(read(), written())
        subwords.learn(both_sides, folder / TARGET, size=config.target_subwords)
        both = subwords.Subwords(folder / TARGET)
        return Vocabularies(both, both)
    subwords.learn(read(), folder / SOURCE, size=config.source_subwords)
    subwords.learn(written(), folder / TARGET, size=config.target_subwords)
    return Vocabularies(subwords.Subwords(folder / SOURCE), subwords.Subwords(folder / TARGET))


def published_vocabularies(published: Published, config: Config, folder: Path) -> Vocabularies:
    """Copy the subwords of a published model."""
    copies = [shutil.copy(published.asset(name), folder) for name in subword_files(config)]
    learnt = [subwords.Subwords(copy) for copy in copies]
    return Vocabularies(learnt[0], learnt[-1])


def add_dictionary(corpus: Corpus) -> Corpus:
    """Return a corpus whose training split has rare words with their translations, too."""
    words = dictionary.learn(data.sampled_pairs(corpus))
    cli.say(f"{len(words):,} rare words with their translations are training pairs, too")
    if not words:
        return corpus
    train = corpus.splits["train"].concatenate(data.as_dataset(words))
    return dataclasses.replace(corpus, splits={**corpus.splits, "train": train})


def choose_copies(
    corpus: Corpus, vocabularies: Vocabularies, published: Published | None
) -> Sequence[str]:
    """Return the kinds of words that are copied: those of the published model, or of the corpus."""
    if published is not None:
        return published.settings["copies"]
    pairs = data.sample(corpus)
    kinds, count = sources.choose_kinds(pairs, *vocabularies)
    shown = f"{' and '.join(kinds)} are copied" if kinds else "no words are copied"
    sampled = "" if int(pairs.cardinality()) == corpus.size("train") else "sampled "
    cli.say(f"{shown}: {count:,} words of the {sampled}training pairs can teach it")
    return kinds


def store_ids(
    corpus: Corpus, split: str, run: Run[Config], kinds: Sequence[str], *, kept: bool
) -> Callable[[tables.Write], tables.Table]:
    """Return the place for the ids of a split: in memory, or on disk as its pairs are.

    Args:
      corpus: the pairs.
      split: which of them.
      run: the settings.
      kinds: of words that are copied.
      kept: whether the next start uses the ids again, unless the subwords differ.
    """
    if not corpus.identity:
        return tables.in_memory
    root = tables.own_folder(TASK, run.config.data_dir)
    if not kept:
        return functools.partial(tables.on_scratch, root)
    learned = hash_files([run.folder / name for name in subword_files(run.config)], run.folder)
    key = ["ids", corpus.identity, split, learned, list(kinds), run.config.max_length]
    key.append(run.config.dictionary)
    message = f"encoding the {corpus.size(split):,} pairs of {split} once"
    return lambda write: tables.on_disk(root, key, write, message)


def make_shortlist(
    encoded: data.Encoded, vocabularies: Vocabularies, run: Run[Config]
) -> shortlist.Shortlist | None:
    """Learn which subwords translations may contain; with `--init`, those of its model are added.

    None if all may be contained: in an export of static shapes, or with a published model that has
    no short-list.
    """
    if not run.config.candidates or run.target.name == "tpu":
        return None
    source, target = encoded.ragged(shortlist.learned_from(len(encoded)))
    lists = shortlist.learn(source, target[:, 1:], *vocabularies, count=run.config.candidates)
    if run.published is not None:
        before = run.published.asset(SHORTLIST)
        if not before.is_file():
            return None
        lists = shortlist.merge(lists, shortlist.read(before))
    path = run.folder / SHORTLIST
    shortlist.write(path, lists)
    return shortlist.Shortlist(path, len(vocabularies.writer))


def describe_run(built: keras.Model, encoded: data.Encoded, steps: int, config: Config) -> str:
    """Return the sizes of a run, and on a CPU about how long it will take."""
    read, written = (int(lengths.sum(dtype=np.int64)) for lengths in encoded.lengths)
    text = (
        f"{len(encoded):,} training pairs of {read:,} and {written:,} "
        f"subwords; {built.count_params():,} weights; {steps:,} steps, epochs: {config.epochs}"
    )
    if tf.config.list_physical_devices("GPU") or config.strategy != "one":
        return text
    seconds = model.training_seconds(built, read, written) * config.epochs
    return f"{text}, about {max(1, round(seconds / 60))} min on this machine"


def make_score(
    built: keras.Model,
    vocabularies: Vocabularies,
    pairs: tf.data.Dataset,
    config: Config,
    kinds: Sequence[str],
) -> Score:
    """Make the validation score: of greedy translations of the first sources.

    BLEU is 0 where targets have fewer than four words, so training watches chrF.
    """
    reader, writer = vocabularies
    by_source = evaluate.references_by_source(pairs.take(REFERENCES))
    texts = list(by_source)[:VALIDATED]
    references = [by_source[text] for text in texts]

    @tf.function(reduce_retracing=True)
    def translate(text: tf.Tensor) -> tf.Tensor:
        source = sources.encode_source(reader, text, max_length=config.max_length, kinds=kinds)
        best = model.translate(built, source.ids, source.length, max_length=config.max_length)
        return source.decode(writer, best.tokens[:, 0], best.length[:, 0])

    def translate_batch(texts: list[str]) -> list[str]:
        return [text.decode() for text in translate(tf.constant(texts)).numpy()]

    def score(batches: Validated) -> dict[str, float]:
        for _ in batches:  # `fit` computes the loss from them
            pass
        translations = list(map_in_order(translate_batch, texts, batch_size=128, length_of=len))
        scores, _ = evaluate.metrics(translations, references)
        return {name: scores[name] for name in ("bleu", "chrf")}

    return score


class Trained(NamedTuple):
    """A fitted model, with what its export needs.

    Attributes:
      model: it holds the weights of the best epoch.
      vocabularies: the subwords of both languages.
      kinds: kinds of words that are copied.
      fitted: the course of the training.
      candidates: the subwords that translations may contain; None: all.
    """

    model: keras.Model
    vocabularies: Vocabularies
    kinds: Sequence[str]
    fitted: Fitted
    candidates: shortlist.Shortlist | None


def train_model(corpus: Corpus, run: Run[Config]) -> Trained:
    """Build and fit a model.

    With `--init`, the model starts from a published one, whose subwords are kept.
    """
    config, published = run.config, run.published
    corpus = add_dictionary(corpus) if config.dictionary else corpus
    if published is None:
        vocabularies = new_vocabularies(corpus, config, run.folder)
    else:
        vocabularies = published_vocabularies(published, config, run.folder)
    reader, writer = vocabularies
    kinds = choose_copies(corpus, vocabularies, published)

    own = functools.partial(worker_rows, strategy=run.strategy)

    def encode(split: str, *, dropout: float = 0.0, seed: int = 0) -> data.Encoded:
        return data.encode(
            corpus.splits[split],
            reader,
            writer,
            max_length=config.max_length,
            kinds=kinds,
            subword_dropout=dropout,
            seed=seed,
            store=store_ids(corpus, split, run, kinds, kept=not dropout),
        )

    without_dropout = encode("train")
    kept, pairs = len(without_dropout), corpus.size("train")
    if kept < pairs:
        longest = f"more than {config.max_length} subwords"
        cli.say(f"dropped {pairs - kept:,} of {pairs:,} training pairs: {longest}")

    def train(epoch: int) -> tf.data.Dataset:
        seed = epoch_seed(config.seed, epoch)
        dropout = config.subword_dropout
        encoded = encode("train", dropout=dropout, seed=seed) if dropout else without_dropout
        return data.to_batches(encoded, batch_size=config.batch_size, shuffle_seed=seed, own=own)

    steps = run.steps(kept)
    with run.strategy.scope():
        built = model.build(config, source_size=len(reader), target_size=len(writer))
        if published is not None:
            warm_start(built, published)
        optimizer = run.make_adam(steps, beta_2=0.98)
    cli.say(describe_run(built, without_dropout, steps, config))
    fitted = fit(
        built,
        optimizer=optimizer,
        losses=model.make_losses(built, label_smoothing=config.label_smoothing),
        train=train,
        validation=data.to_batches(encode("validation"), batch_size=config.batch_size, own=own),
        score=make_score(built, vocabularies, corpus.splits["validation"], config, kinds),
        monitor=MONITOR,
        mode=MODE,
        options=run.fit_options(
            steps, corpus, [run.folder / name for name in subword_files(config)]
        ),
    )
    candidates = make_shortlist(without_dropout, vocabularies, run)
    return Trained(built, vocabularies, kinds, fitted, candidates)


def read_settings(argv: list[str]) -> Config:
    """Return the settings of a run; without `--preset`, those of own data follow from its size."""
    presets = cli.with_mixture(PRESETS, argv, like=MIXTURE, mixable=MIXABLE)
    config = cli.parse_train(Config, presets, default=DEFAULT, argv=argv, doc=__doc__)
    if config.preset is not None:
        start = dataclasses.replace(PRESETS[config.preset], dataset=config.dataset)
    elif config.data is not None:
        columns = (config.source_column, config.target_column)
        languages = (config.source, config.target_language)
        start = preset_for_size(count_pairs(config.data, languages, columns, MOST_PAIRS // 2 + 1))
    else:
        return config
    presets = {config.dataset or "own": start}
    return cli.parse_train(Config, presets, default=min(presets), argv=argv, doc=__doc__)


def read_offline_settings(argv: list[str]) -> Callable[[], Config] | None:
    """Return a function that returns the settings for `OFFLINE`; None if the user named data."""
    if any(word.partition("=")[0] in ("--dataset", "--data") for word in argv):
        return None

    def read() -> Config:
        named = cli.parse_train(Config, PRESETS, default=DEFAULT, argv=argv, doc=__doc__).preset
        presets = {OFFLINE: dataclasses.replace(PRESETS[named or OFFLINE], dataset=OFFLINE)}
        return cli.parse_train(Config, presets, default=OFFLINE, argv=argv, doc=__doc__)

    return read


def with_obtainable_data(run: Run[Config], offline: Callable[[], Config] | None) -> Run[Config]:
    """Return the run, on the data set `OFFLINE` if that of `DEFAULT` cannot be had."""
    reason = data.why_not_obtainable(DEFAULT, run.config) if offline else None
    if offline is None or not reason:
        return run
    cli.say(f"training on {OFFLINE} alone instead of {DEFAULT}: {reason}")
    config = offline()
    if run.published is not None:
        config = config.with_architecture(run.published.settings["config"], ARCHITECTURE)
    return dataclasses.replace(run, config=config)


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
    require("sacrebleu", "translation")  # fail now, not after the first epoch
    run = start_run(
        TASK,
        config,
        architecture=ARCHITECTURE,
        lengths=Config.bucket_lengths,
        no_litert=NO_LITERT,
    )
    run = with_obtainable_data(run, offline)
    config = run.config
    languages = (config.source, config.target_language)
    columns = (config.source_column, config.target_column)
    with run.chief_first():
        corpus = data.load(config, languages=languages, seed=config.seed, columns=columns)
    cli.say(f"{corpus.size('train'):,} training pairs, {' to '.join(languages)}: learning subwords")
    built, (reader, writer), kinds, fitted, candidates = train_model(corpus, run)

    def score(served: Served, plots: Path) -> cli.Scored:
        scored = evaluate.score(served, corpus.splits[config.score])
        evaluate.print_report(scored)
        predict.draw(served, max(scored.sources[:50], key=len), plots / "attention.png")
        return scored

    return release(
        run,
        corpus=corpus,
        fitted=fitted,
        signatures=serving.signatures(
            built,
            reader,
            writer,
            max_length=config.max_length,
            beam=config.beam,
            alpha=config.length_penalty,
            kinds=kinds,
            shortlist=candidates,
            target=run.target,
        ),
        model=built,
        resources=[x for x in dict.fromkeys((reader, writer, candidates)) if x is not None],
        examples=serving.examples(config.max_length),
        settings={
            "languages": languages,
            "copies": kinds,
            **text_limits("subwords", config.max_length, serving.MOST),
        },
        score=score,
        card=make_card(corpus, config),
    )


def make_card(corpus: Corpus, config: Config) -> Card:
    """Return the task's texts for the model card."""
    feeding = ", input feeding" if config.input_feeding else ""
    members = f"; the mean of {config.members} such networks" if config.members > 1 else ""
    question = QUESTIONS.get(config.source, "...")
    return Card(
        title=f"Translation: {corpus.name}, {config.source} to {config.target_language}",
        summary=(
            f"Reads a sentence in {config.source!r} and writes it in {config.target_language!r}. "
            f"Subwords; an encoder of {config.encoder_layers} bidirectional {config.cell} "
            f"layer(s) and a decoder of {config.decoder_layers} layer(s) of {config.units} units "
            f"with {config.attention} attention{feeding}{members}; beam search with {config.beam} "
            "hypotheses."
        ),
        scores=(
            "Raw texts were sent. Each distinct source was translated once and compared with all "
            "its references by sacrebleu.\n\n![attention](assets.extra/attention.png)"
        ),
        usage=(
            "Signature `serving_default`: `text` [batch] string -> `translation` [batch] string, "
            "`score` [batch] float32, the length-normalised log-probability, `truncated` [batch] "
            "bool, whether the end of the text or of its translation is missing.\n\n"
            f'```\ncurl -d \'{{"inputs": {{"text": ["{question}"]}}}}\' \\\n'
            "  http://localhost:8501/v1/models/translation:predict\n```\n\n"
            f"Texts and translations are truncated to {config.max_length} subwords. The "
            'translation of an empty text is "" with score 0.'
        ),
        limits=(
            f"Sentences like those of `{corpus.name}`. It never refuses: words that it does not "
            "know, and texts in another language, get a fluent but wrong translation "
            "with a low score."
        ),
    )


if __name__ == "__main__":
    cli.run(main)
