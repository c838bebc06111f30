"""Trains a model of music, exports it, and scores the export.

    python -m tasks.music.train                                   # Bach's chorales, from music21
    python -m tasks.music.train --dataset jsb_chorales --manual_dir DIR --score test
    python -m tasks.music.train --dataset jsb_chorales --manual_dir DIR --head independent
    python -m tasks.music.train --data my_midi_files
    python -m tasks.music.train --data my_midi_files --init saved_models/music/1

The last line is one JSON object; `seconds` in it is the training time, `nll` is in nats a frame.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from common.commands import cli
from common.commands.release import Card, release
from common.data import epoch_seed
from common.datasets import Corpus
from common.serving import targets
from common.serving.served import Served, load_export
from common.training.distribution import chief_first, make_strategy, worker_index
from common.training.fit import Fitted, fit, set_up, take_weights, warmed_cosine
from tasks.music import data, evaluate, model, serving
from tasks.music.config import DEFAULT, PRESETS, Config

import keras
import numpy as np
import tensorflow as tf

# What a fine-tuned model takes over from the published one.
ARCHITECTURE = ("head", "cell", "units", "layers", "key_units", "members")


def score_batches(
    batches: Iterable[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]],
) -> dict[str, float]:
    """The NLL a frame, in nats, over validation batches: of the frames from the second on."""
    total, frames = 0.0, 0
    for batch, outputs in batches:
        total += float(outputs["nll"][:, 1:].sum(dtype=np.float64))
        frames += int(batch["length"].sum()) - len(batch["length"])
    return {"nll": total / frames} if frames else {}


def with_published(config: Config) -> Config:
    """These settings; for `--init` with the architecture and the grid of the published model."""
    if config.init is None:
        return config
    steps = load_export(config.init).settings["steps_per_quarter"]
    return dataclasses.replace(config.with_published(ARCHITECTURE), steps_per_quarter=steps)


def train_model(
    rows: Mapping[str, list[data.Piece]], config: Config, strategy: tf.distribute.Strategy
) -> tuple[keras.Model, Fitted]:
    """Builds and fits; the model holds the best epoch's weights."""
    low, high, frames = data.key_range(rows["train"])
    cli.say(f"{frames:,} frames to learn from; keys {low} to {high} of 0 to {data.KEYS - 1} sound")
    source = None if config.init is None else load_export(config.init)
    if source is not None:
        low, high = min(low, source.settings["low"]), max(high, source.settings["high"])
    with strategy.scope():
        built = model.build(config, low=low, high=high, frames=frames)
        if source is not None:
            take_weights(built, keras.models.load_model(source.path / "model.keras"))
        steps = math.ceil(len(rows["train"]) / config.batch_size) * config.epochs
        optimizer = keras.optimizers.Adam(warmed_cosine(config.learning_rate, steps=steps))
    fitted = fit(
        built,
        optimizer=optimizer,
        losses=model.losses,
        train=lambda epoch: data.train_batches(
            rows["train"], config, low=low, high=high, seed=epoch_seed(config.seed, epoch)
        ),
        validation=data.validation_batches(rows["validation"]),
        score=score_batches,
        monitor="nll",
        mode="min",
        directory=config.run_folder(evaluate.TASK, worker_index(strategy)),
        strategy=strategy,
        **config.fit_arguments(),
    )
    return built, fitted


def main(argv: list[str]) -> None:
    """Data, model, fit, export, score; see the module."""
    config = cli.parse_train(Config, PRESETS, default=DEFAULT, argv=argv, doc=__doc__)
    strategy = make_strategy(config.strategy)
    config = with_published(config)
    target = targets.choose(config.target, evaluate.TASK, no_litert=serving.NO_LITERT)
    set_up(seed=config.seed, deterministic=config.deterministic, precision=config.precision)
    steps_per_quarter, tempo = data.grid(config)
    with chief_first(strategy):
        corpus = data.load(config, steps_per_quarter=steps_per_quarter, seed=config.seed)
    rows = {split: data.pieces(corpus.splits[split]) for split in corpus.splits}
    built, fitted = train_model(rows, config, strategy)
    keys = built.get_layer("keys_0")

    def score(served: Served, plots: Path) -> tuple[int, dict[str, float]]:
        scored = evaluate.score(served, rows[config.score])
        compared = evaluate.compare(served, rows["train"], rows[config.score])
        evaluate.print_comparison(compared)
        evaluate.draw_comparison(compared, plots / "samples.png")
        return scored.count, scored.metrics

    release(
        task=evaluate.TASK,
        config=config,
        strategy=strategy,
        corpus=corpus,
        fitted=fitted,
        signatures=serving.signatures(built, target),
        model=built,
        resources=[],
        examples=serving.examples(),
        settings={
            "steps_per_quarter": steps_per_quarter,
            "tempo": tempo,
            "lowest_note": data.midi.LOWEST,
            "low": keys.low,
            "high": keys.high,
            "max_frames": serving.LONGEST,
            "sample_frames": int(np.median([len(row.notes) for row in rows["train"]])),
        },
        score=score,
        card=make_card(corpus, config, steps_per_quarter),
        target=target,
    )


def make_card(corpus: Corpus, config: Config, steps_per_quarter: int) -> Card:
    """The model card's own words."""
    heads = {
        "joint": "each key given the keys below it in the frame and the past",
        "independent": "each key given the past alone",
    }
    return Card(
        title=f"Music: {corpus.name}",
        summary=(
            f"Goes on from the first frames of music, or from nothing. A frame is the set of piano "
            f"keys that sound; a quarter note takes {steps_per_quarter}. {config.layers} "
            f"{config.cell} layers of {config.units} units read the frames; a network that all "
            f"keys share gives the probability of {heads[config.head]}"
            + (f"; the mean of {config.members} such networks." if config.members > 1 else ".")
        ),
        scores=(
            "`nll` is in nats a frame, over the frames from the second on; `frame_accuracy` is "
            "TP / (TP + FP + FN) over the keys of these frames.\n\n"
            "![samples beside the training pieces](assets.extra/samples.png)"
        ),
        usage=(
            "Signature `serving_default`: `prime` [batch, time, 88] float32, `prime_length` "
            "[batch] int32 (0 = from nothing), `steps` [batch] int32, `temperature` [batch] "
            "float32, `top_p` [batch] float32, `seed` [batch, 2] int32 -> `notes` [batch, time, "
            "88] float32 (the prime first; column k is MIDI note 21 + k), `length` [batch] int32."
            "\n\n```\nzeros=$(printf '0,%.0s' {1..87})0\n"
            'curl -d "{\\"inputs\\": {\\"prime\\": [[[$zeros]]], \\"prime_length\\": [0], '
            '\\"steps\\": [32], \\"temperature\\": [1.0], \\"top_p\\": [1.0], \\"seed\\": '
            '[[0, 7]]}}" \\\n  http://localhost:8501/v1/models/music:predict\n```\n\n'
            f"The prime and the steps together are {serving.LONGEST:,} frames at most. A row "
            "beyond that, or with NaN, a negative length or temperature, or a `top_p` outside "
            "0..1, gets `length` 0."
        ),
    )


if __name__ == "__main__":
    cli.run(main)
