"""Call TF Serving with texts, recordings, DNA sequences, clips, or the first notes of music.

This file can be copied anywhere. REST needs only Python's standard library; gRPC also needs
`tensorflow-serving-api`. It prints the predictions for a person, or with `--json` the outputs of
the model, one JSON object per line.

    python client.py sentiment "A warm and funny film."
    python client.py ner "Ada Lovelace lived in London." --grpc localhost:8500
    python client.py translation "Je ne sais pas." --label stable
    python client.py translation "Je ne sais pas." --json
    python client.py dna AGCCCCTGTGAGGAACTAG
    python client.py dna AGCCCCTGTGAGGAACTAG --model dna-drosophila
    python client.py speech recording.wav        # 16 bits, mono, 16,000 Hz
    python client.py video clip.ppm              # see below
    python client.py music C4,E4,G4 C4,E4,G4 --steps 14

A clip is a file of consecutive PPM pictures, which can be read without a library:
`ffmpeg -i clip.mp4 -vf fps=25 -f image2pipe -c:v ppm clip.ppm`.

A request that the server cannot take now is sent again, after growing pauses: no connection, a
connection that breaks, the statuses 502, 503 and 504 of REST and UNAVAILABLE of gRPC. This is safe,
since a prediction changes nothing. `--timeout` bounds all attempts together.

Exit codes: 0 done, 1 no response or an unusable file, 2 wrong flags, 130 stopped by Ctrl-C.
"""

import argparse
import array
import http.client
import itertools
import json
import os
import queue
import random
import re
import sys
import threading
import time
import urllib.error
import urllib.request
import wave

# --- Calling the server ---------------------------------------------------------------------------

TIMEOUT, RETRIES = 60.0, 3


class UnavailableError(Exception):
    """The server cannot take a request now; it may take the next one."""


def with_retries(send, address, timeout, retries):
    """Return the result of the first attempt that succeeds.

    Args:
      send: makes one attempt, which may take the seconds that it receives. It raises
        `UnavailableError` if another attempt may succeed, and `TimeoutError`.
      address: of the server, for messages.
      timeout: seconds for all attempts and the pauses between them.
      retries: number of attempts after the first.
    """
    deadline = time.monotonic() + timeout
    for attempt in itertools.count():
        try:
            return send(max(deadline - time.monotonic(), 0.001))
        except TimeoutError:
            sys.exit(f"error: {address}: no response within {timeout:g} s")
        except UnavailableError as error:
            # Random, so that clients that failed together do not come back together.
            pause = min(0.2 * 2**attempt, 5.0) * random.uniform(0.5, 1.0)
            if attempt == retries or time.monotonic() + pause >= deadline:
                attempts = f"{attempt + 1} attempt{'s' if attempt else ''}"
                sys.exit(f"error: {address}: {error} ({attempts})")
            time.sleep(pause)


def within(seconds, function):
    """Return the result of a function, or raise `TimeoutError` when the time is over.

    The timeout of a socket bounds each read, so a response in small pieces could take forever.
    """
    results = queue.SimpleQueue()

    def run():
        try:
            results.put((function(), None))
        except BaseException as error:
            results.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error:
        raise error
    return result


def call_rest(
    url: str,
    model: str,
    inputs: dict,
    *,
    version: int | None = None,
    label: str | None = None,
    signature: str = "serving_default",
    timeout: float = TIMEOUT,
    retries: int = RETRIES,
) -> dict:
    """Call a model over REST.

    Args:
      url: of the server.
      model: its name.
      inputs: name -> nested lists, with the batch first.
      version: of the model; default: the newest.
      label: of a version, instead of its number.
      signature: its name.
      timeout: seconds for all attempts together.
      retries: number of attempts after the first, if the server is not available.

    Returns:
      The outputs in the same form, unless there is only one, which REST returns without its name.

    Example::

        call_rest("http://localhost:8501", "sentiment", {"text": ["A warm and funny film."]})
        # {'label': ['positive'], 'stars': [5], 'probabilities': [[0.02, 0.98]]}
    """
    selected = f"/versions/{version}" if version else f"/labels/{label}" if label else ""
    body = json.dumps({"signature_name": signature, "inputs": inputs}).encode()
    target = f"{url}/v1/models/{model}{selected}:predict"

    def send(seconds):
        try:
            return within(seconds, lambda: post(target, body, seconds))["outputs"]
        except urllib.error.HTTPError as error:
            message = error_of(error)
            if error.code in (502, 503, 504):
                raise UnavailableError(message) from None
            sys.exit(f"error: {message}")
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise TimeoutError from None
            if isinstance(reason, ConnectionError | http.client.HTTPException):
                raise UnavailableError(reason) from None
            sys.exit(f"error: {url}: {reason}")
        except (ValueError, KeyError, TypeError):
            sys.exit(f"error: {url}: not a response of TF Serving")

    return with_retries(send, url, timeout, retries)


