"""Transcribe your own recordings with an exported speech model.

    python -m tasks.speech.predict greeting.wav interview.mp3
    python -m tasks.speech.predict --plot letters.png greeting.wav
    python -m tasks.speech.predict --output texts.jsonl recordings/*.flac
    python -m tasks.speech.predict --subtitles film.srt film.mp4
    python -m tasks.speech.predict --results texts recordings      # a folder, resumable
    python -m tasks.speech.predict --microphone                    # until Ctrl-C

Files may be WAV, FLAC, OGG, MP3 or any other format of libsndfile, with any sample rate and number
of channels, or M4A, MP4 or WebM where PyAV is installed. Long recordings are split at their
silences and transcribed piece by piece. Predictions come in the order of the files.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from common import plots
from common.commands import cli
from common.commands.config import BatchPredictConfig, Count, Picture
from common.errors import InputError
from common.files import make_public_folder, open_output, write_atomically
from common.serving.model import Model
from common.serving.served import Served, load_export
from tasks.speech import audio, microphone, subtitles
from tasks.speech.audio import Channel
from tasks.speech.config import TASK
from tasks.speech.subtitles import Word

import numpy as np
import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(BatchPredictConfig):
    """Flags of `predict`."""

    INPUTS: ClassVar[str] = "files"

    files: tyro.conf.Positional[tuple[Path, ...]] = ()
    """sound files, or folders of them"""
    batch_size: Count = 16
    """pieces of recordings per request"""
    plot: Picture | None = None
    """draw the log-mel frames and the letters of the first recording (its first piece) to this
    picture file; a name that ends in -dark gets dark colours"""
    channel: Channel = "mix"
    """channel that is read: the first, the second, or the mean of all"""
    subtitles: Path | None = None
    """write the words of the one recording to this file of subtitles, .srt or .vtt"""
    results: Path | None = None
    """write the prediction of each file to this folder, as JSON; files with one are skipped"""
    microphone: bool = False
    """transcribe the microphone until Ctrl-C, with the text so far every 320 ms (extra
    [microphone])"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        if self.microphone:
            others = (self.files, self.plot, self.subtitles, self.results, self.workers > 1)
            if any(others):
                raise InputError(
                    "--microphone takes no files, and no --plot, --subtitles, --results or "
                    "--workers"
                )
            return
        if not self.files:
            raise InputError("no recording given: name a sound file, as in `predict greeting.wav`")
        if self.subtitles is not None and self.subtitles.suffix not in subtitles.FORMATS:
            raise InputError(f"--subtitles must end in .srt or .vtt: {self.subtitles}")
        if self.subtitles is not None and (len(self.files) > 1 or self.files[0].is_dir()):
            raise InputError("--subtitles takes one recording")


class Piece(NamedTuple):
    """The prediction of a piece of a recording.

    Attributes:
      start: number of its first sample.
      samples: its length.
      peak: its largest absolute value.
      text: the transcript.
      confidence: exp of the mean log-probability of a letter.
      words: its words, with times from the start of the recording; empty if not asked for.
    """

    start: int
    samples: int
    peak: float
    text: str
    confidence: float
    words: tuple[Word, ...] = ()


@dataclasses.dataclass
class Transcript:
    """The prediction of a file.

    Attributes:
      path: the file.
      pieces: predictions of its pieces, in order.
      error: why the file could not be read to its end, if it could not.
    """

    path: Path
    pieces: list[Piece] = dataclasses.field(default_factory=list)
    error: str | None = None

    @property
    def text(self) -> str:
        """The text of all pieces."""
        return " ".join(piece.text for piece in self.pieces if piece.text)

    @property
    def confidence(self) -> float:
        """Exp of the mean log-probability of a letter; 0 without a text."""
        letters = sum(len(piece.text) for piece in self.pieces)
        texts = (piece for piece in self.pieces if piece.text)
        total = sum(len(piece.text) * math.log(piece.confidence) for piece in texts)
        return math.exp(total / letters) if letters else 0.0

    @property
    def words(self) -> list[Word]:
        """The words of all pieces."""
        return [word for piece in self.pieces for word in piece.words]


