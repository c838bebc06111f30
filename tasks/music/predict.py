"""Makes music with an exported model: MIDI, a picture, and sound.

    python -m tasks.music.predict --steps 128 --temperature 1.0 --seed 7 --out new.mid
    python -m tasks.music.predict --prime my.mid --prime_steps 32 --steps 64 --out more.mid
    python -m tasks.music.predict --model saved_models/music/1 --top_p 0.95 --json

Beside `new.mid` come `new.png`, a piano roll, and `new.wav`, which any program plays. The same seed
gives the same bytes. A step is a frame; the model's card says how many make a quarter note.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.commands import cli
from common.commands.config import PredictConfig
from common.errors import InputError
from common.serving.served import Served, load_export
from tasks.music import midi
from tasks.music.data import KEYS
from tasks.music.evaluate import TASK

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(PredictConfig):
    """Flags of `predict`."""

    out: Path = Path("music.mid")
    """the MIDI file to write; the picture and the sound lie beside it"""
    steps: int = 128
    """frames to add"""
    temperature: float = 1.0
    """below 1 more predictable, above 1 wilder; 0 takes the likeliest note each time"""
    top_p: float = 1.0
    """each note is chosen among the likeliest that have this probability together, 0 to 1"""
    seed: int = 0
    """another seed gives other music"""
    prime: Path | None = None
    """a MIDI file to go on from"""
    prime_steps: int | None = None
    """take only so many frames from the beginning of the prime"""
    tempo: float | None = None
    """quarter notes a minute (default: the model's)"""

    def __post_init__(self) -> None:
        """Checks what no type can say."""
        if self.steps < 0:
            raise InputError(f"--steps must be 0 or more, got {self.steps}")
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise InputError(f"--temperature must be 0 or more, got {self.temperature}")
        if not 0 <= self.top_p <= 1:
            raise InputError(f"--top_p must be in [0, 1], got {self.top_p}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed must be 0 to 2^63 - 1, got {self.seed}")
        if self.tempo is not None and not 10 <= self.tempo <= 1000:
            raise InputError(f"--tempo must be 10 to 1000 quarter notes a minute, got {self.tempo}")
        if self.prime is None and not self.steps:
            raise InputError("--steps 0 without --prime makes no music")
        if self.prime is None and self.prime_steps is not None:
            raise InputError("--prime_steps needs --prime")
        if self.prime_steps is not None and self.prime_steps < 1:
            raise InputError(f"--prime_steps must be 1 or more, got {self.prime_steps}")
        if self.out.suffix.lower() not in (".mid", ".midi"):
            raise InputError(f"--out must end in .mid, got {self.out.name!r}")


def read_prime(flags: Predict, settings: Mapping[str, Any]) -> np.ndarray:
    """The frames to go on from, `<float32>[time, 88]`; none without `--prime`."""
    if flags.prime is None:
        return np.zeros((0, KEYS), np.float32)
    frames = midi.read_midi(flags.prime, settings["steps_per_quarter"])[: flags.prime_steps]
    return frames.astype(np.float32)


def play(served: Served, prime: np.ndarray, flags: Predict) -> np.ndarray:
    """Asks the export for music: `<float32>[time, 88]`, the prime first.

    Raises:
      InputError: it would be too long.
    """
    longest = served.settings["max_frames"]
    if len(prime) + flags.steps > longest:
        raise InputError(
            f"{len(prime)} frames of prime and --steps {flags.steps} are more than {longest:,} "
            "frames; shorten the prime by --prime_steps"
        )
    answer = served.call(
        "serving_default",
        prime=np.concatenate([prime, np.zeros((1, KEYS))])[None],
        prime_length=[len(prime)],
        steps=[flags.steps],
        temperature=[flags.temperature],
        top_p=[flags.top_p],
        seed=np.array([[flags.seed >> 32, flags.seed & 0xFFFFFFFF]], np.int64)
        .astype(np.uint32)
        .view(np.int32),
    )
    return answer["notes"][0, : answer["length"][0]]


def write_together(files: Mapping[Path, bytes]) -> None:
    """Writes files so that each appears whole, and none if one of them cannot be written."""
    partial = {path: path.with_name(f"{path.name}.partial") for path in files}
    try:
        for path, content in files.items():
            partial[path].write_bytes(content)
        for path in files:
            os.replace(partial[path], path)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)


def to_line(said: Mapping[str, Any]) -> str:
    """What was written, for a person."""
    prime = f" ({said['prime_frames']} of them given)" if said["prime_frames"] else ""
    return (
        f"{said['midi']}: {said['frames']} frames{prime}, {said['notes']} notes, "
        f"{said['seconds']:.1f} s; {said['picture']}; {said['sound']}"
    )


def main(argv: list[str]) -> None:
    """Asks and writes; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    served = load_export(flags.model or Path("saved_models") / TASK)
    settings = served.settings
    prime = read_prime(flags, settings)
    notes = play(served, prime, flags)
    steps_per_quarter = settings["steps_per_quarter"]
    tempo = flags.tempo or settings["tempo"]
    song = midi.to_song(notes, steps_per_quarter=steps_per_quarter, tempo=tempo)
    picture, sound = flags.out.with_suffix(".png"), flags.out.with_suffix(".wav")
    write_together(
        {
            flags.out: midi.midi_bytes(song),
            picture: midi.piano_roll_bytes(
                notes, steps_per_quarter=steps_per_quarter, given=len(prime)
            ),
            sound: midi.wav_bytes(song),
        }
    )
    held = midi.to_notes(notes)
    if not held:
        cli.say("the model played nothing but silence; try another --seed")
    said = {
        "midi": flags.out,
        "picture": picture,
        "sound": sound,
        "frames": len(notes),
        "prime_frames": len(prime),
        "notes": len(held),
        "seconds": round(len(notes) * 60.0 / tempo / steps_per_quarter, 3),
        "seed": flags.seed,
        "model": served.path,
    }
    cli.print_answers(flags, [said], to_line=to_line)


if __name__ == "__main__":
    cli.run(main)
