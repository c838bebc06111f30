"""Asks TF Serving about a text, a recording, a DNA sequence, a clip, or for music.

Copy this file wherever it is needed: over REST it uses Python's standard library alone, over gRPC
`tensorflow-serving-api` besides. It prints what a person wants to know of the answer; with `--json`
the answer itself, one JSON object a line.

    python client.py sentiment "A warm and funny film."
    python client.py ner "Ada Lovelace lived in London." --grpc localhost:8500
    python client.py translation "Je ne sais pas." --label stable
    python client.py translation "Je ne sais pas." --json
    python client.py dna AGCCCCTGTGAGGAACTAG
    python client.py speech recording.wav        # 16 bits, mono, 16,000 Hz
    python client.py video clip.ppm              # see below
    python client.py music C4,E4,G4 C4,E4,G4 --steps 14

A clip is a file of PPM pictures one behind the other, which needs no library to be read:
`ffmpeg -i clip.mp4 -vf fps=25 -f image2pipe -c:v ppm clip.ppm`.

Exit codes: 0 done, 1 no answer or a file that cannot be used, 2 wrong flags, 130 stopped by Ctrl-C.
"""

import argparse
import array
import functools
import json
import re
import sys
import urllib.error
import urllib.request
import wave

# --- asking the server ----------------------------------------------------------------------------


def ask_rest(
    url: str,
    model: str,
    inputs: dict,
    *,
    version: int | None = None,
    label: str | None = None,
    signature: str = "serving_default",
) -> dict:
    """Asks over REST: input name -> nested lists, the batch first; answers likewise.

    Example:
      >>> ask_rest("http://localhost:8501", "sentiment", {"text": ["A warm and funny film."]})
      {'label': ['positive'], 'stars': [5], 'probabilities': [[0.02, 0.98]]}
    """
    chosen = f"/versions/{version}" if version else f"/labels/{label}" if label else ""
    body = json.dumps({"signature_name": signature, "inputs": inputs}).encode()
    try:
        with urllib.request.urlopen(f"{url}/v1/models/{model}{chosen}:predict", body) as response:
            outputs = json.load(response)["outputs"]
    except urllib.error.HTTPError as error:
        with error:
            sys.exit(f"error: {json.load(error)['error']}")
    except urllib.error.URLError as error:
        sys.exit(f"error: {url}: {error.reason}")
    return outputs


def ask_grpc(
    address: str,
    model: str,
    inputs: dict,
    *,
    version: int | None = None,
    label: str | None = None,
    signature: str = "serving_default",
) -> dict:
    """The same over gRPC, which carries sound and pictures in a tenth of the bytes."""
    try:
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2
        from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
    except ImportError as error:
        package = (error.name or "a package").partition(".")[0]
        sys.exit(f"error: gRPC needs {package}: pip install tensorflow-serving-api, or use --rest")

    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    if version:
        request.model_spec.version.value = version
    elif label:
        request.model_spec.version_label = label
    with grpc.insecure_channel(address, options=unlimited) as channel:
        stub = PredictionServiceStub(channel)
        try:
            # The model itself says of which types its inputs are. A program asks that once.
            metadata = stub.GetModelMetadata(
                get_model_metadata_pb2.GetModelMetadataRequest(
                    model_spec=request.model_spec, metadata_field=["signature_def"]
                )
            ).metadata["signature_def"]
            signatures = get_model_metadata_pb2.SignatureDefMap.FromString(metadata.value)
            types = signatures.signature_def[signature].inputs
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                proto = tf.make_tensor_proto(value, types[name].dtype)
                request.inputs[name].CopyFrom(proto)
            outputs = stub.Predict(request, timeout=60).outputs
        except grpc.RpcError as error:
            sys.exit(f"error: {error.details()}")
    return {name: decode(tf.make_ndarray(proto).tolist()) for name, proto in outputs.items()}


