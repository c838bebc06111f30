"""Events of a long file, from the predictions of its windows, as CSV or subtitles."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

NONE = "none of these"  # the activity where no class is probable enough
SUFFIXES = (".csv", ".srt")


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


class Event(NamedTuple):
    """An activity in a part of a clip; times are in seconds."""

    start: float
    end: float
    activity: str
    probability: float


def choose(
    probabilities: np.ndarray, labels: Sequence[str], thresholds: Sequence[float] | None = None
) -> str:
    """Return the most probable class, or `NONE` if its probability is below its threshold.

    Args:
      probabilities: `<float>[classes]`.
      labels: the classes.
      thresholds: of each class; None: 0.

    Example:
      >>> choose(np.array([0.2, 0.8]), ["run", "sit"], [0.5, 0.9])
      'none of these'
    """
    best = int(np.argmax(probabilities))
    if thresholds is not None and probabilities[best] < thresholds[best]:
        return NONE
    return labels[best]


def find_events(
    predictions: Sequence[WindowPrediction],
    labels: Sequence[str],
    rate: float,
    thresholds: Sequence[float] | None = None,
) -> list[Event]:
    """Return what happens when.

    Where windows overlap, their probabilities are averaged; neighbouring parts with the same
    activity are one event. Parts of `NONE` are no events.

    Args:
      predictions: of the windows of a clip.
      labels: the classes.
      rate: frames per second.
      thresholds: see `choose`.

    Example:
      >>> rows = [(0, 20, [0.9, 0.1]), (10, 30, [0.7, 0.3]), (30, 40, [0.2, 0.8])]
      >>> windows = [WindowPrediction(a, b, "", np.array(p)) for a, b, p in rows]
      >>> [tuple(event[:3]) for event in find_events(windows, ["run", "sit"], rate=10.0)]
      [(0.0, 3.0, 'run'), (3.0, 4.0, 'sit')]
    """
    edges = sorted({edge for row in predictions for edge in (row.start, row.end)})
    place = {edge: number for number, edge in enumerate(edges)}
    sums, counts = np.zeros((len(edges), len(labels))), np.zeros(len(edges), int)
    for row in predictions:
        for edge, sign in ((row.start, 1), (row.end, -1)):
            sums[place[edge]] += sign * row.probabilities
            counts[place[edge]] += sign
    sums, counts = np.cumsum(sums, axis=0), np.cumsum(counts)
    events: list[Event] = []
    for number, (first, last) in enumerate(itertools.pairwise(edges)):
        if not counts[number]:
            continue
        mean = sums[number] / counts[number]
        activity = choose(mean, labels, thresholds)
        start, end, probability = first / rate, last / rate, float(mean.max())
        if events and events[-1].activity == activity and events[-1].end == start:
            before = events.pop()
            share = (before.end - before.start) / (end - before.start)
            probability = share * before.probability + (1.0 - share) * probability
            start = before.start
        events.append(Event(start, end, activity, probability))
    return [event for event in events if event.activity != NONE]


def to_csv(events: Iterable[Mapping[str, object]]) -> bytes:
    """Return events as CSV with the columns clip, start, end, activity and probability."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["clip", "start", "end", "activity", "probability"])
    writer.writeheader()
    writer.writerows(events)
    return text.getvalue().encode()


def to_srt(events: Iterable[Mapping[str, float | str]]) -> bytes:
    """Return events as subtitles in the form of SubRip, which video players show.

    Example:
      >>> event = {"start": 61.5, "end": 3600.0, "activity": "running", "probability": 0.9}
      >>> print(to_srt([event]).decode(), end="")
      1
      00:01:01,500 --> 01:00:00,000
      running 90%
      <BLANKLINE>
    """

    def clock(seconds: float) -> str:
        milliseconds = round(seconds * 1000)
        minutes, rest = divmod(milliseconds, 60_000)
        hours, minutes = divmod(minutes, 60)
        return f"{hours:02}:{minutes:02}:{rest // 1000:02},{rest % 1000:03}"

    blocks = [
        f"{number}\n{clock(float(event['start']))} --> {clock(float(event['end']))}\n"
        f"{event['activity']} {float(event['probability']):.0%}\n\n"
        for number, event in enumerate(events, start=1)
    ]
    return "".join(blocks).encode()
