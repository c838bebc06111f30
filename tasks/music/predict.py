"""Generate music with an exported model: a MIDI file, a picture, and sound.

    python -m tasks.music.predict --steps 128 --seed 7 --out new.mid
    python -m tasks.music.predict --count 10 --key G --out new.mid      # new-1.mid, new-2.mid, ...
    python -m tasks.music.predict --prime my.mid --steps 64 --out more.mid
    python -m tasks.music.predict --model saved_models/music/1 --top_p 0.95 --json

In addition to `new.mid`, it writes `new.png`, a piano roll, and `new.wav`, which any program plays.
The same seed generates the same bytes. A step is a frame; the model card states how many frames a
quarter note has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from common import plots
from common.commands import cli
from common.commands.config import Count, PredictConfig
from common.errors import InputError
from common.files import write_together
from common.messages import say
from common.serving.model import Model
from common.serving.served import Served, load_export
from tasks.music import midi
from tasks.music.config import TASK
from tasks.music.midi import KEYS, LOWEST, Recording

import numpy as np

# Pitch classes of the tonics of major scales, and of the relative major scales of minor ones.
MAJOR_KEYS = {
    **{"C": 0, "Db": 1, "D": 2, "Eb": 3, "E": 4, "F": 5, "F#": 6, "Gb": 6, "G": 7, "Ab": 8},
    **{"A": 9, "Bb": 10, "B": 11},
}
MINOR_KEYS = {
    **{"a": 0, "bb": 1, "b": 2, "c": 3, "c#": 4, "d": 5, "eb": 6, "d#": 6, "e": 7, "f": 8},
    **{"f#": 9, "g": 10, "g#": 11},
}
TONICS = MAJOR_KEYS | MINOR_KEYS
WHOLE_BARS = 96  # steps; a multiple of all lengths of bars that the model knows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(PredictConfig):
    """Flags of `predict`."""

    out: Path = Path("music.mid")
    """MIDI file to write; the picture and the sound are written next to it"""
    steps: int = 128
    """frames to add"""
    count: Count = 1
    """number of pieces, written to OUT with -1, -2, ... in the name; their seeds are SEED and up"""
    temperature: float = 1.0
    """below 1 more predictable, above 1 more random; 0 chooses the most likely note each time"""
    top_p: float = 1.0
    """choose each note among the most likely ones with this total probability, 0 to 1"""
    seed: int = 0
    """seed of the random numbers; another seed generates other music"""
    prime: Path | None = None
    """MIDI file to continue; its notes, lengths, velocities and tempos are kept"""
    prime_steps: int | None = None
    """use only this many frames of the prime"""
    prime_part: Literal["start", "end"] = "start"
    """with --prime_steps: continue the first or the last frames of the prime"""
    tempo: float | None = None
    """quarter notes per minute (default: those of the prime, or the model's)"""
    key: str | None = None
    """transpose the music to this key: C, F#, Bb ... for major, a, c#, eb ... for minor"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        if self.steps < 0:
            raise InputError(f"--steps must be 0 or more, got {self.steps}")
        if not 0 <= self.temperature <= 1000:
            raise InputError(f"--temperature must be 0 to 1000, got {self.temperature}")
        if not 0 <= self.top_p <= 1:
            raise InputError(f"--top_p must be in [0, 1], got {self.top_p}")
        if not 0 <= self.seed < 2**63 - self.count:
            raise InputError(f"--seed must be 0 to 2^63 - 1, got {self.seed}")
        if self.tempo is not None and not 10 <= self.tempo <= 1000:
            raise InputError(
                f"--tempo must be 10 to 1000 quarter notes per minute, got {self.tempo}"
            )
        if self.out.suffix.lower() not in (".mid", ".midi"):
            raise InputError(f"--out must end in .mid, got {self.out.name!r}")
        if self.key is not None and self.key not in TONICS:
            raise InputError(f"--key must be one of {', '.join(TONICS)}, got {self.key!r}")
        self._check_prime()

    def _check_prime(self) -> None:
        if self.prime is None:
            if not self.steps:
                raise InputError("--steps 0 without --prime makes no music")
            if self.prime_steps is not None:
                raise InputError("--prime_steps needs --prime")
        elif self.key is not None:
            raise InputError("--key and --prime: the key is that of the prime")
        if self.prime_steps is not None and self.prime_steps < 1:
            raise InputError(f"--prime_steps must be 1 or more, got {self.prime_steps}")
        if self.prime_part == "end" and self.prime_steps is None:
            raise InputError("--prime_part needs --prime_steps")

    def paths(self) -> list[Path]:
        """Return the MIDI file of each piece."""
        if self.count == 1:
            return [self.out]
        return [self.out.with_stem(f"{self.out.stem}-{n + 1}") for n in range(self.count)]


# --- From Python ----------------------------------------------------------------------------------


class Tone(NamedTuple):
    """A note of a piece: a MIDI pitch, its first frame, and the frame after its last one."""

    pitch: int
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Composition:
    """A piece of music.

    Attributes:
      frames: `<float32>[time, 88]`, a piano roll; see `tasks.music.midi`.
      given: how many of the frames are those of the prime.
      seed: the seed of the random numbers.
      steps_per_quarter: frames per quarter note.
      tempo: quarter notes per minute.
      prime: the MIDI file that the piece continues; None if there is none.

    Example:
      >>> piece = Composition(np.eye(4, 88, 39), given=0, seed=7, steps_per_quarter=2, tempo=120.0)
      >>> piece.notes[0], piece.seconds
      (Tone(pitch=60, start=0, end=1), 1.0)
    """

    frames: np.ndarray = dataclasses.field(repr=False)
    given: int
    seed: int
    steps_per_quarter: int
    tempo: float
    prime: Recording | None = dataclasses.field(default=None, repr=False)

    @property
    def notes(self) -> list[Tone]:
        """The notes, sorted by start and then by pitch."""
        return [Tone(LOWEST + key, start, end) for key, start, end in midi.to_notes(self.frames)]

    @property
    def seconds(self) -> float:
        """The duration."""
        return round(len(self.frames) * 60.0 / self.tempo / self.steps_per_quarter, 3)

    def write(self, path: str | Path) -> dict[str, Path]:
        """Write a MIDI file, and a picture and the sound next to it.

        Returns:
          The paths of `midi`, `picture` and `sound`.
        """
        return write_music(
            Path(path),
            self.frames,
            steps_per_quarter=self.steps_per_quarter,
            tempo=self.tempo,
            prime=self.prime,
        )


Start: TypeAlias = "int | str | Path | np.ndarray"  # of a piece; see `load`


def load(
    path: str | Path | None = None,
    *,
    steps: int = 128,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Model[Start, Composition]:
    """Load a published model as a function of the start of a piece; see `common.serving.model`.

    The start is a number, and the model composes as many frames from nothing; or a MIDI file or its
    frames `<float>[time, 88]`, and the model adds `steps` frames. The pieces of one call have the
    seeds `seed`, `seed + 1` and so on. `temperature` and `top_p` are those of the command.

    Example::

        model = load(seed=7)
        model(64).write("new.mid")          # 64 frames from nothing
        model("my.mid").write("more.mid")   # a continuation
    """
    served = load_export(path, TASK)

    def answer(starts: Iterable[Start]) -> Iterator[Composition]:
        for number, start in enumerate(starts):
            count = start if isinstance(start, int) else steps
            flags = Predict(
                steps=count,
                temperature=temperature,
                top_p=top_p,
                seed=seed + number,
                prime=Path(start) if isinstance(start, str | Path) else None,
            )
            given = start if isinstance(start, np.ndarray) else None
            yield from compose_pieces(served, flags, given)

    return Model(served, answer)


def compose_pieces(
    served: Served, flags: Predict, given: np.ndarray | None = None
) -> Iterator[Composition]:
    """Generate the pieces that the flags ask for.

    Args:
      served: the export.
      flags: what to generate.
      given: `<float>[time, 88]`, the frames to continue, instead of the file `flags.prime`.
    """
    settings = served.settings
    prime = record_prime(flags, settings)
    if prime is not None and flags.tempo is not None:
        prime = prime.at_tempo(flags.tempo)
    if given is None:
        given = np.zeros((0, KEYS)) if prime is None else prime.frames
    tempo = flags.tempo or settings["tempo"]
    if prime is not None and prime.song.tempos:
        tempo = prime.song.tempos[-1][1]
    pieces = generate_all(served, given.astype(np.float32), flags)
    for number, frames in enumerate(pieces, start=flags.seed):
        yield Composition(frames, len(given), number, settings["steps_per_quarter"], tempo, prime)


# --- Generation -----------------------------------------------------------------------------------


def read_prime(flags: Predict, settings: Mapping[str, Any]) -> np.ndarray:
    """Return the frames to continue, `<float32>[time, 88]`; none without `--prime`."""
    recording = record_prime(flags, settings)
    if recording is None:
        return np.zeros((0, KEYS), np.float32)
    return recording.frames.astype(np.float32)


def record_prime(flags: Predict, settings: Mapping[str, Any]) -> Recording | None:
    """Return the part of the prime that is continued, or None without `--prime`."""
    if flags.prime is None:
        return None
    recording = midi.read_recording(flags.prime, settings["steps_per_quarter"])
    if recording.remarks:
        say(f"{flags.prime}: read in part or changed: {midi.describe(recording.remarks)}")
    length = len(recording.frames)
    count = min(flags.prime_steps or length, length)
    start = length - count if flags.prime_part == "end" else 0
    return recording.cut(start, start + count)


def generate(served: Served, prime: np.ndarray, flags: Predict) -> np.ndarray:
    """Generate one piece; see `generate_all`."""
    return generate_all(served, prime, dataclasses.replace(flags, count=1))[0]


def generate_all(served: Served, prime: np.ndarray, flags: Predict) -> np.ndarray:
    """Generate pieces with an export.

    Of a prime that is longer than the export reads, it reads the last bars.

    Args:
      served: the export.
      prime: `<float32>[time, 88]`, the frames to continue.
      flags: the number of pieces and of frames to add, and how to sample them.

    Returns:
      `<float32>[pieces, time, 88]`, the prime first.

    Raises:
      InputError: the music would be too long.
    """
    longest = served.settings["max_frames"]
    if flags.steps > longest - min(len(prime), WHOLE_BARS):
        raise InputError(f"--steps {flags.steps} is too many: a piece has up to {longest:,} frames")
    # Whole bars are left out, so that the bar lines stay.
    surplus = max(0, len(prime) + flags.steps - longest)
    surplus = -(-surplus // WHOLE_BARS) * WHOLE_BARS
    numbers = [flags.seed + number for number in range(flags.count)]
    halves = np.array([[number >> 32, number & 0xFFFFFFFF] for number in numbers], np.int64)
    seeds = halves.astype(np.uint32).view(np.int32)
    options = {"temperature": flags.temperature, "top_p": flags.top_p}
    primes = np.repeat(prime[None, surplus:], flags.count, axis=0)
    notes = compose(served, primes, seeds, steps=flags.steps, **options)
    start = np.repeat(prime[None, :surplus], flags.count, axis=0)
    notes = np.concatenate([start, notes], axis=1)
    return notes if flags.key is None else np.stack([to_key(row, flags.key) for row in notes])


def to_key(notes: np.ndarray, key: str) -> np.ndarray:
    """Transpose a piece to a key, by as few semitones as possible.

    Args:
      notes: `<float>[time, 88]`.
      key: one of `TONICS`. A minor key is that of its relative major scale.

    Example:
      >>> notes = np.zeros((1, 88))
      >>> notes[:, [39, 41, 43, 44, 46, 48, 50]] = 1     # C D E F G A B
      >>> np.flatnonzero(to_key(notes, "D")[0])
      array([41, 43, 45, 46, 48, 50, 52])
    """
    wanted = (TONICS[key] - midi.main_scale(notes)) % 12
    used = np.flatnonzero((notes > 0.5).any(axis=0))
    shifts = [wanted, wanted - 12] if wanted <= 6 else [wanted - 12, wanted]
    for shift in shifts:
        if used.size and used[0] + shift >= 0 and used[-1] + shift < KEYS:
            return np.roll(notes, shift, axis=1)
    return notes  # music over the whole piano stays as it is


def compose(
    served: Served,
    primes: np.ndarray,
    seeds: np.ndarray,
    *,
    steps: int,
    temperature: float,
    top_p: float,
) -> np.ndarray:
    """Continue pieces, in as many requests as the limits of the export demand.

    Each request continues the frames so far. Its random numbers depend on the place of a frame in
    its piece, so the music is the same as in one request.

    Args:
      served: the export.
      primes: `<float32>[pieces, time, 88]`, the frames to continue; see `tasks.music.midi`.
      seeds: `<int32>[pieces, 2]`.
      steps: frames to add to each.
      temperature: of the choice of notes.
      top_p: see `Predict`.

    Returns:
      `<float32>[pieces, time + steps, 88]`, the prime first.
    """
    count, given = primes.shape[:2]
    total = given + steps
    rows = max(1, served.settings.get("max_batch_frames", count * total) // max(1, total))
    rows = min(rows, served.settings.get("max_rows", rows))
    if count > rows:
        parts = [slice(start, start + rows) for start in range(0, count, rows)]
        options: dict[str, Any] = {"steps": steps, "temperature": temperature, "top_p": top_p}
        return np.concatenate([compose(served, primes[p], seeds[p], **options) for p in parts])
    notes, ones = primes, np.ones(count)
    for start in range(given, total, served.settings.get("max_steps", max(1, steps))):
        end = min(total, start + served.settings.get("max_steps", steps))
        outputs = served.call(
            "serving_default",
            prime=np.pad(notes, [(0, 0), (0, 1), (0, 0)]),  # at least one frame
            prime_length=start * ones,
            steps=(end - start) * ones,
            temperature=temperature * ones,
            top_p=top_p * ones,
            seed=seeds,
        )
        notes = midi.with_onsets(outputs["notes"], outputs["onsets"])[:, :end]
    return notes


def write_music(
    path: Path,
    notes: np.ndarray,
    *,
    steps_per_quarter: int,
    tempo: float,
    prime: Recording | None = None,
) -> dict[str, Path]:
    """Write a MIDI file, and a picture and the sound next to it.

    Args:
      path: the MIDI file.
      notes: `<float>[time, 88]`.
      steps_per_quarter: frames per quarter note.
      tempo: quarter notes per minute, where the prime has no tempos.
      prime: what the music begins with.

    Returns:
      The paths of `midi`, `picture` and `sound`.
    """
    song = midi.to_song(notes, steps_per_quarter=steps_per_quarter, tempo=tempo, prime=prime)
    picture, sound = path.with_suffix(".png"), path.with_suffix(".wav")
    given = 0 if prime is None else len(prime.frames)
    roll = midi.piano_roll_bytes(
        notes,
        steps_per_quarter=steps_per_quarter,
        given=given,
        bar=midi.first_bar(song),
        theme=plots.theme_of(picture),
    )
    write_together({path: midi.midi_bytes(song), picture: roll, sound: midi.wav_bytes(song)})
    return {"midi": path, "picture": picture, "sound": sound}


def to_line(prediction: Mapping[str, Any]) -> str:
    """Format a prediction for a person.

    Example:
      >>> files = {"midi": "a.mid", "picture": "a.png", "sound": "a.wav"}
      >>> to_line({**files, "frames": 16, "prime_frames": 8, "notes": 40, "seconds": 4.8})
      'a.mid: 16 frames (8 of them given), 40 notes, 4.8 s; a.png; a.wav'
    """
    given = f" ({prediction['prime_frames']} of them given)" if prediction["prime_frames"] else ""
    return (
        f"{prediction['midi']}: {prediction['frames']} frames{given}, {prediction['notes']} notes, "
        f"{prediction['seconds']:.1f} s; {prediction['picture']}; {prediction['sound']}"
    )


def predict_all(served: Served, flags: Predict) -> Iterator[dict[str, Any]]:
    """Generate and write all pieces; yield plain values about each."""
    pieces = compose_pieces(served, flags)
    for path, piece in zip(flags.paths(), pieces, strict=True):
        files = piece.write(path)
        if not piece.notes:
            cli.say("the model generated only silence; try another --seed")
        yield {
            **files,
            "frames": len(piece.frames),
            "prime_frames": piece.given,
            "notes": len(piece.notes),
            "seconds": piece.seconds,
            "seed": piece.seed,
            "model": served.path,
        }


def main(argv: list[str]) -> None:
    """Generate, write and print; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    served = load_export(flags.model, TASK)
    cli.print_predictions(flags, predict_all(served, flags), to_line=to_line)


if __name__ == "__main__":
    cli.run(main)
