"""The fused kernels in both forms compared with Keras's layers, and the choice of the form.

`test_rnn.py` tests the layers that use them; here the scans are called directly.
"""

import functools
import resource

from common import rnn, rnn_kernels, rnn_scan
from common.errors import ExportError
from common.serving.scan import scan
from tests.common.test_rnn import (
    CELLS,
    assert_close,
    cells,
    data,
    fill,
    initial_states,
    mask_of,
    pair,
    values_and_gradients,
)

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

KERNELS = {
    "simple_rnn": "simple_rnn",
    "gru": "gru",
    "gru_reset_before": "gru_before",
    "lstm": "lstm",
}
forms = pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])


def run_kernel(cell, layer, x, mask, states, compiled, **settings):
    """Return values, and gradients as `values_and_gradients` does, of a scan in a graph."""
    weights = [w.value for w in layer.trainable_weights]
    flat = [x, *states]

    @tf.function(autograph=False)
    def run(*flat):
        with tf.GradientTape() as tape:
            tape.watch(flat)
            bias = [weights[2][0], weights[2][1]] if KERNELS[cell] == "gru" else [weights[2]]
            outputs, finals = rnn_kernels.run(
                KERNELS[cell],
                flat[0],
                flat[1:],
                mask,
                rnn_kernels.Weights(weights[0], weights[1], *bias),
                compiled=compiled,
                **settings,
            )
            out = [outputs, *finals]
            rng = np.random.default_rng(1)
            loss = sum(tf.reduce_sum(o * rng.normal(size=o.shape)) for o in out)
        return out, tape.gradient(loss, [*weights, *flat])

    return run(*[tf.constant(v) for v in flat])


def check(cell, x, mask, units, seed=0, *, compiled, **settings):
    _, theirs = pair(
        cell,
        units,
        x.shape[-1],
        seed,
        return_sequences=True,
        return_state=True,
        go_backwards=settings.get("go_backwards", False),
        zero_output_for_mask=settings.get("zero_output", False),
    )
    states = initial_states(cell, len(x), units)
    out, gradients = run_kernel(cell, theirs, x, mask, states, compiled, **settings)
    expected, expected_gradients = values_and_gradients(theirs, x, mask, states)
    assert_close(out, expected)
    assert_close(gradients, expected_gradients, 1e-4)


def is_compiled(concrete):
    """Return whether a traced function contains a function that XLA must compile."""
    library = concrete.graph.as_graph_def().library.function
    return any(f.attr["_XlaMustCompile"].b for f in library if "_XlaMustCompile" in f.attr)


# --- values and gradients -------------------------------------------------------------------------


@forms
@cells
@pytest.mark.parametrize(
    ("mask", "back", "zero"),
    [
        (None, True, False),
        (mask_of([5, 2, 0], 5), False, True),
        (mask_of([5, 2, 0], 5), True, False),
        (np.array([[0, 1, 1, 0, 1], [1, 0, 0, 0, 1], [0, 0, 0, 0, 0]], bool), False, False),
    ],
    ids=["unmasked-back", "padded-zero", "padded-back", "any"],
)
def test_equals_keras(cell, mask, back, zero, compiled):
    """With initial states and rows without a real step."""
    check(cell, data(), mask, 3, compiled=compiled, go_backwards=back, zero_output=zero)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_two_parts_equal_keras(cell):
    length = np.random.default_rng(0).integers(0, 5, 9)
    check(cell, data(batch=9, time=4), mask_of(length, 4), 3, compiled=True, go_backwards=True)


def check_any_shape(draw):
    cell = draw.draw(st.sampled_from(sorted(CELLS)), "cell")
    batch, time, features, units = (draw.draw(st.integers(1, 12), n) for n in "btfu")
    seed = draw.draw(st.integers(0, 99), "seed")
    mask = None
    if draw.draw(st.booleans(), "masked"):
        mask = np.random.default_rng(seed).random((batch, time)) < 0.7
    switches = ("go_backwards", "zero_output", "compiled")
    chosen = {name: draw.draw(st.booleans(), name) for name in switches}
    check(cell, data(seed, batch, time, features), mask, units, seed, **chosen)


@settings(deadline=None, max_examples=4, derandomize=True)
@given(draw=st.data())
def test_equals_keras_on_any_shape(draw):
    check_any_shape(draw)


@pytest.mark.slow  # the same test on more shapes
@settings(deadline=None, max_examples=12, derandomize=True)
@given(draw=st.data())
def test_equals_keras_on_many_shapes(draw):
    check_any_shape(draw)


