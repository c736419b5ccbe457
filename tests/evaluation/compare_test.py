"""Tests of comparisons: fresh starts, paired runs, tuning and statistics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2l_keras.evaluation import (
    BASELINES,
    Comparison,
    Result,
    Rollout,
    RuleRollout,
    Tuning,
    compare,
    default_window,
    final_losses,
    half_decades,
    mean_and_interval,
    run,
    tune,
)
from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.rules import NTMBFGS, CoordinatewiseLSTM, TensorwiseLSTM
from l2l_keras.rules.tensorwise.tensors import fan_in
from l2l_keras.tasks.base import Task, split_seed
from l2l_keras.tasks.keras_task import KerasTask
from l2l_keras.tasks.paper.quadratic import Quadratic


class NoisyMean(Task):
    """Finds the mean of noisy data. Its state, a count of steps, is part of the loss."""

    name = "noisy_mean"

    @property
    def size(self):
        return 3

    def sample(self, split, seed):
        key = tf.constant([split_seed(split, seed), 0], tf.int32)
        return tf.random.stateless_normal((3,), key), {"count": tf.constant(0.0)}

    def batch(self, split, seed):
        shift = {"train": 0.0, "validation": 1.0, "test": 2.0}[split]
        return shift + tf.random.stateless_normal((4, 3), seed)

    def loss(self, parameters, state, batch):
        error = tf.reduce_mean(tf.square(parameters - batch)) + 0.1 * state["count"]
        return error[tf.newaxis], {"count": state["count"] + 1.0}


def network():
    """A small network, with kernels and biases."""

    def model_fn():
        return keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(2, "tanh"), keras.layers.Dense(1)]
        )

    x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    return KerasTask(model_fn, "mse", (x, x[:, :1] * x[:, 1:2]), batch_size=8)


def lstm_optimizer():
    return LearnedOptimizer(CoordinatewiseLSTM(units=(3,), seed=1), learning_rate=1.0)


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.1),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.1),
    "nag": lambda: BASELINES["NAG"].make(0.01),
    "sgd": lambda: keras.optimizers.SGD(0.01),
    "learned": lstm_optimizer,
}
TASKS = {"quadratic": lambda: Quadratic(dimension=3, functions=2), "noisy_mean": NoisyMean}


class NotingOptimizer(keras.optimizers.SGD):
    """Notes what it is built on."""

    def build(self, variables):
        self.built_on = [(v.path, tuple(v.shape), v.dtype) for v in variables]
        super().build(variables)


def reference_curve(task, optimizer, steps, seed, split):
    """Minimises one optimizee step by step, eagerly: `[functions, steps + 1]`."""
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
def test_run_agrees_with_steps_taken_one_by_one(name, task_name):
    task = TASKS[task_name]()
    curves = run(task, OPTIMIZERS[name](), steps=6, seeds=[4, 9], split="validation")
    expected = [reference_curve(task, OPTIMIZERS[name](), 6, seed, "validation") for seed in (4, 9)]
    assert curves.dtype == np.float32
    assert curves.shape == (2 * task.functions, 7)
    np.testing.assert_allclose(curves, np.concatenate(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task_name", TASKS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_runs_in_a_row_are_identical(name, task_name):
    task = TASKS[task_name]()
    curves = run(task, OPTIMIZERS[name](), steps=8, seeds=[3, 5, 3])
    first, other, again = np.split(curves, 3)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_learning_rate_lasts_for_one_run():
    rollout = Rollout(NoisyMean(), keras.optimizers.Adam(0.1), steps=5)
    before = rollout(0)
    slow = rollout(0, learning_rate=0.01)
    np.testing.assert_array_equal(rollout(0), before)
    np.testing.assert_array_equal(slow, run(NoisyMean(), keras.optimizers.Adam(0.01), 5, [0]))
    assert not np.array_equal(slow, before)


@pytest.mark.parametrize("task_name", TASKS)
def test_neither_seeds_nor_learning_rates_trace_again(task_name):
    rollout = Rollout(TASKS[task_name](), keras.optimizers.Adam(0.1), steps=3)
    for seed in range(3):
        rollout(seed)
        rollout(seed, learning_rate=0.1 * seed)
    assert rollout.traces == 1


def test_optimizers_see_the_same_optimizees_and_minibatches():
    # At a learning rate of zero nothing but the minibatches moves the loss.
    curves = [
        run(NoisyMean(), make(0.0), steps=6, seeds=[0, 1])
        for make in (keras.optimizers.SGD, keras.optimizers.Adam)
    ]
    np.testing.assert_array_equal(*curves)
    without_count = curves[0] - 0.1 * np.arange(7)
    assert len(np.unique(without_count.round(4))) == without_count.size


def test_splits_do_not_share_optimizees():
    curves = [run(Quadratic(functions=2), lstm_optimizer(), 2, [0], s) for s in ("train", "test")]
    assert not np.isclose(*curves).any()


def test_variables_are_those_of_the_tasks_layout():
    for task in (network(), NoisyMean()):
        optimizer = NotingOptimizer(0.1)
        Rollout(task, optimizer, steps=1)
        assert optimizer.built_on == [(w.path, w.shape, "float32") for w in task.layout]


def test_groups_of_one_coordinatewise_rule_are_that_rule():
    rule = CoordinatewiseLSTM(units=(3,), seed=1)
    learned = {"whole": rule, "grouped": {"bias": rule, ".*": rule}}
    comparison = compare(network(), learned, steps=6, seeds=[0, 1], baselines={})
    whole, grouped = (comparison[name].curves for name in ("whole", "grouped"))
    np.testing.assert_allclose(grouped, whole, rtol=1e-4)
    assert np.abs(whole[:, -1] / whole[:, 0] - 1).min() > 0.01


def test_groups_have_rules_of_their_own():
    """Where biases have a rule that does nothing, they stay; everything else is updated."""
    still = CoordinatewiseLSTM(units=(3,), output_scale=0.0, seed=1)
    moving = CoordinatewiseLSTM(units=(3,), seed=1)
    task = network()
    rollout = Rollout(task, LearnedOptimizer({"bias": still, ".*": moving}), steps=3)
    rollout(0)
    start = task.unflatten(task.sample("test", 0)[0])
    assert len(rollout._variables) == 4
    for variable, value, weight in zip(rollout._variables, start, task.layout, strict=True):
        assert np.array_equal(variable, value) == ("bias" in weight.path)


def test_a_rule_over_all_coordinates_sees_those_of_all_variables():
    """As one vector, whose layout does not matter to it."""
    task = network()
    rule = NTMBFGS((3,), 1, seed=1)
    curves = run(task, LearnedOptimizer(rule), steps=4, seeds=[0])
    expected = reference_curve(task, LearnedOptimizer(rule), 4, 0, "test")
    np.testing.assert_allclose(curves, expected, rtol=1e-3)


def test_embeddings_are_known_in_meta_training_as_in_use():
    def model_fn():
        embedding = keras.layers.Embedding(192, 4)
        return keras.Sequential(
            [keras.Input((3,)), embedding, keras.layers.Flatten(), keras.layers.Dense(1)]
        )

    x = np.random.default_rng(0).integers(192, size=(40, 3)).astype("float32")
    task = KerasTask(model_fn, "mse", (x, x[:, :1] / 192.0), batch_size=8)
    rule = TensorwiseLSTM(4, seed=0)
    expected = RuleRollout(task, rule, steps=5)(seed=0)
    actual = run(task, LearnedOptimizer(rule), steps=5, seeds=[0])
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    # It would make a difference if they were not.
    (embeddings,) = (w for w in task.layout if w.shape == (192, 4))
    assert fan_in(*embeddings) == 1 and fan_in("kernel", embeddings.shape) == 192


def test_rollout_refuses_an_optimizer_that_has_been_used():
    optimizer = keras.optimizers.Adam(0.1)
    run(NoisyMean(), optimizer, 2, [0])
    with pytest.raises(ValueError, match="`optimizer` must be fresh.*Received"):
        run(NoisyMean(), optimizer, 2, [0])


def test_run_refuses_no_steps_and_no_seeds():
    with pytest.raises(ValueError, match="`steps` must be positive. Received: 0"):
        run(NoisyMean(), keras.optimizers.Adam(0.1), 0, [0])
    with pytest.raises(ValueError, match="`seeds` must hold at least one seed"):
        run(NoisyMean(), keras.optimizers.Adam(0.1), 1, [])


def test_final_losses_take_the_mean_of_the_last_ones():
    curves = np.array([[9, 4, 2], [9, 1, 3]], np.float32)
    np.testing.assert_array_equal(final_losses(curves), [2, 3])
    np.testing.assert_array_equal(final_losses(curves, window=2), [3, 2])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_infinitely_bad(bad):
    np.testing.assert_array_equal(final_losses(np.array([[1, bad], [1, 0.5]])), [np.inf, 0.5])


@pytest.mark.parametrize("window", [0, 4])
def test_final_losses_refuse_a_window_that_does_not_fit(window):
    with pytest.raises(ValueError, match=f"`window` must be from 1.*Received: window={window}"):
        final_losses(np.zeros((2, 3)), window)


def test_interval_is_students():
    mean, half_width = mean_and_interval(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]))
    np.testing.assert_allclose(mean, [2, 5])
    # The quantile for two degrees of freedom is 4.302653; the standard error is 1 / sqrt(3).
    np.testing.assert_allclose(half_width, [4.302653 / np.sqrt(3), 0], rtol=1e-6)


def test_interval_of_one_run_is_unknown():
    mean, half_width = mean_and_interval(np.array([2.0]))
    assert mean == 2.0
    assert np.isnan(half_width)


def test_default_window_is_one_where_losses_are_exact():
    assert default_window(Quadratic(), steps=100) == 1
    assert default_window(NoisyMean(), steps=100) == 10
    assert default_window(NoisyMean(), steps=4) == 4


def test_tune_finds_the_rate_of_the_best_final_loss():
    task = Quadratic(functions=16)
    grid = half_decades(-4, 0)
    tuning = tune(task, keras.optimizers.SGD, grid, steps=30, seeds=[0, 1])
    assert tuning.rates == grid
    expected = [
        np.mean(run(task, keras.optimizers.SGD(r), 30, [0, 1], "validation")[:, -1]) for r in grid
    ]
    expected = [loss if np.isfinite(loss) else np.inf for loss in expected]
    np.testing.assert_allclose(tuning.losses, expected, rtol=1e-5)
    assert tuning.best == grid[int(np.argmin(expected))]
    assert not tuning.on_edge
    assert np.isinf(tuning.losses[-1])  # Gradient descent diverges at a rate of 1.


def test_tune_takes_the_mean_over_the_window():
    task = NoisyMean()
    grid = half_decades(-1, 0)
    tuning = tune(task, keras.optimizers.SGD, grid, steps=12, seeds=[0], window=5)
    for rate, loss in zip(tuning.rates, tuning.losses, strict=True):
        curves = run(task, keras.optimizers.SGD(rate), 12, [0], "validation")
        np.testing.assert_allclose(loss, curves[0, -5:].mean(), rtol=1e-5)


@pytest.mark.parametrize("ends", [(-3.5, -3), (-0.5, 0)])
def test_tune_goes_on_beyond_the_edge_of_the_grid(ends):
    grid = half_decades(*ends)
    lines = []
    tuning = tune(
        Quadratic(functions=16), keras.optimizers.SGD, grid, 30, [0], progress=lines.append
    )
    inside = tune(Quadratic(functions=16), keras.optimizers.SGD, half_decades(-4, 0), 30, [0])
    assert set(grid) < set(tuning.rates)
    assert len(tuning.rates) <= len(grid) + 4
    assert len(lines) == len(tuning.rates)
    assert list(tuning.rates) == sorted(tuning.rates)
    np.testing.assert_allclose(np.diff(np.log10(tuning.rates)), 0.5)
    assert not tuning.on_edge
    assert tuning.best == pytest.approx(inside.best)


def test_tune_says_that_the_best_rate_is_still_on_the_edge():
    tuning = tune(Quadratic(functions=4), keras.optimizers.SGD, half_decades(-9, -8.5), 5, [0])
    assert len(tuning.rates) == 6
    assert tuning.on_edge
    assert tuning.best == tuning.rates[-1]


@pytest.mark.parametrize("grid", [[0.1], [0.0, 0.1]])
def test_tune_refuses_a_grid_it_cannot_extend(grid):
    with pytest.raises(ValueError, match="`grid` must hold at least two positive"):
        tune(NoisyMean(), keras.optimizers.SGD, grid, 2, [0])


def test_compare_tunes_on_validation_and_reports_on_test():
    task = NoisyMean()
    rule = CoordinatewiseLSTM(units=(3,), seed=1)
    baselines = {name: BASELINES[name] for name in ("Adam", "SGD")}
    lines = []
    comparison = compare(
        task,
        {"lstm": rule},
        steps=12,
        seeds=range(3),
        tuning_seeds=[0, 1],
        baselines=baselines,
        progress=lines.append,
    )
    assert (comparison.task, comparison.steps, comparison.window) == ("noisy_mean", 12, 10)
    assert (comparison.seeds, comparison.tuning_seeds) == ((0, 1, 2), (0, 1))
    assert [r.name for r in comparison.results] == ["lstm", "Adam", "SGD"]
    assert [r.learned for r in comparison.results] == [True, False, False]
    assert {line.split(":")[0] for line in lines} == {"lstm", "Adam", "SGD"}
    for name, baseline in baselines.items():
        tuning = tune(task, baseline.make, baseline.grid, 12, [0, 1])
        assert comparison[name].tuning == tuning
        assert comparison[name].learning_rate == tuning.best
        curves = run(task, baseline.make(tuning.best), 12, range(3))
        np.testing.assert_array_equal(comparison[name].curves, curves)
    curves = run(task, LearnedOptimizer(rule, learning_rate=1.0), 12, range(3))
    np.testing.assert_array_equal(comparison["lstm"].curves, curves)
    for result in comparison.results:
        np.testing.assert_array_equal(result.curves[:, 0], comparison["lstm"].curves[:, 0])
        assert result.seconds > 0


def test_compare_starts_every_baseline_anew():
    both = compare(NoisyMean(), {}, 4, [0])
    alone = compare(NoisyMean(), {}, 4, [0], baselines={"SGD": BASELINES["SGD"]})
    np.testing.assert_array_equal(both["SGD"].curves, alone["SGD"].curves)
    assert both["SGD"].tuning == alone["SGD"].tuning


def test_compare_refuses_a_name_used_twice_and_no_optimizers():
    rule = CoordinatewiseLSTM(units=(3,), seed=1)
    with pytest.raises(ValueError, match=r"named as a baseline. Received: \['Adam'\]"):
        compare(NoisyMean(), {"Adam": rule}, 2, [0])
    with pytest.raises(ValueError, match="at least one optimizer"):
        compare(NoisyMean(), {}, 2, [0], baselines={})
    with pytest.raises(ValueError, match="`tuning_seeds` must hold at least one seed"):
        compare(NoisyMean(), {"lstm": rule}, 2, [0], tuning_seeds=[])


def test_statistics_of_a_comparison():
    def result(name, final, tuning):
        curves = np.array([[8.0, 4.0, final - 1], [8.0, 2.0, final + 1]], np.float32)
        return Result(name, 1.0, tuning, curves, window=1, seconds=1.0)

    tuning = Tuning((0.1, 1.0, 10.0), (3.0, 2.0, np.inf))
    results = (result("lstm", 1.5, None), result("A", 4.0, tuning), result("B", 3.0, tuning))
    comparison = Comparison("t", 2, (0, 1), (0,), 1, results)
    assert comparison.best_baseline.name == "B"
    assert comparison.ratio("lstm") == 0.5
    assert comparison.ratio("B") == 1.0
    assert comparison["A"].mean_final == 4.0
    assert comparison["A"].area == 7.0
    assert comparison["A"].interval == pytest.approx(12.7062, rel=1e-4)
    with pytest.raises(KeyError, match="Expected one of"):
        comparison["C"]


def test_ratio_is_unknown_without_baselines():
    result = Result("lstm", 1.0, None, np.ones((2, 3), np.float32), window=1, seconds=1.0)
    comparison = Comparison("t", 2, (0,), (0,), 1, (result,))
    assert comparison.best_baseline is None
    assert np.isnan(comparison.ratio("lstm"))


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
