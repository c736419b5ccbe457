"""Tests of the meta-losses: their formulas."""

import numpy as np
import pytest
import tensorflow as tf

from l2l_keras.meta import META_LOSSES, STEP_WEIGHTS, Windows

LOSSES = np.array([[4.0, 1.0], [2.0, 0.5], [1.0, 0.1]])
INITIAL = np.array([8.0, 2.0])
PROGRESS = np.array([0.5, 0.75, 1.0])
WEIGHTS = {"uniform": np.ones(3), "linear": 2 * PROGRESS, "final": np.array([0.0, 0.0, 5.0])}


@pytest.mark.parametrize("step_weights", STEP_WEIGHTS)
@pytest.mark.parametrize("name", META_LOSSES)
def test_formulas(name, step_weights):
    weights = WEIGHTS[step_weights][:, None]
    means = (weights * LOSSES).sum(axis=0) / weights.sum()
    terms = {
        "mean": weights * LOSSES,
        "log": weights * np.log(LOSSES),
        "log_mean": weights * np.log(LOSSES.mean(axis=1, keepdims=True)),
        "log_window": np.log(means),
        "log_relative": ((means / INITIAL) ** 0.1 - 1.0) / 0.1,
        "relative": weights * LOSSES / INITIAL,
    }
    arguments = (tf.constant(array, tf.float32) for array in (LOSSES, INITIAL, PROGRESS))
    value = float(Windows(3, name, step_weights).loss(*arguments))
    assert value == pytest.approx(np.mean(terms[name]), rel=1e-4)


@pytest.mark.parametrize("name", STEP_WEIGHTS)
def test_weights_are_one_on_average_over_a_long_episode(name):
    weights = STEP_WEIGHTS[name](tf.range(1.0, 1001.0) / 1000.0)
    assert np.mean(weights) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("name", META_LOSSES)
def test_losses_of_zero_are_finite_with_finite_derivatives(name):
    losses = tf.zeros((3, 2))
    with tf.GradientTape() as tape:
        tape.watch(losses)
        value = Windows(3, name).loss(losses, tf.zeros(2), tf.constant(PROGRESS, tf.float32))
    assert np.isfinite(value)
    assert np.isfinite(tape.gradient(value, losses)).all()


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
