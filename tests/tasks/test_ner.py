"""The named-entity task as its users meet it: data, commands, answers, messages."""

import json
import re
import subprocess
import sys

from common.commands import cli
from common.commands.config import EvaluateConfig
from common.crf import Constraints, Scores, viterbi
from common.datasets import Corpus, fetch_package
from common.errors import InputError
from common.serving.served import load_export
from common.text import Vocabulary, rewrite, tokenize
from common.word_embedding import WordEmbedding
from tasks.ner import data, evaluate, model, predict, serving, train
from tasks.ner.config import PRESETS, Config
from tasks.ner.data import Sentence
from tests.tasks import commands
from tests.tasks.own.ner import TINY, own_sentences, write_conll

import keras
import numpy as np
import pytest
import seqeval.metrics
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

ACCEPTANCE = "Yesterday, Harry Potter met Hermione Granger."


def command(name, *words, **kwargs):
    return commands.run(f"ner.{name}", *words, **kwargs)


# --- the commands ---------------------------------------------------------------------------------


def test_train_learns_exports_and_prints_one_json_line(trained):
    folder, done = trained
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result)[:6] == ["task", "dataset", "split", "examples", "seconds", "model"]
    assert result["dataset"] == "my.conll" and result["split"] == "test"
    assert result["examples"] == 40
    assert min(result[name] for name in ("precision", "recall", "f1")) >= 0.95
    version = folder / result["model"]
    assert version == folder / "saved_models" / "ner" / "1"
    commands.check_version(version, f"{result['f1']:.4f}", "| units | 8 |")


def test_evaluate_scores_the_export_as_train_did(trained, command_environment):
    folder, done = trained
    said = json.loads(done.stdout.splitlines()[-1])
    again = command("evaluate", folder=folder, environment=command_environment)
    assert again.returncode == 0, again.stderr
    scored = json.loads(again.stdout.splitlines()[-1])
    for name in ("task", "dataset", "split", "examples", "precision", "recall", "f1"):
        assert scored[name] == said[name]
    assert "| PER |" in again.stdout and "| true \\ predicted | O | LOC | PER |" in again.stdout


def test_evaluate_scores_a_file_of_the_users_on_the_types_it_has(trained, capsys, served):
    folder, _ = trained
    rows = list(own_sentences(30, seed=9))
    people = [
        Sentence(row.tokens, [tag if tag.endswith("PER") else "O" for tag in row.tags])
        for row in rows
    ]
    path = write_conll(folder / "people.conll", people)
    picture = folder / "confusion.png"
    evaluate.main(["--model", str(served.path), "--data", str(path), "--plot", str(picture)])
    said = capsys.readouterr()
    result = json.loads(said.out.splitlines()[-1])
    assert result["f1"] >= 0.95 and result["split"] == "all" and result["examples"] == 30
    assert "scored on the types of people.conll: PER" in said.err
    assert picture.stat().st_size > 5000


def test_evaluate_refuses_types_that_the_model_does_not_know(trained, served):
    rows = [Sentence(["Acme", "paid"], ["B-ORG", "O"])]
    path = write_conll(trained[0] / "firms.conll", rows)
    message = "firms.conll has names of type ORG, the model knows only LOC, PER"
    with pytest.raises(InputError, match=message):
        evaluate.main(["--model", str(served.path), "--data", str(path)])
    evaluate.check_types(("LOC", "MISC", "ORG", "PER"), ("LOC", "ORG", "PER"), "btc")


