"""Recognise the activity in your own clips.

    python -m tasks.video.predict clip.avi
    python -m tasks.video.predict *.mp4 --output activities.jsonl
    python -m tasks.video.predict long.webm --window 4 --plot activities.png

Words on the command line are video files of any kind that FFmpeg reads. A file that is longer than
the model's limit is split into windows that overlap by half: its prediction is the mean of theirs,
and the JSON holds the prediction of each window, too.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.commands import cli
from common.commands.config import BatchPredictConfig, Count, Picture, Positive
from common.errors import InputError
from common.serving.served import Arrays, Served, load_export
from tasks.video.clips import clip_request, read_frames
from tasks.video.config import TASK

import numpy as np
import tyro

WINDOW_SECONDS = 3.0
DRAWN_FRAMES = 10
DRAWN_ACTIVITIES = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(BatchPredictConfig):
    """Flags of `predict`."""

    clips: tyro.conf.Positional[tuple[Path, ...]] = ()
    """video files"""
    window: Positive = WINDOW_SECONDS
    """length of the windows of a file that is longer than the model's limit, seconds"""
    batch_size: Count = 4
    """windows per request"""
    plot: Picture | None = None
    """draw frames of the first clip and its probabilities over time to this picture file"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        if not self.clips:
            raise InputError("no clip given: name a video file, as in `predict clip.avi`")


class Window(NamedTuple):
    """Successive frames of a clip.

    Attributes:
      start: the number of the first frame.
      frames: `<uint8>[height, width, 3]` each.
    """

    start: int
    frames: list[np.ndarray]


class WindowPrediction(NamedTuple):
    """The prediction of the frames `start` to `end` (excluded) of a clip.

    Attributes:
      start: the number of the first frame.
      end: the number of the frame after the last one.
      activity: the most probable class.
      probabilities: `<float32>[classes]`.
    """

    start: int
    end: int
    activity: str
    probabilities: np.ndarray


def windows(frames: Iterable[np.ndarray], *, longest: int, window: int) -> Iterator[Window]:
    """Split a clip into windows that overlap by half; up to `longest` frames are one window.

    At most `longest + 1` frames are held at a time.

    Example:
      >>> [(start, len(part)) for start, part in windows(range(11), longest=6, window=4)]
      [(0, 4), (2, 4), (4, 4), (6, 4), (8, 3)]
    """
    window = max(2, min(window, longest))
    hop = window // 2
    iterator = iter(frames)
    part = list(itertools.islice(iterator, longest + 1))
    if len(part) <= longest:
        yield Window(0, part)
        return
    start = 0
    while True:
        part += itertools.islice(iterator, max(0, window - len(part)))
        # Stop if every remaining frame is already in the previous window.
        if start and len(part) <= window - hop:
            return
        yield Window(start, part[:window])
        start, part = start + hop, part[hop:]


def _predict_windows(
    served: Served, signature: str, path: Path, *, seconds: float, batch_size: int
) -> Iterator[tuple[Window, Arrays]]:
    """Yield the windows of a file with the outputs of a signature."""
    rate = served.settings["frame_rate"]

    def to_request(rows: Sequence[Window]) -> dict[str, np.ndarray]:
        return clip_request([np.stack(row.frames) for row in rows], [rate] * len(rows))

    frames = read_frames(path, rate=rate)
    return served.predict(
        signature,
        windows(frames, longest=served.settings["max_frames"], window=round(seconds * rate)),
        to_request,
        batch_size=batch_size,
        length_of=lambda row: len(row.frames),
        window=2,
    )


def predict(
    served: Served, path: Path, *, seconds: float = WINDOW_SECONDS, batch_size: int = 4
) -> list[WindowPrediction]:
    """Predict the activity in each window of a file.

    Args:
      served: the export.
      path: a video file.
      seconds: length of the windows, if the file is longer than the model's limit.
      batch_size: windows per request.

    Raises:
      InputError: the file cannot be read as video.
    """
    predictions = _predict_windows(
        served, "serving_default", path, seconds=seconds, batch_size=batch_size
    )
    return [
        WindowPrediction(
            start,
            start + len(frames),
            bytes(outputs["activity"]).decode(),
            outputs["probabilities"],
        )
        for (start, frames), outputs in predictions
    ]


def describe(
    path: Path, predictions: Sequence[WindowPrediction], labels: Sequence[str], rate: float
) -> dict[str, Any]:
    """Return the prediction of a clip as plain values.

    Args:
      path: the file.
      predictions: of its windows.
      labels: the classes of the model.
      rate: frames per second of the model.

    Example:
      >>> part = WindowPrediction(0, 24, "running", np.array([0.9, 0.1]))
      >>> prediction = describe(Path("a.avi"), [part], ["running", "walking"], 8.0)
      >>> prediction["activity"], prediction["seconds"], prediction["probabilities"]
      ('running', 3.0, {'running': 0.9, 'walking': 0.1})
    """
    mean = np.mean([prediction.probabilities for prediction in predictions], axis=0)
    probabilities = [round(float(probability), 6) for probability in mean]
    return {
        "clip": str(path),
        "activity": labels[int(mean.argmax())],
        "probability": max(probabilities),
        "seconds": round(predictions[-1].end / rate, 3),
        "probabilities": dict(zip(labels, probabilities, strict=True)),
        "windows": [
            {
                "start": round(start / rate, 3),
                "end": round(end / rate, 3),
                "activity": activity,
                "probability": round(float(of_window.max()), 6),
            }
            for start, end, activity, of_window in predictions
        ],
    }


def predict_all(served: Served, flags: Predict) -> Iterator[dict[str, Any]]:
    """Yield the prediction of each clip as plain values, in order.

    If there are several clips, a clip that cannot be read has a message instead.
    """
    labels, rate = served.settings["labels"], served.settings["frame_rate"]
    for path in flags.clips:
        try:
            parts = predict(served, path, seconds=flags.window, batch_size=flags.batch_size)
        except InputError as error:
            if len(flags.clips) == 1:
                raise
            yield {"clip": str(path), "activity": None, "message": str(error)}
        else:
            yield describe(path, parts, labels, rate)


def to_line(prediction: dict[str, Any]) -> str:
    """Format a prediction for a person.

    Example:
      >>> to_line({"clip": "a.avi", "activity": "running", "probability": 0.93, "seconds": 2.4})
      'running 93%  a.avi (2.4 s)'
    """
    if prediction["activity"] is None:
        return f"-----  {prediction['message']}"
    activity, probability = prediction["activity"], prediction["probability"]
    return f"{activity} {probability:.0%}  {prediction['clip']} ({prediction['seconds']:.1f} s)"


def draw(
    served: Served, prediction: dict[str, Any], path: Path, *, seconds: float = WINDOW_SECONDS
) -> None:
    """Draw some frames of a clip, and below them the most probable activities over time.

    Args:
      served: the export.
      prediction: of the clip; see `describe`.
      path: the picture to write.
      seconds: length of the windows; see `predict`.

    Raises:
      InputError: the clip could not be read.
    """
    from matplotlib.figure import Figure

    if prediction["activity"] is None:
        raise InputError(f"nothing to draw: {prediction['message']}")
    labels, rate = served.settings["labels"], served.settings["frame_rate"]
    count = round(prediction["seconds"] * rate)
    numbers = set(np.linspace(0, count - 1, min(DRAWN_FRAMES, count)).round().astype(int).tolist())
    drawn: dict[int, np.ndarray] = {}
    total, covered = np.zeros((count, len(labels))), np.zeros((count, 1))
    parts = _predict_windows(
        served, "explain", Path(prediction["clip"]), seconds=seconds, batch_size=1
    )
    for (start, frames), outputs in parts:
        steps = outputs["frame_probabilities"][: outputs["length"]]
        total[start : start + len(steps)] += steps
        covered[start : start + len(steps)] += 1
        drawn |= {n: frame for n, frame in enumerate(frames, start) if n in numbers}
    over_time = total / np.maximum(covered, 1)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    grid = figure.add_gridspec(2, len(drawn), height_ratios=(1, 2.5))
    for column, (number, frame) in enumerate(drawn.items()):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(frame)
        axes.set_title(f"{number / rate:.1f} s", fontsize=8)
        axes.set_axis_off()
    axes = figure.add_subplot(grid[1, :])
    times = (np.arange(count) + 0.5) / rate
    for label in over_time.mean(axis=0).argsort()[::-1][:DRAWN_ACTIVITIES]:
        axes.plot(times, over_time[:, label], label=labels[label], marker="." if count < 40 else "")
    axes.set(xlabel="seconds", ylabel="probability", ylim=(0, 1), xlim=(0, count / rate))
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main(argv: list[str]) -> None:
    """Predict and print; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    served = load_export(flags.model, TASK)
    first = cli.print_predictions(flags, predict_all(served, flags), to_line=to_line)
    if flags.plot:
        draw(served, first, flags.plot, seconds=flags.window)


if __name__ == "__main__":
    cli.run(main)
