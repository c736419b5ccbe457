"""Tests of the LSTM layers and their outputs: derivative and initial biases."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l_keras.rules.elementwise.lstm_network import EXPONENTIAL, LINEAR, TANH, LSTMNetwork
from tests.rules.elementwise.numpy_lstm import randomize


def make_network(*args, **kwargs):
    """A network, and the layer that has its weights."""
    network, layer = LSTMNetwork(*args, **kwargs), keras.layers.Layer()
    network.build(layer.add_weight)
    return network, layer


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.sampled_from([LINEAR, TANH, EXPONENTIAL]),
    st.integers(0, 1),
    st.integers(1, 7),
    st.integers(0, 1000),
)
def test_backward_is_the_derivative_of_forward(units, activation, averaged_units, n, seed):
    network, layer = make_network(3, 2, units, activation, averaged_units=averaged_units)
    randomize(layer, seed)
    random = np.random.default_rng(seed)

    def draw(*shape):
        return tf.constant(random.normal(size=shape), tf.float32)

    inputs, state = draw(3, n), tuple(draw(rows, n) for rows in network.rows)
    d_outputs, d_state = draw(2, n), tuple(draw(rows, n) for rows in network.rows)
    weights = [w.value for w in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch((inputs, state))
        outputs, new_state, activations = network.forward(inputs, state)
    expected = tape.gradient(
        (outputs, new_state), (weights, inputs, state), output_gradients=(d_outputs, d_state)
    )
    arguments = (inputs, state, new_state, activations, outputs, d_outputs, d_state)
    actual = network.backward(*arguments, with_inputs=True)
    for part, other in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
        scale = max(np.abs(other).max(), 0.1)
        np.testing.assert_allclose(part, other, rtol=1e-4, atol=1e-4 * scale)
    _, d_inputs, _ = network.backward(*arguments, with_inputs=False)
    assert d_inputs is None


def test_only_forget_gates_have_a_bias_at_first():
    _, layer = make_network(1, 1, (2,), forget_bias=1.5)
    bias = next(w for w in layer.weights if w.name == "bias_0")
    np.testing.assert_array_equal(bias, [0, 0, 1.5, 1.5, 0, 0, 0, 0])


@pytest.mark.parametrize(("cell", "share"), [(1.9, 0.0), (-2.1, 0.25)])
def test_saturation_is_the_share_of_cells_beyond_two(cell, share):
    network = LSTMNetwork(1, 1, (1, 1))
    state = tf.constant([[9.0, 9.0], [cell, 0.0], [9.0, 9.0], [0.0, 0.0]])
    assert network.saturation(state) == share


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
