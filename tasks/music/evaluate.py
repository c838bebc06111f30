"""Score an exported model of music, and compare its samples with real music.

    python -m tasks.music.evaluate                                  # its own data, test split
    python -m tasks.music.evaluate --samples 64 --plot samples.png
    python -m tasks.music.evaluate --model saved_models/music/1 --data my_midi_files

The last line is one JSON object. `nll` is in nats per frame, over the frames from the second on;
`frame_accuracy` is TP / (TP + FP + FN) over the keys of the same frames. A key counts as predicted
if its probability is at least 0.5.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from common.commands import cli
from common.commands.cli import Scored
from common.commands.config import Count, EvaluateConfig, Picture
from common.errors import InputError
from common.serving.served import Served, load_export
from tasks.music.config import PRESETS, TASK
from tasks.music.formats import Piece, read_folder, read_piece, split
from tasks.music.midi import KEYS
from tasks.music.sample_statistics import compare, draw_comparison, print_comparison

import numpy as np
from etils import epy

with epy.lazy_imports():
    from tasks.music import data, datasets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig):
    """Flags of `evaluate`."""

    batch_size: Count = 8
    """pieces per request"""
    samples: int = 0
    """pieces sampled from nothing, to compare with real ones and to search for copies"""
    plot: Picture | None = None
    """draw statistics of samples and of real music to this picture file;
    a name that ends in -dark gets dark colours"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        if self.samples < 0:
            raise InputError(f"--samples must be 0 or more, got {self.samples}")
        if self.plot and not self.samples:
            raise InputError("--plot draws samples: give --samples 1 or more")


def metrics(
    truth: Sequence[np.ndarray], nll: Sequence[np.ndarray], probabilities: Sequence[np.ndarray]
) -> dict[str, float]:
    """Return the `nll` and the `frame_accuracy` of pieces; see the module.

    Args:
      truth: for each piece, its frames `<int>[time, 88]`.
      nll: for each piece, `<float>[time - 1]`.
      probabilities: for each piece, `<float>[time - 1, 88]`.

    Example:
      >>> frames = np.eye(3, 88)
      >>> metrics([frames], [np.array([1.0, 2.0])], [np.where(frames[1:] > 0, 0.9, 0.1)])
      {'nll': 1.5, 'frame_accuracy': 1.0}
    """
    real = np.concatenate([frames[1:] for frames in truth]) > 0
    predicted = np.concatenate(probabilities) >= 0.5
    either = int((real | predicted).sum())
    return {
        "nll": float(np.concatenate(nll).mean(dtype=np.float64)),
        "frame_accuracy": float((real & predicted).sum() / either) if either else 1.0,
    }


def piece_request(pieces: Sequence[Piece]) -> dict[str, np.ndarray]:
    """Return the inputs of signature `tensors` for pieces.

    Example:
      >>> request = piece_request([Piece("one", np.eye(3, 88)), Piece("two", np.eye(2, 88))])
      >>> request["notes"].shape, request["length"].tolist()
      ((2, 3, 88), [3, 2])
    """
    length = np.array([len(piece.notes) for piece in pieces], np.int32)
    notes = np.zeros((len(pieces), max(length), KEYS), np.float32)
    for row, piece in enumerate(pieces):
        notes[row, : len(piece.notes)] = piece.notes
    return {"notes": notes, "length": length}


def score(served: Served, rows: Sequence[Piece], *, batch_size: int = 8) -> Scored:
    """Score an export on pieces; those of fewer than two frames are left out.

    Args:
      served: the export.
      rows: the pieces.
      batch_size: pieces per request.

    Raises:
      InputError: no piece has two frames.
    """
    start = time.perf_counter()
    rows = [row for row in rows if len(row.notes) >= 2]
    if not rows:
        raise InputError("no piece of two frames or more in this split")
    nll: list[np.ndarray] = []
    probabilities: list[np.ndarray] = []
    parts = [part for row in rows for part in split(row, served.settings["max_frames"])]
    predictions = served.predict(
        "tensors",
        parts,
        lambda parts: piece_request([part.piece for part in parts]),
        batch_size=batch_size,
        length_of=lambda part: len(part.piece.notes),
        budget=served.settings.get("max_batch_frames"),
    )
    for part, outputs in predictions:
        scored = slice(part.known - 1, len(part.piece.notes) - 1)
        nll.append(outputs["nll"][scored])
        probabilities.append(outputs["probabilities"][scored])
    seconds = time.perf_counter() - start
    truth = [part.piece.notes[part.known - 1 :] for part in parts]
    return Scored(len(rows), seconds, metrics(truth, nll, probabilities))


def check_no_leak(trained_on: str | None, dataset: str | None) -> None:
    """Refuse to score a model on pieces that it may have been trained on.

    Raises:
      InputError: the two data sets are known to share pieces.
    """
    if frozenset((trained_on, dataset)) in datasets.LEAKS:
        raise InputError(
            f"the model was trained on {trained_on!r}, which shares pieces with {dataset!r}: the "
            "score would not be honest"
        )


def load_split(served: Served, flags: Evaluate) -> tuple[str, str, list[Piece]]:
    """Return the name of the data, the split, and its pieces."""
    steps = served.settings["steps_per_quarter"]
    path = flags.new_data(served.settings)
    if path is not None and path.is_file():
        return path.name, "all", [Piece(path.name, read_piece(path, steps))]
    if path is not None and path.is_dir() and not data.has_splits(path):
        return path.resolve().name, "all", read_folder(path, steps)
    flags = flags.or_trained_on(served.settings)
    check_no_leak(served.settings["training_data"]["dataset"], flags.dataset)
    seed = served.settings["config"]["seed"]
    corpus = data.load(flags, steps_per_quarter=steps, seed=seed)
    return corpus.name, flags.split, data.pieces(corpus.splits[flags.split])


def load_training_pieces(served: Served, flags: Evaluate) -> list[Piece]:
    """Return the training pieces of the model.

    Where they cannot be read, print a message and return none, since only the comparison of samples
    needs them.

    Raises:
      InputError: they cannot be read, and `--plot` demands the comparison.
    """
    own = dataclasses.replace(flags, dataset=None, data=None, split="train")
    try:
        return load_split(served, own)[2]
    except InputError as error:
        if flags.plot:
            raise
        cli.say(f"no samples are compared, since the training data cannot be read: {error}")
        return []


def evaluate(flags: Evaluate) -> dict[str, Any]:
    """Score an export, print the report, and return the result of the command."""
    served = load_export(flags.model, TASK)
    name, split, rows = load_split(served, flags)
    scored = score(served, rows, batch_size=flags.batch_size)
    training = load_training_pieces(served, flags) if flags.samples else []
    if training:
        compared = compare(served, training, rows, samples=flags.samples)
        print_comparison(compared)
        if flags.plot:
            draw_comparison(compared, flags.plot)
    return cli.to_result(TASK, name, split, scored, served.path)


def main(argv: list[str]) -> None:
    """Score and print; see the module."""
    doc = cli.with_datasets(__doc__, PRESETS, cli.TRAINED_ON)
    cli.print_result(evaluate(cli.parse(Evaluate, argv, doc=doc)))


if __name__ == "__main__":
    cli.run(main)