def test_predict_answers_words_files_and_standard_input_in_order(trained, command_environment):
    folder, _ = trained
    rows = [" ".join(row.tokens) for row in own_sentences(90, seed=5)]
    (folder / "lines.txt").write_text("\n".join([*rows, "", "Omar Okafor sleeps"]) + "\n")
    done = command(
        *("predict", "Ada Byron lives in Rome.", "-", "--file", "lines.txt"),
        *("--output", "out.jsonl", "--batch_size", 16),
        folder=folder,
        environment=command_environment,
        input="did Lena Novak call?\n",
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    texts = ["Ada Byron lives in Rome.", "did Lena Novak call?", *rows, "", "Omar Okafor sleeps"]
    assert [row["text"] for row in said] == texts
    assert said[0]["entities"] == [
        {"type": "PER", "text": "Ada Byron", "start": 0, "end": 9},
        {"type": "LOC", "text": "Rome", "start": 19, "end": 23},
    ]
    assert said[-2] == {
        **{"text": "", "entities": [], "tokens": [], "tags": [], "start": [], "end": []},
        "message": "no word in this text",
    }
    for row in said:
        for token, start, end in zip(row["tokens"], row["start"], row["end"], strict=True):
            assert row["text"][start:end] == token


def test_predict_prints_brackets_in_a_pipe_colours_on_a_terminal_and_draws(
    served, capsys, tmp_path, monkeypatch
):
    picture = tmp_path / "seen.png"
    words = ["--model", str(served.path), "Mary Shelley met Omar Novak, Ada Byron and me.", " "]
    predict.main([*words, "--plot", str(picture)])
    first, second = capsys.readouterr().out.splitlines()
    assert first == "[PER Mary Shelley] met [PER Omar Novak], [PER Ada Byron] and me."
    assert "no word in this text" in second
    assert picture.stat().st_size > 5000
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    predict.main(words)
    coloured = capsys.readouterr().out.splitlines()[0]
    assert "\x1b[1;36mMary Shelley\x1b[0;36m PER\x1b[0m met" in coloured and "[PER" not in coloured


def test_long_texts_are_cut_behind_sentences_and_answered_whole(served):
    limit = served.settings["max_tokens"]
    assert limit == 24
    sentence = "Ada Byron lives in Rome. "
    long = sentence * 40
    (_, tagged), (_, other) = predict.answers(served, [long, "we like Cairo!"], batch_size=8)
    assert tagged.tokens == ["Ada", "Byron", "lives", "in", "Rome", "."] * 40
    spans = [(name.type, long[name.start : name.end]) for name in tagged.names()]
    assert spans == [("PER", "Ada Byron"), ("LOC", "Rome")] * 40
    assert other.tokens == ["we", "like", "Cairo", "!"]
    # The graph itself answers the first tokens and no more.
    answer = served.call("serving_default", text=[long])
    assert answer["length"].tolist() == [limit] and answer["tokens"].shape == (1, limit)


@pytest.mark.parametrize("text", ["x" * 3000, "a " * 500, " " * 900 + "Rome", "(" * 400, "\n" * 9])
def test_texts_without_a_place_to_cut_are_answered_too(served, text):
    ((_, tagged),) = predict.answers(served, [text], batch_size=8)
    joined = "".join(text[a:b] for a, b in zip(tagged.start, tagged.end, strict=True))
    assert joined == re.sub(r"\s", "", text)


def test_a_piece_is_cut_behind_a_sentence_or_outside_a_name():
    def tagged(tokens, tags):
        return predict.Tagged(tokens.split(), tags.split(), [0] * 9, [1] * 9)

    assert predict._cut(tagged("a b c d . e", "O O O O O O")) == 5
    assert predict._cut(tagged("a b c d e F", "O O O O O B-X")) == 4
    assert predict._cut(tagged("A B C D E F", "B-X I-X I-X I-X I-X I-X")) == 6
    assert predict._cut(tagged(". A B C D F", "O B-X I-X I-X I-X I-X")) == 6


def test_predict_and_evaluate_build_no_keras_model(trained):
    commands.check_no_keras_model("ner", "Ada sleeps", folder=trained[0])


@pytest.mark.slow  # sentiment is tested likewise
def test_fine_tuning_keeps_the_vocabulary_and_replaces_the_head(
    trained, command_environment, served
):
    folder, _ = trained
    rows = [
        Sentence(row.tokens, [tag.replace("PER", "HERO") for tag in row.tags])
        for row in own_sentences(200, seed=3)
    ]
    write_conll(folder / "heroes.conll", rows)
    done = command(
        *("train", "--data", "heroes.conll", "--init", "saved_models/ner/1", "--epochs", 4),
        *("--output", "tuned", *TINY),
        folder=folder,
        environment=command_environment,
    )
    assert done.returncode == 0, done.stderr
    tuned = load_export(folder / "tuned" / "ner")
    assert tuned.settings["labels"] == ["O", "B-HERO", "I-HERO", "B-LOC", "I-LOC"]
    for name in (train.WORDS, train.CHARACTERS):
        one, other = (s.path / "assets" / name for s in (tuned, served))
        assert one.read_bytes() == other.read_bytes()
    assert tuned.settings["config"]["members"] == 2
    assert json.loads(done.stdout.splitlines()[-1])["f1"] >= 0.9


@pytest.mark.parametrize("module", [train, evaluate, predict])
def test_help_has_examples_and_defaults(module, capsys):
    commands.check_help(module, capsys)


# Goes on with what a killed run left, trains another from its start, and compares all weights.
RESUMED_AND_WHOLE = """
import dataclasses, pathlib, sys
from tasks.ner import config, data, train
import numpy as np
config = cli.parse_train(
    config.Config, config.PRESETS, default=config.DEFAULT, argv=sys.argv[1:], doc=""
)
corpus = data.load(config, seed=config.seed)
strategy = make_strategy(config.strategy)
weights = []
for folder, resume in (("saved_models/ner/run", True), ("whole", False)):
    set_up(seed=config.seed, deterministic=True, precision="float32")
    pathlib.Path(folder).mkdir(exist_ok=True)
    built, _, fitted = train.train_model(
        corpus, dataclasses.replace(config, resume=resume), pathlib.Path(folder), strategy
    )
    assert len(fitted.history) == 4
    weights.append(built.get_weights())
for a, b in zip(*weights, strict=True):
    np.testing.assert_array_equal(a, b)
print("equal")
"""


def test_training_killed_in_an_epoch_resumes_to_the_same_weights(tmp_path, command_environment):
    write_conll(tmp_path / "my.conll", own_sentences(900, seed=1))
    words = ["--data", "my.conll", "--epochs", "4", "--patience", "9", *TINY, "--deterministic"]
    # With all that is random, the exchange of names included.
    words += ["--score", "none", "--batch_size", "8", "--exchange", "0.5", "--dropout", "0.2"]
    words += ["--word_dropout", "0.1", "--average", "0.9"]
    commands.train_and_kill("ner", *words, folder=tmp_path, environment=command_environment)
    done = subprocess.run(
        [sys.executable, "-c", RESUMED_AND_WHOLE, *words],
        **{"cwd": tmp_path, "env": command_environment, "capture_output": True},
        **{"text": True, "check": False},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "equal"


# --- answers --------------------------------------------------------------------------------------


def test_the_signatures_are_those_of_the_golden_file(served, pytestconfig):
    commands.check_signatures(served, pytestconfig.rootpath / "tests/golden/ner.json")


def test_batch_mates_order_and_length_change_nothing(served):
    texts = [" ".join(row.tokens) for row in own_sentences(11, seed=4)] + ["", "in Rome " * 60]
    together = served.call("explain", text=texts)
    for row, text in enumerate(texts):
        alone = served.call("explain", text=[text])
        count = alone["length"][0]
        assert count == together["length"][row]
        for name in ("tokens", "tags", "start", "end"):
            assert alone[name][0].tolist() == together[name][row, :count].tolist()
            assert not any(together[name][row, count:])
        np.testing.assert_allclose(
            alone["probabilities"][0], together["probabilities"][row, :count], atol=1e-6
        )
        assert not together["probabilities"][row, count:].any()


def test_junk_in_the_padding_changes_nothing(served):
    random = np.random.default_rng(0)
    words = random.integers(0, 30, (4, 9)).astype(np.int32)
    characters = random.integers(0, 30, (4, 9, 20)).astype(np.int32)
    length = np.array([9, 4, 1, 6], np.int32)
    plain = served.call("tensors", words=words, characters=characters, length=length)
    junk = random.integers(-9, 10**6, (4, 14)).astype(np.int32)
    spelled = random.integers(-9, 10**6, (4, 14, 20)).astype(np.int32)
    for row, count in enumerate(length):
        junk[row, :count] = words[row, :count]
        spelled[row, :count] = characters[row, :count]
    found = served.call("tensors", words=junk, characters=spelled, length=length)
    np.testing.assert_array_equal(found["tags"][:, :9], plain["tags"])
    np.testing.assert_allclose(found["probabilities"][:, :9], plain["probabilities"], atol=1e-6)
    assert not found["tags"][:, 9:].any() and not found["probabilities"][:, 9:].any()


def test_text_tokens_and_tensors_give_the_same_tags(served):
    rows = list(own_sentences(6, seed=8))
    labels = served.settings["labels"]
    folder = served.path / "assets"
    reader = data.Reader(
        Vocabulary(folder / train.WORDS), Vocabulary(folder / train.CHARACTERS), word_length=20
    )
    words, characters = reader(tf.ragged.constant([row.tokens for row in rows]))
    length = [len(row.tokens) for row in rows]
    by_number = served.call("tensors", words=words, characters=characters, length=length)
    by_text = served.call("explain", text=[" ".join(row.tokens) for row in rows])
    by_token = evaluate.tag(served, [row.tokens for row in rows], batch_size=4)
    np.testing.assert_allclose(by_number["probabilities"], by_text["probabilities"], atol=1e-6)
    for row, count in enumerate(length):
        tags = [labels[tag] for tag in by_number["tags"][row, :count]]
        assert tags == by_token[row]
        assert tags == [tag.decode() for tag in by_text["tags"][row, :count]]
        np.testing.assert_allclose(
            by_number["probabilities"][row, :count].sum(axis=1), 1.0, atol=1e-5
        )


def test_bad_rows_get_the_empty_answer_and_spoil_no_neighbour(served):
    texts = [b"Ada Byron sleeps", b"", b"   \t\n", b"Rome \xff\xfe", b"\x00\x01", b"Rome " * 20_000]
    answer = served.call("explain", text=np.array(texts, object))
    assert answer["length"].tolist() == [3, 0, 0, 3, 0, 24]
    assert answer["tags"][0, :3].tolist() == [b"B-PER", b"I-PER", b"O"]
    for row in (1, 2, 4):
        for name in ("tokens", "tags"):
            assert set(answer[name][row].tolist()) == {b""}
        assert not answer["start"][row].any() and not answer["probabilities"][row].any()
    assert answer["tokens"][3, :3].tolist() == [b"Rome", "\ufffd".encode(), "\ufffd".encode()]
    assert answer["end"][3, :3].tolist() == [4, 6, 7]
    assert np.isfinite(answer["probabilities"]).all()
    nothing = served.call("serving_default", text=np.array([b"", b" "], object))
    assert nothing["length"].tolist() == [0, 0] and nothing["tags"].shape == (2, 0)


def test_lengths_that_cannot_be_get_the_empty_answer(served):
    words, characters = np.full((5, 3), 2, np.int32), np.full((5, 3, 20), 2, np.int32)
    length = [3, 0, -1, 4, 1]
    found = served.call("tensors", words=words, characters=characters, length=length)
    sums = found["probabilities"].sum(axis=2)
    expected = [[1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]]
    np.testing.assert_allclose(sums, expected, atol=1e-5)
    tokens = np.full((5, 3), "Rome", object)
    tags = served.call("tokens", tokens=tokens, length=length)["tags"]
    assert [[bool(tag) for tag in row] for row in tags] == [[bool(n) for n in r] for r in expected]
    none = served.call(
        "tensors",
        words=np.zeros((2, 0), np.int32),
        characters=np.zeros((2, 0, 20), np.int32),
        length=[0, 0],
    )
    assert none["tags"].shape == (2, 0)
    odd = np.array([["", "\x00a", "x" * 500]], object)
    assert served.call("tokens", tokens=odd, length=[3])["tags"].shape == (1, 3)


@pytest.mark.parametrize("size", [0, 1, 129])
def test_any_batch_size_is_answered(served, size):
    for name in ("serving_default", "explain"):
        answer = served.call(name, text=np.array(["Ada Byron sleeps"] * size, object))
        assert all(len(value) == size for value in answer.values())


def test_the_keras_file_loads_in_a_notebook_and_agrees(served):
    live = keras.models.load_model(served.path / "model.keras")
    random = np.random.default_rng(1)
    inputs = {
        "words": random.integers(1, 30, (2, 5)).astype(np.int32),
        "characters": random.integers(0, 20, (2, 5, 20)).astype(np.int32),
        "length": np.array([5, 2], np.int32),
    }
    found, asked = live(inputs), served.call("tensors", **inputs)
    np.testing.assert_array_equal(found["tags"], asked["tags"])
    np.testing.assert_allclose(found["probabilities"], asked["probabilities"], atol=1e-6)


# --- model, metrics -------------------------------------------------------------------------------

TAGS = data.tag_names(["PER", "LOC"])


def small_model(seed=0, **changes):
    keras.utils.set_random_seed(seed)
    config = Config(**{"units": 5, "members": 2, "word_length": 6, **changes})
    embedding = WordEmbedding(9, 9, 4, members=config.members)
    shape = model.WordShape(12, name="shape")
    built = model.build(config, embedding, shape, tags=TAGS)
    embedding.fixed.assign(np.random.default_rng(seed).normal(size=(9, 4)))
    shape.fill(["", "", *"abcABC01.-"])
    return built


def random_inputs(batch, time, seed=0):
    random = np.random.default_rng(seed)
    return {
        "words": random.integers(2, 9, (batch, time)).astype(np.int32),
        "characters": random.integers(0, 12, (batch, time, 6)).astype(np.int32),
        "length": random.integers(1, time + 1, batch).astype(np.int32),
    }


@pytest.mark.parametrize("cell", ["lstm", "gru", "simple_rnn"])
def test_more_padding_changes_no_model(cell):
    built = small_model(cell=cell, layers=2)
    inputs = random_inputs(3, 5)
    padded = {
        "words": np.pad(inputs["words"], [(0, 0), (0, 4)], constant_values=7),
        "characters": np.pad(inputs["characters"], [(0, 0), (0, 4), (0, 0)], constant_values=3),
        "length": inputs["length"],
    }
    plain, more = built(inputs), built(padded)
    np.testing.assert_array_equal(more["tags"][:, :5], plain["tags"])
    np.testing.assert_allclose(more["probabilities"][:, :5], plain["probabilities"], atol=1e-6)
    assert not np.any(more["tags"][:, 5:]) and not np.any(more["probabilities"][:, 5:])


@pytest.mark.parametrize("outside_weight", [1.0, 0.01, 1e-6])
def test_no_answer_breaks_iob2(outside_weight):
    built = small_model(outside_weight=outside_weight)
    head = [layer for layer in built.layers if layer.name in ("head_0", "head_1")]
    random = np.random.default_rng(0)
    for layer in head:  # emissions that would love to break it
        layer.set_weights([5 * random.normal(size=w.shape) for w in layer.get_weights()])
    inputs = random_inputs(200, 9, seed=1)
    found = built(inputs)["tags"].numpy()
    names = 0
    for row, length in zip(found, inputs["length"], strict=True):
        tags = [TAGS[tag] for tag in row[:length]]
        assert data.to_iob2(tags) == tags
        names += len(data.entities(tags))
    assert names > 50


def test_transitions_are_those_of_iob2():
    allowed, start = model.iob2_transitions(TAGS)
    for a, before in enumerate(TAGS):
        for b, tag in enumerate(TAGS):
            legal = not tag.startswith("I-") or before[2:] == tag[2:]
            assert allowed[a, b] == legal
    assert start.tolist() == [True, True, False, True, False]


def test_members_answer_by_their_mean_and_learn_by_their_sum():
    built = small_model()
    inputs = random_inputs(4, 6)
    outputs = built(inputs)
    committee = built.get_layer("head_committee")
    found = [
        crf.marginals(outputs["emissions"][:, n], inputs["length"])
        for n, crf in enumerate(committee.crfs)
    ]
    np.testing.assert_allclose(outputs["probabilities"], np.mean(found, axis=0), atol=1e-6)
    batch = {**inputs, "tags": np.zeros((4, 6), np.int32)}
    values, weights = model.make_losses(built)(outputs, batch)
    each = [
        crf.log_likelihood(outputs["emissions"][:, n], batch["tags"], inputs["length"])
        for n, crf in enumerate(committee.crfs)
    ]
    np.testing.assert_allclose(values, -np.sum(each, axis=0), rtol=1e-5)
    assert weights.numpy().tolist() == [1.0] * 4
    allowed, start = model.iob2_transitions(TAGS)
    zero = Scores(np.zeros((5, 5)), np.zeros(5), np.zeros(5))
    best, _ = viterbi(
        np.log(np.maximum(outputs["probabilities"], 1e-9)),
        inputs["length"],
        zero,
        Constraints(allowed, start),
    )
    np.testing.assert_array_equal(outputs["tags"], best)


def test_shapes_are_the_stated_ones():
    characters = ["", "", *"abAB01.-"]
    layer = model.WordShape(10)
    layer.build((None, None, 4))
    layer.fill(characters)
    words = ["Ab", "AB", "ab", "aB", "a1", "10", "a-b", "--", "A", ""]
    ids = [[characters.index(c) for c in word] + [0] * (4 - len(word)) for word in words]
    found = layer(np.array([ids], np.int32))[0].numpy().astype(int).tolist()
    assert found == [
        [1, 0, 0, 0, 0, 0, 0, 0, 0],  # Ab: begins with a capital
        [1, 1, 0, 1, 0, 0, 0, 0, 0],  # AB: all capitals
        [0, 0, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 1],
        [0] * 9,
    ]


def test_the_character_convolution_equals_numpy():
    layer = model.CharacterCNN(8, 3, 4)
    ids = np.array([[[2, 5, 7, 0, 0], [0, 0, 0, 0, 0], [99, 3, 4, 6, 2]]], np.int32)
    found = layer(ids).numpy()
    vectors, kernel, bias = layer.get_weights()
    for word, numbers in enumerate([[2, 5, 7], [], [1, 3, 4, 6, 2]]):
        rows = np.stack([np.zeros(3), *vectors[numbers], np.zeros(3)])
        values = [
            np.maximum(np.concatenate(rows[i : i + 3]) @ kernel + bias, 0)
            for i in range(len(numbers))
        ]
        expected = np.max(values, axis=0) if values else np.zeros(4)
        np.testing.assert_allclose(found[0, word], expected, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(TAGS), min_size=1, max_size=7), min_size=1, max_size=5))
