"""Train a speech recogniser, export it, and score the export.

    python -m tasks.speech.train                                        # synthetic speech, minutes
    python -m tasks.speech.train --dataset an4 --manual_dir DIR --score test
    python -m tasks.speech.train --dataset spoken_commands+an4 --manual_dir DIR  # together
    python -m tasks.speech.train --data recordings                      # metadata.csv or wav.scp
    python -m tasks.speech.train --data recordings --init saved_models/speech/1

The last line is one JSON object; `seconds` in it is the training time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from common.commands import cli
from common.commands.release import Card, describe_layers, release
from common.commands.run import Run, same_labels, start_run, warm_start
from common.data import epoch_seed
from common.datasets import Corpus
from common.errors import require
from common.serving.rows import MOST_ROWS
from common.serving.served import Served
from common.training.fit import Fitted, Validated, fit
from tasks.speech import evaluate, predict
from tasks.speech.audio import RATE
from tasks.speech.config import (
    DEFAULT,
    MIXABLE,
    MIXTURE,
    MODE,
    MONITOR,
    NO_LITERT,
    PRESETS,
    TASK,
    Config,
    preset_for_size,
)
from tasks.speech.formats import measure_folder

from etils import epy

with epy.lazy_imports():
    from common import ctc
    from tasks.speech import data, language_model, model, serving

    import keras
    import tensorflow as tf


# Settings that `--init` copies from the published model.
ARCHITECTURE = ("bands", "channels", "strides", "cell", "units", "layers", "streaming")


class Prepared(NamedTuple):
    """The data of a run.

    Attributes:
      corpus: its recordings.
      train: lengths and transcripts of the training split.
      validation: those of the validation split.
      letters: the letter of each label.
    """

    corpus: Corpus
    train: data.Survey
    validation: data.Survey
    letters: tuple[str, ...]

    @property
    def longest_label(self) -> int:
        """Number of letters of the longest transcript."""
        return max(map(len, self.train.texts + self.validation.texts))


def prepare(run: Run[Config]) -> Prepared:
    """Load the data and check it; the letters of a published model are kept if they suffice.

    Raises:
      InputError: the data is not available, or too many recordings are not usable; see `data.load`
        and `data.usable`.
    """
    config = run.config
    corpus = data.load(config, seed=config.seed, max_bad=config.max_bad, channel=config.channel)
    splits, surveys = dict(corpus.splits), {}
    for split in ("train", "validation"):
        listed = data.survey(splits[split])
        good, surveys[split] = data.usable(listed, config, split, source=corpus.name)
        splits[split] = data.keep(splits[split], good)
    corpus = dataclasses.replace(corpus, splits=splits)
    train, validation = surveys["train"], surveys["validation"]
    letters = data.alphabet(train.texts)
    if run.published is not None:
        published = tuple(run.published.settings["letters"])
        letters = published if set(letters) <= set(published) else letters
    return Prepared(corpus, train, validation, letters)


def read_settings(argv: list[str]) -> Config:
    """Return the settings; the preset of the user's own recordings follows from their size."""

    def own(config: Config) -> Config:
        assert config.data is not None
        return preset_for_size(*measure_folder(config.data))

    presets = cli.with_mixture(PRESETS, argv, like=MIXTURE, mixable=MIXABLE)
    return cli.parse_train(Config, presets, default=DEFAULT, own=own, argv=argv, doc=__doc__)


def build_model(letters: Sequence[str], run: Run[Config]) -> keras.Model:
    """Build a new model, or with `--init` one that starts from a published model.

    The head of a published model is kept if the letters are the same.
    """
    built = model.build(run.config, symbols=len(letters))
    if run.published is not None:
        head = None if same_labels(run.published, letters, name="letters") else model.HEAD
        warm_start(built, run.published, head=head)
    return built


def score_batches(
    batches: Validated, letters: Sequence[str], texts: Sequence[str]
) -> dict[str, float]:
    """Return the error rates of the most likely paths of validation batches.

    Args:
      batches: see `common.training.fit.fit`.
      letters: the letter of each label.
      texts: the transcript of each recording, of any letters.
    """
    truth, predicted = [], []
    for batch, outputs in batches:
        hypotheses = ctc.greedy(outputs["log_probs"], outputs["frames"])
        predicted += [data.spell(letters, row) for row in hypotheses.tokens[:, 0].numpy()]
        truth += [texts[number] for number in batch["number"]]
    if not truth:
        return {}
    rates = evaluate.metrics(truth, predicted)
    return {name: rates[name] for name in ("wer", "cer")}


def validation_batches(prepared: Prepared, config: Config) -> tf.data.Dataset:
    """Return the validation split in batches, without augmentation."""
    return data.to_batches(
        prepared.corpus.splits["validation"],
        prepared.letters,
        prepared.validation.bucket_lengths(config.buckets, 1.0),
        prepared.longest_label,
        config,
    )