class _Sound(NamedTuple):
    """A piece of a recording, for a request."""

    transcript: Transcript
    start: int
    samples: np.ndarray


def load(path: str | Path | None = None, *, batch_size: int = 16) -> Model[str | Path, Transcript]:
    """Load a published model as a function of sound files; see `common.serving.model`.

    Example::

        model = load()
        transcript = model("greeting.wav")
        transcript.text, transcript.words[0].start
    """
    served = load_export(path, TASK)

    def answer(paths: Iterable[str | Path]) -> Iterator[Transcript]:
        return predict(served, map(Path, paths), batch_size=batch_size, with_words=True)

    return Model(served, answer)


def predict(
    served: Served,
    paths: Iterable[Path],
    *,
    batch_size: int,
    channel: Channel = "mix",
    with_words: bool = False,
) -> Iterator[Transcript]:
    """Transcribe files, in order, with no more than a few batches of pieces in memory.

    Args:
      served: the export.
      paths: sound files. One that cannot be read has a transcript with an error.
      batch_size: pieces per request.
      channel: the channel that is read.
      with_words: whether to ask for the words with their times, which takes longer.
    """
    rate, longest = served.settings["sample_rate"], served.settings["max_samples"]
    unfinished: deque[Transcript] = deque()

    def sounds() -> Iterator[_Sound]:
        for path in paths:
            transcript = Transcript(path)
            unfinished.append(transcript)
            try:
                for start, sound in audio.split_at_silences(path, longest, channel):
                    yield _Sound(transcript, start, sound)
            except InputError as error:
                transcript.error = str(error)

    def to_request(rows: Sequence[_Sound]) -> dict[str, np.ndarray]:
        return audio.request([row.samples for row in rows])

    predictions = served.predict(
        "explain" if with_words else "serving_default",
        sounds(),
        to_request,
        batch_size=batch_size,
        length_of=lambda row: len(row.samples),
        window=4,
    )
    for (transcript, start, sound), outputs in predictions:
        while unfinished[0] is not transcript:  # all pieces of earlier files are predicted
            yield unfinished.popleft()
        transcript.pieces.append(
            Piece(
                start,
                len(sound),
                float(np.abs(sound).max()),
                bytes(outputs["text"]).decode(),
                float(outputs["confidence"]),
                read_words(outputs, start / rate) if with_words else (),
            )
        )
    yield from unfinished


def read_words(outputs: Mapping[str, Any], start: float) -> tuple[Word, ...]:
    """Return the words of a row of the signature `explain`.

    Args:
      outputs: the outputs of the row.
      start: seconds of the recording before it.
    """
    return tuple(
        Word(bytes(text).decode(), start + float(first), start + float(last), float(confidence))
        for text, first, last, confidence in zip(
            outputs["words"],
            outputs["word_start"],
            outputs["word_end"],
            outputs["word_confidence"],
            strict=True,
        )
        if text
    )


def describe(transcript: Transcript, rate: int) -> dict[str, Any]:
    """Return the prediction of a file as plain values.

    A file without text has a `message`, and so has one that could not be read to its end, which
    also has `is_broken`.

    Args:
      transcript: of the file.
      rate: samples per second.

    Example:
      >>> pieces = [Piece(0, 16_000, 0.3, "go", 0.9), Piece(16_000, 8_000, 0.2, "on", 0.4)]
      >>> prediction = describe(Transcript(Path("a.wav"), pieces), 16_000)
      >>> prediction["text"], prediction["seconds"], prediction["confidence"]
      ('go on', 1.5, 0.6)
      >>> prediction["pieces"][1]
      {'start': 1.0, 'end': 1.5, 'text': 'on', 'confidence': 0.4}
    """
    pieces = transcript.pieces
    samples = sum(piece.samples for piece in pieces)
    prediction = {
        "file": str(transcript.path),
        "seconds": round(samples / rate, 3),
        "text": transcript.text,
        "confidence": round(transcript.confidence, 6),
        "pieces": [
            {
                "start": round(piece.start / rate, 3),
                "end": round((piece.start + piece.samples) / rate, 3),
                "text": piece.text,
                "confidence": round(piece.confidence, 6),
            }
            for piece in pieces
        ],
    }
    if transcript.words:
        prediction["words"] = [
            {
                "word": word.text,
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "confidence": round(word.confidence, 6),
            }
            for word in transcript.words
        ]
    if transcript.error is not None:
        return {**prediction, "message": transcript.error, "is_broken": True}
    if transcript.text:
        return prediction
    if samples < audio.SHORTEST:
        message = f"too short: {samples / rate:.2f} s of sound; the minimum is 0.1 s"
    elif max(piece.peak for piece in pieces) <= audio.SILENCE:
        message = "silent"
    else:
        message = "no speech was recognised"
    return {**prediction, "message": message}


