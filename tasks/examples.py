"""Show what the pretrained models answer: one input for each task.

    python -m tasks examples
    python -m tasks examples ner translation --models quick_models
    python -m tasks examples --output examples    # keeps the recording, the melody and the clip

The inputs are the seven examples of the lecture notes that this project began with; no training
data of the default models holds them. The recording is spoken on the spot by a synthesizer whose
voice is not in the training data (extra [speech,voices]), and the clip is rendered, of a person in
no data set (extra [video]).

A confidence is a probability: of the class, the entity or the label of a base, else the geometric
mean over what was predicted step by step (letters, words, frames of music). The time is that of a
second call, since the first one prepares the model. The last line is a JSON object.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from common.commands import cli
from common.errors import ExportError, InputError
from common.serving.model import Model
from common.serving.versions import MODELS, task_folder
from tasks.__main__ import Task

import numpy as np
import tyro

Result = TypeVar("Result")

VOICE = "espeak:en-us+f2"  # of the validation split of speech's default data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """Flags of `examples`."""

    tasks: tyro.conf.Positional[tuple[Task, ...]] = ()
    """tasks (default: all seven)"""
    models: Path = MODELS
    """folder of the exports; the newest version of each task is called"""
    output: Path | None = None
    """keep the files of speech, music and video in this folder"""


class Answer(NamedTuple):
    """The answer of a model.

    Attributes:
      input: what the model was given, for a person.
      answer: its answer, for a person.
      confidence: its probability; see the module.
      milliseconds: the time of the call.
      is_right: whether it is the expected answer.
    """

    input: str
    answer: str
    confidence: float
    milliseconds: float
    is_right: bool


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """Return the result of a second call, and its milliseconds."""
    call()
    start = time.perf_counter()
    result = call()
    return result, 1000.0 * (time.perf_counter() - start)


# --- The examples ---------------------------------------------------------------------------------


def sentiment(model: Model[str, Any], folder: Path) -> Answer:
    """Rate a sentence."""
    del folder
    text = "There is nothing to like in this movie."
    rating, spent = timed(lambda: model(text))
    answer = f"{rating.stars} star" + "s" * (rating.stars != 1)
    confidence = rating.probabilities.get(rating.label, 0.0)
    return Answer(text, answer, confidence, spent, rating.stars == 1)


def ner(model: Model[str, Any], folder: Path) -> Answer:
    """Find the persons in a sentence."""
    del folder
    text = "Yesterday, Harry Potter met Hermione Granger."
    tagged, spent = timed(lambda: model(text))
    found = tagged.entities
    answer = ", ".join(f"{entity.text} ({entity.label})" for entity in found) or "no name"
    persons = ["Harry Potter", "Hermione Granger"]
    is_right = [(entity.text, entity.label) for entity in found] == [(p, "PER") for p in persons]
    return Answer(text, answer, min((e.probability for e in found), default=0.0), spent, is_right)


def dna(model: Model[str, Any], folder: Path) -> Answer:
    """Label the bases of a sequence."""
    del folder
    sequence = "AGCCCCTGTGAGGAACTAG"
    annotation, spent = timed(lambda: model(sequence))
    labels = annotation.labels
    outputs = model.served.call("serving_default", sequence=np.array([sequence], object))
    probabilities = outputs["probabilities"][0]
    places = [".CcIi".index(label) for label in labels]
    confidence = float(probabilities[np.arange(len(places)), places].mean())
    return Answer(sequence, labels, confidence, spent, len(labels) == len(sequence))


def translation(model: Model[str, Any], folder: Path) -> Answer:
    """Translate a sentence."""
    del folder
    text = "Voulez-vous chanter avec moi?"
    translated, spent = timed(lambda: model(text))
    is_right = translated.text == "Do you want to sing with me?"
    return Answer(text, translated.text, math.exp(translated.score), spent, is_right)


def music(model: Model[Any, Any], folder: Path) -> Answer:
    """Compose a piece from nothing."""
    piece, spent = timed(lambda: model(64))
    midi = piece.write(folder / "melody.mid")["midi"]
    answer = f"{len(piece.notes)} notes, {piece.seconds:.1f} s: {midi.name}"
    frames = piece.frames[None].astype(np.float32)
    scored = model.served.call("tensors", notes=frames, length=[frames.shape[1]])
    confidence = math.exp(-float(scored["nll"][0].mean()))
    return Answer("nothing", answer, confidence, spent, bool(piece.notes))


def speech(model: Model[str | Path, Any], folder: Path) -> Answer:
    """Transcribe a recording, which is spoken first."""
    from tasks.speech import synthesis

    text, path = "The quick brown fox jumped over the lazy dog.", folder / "fox.wav"
    synthesis.main([text, "--output", str(path), "--voice", VOICE])
    transcript, spent = timed(lambda: model(path))
    is_right = transcript.text == text.lower().rstrip(".")
    return Answer(path.name, transcript.text, transcript.confidence, spent, is_right)


def video(model: Model[str | Path, Any], folder: Path) -> Answer:
    """Recognise the activity in a clip, which is rendered first."""
    from tasks.video import gaits

    path = folder / "running.mp4"
    path.write_bytes(gaits.encode_clip(("running", 1000, 0), rate=12.5, size=64))
    activity, spent = timed(lambda: model(path))
    confidence = max(activity.probabilities.values())
    return Answer(path.name, activity.label, confidence, spent, activity.label == "running")


ASK: Mapping[str, Callable[[Model[Any, Any], Path], Answer]] = {
    ask.__name__: ask for ask in (speech, music, sentiment, dna, translation, video, ner)
}

# --- The command ----------------------------------------------------------------------------------


def ask_all(flags: Examples, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the answer of each task as plain values, or an `error`."""
    for task in flags.tasks or ASK:
        load = importlib.import_module(f"tasks.{task}").load
        try:
            model = load(task_folder(task, flags.models))
            answer = ASK[task](model, folder)
        except (InputError, ExportError, FileNotFoundError) as error:
            yield {"task": task, "error": str(error)}
        else:
            rounded = {"confidence": round(answer.confidence, 4)}
            rounded["milliseconds"] = round(answer.milliseconds, 1)
            yield {"task": task, **answer._asdict(), **rounded, "model": model.served.path}


