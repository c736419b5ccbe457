"""Tests of the baselines, their grids of learning rates, and how those are tuned."""

import keras
import numpy as np
import pytest

from l2l_keras.evaluation import BASELINES, Baseline, half_decades, run, tune
from l2l_keras.evaluation.tune import default_window, tune_for_lengths
from tests.evaluation.small_tasks import NoisyMean, quadratic

SGD = keras.optimizers.SGD


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Adam", keras.optimizers.Adam()),
        ("RMSprop", keras.optimizers.RMSprop()),
        ("NAG", keras.optimizers.SGD(momentum=0.9, nesterov=True)),
        ("SGD", keras.optimizers.SGD()),
    ],
)
def test_a_baseline_is_keras_optimizer_at_its_defaults_but_for_the_rate(name, expected):
    assert list(BASELINES) == ["Adam", "RMSprop", "NAG", "SGD"]
    assert BASELINES[name].name == name
    optimizer = BASELINES[name].make(0.25)
    assert not optimizer.built and optimizer is not BASELINES[name].make(0.25)
    assert type(optimizer) is type(expected)
    assert float(optimizer.learning_rate) == 0.25

    def others(config):
        return {k: v for k, v in config.items() if k not in ("name", "learning_rate")}

    assert others(optimizer.get_config()) == others(expected.get_config())


def test_half_decades_include_both_ends():
    np.testing.assert_allclose(half_decades(-1.5, 0), [10**-1.5, 0.1, 10**-0.5, 1.0])
    assert half_decades(2, 2) == (100.0,)
    assert [len(baseline.grid) for baseline in BASELINES.values()] == [9, 9, 11, 11]
    for ends in ((0, -1), (0.25, 1), (0, 0.75)):
        with pytest.raises(ValueError, match=r"multiples of 0\.5.*Received: lowest="):
            half_decades(*ends)


def test_the_default_window_is_a_tenth_of_the_run_or_the_last_loss_if_exact():
    assert default_window(quadratic(), steps=100) == 1
    assert [default_window(NoisyMean(), steps) for steps in (4, 100, 250)] == [1, 10, 25]


def test_the_best_rate_is_that_of_the_lowest_final_loss():
    task = quadratic(functions=16)
    grid = half_decades(-2, 0)
    tuning = tune(task, SGD, grid, steps=30, seeds=[0, 1])
    assert tuning.rates == grid
    expected = [np.mean(run(task, SGD(r), 30, [0, 1], "validation")[:, -1]) for r in grid]
    expected = [loss if np.isfinite(loss) else np.inf for loss in expected]
    np.testing.assert_allclose(tuning.losses, expected, rtol=1e-5)
    assert tuning.best == grid[int(np.argmin(expected))]
    assert not tuning.on_edge
    assert np.isinf(tuning.losses[-1])  # Gradient descent diverges at a rate of 1.


def test_each_length_has_a_rate_of_its_own_from_one_run():
    task, grid, windows = quadratic(), half_decades(-3, 0), {2: 1, 20: 2}
    lines = []
    baseline = Baseline("SGD", SGD, grid)
    tunings = tune_for_lengths(task, baseline, windows, [3], progress=lines.append)
    for tuning, (steps, window) in zip(tunings, windows.items(), strict=True):
        alone = tune(task, SGD, grid, steps, [3], window=window)
        assert tuning.best == pytest.approx(alone.best)
        np.testing.assert_allclose(tuning.losses, alone.losses, rtol=1e-4)
    assert len(lines) == 7 and lines[0].startswith("learning rate 0.001: final loss ")


@pytest.mark.parametrize("ends", [(-3.5, -3), (-0.5, 0)])
def test_a_grid_is_extended_beyond_an_end_that_is_best(ends):
    task, grid = quadratic(functions=16), half_decades(*ends)
    lines = []
    tuning = tune(task, SGD, grid, 30, [0], progress=lines.append)
    assert set(grid) < set(tuning.rates)
    assert len(lines) == len(tuning.rates) <= len(grid) + 4
    assert list(tuning.rates) == sorted(tuning.rates)
    np.testing.assert_allclose(np.diff(np.log10(tuning.rates)), 0.5)
    assert not tuning.on_edge
    assert tuning.best == pytest.approx(10**-1.5)
    assert not set(grid) & {tuning.best}


def test_a_best_rate_that_stays_on_the_edge_is_reported():
    tuning = tune(quadratic(), SGD, half_decades(-9, -8.5), 5, [0])
    assert len(tuning.rates) == 6
    assert tuning.on_edge
    assert tuning.best == tuning.rates[-1]


@pytest.mark.parametrize("grid", [[0.1], [0.0, 0.1]])
def test_a_grid_that_cannot_be_extended_is_refused(grid):
    with pytest.raises(ValueError, match="`grid` must hold at least two positive"):
        tune(NoisyMean(), SGD, grid, 2, [0])


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
