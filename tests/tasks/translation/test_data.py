"""Loading of sentence pairs, and their batches."""

import itertools

from common import tables
from common.commands.config import EvaluateConfig
from common.datasets import SPLITS
from common.errors import InputError
from tasks.translation import data
from tasks.translation.splits import normalise
from tasks.translation.subwords import END, START
from tests.tasks.own.translation import own_pairs, write_tsv
from tests.tasks.translation.corpora import FRENCH, pairs_of

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds


def encoded(pieces, pairs, **kwargs):
    return data.encode(data.as_dataset(pairs), pieces, pieces, max_length=24, **kwargs)


def test_batches_hold_every_pair_once_with_start_and_end(pieces):
    pairs = own_pairs()[:50]
    batches = list(data.to_batches(encoded(pieces, pairs), batch_size=8, shuffle_seed=1))
    decoded = []
    for batch in batches:
        assert len(batch["ids"]) <= 8
        for k, (length, steps) in enumerate(
            zip(batch["length"], batch["target_length"], strict=True)
        ):
            ids, target, labels = (
                batch[name][k].numpy().tolist() for name in ("ids", "target_ids", "labels")
            )
            assert ids[length - 1] == END and target[0] == START and labels[steps - 1] == END
            assert target[1:steps] == labels[: steps - 1]
            assert not any(ids[length:]) and not any(labels[steps:]) and not any(target[steps:])
            sides = pieces.decode(
                tf.ragged.constant([ids, labels]).to_tensor(), tf.stack([length - 1, steps - 1])
            )
            decoded.append(tuple(text.decode() for text in sides.numpy()))
    assert sorted(decoded) == sorted(pairs)
    again = list(data.to_batches(encoded(pieces, pairs), batch_size=8, shuffle_seed=1))
    other = list(data.to_batches(encoded(pieces, pairs), batch_size=8, shuffle_seed=2))
    same = [
        [
            bool(tf.reduce_all(a["ids"] == b["ids"])) if a["ids"].shape == b["ids"].shape else False
            for a, b in zip(batches, x, strict=True)
        ]
        for x in (again, other)
    ]
    assert all(same[0]) and not all(same[1])


def test_pairs_on_which_a_mixture_is_scored_are_dropped_from_its_earlier_splits(capsys):
    one = {
        "train": [("Il dort.", "He sleeps."), ("Viens ici !", "Come here."), ("?", "Yes.")],
        "validation": [("Merci.", "Thank you."), ("Assez.", "Enough.")],
        "test": [("Bien.", "Fine.")],
    }
    two = {
        "train": [("Ça suffit.", "enough!"), ("Eh bien.", "Well."), ("Chut.", "Hush.")],
        "validation": [("viens, ici", "Here!")],
        "test": [("MERCI", "Thanks."), ("!", "?")],
    }
    separated = data.separate({"one": one, "two": two})
    assert separated == {
        "one": {
            **one,
            "train": [one["train"][0], one["train"][2]],
            "validation": [("Assez.", "Enough.")],
        },
        "two": {**two, "train": two["train"][1:]},
    }
    said = capsys.readouterr().err
    assert "one: dropped 1 train pairs" in said and "one: dropped 1 validation pairs" in said
    assert "two: dropped 1 train pairs" in said and "two: dropped 1 validation" not in said
    assert len(one["train"]) == 3  # the arguments are not changed


def test_long_pairs_are_dropped(pieces):
    pairs = [("Le chat " * 40, "The cat."), *own_pairs()[:12]]
    assert len(encoded(pieces, pairs)) == 12


@pytest.mark.parametrize(
    ("name", "languages"),
    [("ted_hrlr_translate/pt_to_en", ("pt", "en")), ("opus/medical", ("de", "en"))],
)
def test_sets_of_the_catalogue_are_loaded(name, languages, tmp_path, monkeypatch):
    monkeypatch.setattr("requests.head", lambda *_, **__: None)
    with tfds.testing.mock_data(num_examples=30):
        corpus = data.load(
            EvaluateConfig(dataset=name, data_dir=tmp_path), languages=languages, seed=1
        )
        for split in SPLITS:
            assert all(source and target for source, target in pairs_of(corpus, split))


