"""MIDI files as piano rolls: reading, writing, synthesis and drawing.

A piano roll is an array `[time, 88]`. Each row, a frame, is the set of piano keys that sound during
one time step: 0 = silent, 1 = sounds, 2 = is struck again although it sounds in the frame before.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from common import plots
from common.errors import InputError, require
from common.messages import say
from tasks.music import smf
from tasks.music.smf import Meter, Note, Song

import numpy as np
from etils import epy

with epy.lazy_imports():
    import scipy.io.wavfile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEYS = 88  # keys of a piano
LOWEST = 21  # MIDI number of key 0, the A0
SAMPLE_RATE = 22_050  # of synthesised sound, in Hz
VELOCITY = 80  # of written notes
LONGEST = 100_000  # frames in a file; a longer one has a corrupt time stamp
LONGEST_BAR = 16  # quarter notes; a longer bar is a corrupt time signature
MAJOR_SCALE = (0, 2, 4, 5, 7, 9, 11)  # semitones above the tonic
PITCH_CLASSES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")


def library() -> ModuleType:
    """Import the package `pretty_midi`.

    Raises:
      InputError: it is not installed.
    """
    return require("pretty_midi", "music")


# --- reading --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Recording:
    """A MIDI file on a time grid.

    Attributes:
      frames: `<uint8>[time, 88]`.
      song: the file.
      origin: the tick at which the first frame begins; negative if the bar begins before the file.
      steps_per_quarter: frames per quarter note.
      remarks: what was not read, or is finer than the grid, and how often.
    """

    frames: np.ndarray
    song: Song
    origin: int
    steps_per_quarter: int
    remarks: Mapping[str, int]

    def cut(self, start: int, end: int) -> Recording:
        """Return the frames from `start` to `end`, with the notes that sound in them."""
        step = self.song.resolution / self.steps_per_quarter
        origin = self.origin + round(start * step)
        last = self.origin + round(end * step)
        notes = [
            note._replace(start=max(note.start, origin))
            for note in self.song.notes
            if note.start < last - step / 2 and max(note.start + 1, note.end - step / 2) > origin
        ]
        song = dataclasses.replace(self.song, notes=notes)
        return dataclasses.replace(self, frames=self.frames[start:end], song=song, origin=origin)

    def at_tempo(self, tempo: float) -> Recording:
        """Return the same notes at one tempo, in quarter notes per minute."""
        song = dataclasses.replace(self.song, tempos=[(self.origin, tempo)])
        return dataclasses.replace(self, song=song)


def read_midi(path: Path, steps_per_quarter: int) -> np.ndarray:
    """Read the frames of a MIDI file, `<uint8>[time, 88]`; see `read_recording`.

    What could not be read is printed on standard error.
    """
    recording = read_recording(path, steps_per_quarter)
    if recording.remarks:
        say(f"{path}: read in part or changed: {describe(recording.remarks)}")
    return recording.frames


def describe(remarks: Mapping[str, int]) -> str:
    """Return one line about what was not read.

    Example:
      >>> describe({"odd meta events": 2, "notes without an end": 1})
      'odd meta events (2), notes without an end (1)'
    """
    return ", ".join(f"{name} ({count})" for name, count in remarks.items())


def read_recording(path: Path, steps_per_quarter: int) -> Recording:
    """Read a MIDI file.

    Time is measured in quarter notes and therefore independent of tempo and resolution. All tracks
    except drums are merged. The start of a note is rounded to the nearest step; every note sounds
    for at least one step. Notes outside the range of the piano are transposed by octaves into it.
    The first frame is at a bar line, so that an upbeat follows silence; silence of whole bars and
    at the end is removed.

    Args:
      path: a `.mid` file.
      steps_per_quarter: frames per quarter note.

    Raises:
      InputError: the file is not a MIDI file, or contains no pitched note.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", path) from error
    if not content:
        raise InputError("empty file", path)
    try:
        song = smf.parse(content)
    except InputError as error:
        raise InputError(str(error), path) from error
    if not song.notes:
        raise InputError("only drums, no pitched notes" if song.drums else "no notes", path)
    pitch, first, last, _ = np.array(song.notes, np.int64).T
    scale = steps_per_quarter / song.resolution
    start, end = (np.rint(ticks * scale).astype(np.int64) for ticks in (first, last))
    if (length := int(end.max() - start.min())) > LONGEST:
        raise InputError(f"{length:,} frames long; the maximum is {LONGEST:,}", path)
    remarks = collections.Counter(song.dropped)
    if finer := int(((last > first) & (end <= start)).sum()):
        remarks["notes shorter than half a frame, lengthened"] = finer
    if zero := int((last <= first).sum()):
        remarks["notes of no length, lengthened"] = zero
    rest = round(_silence_in_bar(song) * scale)
    frames = to_frames(pitch, start, end, rest=rest)
    origin = int(first.min()) - round(rest / scale)
    return Recording(frames, song, origin, steps_per_quarter, remarks)


