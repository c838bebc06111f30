"""Trains a speech recogniser, exports it, and scores the export.

    python -m tasks.speech.train                                        # synthetic speech, minutes
    python -m tasks.speech.train --dataset an4 --manual_dir DIR --score test
    python -m tasks.speech.train --data recordings                      # metadata.csv or wav.scp
    python -m tasks.speech.train --data recordings --init saved_models/speech/1

The last line is one JSON object; `seconds` in it is the training time.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common import ctc
from common.commands import cli
from common.commands.release import Card, release
from common.data import epoch_seed
from common.datasets import Corpus
from common.errors import require
from common.serving import targets
from common.serving.served import Served, load_export
from common.training.distribution import chief_first, make_strategy, worker_index
from common.training.fit import Fitted, fit, set_up, take_weights, warmed_cosine
from tasks.speech import data, evaluate, model, predict, serving
from tasks.speech.config import DEFAULT, PRESETS, Config
from tasks.speech.features import RATE

import keras
import numpy as np
import tensorflow as tf

# What a fine-tuned model takes over from the published one.
ARCHITECTURE = ("bands", "channels", "strides", "cell", "units", "layers")
# The language model learns from so many letters at most, and its weight is chosen on so many
# recordings: more takes minutes and changes little.
MOST_LETTERS = 2_000_000
MOST_CHOSEN_ON = 300


class Prepared(NamedTuple):
    """A corpus, and what a pass over it has found."""

    corpus: Corpus
    train: data.Survey
    validation: data.Survey
    letters: tuple[str, ...]

    @property
    def longest_label(self) -> int:
        """Letters of the longest transcript."""
        return max(map(len, self.train.texts + self.validation.texts))


def prepare(config: Config) -> Prepared:
    """Loads the data, and looks for recordings from which nothing can be learnt.

    Raises:
      InputError: the data cannot be had or read, or there are such recordings; see `data.check`.
    """
    corpus = data.load(config, seed=config.seed)
    train = data.survey(corpus.splits["train"])
    validation = data.survey(corpus.splits["validation"])
    data.check(train, config, "train")
    data.check(validation, dataclasses.replace(config, speed=0.0), "validation")
    letters = data.alphabet(train.texts)
    if config.init is not None:
        published = tuple(load_export(config.init).settings["letters"])
        letters = published if set(letters) <= set(published) else letters
    return Prepared(corpus, train, validation, letters)


def new_model(config: Config, letters: Sequence[str]) -> keras.Model:
    """Builds a model, for `--init` with published weights: its head, too, if the letters agree."""
    built = model.build(config, symbols=len(letters))
    if config.init is not None:
        source = load_export(config.init)
        old = keras.models.load_model(source.path / "model.keras")
        same = tuple(source.settings["letters"]) == tuple(letters)
        take_weights(built, old, but=None if same else model.HEAD)
    return built


def spell(letters: Sequence[str], tokens: Iterable[int]) -> str:
    """Labels as text; -1 is nothing."""
    return " ".join("".join(letters[token] for token in tokens if token >= 0).split())


def score_batches(
    batches: Iterable[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]],
    letters: Sequence[str],
) -> dict[str, float]:
    """Error rates of the most likely paths over validation batches, without language model."""
    truth, said = [], []
    for batch, outputs in batches:
        found = ctc.greedy(outputs["log_probs"], outputs["frames"])
        said += [spell(letters, row) for row in found.tokens[:, 0].numpy()]
        for row, length in zip(batch["label"], batch["label_length"], strict=True):
            truth.append(spell(letters, row[:length]))
    if not truth:
        return {}
    found = evaluate.metrics(truth, said)
    return {"wer": found["wer"], "cer": found["cer"]}


def train_model(
    prepared: Prepared, config: Config, folder: Path, strategy: tf.distribute.Strategy
) -> tuple[keras.Model, Fitted]:
    """Builds and fits; the model holds the best epoch's weights."""
    with strategy.scope():
        built = new_model(config, prepared.letters)
        steps = math.ceil(len(prepared.train.ids) / config.batch_size)
        schedule = warmed_cosine(config.learning_rate, steps=steps * config.epochs)
        optimizer = keras.optimizers.Adam(schedule)
    lengths = prepared.train.bucket_lengths(config.buckets, 1.0 / (1.0 - config.speed))
    fitted = fit(
        built,
        optimizer=optimizer,
        losses=model.losses,
        train=lambda epoch: data.to_batches(
            prepared.corpus.splits["train"],
            prepared.letters,
            lengths,
            prepared.longest_label,
            config,
            seed=epoch_seed(config.seed, epoch),
        ),
        validation=validation_batches(prepared, config),
        score=lambda batches: score_batches(batches, prepared.letters),
        monitor="wer",
        mode="min",
        directory=folder,
        strategy=strategy,
        **config.fit_arguments(),
    )
    return built, fitted


def validation_batches(prepared: Prepared, config: Config) -> tf.data.Dataset:
    """The validation split as it is, in batches."""
    return data.to_batches(
        prepared.corpus.splits["validation"],
        prepared.letters,
        prepared.validation.bucket_lengths(config.buckets, 1.0),
        prepared.longest_label,
        config,
    )


def learn_language(prepared: Prepared, config: Config) -> ctc.Ngram | None:
    """An n-gram model of the training transcripts."""
    if not config.order:
        return None
    place = {letter: number for number, letter in enumerate(prepared.letters)}
    texts, count = [], 0
    for text in prepared.train.texts:
        texts.append([place[letter] for letter in text])
        count += len(text)
        if count > MOST_LETTERS:
            break
    return ctc.Ngram(
        texts, symbols=len(prepared.letters), order=config.order, min_count=config.min_count
    )


