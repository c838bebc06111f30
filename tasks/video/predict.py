"""Recognise the activity in your own clips.

    python -m tasks.video.predict clip.avi
    python -m tasks.video.predict *.mp4 --output activities.jsonl
    python -m tasks.video.predict long.webm --window 4 --hop 1 --events long.srt
    python -m tasks.video.predict long.webm --plot activities.png
    python -m tasks.video.predict --webcam 0

Words on the command line are video files of any kind that FFmpeg reads. A file that is longer than
the model's limit is split into windows that overlap by half: its prediction is the mean of theirs,
and the JSON holds the prediction of each window and the events, too. With `--window`, a file of
any length is split.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from common import plots
from common.commands import cli
from common.commands.config import BatchPredictConfig, Count, Fraction, Picture, Positive
from common.errors import InputError
from common.files import write_together
from common.serving.model import Model
from common.serving.served import Arrays, Served, load_export
from tasks.video.clips import clip_request, read_frames
from tasks.video.config import TASK
from tasks.video.events import (
    SUFFIXES,
    Event,
    WindowPrediction,
    choose,
    find_events,
    to_csv,
    to_srt,
)
from tasks.video.joints import pose_request, read_joints, sample

import numpy as np
import tyro

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINDOW_SECONDS = 3.0
DRAWN_FRAMES = 10
DRAWN_ACTIVITIES = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(BatchPredictConfig):
    """Flags of `predict`."""

    INPUTS: ClassVar[str] = "clips"

    clips: tyro.conf.Positional[tuple[Path, ...]] = ()
    """video files; for a model of joints, files .npy or .npz"""
    window: Positive | None = None
    """split every file into windows of this length, seconds (default: 3 s, for files that are
    longer than the model's limit)"""
    hop: Positive | None = None
    """seconds from the start of a window to that of the next one (default: half a window)"""
    events: Path | None = None
    """write what happens when to this file: a table (.csv), or subtitles of one clip (.srt)"""
    threshold: Fraction | None = None
    """smallest probability of an activity, else it is "none of these" (default: the thresholds of
    the classes, which training chose on the validation clips)"""
    webcam: int | None = None
    """number of a camera of this machine, instead of files: prints each window until Ctrl-C"""
    batch_size: Count = 4
    """windows per request"""
    plot: Picture | None = None
    """draw frames of the first clip and its probabilities over time to this picture file;
    a name that ends in -dark gets dark colours"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        if not self.clips and self.webcam is None:
            raise InputError("no clip given: name a video file, as in `predict clip.avi`")
        if self.webcam is not None and (self.clips or self.events or self.plot):
            raise InputError("--webcam takes no files, no --events and no --plot")
        if self.workers > 1 and (self.webcam is not None or self.events or self.plot):
            raise InputError("--workers takes no --webcam, no --events and no --plot")
        if self.hop is not None and self.hop > (self.window or WINDOW_SECONDS):
            raise InputError("--hop must not exceed --window, or frames would be left out")
        if self.events is not None:
            if self.events.suffix.lower() not in SUFFIXES:
                raise InputError(f"--events must end in .csv or .srt, got {self.events.name!r}")
            if self.events.suffix.lower() == ".srt" and len(self.clips) > 1:
                raise InputError("--events: subtitles are of one clip; use .csv for several")


class Window(NamedTuple):
    """Successive frames of a clip.

    Attributes:
      start: the number of the first frame.
      frames: `<uint8>[height, width, 3]` each.
    """

    start: int
    frames: list[np.ndarray]


def windows(
    frames: Iterable[np.ndarray],
    *,
    longest: int,
    window: int,
    hop: int | None = None,
    whole: bool = True,
) -> Iterator[Window]:
    """Split a clip into windows.

    At most `longest + 1` frames are held at a time.

    Args:
      frames: of the clip.
      longest: maximum frames of a window.
      window: frames of a window.
      hop: frames between the starts of windows; None: half a window.
      whole: whether a clip of up to `longest` frames is one window.

    Example:
      >>> [(start, len(part)) for start, part in windows(range(11), longest=6, window=4)]
      [(0, 4), (2, 4), (4, 4), (6, 4), (8, 3)]
    """
    window = max(2, min(window, longest))
    hop = min(max(1, hop or window // 2), window)
    iterator = iter(frames)
    part = list(itertools.islice(iterator, longest + 1 if whole else window))
    if len(part) <= longest and whole:
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
    served: Served,
    signature: str,
    source: Path | int,
    *,
    seconds: float | None,
    hop: float | None = None,
    batch_size: int,
) -> Iterator[tuple[Window, Arrays]]:
    """Yield the windows of a file or a camera with the outputs of a signature."""
    rate = served.settings["frame_rate"]

    has_joints = "joints" in served.settings

    def to_request(rows: Sequence[Window]) -> dict[str, np.ndarray]:
        frames = [np.stack(row.frames) for row in rows]
        if has_joints:
            return pose_request([(motion, rate) for motion in frames])
        return clip_request(frames, [rate] * len(rows))

    parts = windows(
        _joint_frames(served, source, rate) if has_joints else read_frames(source, rate=rate),
        longest=served.settings["max_frames"],
        window=round((seconds or WINDOW_SECONDS) * rate),
        hop=None if hop is None else round(hop * rate),
        whole=seconds is None and not isinstance(source, int),
    )
    return served.predict(
        signature,
        parts,
        to_request,
        batch_size=batch_size,
        length_of=lambda row: len(row.frames),
        window=1 if isinstance(source, int) else 2,
    )


def _joint_frames(served: Served, source: Path | int, rate: float) -> Iterator[np.ndarray]:
    """Yield the joints of each frame of a file at another frame rate."""
    if isinstance(source, int):
        raise InputError("this model reads joints, not the pictures of a camera")
    motion, own_rate = read_joints(source)
    if motion.shape[1] != served.settings["joints"]:
        raise InputError(
            f"{motion.shape[1]} joints; the model reads {served.settings['joints']}", source
        )
    yield from sample(motion, own_rate, rate, longest=len(motion) * round(rate + 1))


def predict(
    served: Served,
    path: Path,
    *,
    seconds: float | None = None,
    hop: float | None = None,
    batch_size: int = 4,
) -> list[WindowPrediction]:
    """Predict the activity in each window of a file.

    Args:
      served: the export.
      path: a video file.
      seconds: length of the windows; None: 3 s, if the file is longer than the model's limit.
      hop: seconds between the starts of windows; None: half a window.
      batch_size: windows per request.

    Raises:
      InputError: the file cannot be read as video.
    """
    return list(_predictions(served, path, seconds=seconds, hop=hop, batch_size=batch_size))


def _predictions(served: Served, source: Path | int, **options: Any) -> Iterator[WindowPrediction]:
    """Yield the prediction of each window; see `predict`."""
    for (start, frames), outputs in _predict_windows(served, "serving_default", source, **options):
        activity = bytes(outputs["activity"]).decode()
        yield WindowPrediction(start, start + len(frames), activity, outputs["probabilities"])


def describe(
    path: Path | str,
    predictions: Sequence[WindowPrediction],
    labels: Sequence[str],
    rate: float,
    thresholds: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Return the prediction of a clip as plain values.

    Args:
      path: the file.
      predictions: of its windows.
      labels: the classes of the model.
      rate: frames per second of the model.
      thresholds: smallest probability of each class; see `events.choose`.

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
        "activity": choose(mean, labels, thresholds),
        "probability": max(probabilities),
        "seconds": round(predictions[-1].end / rate, 3),
        "probabilities": dict(zip(labels, probabilities, strict=True)),
        "windows": [
            {
                "start": round(start / rate, 3),
                "end": round(end / rate, 3),
                "activity": choose(of_window, labels, thresholds),
                "probability": round(float(of_window.max()), 6),
            }
            for start, end, _, of_window in predictions
        ],
        "events": [
            {
                name: round(v, 6) if isinstance(v, float) else v
                for name, v in event._asdict().items()
            }
            for event in find_events(predictions, labels, rate, thresholds)
        ],
    }


@dataclasses.dataclass(frozen=True)
class Activity:
    """The activity in a clip.

    Attributes:
      path: the clip.
      label: its activity, or "none of these".
      probabilities: of all classes, the mean over the windows.
      events: the activities over time, in seconds.
    """

    path: Path
    label: str
    probabilities: Mapping[str, float]
    events: Sequence[Event]


def load(path: str | Path | None = None, *, batch_size: int = 4) -> Model[str | Path, Activity]:
    """Load a published model as a function of video files; see `common.serving.model`.

    Example::

        model = load()
        model("clip.avi").label  # "running"
    """
    served = load_export(path, TASK)
    labels, rate = served.settings["labels"], served.settings["frame_rate"]
    thresholds = served.settings.get("thresholds")

    def answer(paths: Iterable[str | Path]) -> Iterator[Activity]:
        for clip in map(Path, paths):
            parts = predict(served, clip, batch_size=batch_size)
            mean = np.mean([part.probabilities for part in parts], axis=0)
            yield Activity(
                clip,
                choose(mean, labels, thresholds),
                dict(zip(labels, mean.tolist(), strict=True)),
                find_events(parts, labels, rate, thresholds),
            )

    return Model(served, answer)


def predict_all(served: Served, flags: Predict) -> Iterator[dict[str, Any]]:
    """Yield the prediction of each clip as plain values, in order.

    If there are several clips, a clip that cannot be read has a message instead.
    """
    labels, rate = served.settings["labels"], served.settings["frame_rate"]
    thresholds = class_thresholds(served, flags)
    options: dict[str, Any] = {"seconds": flags.window, "hop": flags.hop}
    if flags.webcam is not None:
        for part in _predictions(served, flags.webcam, **options, batch_size=1):
            yield describe(f"camera {flags.webcam}", [part], labels, rate, thresholds)
        return
    for path in flags.clips:
        try:
            parts = predict(served, path, **options, batch_size=flags.batch_size)
        except InputError as error:
            if len(flags.clips) == 1:
                raise
            yield {"clip": str(path), "activity": None, "message": str(error)}
        else:
            yield describe(path, parts, labels, rate, thresholds)


def class_thresholds(served: Served, flags: Predict) -> list[float] | None:
    """Return the smallest probability of each class."""
    if flags.threshold is not None:
        return [flags.threshold] * len(served.settings["labels"])
    return served.settings.get("thresholds")


def write_events(path: Path, predictions: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Pass predictions on; after the last one, write their events to a CSV or SRT file."""
    rows = []
    for prediction in predictions:
        yield prediction
        rows += [{"clip": prediction["clip"], **event} for event in prediction.get("events", [])]
    content = to_srt(rows) if path.suffix.lower() == ".srt" else to_csv(rows)
    write_together({path: content})


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


class Course(NamedTuple):
    """The predictions of a clip over time.

    Attributes:
      times: `<float>[time]`, seconds.
      probabilities: `<float>[time, classes]`.
      frames: some frames of the clip, by their seconds.
    """

    times: np.ndarray
    probabilities: np.ndarray
    frames: Mapping[float, np.ndarray]


def explain(
    served: Served, prediction: Mapping[str, Any], *, seconds: float | None = None
) -> Course:
    """Return the probabilities of each frame of a clip, and `DRAWN_FRAMES` of its frames.

    Args:
      served: the export.
      prediction: of the clip; see `describe`.
      seconds: length of the windows; see `predict`.
    """
    labels, rate = served.settings["labels"], served.settings["frame_rate"]
    count = round(prediction["seconds"] * rate)
    numbers = set(np.linspace(0, count - 1, min(DRAWN_FRAMES, count)).round().astype(int).tolist())
    drawn: dict[float, np.ndarray] = {}
    total, covered = np.zeros((count, len(labels))), np.zeros((count, 1))
    parts = _predict_windows(
        served, "explain", Path(prediction["clip"]), seconds=seconds, batch_size=1
    )
    for (start, frames), outputs in parts:
        steps = outputs["frame_probabilities"][: outputs["length"]]
        total[start : start + len(steps)] += steps
        covered[start : start + len(steps)] += 1
        drawn |= {n / rate: frame for n, frame in enumerate(frames, start) if n in numbers}
    return Course((np.arange(count) + 0.5) / rate, total / np.maximum(covered, 1), drawn)


def draw(
    served: Served, prediction: dict[str, Any], path: Path, *, seconds: float | None = None
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
    if prediction["activity"] is None:
        raise InputError(f"nothing to draw: {prediction['message']}")
    labels, rate = served.settings["labels"], served.settings["frame_rate"]
    times, over_time, frames = explain(served, prediction, seconds=seconds)
    marker = "." if len(times) < 40 else ""
    with plots.picture(path, (10, 4.5)) as figure:
        grid = figure.add_gridspec(2, len(frames), height_ratios=(1, 2.5))
        for column, (time, frame) in enumerate(frames.items()):
            _draw_frame(figure.add_subplot(grid[0, column]), frame, f"{time:.1f} s")
        axes = figure.add_subplot(grid[1, :])
        for label in over_time.mean(axis=0).argsort()[::-1][:DRAWN_ACTIVITIES]:
            axes.plot(times, over_time[:, label], label=labels[label], marker=marker)
        end = len(times) / rate
        axes.set(xlabel="seconds", ylabel="probability", ylim=(0, 1), xlim=(0, end))
        axes.legend()


def _draw_frame(axes: Axes, frame: np.ndarray, title: str) -> None:
    """Draw a picture, or joints as seen from the front."""
    if frame.ndim == 2:
        axes.scatter(frame[:, 0], frame[:, 1], s=4)
        axes.set_aspect("equal")
    else:
        axes.imshow(frame)
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()


def main(argv: list[str]) -> None:
    """Predict and print; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    served = load_export(flags.model, TASK)
    predictions = predict_all(served, flags)
    if flags.events:
        predictions = write_events(flags.events, predictions)
    first = cli.print_predictions(flags, predictions, to_line=to_line)
    if flags.plot:
        draw(served, first, flags.plot, seconds=flags.window)


if __name__ == "__main__":
    cli.run(main)
