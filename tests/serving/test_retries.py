"""Clients of servers that hang, break connections, are overloaded, or are no TF Serving."""

import concurrent.futures
import contextlib
import http.server
import json
import re
import socket
import threading
import time
from pathlib import Path

from common.errors import ExportError
from common.serving import served as remote

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

pytestmark = pytest.mark.serving

GOOD = {"outputs": {"label": ["good"], "stars": [5]}}
LOST = "the connection breaks"
PLAIN = re.compile(r"error: [^\n]+")  # one line


@contextlib.contextmanager
def rest_server(answers):
    """Yield a URL, and the times of its requests; answer them in turn, the last one for ever."""
    times, stop = [], threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer()

        def do_GET(self):
            self.answer()

        def answer(self):
            times.append(time.monotonic())
            status, content = answers[min(len(times), len(answers)) - 1]
            if status == "hang":
                stop.wait(20)
            if status in ("hang", LOST):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            body = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(200 if status in ("half", "drip") else status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if status == "half":
                body = body[:5]
            for start in range(0, len(body), 1 if status == "drip" else len(body)):
                self.wfile.write(body[start:] if status != "drip" else body[start : start + 1])
                if status == "drip" and stop.wait(0.1):
                    return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", times
        finally:
            stop.set()
            server.shutdown()


@contextlib.contextmanager
def grpc_server(answers, port=0):
    """Yield an address, and the times of its predictions; answer them in turn, as above."""
    times, stop = [], threading.Event()

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def GetModelMetadata(self, request, context):  # noqa: N802
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            signatures = get_model_metadata_pb2.SignatureDefMap()
            inputs = signatures.signature_def["serving_default"].inputs
            inputs["text"].dtype = tf.string.as_datatype_enum
            response.metadata["signature_def"].Pack(signatures)
            return response

        def Predict(self, request, context):  # noqa: N802
            times.append(time.monotonic())
            status, content = answers[min(len(times), len(answers)) - 1]
            if status == "hang":
                stop.wait(20)
            elif status != "OK":
                context.abort(grpc.StatusCode[status], content)
            response = predict_pb2.PredictResponse()
            for name, value in GOOD["outputs"].items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return response

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    server.start()
    try:
        yield address, times
    finally:
        stop.set()
        server.stop(grace=None).wait()


def refused(call):
    """Return the line that a client ends with, and its seconds."""
    start = time.monotonic()
    with pytest.raises(SystemExit) as stopped:
        call()
    assert PLAIN.fullmatch(str(stopped.value.code)), stopped.value.code
    return str(stopped.value.code), time.monotonic() - start


REQUEST = ("sentiment", {"text": ["superb"]})


@pytest.mark.parametrize(
    "failure",
    [(503, {"error": "full"}), (502, "<html>"), (504, ""), (LOST, None), ("half", GOOD)],
)
def test_rest_works_after_two_failures(failure, client):
    with rest_server([failure, failure, (200, GOOD)]) as (url, times):
        assert client.call_rest(url, *REQUEST) == GOOD["outputs"]
    pauses = np.diff(times)
    assert len(pauses) == 2 and 0.1 <= pauses[0] < 1.0 and 0.2 <= pauses[1] < 1.2


def test_grpc_works_after_two_failures(client):
    failure = ("UNAVAILABLE", "full")
    with grpc_server([failure, failure, ("OK", None)]) as (address, times):
        assert client.call_grpc(address, *REQUEST) == GOOD["outputs"]
    assert len(times) == 3 and np.diff(times)[0] >= 0.1 and np.diff(times)[1] >= 0.2


def test_a_server_that_never_works_is_given_up(client):
    with rest_server([(503, {"error": "full"})]) as (url, times):
        line, _ = refused(lambda: client.call_rest(url, *REQUEST, retries=2))
        assert line == f"error: {url}: full (3 attempts)" and len(times) == 3
        line, seconds = refused(lambda: client.call_rest(url, *REQUEST, retries=50, timeout=1))
        assert "full" in line and seconds < 3 and len(times) < 12  # the pauses grow
        before = len(times)
        line, _ = refused(lambda: client.call_rest(url, *REQUEST, retries=0))
        assert line.endswith("full (1 attempt)") and len(times) == before + 1
    with grpc_server([("UNAVAILABLE", "full")]) as (address, times):
        line, _ = refused(lambda: client.call_grpc(address, *REQUEST, retries=2))
        assert line == f"error: {address}: full (3 attempts)" and len(times) == 3


@pytest.mark.parametrize(
    "answer",
    [(400, {"error": "no such input"}), (404, {"error": "Servable not found"}), (500, "<html>")],
)
def test_other_errors_of_rest_are_not_sent_again(answer, client):
    with rest_server([answer]) as (url, times):
        line, _ = refused(lambda: client.call_rest(url, *REQUEST))
        message = answer[1]["error"] if answer[0] < 500 else "500 Internal Server Error"
        assert line == f"error: {message}" and len(times) == 1


@pytest.mark.parametrize("status", ["INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL"])
def test_other_errors_of_grpc_are_not_sent_again(status, client):
    with grpc_server([(status, "no such input")]) as (address, times):
        line, _ = refused(lambda: client.call_grpc(address, *REQUEST))
        assert line == "error: no such input" and len(times) == 1


@pytest.mark.parametrize("answer", [("hang", None), ("drip", GOOD)])
def test_a_rest_server_that_hangs_is_given_up_in_time(answer, client):
    with rest_server([answer]) as (url, times):
        line, seconds = refused(lambda: client.call_rest(url, *REQUEST, timeout=0.6))
        assert line == f"error: {url}: no response within 0.6 s"
        assert 0.5 <= seconds < 5 and len(times) == 1


def test_a_grpc_server_that_hangs_is_given_up_in_time(client):
    with grpc_server([("hang", None)]) as (address, times):
        line, seconds = refused(lambda: client.call_grpc(address, *REQUEST, timeout=2))
        assert line == f"error: {address}: no response within 2 s"
        assert 1.5 <= seconds < 10 and len(times) == 1


@pytest.mark.parametrize("content", ["<html>", "[]", {"predictions": []}, '{"outputs"'])
def test_a_server_of_something_else_is_reported(content, client):
    with rest_server([(200, content)]) as (url, _):
        line, _ = refused(lambda: client.call_rest(url, *REQUEST))
        assert line == f"error: {url}: not a response of TF Serving"


def test_a_missing_server_is_reported(client):
    line, _ = refused(lambda: client.main(["ner", "a", "--rest", "http://127.0.0.1:9"]))
    assert re.fullmatch(r"error: http://127\.0\.0\.1:9: .*refused \(4 attempts\)", line)
    line, _ = refused(lambda: client.main(["ner", "a", "--grpc", "127.0.0.1:9", "--retries", "1"]))
    assert re.match(r"error: 127\.0\.0\.1:9: .* \(2 attempts\)", line)
    line, _ = refused(lambda: client.main(["ner", "a", "--rest", "http://no.invalid"]))
    assert line.startswith("error: http://no.invalid: ")


def test_a_grpc_server_that_starts_late_is_found(client):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.call_grpc, f"127.0.0.1:{port}", *REQUEST, retries=20)
        time.sleep(1.0)  # the first attempts are refused
        assert not future.done()
        with grpc_server([("OK", None)], port):
            assert future.result(30) == GOOD["outputs"]


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--timeout", "0", "--timeout must be positive"),
        ("--timeout", "nan", "--timeout must be positive"),
        ("--retries", "-1", "--retries 0 or more"),
        ("--rest", "localhost", "--rest localhost: not an address such as http://localhost:8501"),
    ],
)
def test_wrong_flags_are_refused(flag, value, message, client, capsys):
    with pytest.raises(SystemExit) as stopped:
        client.main(["ner", "a", flag, value])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_the_flags_reach_both_protocols(client, monkeypatch):
    calls = []
    for name in ("call_rest", "call_grpc"):
        monkeypatch.setattr(
            client,
            name,
            lambda *args, name=name, **flags: calls.append((name, args, flags)) or {},
        )
    for address in (["--rest", "http://a"], ["--grpc", "b"]):
        for words in (["--timeout", "7", "--retries", "2"], ["--model", "ner-de"]):
            with contextlib.suppress(KeyError):  # no outputs
                client.main(["ner", "a", *words, *address])
    assert [name for name, _, _ in calls] == ["call_rest", "call_rest", "call_grpc", "call_grpc"]
    assert [args[:2] for _, args, _ in calls[::2]] == [("http://a", "ner"), ("b", "ner")]
    assert [args[1] for _, args, _ in calls[1::2]] == ["ner-de", "ner-de"]
    limits = [(flags["timeout"], flags["retries"]) for _, _, flags in calls]
    assert limits == [(7, 2), (client.TIMEOUT, client.RETRIES)] * 2


