"""Sentences with names in the usual places, and a tiny model that learns them."""

from tasks.ner.formats import Sentence

import numpy as np

FIRST, LAST = ("Ada", "Mary", "Omar", "Lena"), ("Byron", "Shelley", "Okafor", "Novak")
PLACES = ("Rome", "New Delhi", "Cairo", "San Marino")
FRAMES = ("PER lives in LOC .", "LOC is far from LOC", "did PER call ?", "PER met PER , PER and me")
FRAMES += ("nobody lives here .", "in LOC PER sleeps", "we like LOC !")


def own_sentences(count, seed):
    """Yield sentences whose names a tiny model can learn."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        row = Sentence([], [])
        for word in str(random.choice(FRAMES)).split():
            name, kind = [word], None
            if word in ("PER", "LOC"):
                kind = word
                name = [str(random.choice(FIRST)), str(random.choice(LAST))]
                name = name if kind == "PER" else str(random.choice(PLACES)).split()
            row.tokens.extend(name)
            inside = [f"I-{kind}"] * (len(name) - 1)
            row.tags.extend([f"B-{kind}", *inside] if kind else ["O"])
        yield row


def write_conll(path, rows):
    lines = (f"{a}\t{b}\n" for row in rows for a, b in [*zip(*row, strict=True), ("", "")])
    path.write_text("".join("\n" if line == "\t\n" else line for line in lines), encoding="utf-8")
    return path


TINY = ["--vectors", "", "--dimension", "8", "--units", "8", "--learning_rate", "0.02"]
TINY += ["--character_dimension", "4", "--character_filters", "6", "--rare_word_dropout", "0"]
TINY += ["--word_dropout", "0", "--embedding_dropout", "0", "--dropout", "0", "--average", "0"]
TINY += ["--verbose", "0", "--max_length", "24", "--outside_weight", "1", "--exchange", "0"]
TINY += ["--members", "1", "--lower_case", "0", "--clusters", "none", "--batch_size", "32"]
TRAIN = ("--data", "my.conll", "--epochs", 5, "--score", "test", *TINY, "--members", 2)


def write_data(folder):
    write_conll(folder / "my.conll", own_sentences(400, seed=0))
