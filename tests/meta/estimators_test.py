"""Tests of estimators of meta-gradients: their bias and variance on a problem that is solved."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from l2l_keras import tasks
from l2l_keras.meta import (
    BackPropagation,
    Imitation,
    InnerLoop,
    MetaModel,
    PersistentEvolution,
    Steps,
    Windows,
)
from l2l_keras.rules import RNNprop, TensorwiseLSTM, UpdateRule
from l2l_keras.tasks import Quadratic
from l2l_keras.tasks.base import Task

UNROLL, WINDOWS = 2, 4
SIGMA = 0.02


class Walk(UpdateRule):
    """θ moves by φ each step, whatever the gradient."""

    def __init__(self, name=None):
        super().__init__(name=name)
        self.phi = self.add_weight(shape=(2,), initializer="zeros", name="phi")
        self.phi.assign([0.3, -0.1])
        self.built = True

    @property
    def state_rows(self):
        return ()

    def step(self, gradient, state):
        return ops.zeros_like(gradient) + ops.convert_to_tensor(self.phi), state

    def get_config(self):
        return {"name": self.name}


class Bowl(Task):
    """f(θ) = |θ|²: after t steps of `Walk` from zero, t² |φ|²."""

    @property
    def size(self):
        return 2

    def sample(self, split, seed):
        return tf.zeros(2), ()

    def batch(self, split, seed):
        return ()

    def loss(self, parameters, state, batch):
        return tf.reduce_sum(parameters**2)[None], state


def run_windows(estimator, loop, episodes=1):
    """Meta-gradients of all episodes' windows, `[episodes, windows, 2]`."""

    def episode(seed):
        _, inner = loop.start(tf.zeros(2), (), ())
        carry = estimator.begin(loop, inner, tf.stack([seed, -1]))
        gradients = []
        for k in range(WINDOWS):
            _, gradient, carry = estimator.window(
                loop, carry, Steps(UNROLL, lambda t: ()), tf.reduce_mean, tf.stack([seed, k])
            )
            gradients.append(gradient[0])
        return tf.stack(gradients)

    @tf.function
    def run(seeds):
        return tf.map_fn(episode, seeds, fn_output_signature=tf.float32)

    return run(tf.range(episodes)).numpy()


def exact(phi):
    """What the windows' mean losses change by, all that was before included: 2 φ mean(t²)."""
    t = np.arange(1, UNROLL * WINDOWS + 1).reshape(WINDOWS, UNROLL)
    return 2.0 * phi * (t**2).mean(axis=1)[:, None]


@pytest.fixture(name="loop", scope="module")
def loop_fixture():
    return InnerLoop(Walk(), Bowl())


class TestBackPropagation:
    def test_earlier_windows_count_as_given(self, loop):
        """With θ = s φ after s steps, θ ← θ + t φ': d/dφ' |s φ + t φ'|² = 2 t (s + t) φ."""
        phi = loop.rules[0].phi.numpy()
        t = np.arange(1, UNROLL + 1)
        s = UNROLL * np.arange(WINDOWS)[:, None]
        expected = 2.0 * (t * (s + t)).mean(axis=1)[:, None] * phi
        np.testing.assert_allclose(run_windows(BackPropagation(), loop)[0], expected, rtol=1e-4)


class Scaled(UpdateRule):
    """Momentum over the root of an average of squares, as Adam has it, times exp(φ)."""

    def __init__(self, log_rate, name=None):
        super().__init__(name=name)
        self.log_rate = self.add_weight(shape=(), initializer="zeros", name="log_rate")
        self.log_rate.assign(log_rate)
        self.built = True

    @property
    def state_rows(self):
        return (1, 1, 1)

    def step(self, gradient, state):
        m = 0.9 * state[0] + 0.1 * gradient
        v = 0.999 * state[1] + 0.001 * gradient**2
        t = state[2] + 1.0
        adam = m / (1.0 - 0.9**t) / (ops.sqrt(v / (1.0 - 0.999**t)) + 1e-9)
        return -ops.exp(self.log_rate) * adam[0], (m, v, t)

    def get_config(self):
        return {"name": self.name}


