"""Word error rates of a speech model on recordings as they are, in silence, noise and a telephone.

    python -m tests.benchmarks.hearing --model saved_models/speech --dataset an4 --manual_dir DIR
    python -m tests.benchmarks.hearing --model saved_models/speech --data recordings --split test

It also counts how many of twenty recordings of noise or silence get a text. The last line is one
JSON object.
"""

from collections.abc import Callable
from pathlib import Path

from common.commands import cli
from common.commands.config import EvaluateConfig
from common.serving.served import load_export
from tasks.speech import audio, data
from tasks.speech.audio import RATE
from tasks.speech.augmentation import TELEPHONE, coloured_noise, limit_band
from tasks.speech.config import TASK
from tasks.speech.evaluate import metrics

import numpy as np
import tensorflow as tf

LOUDNESS = 10 ** (-50 / 20)  # of the noise, relative to full scale


def noise(count: int, slope: float, seed: int) -> np.ndarray:
    """Return noise of mean power 1 and a colour."""
    return coloured_noise(tf.constant(count), slope, tf.constant([seed, 0], tf.int64)).numpy()


def in_silence(sound: np.ndarray) -> np.ndarray:
    """Add 2 s of silence before and after."""
    return np.pad(sound, 2 * RATE)


def in_noise(sound: np.ndarray) -> np.ndarray:
    """Add 2 s of silence before and after, and pink noise of -50 dB of full scale under all."""
    sound = in_silence(sound)
    return sound + LOUDNESS * noise(len(sound), 1.0, len(sound))


def on_telephone(sound: np.ndarray) -> np.ndarray:
    """Remove the frequencies that a telephone does not have."""
    return limit_band(tf.constant(sound), *TELEPHONE).numpy()


CONDITIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda sound: sound,
    "2 s of silence before and after": in_silence,
    "the same, with noise of -50 dB": in_noise,
    "telephone, 300 to 3,400 Hz": on_telephone,
}


def transcribe(served, sounds) -> list[str]:
    """Return the text of each sound; one that is too long is cut at its silences."""
    longest = served.settings["max_samples"]
    pieces = [
        (number, piece)
        for number, sound in enumerate(sounds)
        for _, piece in audio.split_blocks([sound], longest)
    ]
    texts: list[list[str]] = [[] for _ in sounds]
    predictions = served.predict(
        "serving_default",
        pieces,
        lambda rows: audio.request([sound for _, sound in rows]),
        batch_size=16,
        length_of=lambda row: len(row[1]),
    )
    for (number, _), outputs in predictions:
        texts[number].append(bytes(outputs["text"]).decode())
    return [" ".join(filter(None, parts)) for parts in texts]


def empty_recordings() -> list[np.ndarray]:
    """Return twenty recordings of 3 s without speech: noise of three colours, and silence."""
    levels = (-70, -60, -50, -40, -30, -20)
    sounds = [
        10 ** (level / 20) * noise(3 * RATE, slope, number)
        for number, (level, slope) in enumerate((lv, sl) for lv in levels for sl in (0.0, 1.0, 2.0))
    ]
    click = np.zeros(3 * RATE, np.float32)
    click[RATE] = 0.5
    return [*sounds, np.zeros(3 * RATE, np.float32), click]


def main(argv: list[str]) -> None:
    """Run the benchmark; see the module."""
    flags = cli.parse(EvaluateConfig, argv, doc=__doc__)
    served = load_export(flags.model or Path("saved_models", TASK), TASK)
    corpus = data.load(flags.or_trained_on(served.settings), seed=1, max_bad=0.1)
    rows = list(corpus.splits[flags.split].as_numpy_iterator())
    truth = [row["text"].decode() for row in rows]
    result: dict[str, object] = {
        "dataset": corpus.name,
        "split": flags.split,
        "examples": len(rows),
        "model": str(served.path),
    }
    for name, change in CONDITIONS.items():
        rates = metrics(truth, transcribe(served, [change(row["audio"]) for row in rows]))
        print(f"{name:35s} WER {rates['wer']:.4f}  CER {rates['cer']:.4f}")
        result[name] = rates["wer"]
    empty = [text for text in transcribe(served, empty_recordings()) if text]
    print(f"{len(empty)} of 20 recordings without speech get a text: {empty[:5]}")
    cli.print_result({**result, "noises with a text": len(empty)})


if __name__ == "__main__":
    cli.run(main)
