"""The published data sets, read through `data.load`."""

import re

from common.commands.config import EvaluateConfig
from common.datasets import fetch_package
from common.errors import InputError
from common.text import rewrite
from tasks.ner import augmentation, data, datasets
from tasks.ner.formats import entities, entity_types, tag_names, to_iob2
from tasks.ner.tokens import tokenize

import pytest
import requests
import tensorflow as tf

ACCEPTANCE = "Yesterday, Harry Potter met Hermione Granger."


def flags(**kwargs):
    return EvaluateConfig(**kwargs)


@pytest.mark.parametrize(
    ("name", "sizes", "types", "names"),
    [
        (
            "wnut17",
            (3394, 1009, 1287),
            ("corporation", "creative-work", "group", "location", "person", "product"),
            836,
        ),
        ("btc", (6338, 1000, 2001), ("LOC", "ORG", "PER"), 1730),
        ("wikigold", (1363, 158, 175), ("LOC", "MISC", "ORG", "PER"), 334),
    ],
)
def test_published_splits(shared_data, tmp_path, name, sizes, types, names):
    manual = shared_data / "ner" / name
    corpus = data.load(flags(dataset=name, manual_dir=manual, data_dir=tmp_path), seed=1)
    assert tuple(corpus.size(split) for split in ("train", "validation", "test")) == sizes
    assert entity_types(corpus.labels) == types
    rows = data.sentences(corpus.splits["validation"], corpus.labels)
    assert sum(len(entities(row.tags)) for row in rows) == names
    assert all(to_iob2(row.tags) == row.tags and all(row.tokens) for row in rows)


@pytest.fixture(scope="module")
def everyday(tmp_path_factory):
    """The default data set, which needs no network."""
    return data.load(
        flags(dataset="everyday_entities", data_dir=tmp_path_factory.mktemp("d")), seed=1
    )


def test_the_default_data_set_shares_no_name_between_training_and_test(everyday):
    rows = {split: data.sentences(part, everyday.labels) for split, part in everyday.splits.items()}
    assert len(rows["train"]) >= 500 and len(rows["test"]) >= 100
    assert everyday.labels == tag_names(["PER", "ORG", "LOC", "MISC"])
    names = {
        split: {" ".join(r.tokens[a:b]).lower() for r in part for _, a, b in entities(r.tags)}
        for split, part in rows.items()
    }
    listed = {
        line.lower() for f in augmentation.NAMES.glob("*.txt") for line in f.read_text().split("\n")
    }
    assert (
        not (names["train"] | listed) & names["test"] and not names["train"] & names["validation"]
    )
    assert len(listed) > 1000
    every = [row for part in rows.values() for row in part]
    assert all(to_iob2(row.tags) == row.tags for row in every)
    # The tokens are those that the model makes of the raw text.
    again = tokenize(tf.constant([" ".join(row.tokens) for row in every])).to_list()
    assert again == rewrite(tf.ragged.constant([row.tokens for row in every])).to_list()


def test_no_file_of_the_task_contains_the_names_of_the_acceptance_example():
    names = {word.lower() for word in re.findall(r"[A-Z]\w+", ACCEPTANCE)} - {"yesterday"}
    assert len(names) == 4
    for path in datasets.SENTENCES.parent.rglob("*"):
        if path.is_file() and path.suffix not in (".pyc", ".png"):
            text = path.read_text(encoding="utf-8").lower()
            assert not names & set(re.findall(r"\w+", text)), path


NERO_HEADER = ("entity1", "semantic_class_entity1", "entity2", "semantic_class_entity2")
NERO_HEADER += ("sentenceText", "procset")


def test_nero_marks_every_occurrence_of_a_string_the_longest_first():
    text = "Human insulin receptor binds insulin in rats and in insulinoma."
    rows = [
        ("insulin", "GP", "", "", text, datasets.NERO_SET),
        ("insulin receptor ", "Protein", "", "", f" {text}\r", datasets.NERO_SET),
        ("rats", "Organism", "Human", "Organism", text, datasets.NERO_SET),
        ("binds", "Process", "", "", text, datasets.NERO_SET),
        ("bind", "GP", "", "", "GP bind of another part.", "bind"),
        ("nothing", "GP", "", "", "No such string here.", datasets.NERO_SET),
    ]
    table = "\n".join("\t".join(row) for row in (NERO_HEADER, *rows))
    ((split, row),) = datasets.nero_sentences(table, datasets.Nero.CLASSES)
    assert split in ("train", "validation", "test")
    names = [(kind, " ".join(row.tokens[a:b])) for kind, a, b in entities(row.tags)]
    assert names == [
        ("Organism", "Human"),
        ("Gene", "insulin receptor"),
        ("Gene", "insulin"),
        ("Organism", "rats"),
    ]


@pytest.mark.data  # downloads it
def test_nero_comes_from_the_package_index(tmp_path):
    corpus = data.load(flags(dataset="nero", data_dir=tmp_path), seed=1)
    rows = {split: data.sentences(part, corpus.labels) for split, part in corpus.splits.items()}
    texts = {split: {" ".join(row.tokens) for row in part} for split, part in rows.items()}
    assert not texts["train"] & texts["test"] and not texts["train"] & texts["validation"]
    assert 18_000 < sum(map(len, rows.values())) < 20_000
    assert entity_types(corpus.labels) == tuple(datasets.Nero.CLASSES)


def test_a_wheel_with_a_hyphen_in_its_name_is_found(tmp_path):
    (tmp_path / "NERO_nlp-0.0.8-py3-none-any.whl").write_bytes(b"something else")
    with pytest.raises(InputError, match="its SHA-256 is"):
        fetch_package(datasets.Nero.PACKAGE, tmp_path)


def test_a_download_without_network_names_the_file_and_the_flag(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise requests.ConnectionError

    monkeypatch.setattr("requests.head", refuse)
    with pytest.raises(InputError, match=r"needs 'wnut17train.conll'.*--manual_dir FOLDER"):
        data.load(flags(dataset="wnut17", data_dir=tmp_path), seed=1)
