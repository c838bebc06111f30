"""Tests of exports whose large weights have 16 bits."""

from __future__ import annotations

from common.serving.publish import publish
from common.serving.served import load_export
from common.serving.targets import shared
from common.serving.versions import find
from common.serving.weights import round_weights

import keras
import numpy as np
import pytest
import tensorflow as tf

UNITS = 64
SPEC = [tf.TensorSpec([None, UNITS], tf.float32, name="x")]


def make_model():
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(UNITS, activation="tanh") for _ in range(3)]
    return keras.Sequential([keras.Input([UNITS]), *layers])


def test_large_weights_are_rounded_in_the_model_and_small_ones_are_not():
    model = make_model()
    model.layers[0].bias.assign(np.full(UNITS, 1 / 3, np.float32))
    before = [np.asarray(variable) for variable in model.variables]
    halves = round_weights(model)
    assert [variable.path.split("/")[-1] for variable, _ in halves] == ["kernel"] * 3
    for old, variable in zip(before, model.variables, strict=True):
        new = np.asarray(variable)
        if old.ndim == 1:
            np.testing.assert_array_equal(new, old)
        else:
            np.testing.assert_array_equal(new, old.astype(np.float16).astype(np.float32))
            assert 0 < np.abs(new - old).max() <= np.abs(old).max() / 2048


@pytest.mark.parametrize("value", [7e4, np.nan, -np.inf])
def test_weights_that_float16_cannot_hold_stay(value):
    model = make_model()
    kernel = model.layers[1].kernel
    values = np.asarray(kernel).copy()
    values[5, 7] = value
    kernel.assign(values)
    assert id(kernel) not in [id(variable) for variable, _ in round_weights(model)]
    np.testing.assert_array_equal(kernel, values)


def test_an_export_holds_16_bits_and_answers_as_the_rounded_model(tmp_path):
    model = make_model()

    @shared
    def steps(x):
        # A loop reads the weights inside its body.
        return tf.while_loop(lambda n, x: n < 3, lambda n, x: (n + 1, model(x)), [0, x])[1]

    serving_default = tf.function(lambda x: {"y": steps(x)}, input_signature=SPEC)
    tensors = tf.function(lambda x: {"y": steps(x) + model(x)}, input_signature=SPEC)
    x = np.random.default_rng(0).normal(size=(5, UNITS)).astype(np.float32)
    version = publish(
        {"serving_default": serving_default, "tensors": tensors},
        model=model,
        resources=[],
        examples={"serving_default": [{"x": x}], "tensors": [{"x": x}]},
        settings={},
        directory=tmp_path / "toy",
    )
    expected = model(model(model(x)))
    np.testing.assert_allclose(
        load_export(version).call("tensors", x=x)["y"], expected + model(x), rtol=1e-5, atol=1e-6
    )
    for variable, again in zip(model.variables, find(version).model.variables, strict=True):
        np.testing.assert_array_equal(variable, again)
    size = (version / "variables" / "variables.data-00000-of-00001").stat().st_size
    elements = sum(np.prod(variable.shape) for variable in model.variables)
    assert size < 2.2 * elements
