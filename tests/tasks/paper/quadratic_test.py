"""Tests of random quadratics: their distribution, their formula and their seeds."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from l2l_keras.tasks import Quadratic, Task

SPLITS = ("train", "validation", "test")


def small():
    """A task with a few functions, and one optimizee far from its minimum."""
    task = Quadratic(dimension=4, functions=3, initial_scale=1.0)
    return task, *task.sample("train", 0)


class TestDistribution:
    def test_normal_entries_have_the_moments_of_a_standard_normal(self):
        # Entries of 2,000 functions: the moments are known to about 1 %.
        w, y = Quadratic(dimension=10, functions=2000).sample("train", 0)[1]
        assert w.shape == (2000, 10, 10)
        assert y.shape == (2000, 10)
        for entries in (w.numpy(), y.numpy()):
            assert entries.mean() == pytest.approx(0.0, abs=0.03)
            assert entries.std() == pytest.approx(1.0, abs=0.03)
            assert (entries**4).mean() == pytest.approx(3.0, abs=0.3)
        # No entry follows from another.
        features = np.concatenate([w.numpy().reshape(2000, 100), y.numpy()], axis=1)
        correlations = np.corrcoef(features, rowvar=False) - np.eye(110)
        assert np.abs(correlations).max() < 0.15

    def test_uniform_entries_are_between_zero_and_one(self):
        w, y = Quadratic(dimension=10, functions=500, draw="uniform").sample("train", 0)[1]
        for entries in (w.numpy(), y.numpy()):
            assert entries.min() >= 0.0
            assert entries.max() < 1.0
            assert entries.mean() == pytest.approx(0.5, abs=0.03)
            assert entries.std() == pytest.approx(math.sqrt(1 / 12), abs=0.03)

    def test_the_first_loss_is_the_mean_square_of_y(self):
        # E‖y‖² is the dimension, and θ_0 is next to nothing.
        task = Quadratic(dimension=10, functions=2000)
        losses, _ = task.loss(*task.sample("test", 0), ())
        assert losses.numpy().mean() == pytest.approx(10.0, rel=0.05)

    @pytest.mark.parametrize("scale", [0.01, 1, 3.0])
    def test_initial_scale_is_the_standard_deviation_of_the_parameters(self, scale):
        task = Quadratic(dimension=10, functions=500, initial_scale=scale)
        parameters = task.sample("train", 0)[0].numpy()
        assert parameters.shape == (task.size,) == (5000,)
        assert parameters.mean() == pytest.approx(0.0, abs=0.1 * scale)
        assert parameters.std() == pytest.approx(scale, rel=0.05)

    def test_a_pair_of_initial_scales_is_drawn_from_log_uniformly_for_each_function(self):
        task = Quadratic(dimension=50, functions=1000, initial_scale=(0.01, 10.0))
        parameters = task.sample("train", 0)[0].numpy().reshape(1000, 50)
        # A standard deviation estimated from 50 numbers is right to about 10 %.
        scales = np.log10(parameters.std(axis=1))
        assert -2.3 < scales.min() < -1.9
        assert 0.9 < scales.max() < 1.3
        assert scales.mean() == pytest.approx(-0.5, abs=0.1)
        assert scales.std() == pytest.approx(3 / math.sqrt(12), abs=0.1)

    @pytest.mark.parametrize("draw", ["normal", "uniform"])
    @pytest.mark.parametrize(("dimension", "condition"), [(10, 1000.0), (4, 7.0), (3, 1.0), (1, 5)])
    def test_hessians_have_the_condition_asked_for(self, dimension, condition, draw):
        task = Quadratic(dimension, functions=20, draw=draw, condition=condition)
        w = task.sample("train", 0)[1][0].numpy().astype("float64")
        eigenvalues = np.linalg.eigvalsh(2 * np.swapaxes(w, 1, 2) @ w)
        # Geometric, and as large together as those of N(0, 1) entries.
        expected = np.asarray(condition, float) ** np.linspace(-1.0, 0.0, dimension)
        if dimension == 1:
            expected = np.ones(1)
        expected *= 2 * dimension**2 / expected.sum()
        np.testing.assert_allclose(eigenvalues, np.tile(expected, (20, 1)), rtol=2e-3)
        np.testing.assert_allclose((w**2).sum(axis=(1, 2)), np.full(20, dimension**2), rtol=1e-4)

    def test_hessians_of_one_condition_have_axes_of_their_own(self):
        w = Quadratic(4, functions=200, condition=100.0).sample("train", 0)[1][0].numpy()
        first = np.linalg.svd(w)[2][:, 0]
        # Directions on the sphere: their outer product is a quarter of the identity on average.
        np.testing.assert_allclose(first.T @ first / 200, np.eye(4) / 4, atol=0.1)

    def test_a_condition_changes_nothing_else(self):
        plain, conditioned = (
            Quadratic(4, functions=3, condition=c).sample("test", 5) for c in (None, 100.0)
        )
        np.testing.assert_array_equal(plain[0], conditioned[0])
        np.testing.assert_array_equal(plain[1][1], conditioned[1][1])
        assert np.all(plain[1][0] != conditioned[1][0])

    def test_hessian_vector_product_is_the_formula(self):
        task, parameters, (w, y) = small()
        vector = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
        actual = task.hessian_vector_product(parameters, (w, y), (), tf.constant(vector.ravel()))
        expected = 2.0 * np.einsum("fij,fik,fk->fj", w, w, vector)
        np.testing.assert_allclose(actual, expected.ravel(), rtol=1e-4)


class TestLoss:
    @pytest.mark.parametrize("seed", range(3))
    def test_loss_and_gradient_are_the_formula(self, seed):
        task = Quadratic(dimension=4, functions=3, initial_scale=1.0)
        parameters, state = task.sample("train", seed)
        w, y = (part.numpy().astype("float64") for part in state)
        theta = parameters.numpy().reshape(3, 4).astype("float64")
        expected = [np.sum((w[k] @ theta[k] - y[k]) ** 2) for k in range(3)]
        expected_gradient = [2 * w[k].T @ (w[k] @ theta[k] - y[k]) for k in range(3)]

        losses, gradient, next_state = task.loss_and_gradient(parameters, state, ())
        assert losses.shape == (task.functions,)
        assert gradient.shape == (task.size,)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient, np.concatenate(expected_gradient), rtol=1e-4)
        assert next_state is state
        only_losses, next_state = task.loss(parameters, state, ())
        np.testing.assert_array_equal(only_losses, losses)
        assert next_state is state

    def test_the_gradient_is_that_of_automatic_differentiation(self):
        task, parameters, state = small()
        actual = task.loss_and_gradient(parameters, state, ())
        expected = Task.loss_and_gradient(task, parameters, state, ())
        np.testing.assert_allclose(actual[0], expected[0], rtol=1e-6)
        np.testing.assert_allclose(actual[1], expected[1], rtol=1e-5, atol=1e-5)

    def test_every_function_follows_the_gradient_of_its_own_loss(self):
        # Not that of the mean, which would be smaller by the number of functions.
        task, parameters, state = small()
        _, together, _ = task.loss_and_gradient(parameters, state, ())
        alone = Quadratic(dimension=4, functions=1)
        for k in range(3):
            own = slice(4 * k, 4 * k + 4)
            own_state = tuple(part[k : k + 1] for part in state)
            _, gradient, _ = alone.loss_and_gradient(parameters[own], own_state, ())
            np.testing.assert_allclose(gradient, together[own], rtol=1e-5, atol=1e-6)

    def test_functions_are_independent(self):
        task, parameters, state = small()
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            losses, _ = task.loss(parameters, state, ())
        jacobian = tape.jacobian(losses, parameters).numpy().reshape(3, 3, 4)
        for k, other in itertools.product(range(3), range(3)):
            assert np.any(jacobian[k, other]) == (k == other)

    def test_the_loss_at_the_minimum_is_zero(self):
        task, _, (w, y) = small()
        minimum = tf.reshape(tf.linalg.solve(w, y[..., None]), (-1,))
        losses, gradient, _ = task.loss_and_gradient(minimum, (w, y), ())
        np.testing.assert_allclose(losses, np.zeros(3), atol=1e-8)
        np.testing.assert_allclose(gradient, np.zeros(12), atol=1e-3)

    def test_there_are_no_data(self):
        assert small()[0].batch("train", tf.constant([0, 1])) == ()


def test_the_layout_is_one_vector():
    task, parameters, _ = small()
    assert task.layout == (("parameters", (12,)),)
    (array,) = task.unflatten(parameters)
    np.testing.assert_array_equal(array, parameters)


class TestSeeds:
    def test_the_same_seed_gives_the_same_optimizee(self):
        first, second = (
            tf.nest.flatten(Quadratic(3, 2, "normal", (0.1, 1.0)).sample("test", 7))
            for _ in range(2)
        )
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_optimizees_of_other_seeds_and_splits_are_others(self):
        task = Quadratic(dimension=3, functions=2)
        seeds = (0, 1, 2, 2**29 - 1)
        numbers = [
            np.concatenate([part.numpy().ravel() for part in tf.nest.flatten(optimizee)])
            for split in SPLITS
            for seed in seeds
            for optimizee in [task.sample(split, seed)]
        ]
        assert len(np.unique(numbers)) == len(numbers) * (2 * 3 * 3 + 2 * 3 + 2 * 3)

    @pytest.mark.parametrize("seed", [-1, 2**29])
    def test_a_seed_out_of_range_is_refused(self, seed):
        with pytest.raises(ValueError, match=f"`seed` must be .*Received: {seed}"):
            Quadratic(2, 2).sample("train", seed)

    def test_an_unknown_split_is_refused(self):
        with pytest.raises(ValueError, match="`split` must be one of .*Received: 'valid'"):
            Quadratic(2, 2).sample("valid", 0)


def test_defaults_are_the_papers():
    task = Quadratic()
    assert (task.dimension, task.functions, task.size, task.draw) == (10, 128, 1280, "normal")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"dimension": 0}, "dimension"),
        ({"functions": -1}, "functions"),
        ({"draw": "gaussian"}, "draw"),
        ({"initial_scale": 0.0}, "initial_scale"),
        ({"initial_scale": (1.0, 0.1)}, "initial_scale"),
        ({"initial_scale": (0.1, 0.2, 0.3)}, "initial_scale"),
        ({"condition": 0.5}, "condition"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}`.* must be .*Received: "):
        Quadratic(**arguments)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