def _silence_in_bar(song: Song) -> int:
    """Return the ticks from the bar line before the first note to that note."""
    first = song.notes[0].start
    earlier = [meter for meter in song.meters if meter.tick <= first]
    later = [meter for meter in song.meters if meter.tick > first]
    meter = earlier[-1] if earlier else Meter(0, 4, 4)
    bar = _bar(meter, song.resolution)
    if later and len(earlier) <= 1:
        following = _bar(later[0], song.resolution)
        if later[0].tick - meter.tick < following:
            # A short first bar, as many programs write an upbeat, ends where the next one begins.
            return max(0, following - (later[0].tick - first))
    return (first - meter.tick) % bar if bar <= LONGEST_BAR * song.resolution else 0


def _bar(meter: Meter, resolution: int) -> int:
    """Return the length of a bar in ticks."""
    return max(1, resolution * 4 * meter.beats // meter.unit)


def to_frames(
    pitch: np.ndarray, start: np.ndarray, end: np.ndarray, *, rest: int = 0
) -> np.ndarray:
    """Convert notes to frames.

    Args:
      pitch: `<int>[notes]`, MIDI numbers; those outside the piano are transposed by octaves.
      start: `<int>[notes]`, the first step of each note.
      end: `<int>[notes]`, the first step after each note; a note has at least one step.
      rest: silent frames before the first note.

    Returns:
      `<uint8>[time, 88]`, to the end of the last note; 2 where a sounding key is struck again.

    Example:
      >>> frames = to_frames(np.array([21, 20]), np.array([4, 5]), np.array([6, 5]))
      >>> frames[:, :12].tolist()
      [[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]]
      >>> to_frames(np.array([21, 21]), np.array([0, 2]), np.array([2, 3]))[:, 0].tolist()
      [1, 1, 2]
    """
    keys = pitch - LOWEST
    keys = np.where(
        keys < 0, keys % 12, np.where(keys >= KEYS, KEYS - 12 + (keys - KEYS) % 12, keys)
    )
    shift = rest - start.min()
    start, end = start + shift, np.maximum(end, start + 1) + shift
    frames = np.zeros((end.max(), KEYS), np.uint8)
    struck = np.zeros((end.max(), KEYS), bool)
    for key, first, stop in zip(keys, start, end, strict=True):
        frames[first:stop, key] = 1
        struck[first, key] = True
    frames[1:][struck[1:] & (frames[:-1] > 0)] = 2
    return frames


def onsets(frames: np.ndarray) -> np.ndarray:
    """Return which keys are struck in each frame, `<bool>[..., time, 88]`.

    Example:
      >>> onsets(np.array([[1], [1], [2], [0], [1]]))[:, 0].tolist()
      [True, False, True, False, True]
    """
    sounding = frames > 0.5
    before = np.zeros_like(sounding)
    before[..., 1:, :] = sounding[..., :-1, :]
    return sounding & (~before | (frames > 1.5))


def with_onsets(notes: np.ndarray, struck: np.ndarray) -> np.ndarray:
    """Return frames of 0, 1 and 2 for sounding keys and struck keys; the inverse of `onsets`.

    Args:
      notes: `<float>[..., time, 88]`, 0 or 1.
      struck: `<float>[..., time, 88]`, 0 or 1.

    Example:
      >>> frames = np.array([[1], [1], [2], [0], [1]])
      >>> with_onsets(frames > 0, onsets(frames))[:, 0].tolist()
      [1.0, 1.0, 2.0, 0.0, 1.0]
    """
    frames = notes.astype(np.float32)
    frames[..., 1:, :] += (struck[..., 1:, :] > 0.5) & (notes[..., :-1, :] > 0.5)
    return frames


# --- melody and scale -----------------------------------------------------------------------------


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


def main_scale(notes: np.ndarray) -> int:
    """Return the scale of a piece: the pitch class of the tonic of its major scale, C = 0.

    It is the scale that contains most of the sounding notes; a minor key counts as its relative
    major key.

    Example:
      >>> scale = np.zeros((7, 88))
      >>> scale[range(7), [41, 43, 45, 46, 48, 50, 52]] = 1     # D E F# G A B C#
      >>> main_scale(scale)
      2
    """
    sounding = (notes > 0.5).sum(axis=0)
    classes = np.bincount((np.arange(KEYS) + LOWEST) % 12, weights=sounding, minlength=12)
    inside = [np.roll(classes, -tonic)[list(MAJOR_SCALE)].sum() for tonic in range(12)]
    return int(np.argmax(inside))


# --- writing --------------------------------------------------------------------------------------


def to_notes(frames: np.ndarray) -> list[tuple[int, int, int]]:
    """Convert frames to notes: a key that sounds in consecutive frames is held until it is struck.

    Args:
      frames: `<float>[time, 88]`.

    Returns:
      `(key, start, end)` in steps, sorted by start and then by key; `end` is the first step after
      the note.

    Example:
      >>> to_notes(np.eye(3, 88) + np.eye(3, 88, -1))     # keys 0 and 1 are held for two steps
      [(0, 0, 2), (1, 1, 3), (2, 2, 3)]
    """
    sounding = np.pad(frames > 0.5, ((0, 1), (0, 0)))
    struck = np.pad(onsets(frames), ((0, 1), (0, 0)))
    ending = sounding[:-1] & (~sounding[1:] | struck[1:])
    notes = []
    for key in range(frames.shape[1]):
        starts, ends = np.flatnonzero(struck[:-1, key]), np.flatnonzero(ending[:, key]) + 1
        notes += [(key, int(a), int(b)) for a, b in zip(starts, ends, strict=True)]
    return sorted(notes, key=lambda note: (note[1], note[0]))


def to_song(
    frames: np.ndarray,
    *,
    steps_per_quarter: int,
    tempo: float,
    prime: Recording | None = None,
) -> Song:
    """Convert frames to a song played by a piano.

    Args:
      frames: `<float>[time, 88]`.
      steps_per_quarter: frames per quarter note.
      tempo: quarter notes per minute, unless the prime has tempos.
      prime: what the music begins with; its notes keep their times and velocities, and its tempos
        and meters are kept.
    """
    notes = to_notes(frames)
    if prime is None:
        resolution = 480 if 480 % steps_per_quarter == 0 else 100 * steps_per_quarter
        step = resolution // steps_per_quarter
        written = [Note(LOWEST + key, a * step, b * step, VELOCITY) for key, a, b in notes]
        return Song(resolution, written, tempos=[(0, tempo)])
    given = len(prime.frames)
    resolution = math.lcm(prime.song.resolution, steps_per_quarter)
    if resolution >= 2**15:
        resolution = 480 * steps_per_quarter
    step = resolution // steps_per_quarter

    def to_tick(tick: int) -> int:
        return max(0, round((tick - prime.origin) * resolution / prime.song.resolution))

    ends = {(key, start): end for key, start, end in notes}
    written = []
    for pitch, start, end, velocity in prime.song.notes:
        place = round(to_tick(start) / step)
        if place >= given:
            continue
        # A note that the model holds is longer than it was.
        grid_end = ends.get((_key(pitch), place), 0)
        stop = grid_end * step if grid_end > given else min(to_tick(end), given * step)
        written.append(Note(pitch, to_tick(start), max(stop, to_tick(start) + 1), velocity))
    usual = round(float(np.median([note.velocity for note in written]))) if written else VELOCITY
    written += [
        Note(LOWEST + key, start * step, end * step, usual)
        for key, start, end in notes
        if start >= given
    ]
    tempos = [(to_tick(tick), value) for tick, value in prime.song.tempos]
    tempos = [(tick, value) for tick, value in tempos if tick < given * step]
    meters = [meter._replace(tick=to_tick(meter.tick)) for meter in prime.song.meters]
    if not tempos or tempos[0][0] > 0:
        tempos.insert(0, (0, tempo))
    return Song(resolution, written, tempos=tempos, meters=meters)


def _key(pitch: int) -> int:
    """Return the key of a MIDI number; those outside the piano are transposed by octaves."""
    key = pitch - LOWEST
    return key % 12 if key < 0 else KEYS - 12 + (key - KEYS) % 12 if key >= KEYS else key


def midi_bytes(song: Song) -> bytes:
    """Encode a song as a `.mid` file."""
    return smf.encode(song)


def wav_bytes(song: Song) -> bytes:
    """Synthesise a song as a 16-bit mono `.wav` file."""

    def wave(phase: np.ndarray) -> np.ndarray:
        # Overtones make low notes audible on small speakers.
        return sum(np.sin(n * phase) / n**1.5 for n in (1, 2, 3, 4))

    if song.notes:
        performance = library().PrettyMIDI(io.BytesIO(smf.encode(song)))
        sound = performance.synthesize(fs=SAMPLE_RATE, wave=wave)
    else:
        sound = np.zeros(SAMPLE_RATE)
    content = io.BytesIO()
    scipy.io.wavfile.write(content, SAMPLE_RATE, np.int16(np.rint(sound * 0.9 * (2**15 - 1))))
    return content.getvalue()


def first_bar(song: Song) -> float:
    """Return the length of the first bar in quarter notes, 4 without a time signature.

    Example:
      >>> first_bar(Song(480, [], meters=[Meter(0, 6, 8)])), first_bar(Song(480, []))
      (3.0, 4.0)
    """
    bar = 4.0 * song.meters[0].beats / song.meters[0].unit if song.meters else 4.0
    return bar if 0.0 < bar <= LONGEST_BAR else 4.0


# --- drawing --------------------------------------------------------------------------------------


def draw_piano_roll(
    axes: Axes,
    frames: np.ndarray,
    *,
    steps_per_quarter: int,
    given: int = 0,
    bar: float = 4.0,
) -> None:
    """Draw a piano roll with bar lines; the first frame is at one.

    Args:
      axes: the axes to draw on.
      frames: `<float>[time, 88]`.
      steps_per_quarter: frames per quarter note.
      given: number of initial frames that come from the user, drawn in another colour.
      bar: length of a bar in quarter notes.
    """
    quarters = max(len(frames), 1) / steps_per_quarter
    used = np.flatnonzero(frames.any(axis=0))
    low, high = (used[0] - 3, used[-1] + 3) if used.size else (27, 51)
    for key, start, end in to_notes(frames):
        parts = [(start, min(end, given), "grey"), (max(start, given), end, "C0")]
        for first, stop, colour in parts:
            if stop > first:
                left, width = first / steps_per_quarter, (stop - first) / steps_per_quarter
                axes.broken_barh([(left, width)], (key - 0.42, 0.84), facecolors=colour)
    octaves = [key for key in range(KEYS) if (key + LOWEST) % 12 == 0 and low <= key <= high]
    axes.set_yticks(octaves, [f"C{(key + LOWEST) // 12 - 1}" for key in octaves])
    axes.set(
        xlim=(0, quarters),
        ylim=(low - 0.5, high + 0.5),
        xlabel="bar" + (" (grey: given)" if given else ""),
    )
    lines = np.arange(0, quarters, bar)
    every = max(1, round(len(lines) / 20))  # bars between two numbers
    axes.set_xticks(lines[::every], [str(n) for n in range(1, len(lines) + 1, every)])
    for line in lines:
        axes.axvline(line, color="grey", linewidth=0.5, zorder=0)
    axes.grid(axis="y", linewidth=0.4)


def piano_roll_bytes(
    frames: np.ndarray,
    *,
    steps_per_quarter: int,
    given: int = 0,
    bar: float = 4.0,
    theme: plots.Theme = "light",
) -> bytes:
    """Draw a piano roll as a `.png` file; see `draw_piano_roll`."""
    size = (float(np.clip(len(frames) / 12, 8, 40)), 4.5)
    content = io.BytesIO()
    with plots.picture(content, size, theme=theme) as figure:
        axes = figure.subplots()
        draw_piano_roll(axes, frames, steps_per_quarter=steps_per_quarter, given=given, bar=bar)
    return content.getvalue()
