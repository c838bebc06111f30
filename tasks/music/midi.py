"""MIDI files as piano rolls: reading, writing, synthesis and drawing.

A piano roll is an array `[time, 88]`. Each row, a frame, is the set of piano keys that sound during
one time step. Frames do not record onsets, so a note that is struck again before or exactly when it
ends is read as one held note.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from common.errors import InputError, require

import numpy as np
from etils import epy

with epy.lazy_imports():
    import matplotlib.axes
    import matplotlib.figure
    import scipy.io.wavfile

KEYS = 88  # keys of a piano
LOWEST = 21  # MIDI number of key 0, the A0
SAMPLE_RATE = 22_050  # of synthesised sound, in Hz
VELOCITY = 80  # of written notes
LONGEST = 100_000  # frames in a file; a longer one has a corrupt time stamp
PITCH_CLASSES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")


def library() -> ModuleType:
    """Import the package `pretty_midi`.

    Raises:
      InputError: it is not installed.
    """
    return require("pretty_midi", "music")


# --- reading --------------------------------------------------------------------------------------


def read_midi(path: Path, steps_per_quarter: int) -> np.ndarray:
    """Read a MIDI file as frames.

    Time is measured in quarter notes and therefore independent of tempo and resolution. All tracks
    except drums are merged. The start of a note is rounded to the nearest step; every note sounds
    for at least one step. Notes outside the range of the piano are transposed by octaves into it.
    Leading and trailing silence is removed.

    Args:
      path: a `.mid` file.
      steps_per_quarter: frames per quarter note.

    Returns:
      `<uint8>[time, 88]`, 1 where a key sounds.

    Raises:
      InputError: the file is not a MIDI file, is corrupt, or contains no pitched note.
    """
    song = _parse(path)
    notes = [
        (note.pitch, song.time_to_tick(note.start), song.time_to_tick(note.end))
        for instrument in song.instruments
        if not instrument.is_drum
        for note in instrument.notes
    ]
    if not notes:
        has_drums = any(instrument.notes for instrument in song.instruments)
        raise InputError("only drums, no pitched notes" if has_drums else "no notes", path)
    pitch, start, end = np.array(notes, np.int64).T
    start, end = (
        np.rint(ticks * (steps_per_quarter / song.resolution)).astype(np.int64)
        for ticks in (start, end)
    )
    if (length := int(end.max() - start.min())) > LONGEST:
        raise InputError(f"{length:,} frames long; the maximum is {LONGEST:,}", path)
    return to_frames(pitch, start, end)


def _parse(path: Path) -> Any:
    """Parse a file into a `pretty_midi.PrettyMIDI`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", path) from error
    if not content:
        raise InputError("empty file", path)
    if not content.startswith(b"MThd"):
        raise InputError("not a MIDI file: it does not begin with MThd", path)
    pretty_midi = library()
    try:
        with warnings.catch_warnings():
            # Tempo changes outside the first track; frames do not depend on the tempo.
            warnings.simplefilter("ignore", RuntimeWarning)
            song = pretty_midi.PrettyMIDI(io.BytesIO(content))
    except Exception as error:  # the parser raises exceptions of any type on corrupt files
        reason = str(error) or "it ends too early"
        raise InputError(f"corrupt MIDI file: {reason}", path) from error
    if not 0 < song.resolution < 2**15:
        raise InputError(
            "time in SMPTE frames is not supported; save it with ticks per quarter note", path
        )
    return song


