"""The numeric signature of each export in OpenVINO, an independent runtime.

    python -m pytest -n 0 tests -m triton

TensorFlow saves the signature alone; OpenVINO reads, compiles and runs it.
"""

from common.serving import check
from tests.tasks.exports import TASKS
from tests.triton.server import run

import pytest

pytestmark = [pytest.mark.triton, pytest.mark.timeout(3600)]

# `serving_default` runs for no export; see `saved_models/README.md`. The graph of music converts,
# but its first call in OpenVINO 2026.4.1 returns probabilities up to 1e34, and later calls other
# wrong ones, as if it read memory that nothing has written.
WRONG = pytest.mark.xfail(reason="OpenVINO returns wrong probabilities for music", strict=False)


@pytest.mark.parametrize(
    "task", [pytest.param(t, marks=WRONG if t == "music" else ()) for t in TASKS]
)
def test_openvino_returns_the_recorded_outputs(task, python, root):
    version = root / task / "1"
    inputs, outputs = zip(
        *(
            (check.to_arrays(record.request.inputs), check.to_arrays(record.response.outputs))
            for record in check.read_records(version)
            if record.request.model_spec.signature_name == "tensors"
        ),
        strict=True,
    )
    job = {"export": str(version), "signature": "tensors", "requests": inputs}
    results = run(python, "openvino_runtime.py", job)
    assert isinstance(results, list), results  # the message of an error
    for result, recorded in zip(results, outputs, strict=True):
        assert set(result) == set(recorded)
        for name, array in recorded.items():
            assert check.difference(result[name], array) <= 1e-3, name
