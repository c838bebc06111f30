"""Data sets, ids and batches."""

import common.data
from common import tables
from common.commands.config import EvaluateConfig
from common.datasets import SPLITS, Corpus
from common.errors import InputError
from common.text import Vocabulary
from tasks.ner import augmentation, data
from tasks.ner.config import Config
from tasks.ner.formats import Sentence, entity_types, tag_names
from tests.tasks.own.ner import own_sentences, write_conll

import numpy as np
import pytest
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

TAGS = tag_names(["PER", "LOC"])


def flags(**kwargs):
    return EvaluateConfig(**kwargs)


def test_wikiann_and_conll2003_come_from_the_catalogue(tmp_path, monkeypatch):
    monkeypatch.setattr("requests.head", lambda *_, **__: None)

    def rows(builder, split, **_):
        names = builder.info.features
        column = "ner" if "ner" in names else "tags"
        labels = names[column].feature
        tags = [labels.str2int(tag) for tag in ("B-PER", "I-PER", "O", "B-LOC")]
        every = {"tokens": ["Ada", "Byron", "saw", "Rome"], column: tags}
        return tf.data.Dataset.from_tensors(every).repeat(20)

    with tfds.testing.mock_data(num_examples=20, as_dataset_fn=rows):
        for name in ("wikiann", "conll2003"):
            corpus = data.load(flags(dataset=name, data_dir=tmp_path), seed=1)
            assert set(corpus.splits) == set(SPLITS)
            expected = ["PER", "ORG", "LOC"] + ["MISC"] * (name == "conll2003")
            assert corpus.labels == tag_names(expected)
            (row, *_) = data.sentences(corpus.splits["validation"], corpus.labels)
            assert row.tokens == ["Ada", "Byron", "saw", "Rome"]
            assert row.tags == ["B-PER", "I-PER", "O", "B-LOC"]


def test_a_folder_with_a_file_per_split_is_loaded_as_it_is(tmp_path):
    for name, token in (("train.txt", "a"), ("dev.txt", "b"), ("test.txt", "c")):
        (tmp_path / name).write_text(f"{token} B-X\nd O\n\nAda B-Y\n")
    corpus = data.load(flags(data=tmp_path), seed=1)
    assert corpus.labels == ("O", "B-X", "I-X", "B-Y", "I-Y")
    for split, token in (("train", "a"), ("validation", "b"), ("test", "c")):
        rows = data.sentences(corpus.splits[split], corpus.labels)
        assert rows == [Sentence([token, "d"], ["B-X", "O"]), Sentence(["Ada"], ["B-Y"])]
    (tmp_path / "test.txt").write_text("c B-Z\n")
    corpus = data.load(flags(data=tmp_path), seed=1)
    assert corpus.labels == tag_names(["X", "Y", "Z"])
    (row,) = data.sentences(corpus.splits["test"], corpus.labels)
    assert row == Sentence(["c"], ["B-Z"])


def test_a_type_that_training_lacks_is_said(tmp_path, capsys):
    for name, kind in (("train", "A"), ("valid", "A"), ("test", "B")):
        (tmp_path / f"{name}.txt").write_text(f"x B-{kind}\n")
    corpus = data.load(flags(data=tmp_path), seed=1)
    assert corpus.labels == tag_names(["A", "B"])
    message = "entities of type B occur in the test sentences, but not in the training sentences"
    assert f"{message}; they count as missed" in capsys.readouterr().err


def test_the_types_of_a_file_are_those_of_all_its_splits(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("Ada\tB-PER\n\n" * 19 + "Rome\tB-LOC\n")
    corpus = data.load(flags(data=path), seed=1)
    assert corpus.labels == tag_names(["LOC", "PER"])
    assert [corpus.size(split) for split in SPLITS] == [16, 2, 2]
    types = [corpus.stored[split].types() for split in SPLITS]
    assert set().union(*types) == {"LOC", "PER"}
    for split, found in zip(SPLITS, types, strict=True):
        rows = data.sentences(corpus.splits[split], corpus.labels)
        assert set(entity_types(tag for row in rows for tag in row.tags)) == found


def own_corpus(tmp_path, bad=""):
    path = write_conll(tmp_path / "my.conll", own_sentences(300, seed=0))
    path.write_text(path.read_text().replace("B-PER", "I-PER") + bad, encoding="utf-8")
    return flags(data=path, data_dir=tmp_path / "prepared")


def rows_of(corpus, split):
    return data.sentences(corpus.splits[split], corpus.labels)


def test_a_large_file_has_the_examples_of_one_in_memory(tmp_path, monkeypatch, capsys):
    source = own_corpus(tmp_path, "\nonly\n\n\u200b\tO\ndé\u0301jà\tO\n")
    in_memory = data.load(source, seed=3)
    expected = capsys.readouterr().err
    assert "were skipped (line" in expected and "converted to IOB2" in expected
    monkeypatch.setattr(tables, "LARGE", 0)
    stored = data.load(source, seed=3)
    said = capsys.readouterr().err
    assert [line for line in said.splitlines() if "once" not in line] == expected.splitlines()
    assert stored.labels == in_memory.labels
    for split in SPLITS:
        assert rows_of(stored, split) == rows_of(in_memory, split) == [*stored.stored[split]]
    again = data.load(source, seed=3)
    assert capsys.readouterr().err == expected and again.fingerprint() == stored.fingerprint()
    assert data.load(source, seed=4).fingerprint() != stored.fingerprint()
    source.data.write_text(source.data.read_text().replace("Ada", "Eda"))
    assert data.load(source, seed=3).fingerprint() != stored.fingerprint()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Ada B-PER\nx NN NP O\n", "line 2: expected 2 columns as on most lines, got 4"),
        ("saw O\n\n" * 12, "every tag is O"),
        ("\tO\n", "no sentences in this file"),
    ],
)
def test_a_bad_large_file_is_refused(content, message, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "LARGE", 0)
    (tmp_path / "my.conll").write_text(content)
    source = flags(data=tmp_path / "my.conll", data_dir=tmp_path / "prepared")
    with pytest.raises(InputError, match=message):
        data.load(source, seed=1)
    assert not [path for path in source.data_dir.iterdir() if "partial" in path.name]


