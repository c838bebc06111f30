"""Lower every core of exports for a TPU, without one: `python lower.py VERSION_DIR...`.

It needs a separate environment with `tensorflow-tpu` and `libtpu`; see `test_lowering.py`. It
prints one JSON object per core: `core`, and the `instructions` of its HLO module, or `error`.
"""

import json
import os
import re
import sys

# Without these settings libtpu would look for a TPU in the cloud for minutes.
os.environ.update(
    TPU_SKIP_MDS_QUERY="1",
    TPU_WORKER_HOSTNAMES="localhost",
    TPU_WORKER_ID="0",
    TPU_ACCELERATOR_TYPE="v5litepod-1",
)

import tensorflow as tf
from tensorflow.python.framework import convert_to_constants


def lower(core):
    """Return the HLO of a restored core for the platform TPU, as text."""
    # The restored variables are bound to this host, so they become constants. Control flow is not
    # lowered, since the compiler of a TPU only accepts functional loops.
    (concrete,) = core.concrete_functions
    frozen = convert_to_constants.convert_variables_to_constants_v2(
        concrete, lower_control_flow=False
    )
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in frozen.inputs]
    function = tf.function(lambda *tensors: frozen(*tensors), jit_compile=True, autograph=False)
    return function.experimental_get_compiler_ir(*specs)(stage="hlo", platform_name="TPU")


def main():
    """Lower all cores of all folders on the command line; see the module."""
    failed = False
    for folder in sys.argv[1:]:
        loaded = tf.saved_model.load(folder)  # a reference keeps its variables alive
        for alias in sorted(loaded.cores):
            result = {"export": folder, "core": alias}
            try:
                module = lower(loaded.cores[alias])
                result["instructions"] = len(re.findall(r"^\s+\S.* = ", module, re.M))
            except Exception as error:  # any error of the compiler; it names the op
                result["error"], failed = f"{type(error).__name__}: {error}"[:2000], True
            print(json.dumps(result), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