def test_own_files_are_tsv_parallel_files_or_folders(tmp_path):
    pairs = own_pairs()[:20]
    write_tsv(tmp_path / "all.tsv", pairs)
    (tmp_path / "all.fr").write_bytes("".join(f"{s}\r\n" for s, _ in pairs).encode("utf-8-sig"))
    (tmp_path / "all.en").write_text("".join(f"{t}\n" for _, t in pairs))
    for name in ("all.tsv", "all.fr", "all.en"):
        corpus = data.load(EvaluateConfig(data=tmp_path / name), languages=FRENCH, seed=1)
        parts = [pairs_of(corpus, split) for split in SPLITS]
        assert [len(rows) for rows in parts] == [16, 2, 2]
        assert sorted(itertools.chain(*parts)) == sorted(pairs)
    folder = tmp_path / "parts"
    folder.mkdir()
    for split, rows in (("train", pairs[:9]), ("val", pairs[9:15]), ("test", pairs[15:])):
        (folder / f"{split}.fr").write_text("".join(f"{s}\n" for s, _ in rows))
        (folder / f"{split}.en").write_text("".join(f"{t}\n" for _, t in rows))
    corpus = data.load(EvaluateConfig(data=folder), languages=FRENCH, seed=1)
    assert pairs_of(corpus, "validation") == pairs[9:15]


def test_a_single_file_is_split_without_common_sentences(tmp_path):
    pairs = [(f"Phrase {k // 3}.", f"Sentence {k}!") for k in range(60)]
    corpus = data.load(
        EvaluateConfig(data=write_tsv(tmp_path / "my.tsv", pairs)), languages=FRENCH, seed=1
    )
    split_of = {}
    for split in SPLITS:
        for source, _ in pairs_of(corpus, split):
            assert split_of.setdefault(normalise(source), split) == split
    assert [corpus.size(split) for split in SPLITS] == [48, 6, 6]


def test_skipped_and_dropped_pairs_are_counted(tmp_path, capsys):
    pairs = [(f"Phrase numéro {k}.", f"Sentence number {k}.") for k in range(40)]
    pairs += [pairs[0]] * 30 + [("Non.", "No, " * 40)]
    path = write_tsv(tmp_path / "my.tsv", pairs)
    path.write_text(path.read_text() + "Rien.\t\n")
    for name in ("train", "validation", "test"):
        write_tsv(tmp_path / f"{name}.tsv", pairs)
    corpus = data.load(EvaluateConfig(data=tmp_path), languages=FRENCH, seed=1)
    assert corpus.size("train") == 40 and corpus.size("test") == 71
    assert capsys.readouterr().err.splitlines() == [
        "dropped 30 of 71 training pairs that stand there before",
        "dropped 1 of 71 training pairs of which one side is 9 times as long as the other",
    ]
    data.load(EvaluateConfig(data=path), languages=FRENCH, seed=1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("skipped 1 of 72 pairs cannot be used (line 72: no target)")


@pytest.fixture
def large(monkeypatch):
    """Let every file count as a large one."""
    monkeypatch.setattr(tables, "LARGE", 0)


@pytest.mark.parametrize("name", ["my.tsv", "my.fr", "."])
def test_a_large_file_has_the_examples_of_one_in_memory(name, tmp_path, monkeypatch, capsys):
    pairs = [*own_pairs()[:60], *own_pairs()[:9], ("é" * 90, "Short."), ("Oui", "a\tquoted\ntext")]
    rows = "".join(f'{source}\t"{target}"\n' for source, target in pairs) + "Rien.\t\n"
    for file in ("my.tsv", "train.tsv", "dev.tsv", "test.tsv"):
        (tmp_path / file).write_text(rows, encoding="utf-8")
    for side, ending in enumerate(FRENCH):
        lines = [pair[side].split("\n")[0] + "\n" for pair in pairs]
        (tmp_path / f"my.{ending}").write_text("".join(lines), encoding="utf-8")
    source = EvaluateConfig(data=tmp_path / name, data_dir=tmp_path / "prepared")
    in_memory = data.load(source, languages=FRENCH, seed=3)
    expected = capsys.readouterr().err
    assert "dropped" in expected and ("skipped 1 of 72" in expected) == (name != "my.fr")
    monkeypatch.setattr(tables, "LARGE", 0)
    stored = data.load(source, languages=FRENCH, seed=3)
    said = capsys.readouterr().err
    assert [line for line in said.splitlines() if "once" not in line] == expected.splitlines()
    for split in SPLITS:
        assert pairs_of(stored, split) == pairs_of(in_memory, split)
        assert stored.size(split) == in_memory.size(split) == len(stored.stored[split])
    again = data.load(source, languages=FRENCH, seed=3)
    assert capsys.readouterr().err == expected
    assert again.fingerprint() == stored.fingerprint()
    assert data.load(source, languages=FRENCH, seed=4).fingerprint() != stored.fingerprint()


def test_a_changed_translation_is_other_data(tmp_path, large):
    (tmp_path / "my.fr").write_text("".join(f"Phrase {n}.\n" for n in range(20)))
    english = "".join(f"Sentence {n}.\n" for n in range(20))
    (tmp_path / "my.en").write_text(english)
    source = EvaluateConfig(data=tmp_path / "my.fr", data_dir=tmp_path / "prepared")
    first = data.load(source, languages=FRENCH, seed=1).fingerprint()
    (tmp_path / "my.en").write_text(english.replace("7.", "8."))
    assert data.load(source, languages=FRENCH, seed=1).fingerprint() != first


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("my.tsv", "Oui.\tYes.\nNon.\n", r"my\.tsv, line 2: expected a source, a tab"),
        ("my.tsv", "Oui.\t\n", "no sentence pairs in this file"),
        ("my.tmx", "<tmx><body><tu>", "malformed"),
        ("my.fr", "Oui.\nNon.\n", "2 lines, but .* has 1"),
    ],
)
def test_a_bad_large_file_is_refused_and_leaves_nothing(name, content, message, tmp_path, large):
    (tmp_path / name).write_text(content)
    (tmp_path / "my.en").write_text("Yes.\n")
    source = EvaluateConfig(data=tmp_path / name, data_dir=tmp_path / "prepared")
    with pytest.raises(InputError, match=message):
        data.load(source, languages=FRENCH, seed=1)
    left = list((source.data_dir / "own_translation").iterdir())
    assert not [path for path in left if path.is_dir()]


