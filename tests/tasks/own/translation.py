"""Sentence pairs translated word by word, and a tiny model that learns them."""

import itertools
import random

NOUNS = {"chat": "cat", "chien": "dog", "lapin": "rabbit", "mouton": "sheep", "canard": "duck"}
KINDS = {"noir": "black", "blanc": "white", "petit": "small", "vieux": "old"}
VERBS = {"dort": "sleeps", "mange": "eats", "court": "runs", "chante": "sings", "boit": "drinks"}
ARTICLES = {"Le": "The", "Un": "A", "Mon": "My", "Votre": "Your"}


def own_pairs(seed=0):
    """Return pairs translated word by word, with the adjective before the noun in English."""
    pairs = [
        (f"{a} {n} {k} {v}.", f"{ARTICLES[a]} {KINDS[k]} {NOUNS[n]} {VERBS[v]}.")
        for a, n, k, v in itertools.product(ARTICLES, NOUNS, KINDS, VERBS)
    ]
    random.Random(seed).shuffle(pairs)
    return pairs


def write_tsv(path, pairs):
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
    return path


TINY = ["--embedding", "24", "--units", "24", "--decoder_layers", "1", "--max_length", "24"]
TINY += ["--source_subwords", "320", "--target_subwords", "320", "--batch_size", "16"]
TINY += ["--learning_rate", "0.02", "--average", "0.9", "--dropout", "0", "--verbose", "0"]
TINY += ["--no-lexical", "--no-dictionary"]
TRAIN = ("--data", "my.tsv", "--epochs", 16, "--score", "test", "--candidates", 4, *TINY)


def write_data(folder):
    write_tsv(folder / "my.tsv", own_pairs())
