"""Clips of three activities, and a tiny model that learns them."""

from tasks.video import clips, gaits, render

RATE = 8.0  # frames per second of the tiny model
SIDE = 32
CLASSES = ("sitting down", "standing up", "waving")


def body(activity, person, seed=0, seconds=2.5, rate=RATE, view=render.FIXED_VIEW):
    """Render a clip, `<uint8>[time, side, side, 3]`, by default in the fixed view."""
    joints = gaits.move(activity, seconds=seconds, rate=rate, seed=seed, person=person)
    return render.render(joints, view, size=SIDE)


TINY = ["--image_size", SIDE, "--frame_rate", RATE, "--max_length", 32, "--channels", 8, 8, 16]
TINY += ["--features", 16, "--units", 16, "--learning_rate", "0.005", "--verbose", "0"]
TINY += ["--average", "0", "--dropout", "0", "--head_dropout", "0", "--batch_size", 8]
TINY += ["--zoom", "0", "--shift", "0", "--speed", "0.1"]
TINY += ["--colours", 1, "--changes", 4, "--negatives", 0]
TRAIN = ("--data", "clips", "--epochs", 16, "--score", "test", *TINY)


def write_data(folder):
    lists = {"train": [], "test": []}
    for number, label in enumerate(CLASSES):
        (folder / "clips" / label).mkdir(parents=True)
        for person in range(26):
            name = f"{label}/v_g{person}_c1.mp4"
            (folder / "clips" / name).write_bytes(clips.encode(body(label, person), RATE))
            lists["train" if person < 20 else "test"].append((name, number + 1))
    (folder / "clips" / "train.txt").write_text("".join(f"{n} {k}\n" for n, k in lists["train"]))
    (folder / "clips" / "test.txt").write_text("".join(f"{n}\n" for n, _ in lists["test"]))