def train_model(prepared: Prepared, run: Run[Config]) -> tuple[keras.Model, Fitted]:
    """Build and fit a model; it holds the weights of the best epoch."""
    config = run.config
    steps = run.steps(len(prepared.train.ids))
    with run.strategy.scope():
        built = build_model(prepared.letters, run)
        optimizer = run.make_adam(steps)
    slowest = 1.0 / (1.0 - config.speed)
    lengths = prepared.train.bucket_lengths(config.buckets, slowest, config.silence)

    def train(epoch: int) -> tf.data.Dataset:
        return data.to_batches(
            prepared.corpus.splits["train"],
            prepared.letters,
            lengths,
            prepared.longest_label,
            config,
            seed=epoch_seed(config.seed, epoch),
        )

    fitted = fit(
        built,
        optimizer=optimizer,
        losses=model.losses,
        train=train,
        validation=validation_batches(prepared, config),
        score=lambda batches: score_batches(batches, prepared.letters, prepared.validation.texts),
        monitor=MONITOR,
        mode=MODE,
        options=run.fit_options(steps, prepared.corpus),
    )
    return built, fitted


def make_recognizer(built: keras.Model, prepared: Prepared, run: Run[Config]) -> serving.Recognizer:
    """Add a beam search to a trained model; its parameters are chosen on the validation split."""
    config, letters = run.config, prepared.letters
    ngram = language_model.learn(prepared.train.texts, letters, config)
    batches = validation_batches(prepared, config)
    fusion = language_model.choose_fusion(
        built, batches, prepared.validation.texts, ngram, letters, config
    )
    return serving.Recognizer(
        built,
        letters,
        ngram,
        weight=fusion.weight,
        bonus=fusion.bonus,
        beam=config.beam,
        max_samples=int(config.max_seconds * RATE),
        target=run.target,
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
    require("jiwer", "speech")  # fail now, not after the first epoch
    run = start_run(TASK, config, architecture=ARCHITECTURE, no_litert=NO_LITERT)
    config = run.config
    with run.chief_first():
        prepared = prepare(run)
    built, fitted = train_model(prepared, run)
    lengths = prepared.train.bucket_lengths(min(config.buckets, 3), 1.0)
    # The lengths of an export with static shapes follow from the data.
    run = dataclasses.replace(run, target=dataclasses.replace(run.target, lengths=lengths))
    recognizer = make_recognizer(built, prepared, run)

    def score(served: Served, plots: Path) -> cli.Scored:
        recordings = prepared.corpus.splits[config.score]
        scored = evaluate.score(served, recordings)
        first = next(recordings.take(1).as_numpy_iterator())
        predict.draw(served, first["audio"], plots / "alignment.png")
        return scored

    return release(
        run,
        corpus=prepared.corpus,
        fitted=fitted,
        signatures=serving.signatures(recognizer),
        model=built,
        resources=recognizer.resources,
        examples=serving.examples(
            serving.example_lengths(recognizer.max_samples, run.target), recognizer
        ),
        settings={
            "letters": prepared.letters,
            "sample_rate": RATE,
            "max_samples": recognizer.max_samples,
            "max_batch_samples": serving.MOST,
            "max_rows": min(serving.MOST // recognizer.max_samples, MOST_ROWS),
            "step_seconds": 0.01 * math.prod(config.strides),
            "lm_weight": recognizer.weight,
            "bonus": recognizer.bonus,
            **serving.stream_settings(recognizer),
        },
        score=score,
        card=make_card(prepared, config, recognizer),
    )


def make_card(prepared: Prepared, config: Config, recognizer: serving.Recognizer) -> Card:
    """Return the task's texts for the model card."""
    layers = describe_layers(config.layers, config.cell, config.units)
    if config.streaming:
        layers = f"{config.layers} {config.cell} layers of {config.units} units that read forwards"
    hours = prepared.train.samples.sum() / RATE / 3600
    language = (
        f"a {config.order}-gram model of the training transcripts (weight {recognizer.weight}, "
        f"bonus {recognizer.bonus}, chosen on the validation split)"
        if config.order
        else "no language model"
    )
    return Card(
        title=f"Speech: {prepared.corpus.name}",
        summary=(
            "Transcribes a recording at 16 kHz to lower-case text. Log-mel features, two strided "
            f"convolutions, {layers}, CTC over "
            f"{len(prepared.letters)} letters; beam search with {language}."
        ),
        scores=(
            "Recordings were sent as raw samples. `wer` and `cer` are the errors over all words "
            "and letters of the split.\n\n"
            "![log-mel frames of a recording, with its letters](assets.extra/alignment.png)"
        ),
        usage=(
            "Signature `serving_default`: `audio` [batch, samples] float32 in -1..1 at 16 kHz, "
            "`length` [batch] int32 -> `text` [batch] string, `confidence` [batch] float32.\n\n"
            f"At most {config.max_seconds:g} s. A row that contains NaN, is silent, is shorter "
            'than 0.1 s, or is longer than the maximum or its tensor has the text "" and '
            "confidence 0. `python -m tasks.speech.predict FILE...` reads any sound file, "
            "resamples it, and splits long recordings."
        ),
        limits=(
            "English, in lower-case letters without punctuation. Words and voices like those of "
            f"`{prepared.corpus.name}` are transcribed best; it reads a recording as a whole, and "
            "does not transcribe while one speaks."
        ),
        data=f"{hours:.1f} h of sound in the training split.",
    )


if __name__ == "__main__":
    cli.run(main)
