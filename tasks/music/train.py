"""Train a model of music, export it, and score the export.

    python -m tasks.music.train                                   # Bach's chorales, from music21
    python -m tasks.music.train --dataset jsb_chorales --manual_dir DIR --score test
    python -m tasks.music.train --dataset jsb_chorales --manual_dir DIR --head independent
    python -m tasks.music.train --data my_midi_files
    python -m tasks.music.train --data my_midi_files --init saved_models/music/1

The last line is one JSON object; `seconds` in it is the training time, `nll` is in nats per frame.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.commands import cli
from common.commands.release import Card, release
from common.commands.run import Run, start_run, warm_start
from common.data import epoch_seed
from common.datasets import Corpus
from common.serving.rows import MOST_ROWS
from common.serving.served import Served
from common.training.fit import Fitted, Validated, fit
from tasks.music import evaluate, habits, midi, sample_statistics
from tasks.music.config import DEFAULT, MODE, MONITOR, NO_LITERT, PRESETS, TASK, Config
from tasks.music.formats import Piece

import numpy as np
from etils import epy

with epy.lazy_imports():
    from tasks.music import data, model, serving

    import keras

# Settings that `--init` copies from the published model.
ARCHITECTURE = ("head", "cell", "units", "layers", "key_units", "members")


def score_batches(batches: Validated) -> dict[str, float]:
    """Return the NLL per frame, in nats, of validation batches, from the second frame on."""
    total, frames = 0.0, 0
    for batch, outputs in batches:
        steps = np.arange(outputs["nll"].shape[1])
        scored = (steps >= batch["known"][:, None]) & (steps < batch["length"][:, None])
        total += float(outputs["nll"][scored].sum(dtype=np.float64))
        frames += int(scored.sum())
    return {"nll": total / frames} if frames else {}


def start(config: Config) -> Run[Config]:
    """Start the run; with `--init`, on the time grid of the published model."""
    run = start_run(TASK, config, architecture=ARCHITECTURE, no_litert=NO_LITERT)
    if run.published is None:
        return run
    steps = run.published.settings["steps_per_quarter"]
    return dataclasses.replace(run, config=dataclasses.replace(run.config, steps_per_quarter=steps))


def train_model(
    corpus: Corpus, rows: Mapping[str, Sequence[Piece]], run: Run[Config]
) -> tuple[keras.Model, Fitted]:
    """Build and fit a model; it holds the weights of the best epoch.

    Args:
      corpus: the data.
      rows: the pieces of each of its splits.
      run: the training run.
    """
    config, published = run.config, run.published
    low, high, frames = data.key_range(rows["train"])
    cli.say(f"{frames:,} training frames; keys {low} to {high} of 0 to {midi.KEYS - 1} sound")
    if published is not None:
        low, high = min(low, published.settings["low"]), max(high, published.settings["high"])
    steps = run.steps(len(rows["train"]))
    with run.strategy.scope():
        built = model.build(config, low=low, high=high, frames=frames)
        if published is not None:
            warm_start(built, published)
        optimizer = run.make_adam(steps)
    fitted = fit(
        built,
        optimizer=optimizer,
        losses=model.losses,
        train=lambda epoch: data.train_batches(
            rows["train"], config, low=low, high=high, seed=epoch_seed(config.seed, epoch)
        ),
        validation=data.validation_batches(rows["validation"]),
        score=score_batches,
        monitor=MONITOR,
        mode=MODE,
        options=run.fit_options(steps, corpus),
    )
    return built, fitted


def read_settings(argv: list[str]) -> Config:
    """Return the settings of a run."""
    return cli.parse_train(Config, PRESETS, default=DEFAULT, argv=argv, doc=__doc__)


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
    run = start(config)
    config = run.config
    steps_per_quarter, tempo = data.grid(config)
    with run.chief_first():
        corpus = data.load(config, steps_per_quarter=steps_per_quarter, seed=config.seed)
    rows = {split: data.pieces(corpus.splits[split]) for split in corpus.splits}
    if config.transpose is None:
        config = dataclasses.replace(config, transpose=data.choose_transposition(rows["train"]))
        run = dataclasses.replace(run, config=config)
        cli.say(f"training pieces are transposed by up to {config.transpose} semitones")
    built, fitted = train_model(corpus, rows, run)
    keys = built.get_layer("keys_0")
    learned = habits.learn([row.notes for row in rows["train"]])

    def score(served: Served, plots: Path) -> cli.Scored:
        scored = evaluate.score(served, rows[config.score])
        if config.samples:
            compared = sample_statistics.compare(
                served, rows["train"], rows[config.score], samples=config.samples
            )
            sample_statistics.print_comparison(compared)
            sample_statistics.draw_comparison(compared, plots / "samples.png")
        return scored

    return release(
        run,
        corpus=corpus,
        fitted=fitted,
        signatures=serving.signatures(built, run.target, learned),
        model=built,
        resources=[],
        examples=serving.examples(),
        settings={
            "steps_per_quarter": steps_per_quarter,
            "tempo": tempo,
            "lowest_note": midi.LOWEST,
            "habits": learned._asdict(),
            "low": keys.low,
            "high": keys.high,
            "max_frames": serving.LONGEST,
            "max_steps": serving.STEPS,
            "max_batch_frames": serving.MOST,
            "max_rows": MOST_ROWS,
            "sample_frames": int(np.median([len(row.notes) for row in rows["train"]])),
        },
        score=score,
        card=make_card(corpus, config, steps_per_quarter),
    )


def make_card(corpus: Corpus, config: Config, steps_per_quarter: int) -> Card:
    """Return the task's texts for the model card."""
    heads = {
        "joint": "each key given the keys below it in the frame and the past",
        "independent": "each key given the past alone",
    }
    return Card(
        limits=(
            f"Music of the kind of `{corpus.name}`, on a grid of {steps_per_quarter} frames per "
            "quarter note. It does not know when to end; new notes have one loudness and one "
            "instrument."
        ),
        title=f"Music: {corpus.name}",
        summary=(
            "Continues the first frames of a piece, or generates a piece from nothing. A frame is "
            "the set of piano keys that sound during one time step; frames per quarter note: "
            f"{steps_per_quarter}. {config.layers} {config.cell} layers of {config.units} units "
            "read the frames; a network with the same weights for all keys computes the "
            f"probability of {heads[config.head]}"
            + (f"; an ensemble of {config.members} such networks." * (config.members > 1) or ".")
        ),
        scores=(
            "`nll` is in nats per frame, over the frames from the second on; `frame_accuracy` is "
            "TP / (TP + FP + FN) over the keys of these frames."
            + (
                "\n\n![statistics of samples, held-out and training pieces]"
                "(assets.extra/samples.png)"
            )
            * bool(config.samples)
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
            f"The prime and the steps together have at most {serving.LONGEST:,} frames, the steps "
            f"{serving.STEPS:,}; for more, send the notes so far as the prime of another request. "
            "A row with more, or with NaN, a negative length, a temperature outside "
            f"0..{serving.HOTTEST:g} or a `top_p` outside 0..1, has `length` 0. So do the longest "
            "rows of a request whose rows, times the longest of them, are more than "
            f"{serving.MOST:,} frames."
        ),
    )


if __name__ == "__main__":
    cli.run(main)
