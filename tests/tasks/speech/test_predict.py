"""The `predict` command: its inputs and outputs, invalid files, and recordings of any length."""

import itertools
import json
import re

from common.errors import InputError
from tasks.speech import audio, evaluate, load, predict
from tests.tasks import commands
from tests.tasks.own.speech import RATE, speak, write_folder
from tests.tasks.speech.recordings import ENGLISH, english

import numpy as np
import pytest
import scipy.signal
import soundfile


def predict_one(shipped, path):
    (transcript,) = predict.predict(shipped, [path], batch_size=16)
    return predict.describe(transcript, RATE)


# --- the command ----------------------------------------------------------------------------------


def test_predict_reads_any_sound_file_in_order_and_draws(tmp_path, capsys, shipped):
    expected = english()
    paths = []
    for (_, sound), ending in zip(
        expected, (".wav", ".flac", ".ogg", ".wav", ".aiff"), strict=True
    ):
        paths.append(tmp_path / f"{len(paths)}{ending}")
        soundfile.write(paths[-1], sound, RATE)
    picture = tmp_path / "letters.png"
    predict.main(["--model", str(shipped.path), "--json", "--plot", str(picture), *map(str, paths)])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == list(map(str, paths))
    correct = [row["text"] == text for row, (text, _) in zip(rows, expected, strict=True)]
    assert sum(correct) >= 4
    for row, (_, sound) in zip(rows, expected, strict=True):
        assert 0.0 < row["confidence"] <= 1.0 and len(row["pieces"]) == 1
        assert row["seconds"] == pytest.approx(len(sound) / RATE, abs=1e-3)
    assert picture.stat().st_size > 5000


def test_predict_prints_a_line_for_a_person(tmp_path, capsys, shipped):
    text, sound = english()[0]
    soundfile.write(tmp_path / "a.wav", sound, RATE)
    predict.main(["--model", str(shipped.path), str(tmp_path / "a.wav")])
    line = capsys.readouterr().out.rstrip("\n")
    assert re.fullmatch(rf"{re.escape(str(tmp_path))}/a\.wav  +\d+ %  {text}", line)


def test_words_have_times_in_json_and_subtitles(tmp_path, capsys, shipped):
    (text, sound), (other, following) = english()[:2]
    pause = np.zeros(6 * RATE, np.float32)
    soundfile.write(tmp_path / "a.wav", np.concatenate([sound, pause, following]), RATE)
    words = ["--model", str(shipped.path), str(tmp_path / "a.wav"), "--json"]
    predict.main([*words, "--subtitles", str(tmp_path / "a.srt")])
    prediction = json.loads(capsys.readouterr().out)
    assert [row["word"] for row in prediction["words"]] == f"{text} {other}".split()
    times = [time for row in prediction["words"] for time in (row["start"], row["end"])]
    assert times == sorted(times)
    first = len(text.split())
    assert times[2 * first - 1] < len(sound) / RATE + 0.1
    assert times[2 * first] > len(sound) / RATE + 5.9
    assert all(0.3 < row["confidence"] <= 1.0 for row in prediction["words"])
    subtitles = (tmp_path / "a.srt").read_text()
    assert subtitles.splitlines()[2] == text and subtitles.splitlines()[6] == other


def test_a_folder_has_a_result_for_each_file_and_goes_on_where_it_ended(tmp_path, capsys, shipped):
    expected = english()[:3]
    (tmp_path / "in" / "deep").mkdir(parents=True)
    names = ("a.wav", "b.flac", "deep/a.wav")
    for name, (_, sound) in zip(names, expected, strict=True):
        soundfile.write(tmp_path / "in" / name, sound, RATE)
    (tmp_path / "in" / "c.wav").write_text("no sound")
    (tmp_path / "in" / "notes.txt").write_text("no sound file")
    words = ["--model", str(shipped.path), str(tmp_path / "in"), "--results", str(tmp_path / "out")]
    with pytest.raises(InputError, match="1 of 4 files could not be read"):
        predict.main(words)
    results = {
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.json")
    }
    assert results == {f"{name}.json" for name in names}
    for name, (text, _) in zip(names, expected, strict=True):
        result = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert result["text"] == text and result["words"]
    capsys.readouterr()
    soundfile.write(tmp_path / "in" / "c.wav", expected[0][1], RATE)
    (tmp_path / "out" / "b.flac.json").write_text("{")  # of a killed run, or of another model
    predict.main(words)
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines()] == [
        str(tmp_path / "in" / name) for name in ("b.flac", "c.wav")
    ]
    assert "2 of 4 files have a result" in captured.err
    predict.main(words)
    assert capsys.readouterr().out == ""


