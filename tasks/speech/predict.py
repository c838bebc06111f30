"""Asks an exported speech model about your own recordings.

    python -m tasks.speech.predict greeting.wav interview.mp3
    python -m tasks.speech.predict --plot heard.png greeting.wav
    python -m tasks.speech.predict --output texts.jsonl recordings/*.flac

WAV, FLAC, OGG, MP3 and what else libsndfile reads, at any rate, mono or stereo. Long recordings are
cut at their silences and transcribed piece by piece. Answers come in the order of the files.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common.commands import cli
from common.commands.config import PredictConfig
from common.errors import InputError
from common.serving.served import Served, load_export
from tasks.speech import audio, evaluate, serving
from tasks.speech.evaluate import TASK, answers

import numpy as np
import tyro
from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(PredictConfig):
    """Flags of `predict`."""

    files: tyro.conf.Positional[tuple[Path, ...]] = ()
    """sound files"""
    plot: Path | None = None
    """draw what the model heard in the first file (its first piece) into this PNG"""
    batch_size: int = 16
    """pieces of sound a request"""


class _Asked(NamedTuple):
    """A piece of a file that is asked about; or its end, with what went wrong."""

    path: Path
    start: int
    samples: int
    peak: float
    is_end: bool = False
    error: str | None = None


def transcribe(
    served: Served, paths: Iterable[Path], *, batch_size: int
) -> Iterator[dict[str, Any]]:
    """Transcribes files, in order, without holding more than a few batches of pieces.

    Yields:
      For each file `file`, `seconds`, `text`, `confidence` (exp of the mean log-probability of a
      letter over all pieces), `pieces` (`start`, `end` in seconds, `text`, `confidence`); and
      `message` where there is no text, or the file could not be read to its end (`is_broken`).
    """
    rate, longest = served.settings["sample_rate"], served.settings["max_samples"]
    asked: deque[_Asked] = deque()

    def sounds() -> Iterator[np.ndarray]:
        for path in paths:
            error = None
            try:
                for start, sound in audio.pieces(path, longest):
                    asked.append(_Asked(path, start, len(sound), float(np.abs(sound).max())))
                    yield sound
            except InputError as problem:
                error = str(problem)
            asked.append(_Asked(path, 0, 0, 0.0, True, error))

    pieces: list[tuple[_Asked, str, float]] = []

    def ended() -> Iterator[dict[str, Any]]:
        while asked and asked[0].is_end:
            yield _describe(asked.popleft(), pieces, rate)
            pieces.clear()

    for text, confidence in answers(served, sounds(), batch_size=batch_size):
        yield from ended()
        pieces.append((asked.popleft(), text, confidence))
    yield from ended()


def _describe(end: _Asked, pieces: list[tuple[_Asked, str, float]], rate: int) -> dict[str, Any]:
    """One file's answer as plain values."""
    letters = sum(len(text) for _, text, _ in pieces)
    total = sum(len(text) * math.log(confidence) for _, text, confidence in pieces if text)
    samples = sum(piece.samples for piece, _, _ in pieces)
    said = {
        "file": str(end.path),
        "seconds": round(samples / rate, 3),
        "text": " ".join(text for _, text, _ in pieces if text),
        "confidence": round(math.exp(total / letters), 6) if letters else 0.0,
        "pieces": [
            {
                "start": round(piece.start / rate, 3),
                "end": round((piece.start + piece.samples) / rate, 3),
                "text": text,
                "confidence": round(confidence, 6),
            }
            for piece, text, confidence in pieces
        ],
    }
    if end.error is not None:
        return {**said, "message": end.error, "is_broken": True}
    if letters:
        return said
    if samples < serving.SHORTEST:
        message = f"{samples / rate:.2f} s of sound are too short: 0.1 s is the least"
    elif max(piece.peak for piece, _, _ in pieces) <= serving.SILENCE:
        message = "silent"
    else:
        message = "no speech was recognised"
    return {**said, "message": message}


def to_line(said: dict[str, Any]) -> str:
    """One answer for a person.

    Example:
      >>> to_line({"file": "a.wav", "text": "go on", "confidence": 0.97, "seconds": 1.2})
      'a.wav   97 %  go on'
    """
    parts = [said["file"]]
    if said["text"]:
        parts.append(f"{said['confidence']:5.0%}  {said['text']}".replace("%", " %"))
    if "message" in said:
        parts.append(f"[{said['message'].removeprefix(said['file'] + ': ')}]")
    return "  ".join(parts)


def draw(served: Served, sound: np.ndarray, path: Path) -> None:
    """Draws the log-mel frames of a sound, its letters where they are heard, and their chances."""
    seen = served.call("explain", **evaluate.request([sound]))
    text, steps = seen["text"][0].decode(), int(seen["frames"][0])
    if not steps:
        raise InputError("nothing to draw: the recording is silent or too short")
    step, letters = served.settings["step_seconds"], served.settings["letters"]
    place = seen["alignment"][0, :steps]
    chances = seen["symbol_probabilities"][0, :steps]
    seconds = len(sound) / served.settings["sample_rate"]
    figure = Figure(figsize=(max(8.0, 3.0 * seconds), 5.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    mel = seen["log_mel"][0].T
    # A frame stands at the middle of its 25 ms window.
    top.imshow(
        mel,
        origin="lower",
        aspect="auto",
        cmap="magma",
        extent=(0.0075, 0.0075 + 0.01 * mel.shape[1], 0, len(mel)),
    )
    # A step of the network stands at the frame that its convolutions are centred on.
    times = np.arange(steps) * step + 0.0125
    for index, letter in enumerate(text):
        heard = np.flatnonzero(place == index)
        if len(heard):
            at = times[heard].mean()
            top.axvline(at, color="white", linewidth=0.4, alpha=0.5)
            top.text(at, len(mel) + 1, letter.replace(" ", "␣"), ha="center", fontsize=11)
            column = letters.index(letter)
            bottom.plot(times, chances[:, column], linewidth=1.0, color="tab:blue")
    bottom.plot(times, chances[:, -1], color="0.7", linewidth=0.8, label="blank")
    top.set(ylabel="mel band")
    top.set_title(f"{text}", pad=22)
    bottom.set(xlabel="seconds", ylabel="probability", ylim=(0, 1.02), xlim=(0, seconds))
    bottom.legend(fontsize=8, loc="upper right")
    figure.savefig(path, dpi=120)


def main(argv: list[str]) -> None:
    """Asks and prints; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    if not flags.files:
        raise InputError("give a sound file, as in: predict greeting.wav")
    served = load_export(flags.model or Path("saved_models") / TASK)
    broken: list[str] = []

    def said() -> Iterator[dict[str, Any]]:
        for answer in transcribe(served, flags.files, batch_size=flags.batch_size):
            if answer.get("is_broken"):
                broken.append(answer["file"])
            yield answer

    cli.print_answers(flags, said(), to_line=to_line)
    if broken:
        raise InputError(f"{len(broken)} of {len(flags.files)} files could not be read")
    if flags.plot:
        _, sound = next(audio.pieces(flags.files[0], served.settings["max_samples"]))
        draw(served, sound, flags.plot)


if __name__ == "__main__":
    cli.run(main)
