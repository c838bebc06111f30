"""Many files predicted by several processes, stopped, and gone on with."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time

from common.commands.predict_files import parts, words_of
from common.errors import InputError
from common.serving.versions import SHIPPED
from tasks.dna import predict as dna
from tasks.sentiment.predict import Predict, main
from tests.tasks.own.sentiment import own_reviews, write_csv

import pytest

FILES, ROWS = 6, 40


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "saved_models" / "sentiment").mkdir(parents=True)
    (tmp_path / "saved_models" / "sentiment" / "1").symlink_to(SHIPPED / "sentiment" / "1")
    (tmp_path / "in" / "more").mkdir(parents=True)
    for number in range(FILES):
        place = tmp_path / "in" / ("more" if number % 2 else "") / f"{number}.csv"
        write_csv(place, own_reviews(ROWS, seed=number))
    return tmp_path


def start(folder, environment, *words):
    line = [sys.executable, "-m", "tasks.sentiment.predict", "--file", "in/*.csv", "in/more/*.csv"]
    line += ["--workers", "2", "--output", "out", *words]
    return subprocess.Popen(
        line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def read(folder):
    return {
        str(path.relative_to(folder / "out")): [
            json.loads(line)["text"] for line in path.read_text().splitlines()
        ]
        for path in (folder / "out").rglob("*.jsonl")
    }


def expected():
    return {
        f"{'more/' if number % 2 else ''}{number}.csv.jsonl": [
            text for text, _ in own_reviews(ROWS, seed=number)
        ]
        for number in range(FILES)
    }


@pytest.mark.commands
@pytest.mark.distribution
def test_every_file_has_its_part_also_after_a_stop(folder, command_environment):
    process = start(folder, command_environment)
    while process.poll() is None and not read(folder):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (folder / "in" / "bad.csv").write_text('text,label\n"a\n')
    process = start(folder, command_environment)
    _, errors = process.communicate()
    assert process.returncode == 2, errors
    assert "error: 1 of 7 files were not predicted:\n  in/bad.csv, line " in errors
    assert "files have a part in out" in errors or len(read(folder)) == FILES
    assert read(folder) == expected()
    (folder / "in" / "bad.csv").unlink()
    done = start(folder, command_environment)
    _, errors = done.communicate()
    assert done.returncode == 0 and errors == "6 of 6 files have a part in out\n"


@pytest.mark.commands
@pytest.mark.distribution
@pytest.mark.timeout(1200)
def test_ten_kills_at_random_moments_lose_no_row_and_repeat_none(folder, command_environment):
    moments, kills, rounds = random.Random(28), 0, 0
    begin = time.monotonic()
    process = start(folder, command_environment)
    process.communicate()
    longest = time.monotonic() - begin
    while kills < 10 or read(folder) != expected():
        if read(folder) == expected():
            shutil.rmtree(folder / "out")
            rounds += 1
        process = start(folder, command_environment)
        try:
            process.wait(moments.uniform(0, longest) if kills < 10 else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        for part, texts in read(folder).items():  # never a part that is not whole
            assert texts == expected()[part]
    print(f"{kills} kills in {rounds} rounds: 0 of {FILES * ROWS} rows lost or twice")


def test_flags_are_passed_on_and_wrong_ones_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = Predict(file=("a.csv",), output="out", workers=2, text_column="body", json=True)
    assert words_of(flags) == ["--text_column", "body"]
    for words, message in (
        (["--file", "a.csv"], "give --output a folder"),
        (["--file", "*.csv", "--output", "out"], "no file has such a name"),
        (["a text", "--output", "out"], "--workers predicts files; leave out the input"),
    ):
        with pytest.raises(InputError, match=message):
            main([*words, "--workers", "2"])
    with pytest.raises(InputError, match="--cluster needs --workers 2 or more"):
        main(["a text", "--cluster", "auto"])


def test_parts_of_genomes_are_called_gff3(tmp_path):
    files = [tmp_path / "a" / "x.fa", tmp_path / "b" / "x.fa"]
    named = parts(files, tmp_path / "out", dna.Predict.PART)
    assert list(named.values()) == [tmp_path / "out" / p / "x.fa.gff3" for p in ("a", "b")]
