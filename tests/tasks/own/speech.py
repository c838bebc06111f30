"""Recordings whose letters are frequency sweeps, and a tiny model that learns them."""

import numpy as np
import soundfile

RATE = 16_000
# The first and the last frequency of each letter in Hz.
TONES = {"a": (300.0, 5000.0), "b": (5000.0, 300.0), "c": (1500.0, 1500.0)}


def speak(text, rng, rate=RATE):
    """Return a sound in which each letter is a frequency sweep."""
    parts = [np.zeros(int(0.1 * rate))]
    for letter in text:
        if letter == " ":
            parts.append(np.zeros(int(0.3 * rate)))
            continue
        steps = np.linspace(*TONES[letter], int(rng.uniform(0.15, 0.2) * rate))
        phase = 2 * np.pi * np.cumsum(steps) / rate
        # Three harmonics, so that every band has energy in every recording.
        parts += [sum(0.1 * np.sin(k * phase) for k in (1, 2, 3)), np.zeros(int(0.06 * rate))]
    sound = np.concatenate([*parts, np.zeros(int(0.1 * rate))])
    return (sound + rng.normal(size=len(sound)) * 0.002).astype(np.float32)


def texts(count, seed):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        words = ["".join(rng.choice(list(TONES), rng.integers(1, 4))) for _ in range(2)]
        yield " ".join(words[: rng.integers(1, 3)])


def write_folder(folder, count, seed, endings=(".wav",)):
    """Write a folder of recordings with a `metadata.csv` as in LJSpeech."""
    rng = np.random.default_rng(seed)
    (folder / "wavs").mkdir(parents=True)
    lines = []
    for number, text in enumerate(texts(count, seed)):
        ending = endings[number % len(endings)]
        rate = 44_100 if ending == ".mp3" else RATE
        sound = speak(text, rng, rate)
        if ending == ".mp3":
            sound = np.stack([sound, 0.5 * sound], axis=1)
        soundfile.write(folder / "wavs" / f"r{number}{ending}", sound, rate)
        lines.append(f"r{number}|{text.upper()}.|{text}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


TINY = ["--units", "28", "--layers", "1", "--channels", "8", "--bands", "24", "--verbose", "0"]
TINY += ["--learning_rate", "0.015", "--batch_size", "4", "--average", "0", "--dropout", "0"]
TINY += ["--strides", "2", "2", "--buckets", "2", "--speed", "0.05", "--max_seconds", "5"]
TINY += ["--order", "3", "--beam", "8", "--silence", "0.1", "--nothing", "0.06"]
TINY += ["--lm_weights", "0.0", "0.3", "--bonuses", "0.0", "--time_masks", "0", "--cell", "gru"]
TRAIN = ("--data", "mine", "--epochs", 16, "--score", "test", *TINY)


def write_data(folder):
    write_folder(folder / "mine", 150, seed=0, endings=(".wav", ".flac", ".ogg", ".mp3"))