def to_line(prediction: dict[str, Any]) -> str:
    """Format a prediction for a person.

    Example:
      >>> to_line({"file": "a.wav", "text": "go on", "confidence": 0.97, "seconds": 1.2})
      'a.wav    97 %  go on'
    """
    parts = [prediction["file"]]
    if prediction["text"]:
        confidence = f"{prediction['confidence']:5.0%}".replace("%", " %")
        parts.append(f"{confidence}  {prediction['text']}")
    if "message" in prediction:
        parts.append(f"[{prediction['message'].removeprefix(prediction['file'] + ': ')}]")
    return "  ".join(parts)


def draw(served: Served, sound: np.ndarray, path: Path) -> None:
    """Draw the log-mel frames of a sound, its letters over time, and their probabilities.

    Args:
      served: the export.
      sound: `<float32>[samples]`.
      path: the picture to write.

    Raises:
      InputError: the sound is silent, too short or too long.
    """
    outputs = served.call("explain", **audio.request([sound]))
    text, steps = outputs["text"][0].decode(), int(outputs["frames"][0])
    if not steps:
        raise InputError("nothing to draw: the recording is silent or too short")
    letters = served.settings["letters"]
    alignment = outputs["alignment"][0, :steps]
    probabilities = outputs["symbol_probabilities"][0, :steps]
    seconds = len(sound) / served.settings["sample_rate"]
    log_mel = outputs["log_mel"][0].T
    bands, frames = log_mel.shape
    # The time of a frame is the middle of its 25 ms window.
    extent = (0.0075, 0.0075 + 0.01 * frames, 0, bands)
    # The time of a step is that of the frame in the middle of its convolutions.
    times = np.arange(steps) * served.settings["step_seconds"] + 0.0125
    with plots.picture(path, (max(8.0, 3.0 * seconds), 5.5)) as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
        top.imshow(log_mel, origin="lower", aspect="auto", cmap="magma", extent=extent)
        for index, letter in enumerate(text):
            of_letter = np.flatnonzero(alignment == index)
            if len(of_letter):
                at = times[of_letter].mean()
                top.axvline(at, color="white", linewidth=0.4, alpha=0.5)
                top.text(at, bands + 1, letter.replace(" ", "␣"), ha="center", fontsize=11)
                column = letters.index(letter)
                bottom.plot(times, probabilities[:, column], linewidth=1.0, color="C0")
        bottom.plot(times, probabilities[:, -1], color="0.6", linewidth=0.8, label="blank")
        top.set(ylabel="mel band")
        top.set_title(text, pad=22)
        bottom.set(xlabel="seconds", ylabel="probability", ylim=(0, 1.02), xlim=(0, seconds))
        bottom.legend(loc="upper right")