def whole(count):
    return slice(0, count)


@pytest.fixture
def own_reader(tmp_path):
    corpus = data.load(own_corpus(tmp_path), seed=1)
    words = sorted({token.lower() for row in rows_of(corpus, "train") for token in row.tokens})
    Vocabulary.write(tmp_path / "words.txt", words)
    Vocabulary.write(tmp_path / "characters.txt", [*"abcdefghijklmnopqrstuvwxyzX0"])
    files = (Vocabulary(tmp_path / name) for name in ("words.txt", "characters.txt"))
    return corpus, data.Reader(*files, word_length=6)


@pytest.mark.parametrize("seed", [None, 1])
def test_batches_of_a_table_are_those_of_a_data_set(own_reader, seed):
    corpus, reader = own_reader
    config = Config(max_length=6, batch_size=16)
    expected = data.to_batches(corpus.splits["train"], reader, config, shuffle_seed=seed)
    found = data.stored_batches(
        corpus.stored["train"], corpus.labels, reader, config, own=whole, shuffle_seed=seed
    )
    for row, other in zip(expected.as_numpy_iterator(), found.as_numpy_iterator(), strict=True):
        assert row.keys() == other.keys()
        for name in row:
            assert row[name].dtype == other[name].dtype
            np.testing.assert_array_equal(row[name], other[name])


def test_more_sentences_than_are_shuffled_meet_in_a_batch(own_reader, monkeypatch):
    corpus, reader = own_reader
    monkeypatch.setattr(data, "SHUFFLED", 10)
    monkeypatch.setattr(common.data, "SHUFFLED", 10)
    config, numbers = Config(max_length=8, batch_size=16), []
    for _ in data.stored_batches(
        corpus.stored["train"],
        corpus.labels,
        reader,
        config,
        own=whole,
        shuffle_seed=1,
        vary=lambda number, row: numbers.append(number) or row,
    ):
        pass
    assert sorted(numbers) == sorted(corpus.stored["train"].numbers)
    places = {number: place for place, number in enumerate(corpus.stored["train"].numbers)}
    moved = [abs(places[number] - place) for place, number in enumerate(numbers)]
    assert np.mean(moved) > 20


