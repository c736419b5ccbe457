"""Tests of the LSTM with an external memory: how it writes and reads, and how well that works."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l_keras.rules import NTMBFGS
from l2l_keras.tasks import Quadratic
from tests.rules.elementwise import numpy_lstm

# Biases at which a sigmoid is 1 or 0, to every bit of float32.
OPEN, CLOSED = 30.0, -200.0


def make(rank=None, seed=0, write=OPEN, symmetric=0.0, follow=0.0, **arguments):
    """A rule with random weights whose gates do not depend on what its LSTM sees."""
    arguments = {"units": (4, 3), "averaged_units": 2, "output_scale": 1.0, **arguments}
    rule = NTMBFGS(memory_rank=rank, **arguments)
    numpy_lstm.randomize(rule, seed)
    kernel, bias = rule.weights[-2:]
    kernel.assign(kernel.numpy() * [[1.0], [0.0], [0.0], [0.0]])
    bias.assign([0.1, follow, write, symmetric])
    return rule


def some_gradients(n, steps, seed=0):
    return np.random.default_rng(seed).normal(size=(steps, n)).astype("float32")


def run(rule, gradients):
    """The updates of all steps, and the states before the first and after all of them."""
    states = [rule.initial_state(gradients.shape[1])]
    updates = []
    for gradient in gradients:
        update, state = rule.step(tf.constant(gradient), states[-1])
        updates.append(update.numpy())
        states.append(state)
    return np.array(updates), [[part.numpy() for part in state] for state in states]


def matrix(rule, state):
    """The memory as a matrix of float64."""
    if rule.memory_rank is None:
        return state[2].astype("float64")
    return state[2].T.astype("float64") @ state[3].astype("float64")


def numpy_run(rule, gradients):
    """Updates by the formulas of the docstring, in float64."""
    preprocess = numpy_lstm.PREPROCESSING[rule.preprocessing]
    n = gradients.shape[1]
    lstm_state = [np.zeros((units, n)) for units in rule.units for _ in range(2)]
    memory, last_gradient, update = np.zeros((n, n)), np.zeros(n), np.zeros(n)
    updates = []
    for gradient in gradients.astype("float64"):
        inputs = np.concatenate([preprocess(gradient), preprocess(memory @ gradient)])
        outputs, lstm_state = numpy_lstm.step(
            rule.get_weights(), rule.averaged_units, inputs, lstm_state
        )
        own, follow = outputs[0], 2 * numpy_lstm.sigmoid(outputs[1])
        write = numpy_lstm.sigmoid(outputs[2].mean() + 2)
        a = 0.9 * numpy_lstm.sigmoid(outputs[3].mean())
        y = gradient - last_gradient
        e = update - memory @ y
        if np.any(e):
            v = (1 - a) * y / np.linalg.norm(y) + a * e / np.linalg.norm(e) * np.sign(e @ y)
            memory = memory + write * np.outer(e, v) / (v @ y)
        update = rule.output_scale * own - follow * (memory @ gradient)
        updates.append(update)
        last_gradient = gradient
    return np.array(updates)


class TestMemory:
    @settings(max_examples=8, deadline=None, derandomize=True)
    @given(st.integers(1, 8), st.integers(0, 1000), st.sampled_from([CLOSED, 0.0, OPEN]))
    def test_after_a_write_it_maps_the_change_of_the_gradient_to_the_update(
        self, n, seed, symmetric
    ):
        rule = make(seed=seed, symmetric=symmetric)
        random = np.random.default_rng(1000 + seed)
        state = [random.normal(size=(rows, n)) for rows in rule.state_rows_for(n)]
        state = [tf.constant(part, tf.float32) for part in state]
        gradient = some_gradients(n, 1, seed)[0]
        _, (last_gradient, last_update, memory, *_) = rule.step(tf.constant(gradient), state)
        y = gradient.astype("float64") - state[0][0].numpy()
        error = np.abs(memory.numpy().astype("float64") @ y - state[1][0].numpy())
        assert error.max() < 1e-4 * np.abs(memory).max() * max(np.linalg.norm(y), 1.0)
        np.testing.assert_array_equal(last_gradient[0], gradient)
        assert np.abs(last_update - state[1]).max() > 1e-3

    def test_the_inverse_of_a_quadratics_hessian_is_learned(self):
        """By full steps along as many directions as there are elements."""
        random = np.random.default_rng(0)
        factor = random.normal(size=(4, 4))
        hessian = factor @ factor.T / 4 + np.eye(4)
        rule = make(symmetric=OPEN, follow=CLOSED, preprocessing="none")
        theta, state = random.normal(size=4), rule.initial_state(4)
        for _ in range(40):
            _, state = rule.step(tf.constant(hessian @ theta, tf.float32), state)
            # In place of its own updates, which do not follow the memory: random directions.
            update = tf.constant(random.normal(size=4), tf.float32)
            state = (state[0], update[None], *state[2:])
            theta = theta + update.numpy()
        np.testing.assert_allclose(state[2].numpy() @ hessian, np.eye(4), atol=0.02)


class TestSteps:
    @pytest.mark.parametrize("preprocessing", ["log_sign", "none"])
    @pytest.mark.parametrize(
        "gates",
        [
            {},
            {"write": 0.0, "follow": OPEN, "symmetric": OPEN},
            {"write": CLOSED, "follow": CLOSED},
            {"follow": CLOSED, "symmetric": CLOSED},
        ],
        ids=["broyden and rank one", "symmetric", "no writing", "no reading"],
    )
    def test_they_are_the_formula(self, preprocessing, gates):
        rule = make(preprocessing=preprocessing, **gates)
        gradients = some_gradients(6, 5)
        updates, _ = run(rule, gradients)
        expected = numpy_run(rule, gradients)
        scale = np.abs(expected).max(axis=1, keepdims=True)
        np.testing.assert_allclose(updates / scale, expected / scale, atol=2e-4)

    @pytest.mark.parametrize(("rank", "same"), [(2, 3), (4, 5), (7, 5)])
    def test_a_low_rank_holds_the_last_updates(self, rank, same):
        gradients = some_gradients(6, 5)
        full, low = make(), make(rank)
        expected, expected_states = run(full, gradients)
        updates, states = run(low, gradients)
        np.testing.assert_allclose(updates[:same], expected[:same], rtol=1e-3, atol=1e-4)
        for rule, run_states in ((full, expected_states), (low, states)):
            assert not np.any(matrix(rule, run_states[1]))  # The first step writes nothing.
            assert np.any(matrix(rule, run_states[2]))
        actual, memory = matrix(low, states[-1]), matrix(full, expected_states[-1])
        assert np.linalg.matrix_rank(actual, tol=1e-4) == min(rank, 4)
        if rank >= 4:  # All updates that were written.
            np.testing.assert_allclose(actual, memory, atol=1e-4 * np.abs(memory).max())
        else:
            assert np.abs(updates[-1] - expected[-1]).max() > 1e-2
        for before, after in zip(states, states[1:], strict=False):
            for part in (2, 3):
                assert after[part].shape == (rank, 6)
                np.testing.assert_array_equal(after[part][:-1], before[part][1:])

    def test_the_memory_helps(self):
        """Untrained, it minimizes an ill-conditioned function that gradient descent does not."""
        task = Quadratic(10, 1, initial_scale=1.0, condition=1000.0)
        steps = 100

        def final_loss(step, state):
            parameters, optimizee = task.sample("test", 0)
            for _ in range(steps):
                _, gradient, _ = task.loss_and_gradient(parameters, optimizee, ())
                update, state = step(gradient, state)
                parameters += update
            return float(task.loss(parameters, optimizee, ())[0][0])

        def by_rule(**arguments):
            rule = NTMBFGS((4,), 2, preprocessing="none", output_scale=0.01, seed=1, **arguments)
            return final_loss(tf.function(rule.step), rule.initial_state(10))

        def by_descent(rate):
            return final_loss(lambda gradient, state: (-rate * gradient, state), ())

        # 0.03 diverges, or nearly so.
        descent = min(by_descent(rate) for rate in (0.01, 0.02, 0.03))
        assert by_rule() < 1e-4 * descent
        assert by_rule(memory_rank=100) < 1e-4 * descent


class TestFiniteness:
    @pytest.mark.parametrize("rank", [None, 2])
    @pytest.mark.parametrize(
        "gradients",
        [
            [[0.0, 0.0, 0.0]] * 4,
            [[1.0, 0.0, -2.0]] * 4,
            [[1e-30, 0.0, -1e-30]] * 2 + [[1.0, 0.0, 0.0]] * 2,
            [[1e6, 0.0, -1e-6]] * 2 + [[0.0, 0.0, 0.0]] * 2,
        ],
        ids=["zero", "repeated", "tiny", "large, then zero"],
    )
    def test_updates_and_derivatives_are_finite(self, rank, gradients):
        rule = NTMBFGS((4, 3), 2, memory_rank=rank, seed=0)
        gradients = [tf.constant(gradient) for gradient in gradients]
        weights = [w.value for w in rule.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(gradients)
            state = rule.initial_state(3)
            for gradient in gradients:
                update, state = rule.step(gradient, state)
            total = tf.add_n([tf.reduce_sum(part) for part in (update, *state)])
        for part in (update, *state):
            assert np.isfinite(part).all()
        for derivative in tape.gradient(total, [*weights, *gradients]):
            assert np.isfinite(derivative).all()

    def test_a_gradient_that_does_not_change_leaves_the_memory_as_it_is(self):
        _, states = run(make(), np.repeat(some_gradients(4, 4), [1, 1, 1, 3], axis=0))
        np.testing.assert_array_equal(states[5][2], states[4][2])
        np.testing.assert_array_equal(states[6][2], states[4][2])
        assert np.any(states[4][2] != states[3][2])


def test_the_memory_has_a_row_for_each_element_or_rank():
    full, low = NTMBFGS((4, 3), 2), NTMBFGS((4,), 2, memory_rank=5)
    with pytest.raises(ValueError, match="a row for each element: use `state_rows_for`"):
        _ = full.state_rows
    assert full.state_rows_for(7) == (1, 1, 7, 4, 4, 3, 3)
    shapes = [tuple(part.shape) for part in full.initial_state(7)]
    assert shapes == [(rows, 7) for rows in (1, 1, 7, 4, 4, 3, 3)]
    assert low.state_rows == low.state_rows_for(7) == (1, 1, 5, 5, 4, 4)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
