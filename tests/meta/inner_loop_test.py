"""Tests of the inner loop, and that `LearnedOptimizer` makes the same steps."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2l_keras import LearnedOptimizer
from l2l_keras.meta import InnerLoop
from l2l_keras.tasks import KerasTask
from tests.meta.problems import (
    COUPLED,
    RULES,
    Momentum,
    a_scale,
    assert_close,
    drawing,
    meta_gradient,
    network,
    quadratic,
    start,
    steps_of,
)


@pytest.mark.parametrize(
    ("groups", "task", "message"),
    [
        (
            {"conv": Momentum, ".*": Momentum},
            network,
            "Every group must have variables of the task. Received: 'conv', which has none of "
            r"\[.*kernel",
        ),
        (
            {"para": Momentum, ".*": Momentum},
            quadratic,
            r"need a task of one function. Received: 4 functions, groups \['para', '\.\*'\]",
        ),
    ],
    ids=["no variables", "functions"],
)
def test_impossible_groups_are_refused(groups, task, message):
    with pytest.raises(ValueError, match=message):
        InnerLoop({key: make() for key, make in groups.items()}, task())


def test_a_chunk_size_must_be_positive():
    with pytest.raises(ValueError, match="`chunk_size` must be positive. Received: chunk_size=0"):
        InnerLoop(Momentum(), quadratic(), chunk_size=0)


@pytest.fixture(name="loop", scope="module")
def loop_fixture():
    """A compiled loop, as meta-training uses it."""
    return InnerLoop(RULES["lstm_plain"](), quadratic(), chunk_size=5)


class TestWindow:
    """What a window counts, and that nothing is lost or counted twice at its ends."""

    def window(self, loop, inner, count, meta_loss=tf.reduce_sum, first=0):
        return meta_gradient(loop, inner, steps_of(loop, count, first=first), meta_loss)

    def test_windows_of_all_sorts_go_where_single_steps_go(self, loop):
        _, inner = start(loop)
        losses, end = loop.window(loop.pack(), inner, steps_of(loop, 3))
        value, _, traced_end = self.window(loop, inner, 3)
        assert losses.shape == (3, 4)
        before, _ = loop.task.loss(inner.parameters, inner.task_state, ())
        assert np.abs(losses[0] - before).min() > 1e-4
        assert_close(value, tf.reduce_sum(losses))
        for t in range(3):
            step_losses, inner = loop.step(inner, drawing(loop.task)(t))
            assert_close(losses[t], step_losses)
            expected, gradient, _ = loop.task.loss_and_gradient(
                inner.parameters, inner.task_state, ()
            )
            assert_close(step_losses, expected)
            assert_close(inner.gradient, gradient)
        assert_close(end, inner, tolerance=1e-4)
        assert_close(traced_end, inner, tolerance=1e-4)

    def test_two_windows_count_the_losses_of_one_of_twice_the_length(self, loop):
        _, inner = start(loop)
        whole, _, whole_end = self.window(loop, inner, 10)
        first, _, middle = self.window(loop, inner, 5)
        second, _, end = self.window(loop, middle, 5, first=5)
        assert_close(first + second, whole)
        assert_close(end, whole_end, tolerance=1e-4)
        # f(θ_0) is in neither, and all others differ: ten, not nine or eleven.
        losses, _ = loop.window(loop.pack(), inner, steps_of(loop, 10))
        assert len(np.unique(losses[:, 0])) == 10

    def test_each_loss_is_that_of_its_own_minibatch(self, eagerly):
        task = network()
        loop = InnerLoop(RULES["momentum"](), task)
        _, inner = start(loop)
        losses, _ = loop.window(loop.pack(), inner, steps_of(loop, 3))
        for t, step_losses in enumerate(tf.unstack(losses)):
            batch = drawing(task)(t)
            _, after = loop.step(inner, batch)
            assert_close(step_losses, task.loss(after.parameters, inner.task_state, batch)[0])
            inner = after


def test_a_scale_is_a_reparametrization(eagerly):
    """Steps on θ with a scale are steps on θ' = θ / s of f'(θ') = f(s · θ')."""
    task = quadratic()
    parameters, (w, y) = task.sample("train", 0)
    scale = a_scale(task)
    loop = InnerLoop(RULES["lstm"](), task, chunk_size=5)
    losses, inner = loop.start(parameters, (w, y), ())
    scaled_w = w * tf.reshape(scale, (4, 1, 3))
    expected_losses, expected = loop.start(parameters / scale, (scaled_w, y), ())
    assert_close(losses, expected_losses)
    for _ in range(5):
        losses, inner = loop.step(inner, (), scale)
        expected_losses, expected = loop.step(expected, ())
        assert_close(losses, expected_losses, tolerance=1e-4)
    assert_close(inner.parameters, scale * expected.parameters, tolerance=1e-4)


@pytest.mark.parametrize("rule", RULES | COUPLED)
def test_learned_optimizer_makes_the_steps_of_meta_training(rule, eagerly):
    steps = 6

    def model_fn():
        return keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(4, activation="tanh"),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(1),
            ]
        )

    random = np.random.default_rng(0)
    x = random.normal(size=(40, 3)).astype("float32")
    y = np.sin(x.sum(axis=1, keepdims=True)).astype("float32")
    task = KerasTask(model_fn, "mean_squared_error", (x, y), batch_size=8)
    rule = (RULES | COUPLED)[rule]()
    loop = InnerLoop(rule, task, chunk_size=7)
    parameters, state = task.sample("train", 3)
    batches = [drawing(task)(t) for t in range(steps + 1)]
    losses, inner = loop.start(parameters, state, batches[0])
    expected = [float(losses[0])]
    for batch in batches[1:]:
        losses, inner = loop.step(inner, batch)
        expected.append(float(losses[0]))

    model = model_fn()
    model.compile(LearnedOptimizer(rule), "mean_squared_error", run_eagerly=True)
    start = 0
    for variable in model.trainable_variables:
        stop = start + math.prod(variable.shape)
        variable.assign(tf.reshape(parameters[start:stop], variable.shape))
        start = stop
    actual = [model.train_on_batch(*batch) for batch in batches[:steps]]
    np.testing.assert_allclose(actual, expected[:-1], rtol=1e-4)
    final = np.concatenate([np.ravel(v) for v in model.trainable_variables])
    np.testing.assert_allclose(final, inner.parameters, rtol=1e-3, atol=1e-5)
    assert np.abs(final - parameters).max() > 1e-2


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