def to_frames(pitch: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Convert notes to frames.

    Args:
      pitch: `<int>[notes]`, MIDI numbers; those outside the piano are transposed by octaves.
      start: `<int>[notes]`, the first step of each note.
      end: `<int>[notes]`, the first step after each note; a note has at least one step.

    Returns:
      `<uint8>[time, 88]`, from the first note to the end of the last.

    Example:
      >>> frames = to_frames(np.array([21, 20]), np.array([4, 5]), np.array([6, 5]))
      >>> frames[:, :12].tolist()
      [[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]]
    """
    keys = pitch - LOWEST
    keys = np.where(
        keys < 0, keys % 12, np.where(keys >= KEYS, KEYS - 12 + (keys - KEYS) % 12, keys)
    )
    start, end = start - start.min(), np.maximum(end, start + 1) - start.min()
    frames = np.zeros((end.max(), KEYS), np.uint8)
    for key, first, stop in zip(keys, start, end, strict=True):
        frames[first:stop, key] = 1
    return frames


# --- melody ---------------------------------------------------------------------------------------


def melody_intervals(frames: np.ndarray) -> np.ndarray:
    """Return the intervals of the melody, the highest key of each frame.

    Silent frames are skipped and repeated notes are counted once.

    Args:
      frames: `<float>[time, 88]`.

    Returns:
      `<int>[changes]`, in semitones; never 0.

    Example:
      >>> melody_intervals(np.eye(88)[[40, 40, 43, 42]])
      array([ 3, -1])
    """
    on = frames > 0.5
    on = on[on.any(axis=1)]
    highest = KEYS - 1 - on[:, ::-1].argmax(axis=1)
    intervals = np.diff(highest)
    return intervals[intervals != 0]


# --- writing --------------------------------------------------------------------------------------


def to_notes(frames: np.ndarray) -> list[tuple[int, int, int]]:
    """Convert frames to notes: a key that sounds in consecutive frames is one held note.

    Args:
      frames: `<float>[time, 88]`.

    Returns:
      `(key, start, end)` in steps, sorted by start and then by key; `end` is the first step after
      the note.

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
    """Convert frames to a `pretty_midi.PrettyMIDI` played by a piano.

    Args:
      frames: `<float>[time, 88]`.
      steps_per_quarter: frames per quarter note.
      tempo: quarter notes per minute.
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
    """Encode a `pretty_midi.PrettyMIDI` as a `.mid` file."""
    content = io.BytesIO()
    song.write(content)
    return content.getvalue()


def wav_bytes(song: Any) -> bytes:
    """Synthesise a `pretty_midi.PrettyMIDI` as a 16-bit mono `.wav` file."""

    def wave(phase: np.ndarray) -> np.ndarray:
        # Overtones make low notes audible on small speakers.
        return sum(np.sin(n * phase) / n**1.5 for n in (1, 2, 3, 4))

    if any(instrument.notes for instrument in song.instruments):
        sound = song.synthesize(fs=SAMPLE_RATE, wave=wave)
    else:
        sound = np.zeros(SAMPLE_RATE)
    content = io.BytesIO()
    scipy.io.wavfile.write(content, SAMPLE_RATE, np.int16(np.rint(sound * 0.9 * (2**15 - 1))))
    return content.getvalue()


# --- drawing --------------------------------------------------------------------------------------


def draw_piano_roll(
    axes: matplotlib.axes.Axes, frames: np.ndarray, *, steps_per_quarter: int, given: int = 0
) -> None:
    """Draw a piano roll.

    Args:
      axes: the axes to draw on.
      frames: `<float>[time, 88]`.
      steps_per_quarter: frames per quarter note.
      given: number of initial frames that come from the user, drawn in another colour.
    """
    used = np.flatnonzero(frames.any(axis=0))
    low, high = (used[0] - 3, used[-1] + 3) if used.size else (27, 51)
    for key, start, end in to_notes(frames):
        parts = [(start, min(end, given), "tab:grey"), (max(start, given), end, "tab:blue")]
        for first, stop, colour in parts:
            if stop > first:
                left, width = first / steps_per_quarter, (stop - first) / steps_per_quarter
                axes.broken_barh([(left, width)], (key - 0.42, 0.84), facecolors=colour)
    octaves = [key for key in range(KEYS) if (key + LOWEST) % 12 == 0 and low <= key <= high]
    axes.set_yticks(octaves, [f"C{(key + LOWEST) // 12 - 1}" for key in octaves])
    axes.set(
        xlim=(0, max(len(frames), 1) / steps_per_quarter),
        ylim=(low - 0.5, high + 0.5),
        xlabel="quarter notes" + (" (grey: given)" if given else ""),
    )
    axes.grid(axis="y", linewidth=0.4)


def piano_roll_bytes(frames: np.ndarray, *, steps_per_quarter: int, given: int = 0) -> bytes:
    """Draw a piano roll as a `.png` file; see `draw_piano_roll`."""
    size = (float(np.clip(len(frames) / 12, 8, 40)), 4.5)
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    draw_piano_roll(axes, frames, steps_per_quarter=steps_per_quarter, given=given)
    content = io.BytesIO()
    # Without the version of Matplotlib, so that the same music yields the same bytes.
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()