@cells
def test_gradients_equal_finite_differences(cell):
    """In float64, of both forms."""
    count = 3 if KERNELS[cell] in ("gru", "gru_before") else 4 if cell == "lstm" else 1
    rng = np.random.default_rng(0)
    shapes = [(2, 3, 2), (2, count * 2), (2, count * 2), (count * 2,)]
    shapes += [(count * 2,)] * (cell == "gru") + [(2, 2)] * (1 + (cell == "lstm"))
    flat = [tf.constant(rng.normal(scale=0.5, size=shape)) for shape in shapes]
    mask = tf.constant([[True, True, True], [True, False, False]])

    def loss(x, *more, compiled=False):
        weights = rnn_kernels.Weights(*more[: 4 if cell == "gru" else 3])
        states = more[4 if cell == "gru" else 3 :]
        outputs, finals = rnn_kernels.run(
            KERNELS[cell], x, states, mask, weights, compiled=compiled
        )
        return tf.reduce_sum(outputs**2) + sum(tf.reduce_sum(f**3) for f in finals)

    @tf.function(autograph=False)
    def gradients(*flat, compiled):
        with tf.GradientTape() as tape:
            tape.watch(flat)
            total = loss(*flat, compiled=compiled)
        return tape.gradient(total, flat)

    _, numerical = tf.test.compute_gradient(tf.function(loss, autograph=False), flat, delta=1e-4)
    for compiled in (False, True):
        for a, b in zip(gradients(*flat, compiled=compiled), numerical, strict=True):
            np.testing.assert_allclose(tf.reshape(a, [1, -1]), b, atol=1e-7)


# --- dynamic shapes -------------------------------------------------------------------------------


def wide_pair(cell, **settings):
    """Return layers that are wide enough to be compiled, with small weights for stable numbers."""
    layers = pair(cell, 32, 4, **settings)
    for layer in layers:
        layer.set_weights([0.3 * w for w in layer.get_weights()])
    return layers


def dynamic_step(layer, masked=True):
    """Return a training step for any batch and time."""

    @tf.function(
        input_signature=[tf.TensorSpec([None, None, 4]), tf.TensorSpec([None, None], tf.bool)]
    )
    def step(x, mask):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = layer(x, mask=mask if masked else None)
            loss = sum(tf.reduce_sum(tf.sin(o)) for o in out)
        return out, tape.gradient(loss, [x, *(w.value for w in layer.trainable_weights)])

    return step


@cells
@pytest.mark.parametrize(
    ("masked", "back", "shapes"),
    [
        (True, False, [(3, 5), (11, 9)]),
        pytest.param(False, True, [(11, 5)], marks=pytest.mark.thorough),
    ],
)
def test_padding_to_few_shapes_changes_nothing(cell, masked, back, shapes):
    """Odd batches and lengths."""
    settings = {"return_sequences": True, "return_state": True, "go_backwards": back}
    ours, theirs = wide_pair(cell, **settings)
    step = dynamic_step(ours, masked)
    assert is_compiled(step.get_concrete_function())
    expected_step = dynamic_step(theirs, masked)
    for batch, time in shapes:
        mask = mask_of(np.random.default_rng(time).integers(0, time + 1, batch), time)
        x = data(batch=batch, time=time)
        (out, gradients), (expected, expected_gradients) = step(x, mask), expected_step(x, mask)
        assert_close(out, expected)
        assert_close(gradients, expected_gradients, 1e-4)


def test_dynamic_inference_equals_eager():
    layer = rnn.stack("lstm", 32, 2, bidirectional=True)
    layer.build((None, None, 4))
    fill(layer)
    compiled = tf.function(layer, input_signature=[tf.TensorSpec([None, None, 4])])
    with rnn_kernels.portable():
        exported = tf.function(layer, input_signature=[tf.TensorSpec([None, None, 4])])
        exported.get_concrete_function()
    for batch, time in ((1, 3), (5, 11), (2, 23)):
        x = data(batch=batch, time=time)
        assert_close(compiled(x), layer(x))
        assert_close(exported(x), layer(x))


def test_padded_sizes_are_few_and_close():
    round_up = tf.function(
        lambda n: (rnn_kernels._round_up(n, 1), rnn_kernels._round_up(n, 8)),
        autograph=False,
        input_signature=[tf.TensorSpec([], tf.int32)],
    )
    sizes = np.array([[int(s) for s in round_up(n)] for n in range(1, 1025)])
    requested = np.arange(1, 1025)
    assert (sizes >= requested[:, None]).all()
    assert (sizes[64:, 0] <= 1.125 * requested[64:]).all()
    assert [len(set(column)) for column in sizes.T] == [43, 40]
    assert list(sizes[:9, 0]) == [1, 2, 4, 4, 8, 8, 8, 8, 16]


