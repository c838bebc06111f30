"""The client examples, run against the test double; see `server.py` for what that is."""

import json
import subprocess
import sys
import types

from tests.tasks.exports import TASKS
from tests.tasks.own import dna, ner, sentiment, speech, video

import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.serving

OPTIONS = types.SimpleNamespace(frame_rate=video.RATE, steps=6, temperature=0.0, top_p=1.0, seed=3)


def write_ppm(path, frames):
    height, width = frames.shape[1:3]
    header = f"P6\n{width} {height}\n255\n".encode()
    path.write_bytes(b"".join(header + frame.tobytes() for frame in frames))
    return str(path)


def words(task, folder):
    """What a user of the client writes on the command line; files are made in the folder."""
    random = np.random.default_rng(8)
    if task == "sentiment":
        return [*(text for text, _ in sentiment.own_reviews(3, seed=8)), ""]
    if task == "ner":
        return [" ".join(row.tokens) for row in ner.own_sentences(3, seed=8)] + ["Ünder Ada Byron"]
    if task == "translation":
        return ["Le chat noir dort.", "", "Mon chien petit mange."]
    if task == "dna":
        return [dna.spliced_record(random).sequence, "ACGT", "no DNA"]
    if task == "speech":
        paths = [str(folder / f"{text.replace(' ', '_')}.wav") for text in ("ab c", "b")]
        for path, text in zip(paths, ("ab c", "b"), strict=True):
            soundfile.write(path, speech.speak(text, random), speech.RATE, subtype="PCM_16")
        return paths
    if task == "video":
        clip = video.body("waving", 30)
        return [write_ppm(folder / "a.ppm", clip), write_ppm(folder / "b.ppm", clip[:3, :20])]
    return ["C4,E4,G4", "C4,E4,G4", "F#3"]


def asking(client, server, protocol):
    """The client's function that asks, with the server's address."""
    one = {"rest": client.ask_rest, "grpc": client.ask_grpc}[protocol]
    address = {"rest": server.rest, "grpc": server.grpc}[protocol]
    return lambda model, inputs, **kwargs: one(address, model, inputs, **kwargs)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.parametrize("task", TASKS)
def test_the_client_gets_what_the_export_answers(task, protocol, client, server, served, tmp_path):
    ask, checked = asking(client, server, protocol), []

    def ask_and_check(model, inputs):
        answer = ask(model, inputs)
        expected = served[task].call("serving_default", **inputs)
        assert set(answer) == set(expected)
        for name, array in expected.items():
            if array.dtype == object:
                assert answer[name] == client.decode(array.tolist())
            else:
                np.testing.assert_allclose(np.array(answer[name]), array, rtol=1e-6, atol=1e-7)
        checked.append(model)
        return answer

    lines = list(client.TASKS[task](ask_and_check, words(task, tmp_path), OPTIONS))
    assert set(checked) == {task} and lines


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_what_a_person_reads(protocol, client, server, tmp_path, capsys):
    address = {"rest": ["--rest", server.rest], "grpc": ["--grpc", server.grpc]}[protocol]

    def says(task, *given):
        client.main([task, *given, *address])
        return capsys.readouterr().out.splitlines()

    good, bad, none = says("sentiment", "the film superb", "awful", " ")
    assert good == "★★★★★  good  the film superb" and bad == "★      bad  awful"
    assert none == "no word in this text: ' '"
    assert says("ner", "did Ada Byron call ?", "nobody lives here .") == [
        "did Ada Byron call ?  ->  Ada Byron (PER)",
        "nobody lives here .  ->  no name",
    ]
    assert says("translation", "Le chat noir dort.") == [
        "Le chat noir dort.  ->  The black cat sleeps."
    ]
    sequence, labels, _, refused = says("dna", "ACGTACGT", "no DNA")
    assert sequence == "ACGTACGT" and labels == "........"
    assert refused.startswith("no answer: not a sequence")
    heard = says("speech", *words("speech", tmp_path))
    assert [line.split("%")[1].strip() for line in heard] == ["ab c", "b"]
    seen = says("video", words("video", tmp_path)[0], "--frame_rate", str(video.RATE))
    assert seen[0].endswith("%  waving")
    played = says("music", "C4,E4,G4", "F#3", "--steps", "2", "--temperature", "0")
    assert played[:2] == ["   1  C4 E4 G4  (given)", "   2  F#3  (given)"] and len(played) == 4
    assert len(says("music", "--steps", "3", "--seed", "5")) == 3


