"""Events of long files, as tables and subtitles."""

import csv
import io
import itertools

from tasks.video.events import (
    NONE,
    Event,
    WindowPrediction,
    choose,
    find_events,
    to_csv,
    to_srt,
)

import numpy as np
import pytest

LABELS = ["running", "sitting"]


def window(start, end, first):
    return WindowPrediction(start, end, "", np.array([first, 1.0 - first]))


def test_events_are_those_of_the_mean_of_all_windows_at_each_frame():
    random = np.random.default_rng(0)
    rows = [window(3 * n, 3 * n + 6, random.random()) for n in range(30)]
    found = find_events(rows, LABELS, rate=10.0, thresholds=[0.6, 0.7])
    expected = []
    for frame in range(93):
        covering = [row.probabilities for row in rows if row.start <= frame < row.end]
        expected.append(choose(np.mean(covering, axis=0), LABELS, [0.6, 0.7]))
    given = [NONE] * 93
    for event in found:
        for frame in range(round(event.start * 10), round(event.end * 10)):
            given[frame] = event.activity
    assert given == expected and NONE in expected and set(LABELS) <= set(expected)
    for one, other in itertools.pairwise(found):
        assert one.end < other.start or one.activity != other.activity


def test_the_probability_of_an_event_is_that_of_its_parts():
    rows = [window(0, 10, 0.9), window(10, 40, 0.7)]
    assert find_events(rows, LABELS, 10.0) == [Event(0.0, 4.0, "running", pytest.approx(0.75))]
    gap = [window(0, 10, 0.9), window(20, 30, 0.9)]
    assert [event[:2] for event in find_events(gap, LABELS, 10.0)] == [(0.0, 1.0), (2.0, 3.0)]


def test_nothing_is_chosen_below_the_threshold_of_the_best_class():
    assert choose(np.array([0.6, 0.4]), LABELS) == "running"
    assert choose(np.array([0.6, 0.4]), LABELS, [0.61, 0.0]) == NONE
    assert choose(np.array([0.6, 0.4]), LABELS, [0.6, 0.9]) == "running"


def test_tables_and_subtitles():
    events = [
        {"clip": "a, b.mp4", "start": 0.0, "end": 1.5, "activity": "running", "probability": 0.9},
        {"clip": "a, b.mp4", "start": 3725.25, "end": 3726.0, "activity": "x", "probability": 0.5},
    ]
    rows = list(csv.DictReader(io.StringIO(to_csv(events).decode())))
    assert [row["clip"] for row in rows] == ["a, b.mp4"] * 2
    assert float(rows[1]["start"]) == 3725.25 and rows[0]["activity"] == "running"
    assert to_srt(events).decode() == (
        "1\n00:00:00,000 --> 00:00:01,500\nrunning 90%\n\n"
        "2\n01:02:05,250 --> 01:02:06,000\nx 50%\n\n"
    )
    assert to_srt([]) == b"" and to_csv([]).startswith(b"clip,start,end")
