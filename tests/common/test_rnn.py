"""Recurrent layers against a NumPy reference, against Keras's, and under padding.

Everything goes through the public layers, so that the file says the same of whatever computes
behind their `inner_loop`: by default the kernels as they are chosen, and with `-m slow` the whole
file again on Keras's own computation, and on kernels compiled in whatever is traced.
"""

import itertools

from common import rnn, rnn_kernels

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

# Keras 3.15 hands TensorFlow's tensors to np.array(copy=...) when it saves or takes weights.
CELLS = {
    "simple_rnn": (rnn.SimpleRNN, keras.layers.SimpleRNN, {}),
    "gru": (rnn.GRU, keras.layers.GRU, {}),
    "gru_reset_before": (rnn.GRU, keras.layers.GRU, {"reset_after": False}),
    "lstm": (rnn.LSTM, keras.layers.LSTM, {}),
}
# Every block, three units wide; the name says what it is.
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
    """Weights that leave no bias at zero and no gate at its start."""
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(scale=0.5, size=w.shape) for w in layer.weights])


def tensors(value):
    return [
        np.asarray(v, "float32") for v in (value if isinstance(value, (tuple, list)) else [value])
    ]


def assert_close(actual, expected, tolerance=1e-5):
    """Per tensor, max|a - b| <= tolerance * max|b|."""
    actual, expected = tensors(actual), tensors(expected)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        assert np.isfinite(a).all()
        assert np.abs(a - b).max(initial=0) <= tolerance * np.abs(b).max(initial=0)


@pytest.fixture(
    scope="module",
    autouse=True,
    params=["on", *(pytest.param(how, marks=pytest.mark.slow) for how in ("off", "compiled"))],
)
def kernels(request):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "off":
            patch.setattr(rnn_kernels, "covers", lambda *_: False)
        elif request.param == "compiled":
            patch.setattr(rnn_kernels, "_COMPILE_FROM", 1)
        yield request.param


# ---- the reference ------------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def step(cell, x, states, weights):
    """One step of one row or of a batch, as the papers have it."""
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
    """Outputs of all steps, the last output, and the states, in float64 and with plain loops."""
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
    """Ours and Keras's layer with the same weights."""
    ours_class, keras_class, more = CELLS[cell]
    ours, theirs = ours_class(units, **more, **kwargs), keras_class(units, **more, **kwargs)
    ours.build((None, None, features))
    theirs.build((None, None, features))
    fill(theirs, seed)
    ours.set_weights(theirs.get_weights())
    return ours, theirs


def values_and_gradients(layer, x, mask, states):
    """All outputs, and gradients of a random function of them by weights, input and states."""
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
    """Ours equals the reference, and Keras's in values and gradients."""
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


# ---- values and gradients -----------------------------------------------------------------------


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


@settings(deadline=None, max_examples=60, derandomize=True)
@given(draw=st.data())
def test_equals_reference_and_keras_on_any_shape(draw):
    cell = draw.draw(st.sampled_from(sorted(CELLS)), "cell")
    batch, time, features, units = (draw.draw(st.integers(1, 5), n) for n in "btfu")
    lengths = st.lists(st.integers(0, time), min_size=batch, max_size=batch)
    length = draw.draw(st.none() | lengths, "length")
    seed = draw.draw(st.integers(0, 99), "seed")
    states = initial_states(cell, batch, units) if draw.draw(st.booleans(), "states") else None
    switches = ("return_sequences", "go_backwards", "zero_output_for_mask", "use_bias")
    chosen = {name: draw.draw(st.booleans(), name) for name in switches}
    check(cell, data(seed, batch, time, features), length, states, units, seed, **chosen)


@cells
def test_a_mask_that_is_no_right_padding(cell):
    """Keras takes any mask, so these layers do."""
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


def test_known_numbers():
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


# ---- ways to run --------------------------------------------------------------------------------


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
def test_what_only_keras_computes(cell):
    """Unusual activations, dropout inside the cell, state kept between calls, unrolling."""
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


def test_gradient_is_the_slope():
    """Against finite differences, through a mask, gates and a residual connection."""
    layer = rnn.stack("lstm", 2, 2, residual=True, dtype="float64")
    x, mask = data(batch=2, time=3, features=2).astype("float64"), mask_of([3, 1], 3)
    layer.build(x.shape)
    fill(layer)
    theory, numeric = tf.test.compute_gradient(lambda x: layer(x, mask=mask), [tf.constant(x)])
    np.testing.assert_allclose(theory[0], numeric[0], atol=1e-6)