def test_scores_agree_with_counts_of_exact_spans(rows):
    truth = [data.to_iob2(row) for row in rows]
    predicted = [data.to_iob2(row[::-1]) for row in rows]
    wanted = {(n, *e) for n, row in enumerate(truth) for e in data.entities(row)}
    found = {(n, *e) for n, row in enumerate(predicted) for e in data.entities(row)}
    result = evaluate.metrics(truth, predicted)
    right = len(wanted & found)
    precision, recall = right / max(1, len(found)), right / max(1, len(wanted))
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    assert list(result.values()) == pytest.approx([precision, recall, f1])
    if wanted and found:
        # On legal IOB2, seqeval's other mode, that of the conlleval script, must say the same.
        assert result["f1"] == pytest.approx(seqeval.metrics.f1_score(truth, predicted))


def test_scores_per_type_and_confusion_are_counted_by_hand():
    truth = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC"]]
    predicted = [["B-PER", "I-PER", "O", "B-PER"], ["O", "B-LOC"]]
    rows = evaluate.by_type(truth, predicted)
    assert (rows["PER"]["precision"], rows["PER"]["recall"], rows["PER"]["support"]) == (0.5, 1, 1)
    assert (rows["LOC"]["precision"], rows["LOC"]["recall"], rows["LOC"]["support"]) == (1, 0.5, 2)
    scored = evaluate.Scored(truth, predicted, {}, 0.0)
    types, a, b = scored.confusion()
    assert types == ["O", "LOC", "PER"]
    assert a == [2, 2, 0, 1, 0, 1] and b == [2, 2, 0, 2, 0, 1]