class TestImitation:
    RATE, STEP = 0.05, 1e-2

    def windows(self, log_rate, jit_compile=None):
        """Errors and derivatives of two windows, and the parameters after them."""
        loop = InnerLoop(Scaled(log_rate), Quadratic(4, 3))
        _, inner = loop.start(*loop.task.sample("train", 0), ())
        estimator = Imitation(self.RATE)
        carry, results = estimator.begin(loop, inner, None), []

        @tf.function(jit_compile=jit_compile)
        def window(carry):
            return estimator.window(loop, carry, Steps(5, lambda t: ()), None, None)

        for _ in range(2):
            error, (derivative,), carry = window(carry)
            results += [float(error), float(derivative)]
        return results, carry[0].parameters.numpy()

    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_a_rule_that_is_adam_has_no_error(self, jit_compile):
        results, _ = self.windows(np.log(self.RATE), jit_compile)
        np.testing.assert_allclose(results, 0.0, atol=1e-4)

    @pytest.mark.parametrize("factor", [0.5, 3.0])
    def test_smaller_and_larger_steps_have_the_error_of_the_formula(self, factor):
        """(f a - a)² / a², with the derivative 2 f (f - 1) by log f."""
        results, _ = self.windows(np.log(factor * self.RATE))
        error, slope = (factor - 1.0) ** 2, 2.0 * factor * (factor - 1.0)
        np.testing.assert_allclose(results, [error, slope] * 2, rtol=1e-3)

    def test_adam_steps(self):
        task = Quadratic(4, 3)
        parameters, state = task.sample("train", 0)
        variable, adam = keras.Variable(parameters), keras.optimizers.Adam(self.RATE)
        for _ in range(10):
            _, gradient, state = task.loss_and_gradient(variable.value, state, ())
            adam.apply([gradient], [variable])
        np.testing.assert_allclose(self.windows(3.0)[1], variable.numpy(), rtol=1e-4)

    @pytest.mark.parametrize(
        "rule",
        [
            TensorwiseLSTM(seed=0),
            {"kernel": TensorwiseLSTM(seed=0), "bias": RNNprop(units=(4,), seed=0)},
        ],
        ids=["alone", "groups"],
    )
    def test_its_derivative_is_that_of_the_error(self, rule):
        """Of any rule, along a direction, by central differences over a window."""
        task = tasks.get("digits_mlp", layers=(3,), batch_size=8)
        loop = InnerLoop(rule, task)
        key = tf.zeros(2, tf.int32)
        _, inner = loop.start(*task.sample("train", 0), task.batch("train", key))
        estimator = Imitation(self.RATE)
        carry = estimator.begin(loop, inner, key)

        @tf.function(jit_compile=loop.jit_compile)
        def window():
            def draw(t):
                return task.batch("train", tf.stack([t, 1]))

            return estimator.window(loop, carry, Steps(4, draw), None, key)[:2]

        derivative = window()[1]
        variables = [v for own in loop.rules for v in own.trainable_variables]
        norm = tf.linalg.global_norm(derivative)
        errors, values = [], [v.numpy() for v in variables]
        for sign in (1.0, -1.0):
            for variable, value, part in zip(variables, values, derivative, strict=True):
                variable.assign(value + sign * self.STEP * part.numpy() / float(norm))
            errors.append(float(window()[0]))
        slope = (errors[0] - errors[1]) / (2.0 * self.STEP)
        assert slope == pytest.approx(float(norm), rel=0.05)


