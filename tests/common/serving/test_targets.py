"""Targets: static cores of a small function, refusals before training, and scans of cores."""

import json
import shutil
import sys

from common import rnn_kernels
from common.commands import cli
from common.errors import ExportError, InputError
from common.serving import targets
from common.serving.models_config import write_models_config
from common.serving.publish import publish
from common.serving.scan import scan
from common.serving.served import load_export
from common.serving.versions import GRAPH, LITERT, latest

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

pytestmark = pytest.mark.serving


def toy(**inputs):
    """Return the cumulative sum of each row, every second step of it, and its last step."""
    x = inputs["x"] * tf.cast(tf.sequence_mask(inputs["length"], tf.shape(inputs["x"])[1]), "float")
    total = tf.cumsum(x, axis=1)
    # As in many layers, the number of steps is not static.
    half = total[:, :: tf.minimum(2, tf.shape(total)[1] + 1)]
    return {"total": total, "half": half, "sum": total[:, -1]}


def static(run=toy, batch=2, lengths=(4, 8)):
    target = targets.Target("tpu", lengths=lengths, batch=batch)
    steps = {"total": targets.same, "half": lambda time: (time + 1) // 2}
    return target, target.core("core", run, timed=["x"], steps=steps)


@pytest.mark.parametrize("rows", [0, 1, 2, 5])
@pytest.mark.parametrize("time", [1, 4, 5, 8, 11])
def test_a_static_core_returns_the_outputs_of_its_function(rows, time):
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(size=(rows, time)), tf.float32)
    length = tf.constant(random.integers(0, min(time, 8) + 1, rows), tf.int32)
    _, core = static()
    expected, outputs = toy(x=x, length=length), tf.function(core)(x=x, length=length)
    for key in expected:
        # After the longest length the outputs of the core are zeros.
        steps = {"total": 8, "half": 4}.get(key)
        compared = (slice(None),) if steps is None else (slice(None), slice(steps))
        np.testing.assert_allclose(outputs[key][compared], expected[key][compared], atol=1e-6)
        assert outputs[key].shape == expected[key].shape


def test_a_row_beyond_the_longest_length_gets_zeros_and_affects_no_other():
    _, core = static()
    outputs = core(x=tf.ones([2, 9]), length=tf.constant([9, 3]))
    np.testing.assert_array_equal(outputs["sum"], [0.0, 3.0])
    np.testing.assert_array_equal(outputs["total"][0], np.zeros(9))


def test_one_function_for_each_length_with_static_shapes():
    target, core = static()
    tf.function(core)(x=tf.ones([3, 2]), length=tf.ones([3], tf.int32))
    assert sorted(target.cores) == ["core_4", "core_8"]
    for length in (4, 8):
        concrete = target.cores[f"core_{length}"].get_concrete_function()
        shapes = {spec.name.split(":")[0]: spec.shape.as_list() for spec in concrete.inputs}
        assert shapes == {"x": [2, length], "length": [2]}


def test_a_core_without_time_runs_over_chunks_of_rows():
    target = targets.Target("tpu", batch=4)
    core = target.core("rows", lambda x: {"y": 2.0 * x})
    np.testing.assert_array_equal(core(x=tf.range(6.0))["y"], 2.0 * np.arange(6))
    assert list(target.cores) == ["rows"]


def test_no_bfloat16_leaves_a_core():
    target = targets.Target("tpu", batch=4)
    core = target.core("rows", lambda x: {"y": tf.cast(x, tf.bfloat16)})
    assert core(x=tf.range(6.0))["y"].dtype == tf.float32


def test_dimensions_other_than_batch_and_time_must_be_static():
    _, core = static(lambda x, length: {"sum": tf.reduce_sum(x, axis=[1, 2])})
    function = tf.function(core)
    with pytest.raises(ValueError, match="'x' of core 'core_4' has no static shape"):
        function.get_concrete_function(
            x=tf.TensorSpec([None, None, None]), length=tf.TensorSpec([None], tf.int32)
        )


def test_other_targets_do_not_change_a_core():
    for name in ("portable", "gpu", "litert"):
        assert targets.Target(name).core("core", toy, timed=["x"]) is toy


# --- Sharing --------------------------------------------------------------------------------------


def sharing(traced):
    """Return two signatures that share a function, which records each of its traces."""

    @targets.shared
    def double(x):
        """Return twice as much."""
        traced.append("portable" if rnn_kernels.is_portable() else "live")
        return {"y": 2.0 * x}

    spec = tf.TensorSpec([None, None], tf.float32, name="x")
    serving_default = tf.function(double, input_signature=[spec])
    tensors = tf.function(lambda x: {"y": double(x)["y"][:, :1]}, input_signature=[spec])
    assert double.__doc__ == "Return twice as much."
    return {"serving_default": serving_default, "tensors": tensors}


