"""Tests that presets fail where their cards say so, and nowhere else among these problems."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_diabetes, load_digits

from l2l_keras import LearnedOptimizer, list_presets, parameter_groups, presets

CARDS = list_presets()
ELEMENTWISE = [name for name in CARDS if not name.startswith("general")]
START = np.linspace(-1.0, 1.0, 10, dtype="float32")


def weights_after_100_steps(step, state, scale):
    """Weights that start at `START`, on the loss `scale * sum(θ²)`."""
    weights = tf.constant(START)
    for _ in range(100):
        update, state = step(2.0 * scale * weights, state)
        weights = weights + update
    return weights.numpy()


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_sums_of_squares(name):
    rule = parameter_groups.rules(presets.load_preset(name)[0])[".*"]
    run = functools.partial(
        weights_after_100_steps, tf.function(rule.step), rule.initial_state(len(START))
    )
    failures = CARDS[name]["fails_on"]
    moved = np.abs(run(0.0) - START).max()
    expected = f"move by up to {moved:.1g} in 100 steps" if moved > 0.1 else None
    assert failures.get("weights with zero gradient") == expected
    for scale in (0.001, 1.0, 1000.0):
        key = f"the loss {scale:g} sum(θ²)".replace(" 1 ", " ")
        ratio = np.sum(run(scale).astype("float64") ** 2) / np.sum(START**2)
        if not ratio < 1e6:
            assert failures[key] == "diverges"
        elif ratio > 2.0:
            assert failures[key] == "rises tenfold in 100 steps"
            assert 10.0 < ratio < 20.0
        else:
            assert key not in failures


@pytest.mark.parametrize("name", ["quadratic_ntm_bfgs", "quadratic_ntm_bfgs_ill"])
def test_a_memory_is_the_square_of_the_number_of_weights(name):
    assert "the state holds the square" in CARDS[name]["fails_on"]["models of many weights"]
    rule, _ = presets.load_preset(name)
    assert sum(rule.state_rows_for(1000)) >= 1000


def final_loss(name, layers, loss, data, epochs):
    keras.utils.set_random_seed(0)
    inputs, units, outputs = layers
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((inputs,)), dense(units, "relu"), dense(outputs)])
    model.compile(optimizer=LearnedOptimizer.from_preset(name), loss=loss)
    return model.fit(*data, batch_size=64, epochs=epochs, verbose=0).history["loss"][-1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*steps were skipped")
@pytest.mark.parametrize("name", CARDS)
def test_relu_networks(name):
    x, y = load_digits(return_X_y=True)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loss = final_loss(name, (64, 20, 10), cross_entropy, (x / 16.0, y), epochs=5)
    at_chance = "ReLU network for digits (64-20-10)" in CARDS[name]["fails_on"]
    assert (loss > 0.95 * np.log(10.0)) == at_chance
    x, y = load_diabetes(return_X_y=True)
    data = (x / x.std(axis=0), (y - y.mean()) / y.std())
    loss = final_loss(name, (10, 32, 1), "mse", data, epochs=15)
    diverges = "ReLU network for a table (diabetes, 10-32-1)" in CARDS[name]["fails_on"]
    assert (not loss < 1e6) == diverges
    assert diverges or loss < 0.7  # The targets have variance 1.


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