def test_every_preset_is_sound_and_trains_the_set_it_names():
    for name, preset in PRESETS.items():
        assert preset.dataset == name
        assert preset.bucket_lengths()[-1] == preset.max_length


# --- data -----------------------------------------------------------------------------------------


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
    ],
)
def test_published_splits(shared_data, tmp_path, name, sizes, types, names):
    manual = shared_data / "ner" / name
    corpus = data.load(flags(dataset=name, manual_dir=manual, data_dir=tmp_path), seed=1)
    assert tuple(corpus.size(split) for split in ("train", "validation", "test")) == sizes
    assert data.entity_types(corpus.labels) == types
    rows = data.sentences(corpus.splits["validation"], corpus.labels)
    assert sum(len(data.entities(row.tags)) for row in rows) == names
    assert all(data.to_iob2(row.tags) == row.tags and all(row.tokens) for row in rows)


@pytest.fixture(scope="module")
def everyday(tmp_path_factory):
    """The default data set, which needs no network."""
    return data.load(
        flags(dataset="everyday_entities", data_dir=tmp_path_factory.mktemp("d")), seed=1
    )


def test_the_default_has_500_sentences_and_more_and_holds_names_out(everyday):
    rows = {split: data.sentences(part, everyday.labels) for split, part in everyday.splits.items()}
    assert len(rows["train"]) >= 500 and len(rows["test"]) >= 100
    assert everyday.labels == data.tag_names(["PER", "ORG", "LOC", "MISC"])
    names = {
        split: {" ".join(r.tokens[a:b]).lower() for r in part for _, a, b in data.entities(r.tags)}
        for split, part in rows.items()
    }
    listed = {line.lower() for f in data.NAMES.glob("*.txt") for line in f.read_text().split("\n")}
    assert (
        not (names["train"] | listed) & names["test"] and not names["train"] & names["validation"]
    )
    assert len(listed) > 1000
    every = [row for part in rows.values() for row in part]
    assert all(data.to_iob2(row.tags) == row.tags for row in every)
    # Cut as the model cuts raw text.
    again = tokenize(tf.constant([" ".join(row.tokens) for row in every]), lower=False).to_list()
    assert again == rewrite(tf.ragged.constant([row.tokens for row in every])).to_list()