def test_files_of_one_name_cannot_have_results_in_one_folder(tmp_path):
    files = predict.list_files([tmp_path / "a" / "x.wav", tmp_path / "b" / "x.wav"])
    with pytest.raises(InputError, match=r"--results: .*x\.wav and .*x\.wav have one name"):
        predict.list_unfinished(files, tmp_path, "model")
    assert list(predict.list_files([tmp_path])) == [tmp_path]  # its message comes with the others


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_noise_has_no_text_and_silence_around_speech_changes_none(shipped, slope):
    rng = np.random.default_rng(int(slope))
    spectrum = np.fft.rfft(rng.normal(size=2 * RATE))
    spectrum *= np.maximum(np.arange(RATE + 1) / 100, 1.0) ** (-slope / 2)
    noise = np.fft.irfft(spectrum)
    noises = [np.float32(noise * level / noise.std()) for level in (1e-3, 0.1)]
    texts = shipped.call("serving_default", **audio.request(noises))["text"]
    assert texts.tolist() == [b"", b""]
    pause = np.float32(noise[:RATE] * 10**-3.5 / noise.std())  # -70 dB of full scale
    for text, sound in english()[:2]:
        rows = [np.concatenate([before, sound, before]) for before in (pause, 0 * pause)]
        texts = shipped.call("serving_default", **audio.request(rows))["text"]
        assert [row.decode() for row in texts] == [text, text]


def test_a_silent_recording_cannot_be_drawn(tmp_path, shipped):
    picture = tmp_path / "letters.png"
    with pytest.raises(InputError, match="nothing to draw: the recording is silent or too short"):
        predict.draw(shipped, np.zeros(RATE, np.float32), picture)
    assert not picture.exists()


def test_predict_and_evaluate_build_no_keras_model(shipped, tmp_path):
    write_folder(tmp_path / "mine", 2, seed=0)
    words = {"predict": ["mine/wavs/r0.wav"], "evaluate": ["--data", "mine"]}
    commands.check_no_keras_model(shipped.path, words, folder=tmp_path)


# The model `gone` does not exist: these flags are refused before a model is loaded.
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--model", "gone"],
            "no recording given: name a sound file, as in `predict greeting.wav`",
        ),
        (
            ["--model", "gone", "a.wav", "--subtitles", "a.txt"],
            "--subtitles must end in .srt or .vtt: a.txt",
        ),
        (
            ["--model", "gone", "a.wav", "b.wav", "--subtitles", "a.srt"],
            "--subtitles takes one recording",
        ),
    ],
)
def test_an_invalid_flag_gives_a_one_line_error(
    words, message, capsys, monkeypatch, in_user_folder
):
    commands.check_refused(predict.main, words, message, capsys, monkeypatch)


# --- invalid files --------------------------------------------------------------------------------


def write_invalid_files(folder):
    """Write files that users may name by mistake; return the message of each."""
    sound = speak("ab c", np.random.default_rng(0))
    soundfile.write(folder / "short.wav", sound[2000:2800], RATE)
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    broken = sound.copy()
    broken[5000] = np.nan
    soundfile.write(folder / "nan.wav", broken, RATE, subtype="FLOAT")
    soundfile.write(folder / "none.wav", np.zeros(0), RATE)
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is no sound at all, but a text with another name\n")
    (folder / "folder.wav").mkdir()
    return {
        "short.wav": "too short: 0.05 s of sound; the minimum is 0.1 s",
        "silent.wav": "silent",
        "nan.wav": "contains NaN or infinite samples",
        "none.wav": "contains no samples",
        "empty.wav": "is empty",
        "text.wav": "is not a readable sound file",
        "folder.wav": "is a folder",
        "missing.wav": "no such file",
    }


