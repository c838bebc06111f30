"""The translation task as its users meet it: data, commands, answers, messages."""

import itertools
import json
import re
import sys
import zipfile

from common.commands import cli
from common.commands.config import EvaluateConfig
from common.errors import InputError
from common.serving.served import load_export
from tasks.translation import data, evaluate, model, predict, subwords, train
from tasks.translation.config import PRESETS, Config
from tasks.translation.subwords import END, START, Subwords
from tests.tasks import commands
from tests.tasks.own.translation import TINY, own_pairs, write_tsv

import keras
import numpy as np
import pytest
import sacrebleu
import tensorflow as tf
import tensorflow_datasets as tfds
import tokenizers


def command(name, *words, **kwargs):
    return commands.run(f"translation.{name}", *words, **kwargs)


# --- the commands ---------------------------------------------------------------------------------


def test_train_learns_exports_and_prints_one_json_line(trained):
    folder, done = trained
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result)[:6] == ["task", "dataset", "split", "examples", "seconds", "model"]
    assert result["dataset"] == "my.tsv" and result["split"] == "test" and result["examples"] == 40
    assert result["bleu"] >= 90 and result["chrf"] >= 90
    assert "bleu: nrefs:1|case:mixed|eff:no|tok:13a" in done.stdout
    version = folder / result["model"]
    assert version == folder / "saved_models" / "translation" / "1"
    commands.check_version(version, f"{result['bleu']:.4f}", "| units | 24 |", "fr to en")


def test_evaluate_scores_the_export_as_train_did(trained, command_environment):
    folder, done = trained
    said = json.loads(done.stdout.splitlines()[-1])
    again = command("evaluate", folder=folder, environment=command_environment)
    assert again.returncode == 0, again.stderr
    scored = json.loads(again.stdout.splitlines()[-1])
    for name in ("task", "dataset", "split", "examples", "bleu", "bleu_lowercase", "chrf"):
        assert scored[name] == said[name]


def test_evaluate_scores_files_of_the_users_with_all_references(trained, capsys):
    folder, _ = trained
    version = folder / "saved_models" / "translation" / "1"
    pairs = own_pairs(seed=3)[:12]
    (folder / "two.fr").write_text("".join(f"{s}\n{s}\n" for s, _ in pairs))
    (folder / "two.en").write_text("".join(f"Nothing of it.\n{t}\n" for _, t in pairs))
    evaluate.main(["--model", str(version), "--data", str(folder / "two.fr")])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["examples"] == 12 and result["split"] == "all"
    served = load_export(version)
    said = served.call("serving_default", text=[s for s, _ in pairs])["translation"]
    references = [["Nothing of it."] * 12, [t for _, t in pairs]]
    expected = sacrebleu.corpus_bleu([text.decode() for text in said], references).score
    assert result["bleu"] == pytest.approx(expected) and expected > 80