def test_the_acceptance_names_stand_in_no_file_of_the_task():
    names = {word.lower() for word in re.findall(r"[A-Z]\w+", ACCEPTANCE)} - {"yesterday"}
    assert len(names) == 4
    for path in data.SENTENCES.parent.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            text = path.read_text(encoding="utf-8").lower()
            assert not names & set(re.findall(r"\w+", text)), path


NERO_HEADER = ("entity1", "semantic_class_entity1", "entity2", "semantic_class_entity2")
NERO_HEADER += ("sentenceText", "procset")


def test_nero_marks_each_place_of_a_string_the_longest_first():
    text = "Human insulin receptor binds insulin in rats and in insulinoma."
    rows = [
        ("insulin", "GP", "", "", text, data.NERO_SET),
        ("insulin receptor ", "Protein", "", "", f" {text}\r", data.NERO_SET),
        ("rats", "Organism", "Human", "Organism", text, data.NERO_SET),
        ("binds", "Process", "", "", text, data.NERO_SET),
        ("bind", "GP", "", "", "GP bind of another part.", "bind"),
        ("nothing", "GP", "", "", "No such string here.", data.NERO_SET),
    ]
    table = "\n".join("\t".join(row) for row in (NERO_HEADER, *rows))
    ((split, row),) = data.nero_sentences(table, data.Nero.CLASSES)
    assert split in ("train", "validation", "test")
    names = [(kind, " ".join(row.tokens[a:b])) for kind, a, b in data.entities(row.tags)]
    assert names == [
        ("Organism", "Human"),
        ("Gene", "insulin receptor"),
        ("Gene", "insulin"),
        ("Organism", "rats"),
    ]


