"""Tests of which steps are skipped."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from l2l_keras.safeguards.skip_steps import accept


def accepted_steps(norms, factor=1000.0):
    """Returns which steps are accepted, and the largest norm after each."""
    largest, accepted, remembered = ops.convert_to_tensor(0.0), [], []
    for norm in norms:
        own, largest = accept(ops.convert_to_tensor(np.float32(norm)), largest, factor)
        accepted.append(bool(ops.convert_to_numpy(own)))
        remembered.append(float(ops.convert_to_numpy(largest)))
    return accepted, remembered


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


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
