"""The numeric signature of each export in OpenVINO, which shares no kernel with TensorFlow.

    python -m pytest -n 0 tests -m triton
"""

from common.serving import check
from tests.tasks.exports import TASKS
from tests.triton.server import run

import pytest

pytestmark = [pytest.mark.triton, pytest.mark.timeout(3600)]


def call(python, version, signature):
    """Return the records of a signature, and their outputs in OpenVINO or its error."""
    records = [
        tuple(check.to_arrays(x) for x in (record.request.inputs, record.response.outputs))
        for record in check.read_records(version)
        if record.request.model_spec.signature_name == signature
    ]
    job = {"export": str(version), "signature": signature}
    return records, run(python, "openvino_runtime.py", {**job, "requests": [x for x, _ in records]})


@pytest.mark.parametrize("task", TASKS)
def test_openvino_returns_the_recorded_outputs(task, python, root):
    records, results = call(python, root / task / "1", "tensors")
    assert isinstance(results, list), results
    for (inputs, recorded), outputs in zip(records, results, strict=True):
        assert set(outputs) == set(recorded)
        gaps = {n: check.difference(outputs[n], array) for n, array in recorded.items()}
        print(task, {n: x.shape for n, x in inputs.items()}, gaps)
