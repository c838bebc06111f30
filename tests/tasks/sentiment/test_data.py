from common.commands.config import EvaluateConfig
from common.errors import InputError
from common.text import Vocabulary
from tasks.sentiment import data
from tasks.sentiment.config import Config
from tasks.sentiment.targets import make_targets
from tasks.sentiment.tokens import Reader
from tests.tasks.own.sentiment import write_csv

import numpy as np
import pytest


def test_own_labels_are_ordered_and_split_files_stay_so(tmp_path):
    for split, label in (("train", "10"), ("validation", "9"), ("test", "10")):
        write_csv(tmp_path / f"{split}.csv", [(f"{split} a", label), (f"{split} b", "9")])
    reviews = data.load(EvaluateConfig(data=tmp_path), seed=1)
    assert reviews.labels == ("9", "10")
    assert [row["text"] for row in reviews.splits["test"].as_numpy_iterator()] == [
        b"test a",
        b"test b",
    ]
    ordered = data.load(EvaluateConfig(data=tmp_path), labels=("10", "9"), seed=1)
    assert ordered.labels == ("10", "9")


def test_a_byte_order_mark_is_not_part_of_the_header(tmp_path):
    path = tmp_path / "my.csv"
    rows = [b"x%d,%d\n" % (n, n % 2 + 1) for n in range(20)]
    path.write_bytes(b"\xef\xbb\xbftext,label\n" + b"".join(rows))
    assert data.load(EvaluateConfig(data=path), seed=1).labels == ("1", "2")


def test_flags_without_data_are_refused():
    with pytest.raises(InputError, match="give --dataset or --data"):
        data.load(EvaluateConfig(), seed=1)


def test_batches_hold_truncated_and_padded_ids_with_targets_and_weights(tmp_path):
    Vocabulary.write(tmp_path / "words.txt", ["film", "good"])
    reader = Reader(Vocabulary(tmp_path / "words.txt"))
    reviews = data.as_dataset([("Good film.", 1), ("film " * 20, 0)])
    config = Config(max_length=8, batch_size=2, label_smoothing=0.0)
    targets = make_targets(config, 2, counts=[3, 1])
    (batch,) = data.to_batches(reviews, reader, config, targets).as_numpy_iterator()
    assert batch["ids"].tolist() == [[3, 2, 1, 0, 0, 0, 0, 0], [2] * 8]
    assert batch["length"].tolist() == [3, 8] and batch["label"].tolist() == [1, 0]
    assert batch["ids"].dtype == np.int32 and batch["label"].dtype == np.int64
    assert batch["target"].tolist() == [[0, 1], [1, 0]]
    np.testing.assert_allclose(batch["weight"], [2, 2 / 3], rtol=1e-6)


def test_a_file_is_split_by_class_and_a_folder_reports_repeated_texts(tmp_path, capsys):
    rows = [(f"text {n}", "yes" if n % 10 else "no") for n in range(100)]
    reviews = data.load(EvaluateConfig(data=write_csv(tmp_path / "my.csv", rows)), seed=1)
    labels = [int(row["label"]) for row in reviews.splits["test"].as_numpy_iterator()]
    assert sorted(labels) == [0] + [1] * 9
    folder = tmp_path / "folder"
    folder.mkdir()
    for split, text in (("train", "a"), ("dev", "B."), ("test", "A!")):
        write_csv(folder / f"{split}.csv", [(text, "yes"), (f"{split} text", "no")])
    data.load(EvaluateConfig(data=folder), seed=1)
    assert "1 of 2 texts of test are in train, too" in capsys.readouterr().err


def test_phrases_are_refused_where_there_are_none(tmp_path):
    path = write_csv(tmp_path / "my.csv", [("x", "1"), ("y", "2")] * 10)
    with pytest.raises(InputError, match="--phrases: your own files have no labelled phrases"):
        data.load(EvaluateConfig(data=path), phrases=True, seed=1)
