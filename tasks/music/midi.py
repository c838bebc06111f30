"""MIDI files and frames of keys: reading, writing, sound and picture.

A frame tells which keys sound, not which were struck: a note that is struck again while it sounds,
or right behind its end, reads as one held note.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from common.errors import InputError, require

import numpy as np
import scipy.io.wavfile
from matplotlib.axes import Axes
from matplotlib.figure import Figure

KEYS = 88
LOWEST = 21  # MIDI number of key 0, the piano's A0
SAMPLE_RATE = 22_050  # of the rendered sound, in Hz
VELOCITY = 80
LONGEST = 100_000  # frames of a file; more tells of a broken time stamp
PITCH_CLASSES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")


def library() -> ModuleType:
    """The package `pretty_midi`.

    Raises:
      InputError: it is not installed.
    """
    return require("pretty_midi", "music")


# --- reading --------------------------------------------------------------------------------------


def read_midi(path: Path, steps_per_quarter: int) -> np.ndarray:
    """Reads a MIDI file as frames.

    Time is counted in quarter notes, so that neither tempo nor resolution matters. All tracks are
    put together but those of drums. A note begins at the step nearest to its start, and sounds for
    a step at least. Notes beyond the piano are moved by octaves. Silence before the first note and
    behind the last is left out.

    Args:
      path: a `.mid` file.
      steps_per_quarter: how many frames a quarter note takes.

    Returns:
      `<uint8>[time, 88]`, 1 where a key sounds.

    Raises:
      InputError: no MIDI file, a broken one, or one without a pitched note; names the file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", path) from error
    if not content:
        raise InputError("empty file", path)
    if not content.startswith(b"MThd"):
        raise InputError("no MIDI file: it does not begin with MThd", path)
    pretty_midi = library()
    try:
        with warnings.catch_warnings():
            # Tempo changes outside the first track; nothing here depends on the tempo.
            warnings.simplefilter("ignore", RuntimeWarning)
            song = pretty_midi.PrettyMIDI(io.BytesIO(content))
    except Exception as error:  # whatever the library meets in a broken file
        reason = str(error) or "it ends too early"
        raise InputError(f"broken MIDI file: {reason}", path) from error
    if not 0 < song.resolution < 2**15:
        raise InputError("its time is counted in SMPTE frames, not in quarter notes", path)
    notes = [
        (note.pitch, song.time_to_tick(note.start), song.time_to_tick(note.end))
        for instrument in song.instruments
        if not instrument.is_drum
        for note in instrument.notes
    ]
    if not notes:
        drums = any(instrument.notes for instrument in song.instruments)
        raise InputError("only drums, no pitched note" if drums else "no note in it", path)
    pitch, start, end = np.array(notes, np.int64).T
    start, end = (
        np.rint(ticks * (steps_per_quarter / song.resolution)).astype(np.int64)
        for ticks in (start, end)
    )
    if (length := int(end.max() - start.min())) > LONGEST:
        raise InputError(f"{length:,} steps long; {LONGEST:,} are the most", path)
    return to_frames(pitch, start, end)


