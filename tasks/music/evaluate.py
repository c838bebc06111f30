"""Scores an exported model of music, and sets its samples beside real music.

    python -m tasks.music.evaluate                                  # its own data, test split
    python -m tasks.music.evaluate --samples 64 --plot samples.png
    python -m tasks.music.evaluate --model saved_models/music/1 --data my_midi_files

The last line is one JSON object. `nll` is in nats a frame, over the frames from the second on;
`frame_accuracy` is TP / (TP + FP + FN) over the keys of the same frames, a key being called at a
probability of 0.5 and more.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.commands import cli, report
from common.commands.config import EvaluateConfig
from common.data import map_in_order
from common.errors import InputError
from common.serving.served import Served, load_export
from tasks.music import data, midi
from tasks.music.data import KEYS, Piece

import numpy as np
from matplotlib.figure import Figure

TASK = "music"
COPY = 8  # frames in a row that also stand in the training music make a copy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig):
    """Flags of `evaluate`."""

    batch_size: int = 8
    """pieces a request"""
    samples: int = 32
    """pieces sampled from nothing at temperature 1, to be set beside real ones; 0 for none"""
    plot: Path | None = None
    """draw samples beside real music into this PNG"""

    def __post_init__(self) -> None:
        """Checks what no type can say."""
        super().__post_init__()
        if self.samples < 0 or self.batch_size < 1:
            raise InputError("--samples must be 0 or more, --batch_size 1 or more")
        if self.plot and not self.samples:
            raise InputError("--plot draws samples: give --samples 1 or more")


# --- the score ------------------------------------------------------------------------------------


def pad(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Puts frames `[time, 88]` side by side: `<float32>[batch, time, 88]`, `<int32>[batch]`."""
    length = np.array([len(row) for row in rows], np.int32)
    notes = np.zeros((len(rows), length.max(initial=1), KEYS), np.float32)
    for place, row in enumerate(rows):
        notes[place, : len(row)] = row
    return notes, length


def metrics(
    truth: Sequence[np.ndarray], nll: Sequence[np.ndarray], probabilities: Sequence[np.ndarray]
) -> dict[str, float]:
    """The task's figures; see the module.

    Args:
      truth: of each piece, `<int>[time, 88]`.
      nll: of each piece, `<float>[time - 1]`.
      probabilities: of each piece, `<float>[time - 1, 88]`.

    Example:
      >>> frames = np.eye(3, 88)
      >>> metrics([frames], [np.array([1.0, 2.0])], [np.where(frames[1:] > 0, 0.9, 0.1)])
      {'nll': 1.5, 'frame_accuracy': 1.0}
    """
    real = np.concatenate([row[1:] for row in truth]) > 0
    called = np.concatenate(probabilities) >= 0.5
    either = int((real | called).sum())
    return {
        "nll": float(np.concatenate(nll).mean(dtype=np.float64)),
        "frame_accuracy": float((real & called).sum() / either) if either else 1.0,
    }


@dataclasses.dataclass(frozen=True)
class Scored:
    """What an export said about a split."""

    count: int
    metrics: dict[str, float]
    seconds: float


def score(served: Served, rows: Sequence[Piece], *, batch_size: int = 8) -> Scored:
    """Scores an export on pieces of two frames and more.

    Raises:
      InputError: there is none.
    """
    start = time.perf_counter()
    rows = [row for row in rows if len(row.notes) >= 2]
    if not rows:
        raise InputError("no piece of two frames or more in this split")

    def ask(batch: list[Piece]) -> list[tuple[np.ndarray, np.ndarray]]:
        notes, length = pad([row.notes for row in batch])
        found = served.call("tensors", notes=notes, length=length)
        pairs = zip(found["nll"], found["probabilities"], length, strict=True)
        return [(nll[: n - 1], shares[: n - 1]) for nll, shares, n in pairs]

    length_of = lambda row: len(row.notes)  # noqa: E731
    nll, shares = zip(
        *map_in_order(ask, rows, batch_size=batch_size, length_of=length_of), strict=True
    )
    found = metrics([row.notes for row in rows], nll, shares)
    return Scored(len(rows), found, time.perf_counter() - start)


