"""Recurrent layers compared with a NumPy reference and with Keras's layers, and under padding.

The tests use the public layers only, so they hold for every implementation of `inner_loop`. They
run on the kernels as the layers choose them, and with `-m slow` also on Keras's own computation and
on kernels that are compiled in every traced function. Stacks are in `test_rnn_stack.py`.
"""

import itertools

from common import rnn, rnn_kernels

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

CELLS = {
    "simple_rnn": (rnn.SimpleRNN, keras.layers.SimpleRNN, {}),
    "gru": (rnn.GRU, keras.layers.GRU, {}),
    "gru_reset_before": (rnn.GRU, keras.layers.GRU, {"reset_after": False}),
    "lstm": (rnn.LSTM, keras.layers.LSTM, {}),
}
# Every block, three units wide.
BLOCKS = {
    "simple_rnn": lambda **k: rnn.SimpleRNN(3, **k),
    "gru": lambda **k: rnn.GRU(3, **k),
    "gru_reset_before": lambda **k: rnn.GRU(3, reset_after=False, **k),
    "lstm": lambda **k: rnn.LSTM(3, **k),
    "bidirectional_gru": lambda **k: rnn.bidirectional(rnn.GRU(3, **k)),
    "bidirectional_lstm_sum": lambda **k: rnn.bidirectional(rnn.LSTM(3, **k), merge_mode="sum"),
    "stack": lambda **k: rnn.stack("lstm", 3, 2, **k),
    "stack_residual": lambda **k: rnn.stack(rnn.GRU, 3, 2, residual=True, dropout=0.5, **k),
    "stack_bidirectional_residual": lambda **k: rnn.stack(
        "simple_rnn", 3, 2, bidirectional=True, residual=True, **k
    ),
}
blocks = pytest.mark.parametrize("name", BLOCKS)
cells = pytest.mark.parametrize("cell", CELLS)


def data(seed=0, batch=3, time=5, features=4):
    return np.random.default_rng(seed).normal(size=(batch, time, features)).astype("float32")


def mask_of(length, time):
    return np.arange(time) < np.asarray(length)[:, None]


def fill(layer, seed=0):
    """Set random weights, so that no bias is zero and no gate has its initial value."""
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(scale=0.5, size=w.shape) for w in layer.weights])


def tensors(value):
    return [
        np.asarray(v, "float32") for v in (value if isinstance(value, (tuple, list)) else [value])
    ]


def assert_close(actual, expected, tolerance=1e-5):
    """Assert max|a - b| <= tolerance * max|b| for each tensor."""
    actual, expected = tensors(actual), tensors(expected)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        assert np.isfinite(a).all()
        assert np.abs(a - b).max(initial=0) <= tolerance * np.abs(b).max(initial=0)


@pytest.fixture(
    scope="module",
    autouse=True,
    params=["on", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("off", "compiled"))],
)
def kernels(request):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "off":
            patch.setattr(rnn_kernels, "covers", lambda *_: False)
        elif request.param == "compiled":
            patch.setattr(rnn_kernels, "_MIN_COMPILED_UNITS", 1)
        yield request.param


# --- reference ------------------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def step(cell, x, states, weights):
    """Compute one step of one row or of a batch, by the equations of the papers."""
    kernel, recurrent, bias = weights
    h = states[0]
    if cell == "simple_rnn":
        return [np.tanh(x @ kernel + h @ recurrent + bias)]
    if cell == "lstm":
        i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4, axis=-1)
        c = sigmoid(f) * states[1] + sigmoid(i) * np.tanh(g)
        return [sigmoid(o) * np.tanh(c), c]
    units = h.shape[-1]
    in_bias, recurrent_bias = bias if cell == "gru" else (bias, np.zeros(3 * units))
    xz, xr, xn = np.split(x @ kernel + in_bias, 3, axis=-1)
    uz, ur, un = np.split(recurrent, 3, axis=-1)
    bz, br, bn = np.split(recurrent_bias, 3)
    z, r = sigmoid(xz + h @ uz + bz), sigmoid(xr + h @ ur + br)
    n = np.tanh(xn + (r * (h @ un + bn) if cell == "gru" else (r * h) @ un))
    return [z * h + (1 - z) * n]


