"""Every recurrent block on the GPU, where cuDNN computes it, compared with the CPU."""

from common import rnn
from common.serving.publish import disable_cudnn, without_tf32
from tests.common.test_rnn import BLOCKS, data, fill, mask_of, tensors

import numpy as np
import pytest
import tensorflow as tf

pytestmark = pytest.mark.gpu

NO_CUDNN = ("simple_rnn", "gru_reset_before", "stack_bidirectional_residual")  # cuDNN has no such
RAGGED, EMPTY_ROWS = [9, 1, 4, 9, 7], [0, 9, 3, 0, 1]
LENGTHS = {"unmasked": [None], "masked": [RAGGED, EMPTY_ROWS, [0] * 5, [9] * 5]}
BACKWARDS = {"go_backwards": True}
CASES = [(name, {}) for name in BLOCKS]
CASES += [(name, BACKWARDS) for name in ("simple_rnn", "gru", "gru_reset_before", "lstm")]
blocks = pytest.mark.parametrize(
    ("name", "more"), CASES, ids=[name + "_backwards" * bool(more) for name, more in CASES]
)


def build(name, device, **settings):
    """Return a block on a device, always with the same weights."""
    sequences = {} if name.startswith("stack") else {"return_sequences": True}
    masked = name in ("simple_rnn", "gru", "gru_reset_before", "lstm")  # else set by the block
    zero = {"zero_output_for_mask": True} if masked else {}
    with tf.device(device):
        layer = BLOCKS[name](return_state=True, **sequences, **zero, **settings)
        layer.build((None, None, 4))
    fill(layer)
    return layer


def step(layer, device):
    """Return a training step: outputs and states, and the gradients of the weights and `x`."""

    @tf.function
    def run(x, mask):
        with tf.device(device), tf.GradientTape() as tape:
            tape.watch(x)
            out = layer(x, mask=mask)
            factors = [tf.sin(tf.range(tf.size(o), dtype=tf.float32)) for o in out]
            flat = [tf.cast(tf.reshape(o, [-1]), tf.float32) for o in out]
            loss = sum(tf.reduce_sum(a * b) for a, b in zip(flat, factors, strict=True))
        return out, tape.gradient(loss, [*(w.value for w in layer.trainable_weights), x])

    return run


def is_cudnn(function, *arguments):
    graph = function.get_concrete_function(*arguments).graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    return any(node.op.startswith("Cudnn") for node in nodes)


def assert_near(actual, expected, tolerance):
    for a, b in zip(tensors(actual), tensors(expected), strict=True):
        assert a.shape == b.shape and np.isfinite(a).all()
        assert np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1e-3)


def check(name, all_lengths, device, tolerance, more=None, **settings):
    """Compare a block on the device with the same block on the CPU in float32."""
    x = data(batch=5, time=9)
    tested = step(build(name, device, **(more or {}), **settings), device)
    reference = build(name, "CPU:0", **(more or {}))
    expected_step = step(reference, "CPU:0")
    for lengths in all_lengths:
        mask = None if lengths is None else tf.constant(mask_of(lengths, 9))
        out, gradients = tested(x, mask)
        with disable_cudnn(reference):
            expected, expected_gradients = expected_step(x, mask)
        assert_near(out, expected, tolerance)
        assert_near(gradients, expected_gradients, 5 * tolerance)
        if device.startswith("GPU"):
            assert all("GPU" in o.backing_device for o in out)
            assert is_cudnn(tested, x, mask) == (name not in NO_CUDNN)


@blocks
@pytest.mark.parametrize("all_lengths", LENGTHS.values(), ids=LENGTHS)
def test_equals_the_cpu(name, more, all_lengths, device):
    with without_tf32():
        check(name, all_lengths, device, 2e-5, more)


@blocks
def test_bfloat16_is_close(name, more, device):
    check(name, [EMPTY_ROWS], device, 0.04, more, dtype="mixed_bfloat16")


@pytest.mark.parametrize("name", ["gru", "lstm", "bidirectional_gru"])
def test_tensor_float_32_is_close(name, device):
    """Without any setting a modern GPU multiplies in this format."""
    check(name, [RAGGED], device, 5e-3)


@pytest.mark.parametrize("name", ["gru", "lstm", "bidirectional_gru", "stack"])
def test_padding_never_affects_a_row(name, device):
    layer, x = build(name, device), data(batch=5, time=9)
    lengths = EMPTY_ROWS
    run = tf.function(lambda x, mask: layer(x, mask=mask), reduce_retracing=True)
    with without_tf32():
        expected = run(x, tf.constant(mask_of(lengths, 9)))
        junk = np.where(mask_of(lengths, 9)[:, :, None], x, 1e6).astype("float32")
        longer = np.concatenate([junk, np.full((5, 4, 4), -1e6, "float32")], axis=1)
        outputs, *states = run(longer, tf.constant(mask_of(lengths, 13)))
    assert_near([outputs[:, :9], *states], expected, 2e-5)
    assert not np.asarray(outputs[:, 9:]).any()


def test_settings_without_cudnn_are_computed_by_keras(device):
    layer = rnn.LSTM(3, activation="relu", return_sequences=True, return_state=True)
    layer.build((None, None, 4))
    fill(layer)
    x, mask = data(batch=5, time=9), tf.constant(mask_of(EMPTY_ROWS, 9))
    run = step(layer, device)
    outputs = np.asarray(run(x, mask)[0][0])
    assert np.isfinite(outputs).all() and not outputs[0].any()
    assert not is_cudnn(run, x, mask)
