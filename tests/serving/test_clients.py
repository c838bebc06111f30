"""The example client, run against the test double of the server (`server.py`)."""

import json
import subprocess
import sys
import types

from tests.tasks.exports import TASKS
from tests.tasks.own import dna, ner, sentiment, video
from tests.tasks.own.speech import RATE
from tests.tasks.speech.recordings import english

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
    """Return the inputs of a user on the command line; files are written into the folder."""
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
        paths = [str(folder / f"{text.replace(' ', '_')}.wav") for text, _ in english()[:2]]
        for path, (_, sound) in zip(paths, english(), strict=False):
            soundfile.write(path, sound, RATE, subtype="PCM_16")
        return paths
    if task == "video":
        clip = video.body("standing up", 1)
        return [write_ppm(folder / "a.ppm", clip), write_ppm(folder / "b.ppm", clip[:3, :20])]
    return ["C4,E4,G4", "C4,E4,G4", "F#3"]


def caller(client, server, protocol):
    """Return the client's function for a protocol, bound to the server's address."""
    function = {"rest": client.call_rest, "grpc": client.call_grpc}[protocol]
    address = {"rest": server.rest, "grpc": server.grpc}[protocol]
    return lambda model, inputs, **kwargs: function(address, model, inputs, **kwargs)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.parametrize("task", TASKS)
def test_the_client_returns_the_outputs_of_the_export(
    task, protocol, client, server, served, tmp_path
):
    call, checked = caller(client, server, protocol), []

    def call_and_check(model, inputs):
        outputs = call(model, inputs)
        expected = served[task].call("serving_default", **inputs)
        assert set(outputs) == set(expected)
        for name, array in expected.items():
            if array.dtype == object:
                assert outputs[name] == client.decode(array.tolist())
            else:
                np.testing.assert_allclose(np.array(outputs[name]), array, rtol=1e-6, atol=1e-7)
        checked.append(model)
        return outputs

    lines = list(client.TASKS[task](call_and_check, words(task, tmp_path), OPTIONS))
    assert set(checked) == {task} and lines


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_the_client_prints_lines_for_a_person(protocol, client, server, tmp_path, capsys):
    address = {"rest": ["--rest", server.rest], "grpc": ["--grpc", server.grpc]}[protocol]

    def printed(task, *inputs):
        client.main([task, *inputs, *address])
        return capsys.readouterr().out.splitlines()

    good, bad, none = printed("sentiment", "the film superb", "awful", " ")
    assert good == "★★★★★  5  the film superb" and bad == "★      1  awful"
    assert none == "no word in this text: ' '"
    assert printed("ner", "did Ada Byron call ?", "nobody lives here .") == [
        "did Ada Byron call ?  ->  Ada Byron (PER)",
        "nobody lives here .  ->  no name",
    ]
    assert printed("translation", "Fermez la porte !") == ["Fermez la porte !  ->  Shut the door."]
    sequence, labels, _, refused = printed("dna", "ACGTACGT", "no DNA")
    assert sequence == "ACGTACGT" and labels == "........"
    assert refused.startswith("no labels: not a sequence")
    sequence, labels = printed("dna", "ACGTACGT", "--model", "dna-drosophila")
    assert sequence == "ACGTACGT" and labels == "........"
    transcripts = printed("speech", *words("speech", tmp_path))
    assert [line.split("%")[1].strip() for line in transcripts] == [
        text for text, _ in english()[:2]
    ]
    (activity,) = printed("video", words("video", tmp_path)[0], "--frame_rate", str(video.RATE))
    assert activity.endswith("%  standing up")
    frames = printed("music", "C4,E4,G4", "F#3", "--steps", "2", "--temperature", "0")
    assert frames[:2] == ["   1  C4 E4 G4  (given)", "   2  F#3  (given)"] and len(frames) == 4
    assert len(printed("music", "--steps", "3", "--seed", "5")) == 3


def test_over_rest_the_client_needs_only_the_standard_library(server, pytestconfig):
    client = pytestconfig.rootpath / "saved_models" / "client.py"
    line = [sys.executable, "-I", "-S", client, "sentiment", "superb", "--rest", server.rest]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.stdout == "★★★★★  5  superb\n", done.stderr


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
    assert done.stdout == "★★★★★  5  superb\n", done.stderr


def test_json_prints_the_outputs_of_the_model(client, monkeypatch, capsys):
    outputs = {
        "tags": [["B-PER", "O"]],
        "start": [[0, 5]],
        "end": [[4, 10]],
        "tokens": [["Zoë", "x"]],
    }
    monkeypatch.setattr(client, "call_rest", lambda address, model, inputs, **_: outputs)
    client.main(["ner", "Zoë sleeps", "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == outputs and "Zoë" in line


def test_ctrl_c_and_a_missing_library_leave_no_traceback(client, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "call_rest", stopped)
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
        ("video", lambda path: path.write_bytes(b"P6\n2 2\n255\n" + bytes(5)), "is incomplete"),
        ("video", lambda path: path.write_bytes(b"GIF89a"), "byte 0: expected a PPM picture"),
        ("video", lambda path: path.write_bytes(b""), "no pictures"),
    ],
)
def test_bad_files_are_reported(task, make, message, client, tmp_path):
    make(tmp_path / "file")
    with pytest.raises(SystemExit, match=message):
        client.main([task, str(tmp_path / "file")])


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_errors_of_the_server_are_reported(protocol, client, server):
    call = caller(client, server, protocol)
    with pytest.raises(SystemExit, match="error: Servable not found for request: Latest"):
        call("jazz", {"text": ["a"]})
    with pytest.raises(SystemExit, match=r"error: Servable not found .* 9"):
        call("ner", {"text": ["a"]}, version=9)
    with pytest.raises(SystemExit, match="error: Unrecognized servable version label: stable"):
        call("ner", {"text": ["a"]}, label="stable")


@pytest.mark.parametrize("key", ["H2", "C", "C9", "E#4", "F-1"])
def test_invalid_keys_are_reported(key, client):
    assert (
        client.key_number("C4") == 39 and client.key_name(0) == "A0" and client.key_name(87) == "C8"
    )
    assert [client.key_number(client.key_name(k)) for k in range(88)] == list(range(88))
    with pytest.raises(SystemExit, match="is not a key from A0 to C8"):
        client.key_number(key)