def reference(cell, x, weights, *, mask=None, states=None, go_backwards=False, zero=False):
    """Return all outputs, the last output and the states, in float64 and with plain loops."""
    weights = [np.asarray(w, "float64") for w in weights]
    if len(weights) == 2:  # no bias
        width = weights[0].shape[1]
        weights.append(np.zeros((2, width) if cell == "gru" else width))
    batch, time = x.shape[:2]
    units = weights[1].shape[0]
    outputs = np.zeros((batch, time, units))
    finals = [np.zeros((batch, units)) for _ in range(2 if cell == "lstm" else 1)]
    for row in range(batch):
        state = [s[row].astype("float64") for s in states or finals]
        last = np.zeros(units)
        order = range(time - 1, -1, -1) if go_backwards else range(time)
        for position, t in enumerate(order):
            if mask is None or mask[row, t]:
                state = step(cell, x[row, t].astype("float64"), state, weights)
                last = state[0]
            elif zero:
                last = np.zeros(units)
            outputs[row, position] = last
        for final, value in zip(finals, state, strict=True):
            final[row] = value
    return outputs, outputs[:, -1], finals


def pair(cell, units, features, seed=0, **kwargs):
    """Return our layer and Keras's layer with the same weights."""
    ours_class, keras_class, more = CELLS[cell]
    ours, theirs = ours_class(units, **more, **kwargs), keras_class(units, **more, **kwargs)
    ours.build((None, None, features))
    theirs.build((None, None, features))
    fill(theirs, seed)
    ours.set_weights(theirs.get_weights())
    return ours, theirs


def values_and_gradients(layer, x, mask, states):
    """Return the outputs, and the gradients of a random function of them.

    The gradients are with respect to weights, input and states.
    """
    x = tf.constant(x)
    states = None if states is None else [tf.constant(s) for s in states]
    with tf.GradientTape() as tape:
        tape.watch([x, *(states or [])])
        out = layer(x, mask=mask, initial_state=states)
        out = list(out) if isinstance(out, (tuple, list)) else [out]
        rng = np.random.default_rng(1)
        loss = sum(tf.reduce_sum(o * rng.normal(size=o.shape)) for o in out)
    sources = [w.value for w in layer.trainable_weights] + [x, *(states or [])]
    return out, tape.gradient(loss, sources, unconnected_gradients="zero")


def check(cell, x, length, states, units, seed=0, **settings):
    """Assert that our layer equals the reference and, with its gradients, Keras's layer."""
    ours, theirs = pair(cell, units, x.shape[-1], seed, return_state=True, **settings)
    mask = None if length is None else mask_of(length, x.shape[1])
    out, gradients = values_and_gradients(ours, x, mask, states)
    expected, expected_gradients = values_and_gradients(theirs, x, mask, states)
    assert_close(out, expected)
    assert_close(gradients, expected_gradients, 1e-4)
    outputs, last, finals = reference(
        cell,
        x,
        theirs.get_weights(),
        mask=mask,
        states=states,
        go_backwards=settings.get("go_backwards", False),
        zero=settings.get("zero_output_for_mask", False),
    )
    sequences = settings.get("return_sequences", False)
    assert_close(out, [outputs if sequences else last, *finals])


def initial_states(cell, batch, units, seed=5):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(batch, units)).astype("float32") for _ in range(1 + (cell == "lstm"))]


# --- values and gradients -------------------------------------------------------------------------


@cells
@pytest.mark.parametrize(
    ("sequences", "backwards", "length", "states"),
    list(itertools.product([True, False], [True, False], [None, [5, 2, 0]], [True, False])),
)
def test_equals_reference_and_keras(cell, sequences, backwards, length, states):
    check(
        cell,
        data(),
        length,
        initial_states(cell, 3, 2) if states else None,
        units=2,
        return_sequences=sequences,
        go_backwards=backwards,
        zero_output_for_mask=sequences,
    )


