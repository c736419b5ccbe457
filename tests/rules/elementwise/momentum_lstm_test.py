"""Tests of the momentum LSTM: its initial directions, and how its LSTM scales them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2l_keras.rules import MomentumLSTM
from l2l_keras.rules.elementwise.preprocessing import log_sign

GRADIENTS = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")


def updates(rule):
    """The update of every step, `[steps, n]`."""
    state, taken = rule.initial_state(GRADIENTS.shape[1]), []
    for gradient in GRADIENTS:
        update, state = rule.step(tf.constant(gradient), state)
        taken.append(update)
    return np.array(taken)


def with_outputs(rule, *outputs):
    """Makes the outputs of the LSTM constant."""
    *layers, kernel, _ = rule.get_weights()
    rule.set_weights([*layers, np.zeros_like(kernel), np.array(outputs, "float32")])
    return rule


@pytest.mark.parametrize(
    ("rule", "optimizer"),
    [
        (MomentumLSTM((3,), 0.2, 0.0, 0.8), keras.optimizers.SGD(0.2, 0.8, nesterov=True)),
        (MomentumLSTM((3,), 0.0, 0.2, beta_2=0.99), keras.optimizers.Adam(0.2, beta_2=0.99)),
    ],
    ids=["nesterov", "adam"],
)
def test_its_directions_are_those_of_optimizers(rule, optimizer):
    variable = keras.Variable(np.zeros(GRADIENTS.shape[1], "float32"))
    positions = [np.array(variable)]
    for gradient in GRADIENTS:
        optimizer.apply([tf.constant(gradient)], [variable])
        positions.append(np.array(variable))
    actual, expected = updates(with_outputs(rule, 0.0, 0.0)), np.diff(positions, axis=0)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("output", "factor"),
    [(1.0, np.e), (-2.0, np.exp(-2.0)), (9.0, np.exp(4.0)), (-9.0, np.exp(-6.0))],
)
def test_outputs_scale_the_directions_within_limits(output, factor):
    plain = with_outputs(MomentumLSTM((3,)), 0.0, 0.0)
    first = with_outputs(MomentumLSTM((3,), adaptive_rate=0.0), output, 0.0)
    second = with_outputs(MomentumLSTM((3,), rate=0.0), 0.0, output)
    both = updates(first) / factor + updates(second) / factor
    np.testing.assert_allclose(both, updates(plain), rtol=1e-4, atol=1e-6)


def test_it_starts_near_its_directions_at_their_rates():
    rule = MomentumLSTM(seed=0)
    start = updates(rule)
    np.testing.assert_allclose(start, updates(with_outputs(rule, 0.0, 0.0)), rtol=0.1)


def test_its_lstm_sees_gradient_and_momentum():
    rule = MomentumLSTM((3,), momentum=0.5, beta_2=0.5)
    state = tuple(tf.zeros((1, 2)) for _ in rule.feature_rows)
    _, state = rule.features(tf.constant([1.0, 2.0]), state)
    features, _ = rule.features(tf.constant([4.0, 2.0]), state)
    mean = (0.5 * np.array([1.0, 2.0]) + [4.0, 2.0]) / 1.5
    rms = np.sqrt((0.25 * np.array([1.0, 4.0]) + 0.5 * np.array([16.0, 4.0])) / 0.75)
    expected = [
        *log_sign(tf.constant([4.0, 2.0])),
        *log_sign(tf.constant(mean, tf.float32)),
        np.array([4.0, 2.0]) / rms,
        mean / rms,
    ]
    np.testing.assert_allclose(features.inputs, expected, rtol=1e-5)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
