"""The `predict` command: its inputs and outputs."""

import json
import re

from common.errors import InputError
from tasks.translation import Translation, load, predict
from tests.tasks import commands
from tests.tasks.shipped import GOLDEN as GOLDEN_FILES

import numpy as np
import pytest

GOLDEN = json.loads((GOLDEN_FILES / "translation.json").read_text(encoding="utf-8"))


def test_predict_reads_words_files_and_standard_input_in_order(
    shipped, tmp_path, command_environment
):
    pairs = [(row["input"], row["answer"]) for row in GOLDEN]
    (tmp_path / "lines.txt").write_text("".join(f"{s}\n" for s, _ in pairs) + "\n")
    done = commands.run(
        *("translation.predict", "Le chat noir dort.", "-", "--file", "lines.txt"),
        *("--output", "out.jsonl", "--batch_size", 16, "--model", shipped.path),
        folder=tmp_path,
        environment=command_environment,
        input="Un vieux\n",
    )
    assert done.returncode == 0, done.stderr
    predictions = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    texts = ["Le chat noir dort.", "Un vieux", *(s for s, _ in pairs), ""]
    assert [row["text"] for row in predictions] == texts
    assert predictions[-1] == {
        **{"text": "", "translation": None, "score": 0.0},
        "message": "nothing to translate",
    }
    assert [row["translation"] for row in predictions[2:-1]] == [t for _, t in pairs]


def test_predict_lists_several_translations_and_draws(shipped, capsys, tmp_path):
    picture = tmp_path / "attention.png"
    words = ["--model", str(shipped.path), "--n_best", "3", "--attention", str(picture)]
    predict.main([*words, "Le chat noir dort."])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    scores = [float(re.fullmatch(r" *(-\d+\.\d{3})  .+", line)[1]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    best = shipped.call("serving_default", text=["Le chat noir dort."])["translation"][0]
    assert lines[0].endswith(best.decode())
    assert picture.stat().st_size > 5000
    predict.main(["--model", str(shipped.path), "--json", "--n_best", "2", "Le chat noir dort."])
    prediction = json.loads(capsys.readouterr().out)
    assert len(prediction["n_best"]) == 2
    assert prediction["n_best"][0]["translation"] == prediction["translation"]
    with pytest.raises(InputError, match="--n_best 9 is more than the export's beam of 5"):
        predict.main(["--model", str(shipped.path), "--n_best", "9", "Oui."])


def test_paragraphs_are_translated_sentence_by_sentence(shipped, tmp_path, capsys):
    text = "Je ne sais pas. Fermez la porte !"
    (tmp_path / "lines.txt").write_text(f"{text} Tu as raison.\n\n  \nJe ne sais pas.\n")
    predict.main(["--model", str(shipped.path), "--file", str(tmp_path / "lines.txt")])
    assert capsys.readouterr().out.splitlines() == [
        "I don't know. Shut the door. You're right.",
        *("", ""),
        "I don't know.",
    ]
    predict.main(["--model", str(shipped.path), "--json", "--n_best", "2", f"{text}\n Votre"])
    prediction = json.loads(capsys.readouterr().out)
    assert prediction["text"] == f"{text}\n Votre"
    texts = [sentence["text"] for sentence in prediction["sentences"]]
    assert texts == ["Je ne sais pas.", "Fermez la porte !", "Votre"]
    assert prediction["translation"].startswith("I don't know. Shut the door.\n ")
    mean = np.mean([sentence["score"] for sentence in prediction["sentences"]])
    assert prediction["score"] == pytest.approx(mean, abs=1e-5)
    best, second = prediction["n_best"]
    assert best["translation"] == prediction["translation"] != second["translation"]


def test_truncated_translations_are_marked(shipped, capsys):
    words = [
        "--model",
        str(shipped.path),
        "--json",
        "Le chat noir dort. " + "Le chat " * 40,
        "Un chien",
    ]
    predict.main(words)
    printed = capsys.readouterr()
    long, short = map(json.loads, printed.out.splitlines())
    assert long["truncated"] and "truncated" not in short
    assert "truncated" not in long["sentences"][0] and long["sentences"][1]["truncated"]
    assert printed.err.count("truncated, since it is longer than 64 subwords: 'Le chat Le") == 1


# The model `gone` does not exist: these flags are refused before a model is loaded.
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Oui.", "--model", "gone", "--n_best", "0"], "--n_best must be 1 or more, got 0"),
        (["Oui.", "--model", "gone", "--attention", "a.mp3"], "no picture format ends in '.mp3'"),
        (["--model", "gone"], "no text given: write it on the command line, or pass --file PATH"),
    ],
)
def test_an_invalid_flag_gives_a_one_line_error(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    commands.check_refused(predict.main, words, message, capsys, monkeypatch)


def test_load_answers_one_text_and_several(shipped):
    model = load(shipped.path)
    (expected,) = predict.predict(shipped, ["Le chat noir dort."], n_best=1, batch_size=1)
    one = model("Le chat noir dort.")
    assert (one.source, one.text) == ("Le chat noir dort.", expected["translation"])
    assert one.score == expected["score"] and not one.truncated
    blank, again = model(["", "Le chat noir dort."])
    assert blank == Translation("", "", 0.0) and again.text == one.text
    assert model.to_keras().name
