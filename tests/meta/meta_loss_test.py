"""Tests of the meta-losses: their formulas."""

import numpy as np
import pytest
import tensorflow as tf

from l2l_keras.meta import META_LOSSES, STEP_WEIGHTS
from l2l_keras.meta.meta_loss import window_loss

LOSSES = np.array([[4.0, 1.0], [2.0, 0.5], [1.0, 0.1]])
INITIAL = np.array([8.0, 2.0])
PROGRESS = np.array([0.5, 0.75, 1.0])
EXPECTED = {
    "mean": LOSSES,
    "log": np.log(LOSSES),
    # The same for all functions.
    "log_mean": np.log(LOSSES.mean(axis=1, keepdims=True)) * np.ones(2),
    "relative": LOSSES / INITIAL,
}
WEIGHTS = {"uniform": np.ones(3), "linear": 2 * PROGRESS, "final": np.array([0.0, 0.0, 5.0])}


def compute(name, step_weights, losses=LOSSES, initial=INITIAL):
    arguments = (tf.constant(array, tf.float32) for array in (losses, initial, PROGRESS))
    return float(window_loss(name, step_weights, *arguments))


def test_all_are_tested():
    assert sorted(META_LOSSES) == sorted([*EXPECTED, "log_window", "log_relative"])
    assert sorted(STEP_WEIGHTS) == sorted(WEIGHTS)


@pytest.mark.parametrize("step_weights", WEIGHTS)
@pytest.mark.parametrize("name", EXPECTED)
def test_it_is_the_weighted_mean_over_steps_and_functions(name, step_weights):
    expected = np.mean(WEIGHTS[step_weights][:, None] * EXPECTED[name])
    assert compute(name, step_weights) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("step_weights", WEIGHTS)
def test_that_of_a_window_is_the_logarithm_of_the_weighted_mean(step_weights):
    means = np.average(LOSSES, axis=0, weights=WEIGHTS[step_weights])
    assert compute("log_window", step_weights) == pytest.approx(np.log(means).mean(), rel=1e-5)


@pytest.mark.parametrize("step_weights", WEIGHTS)
def test_the_relative_one_is_nearly_the_logarithm_of_the_part_that_is_left(step_weights):
    means = np.average(LOSSES, axis=0, weights=WEIGHTS[step_weights])
    expected = ((means / INITIAL) ** 0.1 - 1.0).mean() / 0.1
    assert compute("log_relative", step_weights) == pytest.approx(expected, rel=1e-4)


def test_to_the_relative_one_a_factor_is_worth_less_the_less_is_left():
    gains = {}
    for name in ("log_window", "log_relative"):
        losses = [compute(name, "uniform", LOSSES * scale) for scale in (1.0, 0.1, 1e-5, 1e-6)]
        gains[name] = (losses[0] - losses[1], losses[2] - losses[3])
    assert gains["log_window"] == pytest.approx((np.log(10), np.log(10)), rel=0.01)
    assert gains["log_relative"][0] > 3.0 * gains["log_relative"][1] > 0.0


@pytest.mark.parametrize("name", STEP_WEIGHTS)
def test_weights_are_one_on_average_over_a_long_episode(name):
    weights = STEP_WEIGHTS[name](tf.range(1.0, 1001.0) / 1000.0)
    assert np.mean(weights) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("name", META_LOSSES)
def test_losses_of_zero_are_finite_with_finite_derivatives(name):
    losses = tf.zeros((3, 2))
    with tf.GradientTape() as tape:
        tape.watch(losses)
        value = window_loss(name, "uniform", losses, tf.zeros(2), tf.constant(PROGRESS, tf.float32))
    assert np.isfinite(value)
    assert np.isfinite(tape.gradient(value, losses)).all()


def test_the_logarithm_makes_all_scales_of_a_loss_count_alike():
    first, second = (compute("log", "uniform", losses) for losses in (LOSSES, 100 * LOSSES))
    assert second - first == pytest.approx(np.log(100), rel=1e-4)


def test_the_logarithm_of_the_mean_makes_all_scales_of_a_window_count_alike():
    first, second = (compute("log_mean", "uniform", losses) for losses in (LOSSES, 100 * LOSSES))
    assert second - first == pytest.approx(np.log(100), rel=1e-4)


def test_the_logarithm_of_the_mean_is_about_the_functions_that_are_worst_off():
    """Where others make a hundredth of the loss, they make a hundredth of its derivative."""
    losses = tf.constant([[10.0, 0.1]])
    derivatives = {}
    for name in ("log", "log_mean"):
        with tf.GradientTape() as tape:
            tape.watch(losses)
            value = window_loss(name, "uniform", losses, tf.ones(2), tf.ones(1))
        # Of a change by the same factor.
        derivatives[name] = (losses * tape.gradient(value, losses)).numpy()[0]
    np.testing.assert_allclose(derivatives["log"], [0.5, 0.5], rtol=1e-5)
    np.testing.assert_allclose(derivatives["log_mean"], [10 / 10.1, 0.1 / 10.1], rtol=1e-5)


def test_relative_losses_are_those_of_a_rescaled_function():
    scaled = compute("relative", "linear", [3.0, 5.0] * LOSSES, [3.0, 5.0] * INITIAL)
    assert scaled == pytest.approx(compute("relative", "linear"), rel=1e-5)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
