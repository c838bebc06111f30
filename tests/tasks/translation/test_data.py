"""Loading of sentence pairs, and their batches."""

import itertools

from common.commands.config import EvaluateConfig
from common.datasets import SPLITS
from common.errors import InputError
from tasks.translation import data
from tasks.translation.splits import normalise
from tasks.translation.subwords import END, START
from tests.tasks.own.translation import own_pairs, write_tsv
from tests.tasks.translation.corpora import FRENCH, pairs_of

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


def test_long_pairs_are_dropped(pieces):
    pairs = [("Le chat " * 40, "The cat."), *own_pairs()[:12]]
    assert encoded(pieces, pairs).source.nrows() == 12


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


def test_no_source_of_data_is_an_error():
    with pytest.raises(InputError, match="no data: pass --dataset NAME or --data PATH"):
        data.load(EvaluateConfig(), languages=FRENCH, seed=1)
