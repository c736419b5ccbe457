"""Tests of the LSTM with global averaging cells: its formula, and what coordinates share."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l_keras.rules import CoordinatewiseLSTM, GlobalAveragingLSTM
from tests.rules.elementwise import numpy_lstm


def randomize(rule, seed=0):
    random = np.random.default_rng(seed)
    rule.set_weights([random.normal(size=w.shape).astype("float32") for w in rule.weights])
    return rule


def some_gradients(n, steps=3, seed=0):
    """Gradients with magnitudes over many decades, `[steps, n]`."""
    random = np.random.default_rng(seed)
    gradients = random.normal(size=(steps, n)) * 10.0 ** random.uniform(-6, 1, (steps, n))
    return gradients.astype("float32")


def run(rule, gradients):
    """The updates of all steps, and the states after them."""
    state = rule.initial_state(gradients.shape[1])
    updates, states = [], []
    for gradient in gradients:
        update, state = rule.step(tf.constant(gradient), state)
        updates.append(update.numpy())
        states.append([part.numpy() for part in state])
    return np.array(updates), states


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.integers(0, 5),
    st.integers(1, 7),
    st.integers(0, 1000),
)
def test_steps_are_the_formula(units, averaged_units, n, seed):
    averaged_units = min(averaged_units, *units)
    rule = randomize(GlobalAveragingLSTM(units, averaged_units), seed)
    gradients = some_gradients(n, seed=seed)
    state = [np.zeros((rows, n)) for rows in rule.state_rows]
    for gradient, update, actual_state in zip(gradients, *run(rule, gradients), strict=True):
        inputs = numpy_lstm.log_sign(gradient.astype("float64"))
        outputs, state = numpy_lstm.step(rule.get_weights(), averaged_units, inputs, state)
        np.testing.assert_allclose(update, 0.1 * outputs[0], rtol=1e-4, atol=1e-5)
        for part, expected in zip(actual_state, state, strict=True):
            np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preprocessing", ["log_sign", "none"])
def test_without_averages_it_is_the_coordinatewise_lstm(preprocessing):
    rule = randomize(GlobalAveragingLSTM((4, 3), 0, preprocessing, output_scale=0.3))
    expected = CoordinatewiseLSTM((4, 3), preprocessing, output_scale=0.3)
    expected.set_weights(rule.get_weights())
    gradients = some_gradients(6)
    updates, states = run(rule, gradients)
    expected_updates, expected_states = run(expected, gradients)
    np.testing.assert_array_equal(updates, expected_updates)
    for part, expected_part in zip(sum(states, []), sum(expected_states, []), strict=True):
        np.testing.assert_array_equal(part, expected_part)


def test_averages_are_the_same_for_all_coordinates_and_nothing_else_is():
    rule = randomize(GlobalAveragingLSTM((4, 3), 2))
    _, states = run(rule, some_gradients(6))
    for state in states:
        hidden, cells = state[::2], state[1::2]
        for part in hidden:
            np.testing.assert_array_equal(part[:2], np.repeat(part[:2, :1], 6, axis=1))
        for part in (*cells, *(part[2:] for part in hidden)):
            assert np.ptp(part, axis=1).min() > 1e-4


def test_coordinates_learn_of_each_other():
    gradients = some_gradients(6)
    other = gradients.copy()
    other[0, 0] *= -100.0
    for averaged_units in (0, 1):
        rule = randomize(GlobalAveragingLSTM((4, 3), averaged_units))
        moved = np.abs(run(rule, gradients)[0] - run(rule, other)[0])
        assert np.all(moved[:, 0] > 0)
        # At once: the second layer sees the average of the first.
        assert np.all((moved[:, 1:] > 0) == (averaged_units > 0))


def test_averages_do_not_depend_on_the_number_of_coordinates():
    """A problem that holds every coordinate three times has the updates of the problem itself."""
    rule = randomize(GlobalAveragingLSTM((4, 3), 2))
    gradients = some_gradients(5)
    updates, _ = run(rule, gradients)
    repeated, _ = run(rule, np.tile(gradients, (1, 3)))
    np.testing.assert_allclose(repeated, np.tile(updates, (1, 3)), rtol=1e-4, atol=1e-6)


def test_it_is_coupled_and_the_coordinatewise_lstm_is_not():
    assert GlobalAveragingLSTM((3,), 1).coupled
    assert not CoordinatewiseLSTM((3,)).coupled


def test_a_round_trip_keeps_all_arguments():
    arguments = {
        "units": [4, 3],
        "averaged_units": 2,
        "preprocessing": "none",
        "output_scale": 0.5,
        "forget_bias": 2.0,
        "seed": 3,
        "name": "mine",
    }
    rule = GlobalAveragingLSTM(**arguments)
    assert rule.get_config() == arguments
    config = keras.saving.serialize_keras_object(rule)
    copy = keras.saving.deserialize_keras_object(config, safe_mode=True)
    assert type(copy) is GlobalAveragingLSTM
    assert copy.get_config() == arguments
    gradients = some_gradients(4)
    np.testing.assert_array_equal(run(copy, gradients)[0], run(rule, gradients)[0])


@pytest.mark.parametrize("averaged_units", [-1, 4, 1.0, None])
def test_averaged_units_that_a_layer_does_not_have_are_refused(averaged_units):
    message = f"`averaged_units` must be an integer from 0 to 3.*Received: {averaged_units}"
    with pytest.raises(ValueError, match=message):
        GlobalAveragingLSTM((5, 3), averaged_units)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
