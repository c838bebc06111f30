"""The `predict` command: its inputs and outputs."""

import json
import os
import re
import subprocess
import sys

from common import files
from common.errors import InputError
from tasks.sentiment import Rating, load, predict
from tests.tasks import commands
from tests.tasks.own.sentiment import own_reviews, write_csv

import pytest


def test_predict_reads_words_files_and_standard_input_in_order(
    shipped, tmp_path, command_environment
):
    rows = list(own_reviews(150, seed=5))
    write_csv(tmp_path / "big.csv", rows)
    (tmp_path / "lines.txt").write_text("superb\n\nawful\n")
    done = commands.run(
        *("sentiment.predict", "a superb film", "-", "--file", "big.csv", "lines.txt"),
        *("--output", "out.jsonl", "--batch_size", 16, "--model", shipped.path),
        folder=tmp_path,
        environment=command_environment,
        input="tedious plot\n",
    )
    assert done.returncode == 0, done.stderr
    predictions = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    texts = ["a superb film", "tedious plot", *(text for text, _ in rows), "superb", "", "awful"]
    assert [row["text"] for row in predictions] == texts
    labels = [row["label"] for row in predictions]
    assert labels[:2] == ["5", "1"] and labels[-3:] == ["5", None, "1"]
    right = [(a in "45", a in "12") for a in labels[2:-3]]
    assert right == [(b == "good", b == "bad") for _, b in rows]


def test_predict_prints_stars_for_a_person_and_draws(shipped, capsys, tmp_path):
    picture = tmp_path / "attention.png"
    predict.main(["--model", str(shipped.path), "--plot", str(picture), "a superb film", " "])
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"★★★★★  5 stars +\d+%  a superb film", first)
    assert "no word in this text" in second
    assert picture.stat().st_size > 5000


def test_invalid_bytes_on_the_command_line_are_replaced(shipped, capsys):
    # Python gives the byte FF to a program as the surrogate DCFF.
    predict.main(["--model", str(shipped.path), "a superb\udcff film", "\udcff"])
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("%  a superb\ufffd film") and second.endswith("\ufffd")


def test_files_have_columns_keys_and_empty_texts(shipped, capsys, tmp_path):
    (tmp_path / "a.csv").write_text("id;body\n1;superb\n2;\n3\n4;awful\n")
    (tmp_path / "b.jsonl").write_text('{"body": "superb film"}\nno JSON\n{"body": ""}\n')
    files_ = [str(tmp_path / name) for name in ("a.csv", "b.jsonl")]
    words = ["--text-column", "body", "--delimiter", ";", "--json", "--file", *files_]
    predict.main(["--model", str(shipped.path), *words])
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [row["text"] for row in rows] == ["superb", "", "awful", "superb film", ""]
    assert [row["label"] for row in rows] == ["5", None, "1", "5", None]
    assert (
        "a.csv: skipped 1 of 4 rows cannot be used (line 4: 1 fields, expected 2)" in captured.err
    )
    assert "b.jsonl: skipped 1 of 3 rows cannot be used (line 2: no JSON)" in captured.err


def test_a_text_that_is_not_read_to_its_end_says_so(shipped, capsys):
    predict.main(["--model", str(shipped.path), "superb " * 1100, "superb"])
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("(only its beginning was read)") and second.endswith("superb")
    predict.main(["--model", str(shipped.path), "--json", "superb " * 1100, "superb"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("truncated") for row in rows] == [True, None]


def test_a_text_without_a_word_cannot_be_drawn(shipped, tmp_path):
    picture = tmp_path / "attention.png"
    with pytest.raises(InputError, match="no word to draw in ' '"):
        predict.main(["--model", str(shipped.path), " ", "--plot", str(picture)])
    assert not picture.exists()


@pytest.mark.commands  # that predict imports no Keras is tested in the default tier
def test_predict_and_evaluate_build_no_keras_model(shipped, tmp_path):
    write_csv(tmp_path / "mine.csv", [("superb", "5"), ("awful", "1")])
    words = {"predict": ["superb"], "evaluate": ["--data", "mine.csv"]}
    commands.check_no_keras_model(shipped.path, words, folder=tmp_path)


@pytest.mark.commands
def test_a_script_and_a_module_are_one_command(shipped, tmp_path, command_environment):
    line = [sys.executable, predict.__file__, "superb", "--model", shipped.path]
    done = subprocess.run(
        line, cwd=tmp_path, env=command_environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "5 stars" in done.stdout, done.stderr


# The model `gone` does not exist: these flags are refused before a model is loaded.
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "gone"], "no text given: write it on the command line"),
    ],
)
def test_an_invalid_flag_gives_a_one_line_error(
    words, message, capsys, monkeypatch, in_user_folder
):
    commands.check_refused(predict.main, words, message, capsys, monkeypatch)


def test_a_full_disk_leaves_no_partial_file(shipped, tmp_path, monkeypatch):
    output = tmp_path / "out.jsonl"
    output.write_text("older predictions\n")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        predict.main(["--model", str(shipped.path), "--output", str(output), "superb"])
    assert output.read_text() == "older predictions\n" and os.listdir(tmp_path) == ["out.jsonl"]


def test_load_answers_one_text_and_several_with_typed_ratings(shipped):
    model = load(shipped.path)
    rating = model("a superb film")
    assert (rating.label, rating.stars, rating.truncated) == ("5", 5, False)
    assert max(rating.probabilities, key=rating.probabilities.get) == "5"
    blank, other = model([" ", "a superb film"])
    assert blank == Rating(" ", None, 0, {}) and other.stars == 5
    assert other.probabilities == pytest.approx(rating.probabilities, abs=1e-5)
    layer = model.to_keras().get_layer("embedding")
    assert type(layer).__name__ == "WordEmbedding"
