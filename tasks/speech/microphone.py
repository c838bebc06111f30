"""Sound of a microphone, and the texts of a stream of sound while it is spoken.

A model of `--streaming` reads each block once. Any other one reads the utterance so far again with
each block, since it needs the sound after a letter, too. An utterance ends at a pause.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from common.commands import cli
from common.errors import InputError, require
from common.serving.served import Served
from tasks.speech import audio
from tasks.speech.audio import RATE

import numpy as np

BLOCK = 5_120  # samples, 320 ms
PAUSE = 0.8  # seconds without a letter that end an utterance
EMPTY = 2.0  # seconds without a text after which the sound so far is forgotten


class Heard(NamedTuple):
    """The text of an utterance, or of its first part.

    Attributes:
      start: seconds of sound before it.
      end: seconds of sound until now.
      text: the transcript.
      confidence: exp of the mean log-probability of a letter.
      is_final: whether the utterance is complete.
    """

    start: float
    end: float
    text: str
    confidence: float
    is_final: bool

    def describe(self) -> dict[str, Any]:
        """Return plain values."""
        rounded = {"start": round(self.start, 3), "end": round(self.end, 3)}
        return {**self._asdict(), **rounded, "confidence": round(self.confidence, 6)}

    def to_line(self) -> str:
        """Format a final text for a person.

        Example:
          >>> Heard(0.0, 2.56, "go on", 0.97, True).to_line()
          '   0.0 to    2.6 s    97 %  go on'
        """
        confidence = f"{self.confidence:5.0%}".replace("%", " %")
        return f"{self.start:6.1f} to {self.end:6.1f} s {confidence}  {self.text}"


def block_samples(served: Served) -> int:
    """Return the samples of a block for `listen`."""
    return int(served.settings.get("chunk_samples", BLOCK))


def record(samples: int) -> Iterator[np.ndarray]:
    """Yield the sound of the default microphone, `<float32>[samples]` at 16 kHz, until it stops.

    Nothing is lost while the caller computes.

    Raises:
      InputError: the library or a microphone is missing.
    """
    try:
        sounddevice = require("sounddevice", "microphone")
    except OSError as error:
        raise InputError(
            f"sounddevice finds no PortAudio ({error}). Install it, on Debian and Ubuntu by "
            "`apt install libportaudio2`"
        ) from error
    blocks: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()

    def receive(block: np.ndarray, *_: Any) -> None:
        blocks.put(block[:, 0].copy())

    try:
        with sounddevice.InputStream(
            samplerate=RATE, blocksize=samples, channels=1, dtype="float32", callback=receive
        ) as stream:
            while stream.active or not blocks.empty():
                try:
                    yield blocks.get(timeout=1.0)
                except queue.Empty:
                    continue
    except sounddevice.PortAudioError as error:
        raise InputError(
            f"no microphone can be read ({error}). `python -m sounddevice` lists the devices"
        ) from error
    cli.say("the microphone has stopped")


class _Chunks:
    """The utterance so far of a model of `--streaming`: its log-probabilities and a state."""

    def __init__(self, served: Served):
        self.served = served
        self.state = np.zeros((1, served.settings["state_size"]), np.float32)
        self.log_probs = np.zeros((1, 0, len(served.settings["letters"]) + 1), np.float32)

    def add(self, block: np.ndarray) -> tuple[str, float, np.ndarray]:
        """Read the next block; return text, confidence and the best symbol of each step."""
        outputs = self.served.call("stream", audio=block[None], state=self.state)
        self.state = outputs["state"]
        self.log_probs = np.concatenate([self.log_probs, outputs["log_probs"]], axis=1)
        decoded = self.served.call(
            "decode", log_probs=self.log_probs, frames=[self.log_probs.shape[1]]
        )
        return (
            bytes(decoded["text"][0]).decode(),
            float(decoded["confidence"][0]),
            self.log_probs[0].argmax(axis=1),
        )


class _Whole:
    """The utterance so far of any other model: its sound."""

    def __init__(self, served: Served):
        self.served = served
        self.sound = np.zeros(0, np.float32)

    def add(self, block: np.ndarray) -> tuple[str, float, np.ndarray]:
        """Read all blocks again; return text, confidence and the best symbol of each step."""
        self.sound = np.concatenate([self.sound, block])
        outputs = self.served.call("explain", **audio.request([self.sound]))
        steps = int(outputs["frames"][0])
        return (
            bytes(outputs["text"][0]).decode(),
            float(outputs["confidence"][0]),
            outputs["symbol_probabilities"][0, :steps].argmax(axis=1),
        )


def begin(served: Served) -> _Chunks | _Whole:
    """Return an utterance without sound, whose `add` reads a block."""
    return _Chunks(served) if "state_size" in served.settings else _Whole(served)


def listen(served: Served, blocks: Iterable[np.ndarray]) -> Iterator[Heard]:
    """Transcribe a stream of sound: each utterance in parts while it is spoken, then whole.

    Args:
      served: the export.
      blocks: the sound, `<float32>[samples]`, in blocks of `block_samples`.

    Yields:
      The text so far after each block that changes it, and the final text after a pause, at the
      maximum length of the model, and at the end of the sound, which may be Ctrl-C.
    """
    settings = served.settings
    letters, step = settings["letters"], settings["step_seconds"]
    no_letter = [len(letters), *(n for n, letter in enumerate(letters) if letter == " ")]
    utterance, start, samples, text, confidence = begin(served), 0, 0, "", 0.0
    recent: deque[np.ndarray] = deque(maxlen=2)
    try:
        for block in blocks:
            before = text
            text, confidence, best = utterance.add(block)
            samples += len(block)
            last = np.flatnonzero(~np.isin(best, no_letter)).max(initial=-1)
            quiet = step * float(len(best) - 1 - last)
            is_full = samples + len(block) - start > settings["max_samples"]
            is_final = bool(text) and (quiet >= PAUSE or is_full)
            if text and (text != before or is_final):
                yield Heard(start / RATE, samples / RATE, text, confidence, is_final)
            recent.append(block)
            if is_final or is_full:
                utterance, start, text = begin(served), samples, ""
                recent.clear()
            elif not text and samples - start >= EMPTY * RATE:
                utterance, start = begin(served), samples - sum(map(len, recent))
                for again in recent:  # a word may have begun
                    utterance.add(again)
    except cli.Terminated:
        raise
    except KeyboardInterrupt:  # Ctrl-C ends the sound, not the command
        pass
    if text:
        yield Heard(start / RATE, samples / RATE, text, confidence, True)