def to_lines(row: Mapping[str, Any]) -> str:
    """Format an answer for a person.

    Example:
      >>> answer = Answer("Bad.", "1 star", 0.551, 12.04, True)
      >>> print(to_lines({"task": "sentiment", **answer._asdict()}))
      sentiment    Bad.
                   -> 1 star (55.1 %, 12 ms)
    """
    if "error" in row:
        return f"{row['task']:<11}  error: {row['error']}"
    facts = f"{row['confidence']:.1%}".replace("%", " %") + f", {row['milliseconds']:.0f} ms"
    expected = "" if row["is_right"] else "; another answer was expected"
    return f"{row['task']:<11}  {row['input']}\n{'':<11}  -> {row['answer']} ({facts}{expected})"


def main(argv: list[str]) -> None:
    """Ask, and print the answers; see the module.

    Raises:
      ExportError: some models could not be called; the answers of the others are printed.
    """
    flags = cli.parse(Examples, argv, doc=__doc__)
    start, rows = time.monotonic(), []
    with contextlib.ExitStack() as stack:
        if flags.output is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = flags.output
            folder.mkdir(parents=True, exist_ok=True)
        for row in ask_all(flags, folder):
            print(to_lines(row), flush=True)
            rows.append(row)
    right = sum(row.get("is_right", False) for row in rows)
    seconds = round(time.monotonic() - start, 1)
    cli.print_result({"examples": rows, "right": right, "seconds": seconds})
    if failed := [row["task"] for row in rows if "error" in row]:
        raise ExportError(f"{len(failed)} of {len(rows)} examples failed: {', '.join(failed)}")


if __name__ == "__main__":
    cli.run(main)
