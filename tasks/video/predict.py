"""Asks an exported video model about your own clips.

    python -m tasks.video.predict clip.avi
    python -m tasks.video.predict *.mp4 --output answers.jsonl
    python -m tasks.video.predict long.webm --window 4 --plot seen.png

Words on the command line are files of any kind that FFmpeg reads. Frames are sampled by time before
they are sent. A file longer than the model sees at once is walked in windows that overlap by half;
its answer is their mean, and each window's own answer is in the JSON.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from common.commands import cli
from common.commands.config import PredictConfig
from common.errors import InputError
from common.serving.served import Served, load_export
from tasks.video import clips, serving
from tasks.video.evaluate import TASK, answers

import numpy as np
import tyro
from matplotlib.figure import Figure

Window = tuple[int, list[np.ndarray]]  # the first frame's number, the frames


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(PredictConfig):
    """Flags of `predict`."""

    clips: tyro.conf.Positional[tuple[Path, ...]] = ()
    """video files"""
    window: float = 3.0
    """seconds that are looked at together in a file longer than the model sees at once"""
    plot: Path | None = None
    """draw the first clip's frames and its probabilities over time into this PNG"""
    batch_size: int = 4
    """windows a request"""

    def __post_init__(self) -> None:
        """Checks what no type can say."""
        if not self.window > 0:
            raise InputError(f"--window must be positive, got {self.window}")
        if self.batch_size < 1:
            raise InputError(f"--batch_size must be 1 or more, got {self.batch_size}")


def windows(frames: Iterable[np.ndarray], *, longest: int, window: int) -> Iterator[Window]:
    """Cuts a clip into windows that overlap by half; one of `longest` frames or less stays whole.

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
        yield 0, part
        return
    start = 0
    while True:
        part += itertools.islice(iterator, max(0, window - len(part)))
        # What is left has been seen already, but for the first time around.
        if start and len(part) <= window - hop:
            return
        yield start, part[:window]
        start, part = start + hop, part[hop:]


def _window_frames(served: Served, seconds: float) -> dict[str, int]:
    settings = served.settings
    count = round(seconds * settings["frame_rate"])
    return {"longest": settings["max_frames"], "window": count}


def describe(served: Served, path: Path, flags: Predict) -> dict[str, Any]:
    """One clip's answer as plain values.

    Raises:
      InputError: the file cannot be read as video.
    """
    settings = served.settings
    rate, labels = settings["frame_rate"], settings["labels"]
    spans: list[tuple[int, int]] = []

    def parts() -> Iterator[tuple[np.ndarray, float]]:
        frames = clips.read_frames(path, rate=rate)
        for start, part in windows(frames, **_window_frames(served, flags.window)):
            spans.append((start, start + len(part)))
            yield np.stack(part), rate

    said = list(answers(served, parts(), batch_size=flags.batch_size))
    mean = np.mean([answer["probabilities"] for answer in said], axis=0)
    shares = [round(float(share), 6) for share in mean]
    return {
        "clip": str(path),
        "activity": labels[int(mean.argmax())],
        "probability": max(shares),
        "seconds": round(spans[-1][1] / rate, 3),
        "probabilities": dict(zip(labels, shares, strict=True)),
        "windows": [
            {
                "start": round(start / rate, 3),
                "end": round(end / rate, 3),
                "activity": answer["activity"].decode(),
                "probability": round(float(answer["probabilities"].max()), 6),
            }
            for (start, end), answer in zip(spans, said, strict=True)
        ],
    }


def describe_all(served: Served, flags: Predict) -> Iterator[dict[str, Any]]:
    """Answers about each clip; among several, one that cannot be read has a message instead."""
    for path in flags.clips:
        try:
            yield describe(served, path, flags)
        except InputError as error:
            if len(flags.clips) == 1:
                raise
            yield {"clip": str(path), "activity": None, "message": str(error)}


def to_line(said: dict[str, Any]) -> str:
    """One answer for a person.

    Example:
      >>> to_line({"clip": "a.avi", "activity": "running", "probability": 0.93, "seconds": 2.4})
      'running 93%  a.avi (2.4 s)'
    """
    if said["activity"] is None:
        return f"-----  {said['message']}"
    return f"{said['activity']} {said['probability']:.0%}  {said['clip']} ({said['seconds']:.1f} s)"


def draw(served: Served, said: dict[str, Any], flags: Predict, *, shown: int = 10) -> None:
    """Draws a strip of a clip's frames, and under it the likeliest activities over time."""
    settings = served.settings
    rate, labels = settings["frame_rate"], settings["labels"]
    count = round(said["seconds"] * rate)
    total, seen = np.zeros((count, len(labels))), np.zeros((count, 1))
    wanted = dict.fromkeys(np.linspace(0, count - 1, min(shown, count)).round().astype(int))
    path = Path(said["clip"])
    frames = clips.read_frames(path, rate=rate)
    for start, part in windows(frames, **_window_frames(served, flags.window)):
        answer = served.call("explain", **serving.request([np.stack(part)], [rate]))
        steps = answer["frame_probabilities"][0, : answer["length"][0]]
        total[start : start + len(steps)] += steps
        seen[start : start + len(steps)] += 1
        for place, frame in enumerate(part, start):
            if place in wanted:
                wanted[place] = frame
    over_time = total / np.maximum(seen, 1)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    grid = figure.add_gridspec(2, len(wanted), height_ratios=(1, 2.5))
    for column, (place, frame) in enumerate(wanted.items()):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(frame)
        axes.set_title(f"{place / rate:.1f} s", fontsize=8)
        axes.set_axis_off()
    axes = figure.add_subplot(grid[1, :])
    times = (np.arange(count) + 0.5) / rate
    for label in over_time.mean(axis=0).argsort()[::-1][:5]:
        axes.plot(times, over_time[:, label], label=labels[label], marker="." if count < 40 else "")
    axes.set(xlabel="seconds", ylabel="probability", ylim=(0, 1), xlim=(0, count / rate))
    axes.legend(fontsize=8)
    figure.savefig(flags.plot, dpi=120)


def main(argv: list[str]) -> None:
    """Asks and prints; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    if not flags.clips:
        raise InputError("give a video file, as in: predict clip.avi")
    served = load_export(flags.model or Path("saved_models") / TASK)
    first = cli.print_answers(flags, describe_all(served, flags), to_line=to_line)
    if flags.plot:
        if first["activity"] is None:
            raise InputError(f"nothing to draw: {first['message']}")
        draw(served, first, flags)


if __name__ == "__main__":
    cli.run(main)