def post(url, body, seconds):
    """Return the JSON response to a POST."""
    with urllib.request.urlopen(url, body, timeout=seconds) as response:
        return json.load(response)


def error_of(error):
    """Return the server's message in an HTTP error, or the status, such as that of a proxy."""
    with error:
        try:
            return json.load(error)["error"]
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            return f"{error.code} {error.reason}"


def call_grpc(
    address: str,
    model: str,
    inputs: dict,
    *,
    version: int | None = None,
    label: str | None = None,
    signature: str = "serving_default",
    timeout: float = TIMEOUT,
    retries: int = RETRIES,
) -> dict:
    """Call a model over gRPC, which is smaller for sound and pictures; see `call_rest`."""
    grpc, tf, predict_pb2, get_model_metadata_pb2, connect = import_grpc()
    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        # Each attempt connects anew; a shared connection would wait by a clock of its own.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    if version:
        request.model_spec.version.value = version
    elif label:
        request.model_spec.version_label = label

    def predict(stub, seconds):
        deadline = time.monotonic() + seconds
        # The metadata names the types of the inputs. A program would fetch it only once.
        metadata = stub.GetModelMetadata(
            get_model_metadata_pb2.GetModelMetadataRequest(
                model_spec=request.model_spec, metadata_field=["signature_def"]
            ),
            timeout=seconds,
        ).metadata["signature_def"]
        signatures = get_model_metadata_pb2.SignatureDefMap.FromString(metadata.value)
        types = signatures.signature_def[signature].inputs
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            proto = tf.make_tensor_proto(value, types[name].dtype)
            request.inputs[name].CopyFrom(proto)
        return stub.Predict(request, timeout=max(deadline - time.monotonic(), 0.001)).outputs

    def send(seconds):
        with grpc.insecure_channel(address, options=options) as channel:
            try:
                return predict(connect(channel), seconds)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    raise UnavailableError(error.details()) from None
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise TimeoutError from None
                sys.exit(f"error: {error.details()}")

    outputs = with_retries(send, address, timeout, retries)
    return {name: decode(tf.make_ndarray(proto).tolist()) for name, proto in outputs.items()}


def import_grpc():
    """Import what only gRPC needs."""
    try:
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2
        from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
    except ImportError as error:
        package = (error.name or "a package").partition(".")[0]
        sys.exit(f"error: gRPC needs {package}: pip install tensorflow-serving-api, or use --rest")
    return grpc, tf, predict_pb2, get_model_metadata_pb2, PredictionServiceStub