def check_any_shape(draw):
    cell = draw.draw(st.sampled_from(sorted(CELLS)), "cell")
    batch, time, features, units = (draw.draw(st.integers(1, 5), n) for n in "btfu")
    lengths = st.lists(st.integers(0, time), min_size=batch, max_size=batch)
    length = draw.draw(st.none() | lengths, "length")
    seed = draw.draw(st.integers(0, 99), "seed")
    states = initial_states(cell, batch, units) if draw.draw(st.booleans(), "states") else None
    switches = ("return_sequences", "go_backwards", "zero_output_for_mask", "use_bias")
    chosen = {name: draw.draw(st.booleans(), name) for name in switches}
    check(cell, data(seed, batch, time, features), length, states, units, seed, **chosen)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(draw=st.data())
def test_equals_reference_and_keras_on_any_shape(draw):
    check_any_shape(draw)


@pytest.mark.slow  # the same test on more shapes
@settings(deadline=None, max_examples=60, derandomize=True)
@given(draw=st.data())
def test_equals_reference_and_keras_on_many_shapes(draw):
    check_any_shape(draw)


@cells
def test_mask_that_is_not_right_padded(cell):
    """Keras accepts any mask, so these layers do."""
    x = data(time=6)
    mask = np.array([[0, 1, 1, 0, 1, 0], [1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]], bool)
    for backwards in (False, True):
        ours, theirs = pair(cell, 3, 4, return_sequences=True, go_backwards=backwards)
        out, gradients = values_and_gradients(ours, x, mask, None)
        expected, expected_gradients = values_and_gradients(theirs, x, mask, None)
        assert_close(out, expected)
        assert_close(gradients, expected_gradients, 1e-4)
        assert_close(
            out, reference(cell, x, ours.get_weights(), mask=mask, go_backwards=backwards)[0]
        )


def test_literal_values():
    ones = {"kernel_initializer": "ones", "recurrent_initializer": "ones"}
    x = np.array([[[0.5], [0.0], [0.0]]], "float32")
    out = rnn.SimpleRNN(1, return_sequences=True, **ones)(x)
    assert_close(out[0, :, 0], np.array([0.46211716, 0.43180811, 0.40683109]))
    # i = o = sigmoid(0.5), f = sigmoid(1.5), g = tanh(0.5)
    out, h, c = rnn.LSTM(1, return_state=True, **ones)(x[:, :1])
    assert_close(c, np.array([[0.62245933 * 0.46211716]]))
    assert_close(h, np.array([[0.62245933 * np.tanh(0.62245933 * 0.46211716)]]))
    # z = sigmoid(0.5), n = tanh(0.5), from h = 0
    assert_close(rnn.GRU(1, **ones)(x[:, :1]), np.array([[(1 - 0.62245933) * 0.46211716]]))


@pytest.mark.parametrize("cell", ["simple_rnn", "gru", "lstm"])
def test_bfloat16_is_close(cell):
    x, length = data(batch=4, time=8), [8, 5, 1, 0]
    exact, _ = pair(cell, 6, 4, return_sequences=True, return_state=True)
    settings = {"return_sequences": True, "return_state": True, "dtype": "mixed_bfloat16"}
    half, theirs = pair(cell, 6, 4, **settings)
    assert {w.dtype for w in half.weights} == {"float32"}
    out = half(x, mask=mask_of(length, 8))
    assert {o.dtype for o in out} == {tf.bfloat16}
    for a, b in zip(tensors(out), tensors(exact(x, mask=mask_of(length, 8))), strict=True):
        assert np.abs(a - b).max() <= 0.04
    assert [o.dtype for o in theirs(x)] == [o.dtype for o in out]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.cast(half(x, mask=mask_of(length, 8))[0], "float32") ** 2)
    for w in tape.gradient(loss, [w.value for w in half.trainable_weights]):
        assert np.isfinite(np.asarray(w, "float32")).all()
        assert np.abs(np.asarray(w, "float32")).max() > 0


# --- execution modes ------------------------------------------------------------------------------