# --- The remote model of `common.serving.served` --------------------------------------------------


@pytest.mark.parametrize("failure", [(503, {"error": "full"}), (LOST, None), ("half", GOOD)])
def test_a_remote_model_works_after_two_failures(failure):
    with rest_server([failure, failure, (200, GOOD)]) as (url, times):
        assert remote._fetch(url, "outputs", {"inputs": []}) == GOOD
    assert len(times) == 3 and np.diff(times)[0] >= 0.1 and np.diff(times)[1] >= 0.2


@pytest.mark.parametrize(
    ("answer", "message", "attempts"),
    [
        ((503, {"error": "full"}), "full", 4),
        ((502, "<html>"), "502 Bad Gateway", 4),
        ((400, {"error": "no such input"}), "no such input", 1),
        ((200, "[]"), "not a response of TF Serving, since it lacks 'outputs'", 1),
        ((200, '{"error": 1}'), "not a response of TF Serving", 1),
        ((200, "<html>"), "Expecting value", 1),
        ((LOST, None), "Remote end closed connection", 4),
    ],
)
def test_a_remote_model_is_given_up(answer, message, attempts):
    with rest_server([answer]) as (url, times):
        with pytest.raises(ExportError, match=re.escape(f"{url}: {message}")):
            remote._fetch(url, "outputs", {"inputs": []})
        assert len(times) == attempts


def test_a_remote_model_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT", 0.5)
    with rest_server([("hang", None)]) as (url, times):
        with pytest.raises(ExportError, match="timed out"):
            remote.connect(url, Path("sentiment"))
        assert len(times) == 1
