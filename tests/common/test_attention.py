"""Pooling against NumPy, row by row."""

from common.attention import MaskedPooling

import keras
import numpy as np
import pytest

X = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
LENGTH = np.array([6, 1, 3, 0])
MASK = np.arange(6)[None, :] < LENGTH[:, None]
MODES = ["mean", "max", "last", "attention"]


def by_numpy(mode, rows, layer):
    """Vector and weights of one row's real steps."""
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
        vector, shares = by_numpy(mode, X[row, :length].astype(np.float64), layer)
        np.testing.assert_allclose(pooled[row], vector, atol=1e-6)
        np.testing.assert_allclose(weights[row, :length], shares, atol=1e-6)
        assert not weights[row, length:].any()


@pytest.mark.parametrize("mode", MODES)
def test_junk_behind_the_mask_changes_nothing(mode):
    layer = MaskedPooling(mode, units=5)
    plain = layer(X, mask=MASK)
    junk = np.where(MASK[..., None], X, np.float32(1e6))
    longer = np.concatenate([junk, np.full((4, 2, 3), np.nan, np.float32)], axis=1)
    mask = np.pad(MASK, [(0, 0), (0, 2)])
    spoilt = layer(np.nan_to_num(longer, nan=-7e5), mask=mask)
    np.testing.assert_allclose(spoilt[0], plain[0], atol=1e-6)
    np.testing.assert_allclose(spoilt[1][:, :6], plain[1], atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_no_mask_takes_every_step(mode):
    layer = MaskedPooling(mode, units=5)
    for one, other in zip(layer(X), layer(X, mask=np.ones((4, 6), bool)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("mode", MODES)
def test_layer_survives_a_keras_file(mode, tmp_path):
    x = keras.Input((None, 3))
    model = keras.Model(x, MaskedPooling(mode, units=5)(x))
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    for one, other in zip(model(X), again(X), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode must be mean, max, last or attention, got 'sum'"):
        MaskedPooling("sum")
