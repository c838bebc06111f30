"""Data sets, ids and batches."""

from common.commands.config import EvaluateConfig
from common.datasets import SPLITS, Corpus
from common.errors import InputError
from common.text import Vocabulary
from tasks.ner import data
from tasks.ner.config import Config
from tasks.ner.formats import Sentence, tag_names
from tests.tasks.own.ner import own_sentences

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
    with pytest.raises(InputError, match="nero cannot be mixed; known: everyday_entities"):
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
