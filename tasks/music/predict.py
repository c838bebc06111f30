"""Generate music with an exported model: a MIDI file, a picture, and sound.

    python -m tasks.music.predict --steps 128 --temperature 1.0 --seed 7 --out new.mid
    python -m tasks.music.predict --prime my.mid --prime_steps 32 --steps 64 --out more.mid
    python -m tasks.music.predict --model saved_models/music/1 --top_p 0.95 --json

In addition to `new.mid`, it writes `new.png`, a piano roll, and `new.wav`, which any program plays.
The same seed generates the same bytes. A step is a frame; the model card states how many frames a
quarter note has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.commands import cli
from common.commands.config import PredictConfig
from common.errors import InputError
from common.files import write_together
from common.serving.served import Served, load_export
from tasks.music import midi
from tasks.music.config import TASK
from tasks.music.midi import KEYS

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(PredictConfig):
    """Flags of `predict`."""

    out: Path = Path("music.mid")
    """MIDI file to write; the picture and the sound are written next to it"""
    steps: int = 128
    """frames to add"""
    temperature: float = 1.0
    """below 1 more predictable, above 1 more random; 0 chooses the most likely note each time"""
    top_p: float = 1.0
    """choose each note among the most likely ones with this total probability, 0 to 1"""
    seed: int = 0
    """seed of the random numbers; another seed generates other music"""
    prime: Path | None = None
    """MIDI file to continue"""
    prime_steps: int | None = None
    """use only this many frames from the beginning of the prime"""
    tempo: float | None = None
    """quarter notes per minute (default: the model's)"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        if self.steps < 0:
            raise InputError(f"--steps must be 0 or more, got {self.steps}")
        if not 0 <= self.temperature <= 1000:
            raise InputError(f"--temperature must be 0 to 1000, got {self.temperature}")
        if not 0 <= self.top_p <= 1:
            raise InputError(f"--top_p must be in [0, 1], got {self.top_p}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed must be 0 to 2^63 - 1, got {self.seed}")
        if self.tempo is not None and not 10 <= self.tempo <= 1000:
            raise InputError(
                f"--tempo must be 10 to 1000 quarter notes per minute, got {self.tempo}"
            )
        if self.prime is None and not self.steps:
            raise InputError("--steps 0 without --prime makes no music")
        if self.prime is None and self.prime_steps is not None:
            raise InputError("--prime_steps needs --prime")
        if self.prime_steps is not None and self.prime_steps < 1:
            raise InputError(f"--prime_steps must be 1 or more, got {self.prime_steps}")
        if self.out.suffix.lower() not in (".mid", ".midi"):
            raise InputError(f"--out must end in .mid, got {self.out.name!r}")


def read_prime(flags: Predict, settings: Mapping[str, Any]) -> np.ndarray:
    """Return the frames to continue, `<float32>[time, 88]`; none without `--prime`."""
    if flags.prime is None:
        return np.zeros((0, KEYS), np.float32)
    frames = midi.read_midi(flags.prime, settings["steps_per_quarter"])[: flags.prime_steps]
    return frames.astype(np.float32)


def generate(served: Served, prime: np.ndarray, flags: Predict) -> np.ndarray:
    """Generate music with an export.

    Args:
      served: the export.
      prime: `<float32>[time, 88]`, the frames to continue.
      flags: the number of frames to add, and how to sample them.

    Returns:
      `<float32>[time, 88]`, the prime first.

    Raises:
      InputError: the music would be too long.
    """
    longest = served.settings["max_frames"]
    if len(prime) + flags.steps > longest:
        raise InputError(
            f"{len(prime)} frames of prime and --steps {flags.steps} are more than {longest:,} "
            "frames; shorten the prime by --prime_steps"
        )
    halves = np.array([[flags.seed >> 32, flags.seed & 0xFFFFFFFF]], np.int64)
    seeds = halves.astype(np.uint32).view(np.int32)
    options = {"temperature": flags.temperature, "top_p": flags.top_p}
    return compose(served, prime[None], seeds, steps=flags.steps, **options)[0]


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
      primes: `<float32>[pieces, time, 88]`, the frames to continue.
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
        notes = outputs["notes"][:, :end]
    return notes


def write_music(
    path: Path, notes: np.ndarray, *, steps_per_quarter: int, tempo: float, given: int = 0
) -> dict[str, Path]:
    """Write a MIDI file, and a picture and the sound next to it.

    Args:
      path: the MIDI file.
      notes: `<float>[time, 88]`.
      steps_per_quarter: frames per quarter note.
      tempo: quarter notes per minute.
      given: number of initial frames that come from the user.

    Returns:
      The paths of `midi`, `picture` and `sound`.
    """
    song = midi.to_song(notes, steps_per_quarter=steps_per_quarter, tempo=tempo)
    picture, sound = path.with_suffix(".png"), path.with_suffix(".wav")
    roll = midi.piano_roll_bytes(notes, steps_per_quarter=steps_per_quarter, given=given)
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


def main(argv: list[str]) -> None:
    """Generate, write and print; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    served = load_export(flags.model, TASK)
    prime = read_prime(flags, served.settings)
    frames = generate(served, prime, flags)
    steps_per_quarter = served.settings["steps_per_quarter"]
    tempo = flags.tempo or served.settings["tempo"]
    files = write_music(
        flags.out, frames, steps_per_quarter=steps_per_quarter, tempo=tempo, given=len(prime)
    )
    notes = midi.to_notes(frames)
    if not notes:
        cli.say("the model generated only silence; try another --seed")
    prediction = {
        **files,
        "frames": len(frames),
        "prime_frames": len(prime),
        "notes": len(notes),
        "seconds": round(len(frames) * 60.0 / tempo / steps_per_quarter, 3),
        "seed": flags.seed,
        "model": served.path,
    }
    cli.print_predictions(flags, [prediction], to_line=to_line)


if __name__ == "__main__":
    cli.run(main)
