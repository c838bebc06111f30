"""Speed of an exported speech model, and its features compared with librosa.

    pip install -e '.[speech,bench]'
    python -m tests.benchmarks.speech                          # untrained weights, equally fast
    python -m tests.benchmarks.speech --model saved_models/speech
    python -m tests.benchmarks.speech --model NEW --against OLD --sounds DIR

The real-time factor is the computing time per second of sound, for one recording of 4 s and for a
batch of 16. With `--against` the requests alternate between two exports, and the ratio of their
times is that of one process on one machine, whatever else runs there. `--sounds` takes the first 16
sound files of a folder, cut or repeated to 4 s, instead of noise. For a model of `--streaming` the
time of a chunk is measured, too. Where librosa is installed, its mel energies are compared with
ours. Each figure is the median of several runs after a warm-up. The last line is one JSON object.
"""

import argparse
import importlib.util
import statistics
import time
from pathlib import Path

from common import ctc, rnn_kernels
from common.commands import cli
from common.serving.served import load_export
from tasks.speech import features, microphone, model, serving
from tasks.speech.audio import SUFFIXES, read, request
from tasks.speech.config import PRESETS

import numpy as np
import tensorflow as tf

SECONDS = 4.0
LETTERS = (" ", *"abcdefghijklmnopqrstuvwxyz")


def medians(functions, runs=7, clock=time.perf_counter):
    """Return the median time of a call of each function, in seconds; the calls alternate."""
    times = [[] for _ in functions]
    for run in range(runs + 2):
        for function, seconds in zip(functions, times, strict=True):
            start = clock()
            function()
            if run >= 2:  # after a warm-up
                seconds.append(clock() - start)
    return [statistics.median(seconds) for seconds in times]


def median(function, runs=7):
    """Return the median time of a call, in seconds."""
    return medians([function], runs)[0]


def read_sounds(folder, samples):
    """Return 16 sounds of a folder, cut or repeated to some samples."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)[:16]
    return [np.resize(read(path), samples) for path in paths]


def make_noises(samples):
    """Return 16 noises of changing loudness, so that no step of the search is trivial."""
    rng = np.random.default_rng(0)
    swell = np.sin(np.arange(samples) / 3000.0)
    return [(0.1 * swell * rng.normal(size=samples)).astype(np.float32) for _ in range(16)]


def measure_chunks(served, sound):
    """Return the CPU seconds of each chunk of a sound, with the text so far after each."""
    size = served.settings["chunk_samples"]
    seconds = []
    for _ in range(2):  # the first is a warm-up
        seconds.clear()
        utterance = microphone.begin(served)
        for start in range(0, len(sound) - size + 1, size):
            before = time.process_time()
            utterance.add(sound[start : start + size])
            seconds.append(time.process_time() - before)
    return seconds


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


def calling(served):
    """Return a function that calls `serving_default` of an export."""
    return lambda inputs: served.call("serving_default", **inputs)


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
    parser.add_argument("--against", type=Path, help="another export, to which times are compared")
    parser.add_argument("--sounds", type=Path, help="folder of sound files (default: noise)")
    flags = parser.parse_args()
    served = None if flags.model is None else load_export(flags.model)
    calls = [untrained() if served is None else calling(served)]
    if flags.against is not None:
        calls.append(calling(load_export(flags.against)))
    samples = int(SECONDS * features.RATE)
    sounds = make_noises(samples) if flags.sounds is None else read_sounds(flags.sounds, samples)
    result = {}
    for count in (1, 16):
        inputs = request(sounds[:count])
        runs = [lambda call=call, inputs=inputs: call(inputs) for call in calls]
        seconds, *others = medians(runs, runs=15)
        result[f"real_time_factor_{count}"] = seconds / (count * SECONDS)
        print(
            f"{count:3d} x {SECONDS:g} s: {seconds:.3f} s, real-time factor "
            f"{seconds / (count * SECONDS):.4f}"
        )
        for other in others:
            result[f"ratio_{count}"] = seconds / other
            print(f"    against {other:.3f} s: ratio {seconds / other:.3f}")
    if served is not None and "chunk_samples" in served.settings:
        chunks = measure_chunks(served, sounds[0])
        result["chunk_cpu_seconds"] = [statistics.median(chunks), max(chunks)]
        print(f"a chunk: {statistics.median(chunks):.3f} CPU s, the longest {max(chunks):.3f}")
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
