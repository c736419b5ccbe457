"""Tests of runs: fresh starts, paired seeds, and the same steps as one by one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2l_keras.evaluation import BASELINES, Rollout, run
from l2l_keras.evaluation.rollout import RuleRollout
from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.rules import NTMBFGS, CoordinatewiseLSTM, MomentumLSTM, TensorwiseLSTM
from l2l_keras.rules.tensorwise.tensors import fan_in
from l2l_keras.tasks import KerasTask
from tests.evaluation.small_tasks import NoisyMean, network, quadratic

OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.1),
    "nag": lambda: BASELINES["NAG"].make(0.01),
    "learned": lambda: LearnedOptimizer(CoordinatewiseLSTM(units=(3,), seed=1)),
}
TASKS = {"quadratic": quadratic, "noisy_mean": NoisyMean}


def reference_curve(task, optimizer, steps, seed, split):
    """Minimizes one optimizee step by step, eagerly: `[functions, steps + 1]`."""
    parameters, state = task.sample(split, seed)
    theta = keras.Variable(parameters)
    losses = []
    for step in range(steps + 1):
        batch = task.batch(split, tf.constant([seed, step], tf.int32))
        loss, gradient, state = task.loss_and_gradient(tf.convert_to_tensor(theta), state, batch)
        losses.append(loss.numpy())
        optimizer.apply([gradient], [theta])
    return np.array(losses).T


@pytest.mark.parametrize("task_name", TASKS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_run_is_a_fresh_one_of_steps_taken_one_by_one(name, task_name):
    task = TASKS[task_name]()
    curves = run(task, OPTIMIZERS[name](), steps=4, seeds=[4, 9, 4], split="validation")
    assert curves.dtype == np.float32
    assert curves.shape == (3 * task.functions, 5)
    first, other, again = np.split(curves, 3)
    expected = reference_curve(task, OPTIMIZERS[name](), 4, 4, "validation")
    np.testing.assert_allclose(first, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_learning_rate_and_a_number_of_steps_last_for_one_run():
    rollout = Rollout(NoisyMean(), keras.optimizers.Adam(0.1), steps=5)
    before = rollout(0)
    slow = rollout(0, learning_rate=0.01)
    np.testing.assert_array_equal(rollout(0, steps=3), before[:, :4])
    np.testing.assert_array_equal(rollout(0), before)
    np.testing.assert_array_equal(slow, run(NoisyMean(), keras.optimizers.Adam(0.01), 5, [0]))
    assert not np.array_equal(slow, before)


@pytest.mark.parametrize("task", [network(), NoisyMean()], ids=lambda task: task.name)
def test_an_optimizer_is_traced_once_on_variables_of_the_tasks_layout(task):
    calls = []

    class NotingOptimizer(keras.optimizers.SGD):
        def apply(self, grads, trainable_variables=None):
            calls.append([(v.path, tuple(v.shape), v.dtype) for v in trainable_variables])
            super().apply(grads, trainable_variables)

    rollout = Rollout(task, NotingOptimizer(0.1), steps=3)
    for seed in range(2):
        rollout(seed)
        rollout(seed, learning_rate=0.1 * seed, steps=2)
    assert calls == [[(w.path, w.shape, "float32") for w in task.layout]]


def test_optimizers_see_the_same_optimizees_and_minibatches():
    # At a learning rate of zero nothing but the minibatches moves the loss.
    optimizers = keras.optimizers.SGD(0.0), keras.optimizers.Adam(0.0)
    curves = [run(NoisyMean(), optimizer, 6, seeds=[0, 1]) for optimizer in optimizers]
    np.testing.assert_array_equal(*curves)
    without_count = curves[0] - 0.1 * np.arange(7)
    assert len(np.unique(without_count.round(4))) == without_count.size


def test_splits_do_not_share_optimizees():
    train, test = (
        run(quadratic(), keras.optimizers.SGD(0.01), 1, [0], split) for split in ("train", "test")
    )
    assert not np.isclose(train, test).any()


def test_groups_of_one_elementwise_rule_are_that_rule():
    rule, task = CoordinatewiseLSTM(units=(3,), seed=1), network()
    whole = run(task, LearnedOptimizer(rule), 4, [0, 1])
    grouped = run(task, LearnedOptimizer({"bias": rule, ".*": rule}), 4, [0, 1])
    np.testing.assert_allclose(grouped, whole, rtol=1e-4)
    assert np.abs(whole[:, -1] / whole[:, 0] - 1).min() > 0.01


def test_groups_have_rules_of_their_own():
    """If the rule of biases does nothing, they stay; all other weights are updated."""
    still = CoordinatewiseLSTM(units=(3,), output_scale=0.0, seed=1)
    moving = CoordinatewiseLSTM(units=(3,), seed=1)
    task = network()
    rollout = Rollout(task, LearnedOptimizer({"bias": still, ".*": moving}), steps=3)
    rollout(0)
    start = task.unflatten(task.sample("test", 0)[0])
    end = task.unflatten(rollout.parameters)
    assert len(end) == 4
    for before, after, weight in zip(start, end, task.layout, strict=True):
        assert np.array_equal(before, after) == ("bias" in weight.path)


def test_a_model_wide_rule_sees_all_variables_as_one_vector():
    task = network()
    rule = NTMBFGS((3,), 1, seed=1)
    curves = run(task, LearnedOptimizer(rule), steps=3, seeds=[0])
    expected = reference_curve(task, LearnedOptimizer(rule), 3, 0, "test")
    np.testing.assert_allclose(curves, expected, rtol=1e-3)


def test_embeddings_count_as_such_in_meta_training_as_in_use():
    def model_fn():
        embedding = keras.layers.Embedding(192, 4)
        return keras.Sequential(
            [keras.Input((3,)), embedding, keras.layers.Flatten(), keras.layers.Dense(1)]
        )

    x = np.random.default_rng(0).integers(192, size=(40, 3)).astype("float32")
    task = KerasTask(model_fn, "mse", (x, x[:, :1] / 192.0), batch_size=8)
    rule = TensorwiseLSTM(4, seed=0)
    expected = RuleRollout(task, rule, steps=4)(seed=0)
    actual = run(task, LearnedOptimizer(rule), steps=4, seeds=[0])
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    # As a kernel, they would have another fan-in.
    (embeddings,) = (w for w in task.layout if w.shape == (192, 4))
    assert fan_in(*embeddings) == 1 and fan_in("kernel", embeddings.shape) == 192


@pytest.mark.parametrize("name", ["SGD", "learned"])
def test_constraints_hold_for_every_optimizer(name):
    optimizer = keras.optimizers.SGD(0.5)
    if name == "learned":
        optimizer = LearnedOptimizer(MomentumLSTM(units=(3,), rate=0.5, seed=0))

    def model_fn():
        return keras.Sequential(
            [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_constraint="non_neg")]
        )

    x = np.random.default_rng(0).normal(size=(50, 1)).astype("float32")
    rollout = Rollout(KerasTask(model_fn, "mse", (x, -x), batch_size=16), optimizer, steps=40)
    rollout(0)
    np.testing.assert_array_equal(rollout.parameters, [0.0])


def test_wrong_arguments_are_refused():
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build([keras.Variable([1.0])])
    with pytest.raises(ValueError, match="`optimizer` must be fresh.*Received"):
        run(NoisyMean(), optimizer, 2, [0])
    with pytest.raises(ValueError, match="`steps` must be positive. Received: steps=0"):
        run(NoisyMean(), keras.optimizers.Adam(0.1), 0, [0])
    with pytest.raises(ValueError, match="`seeds` must hold at least one seed"):
        run(NoisyMean(), keras.optimizers.Adam(0.1), 1, [])


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
