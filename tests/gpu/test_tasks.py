"""Every task as a user runs it on a GPU: trained for a few steps, exported, verified and called."""

import importlib
import json
import os

from common.serving import check
from common.serving.served import load_export
from common.serving.versions import GRAPH
from tests.tasks import commands
from tests.tasks.exports import TASKS

import numpy as np
import pytest
from tensorflow.core.protobuf import saved_model_pb2

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(480)]

FEW_STEPS = {"--epochs": 1, "--score": "none", "--patience": 1}


def flags(words):
    """Return the flags of the small model of a task, with one epoch and without scoring."""
    words = list(map(str, words))
    for name in FEW_STEPS:
        if name in words:
            place = words.index(name)
            del words[place : place + 2]
    return [*words, *(str(word) for pair in FEW_STEPS.items() for word in pair)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("task", TASKS)
def test_train_export_and_call(task, precision, target, tmp_path):
    own = importlib.import_module(f"tests.tasks.own.{task}")
    own.write_data(tmp_path)
    more = ["--target", target, "--precision", precision]
    done = commands.run(
        f"{task}.train", *flags(own.TRAIN), *more, folder=tmp_path, environment=os.environ
    )
    assert done.returncode == 0, done.stderr[-2000:]
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["task"] == task
    version = tmp_path / facts["model"]
    assert version.parent.name == (f"{task}-gpu" if target == "gpu" else task)

    saved = saved_model_pb2.SavedModel.FromString((version / GRAPH).read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    ops = {node.op for function in functions for node in function.node_def}
    assert any(op.startswith("Cudnn") for op in ops) == (target == "gpu")
    served = load_export(version)
    for record in check.read_records(version):
        inputs = check.to_arrays(record.request.inputs)
        outputs = served.call(record.request.model_spec.signature_name, **inputs)
        expected = check.to_arrays(record.response.outputs)
        assert sorted(outputs) == sorted(expected)
        for name, value in expected.items():
            assert outputs[name].shape == value.shape, name
            if outputs[name].dtype.kind == "f":
                assert np.isfinite(outputs[name]).all() == np.isfinite(value).all(), name