# --- samples beside real music --------------------------------------------------------------------


def sample(
    served: Served,
    count: int,
    *,
    steps: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    batch_size: int = 32,
) -> list[np.ndarray]:
    """Samples pieces from nothing, with the seeds 0, 1, ...

    Returns:
      `count` times `<float32>[steps, 88]`.
    """
    found: list[np.ndarray] = []
    for start in range(0, count, batch_size):
        seeds = np.arange(start, min(count, start + batch_size))
        rows = np.ones(len(seeds))
        answer = served.call(
            "serving_default",
            prime=np.zeros((len(seeds), 1, KEYS)),
            prime_length=0 * seeds,
            steps=steps * rows,
            temperature=temperature * rows,
            top_p=top_p * rows,
            seed=np.stack([0 * seeds, seeds], axis=1),
        )
        found += list(answer["notes"][:, :steps])
    return found


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What some pieces are like; shares unless said otherwise."""

    notes_per_frame: np.ndarray  # <float>[9]: of frames with 0, 1, ..., 8 and more notes
    pitch_classes: np.ndarray  # <float>[12]: of notes, C first
    melody: np.ndarray  # <float>[25]: of moves of the highest note, -12 and more to 12 and more
    chords: np.ndarray  # <float>[12]: of notes above the lowest, by their interval to it
    figures: dict[str, float]  # for the table


def describe(
    pieces: Sequence[np.ndarray], training: Sequence[np.ndarray], transpose: int
) -> Statistics:
    """Measures pieces.

    Args:
      pieces: each `<float>[time, 88]`.
      training: the music that they may have been copied from.
      transpose: how many semitones up or down a copy may be moved.
    """
    frames = np.concatenate(pieces) > 0.5
    counts = frames.sum(axis=1)
    notes = frames.sum(axis=0)
    kept = [
        ((a & b).sum(), b.sum(), int((a == b).all(axis=1).sum()), len(b))
        for a, b in ((piece[:-1] > 0.5, piece[1:] > 0.5) for piece in pieces)
    ]
    held, later, same, pairs = np.sum(kept, axis=0)
    moves = np.concatenate([_melody_moves(piece) for piece in pieces])
    runs = copied_runs(pieces, training, transpose)
    copied = np.concatenate([_inside_copies(row) for row in runs])
    sounding = frames[counts > 0]
    lowest = sounding.argmax(axis=1)
    gaps = (np.nonzero(sounding)[1] - np.repeat(lowest, sounding.sum(axis=1))).astype(int)
    distinct = len({row.tobytes() for row in frames})
    return Statistics(
        notes_per_frame=_shares(np.minimum(counts, 8), 9),
        pitch_classes=_normalised(
            np.bincount((np.arange(KEYS) + midi.LOWEST) % 12, weights=notes, minlength=12)
        ),
        melody=_shares(np.clip(moves, -12, 12) + 12, 25),
        chords=_shares(gaps[gaps > 0] % 12, 12),
        figures={
            "notes a frame": float(counts.mean()),
            "different frames": distinct / len(frames),
            "frames as the one before": float(same / max(pairs, 1)),
            "notes held from the frame before": float(held / max(later, 1)),
            "melody moves by 1 or 2 semitones": float(np.mean(np.abs(moves) <= 2))
            if len(moves)
            else 0.0,
            "melody moves by more than 5": float(np.mean(np.abs(moves) > 5)) if len(moves) else 0.0,
            f"frames in copies of {COPY} and more": float(copied.mean()),
            "longest copy (frames)": float(max(row.max(initial=0) for row in runs)),
        },
    )


def _normalised(counts: np.ndarray) -> np.ndarray:
    return counts / max(counts.sum(), 1)


def _shares(values: np.ndarray, size: int) -> np.ndarray:
    return _normalised(np.bincount(values.astype(int), minlength=size))


def _melody_moves(piece: np.ndarray) -> np.ndarray:
    """The intervals, in semitones, between the highest notes of frames where it changes."""
    sounding = piece[(piece > 0.5).any(axis=1)] > 0.5
    top = KEYS - 1 - sounding[:, ::-1].argmax(axis=1)
    moves = np.diff(top)
    return moves[moves != 0]


def copied_runs(
    pieces: Sequence[np.ndarray], training: Sequence[np.ndarray], transpose: int = 0
) -> list[np.ndarray]:
    """How many frames up to each one stand in the same order in a training piece.

    A piece of the training music itself is compared with the other ones.

    Args:
      pieces: each `<float>[time, 88]`.
      training: likewise.
      transpose: copies may be moved by so many semitones up or down.

    Returns:
      For each piece `<int>[time]`.
    """
    # A gap between pieces, which equals nothing, so that no run goes over it.
    names: dict[bytes, int] = {}
    corpus, owner = [], []
    for number, piece in enumerate(training):
        corpus += [-1, *(names.setdefault(row.tobytes(), len(names)) for row in piece > 0.5)]
        owner += [number] * (len(piece) + 1)
    whole, owners = np.array(corpus), np.array(owner)
    own = {id(piece): number for number, piece in enumerate(training)}
    found = []
    for piece in pieces:
        best = np.zeros(len(piece), np.int64)
        others = owners != own.get(id(piece), -1)
        for shift in range(-transpose, transpose + 1):
            moved = np.roll(piece > 0.5, shift, axis=1)
            runs = np.zeros(len(whole), np.int64)
            for step, row in enumerate(moved):
                same = (whole == names.get(row.tobytes(), -2)) & others
                runs[1:] = np.where(same[1:], runs[:-1] + 1, 0)
                best[step] = max(best[step], runs.max(initial=0))
        found.append(best)
    return found


def _inside_copies(runs: np.ndarray) -> np.ndarray:
    """Which frames lie in a run of `COPY` and more."""
    inside = np.zeros(len(runs), bool)
    for end in np.flatnonzero(runs >= COPY):
        inside[end + 1 - runs[end] : end + 1] = True
    return inside


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Samples beside the music that was learnt from, and that was scored."""

    statistics: dict[str, Statistics]  # of "samples", "held-out" and "training" pieces
    sample: np.ndarray  # <float>[time, 88], one of them
    steps_per_quarter: int


