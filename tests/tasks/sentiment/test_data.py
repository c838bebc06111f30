from common.commands.config import EvaluateConfig
from common.errors import InputError
from common.text import Vocabulary
from tasks.sentiment import data
from tasks.sentiment.config import Config
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
    path.write_bytes(b"\xef\xbb\xbftext,label\n" + b"x,1\ny,2\n" * 10)
    assert data.load(EvaluateConfig(data=path), seed=1).labels == ("1", "2")


def test_flags_without_data_are_refused():
    with pytest.raises(InputError, match="give --dataset or --data"):
        data.load(EvaluateConfig(), seed=1)


def test_batches_hold_truncated_and_padded_ids(tmp_path):
    Vocabulary.write(tmp_path / "words.txt", ["film", "good"])
    vocabulary = Vocabulary(tmp_path / "words.txt")
    reviews = data.as_dataset([("Good film.", 1), ("film " * 20, 0)])
    config = Config(max_length=8, batch_size=2)
    (batch,) = data.to_batches(reviews, vocabulary, config).as_numpy_iterator()
    assert batch["ids"].tolist() == [[3, 2, 1, 0, 0, 0, 0, 0], [2] * 8]
    assert batch["length"].tolist() == [3, 8] and batch["label"].tolist() == [1, 0]
    assert batch["ids"].dtype == np.int32 and batch["label"].dtype == np.int64