def to_frames(pitch: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Makes frames of notes.

    Args:
      pitch: `<int>[notes]`, MIDI numbers; those beyond the piano are moved by octaves.
      start: `<int>[notes]`, in steps.
      end: `<int>[notes]`, the first step without the note; a note has one step at least.

    Returns:
      `<uint8>[time, 88]`, from the first note to the end of the last.

    Example:
      >>> to_frames(np.array([21, 20]), np.array([4, 5]), np.array([6, 5]))[:, :12]
      [[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]]
    """
    key = pitch - LOWEST
    key = np.where(key < 0, key % 12, np.where(key >= KEYS, KEYS - 12 + (key - KEYS) % 12, key))
    start, end = start - start.min(), np.maximum(end, start + 1) - start.min()
    frames = np.zeros((end.max(), KEYS), np.uint8)
    for k, first, behind in zip(key, start, end, strict=True):
        frames[first:behind, k] = 1
    return frames


# --- writing --------------------------------------------------------------------------------------


def to_notes(frames: np.ndarray) -> list[tuple[int, int, int]]:
    """Makes notes of frames: a key that sounds on from frame to frame is one held note.

    Args:
      frames: `<float>[time, 88]`.

    Returns:
      `(key, start, end)` in steps, by start and then by key; `end` is the first step without it.

    Example:
      >>> to_notes(np.eye(3, 88) + np.eye(3, 88, -1))     # keys 0 and 1 are held for two steps
      [(0, 0, 2), (1, 1, 3), (2, 2, 3)]
    """
    sounding = np.pad(frames > 0.5, ((1, 1), (0, 0))).astype(np.int8)
    changes = np.diff(sounding, axis=0)
    notes = []
    for key in range(frames.shape[1]):
        starts, ends = (np.flatnonzero(changes[:, key] == sign) for sign in (1, -1))
        notes += [(key, int(a), int(b)) for a, b in zip(starts, ends, strict=True)]
    return sorted(notes, key=lambda note: (note[1], note[0]))


def to_song(frames: np.ndarray, *, steps_per_quarter: int, tempo: float) -> Any:
    """Makes a `pretty_midi.PrettyMIDI` of frames, played by a piano.

    Args:
      frames: `<float>[time, 88]`.
      steps_per_quarter: how many frames a quarter note takes.
      tempo: quarter notes a minute.
    """
    pretty_midi = library()
    song = pretty_midi.PrettyMIDI(resolution=480, initial_tempo=tempo)
    piano = pretty_midi.Instrument(program=0, name="piano")
    seconds = 60.0 / tempo / steps_per_quarter
    piano.notes = [
        pretty_midi.Note(VELOCITY, LOWEST + key, start * seconds, end * seconds)
        for key, start, end in to_notes(frames)
    ]
    song.instruments.append(piano)
    return song


def midi_bytes(song: Any) -> bytes:
    """A `pretty_midi.PrettyMIDI` as the content of a `.mid` file."""
    content = io.BytesIO()
    song.write(content)
    return content.getvalue()


def wav_bytes(song: Any) -> bytes:
    """A `pretty_midi.PrettyMIDI`, rendered by its own synthesiser, as a 16-bit mono `.wav` file."""

    def wave(phase: np.ndarray) -> np.ndarray:
        # A few overtones, since a pure sine's low notes cannot be heard from small speakers.
        return sum(np.sin(n * phase) / n**1.5 for n in (1, 2, 3, 4))

    if any(instrument.notes for instrument in song.instruments):
        sound = song.synthesize(fs=SAMPLE_RATE, wave=wave)
    else:
        sound = np.zeros(SAMPLE_RATE)
    content = io.BytesIO()
    scipy.io.wavfile.write(content, SAMPLE_RATE, np.int16(np.rint(sound * 0.9 * (2**15 - 1))))
    return content.getvalue()


def draw_piano_roll(
    axes: Axes, frames: np.ndarray, *, steps_per_quarter: int, given: int = 0
) -> None:
    """Draws a piano roll.

    Args:
      axes: to draw on.
      frames: `<float>[time, 88]`.
      steps_per_quarter: how many frames a quarter note takes.
      given: how many frames at the beginning were the user's own; they get another colour.
    """
    used = np.flatnonzero(frames.any(axis=0))
    low, high = (used[0] - 3, used[-1] + 3) if used.size else (27, 51)
    for key, start, end in to_notes(frames):
        parts = [(start, min(end, given), "tab:grey"), (max(start, given), end, "tab:blue")]
        for first, behind, colour in parts:
            if behind > first:
                place, size = first / steps_per_quarter, (behind - first) / steps_per_quarter
                axes.broken_barh([(place, size)], (key - 0.42, 0.84), facecolors=colour)
    octaves = [key for key in range(KEYS) if (key + LOWEST) % 12 == 0 and low <= key <= high]
    axes.set_yticks(octaves, [f"C{(key + LOWEST) // 12 - 1}" for key in octaves])
    axes.set(
        xlim=(0, max(len(frames), 1) / steps_per_quarter),
        ylim=(low - 0.5, high + 0.5),
        xlabel="quarter notes" + (" (grey: given)" if given else ""),
    )
    axes.grid(axis="y", linewidth=0.4)


def piano_roll_bytes(frames: np.ndarray, *, steps_per_quarter: int, given: int = 0) -> bytes:
    """A piano roll as the content of a PNG; see `draw_piano_roll`."""
    figure = Figure(figsize=(float(np.clip(len(frames) / 12, 8, 40)), 4.5), layout="constrained")
    axes = figure.subplots()
    draw_piano_roll(axes, frames, steps_per_quarter=steps_per_quarter, given=given)
    content = io.BytesIO()
    # No version inside, so that the same music gives the same bytes.
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()
