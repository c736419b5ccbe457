"""Tests of the LSTM over every element, with global averaging cells and without."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l_keras.rules import CoordinatewiseLSTM, GlobalAveragingLSTM
from tests.rules.elementwise import numpy_lstm
from tests.rules.elementwise.numpy_lstm import randomize, some_gradients


def run(rule, gradients):
    """The updates of all steps, and the states after them."""
    state = rule.initial_state(gradients.shape[1])
    updates, states = [], []
    for gradient in gradients:
        update, state = rule.step(tf.constant(gradient), state)
        updates.append(update.numpy())
        states.append(state)
    return np.array(updates), states


@pytest.mark.parametrize("cls", [CoordinatewiseLSTM, GlobalAveragingLSTM])
@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.integers(0, 5),
    st.sampled_from(["none", "log_sign"]),
    st.integers(1, 7),
    st.integers(0, 1000),
)
def test_steps_are_the_formula(cls, units, averaged_units, preprocessing, n, seed):
    arguments = {"preprocessing": preprocessing, "output_scale": 0.3}
    if cls is GlobalAveragingLSTM:
        arguments["averaged_units"] = min(averaged_units, *units)
    rule = randomize(cls(units, **arguments), seed)
    gradients = some_gradients(3, n, seed)
    state = [np.zeros((rows, n)) for rows in rule.state_rows]
    for gradient, update, actual_state in zip(gradients, *run(rule, gradients), strict=True):
        inputs = numpy_lstm.PREPROCESSING[preprocessing](gradient.astype("float64"))
        outputs, state = numpy_lstm.step(rule.get_weights(), rule.averaged_units, inputs, state)
        np.testing.assert_allclose(update, 0.3 * outputs[0], rtol=1e-4, atol=1e-5)
        for part, expected in zip(actual_state, state, strict=True):
            np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-5)


def test_a_gradient_changes_the_updates_of_all_elements():
    gradients = some_gradients(3, 6)
    other = gradients.copy()
    other[0, 1] *= -100.0
    for averaged_units in (0, 1):
        rule = randomize(GlobalAveragingLSTM((4, 3), averaged_units))
        moved = np.abs(run(rule, gradients)[0] - run(rule, other)[0])
        assert np.all(moved[:, 1] > 0)
        # At once: the second layer sees the average of the first.
        assert np.all((moved[:, [0, 2, 3, 4, 5]] > 0) == (averaged_units > 0))


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
