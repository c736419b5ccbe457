"""Tests of what all rules with one LSTM over every element have in common."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from l2l_keras.rules import CoordinatewiseLSTM, GlobalAveragingLSTM, MomentumLSTM, RNNprop
from tests.rules.elementwise.numpy_lstm import randomize, some_gradients

RULES = {
    "coordinatewise_lstm": CoordinatewiseLSTM,
    "coordinatewise_lstm_plain": functools.partial(CoordinatewiseLSTM, preprocessing="none"),
    "global_averaging_lstm": functools.partial(GlobalAveragingLSTM, averaged_units=1),
    "momentum_lstm": MomentumLSTM,
    "rnnprop": RNNprop,
}
every_rule = pytest.mark.parametrize("make", RULES.values(), ids=RULES)


def after_two_steps(rule, n=6, seed=1):
    """A gradient, and the state after two others."""
    *others, gradient = some_gradients(3, n, seed)
    state = rule.initial_state(n)
    for other in others:
        _, state = rule.step(tf.constant(other), state)
    return tf.constant(gradient), state


def assert_close(actual, expected, tolerance=1e-5, least=1e-6):
    """Holds arrays to a tolerance relative to the largest number in each, or to `least`."""
    actual, expected = tf.nest.flatten(actual), tf.nest.flatten(expected)
    for part, expected_part in zip(actual, expected, strict=True):
        assert part.shape == expected_part.shape
        scale = max(np.abs(expected_part).max(), least)
        np.testing.assert_allclose(part, expected_part, rtol=tolerance, atol=tolerance * scale)


@every_rule
@pytest.mark.parametrize(("units", "n"), [((2,), 7), ((4, 3), 3)])
def test_backward_is_the_derivative_of_forward(make, units, n):
    rule = randomize(make(units=units), 720)
    gradient, state = after_two_steps(rule, n)
    network_state, feature_state = rule.split_state(state)
    features, _ = rule.features(gradient, feature_state)
    features = tf.nest.map_structure(lambda x: tf.broadcast_to(x, (x.shape[0], n)), features)
    random = np.random.default_rng(1)
    d_outputs = tf.nest.map_structure(
        lambda part: tf.constant(random.normal(size=part.shape), tf.float32),
        (gradient, network_state),  # Of the shapes of the update and of the next state.
    )
    weights = [w.value for w in rule.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch((features, network_state))
        update, new_state, cache = rule.forward(features, network_state)
    expected = tape.gradient(
        (update, new_state), (weights, features, network_state), output_gradients=d_outputs
    )
    arguments = (features, network_state, new_state, cache, *d_outputs)
    # Within the rounding of gates to 16 bits; the network's test is stricter.
    assert_close(rule.backward(*arguments, with_features=True), expected, 6e-4, least=0.1)
    d_weights, d_features, d_state = rule.backward(*arguments, with_features=False)
    assert d_features is None
    assert_close((d_weights, d_state), (expected[0], expected[2]), 6e-4, least=0.1)


@every_rule
def test_step_agrees_with_forward(make):
    rule = randomize(make(units=(4, 3)))
    gradient, state = after_two_steps(rule)
    update, new_state = rule.step(gradient, state)
    assert [tuple(part.shape) for part in new_state] == [(rows, 6) for rows in rule.state_rows]
    assert {part.dtype for part in (update, *new_state)} == {tf.float32}
    network_state, feature_state = rule.split_state(state)
    assert len(feature_state) == len(rule.feature_rows)
    features, feature_state = rule.features(gradient, feature_state)
    expected, new_network_state, cache = rule.forward(features, network_state)
    assert_close((update, new_state), (expected, (*new_network_state, *feature_state)), 0.0)
    # Two bytes for each gate: a fraction of the states and gates themselves.
    assert sum(part.dtype.size * part.shape[0] for part in cache) == 2 * 4 * sum(rule.units)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
