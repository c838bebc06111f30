"""Standard error while TensorFlow starts."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START = "import os, sys\nfrom common.start_up import without_lines\nwith without_lines():\n    "
CHATTER = "os.write(2, b'I0000 00:00:17 port.cc:153] oneDNN custom operations are on.\\n')\n    "


def standard_error(program, code=0):
    line = [sys.executable, "-c", program]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


def test_chatter_is_removed_and_everything_else_stays_in_order():
    body = (
        CHATTER + "os.write(2, b'one\\n')\n    print('two', file=sys.stderr)\nos.write(2, b'3\\n')"
    )
    assert standard_error(START + body) == "one\ntwo\n3\n"


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "I0000 00:00:1795.140861 9832 cudart_stub.cc:31] Could not find cuda drivers",
        "E0000 00:00:1795.699290 9832 cuda_platform.cc:52] failed call to cuInit: INTERNAL",
        "E0000 00:00:1795.803679 9832 util.cc:131] oneDNN supports DT_BOOL only on platforms",
        "W0000 00:00:1795.803679 9832 gpu_device.cc:2431] TensorRT is not linked",
    ],
)
def test_start_up_lines_are_known(line):
    assert standard_error(START + f"print({line!r}, file=sys.stderr)") == ""


@pytest.mark.parametrize(
    "line",
    [
        "E0000 00:00:1795.803679 9832 bfc_allocator.cc:12] out of memory",
        "Traceback (most recent call last):",
        "F0000 00:00:1795.803679 9832 cpu_guard.cc:12] This CPU has no AVX",
    ],
)
def test_other_lines_are_kept(line):
    assert standard_error(START + f"print({line!r}, file=sys.stderr)") == line + "\n"


def test_a_process_that_runs_tensorflow_does_not_fork():
    running = "import os, sys\nsys.modules['tensorflow'] = os\nos.fork = None\n"
    assert standard_error(running + START + "print('all', file=sys.stderr)") == "all\n"


def test_a_failing_block_prints_everything():
    printed = standard_error(START + CHATTER + "raise ValueError('no CPU')", code=1)
    assert "oneDNN custom operations" in printed and "ValueError: no CPU" in printed


def test_an_aborted_process_prints_everything():
    assert "oneDNN custom operations" in standard_error(START + CHATTER + "os.abort()", code=-6)


def test_a_message_for_the_user_comes_without_chatter():
    program = START.replace(
        "import os, sys\n", "import os, sys\nfrom common.errors import InputError\n"
    )
    printed = standard_error(program + CHATTER + "raise InputError('no such file')", code=1)
    assert "oneDNN" not in printed and "no such file" in printed


def test_tensorflow_starts_in_silence_without_keras_which_can_be_imported_later():
    program = (
        "import sys\nfrom common.start_up import start_tensorflow\nstart_tensorflow()\n"
        "assert 'tensorflow' in sys.modules and 'keras' not in sys.modules\n"
        "import keras, tensorflow as tf\n"
        "model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])\n"
        "assert model(tf.ones([2, 3])).shape == (2, 1)\n"
    )
    assert standard_error(program) == ""
