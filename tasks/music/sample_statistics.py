"""Statistics of sampled pieces, compared with those of real music."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from common import plots
from common.commands import report
from common.serving.served import Served
from tasks.music import midi
from tasks.music.copies import copied_runs
from tasks.music.formats import Piece
from tasks.music.midi import KEYS
from tasks.music.predict import compose

import numpy as np

COPY = 8  # consecutive frames that also occur in the training music count as a copy
HISTOGRAMS = {  # fields of `Statistics` and their titles
    "notes_per_frame": "notes per frame",
    "pitch_classes": "pitch classes",
    "melody": "melodic intervals",
    "chords": "intervals above the bass",
}


# --- statistics of pieces -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Distributions and summary figures of a set of pieces."""

    notes_per_frame: np.ndarray  # <float>[9]: fractions of frames with 0, 1, ..., 8 or more notes
    pitch_classes: np.ndarray  # <float>[12]: fractions of notes, C first
    melody: np.ndarray  # <float>[25]: fractions of melodic intervals, from -12 (or less) to 12
    chords: np.ndarray  # <float>[12]: fractions of intervals above the lowest note, modulo octave
    figures: dict[str, float]  # fractions, unless the name states otherwise


def describe(
    pieces: Sequence[np.ndarray], training: Sequence[np.ndarray], transpose: int
) -> Statistics:
    """Compute the statistics of pieces.

    Args:
      pieces: arrays `<float>[time, 88]`.
      training: the music in which copies are searched, of the same form.
      transpose: largest transposition of a copy, up or down, in semitones.

    Example:
      >>> chord = np.zeros((4, 88))
      >>> chord[:, [39, 43, 46]] = 1     # C, E, G
      >>> statistics = describe([chord], [np.ones((8, 88))], transpose=0)
      >>> statistics.figures["notes per frame"], np.flatnonzero(statistics.chords).tolist()
      (3.0, [4, 7])
    """
    rolls = [piece > 0.5 for piece in pieces]
    frames = np.concatenate(rolls)
    counts = frames.sum(axis=1)
    earlier = np.concatenate([roll[:-1] for roll in rolls])
    later = np.concatenate([roll[1:] for roll in rolls])
    same = int((earlier == later).all(axis=1).sum())
    held = int((earlier & later).sum())
    intervals = np.concatenate([midi.melody_intervals(piece) for piece in pieces])
    runs = copied_runs(pieces, training, transpose)
    copied = np.concatenate([_inside_copies(row) for row in runs])
    return Statistics(
        notes_per_frame=_histogram(np.minimum(counts, 8), 9),
        pitch_classes=_normalised(
            np.bincount(
                (np.arange(KEYS) + midi.LOWEST) % 12, weights=frames.sum(axis=0), minlength=12
            )
        ),
        melody=_histogram(np.clip(intervals, -12, 12) + 12, 25),
        chords=_histogram(_intervals_above_bass(frames) % 12, 12),
        figures={
            "notes per frame": float(counts.mean()),
            "distinct frames": len({row.tobytes() for row in frames}) / len(frames),
            "frames equal to the one before": same / max(len(later), 1),
            "notes held from the frame before": held / max(int(later.sum()), 1),
            "melodic intervals of 1 or 2 semitones": _fraction(np.abs(intervals) <= 2),
            "melodic intervals of more than 5": _fraction(np.abs(intervals) > 5),
            f"frames in copies of {COPY} or more": float(copied.mean()),
            "longest copy (frames)": float(max(row.max(initial=0) for row in runs)),
        },
    )


def _fraction(condition: np.ndarray) -> float:
    """Return the fraction of true values; 0 for an empty array."""
    return float(np.mean(condition)) if len(condition) else 0.0


def _normalised(counts: np.ndarray) -> np.ndarray:
    return counts / max(counts.sum(), 1)


def _histogram(values: np.ndarray, size: int) -> np.ndarray:
    """Return the fraction of each of the values 0, ..., `size - 1`."""
    return _normalised(np.bincount(values.astype(int), minlength=size))


def _intervals_above_bass(frames: np.ndarray) -> np.ndarray:
    """Return the intervals, in semitones, of all notes to the lowest note of their frame."""
    sounding = frames[frames.any(axis=1)]
    lowest = sounding.argmax(axis=1)
    intervals = np.nonzero(sounding)[1] - np.repeat(lowest, sounding.sum(axis=1))
    return intervals[intervals > 0]


