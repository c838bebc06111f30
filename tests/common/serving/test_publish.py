"""Publishing: what is in a version, what is refused, and what a crash leaves behind."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

from common.errors import ExportError
from common.serving import check
from common.serving import publish as publishing
from common.serving.publish import (
    WARM_UP,
    disable_cudnn,
    publish,
    verify,
    write_models_config,
)
from common.serving.scan import scan
from common.serving.served import GRAPH, SETTINGS, latest, load_export, versions

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

WORDS = ("", "a", "film", "good", "bad", "élan")  # 0 pads; an unknown word is 6
TEXTS = np.array(["a good film", "bad", "", "élan vital " * 9], dtype=object)
IDS = np.array([[1, 3, 2, 0], [4, 0, 0, 0], [5, 6, 5, 6]], np.int32)
LENGTH = np.array([3, 1, 4], np.int32)
OWN_SETTINGS = {"labels": ["schlecht", "größer"], "config": {"units": 3, "rate": 0.5, "none": None}}


class Task(NamedTuple):
    """A text classifier as a task would make it: ids to probabilities, wrapped in text handling."""

    model: keras.Model
    table: tf.lookup.StaticHashTable
    signatures: dict
    examples: dict

    def publish(self, directory: Path, **changed) -> Path:
        arguments = {
            "model": self.model,
            "resources": [self.table],
            "examples": self.examples,
            "settings": OWN_SETTINGS,
            "directory": directory,
        }
        signatures = changed.pop("signatures", self.signatures)
        return publish(signatures, **{**arguments, **changed})


def make_task() -> Task:
    keras.utils.set_random_seed(1)
    ids = keras.Input([None], dtype="int32", name="ids")
    length = keras.Input([], dtype="int32", name="length")
    mask = keras.layers.Lambda(
        lambda x: tf.sequence_mask(x[1], tf.shape(x[0])[1]), output_shape=(None,)
    )([ids, length])
    x = keras.layers.Embedding(7, 4)(ids)
    x = keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True))(x, mask=mask)
    x = keras.layers.GRU(3)(x, mask=mask)
    outputs = {"probabilities": keras.layers.Dense(2, activation="softmax")(x)}
    model = keras.Model({"ids": ids, "length": length}, outputs)
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    truth = np.eye(2, dtype=np.float32)[[1, 0, 1]]
    model.fit({"ids": IDS, "length": LENGTH}, {"probabilities": truth}, epochs=2, verbose=0)

    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(WORDS), tf.range(len(WORDS))), len(WORDS)
    )
    names = tf.constant(OWN_SETTINGS["labels"])

    def probabilities(ids, length):
        return model({"ids": ids, "length": length}, training=False)["probabilities"]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serving_default(text):
        tokens = tf.strings.split(text)
        scores = probabilities(
            table.lookup(tf.pad(tokens.to_tensor(), [[0, 0], [0, 1]])),
            tf.cast(tokens.row_lengths(), tf.int32),
        )
        best = tf.argmax(scores, axis=-1, output_type=tf.int32)
        return {"label": tf.gather(names, best), "class": best, "probabilities": scores}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int32, name="ids"),
            tf.TensorSpec([None], tf.int32, name="length"),
        ]
    )
    def tensors(ids, length):
        return {"probabilities": probabilities(ids, length)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def explain(text):
        return {"tokens": tf.strings.split(text).to_tensor()}

    return Task(
        model,
        table,
        {"serving_default": serving_default, "tensors": tensors, "explain": explain},
        {
            "serving_default": [{"text": TEXTS}, {"text": np.array(["good film"])}],
            "tensors": [{"ids": IDS, "length": LENGTH}],
            "explain": [{"text": np.array([b"a", b"\xff bad bytes"])}, {"text": TEXTS[:1]}],
        },
    )


@pytest.fixture(scope="module")
def task():
    return make_task()


class Published(NamedTuple):
    """Two versions of one task, and what was seen on the way."""

    first: Path
    second: Path
    facts: dict  # of the verification of the first; the second went without
    staged: Path  # where `finish` of the second was called


@pytest.fixture(scope="module")
def published(task, tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved_models") / "toy"
    facts, staged = {}, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "verify", lambda *arguments: facts.update(verify(*arguments)))
        first = task.publish(directory)
        patch.setattr(publishing, "verify", lambda *arguments: None)
        second = task.publish(directory, finish=staged.append)
    return Published(first, second, facts, staged[0])


@pytest.fixture
def copy(published, tmp_path):
    """A published version that a test may damage."""
    return Path(shutil.copytree(published.first, tmp_path / "1"))


@pytest.fixture
def unverified(monkeypatch):
    """Leaves out the check in a new process, for tests of what happens around it."""
    monkeypatch.setattr(publishing, "verify", lambda *arguments: None)


def nothing_left(directory: Path) -> bool:
    return not directory.exists() or not list(directory.iterdir())


def damage(folder: Path, change) -> None:
    """Changes the saved_model.pb in `folder` with `change(meta_graph)`."""
    path = folder / GRAPH
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(saved.meta_graphs[0])
    path.write_bytes(saved.SerializeToString())


# --- What is published ---------------------------------------------------------------------------


def test_versions_count_up_and_hold_every_file(published):
    first, second, _, staged = published
    assert (first.name, second.name) == ("1", "2")
    assert versions(first.parent) == [1, 2]
    assert latest(first.parent) == second
    assert sorted(path.name for path in first.parent.iterdir()) == ["1", "2"]
    for file in (
        "saved_model.pb",
        "variables/variables.index",
        "model.keras",
        "assets.extra/config.json",
        "assets.extra/tf_serving_warmup_requests",
    ):
        assert (first / file).stat().st_size > 0
    assert staged.parent == first.parent
    assert staged.name.startswith(f".staging-{os.getpid()}-")
    assert first.stat().st_mode & 0o077 == 0o077 & ~current_umask()  # a server may read it


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_signatures_keep_names_types_and_batch_dimension(published):
    functions = load_export(published.first).functions

    def described(specs):
        return {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in specs.items()}

    got = {
        name: [described(f.structured_input_signature[1]), described(f.structured_outputs)]
        for name, f in functions.items()
    }
    text = {"text": ("string", [None])}
    scores = ("float32", [None, 2])
    assert got == {
        "serving_default": [
            text,
            {"label": ("string", [None]), "class": ("int32", [None]), "probabilities": scores},
        ],
        "tensors": [
            {"ids": ("int32", [None, None]), "length": ("int32", [None])},
            {"probabilities": scores},
        ],
        "explain": [text, {"tokens": ("string", [None, None])}],
    }


def test_loaded_answers_equal_the_live_model(task, published):
    served = load_export(published.second)
    live = task.model.predict({"ids": IDS, "length": LENGTH}, verbose=0)["probabilities"]
    answer = served.call("tensors", ids=IDS, length=LENGTH)["probabilities"]
    np.testing.assert_allclose(answer, live, rtol=0, atol=1e-6)

    # The same three sequences as text, so that vocabulary and splitting are looked at as well.
    texts = ["a good film", "bad", "élan x élan y"]
    answer = served.call("serving_default", text=texts)
    np.testing.assert_allclose(answer["probabilities"], live, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(answer["class"], live.argmax(axis=1))
    assert [label.decode() for label in answer["label"]] == [
        OWN_SETTINGS["labels"][k] for k in live.argmax(axis=1)
    ]
    tokens = served.call("explain", text=["a  b", "c"])["tokens"]
    assert tokens.tolist() == [[b"a", b"b"], [b"c", b""]]


def test_junk_beyond_length_changes_nothing(published):
    served = load_export(published.first)
    plain = served.call("tensors", ids=IDS, length=LENGTH)["probabilities"]
    junk = np.where(np.arange(9) < LENGTH[:, None], np.pad(IDS, [(0, 0), (0, 5)]), 5)
    padded = served.call("tensors", ids=junk, length=LENGTH)["probabilities"]
    np.testing.assert_allclose(padded, plain, rtol=0, atol=1e-6)


def test_keras_file_reloads_equal_and_without_optimizer(task, published):
    reloaded = keras.models.load_model(published.first / "model.keras", safe_mode=False)
    for ours, theirs in zip(task.model.weights, reloaded.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert not reloaded.compiled
    assert task.model.compiled
    assert int(task.model.optimizer.iterations.numpy()) == 2


def test_saved_variables_are_the_model_s_alone(task, published):
    listed = tf.train.list_variables(str(published.first / "variables" / "variables"))
    values = [np.prod(shape) for name, shape in listed if name.endswith("VARIABLE_VALUE")]
    assert sum(values) == sum(np.prod(v.shape) for v in task.model.variables)  # no optimizer


def test_settings_round_trip(published):
    assert load_export(published.first).settings == OWN_SETTINGS
    assert "größer" in (published.first / SETTINGS).read_text(encoding="utf-8")


def test_warm_up_records_carry_every_request(task, published):
    path = published.first / "assets.extra" / "tf_serving_warmup_requests"
    asked = []
    for record in tf.data.TFRecordDataset(str(path)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.name == "toy"
        inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        asked.append((request.model_spec.signature_name, inputs))
        assert log.predict_log.response.outputs
    assert [name for name, _ in asked] == [
        name for name, examples in task.examples.items() for _ in examples
    ]
    assert asked[0][1]["text"].tolist() == [text.encode() for text in TEXTS]
    np.testing.assert_array_equal(asked[2][1]["ids"], IDS)
    assert asked[3][1]["text"].tolist() == [b"a", b"\xff bad bytes"]


def test_both_loaders_were_asked_strings_and_numbers(published):
    facts = published.facts
    assert facts["requests"] == {"serving_default": 2, "tensors": 1, "explain": 2}
    assert set(facts["largest_difference"]) == {"python", "c++"}
    assert max(facts["largest_difference"].values()) < 1e-6


def test_cudnn_is_off_while_tracing_and_put_back(task, tmp_path, unverified):
    recurrent = [la for la in task.model._flatten_layers() if hasattr(la, "use_cudnn")]
    assert len(recurrent) >= 3  # both directions, and the GRU behind them
    recurrent[0].use_cudnn = True
    before = [layer.use_cudnn for layer in recurrent]
    seen = []

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def explain(text):
        seen.append({layer.use_cudnn for layer in recurrent})
        return {"text": text}

    # Traced before, as evaluation during training may: publishing must trace it again.
    explain(tf.constant(["a"]))
    try:
        task.publish(tmp_path / "toy", signatures={**task.signatures, "explain": explain})
        assert seen == [{True, "auto"}, {False}]
        assert [layer.use_cudnn for layer in recurrent] == before
        with pytest.raises(KeyError), disable_cudnn(task.model):
            raise KeyError
        assert [layer.use_cudnn for layer in recurrent] == before
    finally:
        recurrent[0].use_cudnn = "auto"


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "device", "message"),
    [
        ("CudnnRNNV3", "", "'intruder' .CudnnRNNV3. of {where} is a cuDNN op"),
        ("EagerPyFunc", "", "'intruder' .EagerPyFunc. of {where} is Python code"),
        ("FastWordpiece", "", "'intruder' .FastWordpiece. of {where} is an op that TensorFlow"),
        ("Identity", "/device:GPU:0", "'intruder' .Identity. of {where} is pinned .*GPU:0"),
        ("Identity", "/job:worker/device:TPU:1", "'intruder' .Identity. of {where} is pinned"),
    ],
)
@pytest.mark.parametrize("place", ["graph", "function"])
def test_scan_refuses_what_a_server_cannot_run(copy, op, device, message, place):
    where = []

    def intrude(meta_graph):
        function = meta_graph.graph_def.library.function[0]
        nodes = meta_graph.graph_def.node if place == "graph" else function.node_def
        nodes.add(name="intruder", op=op, device=device)
        where.append(
            "the main graph" if place == "graph" else f"function {function.signature.name!r}"
        )

    scan(copy)  # as published, nothing is wrong
    damage(copy, intrude)
    with pytest.raises(ExportError, match=message.format(where=re.escape(where[0]))):
        scan(copy)


@pytest.mark.parametrize("attribute", ["_XlaMustCompile", "_XlaCompile"])
@pytest.mark.parametrize("place", ["node", "function"])
def test_scan_refuses_what_xla_would_compile(copy, attribute, place):
    def mark(meta_graph, value):
        function = meta_graph.graph_def.library.function[0]
        holder = function if place == "function" else function.node_def[0]
        holder.attr[attribute].b = value

    damage(copy, lambda meta_graph: mark(meta_graph, False))
    scan(copy)  # says that it is not
    damage(copy, lambda meta_graph: mark(meta_graph, True))
    with pytest.raises(ExportError, match="compiled by XLA"):
        scan(copy)


@pytest.mark.parametrize(
    ("kind", "shape", "dtype", "message"),
    [
        ("input", [], tf.int32, "input 'seed' .* batch"),
        ("input", [3], tf.int32, "input 'seed' .*shape .3,.* batch"),
        ("input", None, tf.int32, "input 'seed' .*unknown.* batch"),
        ("output", [], tf.float32, "output 'seed' .* batch"),
        ("output", [1, None], tf.float32, "output 'seed' .* batch"),
        ("output", [None], tf.bfloat16, "output 'seed' of signature 'tensors' is bfloat16"),
    ],
)
def test_scan_refuses_what_a_server_cannot_batch(copy, kind, shape, dtype, message):
    def add(meta_graph):
        signature = meta_graph.signature_def["tensors"]
        info = (signature.inputs if kind == "input" else signature.outputs)["seed"]
        info.dtype = dtype.as_datatype_enum
        info.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())

    damage(copy, add)
    with pytest.raises(ExportError, match=message):
        scan(copy)


def text_function(body):
    return tf.function(body, input_signature=[tf.TensorSpec([None], tf.string, name="text")])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            lambda text: {"n": tf.reshape(tf.numpy_function(len, [text], tf.int64), [-1])},
            "PyFunc.* is Python code",
        ),
        (lambda text: {"n": tf.size(text)}, "output 'n' of signature 'explain' has shape"),
        (lambda text: {"n": tf.zeros(tf.shape(text), tf.bfloat16)}, "'n' .* is bfloat16"),
        (lambda text: text, "'explain' must return a dict"),
    ],
)
def test_publish_refuses_a_bad_function(task, tmp_path, body, message):
    with pytest.raises(ExportError, match=message):
        task.publish(
            tmp_path / "toy", signatures={**task.signatures, "explain": text_function(body)}
        )
    assert nothing_left(tmp_path / "toy")


def test_publish_names_the_way_out_of_an_untracked_table(task, tmp_path):
    with pytest.raises(ExportError, match="nor in `resources`"):
        task.publish(tmp_path / "toy", resources=[])
    assert nothing_left(tmp_path / "toy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, e: s.pop("tensors"), "signature 'tensors' is missing"),
        (lambda s, e: e.pop("explain"), "'explain' needs an example"),
        (
            lambda s, e: e.update(explain=[{"txt": TEXTS}]),
            r"takes \['text'\], an example \['txt'\]",
        ),
        (lambda s, e: e.update(other=[{}]), r"examples for \['other'\]"),
        (lambda s, e: s.update(explain=tf.function(lambda x: x)), "named TensorSpecs"),
    ],
)
def test_publish_refuses_incomplete_arguments(task, tmp_path, change, message):
    signatures, examples = dict(task.signatures), dict(task.examples)
    change(signatures, examples)
    with pytest.raises(ExportError, match=message):
        task.publish(tmp_path / "toy", signatures=signatures, examples=examples)
    assert nothing_left(tmp_path / "toy")


@pytest.mark.parametrize(("value", "error"), [(float("nan"), ValueError), (object(), TypeError)])
def test_publish_refuses_settings_that_json_cannot_hold(task, tmp_path, value, error):
    with pytest.raises(error):
        task.publish(tmp_path / "toy", settings={"x": value})
    assert nothing_left(tmp_path / "toy")


# --- What the verification notices ---------------------------------------------------------------


def test_verification_notices_other_weights(copy, tmp_path, task, monkeypatch):
    weights = task.model.get_weights()
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "verify", lambda *arguments: None)
        task.model.set_weights([2 * weight for weight in weights])
        try:
            other = task.publish(tmp_path / "other")
        finally:
            task.model.set_weights(weights)
    shutil.copytree(other / "variables", copy / "variables", dirs_exist_ok=True)
    with pytest.raises(ExportError, match=r"python loader, record 0, .*the live model's by"):
        verify(copy)


def change_record(folder: Path, signature: str, change) -> None:
    path = folder / WARM_UP
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(path))
    ]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for log in logs:
            if log.predict_log.request.model_spec.signature_name == signature:
                change(log.predict_log)
            writer.write(log.SerializeToString())


def test_verification_notices_another_answer(copy, published):
    def spoil(log):
        answer = tf.make_ndarray(log.response.outputs["tokens"])
        answer[0, 0] += b"!"
        log.response.outputs["tokens"].CopyFrom(tf.make_tensor_proto(answer))

    change_record(copy, "explain", spoil)
    with pytest.raises(ExportError, match="signature 'explain': output 'tokens' differs"):
        verify(copy)


def test_verification_notices_what_only_the_cpp_loader_sees(copy):
    def swap(meta_graph):  # Python finds outputs in the saved objects, a server in the signature
        outputs = meta_graph.signature_def["serving_default"].outputs
        outputs["label"].name, outputs["class"].name = outputs["class"].name, outputs["label"].name

    damage(copy, swap)
    with pytest.raises(ExportError, match=r"c\+\+ loader, record 0.*'(label|class)' differs"):
        verify(copy)


def test_cpp_loader_takes_and_gives_strings_of_any_length(copy):
    signatures = check.read_signatures(copy)
    ask = check.load_in_cpp(copy, signatures)
    long = np.array([b"short", b"much longer than the 22 bytes that fit inline", b""], object)
    tokens = ask("explain", {"text": long})["tokens"]
    assert tokens.tolist()[1] == long[1].split()
    assert tokens.shape == (3, 9)
    empty = ask("explain", {"text": np.empty([0], object)})["tokens"]
    assert empty.shape[0] == 0
    numbers = ask("tensors", {"ids": IDS, "length": LENGTH})["probabilities"]
    assert numbers.dtype == np.float32
    np.testing.assert_allclose(numbers.sum(axis=1), 1, atol=1e-6)
    with pytest.raises(RuntimeError, match=r"C\+\+ loader: "):
        ask("tensors", {"ids": IDS[:, :, None], "length": LENGTH})
    with pytest.raises(RuntimeError, match=r"C\+\+ loader: "):
        check.load_in_cpp(copy / "assets.extra", signatures)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, 4.0], [1.0, 5.0], 0.2),
        ([0.0, 1e-5], [0.0, 0.0], 1e-3),  # of 0.01, not of zero
        ([np.nan, np.inf, 1.0], [np.nan, np.inf, 1.0], 0.0),
        ([np.nan, 1.0], [0.0, 1.0], np.inf),
        ([0.0, 1.0], [np.nan, 1.0], np.inf),
        ([1.0, np.inf], [1.0, -np.inf], np.inf),
        ([1, 2], [1, 3], np.inf),
        ([1, 2], [1.0, 2.0], np.inf),
        ([1.0, 2.0], [[1.0, 2.0]], np.inf),
        ([], [], 0.0),
    ],
)
def test_difference(a, b, expected):
    assert check.difference(np.array(a), np.array(b)) == pytest.approx(expected)


def test_check_without_an_export_says_so(tmp_path):
    with pytest.raises(ExportError, match="verification failed: FileNotFoundError"):
        verify(tmp_path)


# --- What an interruption leaves -----------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError, KeyboardInterrupt, OSError(errno.ENOSPC, "No space left")]
)
def test_failing_finish_publishes_nothing(task, tmp_path, unverified, error):
    def finish(staged):
        assert load_export(staged).settings == OWN_SETTINGS
        raise error

    with pytest.raises(error if isinstance(error, type) else OSError):
        task.publish(tmp_path / "toy", finish=finish)
    assert nothing_left(tmp_path / "toy")


def test_full_disk_is_an_os_error_and_leaves_nothing(task, tmp_path, monkeypatch):
    def save(holder, path, signatures, options):
        Path(path, "half").write_text("written")
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", save)
    with pytest.raises(OSError, match="No space left") as caught:
        task.publish(tmp_path / "toy")
    assert caught.value.errno == errno.ENOSPC
    assert nothing_left(tmp_path / "toy")


def test_killed_process_publishes_nothing_and_is_cleaned_up(task, tmp_path, unverified):
    marker, directory = tmp_path / "marker", tmp_path / "toy"
    program = textwrap.dedent(f"""
        import pathlib, time, keras, tensorflow as tf
        from common.serving import publish as publishing

        model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
        function = tf.function(
            lambda x: {{"y": model(x)}},
            input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")],
        )

        def finish(staged):
            pathlib.Path({str(marker)!r}).write_text(staged.name)
            time.sleep(600)

        publishing.verify = lambda *arguments: None
        names = ("serving_default", "tensors")
        publishing.publish(
            dict.fromkeys(names, function), model=model, resources=[], settings={{}},
            examples=dict.fromkeys(names, [{{"x": [[1.0, 2.0]]}}]), finish=finish,
            directory=pathlib.Path({str(directory)!r}),
        )
    """)
    environment = {**os.environ, "PYTHONPATH": str(Path(publishing.__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        deadline = time.monotonic() + 120
        while not (marker.exists() and marker.read_text()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        alive = directory / marker.read_text()
        assert (alive / GRAPH).exists()
        assert versions(directory) == []
        with pytest.raises(FileNotFoundError, match="no published model"):
            load_export(directory)

        assert task.publish(directory).name == "1"
        assert alive.exists()  # its process still runs
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert alive.exists()
    elsewhere = directory / f".staging-{process.pid}-another-host-0a"
    elsewhere.mkdir()
    assert task.publish(directory).name == "2"
    assert not alive.exists()
    assert elsewhere.exists()


def test_version_taken_by_another_process_in_between(task, tmp_path, unverified):
    directory = tmp_path / "toy"

    def finish(staged):
        (directory / "7").mkdir()
        (directory / "7" / "saved_model.pb").write_bytes(b"theirs")
        taken.append(True)

    taken = []
    (directory / "6").mkdir(parents=True)
    (directory / "run").mkdir()
    assert task.publish(directory, finish=finish) == directory / "8"
    assert taken
    assert (directory / "7" / "saved_model.pb").read_bytes() == b"theirs"
    assert versions(directory) == [6, 7, 8]


# --- Loading -------------------------------------------------------------------------------------


def test_load_takes_a_version_or_the_newest(published):
    first, second, _, _ = published
    assert load_export(first).path == first
    assert load_export(first.parent).path == second


@pytest.mark.parametrize(
    "make", [lambda path: None, lambda path: (path / "run").mkdir(parents=True)]
)
def test_load_of_nothing_says_how_to_train(tmp_path, make):
    make(tmp_path / "saved_models" / "ner")
    message = r"ner holds no published model.*`python -m tasks\.ner\.train --output .*saved_models`"
    for find in (latest, load_export):
        with pytest.raises(FileNotFoundError, match=message):
            find(tmp_path / "saved_models" / "ner")


@pytest.mark.parametrize("lost", ["saved_model.pb", "assets.extra/config.json"])
def test_load_of_half_an_export_names_what_is_missing(copy, lost):
    (copy / lost).unlink()
    with pytest.raises(ExportError, match=f"is no export .* lacks {lost}"):
        load_export(copy)
    with pytest.raises(ExportError, match=f"is no export .* lacks {lost}"):
        load_export(copy.rename(copy.parent / "downloaded"))


def test_ask_names_what_there_is(published):
    served = load_export(published.first)
    with pytest.raises(ExportError, match=r"no 'beam', only .'explain', 'serving_default'"):
        served.call("beam", text=TEXTS)
    with pytest.raises(ExportError, match=r"'tensors' takes \['ids', 'length'\], not"):
        served.call("tensors", ids=IDS)


def test_the_servers_list_names_what_has_a_version_and_nothing_else(tmp_path):
    for folder in ("ner/1", "ner/2", "dna/run", "music/.staging-1-host-aa", "sentiment/10"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "README.md").write_text("")
    path = write_models_config(tmp_path)
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(path.read_text(), config)
    listed = {model.name: model.base_path for model in config.model_config_list.config}
    assert listed == {"ner": "/models/ner", "sentiment": "/models/sentiment"}
    assert {model.model_platform for model in config.model_config_list.config} == {"tensorflow"}
    assert os.listdir(tmp_path).count("models.config.partial") == 0


def test_publishing_puts_a_model_on_the_servers_list(task, tmp_path, unverified):
    assert not (tmp_path / "models.config").exists()
    task.publish(tmp_path / "demo")
    assert 'base_path: "/models/demo"' in (tmp_path / "models.config").read_text()
