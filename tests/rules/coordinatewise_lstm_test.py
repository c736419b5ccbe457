"""Tests of the coordinatewise LSTM: its formula, its derivative and its configuration."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l_keras.rules import CoordinatewiseLSTM
from l2l_keras.rules.preprocessing import PREPROCESSING, log_sign

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

    def test_coordinates_are_independent(self):
        rule = CoordinatewiseLSTM(units=(5, 4), seed=0)
        gradient, state = random_inputs(rule, 9, seed=1)
        order = np.random.default_rng(2).permutation(9)
        update, new_state = rule.step(gradient, state)
        permuted, permuted_state = rule.step(
            tf.gather(gradient, order), tuple(tf.gather(part, order, axis=1) for part in state)
        )
        np.testing.assert_allclose(permuted, update.numpy()[order], rtol=1e-5, atol=1e-7)
        for part, permuted_part in zip(new_state, permuted_state, strict=True):
            np.testing.assert_allclose(permuted_part, part.numpy()[:, order], rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize("preprocessing", sorted(PREPROCESSING))
    def test_a_zero_gradient_has_a_finite_update_and_finite_derivatives(self, preprocessing):
        rule = CoordinatewiseLSTM(units=(4, 3), preprocessing=preprocessing, seed=0)
        gradient = tf.zeros(3)
        with tf.GradientTape() as tape:
            tape.watch(gradient)
            state = rule.initial_state(3)
            for _ in range(3):
                update, state = rule.step(gradient, state)
        derivatives = tape.gradient(
            update, [gradient, *(w.value for w in rule.trainable_variables)]
        )
        assert np.isfinite(update).all()
        assert all(np.isfinite(d).all() for d in derivatives)
        assert np.abs(derivatives[0]).max() > 0

    def test_output_scale_scales_the_update(self):
        gradient = tf.constant(SOME_GRADIENTS)
        updates = []
        for scale in (0.1, 0.2):
            rule = CoordinatewiseLSTM(units=(4,), output_scale=scale, seed=0)
            updates.append(rule.step(gradient, rule.initial_state(5))[0].numpy())
        assert np.abs(updates[0]).max() > 0
        np.testing.assert_allclose(updates[1], 2 * updates[0], rtol=1e-6)


class TestBackward:
    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(arguments(), st.integers(1, 7))
    def test_is_the_derivative_of_the_step(self, arguments, n):
        rule = randomize(CoordinatewiseLSTM(**arguments), arguments["seed"])
        assert rule.differentiates_itself
        gradient, state = random_inputs(rule, n, arguments["seed"])
        d_outputs = random_inputs(rule, n, arguments["seed"] + 1)

        weights = [w.value for w in rule.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(state)
            outputs = rule.step(gradient, state)
        expected = tape.gradient(outputs, [weights, state], output_gradients=d_outputs)

        _, new_state, cache = rule.forward(gradient, state)
        actual = rule.backward(state, new_state, cache, *d_outputs)
        for part, expected_part in zip(
            tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True
        ):
            assert part.shape == expected_part.shape
            scale = max(np.abs(expected_part).max(), 1e-6)
            np.testing.assert_allclose(part, expected_part, rtol=1e-5, atol=1e-5 * scale)


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

    def test_a_seed_decides_the_weights(self):
        first, second, other = (CoordinatewiseLSTM((4, 3), seed=seed) for seed in (5, 5, 6))
        for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert not np.allclose(first.get_weights()[0], other.get_weights()[0])
        fresh = [CoordinatewiseLSTM((4, 3)).get_weights()[0] for _ in range(2)]
        assert not np.allclose(*fresh)

    def test_only_forget_gates_have_a_bias_at_first(self):
        rule = CoordinatewiseLSTM((2,), forget_bias=1.5)
        bias = next(w for w in rule.weights if w.name == "bias_0")
        np.testing.assert_array_equal(bias, [0, 0, 1.5, 1.5, 0, 0, 0, 0])

    def test_weights_stay_in_float32(self):
        keras.config.set_dtype_policy("mixed_float16")
        try:
            rule = CoordinatewiseLSTM((2,))
        finally:
            keras.config.set_dtype_policy("float32")
        assert {w.dtype for w in rule.weights} == {"float32"}

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