def decode(value):
    """Nested lists in which bytes have become text."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


# --- the tasks: a request from what a person has, and its answer for a person ---------------------


def sentiment(ask, texts, _):
    """Texts in, their stars out."""
    answer = ask("sentiment", {"text": texts})
    for text, label, stars in zip(texts, answer["label"], answer["stars"], strict=True):
        yield f"{'★' * stars:5}  {label}  {text}" if stars else f"no word in this text: {text!r}"


def ner(ask, texts, _):
    """Texts in, the names in them out."""
    answer = ask("ner", {"text": texts})
    rows = zip(*(answer[name] for name in ("tags", "start", "end")), strict=True)
    for text, row in zip(texts, rows, strict=True):
        entities = []
        for tag, start, end in zip(*row, strict=True):
            if tag.startswith("B-"):
                entities.append((tag[2:], start, end))
            elif tag.startswith("I-"):
                kind, start, _ = entities[-1]
                entities[-1] = (kind, start, end)
        found = ", ".join(f"{text[start:end]} ({kind})" for kind, start, end in entities)
        yield f"{text}  ->  {found or 'no name'}"


def translation(ask, texts, _):
    """Texts in, their translations out."""
    answer = ask("translation", {"text": texts})
    for text, said in zip(texts, answer["translation"], strict=True):
        yield f"{text}  ->  {said or 'nothing to translate'}"


def dna(ask, sequences, _):
    """Sequences in, the label of each base out."""
    answer = ask("dna", {"sequence": sequences})
    for sequence, labels in zip(sequences, answer["labels"], strict=True):
        yield sequence
        yield labels or "no answer: not a sequence of IUPAC letters, or too long"


def speech(ask, paths, _):
    """WAV files in, what was said out; shorter recordings are padded, `length` says how far."""
    sounds = [read_wav(path) for path in paths]
    longest = max(map(len, sounds))
    answer = ask(
        "speech",
        {
            "audio": [sound + [0.0] * (longest - len(sound)) for sound in sounds],
            "length": [len(sound) for sound in sounds],
        },
    )
    for path, text, share in zip(paths, answer["text"], answer["confidence"], strict=True):
        yield f"{path}  {share:4.0%}  {text}" if text else f"{path}: no word heard"


def video(ask, paths, options):
    """Files of pictures in, the activity out."""
    for path in paths:  # one after the other: clips are large
        frames = read_ppm(path)
        answer = ask(
            "video",
            {
                "frames": [frames],
                "length": [len(frames)],
                "size": [[len(frames[0]), len(frames[0][0])]],
                "frame_rate": [options.frame_rate],
            },
        )
        share = max(answer["probabilities"][0])
        yield f"{path}  {share:4.0%}  {answer['activity'][0]}"


def music(ask, chords, options):
    """Chords such as C4,E4,G4 in (or none), the keys of each frame out."""
    prime = [[0.0] * 88 for _ in chords or [""]]  # at least one frame, even if none counts
    for frame, chord in zip(prime, chords, strict=False):
        for key in filter(None, chord.split(",")):
            frame[key_number(key)] = 1.0
    answer = ask(
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
    frames = answer["notes"][0][: answer["length"][0]]
    for number, frame in enumerate(frames):
        keys = " ".join(key_name(key) for key, on in enumerate(frame) if on) or "-"
        yield f"{number + 1:4}  {keys}{'  (given)' if number < len(chords) else ''}"
    if not frames:
        yield "no answer: too many steps, or a temperature or top_p that cannot be"


TASKS = {task.__name__: task for task in (sentiment, ner, translation, dna, speech, video, music)}

# --- files and notes ------------------------------------------------------------------------------


def read_wav(path):
    """The samples of a WAV file of 16 bits, mono, at 16,000 Hz, in -1..1."""
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
    """The pictures of a file of PPMs one behind the other: [time][height][width][3]."""
    frames, at = [], 0
    with open(path, "rb") as file:
        content = file.read()
    while at < len(content):
        header = re.compile(rb"P6\s+(\d+)\s+(\d+)\s+255\s").match(content, at)
        if not header:
            sys.exit(f"error: {path}, byte {at}: no PPM picture (P6, 255) starts here")
        width, height = map(int, header.groups())
        start, at = header.end(), header.end() + 3 * width * height
        pixels = memoryview(content)[start:at]
        if len(pixels) < 3 * width * height:
            sys.exit(f"error: {path}: its last picture is cut off")
        frames.append(pixels.cast("B", (height, width, 3)).tolist())
    if not frames or any(len(f) != height or len(f[0]) != width for f in frames):
        sys.exit(f"error: {path}: no pictures, or not all of one size")
    return frames


NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def key_number(name):
    """Column of a key of the piano: 0 for A0, 39 for C4 (the middle one), 87 for C8."""
    match = re.fullmatch(r"([A-G]#?)(\d)", name)
    key = (
        NAMES.index(match[1]) + 12 * (int(match[2]) + 1) - 21 if match and match[1] in NAMES else -1
    )
    if not 0 <= key < 88:
        sys.exit(f"error: {name!r} is no key from A0 to C8, such as C4 or F#3")
    return key


def key_name(key):
    """The name of a column."""
    return f"{NAMES[(key + 21) % 12]}{(key + 21) // 12 - 1}"


def main(arguments=None):
    """Asks what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("inputs", nargs="*", help="texts, sequences, files or chords")
    parser.add_argument("--rest", default="http://localhost:8501", help="the server (%(default)s)")
    parser.add_argument("--grpc", help="ask by gRPC: host:port, such as localhost:8500")
    parser.add_argument("--version", type=int, help="a version of the model; default the newest")
    parser.add_argument("--label", help="or a label of models.config, such as stable")
    parser.add_argument(
        "--frame_rate", type=float, default=25.0, help="of clips, frames a second (%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=32, help="frames of music (%(default)s)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of music (%(default)s)")
    parser.add_argument("--top_p", type=float, default=1.0, help="of music (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of music (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the answer for a program")
    options = parser.parse_args(arguments)
    if not options.inputs and options.task != "music":
        parser.error(f"{options.task} needs an input")
    one, address = (ask_grpc, options.grpc) if options.grpc else (ask_rest, options.rest)
    ask = functools.partial(one, address, version=options.version, label=options.label)

    def ask_and_print(model, inputs):
        answer = ask(model, inputs)
        print(json.dumps(answer, ensure_ascii=False), flush=True)
        return answer

    try:
        if options.json:
            for _ in TASKS[options.task](ask_and_print, options.inputs, options):
                pass
        else:
            for line in TASKS[options.task](ask, options.inputs, options):
                print(line)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:  # no such file
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