def choose_fusion(
    built: keras.Model, language_model: ctc.Ngram | None, prepared: Prepared, config: Config
) -> tuple[float, float]:
    """The weight of the language model and the bonus with the fewest validation errors."""
    if language_model is None:
        return 0.0, 0.0

    @tf.function(reduce_retracing=True)
    def ask(inputs: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = built(inputs, training=False)
        return outputs["log_probs"], outputs["frames"]

    @tf.function(reduce_retracing=True)
    def search(log_probs: Any, frames: Any, weight: tf.Tensor, bonus: tf.Tensor) -> tf.Tensor:
        found = ctc.beam_search(
            log_probs,
            frames,
            width=config.beam,
            language_model=language_model,
            weight=weight,
            bonus=bonus,
        )
        return found.tokens[:, 0]

    heard, truth = [], []
    for batch in validation_batches(prepared, config):
        heard.append(ask({name: batch[name] for name in built.input}))
        for row, length in zip(batch["label"].numpy(), batch["label_length"].numpy(), strict=True):
            truth.append(spell(prepared.letters, row[:length]))
        if len(truth) >= MOST_CHOSEN_ON:
            break
    errors = {}
    for weight, bonus in itertools.product(config.lm_weights, config.bonuses):
        arguments = tf.constant(weight), tf.constant(bonus)
        said = [
            spell(prepared.letters, row)
            for pair in heard
            for row in search(*pair, *arguments).numpy()
        ]
        found = evaluate.metrics(truth, said)
        errors[weight, bonus] = found["wer"], found["cer"]
    best = min(errors, key=errors.get)
    cli.say(
        f"language model: weight {best[0]}, bonus {best[1]} (validation WER {errors[best][0]:.4f}, "
        f"CER {errors[best][1]:.4f})"
    )
    return best


def main(argv: list[str]) -> None:
    """Data, model, fit, export, score; see the module."""
    config = cli.parse_train(Config, PRESETS, default=DEFAULT, argv=argv, doc=__doc__)
    require("jiwer", "speech")  # now, not after the first epoch
    strategy = make_strategy(config.strategy)
    config = config.with_published(ARCHITECTURE)
    target = targets.choose(config.target, evaluate.TASK, no_litert=serving.NO_LITERT)
    set_up(seed=config.seed, deterministic=config.deterministic, precision=config.precision)
    with chief_first(strategy):
        prepared = prepare(config)
    folder = config.run_folder(evaluate.TASK, worker_index(strategy))
    built, fitted = train_model(prepared, config, folder, strategy)
    language_model = learn_language(prepared, config)
    weight, bonus = choose_fusion(built, language_model, prepared, config)
    lengths = prepared.train.bucket_lengths(min(config.buckets, 3), 1.0)
    target = dataclasses.replace(target, lengths=lengths)
    recognizer = serving.Recognizer(
        built,
        prepared.letters,
        language_model,
        weight=weight,
        bonus=bonus,
        beam=config.beam,
        max_samples=int(config.max_seconds * RATE),
        target=target,
    )

    def score(served: Served, plots: Path) -> tuple[int, dict[str, float]]:
        rows = prepared.corpus.splits[config.score]
        scored = evaluate.score(served, rows)
        first = next(rows.take(1).as_numpy_iterator())
        predict.draw(served, first["audio"], plots / "alignment.png")
        return len(scored.said), scored.metrics

    release(
        task=evaluate.TASK,
        config=config,
        strategy=strategy,
        corpus=prepared.corpus,
        fitted=fitted,
        signatures=serving.signatures(recognizer),
        model=built,
        resources=[recognizer],
        examples=serving.examples(lengths),
        settings={
            "letters": prepared.letters,
            "sample_rate": RATE,
            "max_samples": recognizer.max_samples,
            "step_seconds": 0.01 * math.prod(config.strides),
            "lm_weight": weight,
            "bonus": bonus,
        },
        score=score,
        card=make_card(prepared, config, weight, bonus),
        target=target,
    )


def make_card(prepared: Prepared, config: Config, weight: float, bonus: float) -> Card:
    """The model card's own words."""
    hours = prepared.train.samples.sum() / RATE / 3600
    language = (
        f"a {config.order}-gram model of the training transcripts (weight {weight}, bonus {bonus}, "
        "chosen on the validation split)"
        if config.order
        else "no language model"
    )
    return Card(
        title=f"Speech: {prepared.corpus.name}",
        summary=(
            "Reads a recording at 16 kHz and gives its text in small letters. Log-mel frames, two "
            f"strided convolutions, {config.layers} bidirectional {config.cell} "
            f"layer{'s' * (config.layers > 1)} of {config.units} units each way, "
            f"CTC over {len(prepared.letters)} letters; beam search with {language}."
        ),
        scores=(
            "Recordings went in. `wer` and `cer` are errors over all words and letters of the "
            "split.\n\n![a recording, and where its letters are heard](assets.extra/alignment.png)"
        ),
        usage=(
            "Signature `serving_default`: `audio` [batch, samples] float32 in -1..1 at 16 kHz, "
            "`length` [batch] int32 -> `text` [batch] string, `confidence` [batch] float32.\n\n"
            f"At most {config.max_seconds:g} s. A row that holds NaN, is silent, shorter than 0.1 "
            's, or longer than that or than its tensor gets the text "" and confidence 0. '
            "`python -m tasks.speech.predict FILE...` reads any sound file, cuts long ones, and "
            "resamples."
        ),
        data=f"{hours:.1f} h of sound to learn from.",
    )


if __name__ == "__main__":
    cli.run(main)
