"""Helpers for the tests that load corpora."""

FRENCH = ("fr", "en")


def pairs_of(corpus, split):
    rows = corpus.splits[split].as_numpy_iterator()
    return [(row["source"].decode(), row["target"].decode()) for row in rows]
