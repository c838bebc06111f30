"""Pooling and attention compared with NumPy, row by row."""

from common.attention import MaskedPooling, make_attention, masked_softmax

import keras
import numpy as np
import pytest

X = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
LENGTH = np.array([6, 1, 3, 0])
MASK = np.arange(6)[None, :] < LENGTH[:, None]
MODES = ["mean", "max", "last", "attention"]


def by_numpy(mode, rows, layer):
    """Return the vector and the weights of the real steps of one row."""
    if mode == "mean":
        weights = np.full(len(rows), 1.0 / len(rows))
    elif mode == "last":
        weights = np.eye(len(rows))[-1]
    elif mode == "max":
        weights = np.bincount(rows.argmax(axis=0), minlength=len(rows)) / rows.shape[1]
        return rows.max(axis=0), weights
    else:
        kernel, bias, query = (np.asarray(w.value) for w in layer.weights)
        scores = np.exp(np.tanh(rows @ kernel + bias) @ query)
        weights = scores / scores.sum()
    return weights @ rows, weights


@pytest.mark.parametrize("mode", MODES)
def test_pooling_equals_numpy(mode):
    layer = MaskedPooling(mode, units=5)
    pooled, weights = (np.asarray(value) for value in layer(X, mask=MASK))
    for row, length in enumerate(LENGTH):
        if length == 0:
            assert not pooled[row].any() and not weights[row].any()
            continue
        vector, expected_weights = by_numpy(mode, X[row, :length].astype(np.float64), layer)
        np.testing.assert_allclose(pooled[row], vector, atol=1e-6)
        np.testing.assert_allclose(weights[row, :length], expected_weights, atol=1e-6)
        assert not weights[row, length:].any()


@pytest.mark.parametrize("mode", MODES)
def test_padding_values_do_not_affect_pooling(mode):
    layer = MaskedPooling(mode, units=5)
    plain = layer(X, mask=MASK)
    junk = np.where(MASK[..., None], X, np.float32(1e6))
    longer = np.concatenate([junk, np.full((4, 2, 3), np.nan, np.float32)], axis=1)
    mask = np.pad(MASK, [(0, 0), (0, 2)])
    perturbed = layer(np.nan_to_num(longer, nan=-7e5), mask=mask)
    np.testing.assert_allclose(perturbed[0], plain[0], atol=1e-6)
    np.testing.assert_allclose(perturbed[1][:, :6], plain[1], atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_no_mask_means_every_step(mode):
    layer = MaskedPooling(mode, units=5)
    for one, other in zip(layer(X), layer(X, mask=np.ones((4, 6), bool)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("mode", MODES)
def test_pooling_loads_from_a_keras_file(mode, tmp_path):
    x = keras.Input((None, 3))
    model = keras.Model(x, MaskedPooling(mode, units=5)(x))
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    for one, other in zip(model(X), again(X), strict=True):
        np.testing.assert_array_equal(one, other)


def test_unknown_mode_is_rejected():
    with pytest.raises(ValueError, match="mode must be mean, max, last or attention, got 'sum'"):
        MaskedPooling("sum")


# --- attention over a memory ----------------------------------------------------------------------

KINDS = ["additive", "dot"]
QUERY = np.random.default_rng(1).normal(size=(4, 2, 5)).astype(np.float32)


def attend_by_numpy(kind, queries, memory, layer):
    """Return the contexts and the weights of one row's queries over its real steps."""
    weights = [np.asarray(w, np.float64) for w in layer.get_weights()]
    if kind == "dot":
        scores = queries @ (memory @ weights[0]).T / np.sqrt(layer.units)
    else:
        query_kernel, memory_kernel, bias, v = weights
        hidden = np.tanh((queries @ query_kernel + bias)[:, None] + (memory @ memory_kernel)[None])
        scores = (hidden @ v)[..., 0]
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    attention = exponentials / exponentials.sum(axis=1, keepdims=True)
    return attention @ memory, attention


@pytest.mark.parametrize("kind", KINDS)
def test_attention_equals_numpy(kind):
    layer = make_attention(kind, 5)
    context, weights = (np.asarray(value) for value in layer(QUERY, X, mask=MASK))
    for row, length in enumerate(LENGTH):
        if length == 0:
            assert not context[row].any() and not weights[row].any()
            continue
        expected = attend_by_numpy(kind, QUERY[row], X[row, :length].astype(np.float64), layer)
        np.testing.assert_allclose(context[row], expected[0], atol=1e-5)
        np.testing.assert_allclose(weights[row, :, :length], expected[1], atol=1e-6)
        assert not weights[row, :, length:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_values_do_not_affect_attention(kind):
    layer = make_attention(kind, 5)
    plain = layer(QUERY, X, mask=MASK)
    junk = np.where(MASK[..., None], X, np.float32(1e6))
    perturbed = layer(
        QUERY, np.pad(junk, [(0, 0), (0, 2), (0, 0)]), mask=np.pad(MASK, [(0, 0), (0, 2)])
    )
    np.testing.assert_allclose(perturbed[0], plain[0], atol=1e-5)
    np.testing.assert_allclose(perturbed[1][:, :, :6], plain[1], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_keys_may_be_computed_in_advance(kind):
    layer = make_attention(kind, 5)
    plain = layer(QUERY, X, mask=MASK)
    keyed = layer(QUERY, X, mask=MASK, keys=layer.keys(X))
    for one, other in zip(plain, keyed, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_loads_from_a_keras_file(kind, tmp_path):
    query, memory = keras.Input((None, 5)), keras.Input((None, 3))
    model = keras.Model([query, memory], make_attention(kind, 5)(query, memory))
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    for one, other in zip(model([QUERY, X]), again([QUERY, X]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_softmax_over_steps_is_float32_for_any_input_type():
    weights = masked_softmax(np.array([[[500.0, 500.0, 700.0]]], np.float16), MASK[2:3, 1:4])
    assert weights.dtype == "float32"
    np.testing.assert_allclose(weights, [[[0.5, 0.5, 0.0]]])


def test_unknown_attention_and_wrong_width_are_rejected():
    with pytest.raises(ValueError, match="attention must be one of additive, dot, got 'sum'"):
        make_attention("sum", 5)
    with pytest.raises(ValueError, match="queries must have width 4, got 5"):
        make_attention("dot", 4)(QUERY, X)