def test_each_invalid_file_has_its_message_and_leaves_the_others_alone(tmp_path, capsys, shipped):
    messages = write_invalid_files(tmp_path)
    text, sound = english()[0]
    soundfile.write(tmp_path / "good.wav", sound, RATE)
    names = [*messages, "good.wav"]
    paths = [str(tmp_path / name) for name in names]
    with pytest.raises(InputError, match="6 of 9 files could not be read"):
        predict.main(["--model", str(shipped.path), "--json", *paths])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == paths
    for row, name in zip(rows, names[:-1], strict=False):
        assert messages[name] in row["message"]
        assert row["text"] == "" and row["confidence"] == 0.0
        assert row.get("is_broken", False) == (name not in ("short.wav", "silent.wav"))
    assert rows[-1]["text"] == text and "message" not in rows[-1]


def test_an_unreadable_file_ends_the_command_with_one_message(
    tmp_path, command_environment, shipped
):
    (tmp_path / "text.wav").write_text("words\n")
    done = commands.run(
        *("speech.predict", "--model", shipped.path, "text.wav"),
        folder=tmp_path,
        environment=command_environment,
    )
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: 1 of 1 files")
    assert "text.wav  [is not a readable sound file" in done.stdout


# --- sounds of any rate and length ----------------------------------------------------------------


def test_a_stereo_mp3_at_44100_hz_has_the_text_of_its_mono_original(tmp_path, shipped):
    text, original = english()[0]
    sound = scipy.signal.resample_poly(original, 441, 160)
    soundfile.write(tmp_path / "a.mp3", np.stack([sound, sound], axis=1), 44_100)
    read = audio.read(tmp_path / "a.mp3")
    assert abs(len(read) - len(sound) * RATE / 44_100) < 0.1 * RATE and read.dtype == np.float32
    assert predict_one(shipped, tmp_path / "a.mp3")["text"] == text


def test_ten_minutes_are_transcribed_in_order_in_bounded_memory(tmp_path, shipped, monkeypatch):
    """Pieces are cut at silences, so no word is lost; at most a block and a piece are in memory."""
    rng = np.random.default_rng(7)
    texts, size = [], 0
    with soundfile.SoundFile(tmp_path / "long.flac", "w", RATE, 1) as file:
        while size < 600 * RATE:
            text, sound = english()[rng.integers(len(ENGLISH))]
            sound = np.concatenate([sound, rng.normal(size=RATE) * 1e-4])
            file.write(sound)
            texts.append(text)
            size += len(sound)
    longest = 0
    original = audio.quietest

    def quietest(sound, *arguments):
        nonlocal longest
        longest = max(longest, len(sound))
        return original(sound, *arguments)

    monkeypatch.setattr(audio, "quietest", quietest)
    prediction = predict_one(shipped, tmp_path / "long.flac")
    assert longest == shipped.settings["max_samples"]
    starts = [piece["start"] for piece in prediction["pieces"]]
    assert starts == sorted(starts) and len(starts) > 60
    for piece, following in itertools.pairwise(prediction["pieces"]):
        assert piece["end"] == pytest.approx(following["start"], abs=2e-3)
        assert piece["end"] - piece["start"] <= longest / RATE
    assert evaluate.metrics([" ".join(texts)], [prediction["text"]])["wer"] <= 0.1


def test_load_answers_one_file_and_several(tmp_path, shipped):
    text, sound = english()[0]
    soundfile.write(tmp_path / "a.wav", sound, RATE)
    model = load(shipped.path)
    transcript = model(str(tmp_path / "a.wav"))
    assert transcript.text == text == " ".join(word.text for word in transcript.words)
    assert 0 < transcript.confidence <= 1
    broken, again = model([tmp_path / "gone.wav", tmp_path / "a.wav"])
    assert broken.text == "" and broken.confidence == 0 and "gone.wav" in broken.error
    assert again.text == text
