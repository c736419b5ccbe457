"""Tests of how step sizes depend on the LSTM, steps, fan-in and the RMS of weights."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from l2l_keras.rules import Tensors
from l2l_keras.rules.tensorwise import step_sizes


def numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), "float64")


@settings(max_examples=20, deadline=None)
@given(st.floats(-60.0, 60.0), st.floats(0.1, 1.0))
def test_step_sizes_rise_slowly_and_stay_within_bounds(target, largest_rise):
    log_rates = [ops.zeros((1, 1))]
    for _ in range(80):
        log_rates.append(step_sizes.next_log_rate(log_rates[-1], target, largest_rise))
    log_rates = numpy(ops.concatenate(log_rates))[:, 0]
    logs = np.log(numpy(step_sizes.step_size(ops.array(log_rates, "float32"), 0.0, 0.0, 1.0)))
    assert np.diff(logs).max() <= largest_rise + 1e-5
    assert np.diff(log_rates).min() >= -1.0 - 1e-6
    assert logs.max() <= np.log(3e-3) + 6.0 + 1e-5
    assert logs.min() >= np.log(3e-3) - 8.0 - 1e-5
    if target > 30.0:
        assert np.diff(logs)[0] > 0.9 * largest_rise
    if abs(target) < 1.0:
        assert log_rates[-1] == pytest.approx(target, abs=1e-3)


def test_step_sizes_fall_with_steps():
    steps = ops.array([0.0, 3.0, 9.0])
    actual = step_sizes.step_size(ops.zeros(3), steps, 0.5, 3.0)
    expected = 3e-3 * np.exp(-1.0) * np.array([1.0, 2.0, 4.0]) ** -0.5
    np.testing.assert_allclose(numpy(actual), expected, rtol=1e-5)


def test_glorot_rms_is_that_of_keras_initializer():
    shapes = [(96, 40), (3, 3, 14, 15)]
    initializer = keras.initializers.GlorotNormal(seed=0)
    expected = [np.std(numpy(initializer(shape))) for shape in shapes]
    actual = numpy(step_sizes.glorot_rms(Tensors(shapes)))
    np.testing.assert_allclose(actual[0], expected, rtol=0.05)


def test_step_sizes_of_layers_that_are_all_small_do_not_fall():
    small, tensors = ops.full((1, 2), 0.01), Tensors([(96, 4), (28, 4)])
    actual = step_sizes.small_weights_factor(small, ops.zeros((1, 2)), tensors, 0.5)
    np.testing.assert_allclose(numpy(actual), 1.0, rtol=1e-5)


@given(st.floats(1e-6, 1e6), st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_the_limit_bounds_large_steps_and_leaves_small_ones(size, rms):
    limited = float(step_sizes.limited(ops.array(size), ops.array(rms), ops.array(2.0)))
    assert limited * rms < 2.0 * (1 + 1e-5)
    if size * rms < 0.02:
        assert limited == pytest.approx(size, rel=1e-4)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
