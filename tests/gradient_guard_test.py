"""Tests of the guard against non-finite and runaway gradients."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from l2l_keras.gradient_guard import judge, square_norm


def judged(norms, factor=1000.0):
    """Returns which steps are accepted, and the largest norm after each."""
    largest, accepted, remembered = ops.convert_to_tensor(0.0), [], []
    for norm in norms:
        accept, largest = judge(ops.convert_to_tensor(np.float32(norm)), largest, factor)
        accepted.append(bool(ops.convert_to_numpy(accept)))
        remembered.append(float(ops.convert_to_numpy(largest)))
    return accepted, remembered


def test_what_is_not_finite_is_skipped_and_forgotten():
    accepted, remembered = judged([1.0, math.nan, math.inf, 1.0])
    assert accepted == [True, False, False, True]
    assert remembered[0] == remembered[1] == remembered[2] == 1.0


def test_a_spike_is_skipped_and_no_measure_for_the_next():
    accepted, remembered = judged([1.0, 1e6, 1.0])
    assert accepted == [True, False, True]
    assert remembered[1] == 10.0


def test_gradients_that_stay_larger_are_accepted_soon():
    accepted, _ = judged([1.0, *[1e6] * 5])
    # 1e6 is more than 1000 times 1, 10 and 100, but not 1000.
    assert accepted == [True, False, False, False, True, True]


def test_the_largest_norm_is_forgotten_slowly():
    _, remembered = judged([1.0, *[1e-3] * 69])
    assert remembered[-1] == pytest.approx(0.5, rel=0.01)
    accepted, _ = judged([1.0, *[1e-6] * 500, 0.5, 1.0])
    assert all(accepted)


def test_gradients_of_zero_are_no_measure():
    assert judged([0.0, 0.0, 1e9])[0] == [True, True, True]


def test_without_a_factor_any_finite_norm_passes():
    assert judged([1.0, 1e18, math.inf], None)[0] == [True, True, False]


@settings(deadline=None)
@given(
    st.lists(st.floats(1.0, 900.0), min_size=1, max_size=20),
    st.floats(1e-12, 1e12),
)
def test_the_scale_does_not_matter(norms, scale):
    assert all(judged(norms)[0])
    assert judged([scale * norm for norm in norms])[0] == judged(norms)[0]


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), max_size=30))
def test_square_norm(numbers):
    actual = float(ops.convert_to_numpy(square_norm(np.asarray(numbers, "float32"))))
    assert actual == pytest.approx(float(np.sum(np.square(numbers))), rel=1e-5, abs=1e-30)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e20])
def test_the_norm_is_finite_only_if_all_numbers_are(bad):
    vector = np.ones(1000, "float32")
    vector[777] = bad
    assert not np.isfinite(ops.convert_to_numpy(square_norm(vector)))


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
