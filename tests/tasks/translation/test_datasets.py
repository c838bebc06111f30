"""The builders of the translation task."""

import dataclasses
import itertools
import json
import re
import zipfile

from common.commands.config import EvaluateConfig
from common.datasets import SPLITS
from common.errors import InputError
from tasks.translation import data, datasets, evaluate
from tasks.translation.splits import ACCEPTANCE, is_acceptance, normalise
from tests.benchmarks.everyday import read_everyday
from tests.tasks.translation.corpora import FRENCH, pairs_of

import pytest


@pytest.fixture(scope="module")
def source(tmp_path_factory, shared_data):
    return EvaluateConfig(
        dataset="tatoeba",
        manual_dir=shared_data / "translation" / "tatoeba-fra-eng",
        data_dir=tmp_path_factory.mktemp("tfds"),
    )


@pytest.fixture(scope="module")
def tatoeba(source):
    return data.load(source, languages=FRENCH, seed=1)


def test_tatoeba_is_split_as_stated(tatoeba):
    pairs = {split: pairs_of(tatoeba, split) for split in SPLITS}
    sizes = {split: len(part) for split, part in pairs.items()}
    assert sizes == {"train": 138274, "validation": 1536, "test": 2977}
    split_of = {}
    for split, part in pairs.items():
        for pair in part:
            for side, sentence in enumerate(pair):
                assert split_of.setdefault((side, normalise(sentence)), split) == split
    sources = {source for source, _ in pairs["test"]}
    assert len(sources) == len(evaluate.references_by_source(tatoeba.splits["test"]))


def test_no_model_learns_a_sentence_that_judges_it(tatoeba, tmp_path):
    acceptance = set(map(normalise, (*ACCEPTANCE, *read_everyday())))
    book = data.load(
        EvaluateConfig(dataset="phrase_book", data_dir=tmp_path), languages=FRENCH, seed=1
    )
    for corpus in (tatoeba, book):
        for pair in pairs_of(corpus, "train"):
            assert not acceptance & set(map(normalise, pair))


def test_a_mixture_has_no_sentence_in_two_splits(source, tatoeba, capsys):
    mixture = dataclasses.replace(source, dataset="tatoeba+phrase_book")
    corpus = data.load(mixture, languages=FRENCH, seed=1)
    dropped = re.findall(r"(\w+): dropped (\d+) train pairs", capsys.readouterr().err)
    assert [name for name, _ in dropped] == ["tatoeba", "phrase_book"]
    dropped_pairs = sum(int(count) for _, count in dropped)
    assert corpus.size("train") == 138274 + 6474 - dropped_pairs
    assert [corpus.size(split) for split in SPLITS[1:]] == [1536 + 80, 2977 + 156]
    assert corpus.licence == "tatoeba: CC BY 2.0; phrase_book: CC0"
    splits = {split: pairs_of(corpus, split) for split in SPLITS}
    sentences = {
        split: {normalise(sentence) for pair in pairs for sentence in pair}
        for split, pairs in splits.items()
    }
    # Sentences without a word, such as "?", are no judges.
    for one, other in itertools.combinations(SPLITS, 2):
        assert sentences[one] & sentences[other] <= {""}
    everyday = set(map(normalise, read_everyday()))
    assert not everyday & sentences["train"]


def test_pairs_with_an_acceptance_sentence_are_left_out_of_training():
    pairs = [(f"Phrase numéro {k}.", f"Sentence number {k}.") for k in range(20_000)]
    excluded = [("voulez vous chanter AVEC moi !", "Sing!"), ("Oh.", "do you want to sing with me")]
    splits = datasets.split_tatoeba([*pairs, *excluded])
    remaining = [pair for rows in splits.values() for pair in rows]
    # Otherwise they would be in the training split.
    assert sorted(remaining) == sorted(pairs)
    assert [is_acceptance(*pair) for pair in (*excluded, pairs[0])] == [True, True, False]


def test_multi30k_has_its_published_splits(shared_data, tmp_path):
    source = EvaluateConfig(
        dataset="multi30k", manual_dir=shared_data / "translation" / "multi30k", data_dir=tmp_path
    )
    corpus = data.load(source, languages=FRENCH, seed=1)
    assert [corpus.size(split) for split in SPLITS] == [29000, 1014, 1000]
    assert corpus.size("test_2017") == 1000
    reverse = data.load(source, languages=("en", "fr"), seed=1)
    assert pairs_of(reverse, "validation")[0] == pairs_of(corpus, "validation")[0][::-1]
    with pytest.raises(InputError, match=r"multi30k has no language 'de' \(available: "):
        data.load(source, languages=("de", "en"), seed=1)


def test_interface_texts_are_paired_by_their_keys(tmp_path):
    archive = tmp_path / "package.whl"
    folder = "homeassistant/components/lamp/translations/"
    english = {"a": {"on": "Turn on  the lamp", "off": "Off"}, "b": "Please wait a moment"}
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(f"{folder}en.json", json.dumps(english))
        file.writestr(f"{folder}fr.json", json.dumps({"a": {"on": "Allumer la lampe"}}))
    assert datasets.read_interface_texts(archive, ("en", "fr")) == [
        ("Turn on the lamp", "Allumer la lampe"),
        ("Please wait a moment", ""),
    ]
