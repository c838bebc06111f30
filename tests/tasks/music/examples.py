"""Small models and pieces for the tests of the music task."""

import io

from tasks.music import model
from tasks.music.config import Config
from tasks.music.midi import KEYS

import keras
import numpy as np
import pretty_midi
import pytest

heads = pytest.mark.parametrize("head", ["joint", "independent"])

# Notes `(pitch, start, end)` in quarter notes.
TUNE = [(60, 0, 1), (62, 1, 1.5), (64, 1.5, 3)]
BASS = [(36, 0, 2), (43, 2, 3)]


def tiny_config(**changes):
    plain = {"dropout": 0.0, "input_dropout": 0.0, "key_dropout": 0.0, "units": 12, "key_units": 6}
    return Config(**{**plain, "members": 2, **changes})


def random_model(low=36, high=48, seed=3, **changes):
    """A model whose weights are large enough for its predictions to differ."""
    keras.utils.set_random_seed(seed)
    built = model.build(tiny_config(**changes), low=low, high=high, frames=98)
    for variable in built.trainable_variables:
        variable.assign(3.0 * variable + (0.5 if "out" in variable.path else 0.0))
    return built


def random_notes(shape, low=36, high=48, density=0.25, seed=0):
    notes = np.zeros((*shape, KEYS), np.float32)
    notes[..., low : high + 1] = (
        np.random.default_rng(seed).random((*shape, high + 1 - low)) < density
    )
    return notes


def nll(built, notes, length=None):
    length = np.full(len(notes), notes.shape[1]) if length is None else length
    return built({"notes": notes, "length": np.asarray(length, np.int32)})["nll"].numpy()


def make_song(*tracks, resolution=480, tempo=120.0):
    """A song of tracks `(is_drum, [(pitch, start, end)])`, in quarter notes."""
    song = pretty_midi.PrettyMIDI(resolution=resolution, initial_tempo=tempo)
    for is_drum, notes in tracks:
        instrument = pretty_midi.Instrument(0, is_drum=is_drum)
        beat = 60.0 / tempo
        instrument.notes = [pretty_midi.Note(90, p, a * beat, b * beat) for p, a, b in notes]
        song.instruments.append(instrument)
    return song


def pretty_bytes(song):
    """The content of the file that pretty_midi writes."""
    content = io.BytesIO()
    song.write(content)
    return content.getvalue()


def write_broken_files(folder):
    """Write invalid files, and return a pattern of the error message of each."""
    whole = pretty_bytes(make_song((False, TUNE)))
    drums = pretty_bytes(make_song((True, [(38, 0, 1)])))
    silent = pretty_bytes(make_song((False, [])))
    files = {
        "empty.mid": (b"", "empty file"),
        "text.mid": (b"no music", "not a MIDI file: it has no MThd"),
        "short.mid": (whole[:12], "corrupt MIDI file: the header is cut off"),
        "zero.mid": (whole[:12] + b"\0\0" + whole[14:], "corrupt MIDI file: 0 ticks"),
        "header.mid": (whole[:14], "no notes"),
        "drums.mid": (drums, "only drums, no pitched notes"),
        "silent.mid": (silent, "no notes"),
        "smpte.mid": (
            whole[:12] + b"\xe8\x28" + whole[14:],
            "time in SMPTE frames is not supported",
        ),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    return {name: message for name, (_, message) in files.items()}