def test_results_are_reproducible_bit_by_bit():
    layer = rnn.LSTM(32, return_sequences=True, return_state=True)
    layer.build((None, None, 4))
    x, mask = data(batch=13, time=16), mask_of(range(13), 16)
    first, again = (tf.nest.flatten(dynamic_step(layer)(x, mask)) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.thorough
def test_memory_does_not_grow_with_variable_batches_and_lengths():
    layer = rnn.GRU(32, return_sequences=True, return_state=True)
    layer.build((None, None, 4))
    step = dynamic_step(layer)
    rng = np.random.default_rng(0)

    def run(batch, time):
        step(data(batch=batch, time=time), mask_of([time] * batch, time))

    def steps(count):
        for _ in range(count):
            run(int(rng.integers(1, 33)), int(rng.integers(1, 17)))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MB on Linux

    for time in (8, 16):  # every padded shape
        for batch in (1, 9, 17, 32):
            run(batch, time)
    before = steps(50)
    assert steps(450) - before < 8
    assert step.experimental_get_tracing_count() == 1


def test_directions_side_by_side_equal_keras(tmp_path):
    """Each direction is one compiled part, also after loading a `.keras` file."""
    mask = tf.constant(mask_of([9, 4, 0, 7] * 4, 9))
    theirs = keras.layers.Bidirectional(keras.layers.LSTM(32, return_sequences=True))
    ours = rnn.bidirectional(rnn.LSTM(32, return_sequences=True))
    inputs = keras.Input((None, 4)), keras.Input((None,), dtype="bool")
    model = keras.Model(inputs, ours(inputs[0], mask=inputs[1]))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[-1]
    for layer in (ours, loaded):
        assert layer.forward_layer.side_by_side
        assert layer.backward_layer.side_by_side

    def step(layer):
        @tf.function
        def run(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                out = layer(x, mask=mask)
                loss = tf.reduce_sum(tf.sin(out))
            return out, tape.gradient(loss, [x, *(w.value for w in layer.trainable_weights)])

        return run

    x = tf.constant(data(batch=16, time=9))
    theirs.build(x.shape)
    fill(theirs)
    theirs.set_weights([0.3 * w for w in theirs.get_weights()])
    loaded.set_weights(theirs.get_weights())
    assert is_compiled(step(loaded).get_concrete_function(x))
    (out, gradients), (expected, expected_gradients) = step(loaded)(x), step(theirs)(x)
    assert_close(out, expected)
    assert_close(gradients, expected_gradients, 1e-4)


def test_layers_of_any_input_width_and_direction_share_programs(monkeypatch):
    traced = []

    def counted(body):
        def trace(*args):
            traced.append(body.__name__)
            return body(*args)

        return trace

    # A cache of its own, so that later tests find the programs of earlier ones.
    program = functools.lru_cache(rnn_kernels._program.__wrapped__)
    monkeypatch.setattr(rnn_kernels, "_program", program)
    for name in ("forward_program", "backward_program"):
        monkeypatch.setattr(rnn_scan, name, counted(getattr(rnn_scan, name)))
    lower, upper = (rnn.bidirectional(rnn.LSTM(32, return_sequences=True)) for _ in range(2))

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            out = tf.reduce_sum(tf.sin(upper(lower(x))))  # of widths 4 and 64
        return tape.gradient(out, [*lower.trainable_weights, *upper.trainable_weights])

    assert is_compiled(step.get_concrete_function(tf.constant(data(batch=16, time=9))))
    assert traced == ["forward_program", "backward_program"]


# --- choice of the form ---------------------------------------------------------------------------


def test_graphs_are_compiled_unless_portable():
    layer = rnn.bidirectional(rnn.GRU(32))
    layer.build((None, None, 4))
    shape = [tf.TensorSpec([None, None, 4])]
    assert is_compiled(tf.function(layer, input_signature=shape).get_concrete_function())
    with rnn_kernels.portable():
        assert not is_compiled(tf.function(layer, input_signature=shape).get_concrete_function())
    assert is_compiled(tf.function(layer, input_signature=shape).get_concrete_function())
    small = rnn.GRU(8)
    small.build((None, None, 4))
    assert not is_compiled(tf.function(small, input_signature=shape).get_concrete_function())


@cells
def test_a_portable_function_is_differentiable_without_a_gradient_function(cell):
    """`tf.saved_model.load` would register a gradient function, and never release it."""
    layer, _ = pair(cell, 8, 4, return_sequences=True)
    with rnn_kernels.portable():
        function = tf.function(layer, input_signature=[tf.TensorSpec([None, None, 4])])
        definition = function.get_concrete_function().graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    assert not [n.name for n in nodes if n.op == "IdentityN" or "_gradient_op_type" in n.attr]
    x = tf.constant(data(batch=3, time=5))

    def gradient(call):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = call(x)
        return tape.gradient(y, x)

    assert_close(gradient(function), gradient(layer), 1e-4)


def test_export_scan_rejects_compiled_graphs(tmp_path):
    module = tf.Module()
    layer = rnn.LSTM(32)
    layer.build((None, None, 4))
    module.weights = [w.value for w in layer.weights]

    def save(name):
        shape = [tf.TensorSpec([None, None, 4])]
        signature = tf.function(lambda x: {"y": layer(x)}, input_signature=shape)
        concrete = signature.get_concrete_function()
        tf.saved_model.save(module, str(tmp_path / name), signatures=concrete)
        return tmp_path / name

    with rnn_kernels.portable():
        scan(save("portable"))
    with pytest.raises(ExportError, match="compiled by XLA"):
        scan(save("compiled"))


@cells
def test_inside_a_compiled_function(cell):
    ours, theirs = wide_pair(cell, return_sequences=True)
    x = data(time=13)
    compiled = tf.function(ours, jit_compile=True)
    assert_close(compiled(x), theirs(x))
    assert not contains_program(compiled, x)


def contains_program(function, x):
    """Return whether a traced function calls a program of its own for the scan."""
    concrete = function.get_concrete_function(x)
    names = {f.signature.name for f in concrete.graph.as_graph_def().library.function}
    return any("forward_program" in name for name in names)


def test_under_a_strategy():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        layer = rnn.LSTM(32, return_sequences=True, return_state=True)
        layer.build((None, None, 4))
    fill(layer)
    x, mask = data(batch=9), mask_of([5, 0, 2] * 3, 5)
    step = dynamic_step(layer)

    @tf.function
    def replicated(x, mask):
        return strategy.run(step.python_function, args=(x, mask))

    out = replicated(tf.constant(x), tf.constant(mask))
    assert not is_compiled(replicated.get_concrete_function(tf.constant(x), tf.constant(mask)))
    for a, b in zip(tf.nest.flatten(out), tf.nest.flatten(step(x, mask)), strict=True):
        assert_close(a, b, 1e-4)


def test_gradient_of_a_function_traced_without_a_tape():
    layer, theirs = wide_pair("lstm", return_sequences=True)
    x = tf.constant(data())
    gradients = []
    for function, weights in ((tf.function(layer), layer.weights), (theirs, theirs.weights)):
        function(x)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(function(x) ** 2)
        gradients.append(tape.gradient(loss, [w.value for w in weights]))
    assert_close(*gradients, 1e-4)


def test_bfloat16_in_a_graph():
    exact, _ = wide_pair("gru", return_sequences=True, return_state=True)
    half, _ = wide_pair("gru", return_sequences=True, return_state=True, dtype="mixed_bfloat16")
    x, mask = data(batch=9, time=8), mask_of([8, 5, 0] * 3, 8)
    out, gradients = dynamic_step(half)(x, mask)
    expected, expected_gradients = dynamic_step(exact)(x, mask)
    assert {o.dtype for o in out} == {tf.bfloat16}
    assert_close(out, expected, 0.04)
    assert_close(gradients[1:], expected_gradients[1:], 0.1)


@pytest.mark.parametrize(
    ("settings", "training"),
    [
        ({"activation": "relu"}, False),
        ({"unroll": True}, False),
        ({"stateful": True}, False),
        ({"recurrent_dropout": 0.5}, True),
        ({"recurrent_activation": "hard_sigmoid"}, False),
        ({"use_cudnn": True}, False),
        ({"implementation": 1}, False),
    ],
)
def test_settings_that_are_not_covered(settings, training):
    assert rnn_kernels.covers(rnn.LSTM(3), None, training)
    assert not rnn_kernels.covers(rnn.LSTM(3, **settings), None, training)


def test_nothing_is_covered_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    assert not rnn_kernels.covers(rnn.LSTM(3), None, False)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("back", [False, True])
def test_rows_without_a_step_never_reach_cudnn(cell, back, monkeypatch):
    """cuDNN refuses a batch with such a row, so Keras fails on it in a graph."""
    settings = {"return_sequences": True, "return_state": True, "go_backwards": back}
    ours, theirs = pair(cell, 3, 4, zero_output_for_mask=True, **settings)
    x, mask = data(), mask_of([5, 0, 2], 5)
    states = initial_states(cell, 3, 3)
    expected = values_and_gradients(theirs, x, mask, states)
    keras_layer, masks = type(theirs), []
    inner_loop = keras_layer.inner_loop

    def strict(self, sequences, initial_state, mask, training=False):
        masks.append(mask)
        return inner_loop(self, sequences, initial_state, mask, training)

    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    monkeypatch.setattr(keras_layer, "inner_loop", strict)
    x[1, 0] = np.nan  # padding of any value
    out, gradients = values_and_gradients(ours, x, mask, states)
    np.testing.assert_array_equal(np.sum(masks[0], axis=1), [5, 1, 2])
    np.testing.assert_array_equal(np.asarray(masks[0])[:, 0], True)
    assert_close(out, expected[0])
    assert_close(gradients, expected[1], 1e-4)
