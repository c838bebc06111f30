"""Reviews whose label depends on one word, and a tiny model that learns them."""

import csv

import numpy as np

GOOD = ("splendid", "lovely", "superb", "delightful")
BAD = ("dreadful", "boring", "awful", "tedious")
REST = ("the film", "its plot", "every actor", "the ending", "the music", "a scene")


def own_reviews(count, seed):
    """Yield reviews whose label depends on one word, so that a tiny model can learn them."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        good = bool(random.integers(2))
        words = [*random.choice(REST, size=random.integers(1, 6)), random.choice((BAD, GOOD)[good])]
        random.shuffle(words)
        yield " ".join(words), "good" if good else "bad"


def write_csv(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows(rows)
    return path


TINY = ["--vectors", "", "--dimension", "8", "--units", "8", "--learning_rate", "0.02"]
TINY += ["--rare_word_dropout", "0", "--verbose", "0", "--max_length", "24"]
TINY += ["--word_dropout", "0", "--embedding_dropout", "0", "--head_dropout", "0", "--average", "0"]
TRAIN = ("--data", "my.csv", "--epochs", 6, "--score", "test", *TINY)


def write_data(folder):
    write_csv(folder / "my.csv", own_reviews(400, seed=0))