def first_half(count):
    return slice(0, count // 2)


def second_half(count):
    return slice(count // 2, count)


@pytest.mark.parametrize(("place", "dropout"), [("disk", 0.0), ("scratch", 0.2)])
def test_ids_on_disk_give_the_batches_of_ids_in_memory(place, dropout, pieces, tmp_path):
    def store(write):
        if place == "disk":
            return tables.on_disk(tmp_path, ["ids"], write, "encoding")
        return tables.on_scratch(tmp_path, write)

    def batches(rows, **kwargs):
        made = data.to_batches(rows, batch_size=8, shuffle_seed=1, **kwargs)
        return list(made.as_numpy_iterator())

    options = {"subword_dropout": dropout, "seed": 3}
    expected = batches(encoded(pieces, own_pairs()[:50], **options))
    stored = encoded(pieces, own_pairs()[:50], store=store, **options)
    parts = (batches(stored), batches(stored, own=first_half), batches(stored, own=second_half))
    for row, whole, left, right in zip(expected, *parts, strict=True):
        for name in row:
            np.testing.assert_array_equal(whole[name], row[name])
            if row[name].ndim == 1:  # lengths are known without reading
                np.testing.assert_array_equal(left[name], row[name])
                continue
            np.testing.assert_array_equal(left[name] + right[name], row[name])
            assert not left[name][len(row[name]) // 2 :].any()


def test_subwords_and_copies_are_learned_from_a_sample(tmp_path, monkeypatch):
    pairs = [(f"Phrase {k}.", f"Sentence {k}.") for k in range(60)]
    corpus = data.load(
        EvaluateConfig(data=write_tsv(tmp_path / "my.tsv", pairs)), languages=FRENCH, seed=1
    )
    assert int(data.sample(corpus).cardinality()) == 48
    monkeypatch.setattr(data, "SAMPLED", 10)
    sample = {row["source"].decode() for row in data.sample(corpus).as_numpy_iterator()}
    assert len(sample) == 10 and sample <= {source for source, _ in pairs_of(corpus, "train")}


def test_no_source_of_data_is_an_error():
    with pytest.raises(InputError, match="no data: pass --dataset NAME or --data PATH"):
        data.load(EvaluateConfig(), languages=FRENCH, seed=1)