def test_over_rest_the_client_needs_the_standard_library_alone(server, pytestconfig):
    client = pytestconfig.rootpath / "saved_models" / "client.py"
    line = [sys.executable, "-I", "-S", client, "sentiment", "superb", "--rest", server.rest]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.stdout == "★★★★★  good  superb\n", done.stderr


def test_over_grpc_the_client_needs_neither_keras_nor_this_project(server, pytestconfig):
    script = (
        "import runpy, sys\n"
        "sys.modules.update(dict.fromkeys(('keras', 'tf_keras', 'common', 'tasks')))\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    client = str(pytestconfig.rootpath / "saved_models" / "client.py")
    script = script.replace("sys.argv[0]", repr(client))
    line = [sys.executable, "-P", "-c", script, "sentiment", "superb", "--grpc", server.grpc]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.stdout == "★★★★★  good  superb\n", done.stderr


def test_a_program_gets_the_answer_itself(client, monkeypatch, capsys):
    answer = {
        "tags": [["B-PER", "O"]],
        "start": [[0, 5]],
        "end": [[4, 10]],
        "tokens": [["Zoë", "x"]],
    }
    monkeypatch.setattr(client, "ask_rest", lambda address, model, inputs, **_: answer)
    client.main(["ner", "Zoë sleeps", "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == answer and "Zoë" in line


def test_ctrl_c_and_a_missing_library_leave_no_traceback(client, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "ask_rest", stopped)
    with pytest.raises(SystemExit) as stop:
        client.main(["ner", "a"])
    assert stop.value.code == 130
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    monkeypatch.delitem(sys.modules, "tensorflow_serving.apis", raising=False)
    with pytest.raises(SystemExit, match="gRPC needs tensorflow_serving: pip install tensorflow-s"):
        client.main(["ner", "a", "--grpc", "localhost:8500"])


def wrong_rate(path):
    soundfile.write(path, np.zeros(800), 8000, format="WAV")


@pytest.mark.parametrize(
    ("task", "make", "message"),
    [
        ("speech", lambda path: path.write_bytes(b"RIFF"), "ffmpeg -i .* -ac 1 -ar 16000 new.wav"),
        ("speech", lambda path: None, "error: .*No such file"),
        ("speech", wrong_rate, "ffmpeg -i .* -ac 1 -ar 16000 new.wav"),
        ("video", lambda path: path.write_bytes(b"P6\n2 2\n255\n" + bytes(5)), "is cut off"),
        ("video", lambda path: path.write_bytes(b"GIF89a"), "byte 0: no PPM picture"),
        ("video", lambda path: path.write_bytes(b""), "no pictures"),
    ],
)
def test_bad_files_are_told(task, make, message, client, tmp_path):
    make(tmp_path / "file")
    with pytest.raises(SystemExit, match=message):
        client.main([task, str(tmp_path / "file")])


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_what_the_server_refuses_is_told(protocol, client, server):
    ask = asking(client, server, protocol)
    with pytest.raises(SystemExit, match="error: Servable not found for request: Latest"):
        ask("jazz", {"text": ["a"]})
    with pytest.raises(SystemExit, match=r"error: Servable not found .* 9"):
        ask("ner", {"text": ["a"]}, version=9)
    with pytest.raises(SystemExit, match="error: Unrecognized servable version label: stable"):
        ask("ner", {"text": ["a"]}, label="stable")


def test_a_server_that_is_not_there_is_told(client):
    with pytest.raises(SystemExit, match=r"error: http://127\.0\.0\.1:9: "):
        client.main(["ner", "a", "--rest", "http://127.0.0.1:9"])
    with pytest.raises(SystemExit, match=r"error: .*127\.0\.0\.1:9"):
        client.main(["ner", "a", "--grpc", "127.0.0.1:9"])


@pytest.mark.parametrize("key", ["H2", "C", "C9", "E#4", "F-1"])
def test_keys_that_are_none_are_told(key, client):
    assert (
        client.key_number("C4") == 39 and client.key_name(0) == "A0" and client.key_name(87) == "C8"
    )
    assert [client.key_number(client.key_name(k)) for k in range(88)] == list(range(88))
    with pytest.raises(SystemExit, match="no key from A0 to C8"):
        client.key_number(key)