def test_an_export_holds_a_shared_function_once_and_no_earlier_trace(tmp_path):
    traced = []
    signatures = sharing(traced)
    live = signatures["serving_default"](tf.ones([1, 2]))["y"]
    x = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    requests = [{"x": x}]
    published = publish(
        signatures,
        model=keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]),
        resources=[],
        examples={"serving_default": requests, "tensors": requests},
        settings={},
        directory=tmp_path / "toy",
    )
    assert traced == ["live", "portable"]
    served = load_export(published)
    np.testing.assert_array_equal(live, 2.0 * np.ones([1, 2]))
    np.testing.assert_array_equal(served.call("serving_default", x=x)["y"], 2.0 * x)
    np.testing.assert_array_equal(served.call("tensors", x=x)["y"], 2.0 * x[:, :1])


# --- Refusals -------------------------------------------------------------------------------------


def test_target_gpu_is_refused_without_a_gpu_before_training(monkeypatch, capsys):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(sys, "argv", ["train"])
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda words: targets.choose("gpu", "sentiment"))
    message = capsys.readouterr().err
    assert stop.value.code == 2 and message.count("\n") == 1
    assert message.startswith("error: --target gpu needs a GPU")


def test_a_task_without_litert_is_refused_with_the_reason():
    assert targets.choose("litert", "sentiment", no_litert=None).name == "litert"
    with pytest.raises(InputError, match=r"^--target litert is not for chess: boards$"):
        targets.choose("litert", "chess", no_litert="boards")
    with pytest.raises(InputError, match=r"^--target litert is not for chess: it has no LiteRT"):
        targets.choose("litert", "chess")


def test_folders_of_targets():
    folders = [targets.Target(name).folder("ner") for name in ("portable", "gpu", "tpu")]
    assert folders == ["ner", "ner-gpu", "ner-tpu"]


def test_a_missing_model_is_reported_with_the_training_command_of_its_target(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tasks.ner.train --output .* --target tpu`"):
        latest(tmp_path / "ner-tpu")


# --- Scans ----------------------------------------------------------------------------------------


def save(folder, target, run):
    """Save a signature around a core; return the folder."""
    core = target.core("core", run, timed=["x"])

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.float32, name="x"),
            tf.TensorSpec([None], tf.int32, name="length"),
        ]
    )
    def tensors(x, length):
        return core(x=x, length=length)

    holder = tf.Module()
    live = {"tensors": tensors.get_concrete_function()}
    holder.cores = target.cores
    options = tf.saved_model.SaveOptions(function_aliases=target.cores)
    tf.saved_model.save(holder, str(folder), signatures=live, options=options)
    return folder


def summed(x, length):
    return {"y": tf.reduce_sum(x, axis=1)}


def through_text(x, length):
    text = tf.strings.as_string(x[:, 0])
    return {"y": tf.strings.to_number(text)}


def test_text_in_a_core_is_refused_with_the_core_named(tmp_path):
    target, _ = static()
    with pytest.raises(ExportError, match=r"String.* of core 'core_[48]' only runs on the host"):
        scan(save(tmp_path, target, through_text), target)


def test_a_valid_core_is_accepted_and_one_without_alias_refused(tmp_path):
    target, _ = static()
    scan(save(tmp_path, target, summed), target)
    target.cores["other"] = None
    with pytest.raises(ExportError, match=r"without a function alias: \['other'\]"):
        scan(tmp_path, target)


def intrude(folder, op, device=""):
    """Add a node to the main graph."""
    path = folder / GRAPH
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    saved.meta_graphs[0].graph_def.node.add(name="intruder", op=op, device=device)
    path.write_bytes(saved.SerializeToString())


def test_cudnn_ops_are_only_for_gpus(tmp_path):
    plain = save(tmp_path / "plain", targets.PORTABLE, summed)
    gpu = targets.Target("gpu")
    with pytest.raises(ExportError, match="no node is a cuDNN op"):
        scan(plain, gpu)
    cudnn = tmp_path / "cudnn"
    shutil.copytree(plain, cudnn)
    intrude(cudnn, "CudnnRNNV3", "/device:GPU:0")
    scan(cudnn, gpu)
    with pytest.raises(ExportError, match=r"'intruder' .CudnnRNNV3. .* is a cuDNN op"):
        scan(cudnn, targets.PORTABLE)
    intrude(cudnn, "Identity", "/device:TPU:0")
    with pytest.raises(ExportError, match=r"'intruder' .Identity. .* is pinned"):
        scan(cudnn, gpu)


def test_the_list_of_models_has_every_target_that_a_server_runs(tmp_path):
    for name in ("ner", "ner-tpu", "sentiment-litert"):
        (tmp_path / name / "1").mkdir(parents=True)
    (tmp_path / "sentiment-litert" / "1" / LITERT).write_bytes(b"")
    listed = write_models_config(tmp_path).read_text()
    assert [json.loads(line.split(":")[1]) for line in listed.splitlines() if "name:" in line] == [
        "ner",
        "ner-tpu",
    ]
