"""Tests of the coordinatewise LSTM: its formula and its configuration."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l_keras.rules import CoordinatewiseLSTM
from l2l_keras.rules.elementwise.preprocessing import PREPROCESSING, log_sign

SOME_GRADIENTS = np.array([1.0, -0.3, 0.0, 1e-7, -20.0], "float32")


def arguments():
    """Random rules, small enough for many examples."""
    return st.fixed_dictionaries(
        {
            "units": st.lists(st.integers(1, 5), min_size=1, max_size=3),
            "preprocessing": st.sampled_from(sorted(PREPROCESSING)),
            "output_scale": st.sampled_from([0.1, 1.0]),
            "forget_bias": st.sampled_from([0.0, 1.0]),
            "seed": st.integers(0, 1000),
        }
    )


def random_inputs(rule, n, seed):
    """A gradient with magnitudes over many decades, a zero included, and a state."""
    random = np.random.default_rng(seed)
    gradient = (random.normal(size=n) * 10.0 ** random.uniform(-7, 1, n)).astype("float32")
    gradient[0] = 0.0
    state = [random.normal(size=(rows, n)).astype("float32") for rows in rule.state_rows]
    return tf.constant(gradient), tuple(tf.constant(part) for part in state)


def randomize(rule, seed):
    """Gives every weight a value that a slip in the formula cannot hide behind, as zero could."""
    random = np.random.default_rng(seed)
    rule.set_weights([random.normal(size=w.shape).astype("float32") for w in rule.weights])
    return rule


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def numpy_step(rule, gradient, state):
    """The rule's formula, coordinate by coordinate, in float64."""
    *layers, output_kernel, output_bias = [w.astype("float64") for w in rule.get_weights()]
    updates, new_state = [], [np.zeros_like(part, "float64") for part in state]
    for k, g in enumerate(gradient.astype("float64")):
        x = np.array([g])
        if rule.preprocessing == "log_sign":
            small = abs(g) < np.exp(-10)
            x = np.array([-1, np.exp(10) * g] if small else [np.log(abs(g)) / 10, np.sign(g)])
        for layer in range(len(rule.units)):
            kernel, recurrent_kernel, bias = layers[3 * layer : 3 * layer + 3]
            h, c = (part[:, k].astype("float64") for part in state[2 * layer : 2 * layer + 2])
            i, f, g, o = np.split(kernel @ x + recurrent_kernel @ h + bias, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            x = sigmoid(o) * np.tanh(c)
            new_state[2 * layer][:, k], new_state[2 * layer + 1][:, k] = x, c
        updates.append(rule.output_scale * (output_kernel @ x + output_bias)[0])
    return np.array(updates), new_state


class TestPreprocessing:
    @pytest.mark.parametrize(
        ("gradient", "features"),
        [
            (1.0, (0.0, 1.0)),
            (-1.0, (0.0, -1.0)),
            (np.exp(5.0), (0.5, 1.0)),
            (-np.exp(-5.0), (-0.5, -1.0)),
            (0.999 * np.exp(-10.0), (-1.0, 0.999)),
            (-np.exp(-12.0), (-1.0, -np.exp(-2.0))),
            (0.0, (-1.0, 0.0)),
        ],
    )
    def test_log_sign_has_the_values_of_the_paper(self, gradient, features):
        actual = np.asarray(log_sign(tf.constant([gradient], "float32")))
        np.testing.assert_allclose(actual[:, 0], features, rtol=1e-5, atol=1e-6)

    def test_log_sign_takes_its_scale(self):
        actual = np.asarray(log_sign(tf.constant([np.exp(-3.0), np.exp(-1.0)], "float32"), p=2.0))
        np.testing.assert_allclose(actual, [[-1.0, -0.5], [np.exp(-1.0), 1.0]], rtol=1e-5)

    def test_none_is_the_gradient(self):
        function, features = PREPROCESSING["none"]
        actual = np.asarray(function(tf.constant(SOME_GRADIENTS)))
        np.testing.assert_array_equal(actual, SOME_GRADIENTS[None])
        assert features == 1


class TestStep:
    def test_shapes(self):
        rule = CoordinatewiseLSTM(units=(4, 3))
        assert rule.state_rows == (4, 4, 3, 3)
        update, state = rule.step(tf.constant(SOME_GRADIENTS), rule.initial_state(5))
        assert update.shape == (5,)
        assert [tuple(part.shape) for part in state] == [(4, 5), (4, 5), (3, 5), (3, 5)]
        assert {part.dtype for part in (update, *state)} == {tf.float32}

    @settings(max_examples=10, deadline=None, derandomize=True)
    @given(arguments(), st.integers(1, 7))
    def test_is_the_formula_of_an_lstm(self, arguments, n):
        rule = randomize(CoordinatewiseLSTM(**arguments), arguments["seed"])
        gradient, state = random_inputs(rule, n, arguments["seed"])
        update, new_state = rule.step(gradient, state)
        expected, expected_state = numpy_step(
            rule, gradient.numpy(), [part.numpy() for part in state]
        )
        np.testing.assert_allclose(update, expected, rtol=1e-4, atol=1e-5)
        for part, expected_part in zip(new_state, expected_state, strict=True):
            np.testing.assert_allclose(part, expected_part, rtol=1e-4, atol=1e-5)

    def test_output_scale_scales_the_update(self):
        gradient = tf.constant(SOME_GRADIENTS)
        updates = []
        for scale in (0.1, 0.2):
            rule = CoordinatewiseLSTM(units=(4,), output_scale=scale, seed=0)
            updates.append(rule.step(gradient, rule.initial_state(5))[0].numpy())
        assert np.abs(updates[0]).max() > 0
        np.testing.assert_allclose(updates[1], 2 * updates[0], rtol=1e-6)


class TestConfiguration:
    def test_round_trip(self):
        rule = CoordinatewiseLSTM((4, 3), "none", 0.5, 2.0, seed=3, name="mine")
        config = keras.saving.serialize_keras_object(rule)
        copy = keras.saving.deserialize_keras_object(config, safe_mode=True)
        assert isinstance(copy, CoordinatewiseLSTM)
        assert copy.get_config() == rule.get_config()
        assert copy.get_config() == {
            "units": [4, 3],
            "preprocessing": "none",
            "output_scale": 0.5,
            "forget_bias": 2.0,
            "seed": 3,
            "name": "mine",
        }

    @pytest.mark.parametrize(
        "arguments",
        [{"units": ()}, {"units": (3, 0)}, {"units": (2.5,)}, {"preprocessing": "log"}],
        ids=str,
    )
    def test_wrong_arguments_are_refused(self, arguments):
        with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must be .*Received: "):
            CoordinatewiseLSTM(**arguments)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
