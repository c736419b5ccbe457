"""Tests of what results say, by hand-made losses."""

import math

import numpy as np
import pytest

from l2l_keras.evaluation import Comparison, Result, Tuning, mean_and_interval
from l2l_keras.evaluation.results import (
    final_losses,
    loss_ratio,
)


def test_final_losses_are_finite_means_of_the_last_ones_or_infinite():
    curves = np.array([[9, 4, 2], [9, 1, 3]], np.float32)
    np.testing.assert_array_equal(final_losses(curves), [2, 3])
    np.testing.assert_array_equal(final_losses(curves, window=2), [3, 2])
    curves = np.array([[1, 0.5], [1, np.nan], [1, np.inf], [1, -np.inf]])
    np.testing.assert_array_equal(final_losses(curves), [0.5, np.inf, np.inf, np.inf])
    for window in (0, 3):
        with pytest.raises(ValueError, match=f"`window` must be from 1.*Received: window={window}"):
            final_losses(curves, window)


def test_the_interval_is_students():
    mean, half_width = mean_and_interval(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]))
    np.testing.assert_allclose(mean, [2, 5])
    # The quantile for two degrees of freedom is 4.302653; the standard error is 1 / sqrt(3).
    np.testing.assert_allclose(half_width, [4.302653 / np.sqrt(3), 0], rtol=1e-6)
    mean, half_width = mean_and_interval(np.array([2.0]))
    assert mean == 2.0 and np.isnan(half_width)


def test_a_ratio_is_the_geometric_mean_of_paired_runs():
    losses = np.array([1.0, 10.0, 100.0])
    assert loss_ratio(losses, 2.0 * losses) == pytest.approx((0.5, 0.5, 0.5))
    wide = loss_ratio(losses, np.full(3, 10.0))
    assert wide.mean == pytest.approx(1.0)
    assert wide.low == pytest.approx(1.0 / wide.high)
    assert math.isnan(loss_ratio(losses[:1], losses[:1]).low)


@pytest.mark.parametrize(
    ("losses", "others", "expected"),
    [
        ([0.0, 0.0], [1.0, 1.0], 0.0),
        ([1.0, math.inf], [1.0, 1.0], math.inf),
        ([1.0, math.inf], [1.0, math.inf], math.inf),
        ([1.0, 1.0], [math.inf, 1.0], 0.0),
        ([1.0, 1.0], [0.0, 1.0], math.inf),
        ([-1.0, 1.0], [1.0, 1.0], math.nan),
        ([0.0, 1.0], [0.0, 1.0], math.nan),
    ],
)
def test_a_ratio_of_losses_at_the_limits(losses, others, expected):
    ratio = loss_ratio(np.array(losses), np.array(others))
    assert ratio == pytest.approx((expected, math.nan, math.nan), nan_ok=True)


class TestComparison:
    def make(self, name, final, tuning=Tuning(1.0, False)):  # noqa: B008
        curves = np.array([[8.0, 4.0, final - 1], [8.0, 2.0, final + 1]], np.float32)
        return Result(name, curves, window=1, tuning=tuning, seconds=1.0)

    def test_its_numbers(self):
        results = (self.make("lstm", 1.5, None), self.make("A", 4.0), self.make("B", 3.0))
        comparison = Comparison("t", 2, (0, 1), (0,), 1, results)
        assert comparison.best_baseline.name == "B"
        assert comparison.ratio("lstm") == pytest.approx(math.sqrt(0.5 / 2.0 * 2.5 / 4.0))
        assert comparison.ratio("B") == 1.0
        assert comparison["A"].mean_final == 4.0
        assert comparison["A"].mean_loss == 3.5
        assert comparison["A"].interval == pytest.approx(12.7062, rel=1e-4)
        with pytest.raises(KeyError, match="Expected one of"):
            comparison["C"]

    def test_without_baselines_there_is_no_ratio(self):
        comparison = Comparison("t", 2, (0,), (0,), 1, (self.make("lstm", 1.5, None),))
        assert comparison.best_baseline is None
        assert math.isnan(comparison.ratio("lstm"))


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