def test_workers_read_and_vary_their_own_sentences_of_the_same_batches(own_reader):
    corpus, reader = own_reader
    config = Config(max_length=12, batch_size=16, titles=0.5)
    gazetteer = augmentation.Gazetteer(())
    varied = []

    def vary(number, row):
        varied.append(number)
        generator = np.random.default_rng([5, number])
        return augmentation.vary(
            row, gazetteer, exchange=0.0, titles=0.5, lower_case=0.5, generator=generator
        )

    def batches(own):
        varied.clear()
        rows = data.stored_batches(
            *(corpus.stored["train"], corpus.labels, reader, config),
            own=own,
            shuffle_seed=1,
            vary=vary,
        )
        return list(rows.as_numpy_iterator()), len(varied)

    alone, count = batches(whole)
    assert count == corpus.size("train")
    (lefts, first), (rights, second) = (
        batches(own) for own in (lambda n: slice(0, n // 2), lambda n: slice(n // 2, n))
    )
    assert first + second == count
    for row, left, right in zip(alone, lefts, rights, strict=True):
        assert left["words"].shape == right["words"].shape
        assert left["words"].shape[1] == config.max_length  # titles make sentences longer
        longest = row["words"].shape[1]
        for name in row:
            joined = left[name] + right[name]
            if joined.ndim > 1:
                assert not joined[:, longest:].any()
                joined = joined[:, :longest]
            np.testing.assert_array_equal(joined, row[name])


def test_mixed_data_sets_have_the_same_types(tmp_path, monkeypatch):
    names = {"wnut17": ["person", "group"], "everyday_entities": ["MISC", "PER"]}

    def published(name, source):
        first, second = names[name]
        rows = [Sentence([name, "x", "y"], [f"B-{first}", f"I-{first}", f"B-{second}"])]
        labels = tag_names(names[name])
        splits = {split: data.as_dataset(rows, labels) for split in SPLITS}
        return Corpus(name, splits, f"cite {name}", "CC", labels=labels)

    monkeypatch.setattr(data, "_published_corpus", published)
    corpus = data.load(flags(dataset="wnut17+everyday_entities"), seed=1)
    assert corpus.labels == tag_names(["MISC", "ORG", "PER"])
    assert corpus.name == "wnut17+everyday_entities"
    assert corpus.citation == "cite wnut17\n\ncite everyday_entities"
    for split in SPLITS:
        one, two = data.sentences(corpus.splits[split], corpus.labels)
        assert one == Sentence(["wnut17", "x", "y"], ["B-PER", "I-PER", "B-ORG"])
        assert two == Sentence(["everyday_entities", "x", "y"], ["B-MISC", "I-MISC", "B-PER"])
        assert corpus.size(split) == 2
    with pytest.raises(InputError, match="'nero' cannot be mixed; known: everyday_entities"):
        data.load(flags(dataset="wnut17+nero"), seed=1)


def test_what_cannot_be_had_is_known_before_anything_is_downloaded(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise requests.ConnectionError

    monkeypatch.setattr("requests.head", refuse)
    (tmp_path / "wikigold").mkdir()  # a folder for each data set
    (tmp_path / "wikigold" / "wikigold.txt").write_text("")
    source = flags(dataset="x", manual_dir=tmp_path, data_dir=tmp_path / "data")
    reasons = data.not_obtainable(["everyday_entities", "wikigold", "btc"], source)
    assert list(reasons) == ["btc"] and "needs 'btc.train'" in reasons["btc"]
    (tmp_path / "wikigold" / "wikigold.txt").unlink()
    assert list(data.not_obtainable(["everyday_entities", "wikigold"], source)) == ["wikigold"]


def test_unknown_words_and_characters_get_the_id_of_a_similar_one(tmp_path):
    Vocabulary.write(tmp_path / "words.txt", ["london", "http", "#tag", '"'])
    Vocabulary.write(tmp_path / "characters.txt", [*"0Xxlo#"])
    reader = data.Reader(
        Vocabulary(tmp_path / "words.txt"), Vocabulary(tmp_path / "characters.txt"), word_length=4
    )
    tokens = ["London", "#London", "#tag", "https://x.org/Z", "``", "zebra", "...", "Él7"]
    words, characters = reader(tf.ragged.constant([tokens, ["lo"]]))
    assert words.numpy().tolist() == [[2, 2, 4, 3, 5, 1, 1, 1], [1] + [0] * 7]
    x, small, zero, letter_l, letter_o, number_sign = 3, 4, 2, 5, 6, 7
    assert characters[0, 0].numpy().tolist() == [x, letter_o, small, small]
    assert characters[0, 1].numpy().tolist() == [number_sign, x, letter_o, small]
    assert characters[0, 7].numpy().tolist() == [x, letter_l, zero, 0]
    assert not characters[1, 1:].numpy().any()


def test_batches_contain_all_sentences_truncated_and_padded(tmp_path):
    rows = list(own_sentences(40, seed=2))
    corpus = Corpus("own", {"train": data.as_dataset(rows, TAGS)}, "", "", labels=TAGS)
    config = Config(max_length=8, word_length=5, batch_size=16)
    tokens = {token for row in rows for token in row.tokens}
    Vocabulary.write(tmp_path / "words.txt", sorted({token.lower() for token in tokens}))
    Vocabulary.write(tmp_path / "characters.txt", sorted(set("".join(tokens))))
    words, characters = (Vocabulary(tmp_path / f"{n}.txt") for n in ("words", "characters"))
    reader = data.Reader(words, characters, config.word_length)
    seen = []
    for batch in data.to_batches(corpus.splits["train"], reader, config, shuffle_seed=1):
        assert batch["words"].shape[1] in config.bucket_lengths()
        assert batch["characters"].shape == (*batch["words"].shape, 5)
        for row, count in enumerate(batch["length"].numpy()):
            forms = [words.words[n] for n in batch["words"][row, :count].numpy()]
            seen.append((forms, [TAGS[n] for n in batch["tags"][row, :count].numpy()]))
            assert not batch["words"][row, count:].numpy().any()
    expected = [([t.lower() for t in r.tokens[:8]], r.tags[:8]) for r in rows]
    assert sorted(seen) == sorted(expected)


def test_load_without_data_names_the_flags():
    with pytest.raises(InputError, match="pass --dataset NAME or --data PATH"):
        data.load(flags(), seed=1)
