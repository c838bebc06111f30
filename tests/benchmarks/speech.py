"""Speed of an exported speech model, and its features compared with librosa.

    pip install -e '.[speech,bench]'
    python -m tests.benchmarks.speech                          # untrained weights, equally fast
    python -m tests.benchmarks.speech --model saved_models/speech

The real-time factor is the computing time per second of sound, for one recording of 4 s and for a
batch of 16. Where librosa is installed, its mel energies are compared with ours. Each figure is the
median of several runs after a warm-up. The last line is one JSON object.
"""

import argparse
import importlib.util
import statistics
import time
from pathlib import Path

from common import ctc, rnn_kernels
from common.commands import cli
from common.serving.served import load_export
from tasks.speech import features, model, serving
from tasks.speech.audio import request
from tasks.speech.config import PRESETS

import numpy as np
import tensorflow as tf

SECONDS = 4.0
LETTERS = (" ", *"abcdefghijklmnopqrstuvwxyz")


def median(function, runs=7):
    """Return the median wall time of a call, in seconds."""
    function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def untrained():
    """Return `serving_default` of the preset `an4` as exported, with random weights."""
    config = PRESETS["an4"]
    rng = np.random.default_rng(0)
    recognizer = serving.Recognizer(
        model.build(config, symbols=len(LETTERS)),
        LETTERS,
        ctc.Ngram(rng.integers(0, 27, (800, 30)), symbols=27, order=4),
        weight=0.5,
        bonus=0.0,
        beam=config.beam,
        max_samples=int(config.max_seconds * features.RATE),
    )
    with rnn_kernels.portable():
        traced = serving.signatures(recognizer)["serving_default"].get_concrete_function()
    return lambda inputs: traced(tf.constant(inputs["audio"]), tf.constant(inputs["length"]))


def against_librosa(audio):
    """Return differences from librosa's features, and both times; None without librosa."""
    if importlib.util.find_spec("librosa") is None:
        return None
    import librosa

    bands = PRESETS["an4"].bands
    ours = tf.function(lambda sound: features.mel_energies(sound, bands))

    def spectrum():
        # librosa centres the window in the FFT's samples; TensorFlow puts it at the beginning.
        margin = (features.FFT - features.WINDOW) // 2
        return librosa.stft(
            np.pad(audio, margin),
            n_fft=features.FFT,
            hop_length=features.HOP,
            win_length=features.WINDOW,
            center=False,
        )

    filters = librosa.filters.mel(
        sr=features.RATE,
        n_fft=features.FFT,
        n_mels=bands,
        fmin=features.LOWEST,
        fmax=features.HIGHEST,
        htk=True,
        norm=None,
    )

    def theirs():
        return (filters @ np.abs(spectrum()) ** 2).T

    sound = tf.constant(audio[None])
    power, energies = np.abs(spectrum().T) ** 2, theirs()
    return {
        "spectrum_difference": largest(features.power_spectrum(sound)[0].numpy(), power),
        # Not 0: our triangles are linear in mels, as in HTK, those of librosa in hertz.
        "mel_difference": largest(ours(sound)[0].numpy(), energies),
        "ours_seconds": median(lambda: ours(sound)),
        "librosa_seconds": median(theirs),
    }


def largest(ours, theirs):
    """Return the largest difference relative to the largest value."""
    return float(np.abs(ours - theirs).max() / theirs.max())


def main():
    """Run the benchmark; see the module."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.speech",
        description="Measure the speed of a speech model and of its features.",
    )
    parser.add_argument("--model", type=Path, help="export (default: untrained weights)")
    path = parser.parse_args().model
    if path is None:
        call = untrained()
    else:
        served = load_export(path)
        call = lambda inputs: served.call("serving_default", **inputs)  # noqa: E731
    rng = np.random.default_rng(0)
    samples = int(SECONDS * features.RATE)
    # Noise of changing loudness, so that no step of the search is trivial.
    swell = np.sin(np.arange(samples) / 3000.0)
    sounds = [(0.1 * swell * rng.normal(size=samples)).astype(np.float32) for _ in range(16)]
    result = {}
    for count in (1, 16):
        inputs = request(sounds[:count])
        seconds = median(lambda inputs=inputs: call(inputs))
        result[f"real_time_factor_{count}"] = seconds / (count * SECONDS)
        print(
            f"{count:3d} x {SECONDS:g} s: {seconds:.3f} s, real-time factor "
            f"{seconds / (count * SECONDS):.4f}"
        )
    compared = against_librosa(sounds[0])
    if compared is None:
        print("librosa is not installed: features not compared")
    else:
        print(
            f"features of {SECONDS:g} s: {compared['ours_seconds'] * 1e3:.1f} ms, librosa "
            f"{compared['librosa_seconds'] * 1e3:.1f} ms; largest difference of the spectrum "
            f"{compared['spectrum_difference']:.1e}, of the mel bands "
            f"{compared['mel_difference']:.1e}"
        )
        result["features"] = compared
    cli.print_result(result)


if __name__ == "__main__":
    main()
