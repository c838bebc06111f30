"""Publishing: the content of a version, refusals, and interrupted publications."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from common import rnn
from common.errors import ExportError
from common.serving import publish as publishing
from common.serving.publish import disable_cudnn, publish_folder
from common.serving.served import load_export
from common.serving.versions import GRAPH, SETTINGS, find, latest, versions
from tests.common.serving.classifier import IDS, OWN_SETTINGS, TEXTS, nothing_left

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

# --- Content --------------------------------------------------------------------------------------


def test_versions_count_up_and_hold_every_file(published):
    first, second, staged = published
    assert (first.name, second.name) == ("1", "2")
    assert versions(first.parent) == [1, 2]
    assert latest(first.parent) == second
    assert sorted(path.name for path in first.parent.iterdir()) == ["1", "2"]
    for file in (
        "saved_model.pb",
        "variables/variables.index",
        "assets.extra/architecture.json",
        "assets.extra/config.json",
        "assets.extra/tf_serving_warmup_requests",
    ):
        assert (first / file).stat().st_size > 0
    assert staged.parent == first.parent
    assert staged.name.startswith(f".staging-{os.getpid()}-")


def test_every_user_may_read_a_version_under_any_umask(tmp_path):
    def write(staged):
        (staged / "variables").mkdir()
        (staged / "variables" / "data").write_bytes(b"")

    before = os.umask(0o077)
    try:
        version = publish_folder(write, settings={}, directory=tmp_path / "root" / "toy")
    finally:
        os.umask(before)
    root = tmp_path / "root"
    folders = [root, root / "toy", version, version / "variables", version / "assets.extra"]
    for path in (*folders, version / SETTINGS, version / "variables/data", root / "models.config"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o755 if path in folders else 0o644), path


def test_signatures_keep_names_types_and_batch_dimension(published):
    functions = load_export(published.first).functions

    def described(specs):
        return {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in specs.items()}

    signatures = {
        name: [described(f.structured_input_signature[1]), described(f.structured_outputs)]
        for name, f in functions.items()
    }
    text = {"text": ("string", [None])}
    scores = ("float32", [None, 2])
    assert signatures == {
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


def test_the_model_is_made_again_from_the_export_equal_and_without_optimizer(task, published):
    reloaded = find(published.first).model
    for ours, theirs in zip(task.model.weights, reloaded.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert not reloaded.compiled
    assert task.model.compiled
    assert int(task.model.optimizer.iterations.numpy()) == 2


def test_only_the_variables_of_the_model_are_saved(task, published):
    listed = tf.train.list_variables(str(published.first / "variables" / "variables"))
    values = [np.prod(shape) for name, shape in listed if name.endswith("VARIABLE_VALUE")]
    assert sum(values) == sum(np.prod(v.shape) for v in task.model.variables)  # no optimizer


def test_settings_round_trip(published):
    assert load_export(published.first).settings == OWN_SETTINGS
    assert "größer" in (published.first / SETTINGS).read_text(encoding="utf-8")


def test_warm_up_records_hold_every_request(task, published):
    path = published.first / "assets.extra" / "tf_serving_warmup_requests"
    requests = []
    for record in tf.data.TFRecordDataset(str(path)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.name == "toy"
        inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        requests.append((request.model_spec.signature_name, inputs))
        assert log.predict_log.response.outputs
    assert [name for name, _ in requests] == [
        name for name, examples in task.examples.items() for _ in examples
    ]
    assert requests[0][1]["text"].tolist() == [text.encode() for text in TEXTS]
    np.testing.assert_array_equal(requests[2][1]["ids"], IDS)
    assert requests[3][1]["text"].tolist() == [b"a", b"\xff bad bytes"]


def test_cudnn_is_off_while_tracing_and_restored(task, tmp_path, unverified):
    *_, both, gru, _ = task.model.layers
    recurrent = [both.forward_layer, both.backward_layer, gru]
    recurrent[0].use_cudnn = True
    before = [layer.use_cudnn for layer in recurrent]
    settings = []

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def explain(text):
        settings.append({layer.use_cudnn for layer in recurrent})
        return {"text": text}

    # An earlier trace, as by evaluation during training: publishing must trace it again.
    explain(tf.constant(["a"]))
    try:
        task.publish(tmp_path / "toy", signatures={**task.signatures, "explain": explain})
        assert settings == [{True, "auto"}, {False}]
        assert [layer.use_cudnn for layer in recurrent] == before
        with pytest.raises(KeyError), disable_cudnn(task.model):
            raise KeyError
        assert [layer.use_cudnn for layer in recurrent] == before
    finally:
        recurrent[0].use_cudnn = "auto"


class Holder(keras.layers.Layer):
    """Holds layers in every way that Keras tracks."""

    def __init__(self):
        super().__init__()
        self.cell = keras.layers.RNN(keras.layers.StackedRNNCells([keras.layers.LSTMCell(2)]))
        self.in_a_list = [keras.layers.GRU(2), [keras.layers.LSTM(2)]]
        self.in_a_dict = {"a": keras.layers.TimeDistributed(keras.layers.LSTM(2))}
        self.in_a_tuple = (rnn.stack("gru", 2, 2, bidirectional=True),)
        self.again = self.in_a_list[0]
        self.model = keras.Sequential([keras.layers.GRU(2), keras.layers.Dense(2)])


def test_cudnn_is_off_in_nested_layers():
    holder = Holder()
    deep = holder.in_a_tuple[0]
    recurrent = [holder.in_a_list[0], holder.in_a_list[1][0], holder.in_a_dict["a"].layer]
    recurrent += [half for la in deep.layers for half in (la.forward_layer, la.backward_layer)]
    recurrent.append(holder.model.layers[0])
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, keras.Sequential([keras.layers.LSTM(2)])(inputs))
    recurrent.append(model.layers[-1].layers[0])
    assert {layer.use_cudnn for layer in recurrent} == {"auto"}
    with disable_cudnn(holder, model, "no layer"):
        assert [layer.use_cudnn for layer in recurrent] == [False] * 9
        assert not hasattr(holder.cell, "use_cudnn")
    assert {layer.use_cudnn for layer in recurrent} == {"auto"}


# --- Refusals -------------------------------------------------------------------------------------


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
def test_invalid_functions_are_refused(task, tmp_path, body, message):
    with pytest.raises(ExportError, match=message):
        task.publish(
            tmp_path / "toy", signatures={**task.signatures, "explain": text_function(body)}
        )
    assert nothing_left(tmp_path / "toy")


def test_a_resource_that_holds_the_model_is_refused(task, tmp_path):
    holder = tf.Module()
    holder.table, holder.model = task.table, task.model
    with pytest.raises(ExportError, match="`resources` hold the optimizer of a model"):
        task.publish(tmp_path / "toy", resources=[holder])
    assert nothing_left(tmp_path / "toy")


def test_an_untracked_table_is_refused_with_advice(task, tmp_path):
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
def test_incomplete_arguments_are_refused(task, tmp_path, change, message):
    signatures, examples = dict(task.signatures), dict(task.examples)
    change(signatures, examples)
    with pytest.raises(ExportError, match=message):
        task.publish(tmp_path / "toy", signatures=signatures, examples=examples)
    assert nothing_left(tmp_path / "toy")


@pytest.mark.parametrize(("value", "error"), [(float("nan"), ValueError), (object(), TypeError)])
def test_settings_that_json_cannot_hold_are_refused(task, tmp_path, value, error):
    with pytest.raises(error):
        task.publish(tmp_path / "toy", settings={"x": value})
    assert nothing_left(tmp_path / "toy")


# --- Interruptions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError, KeyboardInterrupt, OSError(errno.ENOSPC, "No space left")]
)
def test_a_failing_write_publishes_nothing(tmp_path, error):
    def write(staged):
        assert json.loads((staged / SETTINGS).read_text(encoding="utf-8")) == OWN_SETTINGS
        raise error

    with pytest.raises(error if isinstance(error, type) else OSError):
        publish_folder(write, settings=OWN_SETTINGS, directory=tmp_path / "toy")
    assert nothing_left(tmp_path / "toy")


def test_a_failing_finish_publishes_nothing(task, tmp_path, unverified):
    def finish(staged):
        assert load_export(staged).settings == OWN_SETTINGS
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        task.publish(tmp_path / "toy", finish=finish)
    assert nothing_left(tmp_path / "toy")


def test_a_full_disk_is_an_os_error_and_leaves_nothing(task, tmp_path, monkeypatch):
    def save(holder, path, signatures, options):
        Path(path, "half").write_text("written")
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", save)
    with pytest.raises(OSError, match="No space left") as caught:
        task.publish(tmp_path / "toy")
    assert caught.value.errno == errno.ENOSPC
    assert nothing_left(tmp_path / "toy")


def publish_file(directory):
    return publish_folder(
        lambda staged: (staged / GRAPH).write_bytes(b"ours"), settings={}, directory=directory
    )


def test_folders_of_ended_processes_are_removed(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    host = socket.gethostname()
    gone = tmp_path / "toy" / f".staging-{ended.pid}-{host}-0a"
    old = tmp_path / "toy" / f".staging-1-{host}-0a"
    kept = [
        tmp_path / "toy" / name
        for name in (f".staging-{os.getpid()}-{host}-0a", f".staging-{ended.pid}-other-{host}-0a")
    ]
    for folder in (gone, old, *kept):
        (folder / "assets").mkdir(parents=True)
    for path in (old / "assets", old):
        os.utime(path, (time.time() - 25 * 60 * 60,) * 2)
    assert publish_file(tmp_path / "toy").name == "1"
    assert not gone.exists() and not old.exists() and all(folder.exists() for folder in kept)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)]
)
def test_a_signal_ends_a_publication_and_leaves_nothing(tmp_path, number, code):
    program = textwrap.dedent(f"""
        import pathlib, signal, time
        from common.serving.publish import publish_folder

        def write(staged):
            print(staged.is_dir(), flush=True)
            time.sleep(100)

        # A shell starts its background commands with SIGINT ignored, and so their children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        directory = pathlib.Path({str(tmp_path / "toy")!r})
        publish_folder(write, settings={{}}, directory=directory)
    """)
    environment = {**os.environ, "PYTHONPATH": str(Path(publishing.__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout.readline() == b"True\n"
        process.send_signal(number)
        assert process.wait(60) == code
    assert nothing_left(tmp_path / "toy")


def test_sigterm_keeps_its_handler(tmp_path):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        publish_folder(
            lambda staged: os.kill(os.getpid(), signal.SIGTERM),
            settings={},
            directory=tmp_path / "toy",
        )
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with pytest.raises(SystemExit, match="143"):
            publish_folder(
                lambda staged: signal.raise_signal(signal.SIGTERM),
                settings={},
                directory=tmp_path / "toy",
            )
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert versions(tmp_path / "toy") == [1]


@pytest.mark.commands  # the parts of it are tested above
def test_a_killed_process_publishes_nothing_and_its_files_are_removed(task, tmp_path, unverified):
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


def test_a_version_number_taken_by_another_process_is_skipped(tmp_path):
    directory = tmp_path / "toy"

    def write(staged):
        (staged / GRAPH).write_bytes(b"ours")
        (directory / "7").mkdir()
        (directory / "7" / "saved_model.pb").write_bytes(b"theirs")
        taken.append(True)

    taken = []
    (directory / "6").mkdir(parents=True)
    (directory / "run").mkdir()
    assert publish_folder(write, settings={}, directory=directory) == directory / "8"
    assert taken
    assert (directory / "7" / "saved_model.pb").read_bytes() == b"theirs"
    assert versions(directory) == [6, 7, 8]


# --- The list of models ---------------------------------------------------------------------------


def test_publishing_adds_a_model_to_the_list(tmp_path):
    assert not (tmp_path / "models.config").exists()
    publish_file(tmp_path / "demo")
    assert 'base_path: "/models/demo"' in (tmp_path / "models.config").read_text()


def test_a_version_stands_although_the_list_is_invalid(tmp_path, capsys):
    (tmp_path / "models.config").write_text("invalid {")
    assert publish_file(tmp_path / "demo") == tmp_path / "demo" / "1"
    assert 'add\n  config {\n    name: "demo"' in capsys.readouterr().err
    (tmp_path / "models.config").write_text("")  # corrected: the next publication adds both
    publish_file(tmp_path / "toy")
    written = (tmp_path / "models.config").read_text()
    assert "/models/demo" in written and "/models/toy" in written
