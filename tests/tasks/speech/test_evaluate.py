"""The `evaluate` command and its metrics."""

import json
import shutil
import sys

from common.errors import InputError
from tasks.speech import evaluate
from tests.tasks import commands
from tests.tasks.own.speech import RATE, write_folder
from tests.tasks.speech.recordings import english

import pytest
import soundfile

# --- the command ----------------------------------------------------------------------------------


def test_evaluate_scores_the_export_as_train_did(trained, command_environment):
    folder, done = trained
    expected = json.loads(done.stdout.splitlines()[-1])
    again = commands.run("speech.evaluate", folder=folder, environment=command_environment)
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout.splitlines()[-1])
    for name in expected.keys() - {"seconds", "model"}:
        assert result[name] == expected[name]


def write_english(folder):
    """Write a folder of recordings, each twice, with a `metadata.csv` as in LJSpeech."""
    (folder / "wavs").mkdir(parents=True)
    lines = []
    for number, (text, sound) in enumerate(english() * 2):
        soundfile.write(folder / "wavs" / f"r{number}.wav", sound, RATE)
        lines.append(f"r{number}|{text.upper()}.|{text}\n")
    (folder / "metadata.csv").write_text("".join(lines))


def test_an_own_folder_is_scored_whole(tmp_path, capsys, shipped):
    write_english(tmp_path / "other")
    evaluate.main(["--model", str(shipped.path), "--data", str(tmp_path / "other")])
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert result["examples"] == 10 and result["split"] == "all" and result["wer"] == 0.0
    assert "10 of 10 recordings without an error" in lines


def test_the_split_of_an_own_folder_is_scored(tmp_path, capsys, shipped):
    for split, count in (("train", 3), ("val", 2), ("test", 4)):
        write_folder(tmp_path / split, count, seed=count)
    evaluate.main(["--model", str(shipped.path), "--data", str(tmp_path), "--split", "test"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["examples"] == 4 and result["split"] == "test"


def test_the_working_folder_is_scored_whole(tmp_path, capsys, shipped, monkeypatch):
    """`--data .` is a new folder also for a model that was trained on a data set by name."""
    version = shutil.copytree(shipped.path, tmp_path / "models" / "1")
    settings = json.loads((version / "assets.extra" / "config.json").read_text())
    settings["training_data"] |= {"dataset": "spoken_commands", "data": None}
    (version / "assets.extra" / "config.json").write_text(json.dumps(settings))
    monkeypatch.chdir(write_folder(tmp_path / "other", 12, seed=4))
    evaluate.main(["--model", str(version), "--data", "."])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["dataset"], result["split"], result["examples"]) == ("other", "all", 12)


def test_the_recordings_with_the_most_errors_are_printed_first(capsys):
    truth, predicted = ["a b c", "a", "b c", "c"], ["a b", "a", "", "b"]
    scored = evaluate.ScoredTexts(4, 2.0, {}, ["w", "x", "y", "z"], truth, predicted, 9.0)
    evaluate.print_report(scored, 2)
    assert capsys.readouterr().out.splitlines() == [
        *("y", "  truth      b c", "  prediction "),
        *("w", "  truth      a b c", "  prediction a b"),
        *("1 of 4 recordings without an error", "9 s of sound in 2.0 s"),
    ]


# --- metrics --------------------------------------------------------------------------------------


def edits(truth, predicted):
    """Return Levenshtein's distance, by its recursion."""
    row = list(range(len(predicted) + 1))
    for i, a in enumerate(truth, start=1):
        last, row[0] = row[0], i
        for j, b in enumerate(predicted, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def test_metrics_equal_edit_distances_over_the_corpus():
    truth = ["go on", "stop it now", "yes"]
    predicted = ["go", "stop at it know", ""]
    rates = evaluate.metrics(truth, predicted)
    pairs = list(zip(truth, predicted, strict=True))
    words = sum(edits(a.split(), b.split()) for a, b in pairs)
    letters = sum(edits(a, b) for a, b in pairs)
    assert rates["wer"] == pytest.approx(words / 6) and rates["words"] == 6
    assert rates["cer"] == pytest.approx(letters / sum(map(len, truth)))
    assert rates["substitutions"] + rates["deletions"] + rates["insertions"] == words
    assert (rates["deletions"], rates["insertions"]) == (2, 1)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(InputError, match=r"jiwer.*pip install -e '\.\[speech\]'"):
        evaluate.metrics(["a"], ["a"])
