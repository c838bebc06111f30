"""The `predict` command: its inputs and outputs."""

import json
import re

from common.errors import InputError
from tasks.translation import predict
from tests.tasks import commands
from tests.tasks.own.translation import own_pairs

import numpy as np
import pytest


def test_predict_reads_words_files_and_standard_input_in_order(trained, command_environment):
    folder, _ = trained
    pairs = own_pairs(seed=5)[:70]
    (folder / "lines.txt").write_text("".join(f"{s}\n" for s, _ in pairs) + "\n")
    done = commands.run(
        *("translation.predict", "Le chat noir dort.", "-", "--file", "lines.txt"),
        *("--output", "out.jsonl", "--batch_size", 16),
        folder=folder,
        environment=command_environment,
        input="Un vieux\n",
    )
    assert done.returncode == 0, done.stderr
    predictions = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    texts = ["Le chat noir dort.", "Un vieux", *(s for s, _ in pairs), ""]
    assert [row["text"] for row in predictions] == texts
    assert predictions[-1] == {
        **{"text": "", "translation": None, "score": 0.0},
        "message": "nothing to translate",
    }
    correct = [
        row["translation"] == t for row, (_, t) in zip(predictions[2:-1], pairs, strict=True)
    ]
    assert np.mean(correct) >= 0.9


def test_predict_lists_several_translations_and_draws(served, capsys, tmp_path):
    picture = tmp_path / "attention.png"
    words = ["--model", str(served.path), "--n_best", "3", "--attention", str(picture)]
    predict.main([*words, "Le chat noir dort."])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    scores = [float(re.fullmatch(r" *(-\d+\.\d{3})  .+", line)[1]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    best = served.call("serving_default", text=["Le chat noir dort."])["translation"][0]
    assert lines[0].endswith(best.decode())
    assert picture.stat().st_size > 5000
    predict.main(["--model", str(served.path), "--json", "--n_best", "2", "Le chat noir dort."])
    prediction = json.loads(capsys.readouterr().out)
    assert len(prediction["n_best"]) == 2
    assert prediction["n_best"][0]["translation"] == prediction["translation"]
    with pytest.raises(InputError, match="--n_best 9 is more than the export's beam of 5"):
        predict.main(["--model", str(served.path), "--n_best", "9", "Oui."])


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