# ---- weights and configurations -----------------------------------------------------------------


@cells
def test_weights_go_both_ways(cell, tmp_path):
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
def test_keras_file_gives_the_same_model(name, tmp_path):
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


# ---- padding ------------------------------------------------------------------------------------


def built(name, **kwargs):
    layer = BLOCKS[name](**kwargs)
    layer.build((None, None, 4))
    fill(layer)
    return layer


def outcome(layer, x, length):
    """Outputs at real steps, row by row, and the states."""
    out = layer(x, mask=rnn.length_mask(np.array(length, "int32"), x))
    sequences, *states = tensors(out)
    return [row[:n] for row, n in zip(sequences, length, strict=True)], states, sequences


@blocks
def test_padding_changes_nothing(name):
    """Neither more of it, nor what stands in it, nor the rows beside."""
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
        if n:  # alone and without padding or mask
            alone, *finals = tensors(layer(x[row : row + 1, :n]))
            assert np.abs(alone[0] - rows[row]).max() <= 1e-6
            for a, b in zip(finals, states, strict=True):
                assert np.abs(a[0] - b[row]).max() <= 1e-6
        else:
            assert not any(s[row].any() for s in states)


@blocks
def test_padding_takes_no_gradient_and_gives_none(name):
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
        if "bidirectional" in name:  # the backward half ends at the first step
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


# ---- deep RNNs ----------------------------------------------------------------------------------


def test_stack_is_its_layers_in_a_row():
    x, mask = data(), mask_of([5, 2, 0], 5)
    for residual in (False, True):
        deep = rnn.stack("gru", 3, 3, residual=residual)
        deep.build(x.shape)
        fill(deep)
        weights = deep.get_weights()
        expected = reference("gru", x, weights[:3], mask=mask, zero=True)[0]
        for at in (3, 6):
            above = reference("gru", expected, weights[at : at + 3], mask=mask, zero=True)[0]
            expected = above + expected if residual else above
        assert_close(deep(x, mask=mask), expected)


def test_stack_drops_between_layers_only_while_training():
    x = data(batch=2)
    single = rnn.stack("lstm", 3, 1, dropout=0.9)
    np.testing.assert_array_equal(single(x, training=True), single(x))
    deep = rnn.stack("lstm", 3, 2, dropout=0.5)
    kept = deep(x, training=False)
    np.testing.assert_array_equal(deep(x), kept)
    assert np.abs(deep(x, training=True) - kept).max() > 1e-3
    # The residual connection goes past the dropout: with all dropped the first layer comes through,
    # and upon it what the second makes of nothing.
    deep = rnn.stack("simple_rnn", 3, 2, dropout=1 - 1e-7, residual=True)
    first = deep.layers[0](x)[0]
    np.testing.assert_allclose(deep(x, training=True), first, atol=1e-6)


@pytest.mark.parametrize("cell", ["simple_rnn", "gru", "lstm"])
def test_stack_goes_on_from_its_states(cell):
    """Step by step with the states passed on is the same as all at once."""
    x = data(time=6)
    deep = rnn.stack(cell, 3, 2, residual=True, return_state=True)
    whole, *finals = deep(x)
    states, steps = None, []
    for t in range(6):
        out, *states = deep(x[:, t : t + 1], initial_state=states)
        steps.append(out)
    assert_close(np.concatenate(steps, axis=1), whole)
    assert_close(states, finals)
    assert len(states) == 2 * (1 + (cell == "lstm"))
    with pytest.raises(ValueError, match=f"must hold {len(states)} tensors. Received: 1"):
        deep(x, initial_state=states[:1])


def test_stack_takes_states_of_both_directions():
    x = data()
    deep = rnn.stack("lstm", 3, 2, bidirectional=True, return_state=True)
    given = [s for seed in range(4) for s in initial_states("lstm", 3, 3, seed)]
    out, *states = deep(x, initial_state=given)
    weights, y = deep.get_weights(), x
    for layer in range(2):
        w, g = weights[6 * layer :], given[4 * layer :]
        forward, _, (h, c) = reference("lstm", y, w[:3], states=g[:2])
        back, _, (h_, c_) = reference("lstm", y, w[3:6], states=g[2:4], go_backwards=True)
        y = np.concatenate([forward, back[:, ::-1]], axis=-1)
        assert_close(states[4 * layer : 4 * layer + 4], [h, c, h_, c_])
    assert_close(out, y)