def _inside_copies(runs: np.ndarray) -> np.ndarray:
    """Return which frames belong to a run of at least `COPY` frames, `<bool>[time]`."""
    inside = np.zeros(len(runs), bool)
    for end in np.flatnonzero(runs >= COPY):
        inside[end + 1 - runs[end] : end + 1] = True
    return inside


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the total variation distance of two distributions: 0 = equal, 1 = disjoint.

    Example:
      >>> distance(np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.5, 0.5]))
      0.5
    """
    return float(np.abs(one - other).sum() / 2.0)


# --- samples and real music -----------------------------------------------------------------------


def sample(
    served: Served,
    count: int,
    *,
    steps: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    batch_size: int = 32,
) -> list[np.ndarray]:
    """Sample pieces from nothing, with the seeds 0, 1, ...

    Returns:
      `count` arrays `<float32>[steps, 88]`.
    """
    samples: list[np.ndarray] = []
    for start in range(0, count, batch_size):
        seeds = np.arange(start, min(count, start + batch_size))
        samples += list(
            compose(
                served,
                np.zeros((len(seeds), 0, KEYS), np.float32),
                np.stack([0 * seeds, seeds], axis=1),
                steps=min(steps, served.settings["max_frames"]),
                temperature=temperature,
                top_p=top_p,
            )
        )
    return samples


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Statistics of samples, of held-out music and of the training music."""

    statistics: dict[str, Statistics]  # of "samples", "held-out" and "training" pieces
    sample: np.ndarray  # <float>[time, 88], one of the samples
    steps_per_quarter: int


def compare(
    served: Served,
    training: Sequence[Piece],
    held_out: Sequence[Piece],
    *,
    samples: int = 32,
) -> Comparison:
    """Sample an export, and compare the samples with training pieces and held-out pieces."""
    settings = served.settings
    transpose = settings["config"]["transpose"]
    corpus = [row.notes for row in training]
    sampled = sample(served, samples, steps=settings["sample_frames"])
    kinds = {
        "samples": sampled,
        "held-out": _evenly_spaced([row.notes for row in held_out]),
        "training": _evenly_spaced(corpus),
    }
    statistics = {name: describe(rows, corpus, transpose) for name, rows in kinds.items()}
    return Comparison(statistics, sampled[0], settings["steps_per_quarter"])


def _evenly_spaced(pieces: Sequence[np.ndarray], count: int = 64) -> Sequence[np.ndarray]:
    """Select about `count` pieces: the search for copies in all of them would take too long."""
    return pieces[:: max(1, len(pieces) // count)]


def comparison_rows(compared: Comparison) -> list[Mapping[str, float | str]]:
    """Return the rows of a table: a row for each figure, a column for each kind of music."""
    kinds = compared.statistics
    rows: list[Mapping[str, float | str]] = [
        {"": name, **{kind: statistics.figures[name] for kind, statistics in kinds.items()}}
        for name in kinds["training"].figures
    ]
    for field, title in HISTOGRAMS.items():
        histograms = {kind: getattr(statistics, field) for kind, statistics in kinds.items()}
        distances = {kind: distance(h, histograms["training"]) for kind, h in histograms.items()}
        rows.append({"": f"distance from training: {title}", **distances})
    return rows


def print_comparison(compared: Comparison) -> None:
    """Print the table of `comparison_rows`."""
    print(report.table(comparison_rows(compared)))


def draw_comparison(compared: Comparison, path: Path) -> None:
    """Draw the histograms of all kinds of music, and the piano roll of one sample, as a PNG."""
    labels = {
        "notes_per_frame": [*map(str, range(8)), "8+"],
        "pitch_classes": midi.PITCH_CLASSES,
        "melody": [str(n) if n % 3 == 0 else "" for n in range(-12, 13)],
        "chords": [str(n) for n in range(12)],
    }
    with plots.picture(path, (12, 9)) as figure:
        grid = figure.add_gridspec(3, 2)
        for place, (field, title) in enumerate(HISTOGRAMS.items()):
            axes = figure.add_subplot(grid[divmod(place, 2)])
            for number, (kind, statistics) in enumerate(compared.statistics.items()):
                fractions = getattr(statistics, field)
                places = np.arange(len(fractions)) + (number - 1) * 0.27
                axes.bar(places, fractions, width=0.27, label=kind)
            axes.set_xticks(range(len(labels[field])), labels[field], fontsize=8)
            axes.set(title=title, ylabel="fraction")
            axes.legend()
        wide = figure.add_subplot(grid[2, :])
        midi.draw_piano_roll(wide, compared.sample, steps_per_quarter=compared.steps_per_quarter)
        wide.set_title("one sample")