@blocks
def test_graph_with_dynamic_batch_and_time(name):
    layer = BLOCKS[name](return_sequences=True)
    layer.build((None, None, 4))
    fill(layer)

    @tf.function(input_signature=[tf.TensorSpec([None, None, 4]), tf.TensorSpec([None], tf.int32)])
    def run(x, length):
        with tf.GradientTape() as tape:
            out = layer(x, mask=rnn.length_mask(length, x))
            loss = tf.reduce_sum(out**2)
        return out, tape.gradient(loss, [w.value for w in layer.trainable_weights])

    for batch, time, length in ((2, 3, [3, 1]), (4, 6, [0, 6, 2, 5])):
        x = data(batch=batch, time=time)
        out, gradients = run(x, length)
        mask = mask_of(length, time)
        with tf.GradientTape() as tape:
            expected = layer(x, mask=mask)
            loss = tf.reduce_sum(expected**2)
        assert_close(out, expected)
        expected_gradients = tape.gradient(loss, [w.value for w in layer.trainable_weights])
        assert_close(gradients, expected_gradients, 1e-4)


@pytest.mark.parametrize("name", [*CELLS, "bidirectional_gru"])
def test_under_xla(name):
    layer = BLOCKS[name](return_sequences=True)
    layer.build((None, None, 4))
    fill(layer)
    x, mask = tf.constant(data()), mask_of([5, 2, 0], 5)

    def run(x):
        with tf.GradientTape() as tape:
            out = layer(x, mask=mask)
            loss = tf.reduce_sum(out**2)
        return out, tape.gradient(loss, [w.value for w in layer.trainable_weights])

    out, gradients = tf.function(run, jit_compile=True)(x)
    expected, expected_gradients = run(x)
    assert_close(out, expected)
    assert_close(gradients, expected_gradients, 1e-4)


@cells
def test_settings_left_to_keras(cell):
    """Unusual activations, dropout inside the cell, stateful layers, unrolling."""
    x, mask = data(), mask_of([5, 2, 0], 5)
    for kwargs in ({"activation": "relu"}, {"unroll": True}):
        ours, theirs = pair(cell, 3, 4, return_sequences=True, **kwargs)
        out, gradients = values_and_gradients(ours, x, mask, None)
        expected, expected_gradients = values_and_gradients(theirs, x, mask, None)
        assert_close(out, expected)
        assert_close(gradients, expected_gradients, 1e-4)
    for kwargs in ({"dropout": 0.5}, {"recurrent_dropout": 0.5}):
        ours, theirs = pair(cell, 3, 4, seed=7, **kwargs)
        assert_close(ours(x), theirs(x))
        # The same seed draws the same masks.
        ours, theirs = (
            type(layer).from_config({**layer.get_config(), "seed": 11}) for layer in (ours, theirs)
        )
        ours.build(x.shape)
        theirs.build(x.shape)
        fill(ours)
        fill(theirs)
        dropped = ours(x, training=True)
        assert_close(dropped, theirs(x, training=True))
        assert np.abs(dropped - ours(x, training=False)).max() > 1e-3
    ours = CELLS[cell][0](3, stateful=True, return_sequences=True, **CELLS[cell][2])
    ours.build((3, 5, 4))
    fill(ours)
    whole = reference(cell, np.concatenate([x, x], 1), ours.get_weights())[0]
    assert_close(ours(x), whole[:, :5])
    assert_close(ours(x), whole[:, 5:])
    ours.reset_state()
    assert_close(ours(x), whole[:, :5])


def test_gradient_equals_finite_differences():
    """Through a mask, gates and a residual connection."""
    layer = rnn.stack("lstm", 2, 2, residual=True, dtype="float64")
    x, mask = data(batch=2, time=3, features=2).astype("float64"), mask_of([3, 1], 3)
    layer.build(x.shape)
    fill(layer)
    theory, numeric = tf.test.compute_gradient(lambda x: layer(x, mask=mask), [tf.constant(x)])
    np.testing.assert_allclose(theory[0], numeric[0], atol=1e-6)


# --- weights and configurations -------------------------------------------------------------------