def compare(
    served: Served,
    training: Sequence[Piece],
    held_out: Sequence[Piece],
    *,
    samples: int = 32,
) -> Comparison:
    """Samples an export and measures the samples, the training pieces and held-out ones."""
    settings = served.settings
    transpose = settings["config"]["transpose"]
    learnt = [row.notes for row in training]
    made = sample(served, samples, steps=settings["sample_frames"])
    # Every piece against all others takes long; some of them show it as well.
    kinds = {"samples": made, "held-out": _some([row.notes for row in held_out])}
    kinds["training"] = _some(learnt)
    found = {name: describe(rows, learnt, transpose) for name, rows in kinds.items()}
    return Comparison(found, made[0], settings["steps_per_quarter"])


def _some(pieces: Sequence[np.ndarray], count: int = 64) -> Sequence[np.ndarray]:
    """Some `count` pieces, evenly spread."""
    return pieces[:: max(1, len(pieces) // count)]


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Total variation between two distributions: 0 the same, 1 nothing in common."""
    return float(np.abs(one - other).sum() / 2.0)


HISTOGRAMS = {
    "notes_per_frame": "notes a frame",
    "pitch_classes": "pitch classes",
    "melody": "moves of the melody",
    "chords": "intervals above the bass",
}


def comparison_rows(compared: Comparison) -> list[Mapping[str, float | str]]:
    """The table: a row for each figure, a column for each kind of music."""
    kinds = compared.statistics
    names = list(kinds["training"].figures)
    rows: list[Mapping[str, float | str]] = [
        {"": name, **{kind: found.figures[name] for kind, found in kinds.items()}} for name in names
    ]
    for field, title in HISTOGRAMS.items():
        base = getattr(kinds["training"], field)
        far = {kind: distance(getattr(found, field), base) for kind, found in kinds.items()}
        rows.append({"": f"distance from training: {title}", **far})
    return rows


def print_comparison(compared: Comparison) -> None:
    """Prints the table."""
    print(report.table(comparison_rows(compared)))


def draw_comparison(compared: Comparison, path: Path) -> None:
    """Draws the histograms side by side, and one sample as a piano roll."""
    figure = Figure(figsize=(12, 9), layout="constrained")
    grid = figure.subplots(3, 2)
    labels = {
        "notes_per_frame": [*map(str, range(8)), "8+"],
        "pitch_classes": midi.PITCH_CLASSES,
        "melody": [str(n) if n % 3 == 0 else "" for n in range(-12, 13)],
        "chords": [str(n) for n in range(12)],
    }
    for axes, (field, title) in zip(grid.flat, HISTOGRAMS.items(), strict=False):
        for number, (kind, found) in enumerate(compared.statistics.items()):
            shares = getattr(found, field)
            places = np.arange(len(shares)) + (number - 1) * 0.27
            axes.bar(places, shares, width=0.27, label=kind)
        axes.set_xticks(range(len(labels[field])), labels[field], fontsize=8)
        axes.set(title=title, ylabel="share")
        axes.legend(fontsize=8)
    for axes in grid[2]:
        axes.remove()
    wide = figure.add_subplot(grid[2, 0].get_gridspec()[2, :])
    midi.draw_piano_roll(wide, compared.sample, steps_per_quarter=compared.steps_per_quarter)
    wide.set_title("a sample")
    figure.savefig(path, dpi=110)


# --- the command ----------------------------------------------------------------------------------


def check_no_leak(trained_on: str | None, dataset: str | None) -> None:
    """Refuses to score a model on pieces that it may have learnt.

    Raises:
      InputError: the two data sets are known to share pieces.
    """
    if frozenset((trained_on, dataset)) in data.LEAKS:
        raise InputError(
            f"the model was trained on {trained_on!r}, which shares pieces with {dataset!r}: the "
            "score would not be honest"
        )


def _load(served: Served, flags: Evaluate) -> tuple[str, str, list[Piece]]:
    """Finds what to score: its name, the split, and the pieces."""
    trained = served.settings["training_data"]
    flags = flags.or_trained_on(trained)
    steps = served.settings["steps_per_quarter"]
    if flags.data is not None and flags.data.is_file():
        return flags.data.name, "all", [Piece(flags.data.name, data.read_piece(flags.data, steps))]
    check_no_leak(trained["dataset"], flags.dataset)
    seed = served.settings["config"]["seed"]
    corpus = data.load(flags, steps_per_quarter=steps, seed=seed)
    return corpus.name, flags.split, data.pieces(corpus.splits[flags.split])


def _training_pieces(served: Served, flags: Evaluate) -> list[Piece]:
    """The pieces that the model learnt from; none, with a word about it, if they are gone."""
    own = dataclasses.replace(flags, dataset=None, data=None, split="train")
    try:
        return _load(served, own)[2]
    except InputError as error:
        if flags.plot:
            raise
        cli.say(f"no samples are compared, since the training data cannot be read: {error}")
        return []


def main(argv: list[str]) -> None:
    """Scores and prints; see the module."""
    flags = cli.parse(Evaluate, argv, doc=__doc__)
    served = load_export(flags.model or Path("saved_models") / TASK)
    name, split, rows = _load(served, flags)
    scored = score(served, rows, batch_size=flags.batch_size)
    training = _training_pieces(served, flags) if flags.samples else []
    if training:
        compared = compare(served, training, rows, samples=flags.samples)
        print_comparison(compared)
        if flags.plot:
            draw_comparison(compared, flags.plot)
    count, seconds = scored.count, scored.seconds
    cli.print_scored(TASK, name, split, count, seconds, served.path, scored.metrics)


if __name__ == "__main__":
    cli.run(main)
