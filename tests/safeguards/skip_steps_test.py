"""Tests of which steps are skipped."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from l2l_keras import LearnedOptimizer
from l2l_keras.safeguards.skip_steps import accept


def accepted_steps(norms, factor=1000.0):
    """Returns which steps are accepted, and the largest recent norm after each."""
    largest, accepted, remembered = ops.zeros((2,)), [], []
    for norm in norms:
        own, largest = accept(ops.convert_to_tensor(np.float32(norm)), largest, factor)
        accepted.append(bool(ops.convert_to_numpy(own)))
        remembered.append(float(ops.convert_to_numpy(largest)[0]))
    return accepted, remembered


def run_away(growth, steps):
    """Returns the norms of steps that grow whenever one is taken."""
    largest, norms = ops.zeros((2,)), [np.float32(1.0)]
    for _ in range(steps):
        accepted, largest = accept(ops.convert_to_tensor(norms[-1]), largest, 1000.0)
        norms.append(norms[-1] * np.float32(growth if ops.convert_to_numpy(accepted) else 1.0))
    return norms


def test_steps_that_are_not_finite_are_skipped_and_forgotten():
    accepted, remembered = accepted_steps([1.0, math.nan, math.inf, 1.0])
    assert accepted == [True, False, False, True]
    assert remembered[0] == remembered[1] == remembered[2] == 1.0


def test_a_spike_is_skipped_and_does_not_set_the_standard():
    accepted, remembered = accepted_steps([1.0, 1e6, 1.0])
    assert accepted == [True, False, True]
    assert remembered[1] == 10.0


def test_gradients_that_stay_larger_are_accepted_soon():
    accepted, _ = accepted_steps([1.0, *[1e6] * 5])
    # 1e6 is more than 1000 times 1, 10 and 100, but not 1000.
    assert accepted == [True, False, False, False, True, True]


def test_the_largest_norm_is_forgotten_slowly():
    _, remembered = accepted_steps([1.0, *[1e-3] * 69])
    assert remembered[-1] == pytest.approx(0.5, rel=0.01)
    accepted, _ = accepted_steps([1.0, *[1e-6] * 500, 0.5, 1.0])
    assert all(accepted)


def test_gradients_of_zero_do_not_set_the_standard():
    assert accepted_steps([0.0, 0.0, 1e9])[0] == [True, True, True]


@settings(deadline=None)
@given(
    st.lists(st.floats(1.0, 900.0), min_size=1, max_size=20),
    st.floats(1e-12, 1e12),
)
def test_the_scale_does_not_matter(norms, scale):
    assert all(accepted_steps(norms)[0])
    assert accepted_steps([scale * norm for norm in norms])[0] == accepted_steps(norms)[0]


@settings(deadline=None, max_examples=10)
@given(st.floats(1.2, 9.0))
def test_growth_over_many_steps_is_slowed_down(growth):
    """To 1 % a step, after a millionfold growth."""
    norms = run_away(growth, steps=200)
    assert 1e6 <= max(norms) < 1e6 * growth * 0.99**-200
    assert sum(a == b for a, b in zip(norms, norms[1:], strict=False)) > 100


def test_growth_that_is_almost_sudden_is_slowed_down_too():
    assert max(run_away(500.0, steps=100)) < 1e30


@settings(deadline=None, max_examples=10)
@given(st.floats(1.0, 5.9), st.integers(10, 60), st.floats(-3.0, 0.0))
def test_gradients_may_leave_a_plateau_and_return_after_convergence(decades, steps, floor):
    climb = np.logspace(0.0, decades, steps)
    fall = np.logspace(decades, floor, steps)
    rise = np.logspace(floor, decades, steps)
    assert all(accepted_steps([*climb, *fall, *rise])[0])


@settings(deadline=None, max_examples=10)
@given(st.floats(-30.0, 30.0))
def test_no_scale_is_skipped_for_ever(decades):
    accepted, _ = accepted_steps([1.0, *[10.0**decades] * 40])
    assert all(accepted[32:])


def test_a_run_that_diverges_is_stopped_before_weights_overflow():
    """A sum of squares, on which this preset diverges."""
    optimizer = LearnedOptimizer.from_preset("mnist_mlp")
    variable = keras.Variable(np.array([1.0, -1.0, 0.5, 1.5], "float32"))
    for _ in range(100):
        optimizer.apply([2.0 * ops.copy(variable)], [variable])
    assert np.abs(ops.convert_to_numpy(variable)).max() < 1e8
    assert optimizer.skipped_steps > 70


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