def list_files(paths: Sequence[Path]) -> dict[Path, Path]:
    """Return the sound files that paths name, each with the name of its result.

    Args:
      paths: files, and folders that are searched.

    Example:
      >>> list_files([Path("talks/a.wav")])
      {PosixPath('talks/a.wav'): PosixPath('a.wav.json')}
    """
    files: dict[Path, Path] = {}
    for path in paths:
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in audio.SUFFIXES)
        found = [file for file in found if file.is_file()]
        if found:
            files |= {file: Path(f"{file.relative_to(path)}.json") for file in found}
        else:  # a file, or a folder without sound, which has a message of its own later
            files[path] = Path(f"{path.name}.json")
    return files


def list_unfinished(files: Mapping[Path, Path], folder: Path, model: str) -> list[Path]:
    """Return the files without a result of this model.

    Args:
      files: the sound files with the names of their results.
      folder: the folder of results.
      model: path of the export.

    Raises:
      InputError: two files would have one result.
    """
    sources: dict[Path, Path] = {}
    for path, name in files.items():
        if name in sources:
            raise InputError(f"--results: {path} and {sources[name]} have one name")
        sources[name] = path

    def is_finished(result: Path) -> bool:
        try:
            return json.loads(result.read_text(encoding="utf-8"))["model"] == model
        except (OSError, ValueError, KeyError, TypeError):
            return False

    return [path for path, name in files.items() if not is_finished(folder / name)]


def main(argv: list[str]) -> None:
    """Predict and print; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    if flags.microphone:
        transcribe_microphone(flags)
        return
    files = list_files(flags.files)
    served = load_export(flags.model, TASK)
    paths, unreadable = list(files), 0
    if flags.results is not None:
        paths = list_unfinished(files, flags.results, str(served.path))
        if finished := len(files) - len(paths):
            cli.say(f"{finished} of {len(files)} files have a result in {flags.results} already")
        if not paths:
            return
    with_words = flags.json or flags.output is not None or bool(flags.subtitles or flags.results)

    def predictions() -> Iterator[dict[str, Any]]:
        nonlocal unreadable
        for transcript in predict(
            served,
            paths,
            batch_size=flags.batch_size,
            channel=flags.channel,
            with_words=with_words,
        ):
            unreadable += transcript.error is not None
            prediction = describe(transcript, served.settings["sample_rate"])
            if flags.results is not None and transcript.error is None:
                result = {**prediction, "model": str(served.path)}
                write_result(flags.results / files[transcript.path], result)
            if flags.subtitles is not None:
                content = subtitles.to_subtitles(transcript.words, flags.subtitles.suffix)
                write_atomically(flags.subtitles, content.encode())
            yield prediction

    cli.print_predictions(flags, predictions(), to_line=to_line)
    if unreadable:
        raise InputError(f"{unreadable} of {len(paths)} files could not be read")
    if flags.plot:
        longest = served.settings["max_samples"]
        _, sound = next(audio.split_at_silences(paths[0], longest, flags.channel))
        draw(served, sound, flags.plot)


def transcribe_microphone(flags: Predict) -> None:
    """Print the texts of the microphone until Ctrl-C.

    A terminal shows the text so far on one line, which the final one replaces. JSON has both.
    """
    served = load_export(flags.model, TASK)
    blocks = microphone.record(microphone.block_samples(served))
    as_json, is_shown = flags.json or flags.output is not None, sys.stdout.isatty()
    clear = "\r\033[K" if is_shown else ""
    cli.say("listening until Ctrl-C")
    with open_output(flags.output) as out:
        for heard in microphone.listen(served, blocks):
            if as_json:
                print(json.dumps(heard.describe(), ensure_ascii=False), file=out, flush=True)
            elif heard.is_final:
                print(f"{clear}{heard.to_line()}", file=out, flush=True)
            elif is_shown:
                shown = heard.text[1 - shutil.get_terminal_size().columns :]
                print(f"{clear}{shown}", end="", file=out, flush=True)


def write_result(path: Path, prediction: Mapping[str, Any]) -> None:
    """Write a prediction to a file of its own, whole or not at all."""
    make_public_folder(path.parent)
    write_atomically(path, f"{json.dumps(prediction, ensure_ascii=False)}\n".encode())


if __name__ == "__main__":
    cli.run(main)
