"""Polarity of negated sentences, by an exported sentiment model.

    python -m tests.benchmarks.negations --model saved_models/sentiment

The 50 sentences in `negations.tsv` are ours and in no training data. A sentence is right if a
positive one has 4 or 5 stars and a negative one 1 or 2. The output lists the wrong sentences; its
last line is one JSON object.
"""

import argparse
import collections
import csv
import json
from pathlib import Path

from common.serving.served import text_request
from tasks.sentiment.predict import load_model

SENTENCES = Path(__file__).with_name("negations.tsv")


def main():
    """Score a model on all sentences, and print the results by kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="version folder, or folder of the versions")
    served = load_model(parser.parse_args().model)
    with open(SENTENCES, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    texts = [row["text"] for row in rows]
    outputs = served.predict("serving_default", texts, text_request, batch_size=64)
    right, total = collections.Counter(), collections.Counter()
    for row, (text, output) in zip(rows, outputs, strict=True):
        stars = int(output["stars"])
        is_right = stars > 3 if row["polarity"] == "positive" else stars < 3
        total[row["kind"]] += 1
        right[row["kind"]] += is_right
        if not is_right:
            print(f"{stars} stars, {row['polarity']}: {text}")
    print(json.dumps({f"{kind}, of {total[kind]}": right[kind] for kind in total}))


if __name__ == "__main__":
    main()