def decode(value):
    """Decode the bytes in nested lists."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


# --- The tasks: from the user's input to lines for a person ---------------------------------------


def sentiment(call, texts, _):
    """Yield the stars of each text."""
    outputs = call("sentiment", {"text": texts})
    for text, label, stars in zip(texts, outputs["label"], outputs["stars"], strict=True):
        yield f"{'★' * stars:5}  {label}  {text}" if stars else f"no word in this text: {text!r}"


def ner(call, texts, _):
    """Yield the names in each text."""
    outputs = call("ner", {"text": texts})
    rows = zip(*(outputs[name] for name in ("tags", "start", "end")), strict=True)
    for text, row in zip(texts, rows, strict=True):
        entities = []
        for tag, start, end in zip(*row, strict=True):
            if tag.startswith("B-"):
                entities.append((tag[2:], start, end))
            elif tag.startswith("I-"):
                kind, start, _ = entities[-1]
                entities[-1] = (kind, start, end)
        names = ", ".join(f"{text[start:end]} ({kind})" for kind, start, end in entities)
        yield f"{text}  ->  {names or 'no name'}"


def translation(call, texts, _):
    """Yield the translation of each text."""
    outputs = call("translation", {"text": texts})
    cut = outputs.get("truncated", [False] * len(texts))  # models of earlier releases do not say it
    for text, translated, is_cut in zip(texts, outputs["translation"], cut, strict=True):
        end = " (truncated)" if is_cut else ""
        yield f"{text}  ->  {translated or 'nothing to translate'}{end}"


def dna(call, sequences, _):
    """Yield each sequence and the labels of its bases."""
    outputs = call("dna", {"sequence": sequences})
    for sequence, labels in zip(sequences, outputs["labels"], strict=True):
        yield sequence
        yield labels or "no labels: not a sequence of IUPAC letters, or too long"


def speech(call, paths, _):
    """Yield the transcript of each WAV file; shorter recordings are padded."""
    sounds = [read_wav(path) for path in paths]
    longest = max(map(len, sounds))
    outputs = call(
        "speech",
        {
            "audio": [sound + [0.0] * (longest - len(sound)) for sound in sounds],
            "length": [len(sound) for sound in sounds],
        },
    )
    for path, text, confidence in zip(paths, outputs["text"], outputs["confidence"], strict=True):
        yield f"{path}  {confidence:4.0%}  {text}" if text else f"{path}: no word recognised"


def video(call, paths, options):
    """Yield the activity in each file of pictures."""
    for path in paths:  # one request each: clips are large
        frames = read_ppm(path)
        outputs = call(
            "video",
            {
                "frames": [frames],
                "length": [len(frames)],
                "size": [[len(frames[0]), len(frames[0][0])]],
                "frame_rate": [options.frame_rate],
            },
        )
        probability = max(outputs["probabilities"][0])
        yield f"{path}  {probability:4.0%}  {outputs['activity'][0]}"


def music(call, chords, options):
    """Yield the keys of each frame; the first frames are the given chords, such as C4,E4,G4."""
    prime = [[0.0] * 88 for _ in chords or [""]]  # at least one frame, even if it is ignored
    for frame, chord in zip(prime, chords, strict=False):
        for key in filter(None, chord.split(",")):
            frame[key_number(key)] = 1.0
    outputs = call(
        "music",
        {
            "prime": [prime],
            "prime_length": [len(chords)],
            "steps": [options.steps],
            "temperature": [options.temperature],
            "top_p": [options.top_p],
            "seed": [[0, options.seed]],
        },
    )
    frames = outputs["notes"][0][: outputs["length"][0]]
    for number, frame in enumerate(frames):
        keys = " ".join(key_name(key) for key, on in enumerate(frame) if on) or "-"
        yield f"{number + 1:4}  {keys}{'  (given)' if number < len(chords) else ''}"
    if not frames:
        yield "no music: too many steps, or an invalid temperature or top_p"


TASKS = {task.__name__: task for task in (sentiment, ner, translation, dna, speech, video, music)}

# --- Files and notes ------------------------------------------------------------------------------


def read_wav(path):
    """Return the samples of a WAV file (16 bits, mono, 16,000 Hz) in -1..1."""
    try:
        with wave.open(path) as file:
            shape = (file.getframerate(), file.getnchannels(), file.getsampwidth())
            samples = array.array("h", file.readframes(file.getnframes()))
    except (wave.Error, EOFError, ValueError):  # another format, or half a file
        shape = None
    if shape != (16_000, 1, 2):
        sys.exit(f"error: {path}: convert it: ffmpeg -i {path} -ac 1 -ar 16000 new.wav")
    if sys.byteorder == "big":
        samples.byteswap()
    return [sample / 32768 for sample in samples]


def read_ppm(path):
    """Return the pictures of a file of consecutive PPMs: [time][height][width][3]."""
    frames, at = [], 0
    with open(path, "rb") as file:
        content = file.read()
    while at < len(content):
        header = re.compile(rb"P6\s+(\d+)\s+(\d+)\s+255\s").match(content, at)
        if not header:
            sys.exit(f"error: {path}, byte {at}: expected a PPM picture (P6, maximum 255)")
        width, height = map(int, header.groups())
        start, at = header.end(), header.end() + 3 * width * height
        pixels = memoryview(content)[start:at]
        if len(pixels) < 3 * width * height:
            sys.exit(f"error: {path}: the last picture is incomplete")
        frames.append(pixels.cast("B", (height, width, 3)).tolist())
    if not frames or any(len(f) != height or len(f[0]) != width for f in frames):
        sys.exit(f"error: {path}: no pictures, or pictures of different sizes")
    return frames


NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def key_number(name):
    """Return the column of a piano key: 0 for A0, 39 for C4 (middle C), 87 for C8."""
    match = re.fullmatch(r"([A-G]#?)(\d)", name)
    key = (
        NAMES.index(match[1]) + 12 * (int(match[2]) + 1) - 21 if match and match[1] in NAMES else -1
    )
    if not 0 <= key < 88:
        sys.exit(f"error: {name!r} is not a key from A0 to C8, such as C4 or F#3")
    return key


def key_name(key):
    """Return the name of the key of a column."""
    return f"{NAMES[(key + 21) % 12]}{(key + 21) // 12 - 1}"


def main(arguments=None):
    """Run the client; see the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("inputs", nargs="*", help="texts, sequences, files or chords")
    server = parser.add_argument_group("server")
    server.add_argument(
        "--rest", default="http://localhost:8501", help="REST address (default: %(default)s)"
    )
    server.add_argument("--grpc", help="call over gRPC: host:port, such as localhost:8500")
    server.add_argument("--model", help="its name in models.config (default: that of the task)")
    server.add_argument("--version", type=int, help="version of the model (default: the newest)")
    server.add_argument("--label", help="version by its label in models.config, such as stable")
    server.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT,
        help="seconds for a prediction, with all attempts (default: %(default)s)",
    )
    server.add_argument(
        "--retries",
        type=int,
        default=RETRIES,
        help="attempts after the first, if the server is unavailable (default: %(default)s)",
    )
    clips = parser.add_argument_group("video")
    clips.add_argument(
        "--frame_rate", type=float, default=25.0, help="frames per second (default: %(default)s)"
    )
    sampling = parser.add_argument_group("music")
    sampling.add_argument(
        "--steps", type=int, default=32, help="frames to generate (default: %(default)s)"
    )
    sampling.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="0 = greedy (default: %(default)s)",
    )
    sampling.add_argument(
        "--top_p", type=float, default=1.0, help="nucleus sampling (default: %(default)s)"
    )
    sampling.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    parser.add_argument(
        "--json", action="store_true", help="print the outputs of the model, one object per line"
    )
    options = parser.parse_args(arguments)
    if not options.inputs and options.task != "music":
        parser.error(f"{options.task} needs an input")
    if not options.timeout > 0 or options.retries < 0:
        parser.error("--timeout must be positive, --retries 0 or more")
    if not options.rest.startswith(("http://", "https://")):
        parser.error(f"--rest {options.rest}: not an address such as http://localhost:8501")
    protocol, address = (call_grpc, options.grpc) if options.grpc else (call_rest, options.rest)
    chosen = {name: getattr(options, name) for name in ("version", "label", "timeout", "retries")}

    def call(task, inputs):
        return protocol(address, options.model or task, inputs, **chosen)

    def call_and_print(model, inputs):
        outputs = call(model, inputs)
        print(json.dumps(outputs, ensure_ascii=False), flush=True)
        return outputs

    try:
        if options.json:
            for _ in TASKS[options.task](call_and_print, options.inputs, options):
                pass
        else:
            for line in TASKS[options.task](call, options.inputs, options):
                print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:  # no such file
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
