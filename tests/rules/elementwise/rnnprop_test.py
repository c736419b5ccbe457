"""Tests of RNNprop: the inputs of its LSTM, and its bounded output."""

import numpy as np
import pytest
import tensorflow as tf

from l2l_keras.rules import RNNprop


def inputs_of(rule, gradients):
    """The LSTM's inputs in every step, float64 `[steps, 2, n]`."""
    state = tuple(tf.zeros((1, gradients.shape[1])) for _ in rule.feature_rows)
    inputs = []
    for gradient in gradients:
        features, state = rule.features(tf.constant(gradient, tf.float32), state)
        inputs.append(features.inputs)
    return np.array(inputs, "float64")


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_inputs_are_momentum_and_gradient_over_the_rms_of_gradients(scale):
    rule = RNNprop(units=(3,), beta_1=0.9, beta_2=0.99)
    gradients = scale * np.random.default_rng(0).normal(size=(5, 4))
    m = v = np.zeros(4)
    for t, (gradient, actual) in enumerate(zip(gradients, inputs_of(rule, gradients), strict=True)):
        m = 0.9 * m + 0.1 * gradient
        v = 0.99 * v + 0.01 * gradient**2
        rms = np.sqrt(v / (1 - 0.99 ** (t + 1)))
        expected = [m / (1 - 0.9 ** (t + 1)) / rms, gradient / rms]
        np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_no_update_is_longer_than_the_output_scale():
    rule = RNNprop(units=(3,), output_scale=0.2, seed=0)
    rule.set_weights([100.0 * w for w in rule.get_weights()])
    gradient = tf.constant([1.0, -5.0, 1e-3, 0.0])
    update, _ = rule.step(gradient, rule.initial_state(4))
    assert 0.1 < np.abs(update).max() <= np.float32(0.2)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
