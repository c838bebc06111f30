"""The models in `saved_models/` on 200 rows of ours, for four of the tasks.

The floors stand a little below what the models of the repository reach; nothing is chosen by them.
They find a model or a reader that has become worse, where the golden answers change as a whole.
"""

from pathlib import Path

from common.files import read_lines
from common.serving.served import load_export
from common.serving.versions import SHIPPED
from tasks.dna import evaluate as dna
from tasks.ner import evaluate as ner
from tasks.ner.formats import entity_types, read_conll
from tasks.sentiment import load as load_sentiment
from tasks.translation import evaluate as translation
from tasks.translation import load as load_translation
from tests.tasks.own.bacteria import bacterium

import numpy as np
import pytest

pytestmark = pytest.mark.commands

ROOT = Path(__file__).parents[2]
ROWS = 200
SUBJECTS = "film hotel phone dinner concert book service room game trip".split()  # noqa: SIM905
GOOD = "great wonderful excellent superb lovely charming fantastic brilliant delightful perfect"
BAD = "terrible awful boring horrible disappointing dreadful useless ugly tedious stupid"


def test_sentiment_tells_praise_from_blame():
    rows = [
        (f"The {subject} was {word}.", polarity)
        for polarity, words in ((1, GOOD), (-1, BAD))
        for word in words.split()
        for subject in SUBJECTS
    ]
    ratings = load_sentiment(SHIPPED / "sentiment" / "1")([text for text, _ in rows])
    right = [
        np.sign(r.stars - 3) == polarity for r, (_, polarity) in zip(ratings, rows, strict=True)
    ]
    assert len(rows) == ROWS and np.mean(right) >= 0.97


def test_ner_finds_the_names_of_everyday_sentences():
    rows = read_conll(ROOT / "tasks" / "ner" / "sentences" / "test.conll")[:ROWS]
    served = load_export(SHIPPED / "ner" / "1")
    scored = ner.score(served, rows, entity_types(served.settings["labels"]))
    assert scored.examples == ROWS and scored.metrics["f1"] >= 0.7


def test_translation_translates_everyday_sentences():
    files = ["tests/tasks/translation/everyday.tsv", "tasks/translation/phrases/validation.tsv"]
    files.append("tasks/translation/phrases/test.tsv")
    lines = [line for name in files for _, line in read_lines(ROOT / name)][:ROWS]
    rows = [line.split("\t")[:2] for line in lines if line.strip()]
    results = load_translation(SHIPPED / "translation" / "1")([source for source, _ in rows])
    references = [target.split(" / ") for _, target in rows]
    scores, _ = translation.metrics([result.text for result in results], references)
    assert len(rows) == ROWS and scores["bleu"] >= 40


def test_dna_finds_the_genes_of_a_made_up_bacterium():
    record = bacterium(np.random.default_rng(29), genes_wanted=ROWS)
    scored = dna.score(load_export(SHIPPED / "dna" / "1"), [record])
    assert len(record.genes) == ROWS and scored.metrics["stop_f1"] >= 0.6  # its codons are random