def test_predict_answers_words_files_and_standard_input_in_order(trained, command_environment):
    folder, _ = trained
    pairs = own_pairs(seed=5)[:70]
    (folder / "lines.txt").write_text("".join(f"{s}\n" for s, _ in pairs) + "\n")
    done = command(
        *("predict", "Le chat noir dort.", "-", "--file", "lines.txt"),
        *("--output", "out.jsonl", "--batch_size", 16),
        folder=folder,
        environment=command_environment,
        input="Un vieux\n",
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    texts = ["Le chat noir dort.", "Un vieux", *(s for s, _ in pairs), ""]
    assert [row["text"] for row in said] == texts
    assert said[-1]["translation"] is None and said[-1]["message"] == "nothing to translate"
    right = [row["translation"] == t for row, (_, t) in zip(said[2:-1], pairs, strict=True)]
    assert np.mean(right) >= 0.9


def test_predict_lists_several_translations_and_draws(trained, served, capsys, tmp_path):
    picture = tmp_path / "seen.png"
    words = ["--model", str(served.path), "--n_best", "3", "--attention", str(picture)]
    predict.main([*words, "Le chat noir dort."])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    scores = [float(re.fullmatch(r" *(-\d+\.\d{3})  .+", line)[1]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    one = served.call("serving_default", text=["Le chat noir dort."])
    assert lines[0].endswith(one["translation"][0].decode())
    assert picture.stat().st_size > 5000
    predict.main(["--model", str(served.path), "--json", "--n_best", "2", "Le chat noir dort."])
    said = json.loads(capsys.readouterr().out)
    assert said["n_best"][0]["translation"] == said["translation"] and len(said["n_best"]) == 2
    with pytest.raises(InputError, match="--n_best 9 is more than the export's beam of 5"):
        predict.main(["--model", str(served.path), "--n_best", "9", "Oui."])


@pytest.mark.parametrize("module", [train, evaluate, predict])
def test_help_has_examples_and_defaults(module, capsys):
    commands.check_help(module, capsys)


@pytest.mark.slow  # sentiment is tested likewise
def test_fine_tuning_takes_over_subwords_and_weights(trained, command_environment, served):
    folder, _ = trained
    # A word that changes its meaning; everything else is known.
    pairs = [(s, t.replace("cat", "tiger")) for s, t in own_pairs(seed=7)]
    write_tsv(folder / "tuned.tsv", pairs[:120])
    done = command(
        *("train", "--data", "tuned.tsv", "--init", "saved_models/translation/1", "--epochs", 4),
        *("--output", "tuned", "--batch_size", 16, "--learning_rate", 0.01, "--verbose", 0),
        *("--average", 0, "--dropout", 0, "--subword_dropout", 0.05),
        folder=folder,
        environment=command_environment,
    )
    assert done.returncode == 0, done.stderr
    tuned = load_export(folder / "tuned" / "translation")
    assert tuned.settings["config"]["units"] == 24
    for name in (train.SOURCE, train.TARGET):
        one, other = (s.path / "assets" / name for s in (tuned, served))
        assert one.read_bytes() == other.read_bytes()
    assert json.loads(done.stdout.splitlines()[-1])["bleu"] >= 70
    answer = tuned.call("serving_default", text=["Le chien noir dort."])["translation"][0]
    assert answer == b"The black dog sleeps."


@pytest.mark.slow  # that runs resume is tested on ner and on the loop itself, too
def test_training_killed_in_an_epoch_resumes_to_the_same_weights(tmp_path, command_environment):
    write_tsv(tmp_path / "my.tsv", own_pairs(seed=1))
    words = ["--data", "my.tsv", "--epochs", "4", "--patience", "9", *TINY, "--deterministic"]
    words += ["--score", "none", "--subword_dropout", "0.1", "--shared_subwords"]
    words += ["--dropout", "0.1"]
    commands.train_and_kill("translation", *words, folder=tmp_path, environment=command_environment)
    # What only the search uses may change.
    resumed = command(
        *("train", "--resume", *words, "--beam", 2),
        folder=tmp_path,
        environment=command_environment,
    )
    assert resumed.returncode == 0, resumed.stderr
    whole = command(
        *("train", *words, "--output", "whole"), folder=tmp_path, environment=command_environment
    )
    assert whole.returncode == 0, whole.stderr
    one, other = (
        keras.models.load_model(tmp_path / root / "translation" / "1" / "model.keras")
        for root in ("saved_models", "whole")
    )
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# --- answers --------------------------------------------------------------------------------------


def test_the_signatures_are_those_of_the_golden_file(served, pytestconfig):
    commands.check_signatures(served, pytestconfig.rootpath / "tests/golden/translation.json")


def test_batch_mates_order_and_length_change_nothing(served):
    texts = [s for s, _ in own_pairs(seed=4)[:9]] + ["", "Le", "Le chat noir dort. " * 9]
    together = served.call("serving_default", text=texts)
    for row, text in enumerate(texts):
        alone = served.call("serving_default", text=[text])
        assert alone["translation"][0] == together["translation"][row]
        np.testing.assert_allclose(alone["score"][0], together["score"][row], atol=1e-5)


def as_ids(served, texts):
    reader = Subwords(served.path / "assets" / train.SOURCE)
    ids, length = data.encode_source(reader, tf.constant(texts), max_length=24)
    return ids.numpy(), length.numpy()


def test_junk_in_the_padding_changes_nothing(served):
    ids, length = as_ids(served, ["Le chat noir dort.", "Un chien court.", "Mon"])
    plain = served.call("tensors", ids=ids, length=length)
    junk = np.random.default_rng(0).integers(-9, 10**6, (3, ids.shape[1] + 4)).astype(np.int32)
    for row, count in enumerate(length):
        junk[row, :count] = ids[row, :count]
    spoilt = served.call("tensors", ids=junk, length=length)
    np.testing.assert_array_equal(spoilt["target_ids"], plain["target_ids"])
    np.testing.assert_allclose(spoilt["score"], plain["score"], atol=1e-5)


def test_text_and_tensors_give_the_same_translation(served):
    texts = ["Le chat noir dort.", "Votre mouton petit mange."]
    ids, length = as_ids(served, texts)
    found = served.call("tensors", ids=ids, length=length)
    said = served.call("serving_default", text=texts)
    writer = Subwords(served.path / "assets" / train.TARGET)
    decoded = writer.decode(tf.constant(found["target_ids"]), tf.constant(found["target_length"]))
    assert decoded.numpy().tolist() == said["translation"].tolist()
    np.testing.assert_allclose(found["score"], said["score"], atol=1e-6)
    assert found["target_ids"].shape == (2, 24)


def test_bad_rows_get_the_empty_answer_and_spoil_no_neighbour(served):
    good = "Le chat noir dort."
    texts = [good.encode(), b"", b" \t\n", b"Le chat \xff\xfe", b"\x00\x01", "東京 😀".encode()]
    texts += [b"a" * 10_000, b"Le chat noir dort. " * 600]
    answer = served.call("serving_default", text=np.array(texts, object))
    assert [row for row, text in enumerate(answer["translation"]) if not text] == [1, 2, 4]
    assert answer["score"][[1, 2, 4]].tolist() == [0, 0, 0]
    assert np.isfinite(answer["score"]).all() and (answer["score"] <= 0).all()
    assert answer["translation"][0] == b"The black cat sleeps."
    for text in answer["translation"]:
        text.decode()


def test_lengths_and_ids_that_cannot_be_get_the_empty_answer(served):
    ids, length = as_ids(served, ["Le chat noir dort."])
    ids = np.repeat(ids, 6, axis=0)
    count = int(length[0])
    ids[4, 0], ids[5, 0] = -1, 10**6
    lengths = [count, 0, -1, count + 1, count, count]
    found = served.call("tensors", ids=ids, length=lengths)
    assert (found["target_length"] > 0).tolist() == [True, False, False, False, False, False]
    assert not found["target_ids"][1:].any() and not found["score"][1:].any()
    nothing = served.call("tensors", ids=np.zeros((2, 0), np.int32), length=[0, 0])
    assert nothing["target_length"].tolist() == [0, 0]
    too_long = served.call("tensors", ids=np.full((1, 40), 9, np.int32), length=[40])
    assert too_long["target_length"].tolist() == [0]


@pytest.mark.parametrize("size", [0, 1, 33])
def test_any_batch_size_is_answered(served, size):
    for name in ("serving_default", "explain"):
        answer = served.call(name, text=np.array(["Le chat dort."] * size, object))
        assert all(len(value) == size for value in answer.values())


def test_explain_shows_subwords_hypotheses_and_where_they_looked(served):
    seen = served.call("explain", text=["Le chat noir dort.", "", "Un chien"])
    said = served.call("serving_default", text=["Le chat noir dort.", "", "Un chien"])
    assert seen["translations"][:, 0].tolist() == said["translation"].tolist()
    assert seen["translations"].shape == seen["scores"].shape == (3, 5)
    assert (np.diff(seen["scores"], axis=1) <= 0).all() and not seen["scores"][1].any()
    for row, text in enumerate(("Le chat noir dort.", "", "Un chien")):
        tokens = [token.decode() for token in seen["tokens"][row] if token]
        written = [token.decode() for token in seen["target_tokens"][row] if token]
        assert "".join(tokens).removesuffix("</s>").strip() == text
        spelled = "".join(written).removesuffix("</s>").strip()
        assert spelled == said["translation"][row].decode()
        sums = seen["attention"][row].sum(axis=-1)
        np.testing.assert_allclose(sums[: len(written)], 1.0, atol=1e-5)
        assert not sums[len(written) :].any()
        assert not seen["attention"][row, :, len(tokens) :].any()
    # The two words that change places are looked at where they stand.
    tokens = [token.decode() for token in seen["tokens"][0] if token]
    assert len(tokens) == seen["attention"].shape[2]


def test_the_keras_file_loads_in_a_notebook_and_agrees(served):
    live = keras.models.load_model(served.path / "model.keras")
    ids, length = as_ids(served, ["Le chat noir dort.", "Un chien court."])
    found = model.translate(
        live, tf.constant(ids), tf.constant(length), max_length=24, beam=5, alpha=0.6
    )
    expected = served.call("tensors", ids=ids, length=length)
    np.testing.assert_array_equal(found.tokens[:, 0], expected["target_ids"])
    np.testing.assert_allclose(found.score[:, 0], expected["score"], atol=1e-5)


# --- subwords -------------------------------------------------------------------------------------

ODD = [
    "Où es-tu ? « Là-bas », dit-il.",
    "aujourd'hui l’été coûte 1 234,50 €…",
    "Ελληνικά, 東京, العربية, हिन्दी",
    "😀👍🏽 e\u0301 \u200b x\u00a0y\tz",
    "<pad></s> <s>!!!??",
    "a" * 300,
    "",
    "   ",
]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    path = tmp_path_factory.mktemp("subwords") / "pieces.txt"
    texts = [text.encode() for pair in own_pairs() for text in pair]
    subwords.learn([*texts, *(text.encode() for text in ODD[:2] * 5)], path, size=330)
    return Subwords(path)


def library(pieces):
    """The same pieces in the library's WordPiece, byte b being the character of that number."""
    listed = [piece.decode("latin-1") for piece in pieces.pieces.numpy()]
    table = {piece: k for k, piece in enumerate(listed) if k > END} | {"<unk>": 10**6}
    return tokenizers.models.WordPiece(
        table, unk_token="<unk>", max_input_chars_per_word=10**5, continuing_subword_prefix=""
    )


def check_against_the_library(pieces, texts):
    """Every word of the texts is cut as the library cuts it, and all can be read back."""
    wordpiece = library(pieces)
    ids = pieces.encode(tf.constant(texts))
    for words, row in zip(
        subwords.words(subwords.tidy(tf.constant(texts))).to_list(), ids.to_list(), strict=True
    ):
        expected = [t.id for word in words for t in wordpiece.tokenize(word.decode("latin-1"))]
        assert row == expected
    back = pieces.decode(ids.to_tensor(), ids.row_lengths()).numpy()
    assert back.tolist() == subwords.tidy(tf.constant(texts)).numpy().tolist()


def test_subwords_equal_the_librarys(pieces):
    check_against_the_library(pieces, [*ODD, *(text for pair in own_pairs()[:50] for text in pair)])


def test_subwords_equal_the_librarys_on_real_test_sets(shared_data, tmp_path):
    folder = shared_data / "translation" / "multi30k"
    for side in ("fr", "en"):
        lines = {
            part: data._gzip_lines(folder / f"{name}.{side}.gz")
            for part, name in (("train", "val"), ("test", "test_2016_flickr"))
        }
        path = tmp_path / side
        subwords.learn([line.encode() for line in lines["train"]], path, size=2000)
        check_against_the_library(Subwords(path), lines["test"])


def test_texts_are_tidied_not_changed():
    found = subwords.tidy(tf.constant([b" Ou\xff \t\n es-tu\xc2\xa0? ", b"\x00\x01", b"ab c"]))
    assert found.numpy().tolist() == ["Ou\ufffd es-tu ?".encode(), b"", b"ab c"]
    assert subwords.tidy(tf.constant(["été" * 50]), characters=4).numpy()[0].decode() == "étéé"


def test_special_marks_cannot_be_written_out(pieces):
    ids = pieces.encode(tf.constant(["<pad></s><s>"])).to_list()[0]
    assert min(ids) > END


def test_dropped_subwords_still_spell_the_text(pieces):
    texts = tf.constant(["Le chat noir mange."] * 2)
    cut = {
        tuple(pieces.encode(texts, dropout=0.4, seed=tf.constant([k, 0])).to_list()[0])
        for k in range(8)
    }
    assert len(cut) > 4
    for ids in cut:
        found = pieces.decode(tf.constant([ids]), tf.constant([len(ids)]))
        assert found.numpy()[0] == b"Le chat noir mange."
    once = pieces.encode(texts, dropout=0.4, seed=tf.constant([3, 0]))
    again = pieces.encode(texts, dropout=0.4, seed=tf.constant([3, 0]))
    assert once.to_list() == again.to_list()


def test_a_vocabulary_that_is_none_is_refused(tmp_path):
    (tmp_path / "words.txt").write_text("<pad>\n<unk>\nhouse\n")
    with pytest.raises(InputError, match="no vocabulary of subwords"):
        Subwords(tmp_path / "words.txt")
    with pytest.raises(InputError, match=r"a vocabulary needs 2\d\d pieces or more"):
        subwords.learn([b"house"], tmp_path / "x.txt", size=100)


# --- batches, loss, metrics -----------------------------------------------------------------------


def encoded(pieces, pairs, **kwargs):
    return data.encode(data.as_dataset(pairs), pieces, pieces, max_length=24, **kwargs)


def test_batches_hold_every_pair_once_with_its_marks(pieces):
    pairs = own_pairs()[:50]
    batches = list(data.to_batches(encoded(pieces, pairs), batch_size=8, shuffle_seed=1))
    found = []
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
            found.append(tuple(text.decode() for text in sides.numpy()))
    assert sorted(found) == sorted(pairs)
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


def test_long_pairs_are_left_out_of_training(pieces):
    pairs = [("Le chat " * 40, "The cat."), *own_pairs()[:12]]
    assert encoded(pieces, pairs).source.nrows() == 12


def test_losses_equal_keras_smoothed_cross_entropy():
    config = Config(embedding=6, units=8, label_smoothing=0.1)
    built = model.build(config, source_size=11, target_size=11)
    generator = np.random.default_rng(0)
    length = np.array([4, 2, 1], np.int32)
    batch = {"labels": generator.integers(0, 11, (3, 4)).astype(np.int32), "target_length": length}
    answers = generator.normal(size=(3, 4, 6)).astype(np.float32)
    losses = model.make_losses(built, label_smoothing=0.1)
    values, weights = losses(
        {"answers": tf.constant(answers)}, {k: tf.constant(v) for k, v in batch.items()}
    )
    table = built.get_layer("target_embedding").get_weights()[0]
    scores = answers @ table.T
    for row, count in enumerate(length):
        expected = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=0.1, reduction="sum"
        )(np.eye(11)[batch["labels"][row, :count]], scores[row, :count])
        np.testing.assert_allclose(values[row], expected, rtol=1e-5)
    assert weights.numpy().tolist() == [4.0, 2.0, 1.0]


def test_metrics_are_sacrebleus_with_varying_references():
    said = ["The cat sat on the mat.", "a dog ran away quickly today"]
    references = [
        ["The cat sat on a mat.", "The cat sat on the mat."],
        ["A dog ran away quickly today"],
    ]
    scores, signatures = evaluate.metrics(said, references)
    columns = [[references[0][0], references[1][0]], [references[0][1], None]]
    assert scores["bleu"] == sacrebleu.corpus_bleu(said, columns).score < 100
    assert scores["bleu_lowercase"] == pytest.approx(100.0)
    assert scores["chrf"] == sacrebleu.corpus_chrf(said, columns).score
    assert "case:mixed" in signatures[0] and "tok:13a" in signatures[0]


def test_every_preset_is_sound_and_trains_the_set_it_names():
    for name, preset in PRESETS.items():
        assert preset.dataset == name


def test_what_only_the_search_uses_may_change_on_resume():
    settings = Config(beam=3).checkpoint_settings()
    assert settings == Config(beam=5, length_penalty=1.0).checkpoint_settings()
    assert settings != Config(units=128).checkpoint_settings()


# --- data -----------------------------------------------------------------------------------------

FRENCH = ("fr", "en")


def flags(**kwargs):
    return EvaluateConfig(**kwargs)


def pairs_of(corpus, split):
    rows = corpus.splits[split].as_numpy_iterator()
    return [(row["source"].decode(), row["target"].decode()) for row in rows]


@pytest.fixture(scope="module")
def tatoeba(tmp_path_factory, shared_data):
    manual = shared_data / "translation" / "tatoeba-fra-eng"
    folder = tmp_path_factory.mktemp("tfds")
    source = flags(dataset="tatoeba", manual_dir=manual, data_dir=folder)
    return data.load(source, languages=FRENCH, seed=1)


def test_tatoeba_is_split_as_stated(tatoeba):
    sizes = {split: len(pairs_of(tatoeba, split)) for split in data.SPLITS}
    assert sizes == {"train": 138274, "validation": 1536, "test": 2977}
    seen = {}
    for split in data.SPLITS:
        for side in (0, 1):
            for pair in pairs_of(tatoeba, split):
                key = (side, data.normalise(pair[side]))
                assert seen.setdefault(key, split) == split
    assert len({source for source, _ in pairs_of(tatoeba, "test")}) == len(
        evaluate.with_references(tatoeba.splits["test"])
    )


def test_no_model_learns_the_acceptance_sentence(tatoeba, tmp_path):
    wanted = set(map(data.normalise, data.ACCEPTANCE))
    book = data.load(flags(dataset="phrase_book", data_dir=tmp_path), languages=FRENCH, seed=1)
    for corpus in (tatoeba, book):
        for pair in pairs_of(corpus, "train"):
            assert not wanted & set(map(data.normalise, pair))


def test_pairs_with_an_acceptance_sentence_are_left_out_of_training():
    pairs = [(f"Phrase numéro {k}.", f"Sentence number {k}.") for k in range(20_000)]
    shown = [("voulez vous chanter AVEC moi !", "Sing!"), ("Oh.", "do you want to sing with me")]
    splits = data.tatoeba_splits([*pairs, *shown])
    found = [pair for rows in splits.values() for pair in rows]
    # In train they would have been, but for this rule.
    assert sorted(found) == sorted(pairs)
    assert [data.is_acceptance(*pair) for pair in (*shown, pairs[0])] == [True, True, False]


def test_groups_share_a_sentence_on_either_side():
    pairs = [("a", "x"), ("b", "y"), ("A!", "z"), ("c", "Z."), ("d", "w")]
    assert data.groups(pairs) == [
        [("a", "x"), ("A!", "z"), ("c", "Z.")],
        [("b", "y")],
        [("d", "w")],
    ]


def test_multi30k_has_its_published_splits(shared_data, tmp_path):
    source = flags(
        dataset="multi30k", manual_dir=shared_data / "translation" / "multi30k", data_dir=tmp_path
    )
    corpus = data.load(source, languages=FRENCH, seed=1)
    assert [corpus.size(split) for split in data.SPLITS] == [29000, 1014, 1000]
    assert corpus.size("test_2017") == 1000
    back = data.load(source, languages=("en", "fr"), seed=1)
    assert pairs_of(back, "validation")[0] == pairs_of(corpus, "validation")[0][::-1]
    with pytest.raises(InputError, match="multi30k has no language 'de', only"):
        data.load(source, languages=("de", "en"), seed=1)


@pytest.mark.parametrize(
    ("name", "languages"),
    [("ted_hrlr_translate/pt_to_en", ("pt", "en")), ("opus/medical", ("de", "en"))],
)
def test_the_catalogues_sets_come_through_the_same_loader(name, languages, tmp_path, monkeypatch):
    monkeypatch.setattr("requests.head", lambda *_, **__: None)
    with tfds.testing.mock_data(num_examples=30):
        corpus = data.load(flags(dataset=name, data_dir=tmp_path), languages=languages, seed=1)
        for split in data.SPLITS:
            assert all(source and target for source, target in pairs_of(corpus, split))


def test_interface_texts_are_paired_by_their_keys(tmp_path):
    archive = tmp_path / "package.whl"
    folder = "homeassistant/components/lamp/translations/"
    english = {"a": {"on": "Turn on  the lamp", "off": "Off"}, "b": "Please wait a moment"}
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(f"{folder}en.json", json.dumps(english))
        file.writestr(f"{folder}fr.json", json.dumps({"a": {"on": "Allumer la lampe"}}))
    assert data.interface_texts(archive, ("en", "fr")) == [
        ("Turn on the lamp", "Allumer la lampe"),
        ("Please wait a moment", ""),
    ]


def test_own_files_come_as_tsv_parallel_files_or_folders(tmp_path):
    pairs = own_pairs()[:20]
    write_tsv(tmp_path / "all.tsv", pairs)
    (tmp_path / "all.fr").write_bytes("".join(f"{s}\r\n" for s, _ in pairs).encode("utf-8-sig"))
    (tmp_path / "all.en").write_text("".join(f"{t}\n" for _, t in pairs))
    for name in ("all.tsv", "all.fr", "all.en"):
        corpus = data.load(flags(data=tmp_path / name), languages=FRENCH, seed=1)
        found = [pairs_of(corpus, split) for split in data.SPLITS]
        assert [len(rows) for rows in found] == [16, 2, 2]
        assert sorted(itertools.chain(*found)) == sorted(pairs)
    folder = tmp_path / "parts"
    folder.mkdir()
    for split, rows in (("train", pairs[:9]), ("dev", pairs[9:15]), ("test", pairs[15:])):
        (folder / f"{split}.fr").write_text("".join(f"{s}\n" for s, _ in rows))
        (folder / f"{split}.en").write_text("".join(f"{t}\n" for _, t in rows))
    corpus = data.load(flags(data=folder), languages=FRENCH, seed=1)
    assert pairs_of(corpus, "validation") == pairs[9:15]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"my.tsv": "a\tb\nc\n"}, "my.tsv, line 2: expected a source, a tab and a target, got 1"),
        ({"my.tsv": "a\tb\tc\n"}, "my.tsv, line 1: expected a source, a tab and a target, got 3"),
        ({"my.tsv": "a\tb\n\t c\n"}, "my.tsv, line 2: empty source"),
        ({"my.tsv": "a\t \n"}, "my.tsv, line 1: empty target"),
        ({"my.tsv": ""}, "my.tsv: no sentence pairs in this file"),
        ({"my.tsv": "a\tb\n" * 5}, "1 examples are too few to split; 10 are the least"),
        ({"my.fr": "a\nb\n", "my.en": "x\n"}, "my.fr: 2 lines, but"),
        ({"my.fr": "a\n\nb\n", "my.en": "x\ny\nz\n"}, "my.fr, line 2: empty line"),
        ({"my.fr": "a\n"}, "my.en: cannot read: No such file"),
        ({"my.csv": "a,b\n"}, "my.csv: expected a .tsv file, or two parallel files that end in"),
    ],
)
def test_bad_files_are_told_in_one_line(files, message, tmp_path, capsys, monkeypatch):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    path = tmp_path / next(iter(files))
    monkeypatch.setattr(sys, "argv", ["train", "--data", str(path), "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        cli.run(train.main)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.startswith("error: ") and "\n" not in error
    assert not list(tmp_path.glob("translation/[0-9]*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "wmt99"], "no data set 'wmt99'; known: phrase_book, tatoeba"),
        (["--units", "9"], "--units must be even, got 9"),
        (["--dropout", "1"], "--dropout must be in [0, 1)"),
        (["--beam", "0"], "--beam must be 1 or more"),
        (["--source", "en"], "--source and --target_language must differ"),
    ],
)
def test_bad_flags_are_told_in_one_line(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    commands.check_refused(train.main, words, message, capsys, monkeypatch)


def test_no_model_yet_says_how_to_train(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"python -m tasks\.translation\.train"):
        predict.main(["Oui."])
    with pytest.raises(InputError, match="give a sentence"):
        predict.main([])
