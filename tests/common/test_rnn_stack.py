"""Deep RNNs: stacks compared with their layers in a row, their states and masks, and learning."""

from common import rnn
from tests.common.test_rnn import (
    assert_close,
    data,
    fill,
    initial_states,
    kernels,  # noqa: F401  (a fixture that runs this file on each implementation)
    mask_of,
    reference,
)

import keras
import numpy as np
import pytest
import tensorflow as tf


def test_stack_equals_its_layers_in_a_row():
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
    expected = deep(x, training=False)
    np.testing.assert_array_equal(deep(x), expected)
    assert np.abs(deep(x, training=True) - expected).max() > 1e-3
    # The residual connection bypasses the dropout: if all is dropped, the result is the output of
    # the first layer, plus that of the second for zeros.
    deep = rnn.stack("simple_rnn", 3, 2, dropout=1 - 1e-7, residual=True)
    first = deep.layers[0](x)[0]
    np.testing.assert_allclose(deep(x, training=True), first, atol=1e-6)


@pytest.mark.parametrize("cell", ["simple_rnn", "gru", "lstm"])
def test_stack_continues_from_its_states(cell):
    """One step at a time with the states passed on equals all steps at once."""
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


def test_stack_accepts_states_of_both_directions():
    x = data()
    deep = rnn.stack("lstm", 3, 2, bidirectional=True, return_state=True)
    initial = [s for seed in range(4) for s in initial_states("lstm", 3, 3, seed)]
    out, *states = deep(x, initial_state=initial)
    weights, y = deep.get_weights(), x
    for layer in range(2):
        w, g = weights[6 * layer :], initial[4 * layer :]
        forward, _, (h, c) = reference("lstm", y, w[:3], states=g[:2])
        back, _, (h_, c_) = reference("lstm", y, w[3:6], states=g[2:4], go_backwards=True)
        y = np.concatenate([forward, back[:, ::-1]], axis=-1)
        assert_close(states[4 * layer : 4 * layer + 4], [h, c, h_, c_])
    assert_close(out, y)


class Receiver(keras.layers.Layer):
    """Receives the mask that Keras passes on with an input."""

    supports_masking = True

    def call(self, x, mask=None):
        self.mask = mask
        return x


def received_mask(x):
    receiver = Receiver()
    receiver(x)
    return receiver.mask


def test_stack_passes_the_mask_on():
    ids = np.array([[3, 1, 2, 0], [4, 0, 0, 0]])
    embedded = keras.layers.Embedding(5, 4, mask_zero=True)(ids)
    deep = rnn.stack("gru", 3, 2)
    out = deep(embedded)
    np.testing.assert_array_equal(received_mask(out), ids != 0)
    assert not np.asarray(out)[ids == 0].any()
    out, *states = rnn.stack("lstm", 3, 2, return_state=True)(embedded)
    np.testing.assert_array_equal(received_mask(out), ids != 0)
    assert [received_mask(state) for state in states] == [None] * 4
    final = rnn.stack("gru", 3, 2, return_sequences=False)(embedded)
    assert received_mask(final) is None


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
            "'of_4' has input width 3 and output width 4",
        ),
    ],
)
def test_stack_rejects(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.thorough
def test_learns_to_remember():
    """The target is the first number of a row: this needs masks, gates and gradients."""
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