@cells
def test_weights_are_interchangeable_with_keras(cell, tmp_path):
    ours, theirs = pair(cell, 3, 4)
    assert [(w.name, w.shape) for w in ours.weights] == [(w.name, w.shape) for w in theirs.weights]
    fill(ours, seed=3)
    theirs.set_weights(ours.get_weights())
    assert_close(ours(data()), theirs(data()))

    def model(layer):
        return keras.Sequential([keras.Input((None, 4)), layer])

    ours_class, keras_class, more = CELLS[cell]
    for first, second in ((ours_class, keras_class), (keras_class, ours_class)):
        source, target = model(first(3, **more)), model(second(3, **more))
        source.save_weights(tmp_path / "model.weights.h5")
        target.load_weights(tmp_path / "model.weights.h5")
        for a, b in zip(target.get_weights(), source.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert_close(target(data()), source(data()))


@cells
def test_config_is_keras_config(cell):
    ours_class, keras_class, more = CELLS[cell]
    settings = dict(
        activation="relu",
        use_bias=False,
        kernel_regularizer="l2",
        recurrent_initializer="zeros",
        recurrent_dropout=0.25,
        go_backwards=True,
        return_state=True,
        zero_output_for_mask=True,
        name="a",
        **more,
    )
    ours, theirs = ours_class(3, **settings), keras_class(3, **settings)
    assert ours.get_config() == theirs.get_config()
    again = ours_class.from_config(theirs.get_config())
    assert type(again) is ours_class
    assert again.get_config() == ours.get_config()
    serialised = keras.saving.serialize_keras_object(ours)
    assert serialised["registered_name"] == f"common>{keras_class.__name__}"
    assert type(keras.saving.deserialize_keras_object(serialised)) is ours_class


@blocks
def test_model_loads_from_a_keras_file(name, tmp_path):
    features, length = keras.Input((None, 4), name="features"), keras.Input((), dtype="int32")
    mask = rnn.length_mask(length, features)
    layers = [BLOCKS[name](return_sequences=True), BLOCKS[name](return_sequences=False)]
    model = keras.Model([features, length], [layer(features, mask=mask) for layer in layers])
    for layer in layers:
        fill(layer)
    inputs = [data(), np.array([5, 2, 0], "int32")]
    expected = model(inputs)
    assert_close(expected, [layer(inputs[0], mask=mask_of(inputs[1], 5)) for layer in layers])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for a, b in zip(loaded(inputs), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in model.layers]


# --- padding --------------------------------------------------------------------------------------


def built(name, **kwargs):
    layer = BLOCKS[name](**kwargs)
    layer.build((None, None, 4))
    fill(layer)
    return layer


def outcome(layer, x, length):
    """Return the outputs at the real steps of each row, the states, and all outputs."""
    out = layer(x, mask=rnn.length_mask(np.array(length, "int32"), x))
    sequences, *states = tensors(out)
    return [row[:n] for row, n in zip(sequences, length, strict=True)], states, sequences


@blocks
def test_padding_changes_nothing(name):
    """The amount of padding, its values and the other rows do not matter."""
    length = [5, 1, 0, 3]
    x = data(batch=4)
    zero = {"zero_output_for_mask": True} if name in CELLS else {}
    layer = built(name, return_sequences=True, return_state=True, **zero)
    rows, states, sequences = outcome(layer, x, length)
    assert not sequences[~mask_of(length, 5)].any(), "zeros at padded steps"
    for junk in (0.0, 1e4, np.nan):
        longer = np.concatenate([x, np.zeros((4, 3, 4), "float32")], axis=1)
        longer[~mask_of(length, 8)] = junk
        rows_, states_, sequences_ = outcome(layer, longer, length)
        for a, b in zip(rows_ + states_, rows + states, strict=True):
            assert np.abs(a - b).max(initial=0) <= 1e-6
        assert not sequences_[~mask_of(length, 8)].any()
    for row, n in enumerate(length):
        if n:  # a single row without padding or mask
            alone, *finals = tensors(layer(x[row : row + 1, :n]))
            assert np.abs(alone[0] - rows[row]).max() <= 1e-6
            for a, b in zip(finals, states, strict=True):
                assert np.abs(a[0] - b[row]).max() <= 1e-6
        else:
            assert not any(s[row].any() for s in states)


@blocks
def test_padding_has_no_gradient_and_affects_none(name):
    length, mask = [5, 1, 0], mask_of([5, 1, 0], 5)
    layer = built(name, return_sequences=True)

    def gradients(x):
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = layer(x, mask=rnn.length_mask(np.array(length), x))
            weight = tf.reshape(tf.range(tf.size(out), dtype=tf.float32), tf.shape(out))
            loss = tf.reduce_sum(out * weight * mask[..., None])
        return tape.gradient(loss, [x] + [w.value for w in layer.trainable_weights])

    x = data()
    dx, *dw = gradients(x)
    assert not np.asarray(dx)[~mask].any()
    x[~mask] = 7.0
    assert_close(gradients(x), [dx, *dw], 1e-6)


@pytest.mark.parametrize("name", [n for n in BLOCKS if "sum" not in n])
def test_final_output_is_the_output_at_the_last_step(name):
    length = [5, 2, 1, 0]
    x, mask = data(batch=4), mask_of(length, 5)
    sequences = np.array(built(name, return_sequences=True)(x, mask=mask))
    one, *states = tensors(built(name, return_sequences=False, return_state=True)(x, mask=mask))
    for row, n in enumerate(length):
        assert_close(one[row, :3], sequences[row, n - 1, :3] if n else np.zeros(3))
        if "bidirectional" in name:  # the backward half reads the first step last
            assert_close(one[row, 3:], sequences[row, 0, 3:])
    if "residual" not in name:
        last = states[-2:] if name == "stack" else states
        assert_close(last[0], one[:, :3])
    assert_close(built(name, return_sequences=False)(x)[0], one[0])


def test_bidirectional_is_two_layers():
    x, mask = data(), mask_of([5, 2, 0], 5)
    both = rnn.bidirectional(rnn.LSTM(3, return_sequences=True))
    both.build(x.shape)
    fill(both)
    weights = both.get_weights()
    forward = reference("lstm", x, weights[:3], mask=mask, zero=True)[0]
    backward = reference("lstm", x, weights[3:], mask=mask, zero=True, go_backwards=True)[0]
    assert_close(both(x, mask=mask), np.concatenate([forward, backward[:, ::-1]], axis=-1))
    theirs = keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True))
    theirs.build(x.shape)
    theirs.set_weights(weights)
    assert_close(both(x, mask=mask), theirs(x, mask=mask))
    assert type(both.forward_layer) is type(both.backward_layer) is rnn.LSTM
    half = rnn.bidirectional(rnn.GRU(3, dtype="mixed_bfloat16"))
    assert half(x).dtype == "bfloat16"
    with pytest.raises(ValueError, match="'back' has go_backwards=True"):
        rnn.bidirectional(rnn.GRU(3, go_backwards=True, name="back"))


