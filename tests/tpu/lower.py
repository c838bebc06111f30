"""Lowers every core of exports for a TPU, without one: `python lower.py VERSION_DIR...`.

Runs in an environment of its own, with `tensorflow-tpu` and `libtpu`; see `test_lowering.py`.
Prints a JSON object a core: `core`, and `instructions` of its HLO module, or `error`.
"""

import json
import os
import re
import sys

# There is no TPU and no cloud to ask about one, which it would otherwise do for minutes.
os.environ.update(
    TPU_SKIP_MDS_QUERY="1",
    TPU_WORKER_HOSTNAMES="localhost",
    TPU_WORKER_ID="0",
    TPU_ACCELERATOR_TYPE="v5litepod-1",
)

import tensorflow as tf
from tensorflow.python.framework import convert_to_constants


def lower(core):
    """The HLO of a restored core, as text, for the platform TPU."""
    # What is left of an export's variables after loading is bound to this host: made constants.
    # Loops stay what they are, since the compiler takes no others.
    (concrete,) = core.concrete_functions
    frozen = convert_to_constants.convert_variables_to_constants_v2(
        concrete, lower_control_flow=False
    )
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in frozen.inputs]
    function = tf.function(lambda *tensors: frozen(*tensors), jit_compile=True, autograph=False)
    return function.experimental_get_compiler_ir(*specs)(stage="hlo", platform_name="TPU")


def main():
    """Lowers all cores of all folders on the command line; see the module."""
    failed = False
    for folder in sys.argv[1:]:
        loaded = tf.saved_model.load(folder)  # held here, or its variables would be gone
        for alias in sorted(loaded.cores):
            said = {"export": folder, "core": alias}
            try:
                module = lower(loaded.cores[alias])
                said["instructions"] = len(re.findall(r"^\s+\S.* = ", module, re.M))
            except Exception as error:  # whatever the compiler raises: it names the op
                said["error"], failed = f"{type(error).__name__}: {error}"[:2000], True
            print(json.dumps(said), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
