"""Replay warm-up records in the installed TensorFlow: `python -P replay.py VERSION_DIR...`.

It needs `tensorflow` and `tensorflow-serving-api` only; see `test_replay.py`. For each folder and
loader it prints one JSON object: `export`, `loader`, `tensorflow` (version), `records`, `values`
(how many were compared), and `outputs`: for each output that is not bit-equal to the recorded one
`[values, values that differ, largest difference]`. A float differs if it is more than `TOLERANCE`
of the largest value of its tensor away, any other value if it is not equal.
"""

import importlib.util
import json
import sys
from pathlib import Path

if __name__ == "__main__":  # as on a server; `import tensorflow` would import Keras
    sys.modules.update(dict.fromkeys(("keras", "tf_keras", "common", "tasks")))

import numpy as np
import tensorflow as tf

TOLERANCE = 1e-5
CHECK = Path(__file__).resolve().parents[2] / "common" / "serving" / "check.py"


def load_check():
    """Import the script that verifies exports before they are published, for its two loaders."""
    spec = importlib.util.spec_from_file_location("check", CHECK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def differences(outputs, expected):
    """Return the number of values that differ, and the largest difference."""
    if outputs.shape != expected.shape or outputs.dtype != expected.dtype:
        return max(outputs.size, expected.size), np.inf
    if not np.issubdtype(expected.dtype, np.floating):
        wrong = int(np.sum(outputs != expected))
        return wrong, 1.0 if wrong else 0.0
    same = (outputs == expected) | (np.isnan(outputs) & np.isnan(expected))
    finite = np.abs(expected[np.isfinite(expected)].astype(float))
    gaps = np.abs(np.where(same, 0.0, outputs.astype(float) - np.where(same, 0.0, expected)))
    gaps = np.where(np.isnan(gaps), np.inf, gaps / max(np.max(finite, initial=0.0), 0.01))
    return int(np.sum(gaps > TOLERANCE)), float(np.max(gaps, initial=0.0))


def replay(check, folder, loader):
    """Run all records of an export through one loader; return the object to print."""
    signatures = check.read_signatures(folder)
    call = check.LOADERS[loader](folder, signatures)
    records, values, outputs = check.read_records(folder), 0, {}
    for record in records:
        signature = record.request.model_spec.signature_name
        got = call(signature, check.to_arrays(record.request.inputs))
        for name, expected in check.to_arrays(record.response.outputs).items():
            wrong, largest = differences(got[name], expected)
            values += expected.size
            size, before, most = outputs.get(f"{signature}/{name}", (0, 0, 0.0))
            outputs[f"{signature}/{name}"] = (
                size + expected.size,
                before + wrong,
                max(most, largest),
            )
    return {
        "export": str(folder),
        "loader": loader,
        "tensorflow": tf.__version__,
        "records": len(records),
        "values": values,
        "outputs": {name: row for name, row in outputs.items() if row[2]},
    }


def main():
    """Replay all folders on the command line; see the module."""
    check = load_check()
    for folder in map(Path, sys.argv[1:]):
        for loader in check.LOADERS:
            print(json.dumps(replay(check, folder, loader)), flush=True)


if __name__ == "__main__":
    main()
