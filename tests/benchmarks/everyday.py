"""Translate the everyday sentences of the tests, for a person to judge.

    python -m tests.benchmarks.everyday --model saved_models/translation

`tests/tasks/translation/everyday.tsv` holds French sentences and translations that are right;
others may be right, too. A judge reads the printed pairs that are none of these, marked by `?`. The
last line is one JSON object: the sentences, those whose translation stands in the file but for
capitals and marks, and those with a word three times in a row.
"""

import argparse
import json
import re
from pathlib import Path

from common.serving.served import load_export, text_request
from tasks.translation.splits import normalise

EVERYDAY = Path(__file__).parents[1] / "tasks" / "translation" / "everyday.tsv"


def read_everyday():
    """Return the sentences with their translations."""
    rows = (line.split("\t") for line in EVERYDAY.read_text(encoding="utf-8").splitlines())
    return {source: targets.split(" / ") for source, targets in rows}


def has_loop(text):
    """Return whether a word stands three times in a row."""
    return re.search(r"\b(\w+)\W+\1\W+\1\b", text.lower()) is not None


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.everyday")
    parser.add_argument("--model", type=Path, default=Path("saved_models/translation"))
    options = parser.parse_args()
    served, everyday = load_export(options.model), read_everyday()
    predictions = served.predict("serving_default", list(everyday), text_request, batch_size=50)
    right = loops = 0
    for source, outputs in predictions:
        translation = outputs["translation"].decode()
        known = normalise(translation) in map(normalise, everyday[source])
        right, loops = right + known, loops + has_loop(translation)
        print(f"{' ' if known else '?'} {source}\n  -> {translation}\n  == {everyday[source][0]}")
    print(json.dumps({"sentences": len(everyday), "as_in_the_file": right, "loops": loops}))


if __name__ == "__main__":
    main()
