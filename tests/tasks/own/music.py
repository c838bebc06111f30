"""Chords that follow each other by a rule, and a tiny model that learns it."""

from tasks.music import midi
from tasks.music.midi import KEYS

import numpy as np

CHORDS = {
    "C": (27, 39, 43, 46),
    "F": (32, 39, 44, 48),
    "G": (34, 38, 43, 46),
    "a": (36, 39, 43, 48),
}


def chord_piece(random, bars=6):
    """Return a piece of chords, each for two frames; most chords follow from the previous one."""
    names, chosen = list(CHORDS), ["C"]
    for _ in range(bars - 1):
        following = names[(names.index(chosen[-1]) + 1) % 4]
        chosen.append(following if random.random() < 0.8 else names[random.integers(4)])
    frames = np.zeros((2 * bars, KEYS), np.uint8)
    for bar, name in enumerate(chosen):
        frames[2 * bar : 2 * bar + 2, CHORDS[name]] = 1
    return frames


def write_midi(path, frames, **kwargs):
    song = midi.to_song(frames, **{"steps_per_quarter": 1, "tempo": 90, **kwargs})
    path.write_bytes(midi.midi_bytes(song))
    return path


def write_folder(folder, count, seed):
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        write_midi(folder / f"{number:03}.mid", chord_piece(random, 8 + int(random.integers(5))))
    return folder


TINY = ["--units", "16", "--layers", "1", "--key_units", "8", "--verbose", "0", "--average", "0"]
TINY += ["--dropout", "0", "--input_dropout", "0", "--key_dropout", "0", "--learning_rate", "0.03"]
TINY += ["--steps_per_quarter", "1", "--samples", "8"]
TRAIN = ("--data", "midi", "--epochs", 15, "--score", "test", *TINY, "--batch_size", 8)


def write_data(folder):
    write_folder(folder / "midi", 80, seed=0)