class TestPersistentEvolution:
    @pytest.mark.parametrize("reuse_noise", [False, True])
    def test_it_is_unbiased_where_truncation_is_not(self, loop, reuse_noise):
        """Over the windows of an episode, within four standard errors of the mean."""
        samples = run_windows(PersistentEvolution(4, SIGMA, reuse_noise), loop, 300)
        expected = exact(loop.rules[0].phi.numpy())
        mean, error = samples.mean(axis=0), samples.std(axis=0) / np.sqrt(len(samples))
        assert np.all(np.abs(mean - expected) < 4.0 * error)
        # It differs from the truncated one, from the second window on.
        truncated = run_windows(BackPropagation(), loop)[0]
        assert np.all((np.abs(mean - truncated) > 4.0 * error)[1:, 0])

    def test_its_variance_is_that_of_the_theory(self, loop):
        """Of one pair. In the k-th window, ξ is a sum of k + 1 draws.

        L(φ + ε) - L(φ - ε) is 2 b · δ with δ = Σ_j w_j ε_j: the draw of the j-th window has moved
        θ by `UNROLL` times itself when the window begins, the last one by t.
        """
        samples = run_windows(PersistentEvolution(sigma=SIGMA), loop, 1000)
        phi = loop.rules[0].phi.numpy()
        random = np.random.default_rng(0)
        t = np.arange(1, UNROLL + 1)
        for k in range(WINDOWS):
            draws = SIGMA * random.normal(size=(20000, k + 1, 2))
            before = UNROLL * draws[:, :k].sum(axis=1)
            moved = before[:, None] + t[:, None] * draws[:, k][:, None]
            reached = (UNROLL * k + t)[:, None] * phi
            slope = 4.0 * (moved * reached).sum(axis=2).mean(axis=1) / (2.0 * SIGMA**2)
            expected = (slope[:, None] * draws.sum(axis=1)).std(axis=0)
            np.testing.assert_allclose(samples[:, k].std(axis=0), expected, rtol=0.15)

    def test_noise_that_is_used_again_has_the_variance_of_the_theory(self, loop):
        """Losses are t² |φ|²: of one pair, L(φ + ε) - L(φ - ε) = 4 mean(t²) φ · ε.

        So that the estimate is ε · (2 mean(t²) φ · ε / σ²), whose i-th component has the variance
        of (φ · z) z_i, z ~ N(0, 1), which is |φ|² + φ_i², times 4 mean(t²)².
        """
        phi = loop.rules[0].phi.numpy()
        samples = run_windows(PersistentEvolution(1, SIGMA, reuse_noise=True), loop, 1000)
        expected = np.abs(exact(phi) / phi) * np.sqrt((phi**2).sum() + phi**2)
        np.testing.assert_allclose(samples.std(axis=0), expected, rtol=0.15)

    def test_pairs_lower_the_variance(self, loop):
        one, many = (
            run_windows(PersistentEvolution(pairs, SIGMA), loop, 400).std(axis=0)
            for pairs in (1, 4)
        )
        np.testing.assert_allclose(one / many, 2.0, rtol=0.3)


@pytest.mark.parametrize("estimator", [Imitation(0.05), PersistentEvolution(pairs=4)])
def test_meta_training_improves_a_rule(estimator):
    windows = Windows(unroll=5)
    model = MetaModel(Scaled(-5.0), Quadratic(3, 8), 20, estimator, windows)
    model.compile(keras.optimizers.Adam(5e-2))
    before = model.evaluate(tf.data.Dataset.range(2), verbose=0, return_dict=True)["loss"]
    history = model.fit(windows=40, validation_episodes=2, verbose=0).history
    assert history["skipped"] == [0]
    assert history["val_loss"][0] < 0.8 * before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BackPropagation(clip_through_time=True), "`clip_through_time` clips.*: second"),
        (lambda: Imitation(0.0), "`learning_rate` must be positive. Received: learning_rate=0.0"),
        (lambda: PersistentEvolution(pairs=0), "must be positive. Received: pairs=0"),
        (lambda: PersistentEvolution(sigma=0.0), "must be positive. Received: .*sigma=0.0"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