def test_nero_comes_from_the_package_index(tmp_path):
    corpus = data.load(flags(dataset="nero", data_dir=tmp_path), seed=1)
    rows = {split: data.sentences(part, corpus.labels) for split, part in corpus.splits.items()}
    texts = {split: {" ".join(row.tokens) for row in part} for split, part in rows.items()}
    assert not texts["train"] & texts["test"] and not texts["train"] & texts["validation"]
    assert 18_000 < sum(map(len, rows.values())) < 20_000
    assert data.entity_types(corpus.labels) == tuple(data.Nero.CLASSES)


def test_a_wheel_with_a_hyphen_in_its_name_is_found(tmp_path):
    (tmp_path / "NERO_nlp-0.0.8-py3-none-any.whl").write_bytes(b"something else")
    with pytest.raises(InputError, match="its SHA-256 is"):
        fetch_package(data.Nero.PACKAGE, tmp_path)


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
            assert set(corpus.splits) == set(data.SPLITS)
            expected = ["PER", "ORG", "LOC"] + ["MISC"] * (name == "conll2003")
            assert corpus.labels == data.tag_names(expected)
            (row, *_) = data.sentences(corpus.splits["validation"], corpus.labels)
            assert row.tokens == ["Ada", "Byron", "saw", "Rome"]
            assert row.tags == ["B-PER", "I-PER", "O", "B-LOC"]


