"""Do samples of music keep the habits of their corpus? Statistics for several temperatures.

    pip install -e '.[music]'
    python -m tests.benchmarks.samples --model saved_models/music

Samples of the network with the rules of `tasks/music/rules.py` and without them stand beside
training and test pieces. Silence before the first note is left out. The last line is one JSON
object.
"""

import argparse
import json
from pathlib import Path

from common.commands import report
from common.serving.served import load_export
from common.serving.versions import find
from tasks.music import generation, habits, midi
from tasks.music.evaluate import Evaluate, load_split
from tasks.music.habits import NO_HABITS
from tasks.music.midi import KEYS
from tasks.music.rules import CLASSES, SCALES

import numpy as np
import tensorflow as tf

LONG = 8  # quarter notes


def figures(pieces, steps_per_quarter, voices):
    """Return the statistics of pieces `<float>[time, 88]`."""
    pieces = [piece[(piece > 0.5).any(axis=1).argmax() :] for piece in pieces]
    rolls = [piece > 0.5 for piece in pieces]
    counts = np.concatenate([roll.sum(axis=1) for roll in rolls])
    changes = sum((roll[1:] != roll[:-1]).any(axis=1).sum() for roll in rolls)
    intervals = np.concatenate([midi.melody_intervals(roll) for roll in rolls])
    notes = [note for piece in pieces for note in midi.to_notes(piece)]
    lengths = np.array([end - start for _, start, end in notes])
    restruck = sum(int((piece > 1.5).sum()) for piece in pieces)
    halves = [
        midi.main_scale(piece[: len(piece) // 2]) == midi.main_scale(piece[len(piece) // 2 :])
        for piece in pieces
    ]
    return {
        "usual notes": float((counts == voices).mean()),
        "silent": float((counts == 0).mean()),
        "parallels": 100.0 * sum(map(habits.parallels, rolls)) / max(int(changes), 1),
        "leaps": float((np.abs(intervals) > habits.LEAP).mean()) if len(intervals) else 0.0,
        "long notes": int((lengths > LONG * steps_per_quarter).sum()),
        "out of scale": float(np.mean([_out_of_scale(roll) for roll in rolls])),
        "struck again": restruck / max(len(notes), 1),
        "one key": float(np.mean(halves)),
    }


def _out_of_scale(roll):
    """Return the fraction of notes outside the main scale of a piece."""
    inside = SCALES[midi.main_scale(roll)][CLASSES]
    return 1.0 - roll[:, inside].sum() / max(roll.sum(), 1)


def sampler(model, kept, steps):
    """Return a function that samples pieces with the seeds 0, 1, ..."""
    layers = generation.parts(model, kept)

    @tf.function
    def sample(temperature, seed):
        rows = tf.shape(seed)[0]
        return generation.generate(
            layers,
            prime=tf.zeros([rows, 1, KEYS]),
            prime_length=tf.zeros([rows], tf.int32),
            length=tf.fill([rows], steps),
            temperature=tf.fill([rows], temperature),
            top_p=tf.ones([rows]),
            seed=seed,
            steps=steps,
        )

    return lambda temperature, count: sample(
        tf.constant(temperature), tf.stack([tf.zeros(count, tf.int32), tf.range(count)], axis=1)
    ).numpy()


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.samples",
        description="Compare samples of music with the corpus.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", type=Path, default=Path("saved_models/music"), help="export")
    parser.add_argument("--data_dir", type=Path, help="prepared data sets")
    parser.add_argument("--manual_dir", type=Path, help="files of data sets")
    parser.add_argument("--count", type=int, default=10, help="samples for each temperature")
    parser.add_argument("--steps", type=int, default=128, help="frames of a sample")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 0.6, 0.8, 1.0])
    parser.add_argument("--no_rules", action="store_true", help="sample without rules, too")
    options = parser.parse_args()
    served = load_export(options.model, "music")
    flags = {"data_dir": options.data_dir, "manual_dir": options.manual_dir}
    pieces = {
        split: [row.notes for row in load_split(served, Evaluate(split=split, **flags))[2]]
        for split in ("train", "test")
    }
    kept = habits.learn(pieces["train"])
    per_quarter = served.settings["steps_per_quarter"]
    voices = kept.voices or int(np.bincount((np.concatenate(pieces["train"]) > 0).sum(1)).argmax())
    rows = [
        {"music": f"{split} pieces", **figures(notes, per_quarter, voices)}
        for split, notes in pieces.items()
    ]
    model = find(served.path).model
    for rules, own in (("rules", kept), ("no rules", NO_HABITS)):
        if own == NO_HABITS and not options.no_rules:
            continue
        sample = sampler(model, own, options.steps)
        for temperature in options.temperatures:
            notes = sample(temperature, 1 if temperature == 0 else options.count)
            row = {"music": f"T = {temperature:g}, {rules}"}
            rows.append({**row, **figures(list(notes), per_quarter, voices)})
    print(kept)
    print(report.table(rows))
    print(json.dumps({"benchmark": "samples", "model": str(served.path), "rows": rows}))


if __name__ == "__main__":
    main()