def test_stack_passes_the_mask_on():
    ids = np.array([[3, 1, 2, 0], [4, 0, 0, 0]])
    embedded = keras.layers.Embedding(5, 4, mask_zero=True)(ids)
    deep = rnn.stack("gru", 3, 2)
    out = deep(embedded)
    np.testing.assert_array_equal(out._keras_mask, ids != 0)
    assert not np.asarray(out)[ids == 0].any()
    out, *states = rnn.stack("lstm", 3, 2, return_state=True)(embedded)
    np.testing.assert_array_equal(out._keras_mask, ids != 0)
    assert [getattr(s, "_keras_mask", None) for s in states] == [None] * 4
    final = rnn.stack("gru", 3, 2, return_sequences=False)(embedded)
    assert getattr(final, "_keras_mask", None) is None


def test_stack_in_half_precision():
    deep = rnn.stack("lstm", 3, 2, bidirectional=True, residual=True, dtype="mixed_bfloat16")
    out = deep(data(), mask=mask_of([5, 2, 0], 5), training=True)
    assert out.dtype == "bfloat16"
    assert {w.dtype for w in deep.trainable_weights} == {"float32"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rnn.stack("lsmt", 3, 2), "one of 'simple_rnn', 'gru', 'lstm'.* Received: 'lsmt'"),
        (lambda: rnn.stack("lstm", 3, 0), "layers must be a positive integer. Received: 0"),
        (lambda: rnn.stack("lstm", 3, 2, go_backwards=True), "'layer_0' .* must read forwards"),
        (lambda: rnn.DeepRNN([rnn.GRU(3, name="a")]), "'a' .* must return sequences and states"),
        (
            lambda: rnn.DeepRNN(
                [
                    rnn.bidirectional(
                        rnn.GRU(3, return_sequences=True, return_state=True), None, name="a"
                    )
                ]
            ),
            "'a' .* must have merge_mode='concat'",
        ),
        (
            lambda: rnn.DeepRNN(
                [
                    rnn.GRU(units, return_sequences=True, return_state=True, name=f"of_{units}")
                    for units in (3, 4)
                ],
                residual=True,
            ).build((None, None, 2)),
            "'of_4' takes 3 and gives 4",
        ),
    ],
)
def test_stack_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- lengths ------------------------------------------------------------------------------------


@pytest.mark.parametrize("length_type", ["int32", "int64", "uint8"])
def test_length_mask(length_type):
    length = np.array([0, 3, 4, 9], length_type)
    for like in (np.zeros((4, 4, 2), "float32"), np.zeros((4, 4), "int32")):
        mask = rnn.length_mask(length, like)
        assert mask.dtype == tf.bool
        np.testing.assert_array_equal(mask, mask_of(length, 4))
    assert not np.any(rnn.length_mask(np.array([-1]), np.zeros((1, 3))))


def test_length_mask_is_exact_in_half_precision():
    """bfloat16 has no 257: a mask that goes through it would be wrong."""
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


# ---- learning -----------------------------------------------------------------------------------


def test_learns_to_remember():
    """The first number of a row, asked for at its end: padding, gates and gradients at work."""
    keras.utils.set_random_seed(0)
    x, length = data(batch=64, time=6, features=1), np.random.default_rng(0).integers(1, 7, 64)
    features, n = keras.Input((None, 1)), keras.Input((), dtype="int32")
    memory = rnn.stack("gru", 12, 2, residual=True, return_sequences=False)
    out = keras.layers.Dense(1)(memory(features, mask=rnn.length_mask(n, features)))
    model = keras.Model([features, n], out)
    model.compile(keras.optimizers.Adam(0.02), "mse", jit_compile=False)
    rows = tf.data.Dataset.from_tensors(((x, length), x[:, 0]))
    assert model.evaluate(rows, verbose=0) > 0.5
    model.fit(rows.repeat(150), shuffle=False, verbose=0)
    assert model.evaluate(rows, verbose=0) < 0.02