def test_a_download_without_network_says_what_to_do(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise data.prepare.__globals__["requests"].ConnectionError

    monkeypatch.setattr("requests.head", refuse)
    with pytest.raises(InputError, match=r"needs 'wnut17train.conll'.*--manual_dir FOLDER"):
        data.load(flags(dataset="wnut17", data_dir=tmp_path), seed=1)


# --- CoNLL files ----------------------------------------------------------------------------------


def test_conll_files_of_all_customs_are_read_alike(tmp_path):
    expected = [
        Sentence(["Ada", "Byron", "saw", "Rome"], ["B-PER", "I-PER", "O", "B-LOC"]),
        Sentence(["Mary", "Omar"], ["B-PER", "B-PER"]),
    ]
    path = tmp_path / "a.conll"
    for text in (
        "Ada\tB-PER\nByron\tI-PER\nsaw\tO\nRome\tB-LOC\n\nMary\tB-PER\nOmar\tB-PER\n",
        # IOB1, four columns, blanks, -DOCSTART-, blank lines at both ends
        "\n-DOCSTART- -X- -X- O\n\nAda NNP I-NP I-PER\nByron NNP I-NP I-PER\nsaw VB I-VP O\n"
        "Rome NNP I-NP I-LOC\n\nMary NNP I-NP I-PER\nOmar NNP B-NP B-PER\n\n\n",
        # byte-order mark, CRLF, several blanks, no line end at the end
        "\ufeffAda  B-PER\r\nByron   I-PER\r\nsaw O\r\nRome B-LOC\r\n \t \r\n"
        "Mary B-PER\r\nOmar B-PER",
    ):
        path.write_bytes(text.encode())
        assert data.read_conll(path) == expected


def test_iob1_becomes_iob2():
    assert data.to_iob2([]) == []
    assert data.to_iob2(["I-A", "I-A", "B-A", "I-A", "O", "I-B", "I-A"]) == (
        ["B-A", "I-A", "B-A", "I-A", "O", "B-B", "B-A"]
    )


GOOD = b"Ada\tB-PER\nsaw\tO\n\n" * 12


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "my.conll: no sentences in this file"),
        (b"\n\n-DOCSTART- O\n\n", "my.conll: no sentences in this file"),
        (b"Ada\n", "line 1: expected 2 or 4 columns, the token first and its tag last, got 1"),
        (b"a b O\n", "line 1: expected 2 or 4 columns, the token first and its tag last, got 3"),
        (b"Ada B-PER\nx NN NP O\n", "line 2: expected 2 columns as on the lines before, got 4"),
        (b"Ada PER\n", "line 1: expected a tag O, B-TYPE or I-TYPE, got 'PER'"),
        (b"Ada S-PER\n", "line 1: expected a tag O, B-TYPE or I-TYPE, got 'S-PER'"),
        (b"x O\n\n\tO\n", "line 3: expected a token in the first column"),
        (b"x O\n\xff O\n", "my.conll, line 2: not UTF-8"),
        (
            b"Ada B-PER\nsaw O\n\nRome I-LOC\n",
            "line 4: I-LOC begins a name here, but B-PER begins one in line 1: expected IOB2",
        ),
        (b"Rome I-LOC\nAda B-PER\n", "line 2: B-PER begins a name here, but I-LOC begins one"),
        (b"saw O\n\n" * 12, "my.conll: every tag is O"),
        (GOOD[:60], "examples are too few to split"),
    ],
)
def test_bad_files_are_told_in_one_line(tmp_path, content, message, capsys, monkeypatch):
    path = tmp_path / "my.conll"
    path.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["train", "--data", str(path), "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        cli.run(train.main)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.startswith("error: ") and "\n" not in error
    assert not list(tmp_path.glob("ner/[0-9]*"))


def test_files_of_the_users_for_each_split_are_kept(tmp_path):
    for name, token in (("train.txt", "a"), ("dev.txt", "b"), ("test.txt", "c")):
        (tmp_path / name).write_text(f"{token} B-X\nd O\n\nAda B-Y\n")
    corpus = data.load(flags(data=tmp_path), seed=1)
    assert corpus.labels == ("O", "B-X", "I-X", "B-Y", "I-Y")
    for split, token in (("train", "a"), ("validation", "b"), ("test", "c")):
        rows = data.sentences(corpus.splits[split], corpus.labels)
        assert rows == [Sentence([token, "d"], ["B-X", "O"]), Sentence(["Ada"], ["B-Y"])]
    (tmp_path / "test.txt").write_text("c B-Z\n")
    with pytest.raises(InputError, match=r"test.txt: has names of type Z.*there: X, Y"):
        data.load(flags(data=tmp_path), seed=1)


# --- what training sees ---------------------------------------------------------------------------


def test_names_are_exchanged_within_their_list_and_tags_follow(tmp_path):
    (tmp_path / "PER.txt").write_text("Ada King-Noel\nO'Neill\n")
    (tmp_path / "MISC_ADJ.txt").write_text("French\nDutch\n")
    (tmp_path / "MISC_NAME.txt").write_text("Old Tale\n")
    rows = [
        Sentence(["the", "french", "poet", "Byron"], ["O", "B-MISC", "O", "B-PER"]),
        Sentence(["She", "read", "Sea", "Song"], ["O", "O", "B-MISC", "I-MISC"]),
    ]
    names = data.Names(rows, tmp_path)
    seen = {"PER": set(), "MISC": set()}
    for seed in range(60):
        varied = data.augment(rows, names, exchange=0.99, lower_case=0.0, seed=seed)
        for row, old in zip(varied, rows, strict=True):
            assert len(row.tokens) == len(row.tags) and data.to_iob2(row.tags) == row.tags
            outside = [t for t, tag in zip(*row, strict=True) if tag == "O"]
            assert outside == [t for t, tag in zip(*old, strict=True) if tag == "O"]
            for kind, a, b in data.entities(row.tags):
                seen[kind].add(" ".join(row.tokens[a:b]))
    assert seen["PER"] == {"Ada King-Noel", "O ' Neill", "Byron"}
    # An adjective in small letters stays one; a title does not become an adjective.
    assert seen["MISC"] == {"french", "dutch", "Old Tale", "Sea Song"}
    # The types of the listed names have other names elsewhere.
    person = [Sentence(["Byron"], ["B-person"]), Sentence(["Acme"], ["B-group"])]
    called = data.Names(person, tmp_path)
    drawn = [data.augment(person, called, exchange=0.99, lower_case=0, seed=n) for n in range(40)]
    assert {" ".join(rows[0].tokens) for rows in drawn} == seen["PER"]
    assert all(rows[1] == person[1] for rows in drawn)
    again = data.augment(rows, names, exchange=0.5, lower_case=0.5, seed=3)
    assert again == data.augment(rows, names, exchange=0.5, lower_case=0.5, seed=3)
    assert data.augment(rows, names, exchange=0.0, lower_case=0.0, seed=1) == rows
    small = data.augment(rows, names, exchange=0.0, lower_case=0.99, seed=1)
    assert small[1].tokens == ["she", "read", "sea", "song"]


def test_unknown_words_and_characters_are_seen_as_what_they_are_like(tmp_path):
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


def test_batches_hold_what_the_sentences_say(tmp_path):
    rows = list(own_sentences(40, seed=2))
    corpus = Corpus("own", {"train": data.as_dataset(rows, TAGS)}, "", "", labels=TAGS)
    config = Config(vectors="", dimension=3, max_length=8, word_length=5, batch_size=16)
    _, reader = train.new_vocabularies(rows, config, tmp_path)
    seen = []
    for batch in data.to_batches(corpus.splits["train"], reader, config, shuffle_seed=1):
        assert batch["words"].shape[1] in config.bucket_lengths()
        assert batch["characters"].shape == (*batch["words"].shape, 5)
        for row, count in enumerate(batch["length"].numpy()):
            words = [reader.words.words[n] for n in batch["words"][row, :count].numpy()]
            seen.append((words, [TAGS[n] for n in batch["tags"][row, :count].numpy()]))
            assert not batch["words"][row, count:].numpy().any()
    expected = [([t.lower() for t in r.tokens[:8]], r.tags[:8]) for r in rows]
    assert sorted(seen) == sorted(expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "wnut18"], "no data set 'wnut18'; known: everyday_entities, wnut17"),
        (["--dataset", "btc", "--data", "x.conll"], "give --dataset or --data, not both"),
        (["--units", "0"], "--units must be 1 or more, got 0"),
        (["--exchange", "1"], "--exchange must be in [0, 1)"),
        (["--outside_weight", "0"], "--outside_weight must be positive"),
        (["--data", "gone.conll"], "gone.conll: no such file or folder"),
    ],
)
def test_bad_flags_are_told_in_one_line(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    commands.check_refused(train.main, words, message, capsys, monkeypatch)


def test_no_model_yet_says_how_to_train(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"python -m tasks\.ner\.train"):
        predict.main(["Ada sleeps"])
    with pytest.raises(InputError, match="give a text"):
        predict.main([])


def test_example_requests_fill_every_bucket():
    asked = serving.examples([8, 16], 20)
    assert [row["words"].shape for row in asked["tensors"]] == [(2, 8), (2, 16)]
    assert [row["tokens"].shape for row in asked["tokens"]] == [(2, 8), (2, 16)]