# --- lengths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("length_type", ["int32", "int64", "uint8"])
def test_length_mask(length_type):
    length = np.array([0, 3, 4, 9], length_type)
    for like in (np.zeros((4, 4, 2), "float32"), np.zeros((4, 4), "int32")):
        mask = rnn.length_mask(length, like)
        assert mask.dtype == tf.bool
        np.testing.assert_array_equal(mask, mask_of(length, 4))
    assert not np.any(rnn.length_mask(np.array([-1]), np.zeros((1, 3))))


def test_length_mask_is_exact_in_half_precision():
    """bfloat16 cannot represent 257, so the length must not be cast to it."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mask = rnn.length_mask(np.array([257], "int32"), np.zeros((1, 300), "float32"))
        assert np.sum(mask) == 257
        length, x = keras.Input((), dtype="int32"), keras.Input((300, 1))
        model = keras.Model([length, x], rnn.length_mask(length, x))
        assert model.outputs[0].dtype == "bool"
        assert np.sum(model([np.array([257]), np.zeros((1, 300, 1))])) == 257
    finally:
        keras.config.set_dtype_policy("float32")


def test_length_mask_in_a_model_of_any_length():
    length, x = keras.Input((), dtype="int32"), keras.Input((None, 1))
    model = keras.Model([length, x], rnn.length_mask(length, x))
    assert model.outputs[0].shape == (None, None)
    for time in (2, 5):
        mask = model.predict([np.array([1, 4]), np.zeros((2, time, 1))], verbose=0)
        np.testing.assert_array_equal(mask, mask_of([1, 4], time))
