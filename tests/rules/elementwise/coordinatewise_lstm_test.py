"""Tests of the coordinatewise LSTM."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l_keras.rules import CoordinatewiseLSTM
from tests.rules.elementwise import numpy_lstm


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.sampled_from(["none", "log_sign"]),
    st.integers(1, 7),
    st.integers(0, 1000),
)
def test_a_step_is_the_formula_of_an_lstm(units, preprocessing, n, seed):
    rule = numpy_lstm.randomize(CoordinatewiseLSTM(units, preprocessing, output_scale=0.3), seed)
    gradient = numpy_lstm.some_gradients(1, n, seed)[0]
    random = np.random.default_rng(seed)
    state = [random.normal(size=(rows, n)).astype("float32") for rows in rule.state_rows]
    update, new_state = rule.step(tf.constant(gradient), tuple(tf.constant(x) for x in state))
    inputs = numpy_lstm.PREPROCESSING[preprocessing](gradient.astype("float64"))
    outputs, expected_state = numpy_lstm.step(rule.get_weights(), 0, inputs, state)
    np.testing.assert_allclose(update, 0.3 * outputs[0], rtol=1e-4, atol=1e-5)
    for part, expected in zip(new_state, expected_state, strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
