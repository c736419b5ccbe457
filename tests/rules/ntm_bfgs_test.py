"""Tests of the LSTM with an external memory: what it writes, what it reads, what that is worth."""

import keras
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
    random = np.random.default_rng(seed)
    rule.set_weights([random.normal(size=w.shape).astype("float32") for w in rule.weights])
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


def a_full_state(rule, n, seed=0):
    """A random state of a rule with a full memory."""
    random = np.random.default_rng(1000 + seed)
    rows = rule.state_rows_for(n)
    return tuple(tf.constant(random.normal(size=(r, n)), tf.float32) for r in rows)


def numpy_run(rule, gradients):
    """Updates by the formulas of the docstring, in float64."""
    preprocess = {"log_sign": numpy_lstm.log_sign, "none": lambda x: x[None]}[rule.preprocessing]
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
    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(st.integers(1, 8), st.integers(0, 1000), st.sampled_from([CLOSED, 0.0, OPEN]))
    def test_after_a_write_it_maps_the_change_of_the_gradient_to_the_update(
        self, n, seed, symmetric
    ):
        rule = make(seed=seed, symmetric=symmetric)
        state = a_full_state(rule, n, seed)
        gradient = some_gradients(n, 1, seed)[0]
        _, (last_gradient, last_update, memory, *_) = rule.step(tf.constant(gradient), state)
        y = gradient.astype("float64") - state[0][0].numpy()
        error = np.abs(memory.numpy().astype("float64") @ y - state[1][0].numpy())
        assert error.max() < 1e-4 * np.abs(memory).max() * max(np.linalg.norm(y), 1.0)
        np.testing.assert_array_equal(last_gradient[0], gradient)
        assert np.abs(last_update - state[1]).max() > 1e-3

    def test_a_write_is_broydens_second_update(self):
        rule = make(symmetric=CLOSED)
        state = a_full_state(rule, 6)
        gradient = some_gradients(6, 1)[0]
        _, new_state = rule.step(tf.constant(gradient), state)
        old, u = state[2].numpy(), state[1][0].numpy()
        y = gradient - state[0][0].numpy()
        expected = old + np.outer(u - old @ y, y) / (y @ y)
        np.testing.assert_allclose(new_state[2], expected, rtol=1e-4, atol=1e-5)

    def test_or_nearly_that_of_symmetric_rank_one(self):
        rule = make(symmetric=OPEN)
        state = list(a_full_state(rule, 6))
        state[2] = state[2] + tf.transpose(state[2])
        gradient = some_gradients(6, 1)[0]
        _, new_state = rule.step(tf.constant(gradient), tuple(state))
        # A matrix of rank one, nearer to e eᵀ than to e yᵀ.
        change = (new_state[2] - state[2]).numpy().astype("float64")
        left, sizes, right = np.linalg.svd(change)
        assert sizes[1] < 1e-5 * sizes[0]
        y = gradient - state[0][0].numpy()
        e = state[1][0].numpy() - state[2].numpy() @ y
        e, y = e / np.linalg.norm(e), y / np.linalg.norm(y)
        assert abs(left[:, 0] @ e) == pytest.approx(1.0, abs=1e-5)
        assert abs(right[0] @ e) > 0.98
        expected = 0.1 * y + 0.9 * e * np.sign(e @ y)
        np.testing.assert_allclose(
            right[0] * np.sign(right[0] @ expected), expected / np.linalg.norm(expected), atol=1e-4
        )

    def test_nothing_is_written_with_the_gate_closed(self):
        rule = make(write=CLOSED)
        state = a_full_state(rule, 6)
        _, new_state = rule.step(tf.constant(some_gradients(6, 1)[0]), state)
        np.testing.assert_array_equal(new_state[2], state[2])

    def test_the_first_step_writes_nothing(self):
        for rank in (None, 2):
            rule = make(rank)
            updates, states = run(rule, some_gradients(5, 2))
            assert not np.any(matrix(rule, states[1]))
            assert np.any(matrix(rule, states[2]))

    def test_updates_follow_it_as_far_as_the_gate_says(self):
        gradient = some_gradients(5, 1)[0]
        updates = {}
        for follow in (CLOSED, 0.0, OPEN):
            rule = make(follow=follow)
            state = a_full_state(rule, 5)
            update, new_state = rule.step(tf.constant(gradient), state)
            updates[follow] = update.numpy()
        read = new_state[2].numpy() @ gradient
        np.testing.assert_allclose(updates[0.0], updates[CLOSED] - read, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(updates[OPEN], updates[CLOSED] - 2 * read, rtol=1e-4, atol=1e-4)

    def test_the_inverse_of_a_quadratics_hessian_is_learned(self):
        """Full steps along as many directions as there are coordinates."""
        random = np.random.default_rng(0)
        factor = random.normal(size=(4, 4))
        hessian = factor @ factor.T / 4 + np.eye(4)
        rule = make(symmetric=OPEN, follow=CLOSED, preprocessing="none")
        theta, state = random.normal(size=4), rule.initial_state(4)
        for _ in range(40):
            _, state = rule.step(tf.constant(hessian @ theta, tf.float32), state)
            # Its own updates know nothing of the memory: here, directions of our own.
            update = tf.constant(random.normal(size=4), tf.float32)
            state = (state[0], update[None], *state[2:])
            theta = theta + update.numpy()
        np.testing.assert_allclose(state[2].numpy() @ hessian, np.eye(4), atol=0.02)


class TestSteps:
    @pytest.mark.parametrize("preprocessing", ["log_sign", "none"])
    @pytest.mark.parametrize("gates", ["open", "random"])
    def test_they_are_the_formula(self, preprocessing, gates):
        rule = make(preprocessing=preprocessing, units=(4, 3) if gates == "open" else (3,))
        if gates == "random":
            random = np.random.default_rng(7)
            rule.set_weights([random.normal(size=w.shape).astype("float32") for w in rule.weights])
        gradients = some_gradients(6, 5)
        updates, _ = run(rule, gradients)
        expected = numpy_run(rule, gradients)
        scale = np.abs(expected).max(axis=1, keepdims=True)
        np.testing.assert_allclose(updates / scale, expected / scale, atol=2e-4)

    @pytest.mark.parametrize("rank", [4, 7])
    def test_a_low_rank_that_holds_all_updates_is_as_good_as_a_full_memory(self, rank):
        gradients = some_gradients(6, 5)
        full, low = make(), make(rank)
        updates, states = run(low, gradients)
        expected, expected_states = run(full, gradients)
        np.testing.assert_allclose(updates, expected, rtol=1e-3, atol=1e-4)
        actual, memory = (matrix(r, s[-1]) for r, s in ((low, states), (full, expected_states)))
        np.testing.assert_allclose(actual, memory, atol=1e-4 * np.abs(memory).max())

    def test_a_low_rank_holds_the_last_updates(self):
        gradients = some_gradients(6, 5)
        rule = make(2)
        _, states = run(rule, gradients)
        for before, after in zip(states, states[1:], strict=False):
            for part in (2, 3):
                assert after[part].shape == (2, 6)
                np.testing.assert_array_equal(after[part][:-1], before[part][1:])
        assert np.linalg.matrix_rank(matrix(rule, states[-1]), tol=1e-4) == 2
        other, _ = run(make(), gradients)
        updates, _ = run(rule, gradients)
        np.testing.assert_allclose(updates[:3], other[:3], rtol=1e-3, atol=1e-4)
        assert np.abs(updates[4] - other[4]).max() > 1e-2

    @pytest.mark.parametrize("rank", [None, 3])
    def test_coordinates_in_another_order_have_their_updates_in_that_order(self, rank):
        rule = make(rank)
        gradients = some_gradients(6, 4)
        order = np.random.default_rng(2).permutation(6)
        updates, _ = run(rule, gradients)
        permuted, _ = run(rule, gradients[:, order])
        np.testing.assert_allclose(permuted, updates[:, order], rtol=1e-3, atol=1e-4)

    def test_the_memory_is_worth_having(self):
        """Untrained, it finds minima of ill-conditioned functions that plain steps do not."""
        task = Quadratic(10, 1, initial_scale=1.0, condition=1000.0)
        steps = 100

        def final_loss(seed, step, state):
            parameters, optimizee = task.sample("test", seed)
            for _ in range(steps):
                _, gradient, _ = task.loss_and_gradient(parameters, optimizee, ())
                update, state = step(gradient, state)
                parameters += update
            return float(task.loss(parameters, optimizee, ())[0][0])

        def by_rule(seed, **arguments):
            rule = NTMBFGS((4,), 2, preprocessing="none", output_scale=0.01, seed=1, **arguments)
            return final_loss(seed, tf.function(rule.step), rule.initial_state(10))

        def by_descent(seed, rate):
            return final_loss(seed, lambda gradient, state: (-rate * gradient, state), ())

        for seed in range(2):
            # 0.03 diverges, or is about to.
            descent = min(by_descent(seed, rate) for rate in (0.003, 0.01, 0.02, 0.03))
            assert by_rule(seed) < 1e-4 * descent
            assert by_rule(seed, memory_rank=100) < 1e-4 * descent


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
        rule = make()
        _, states = run(rule, np.repeat(some_gradients(4, 4), [1, 1, 1, 3], axis=0))
        np.testing.assert_array_equal(states[5][2], states[4][2])
        np.testing.assert_array_equal(states[6][2], states[4][2])
        assert np.any(states[4][2] != states[3][2])


class TestState:
    def test_rows_of_a_full_memory_are_as_many_as_coordinates(self):
        rule = NTMBFGS((4, 3), 2)
        with pytest.raises(ValueError, match="as many as coordinates: see `state_rows_for`"):
            _ = rule.state_rows
        assert rule.state_rows_for(7) == (1, 1, 7, 4, 4, 3, 3)
        shapes = [tuple(part.shape) for part in rule.initial_state(7)]
        assert shapes == [(rows, 7) for rows in rule.state_rows_for(7)]

    def test_rows_of_one_of_low_rank_are_not(self):
        rule = NTMBFGS((4,), 2, memory_rank=5)
        assert rule.state_rows == rule.state_rows_for(7) == (1, 1, 5, 5, 4, 4)

    def test_it_is_coupled(self):
        assert NTMBFGS.coupled


class TestConfiguration:
    @pytest.mark.parametrize("rank", [None, 3])
    def test_a_round_trip_keeps_all_arguments(self, rank):
        arguments = {
            "units": [4, 3],
            "averaged_units": 2,
            "memory_rank": rank,
            "preprocessing": "none",
            "output_scale": 0.5,
            "forget_bias": 2.0,
            "seed": 3,
            "name": "mine",
        }
        rule = NTMBFGS(**arguments)
        assert rule.get_config() == arguments
        config = keras.saving.serialize_keras_object(rule)
        copy = keras.saving.deserialize_keras_object(config, safe_mode=True)
        assert type(copy) is NTMBFGS
        assert copy.get_config() == arguments
        gradients = some_gradients(4, 3)
        np.testing.assert_array_equal(run(copy, gradients)[0], run(rule, gradients)[0])

    def test_a_seed_decides_the_weights(self):
        first, same, other = (NTMBFGS((3,), 1, seed=seed).get_weights()[0] for seed in (5, 5, 6))
        np.testing.assert_array_equal(first, same)
        assert not np.allclose(first, other)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"memory_rank": 0}, "`memory_rank` must be a positive integer or None. Received: 0"),
            ({"memory_rank": 2.0}, "`memory_rank` must be .*Received: 2.0"),
            ({"averaged_units": 4}, "`averaged_units` must be an integer from 0 to 3.*Received: 4"),
            ({"averaged_units": -1}, "`averaged_units` must be .*Received: -1"),
            ({"units": ()}, r"`units` must be .*Received: \(\)"),
            ({"preprocessing": "log"}, r"`preprocessing` must be one of .*Received: 'log'"),
        ],
        ids=str,
    )
    def test_wrong_arguments_are_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            NTMBFGS(**{"units": (5, 3), "averaged_units": 2, **arguments})


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
