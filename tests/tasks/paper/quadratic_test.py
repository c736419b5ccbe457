"""Tests of random quadratics: their distribution, their formula and their seeds."""

import math

import numpy as np
import pytest
import tensorflow as tf

from l2l_keras.tasks import Quadratic, Task
from l2l_keras.tasks.base import SPLITS


def small():
    """A task with a few functions, and one optimizee far from its minimum."""
    task = Quadratic(dimension=4, functions=3, initial_scale=1.0)
    return task, *task.sample("train", 0)


class TestDistribution:
    def test_entries_are_normal_and_independent(self):
        # Entries of 2,000 functions: the moments are accurate to about 1 %.
        w, y = Quadratic(dimension=10, functions=2000).sample("train", 0)[1]
        assert w.shape == (2000, 10, 10)
        assert y.shape == (2000, 10)
        for entries in (w.numpy(), y.numpy()):
            assert np.abs(entries).max() < 9.0
            assert entries.mean() == pytest.approx(0.0, abs=0.03)
            assert entries.std() == pytest.approx(1.0, abs=0.03)
            assert (entries**4).mean() == pytest.approx(3.0, abs=0.3)
        features = np.concatenate([w.numpy().reshape(2000, 100), y.numpy()], axis=1)
        correlations = np.corrcoef(features, rowvar=False) - np.eye(110)
        assert np.abs(correlations).max() < 0.15

    @pytest.mark.parametrize("scale", [0.01, 3, (0.01, 10.0)])
    def test_initial_scales_are_log_uniform(self, scale):
        task = Quadratic(dimension=50, functions=1000, initial_scale=scale)
        parameters = task.sample("train", 0)[0].numpy().reshape(1000, 50)
        # A standard deviation of 50 numbers is accurate to about 10 %.
        scales = np.log10(parameters.std(axis=1))
        low, high = np.log10(np.broadcast_to(scale, 2))
        assert low - 0.3 < scales.min() < low + 0.1
        assert high - 0.1 < scales.max() < high + 0.3
        assert scales.mean() == pytest.approx((low + high) / 2, abs=0.1)
        assert scales.std() == pytest.approx((high - low) / math.sqrt(12), abs=0.1)

    @pytest.mark.parametrize(("dimension", "condition"), [(10, 1000.0), (4, 7.0), (3, 1.0), (1, 5)])
    def test_hessians_have_the_given_condition_number(self, dimension, condition):
        task = Quadratic(dimension, functions=20, condition=condition)
        w = task.sample("train", 0)[1][0].numpy().astype("float64")
        eigenvalues = np.linalg.eigvalsh(2 * np.swapaxes(w, 1, 2) @ w)
        # Geometric, with the expected sum of those of N(0, 1) entries.
        expected = np.ones(1)
        if dimension > 1:
            expected = float(condition) ** np.linspace(-1.0, 0.0, dimension)
        expected *= 2 * dimension**2 / expected.sum()
        np.testing.assert_allclose(eigenvalues, np.tile(expected, (20, 1)), rtol=2e-3)

    def test_eigenvectors_of_conditioned_hessians_are_isotropic(self):
        w = Quadratic(4, functions=200, condition=100.0).sample("train", 0)[1][0].numpy()
        first = np.linalg.svd(w)[2][:, 0]
        np.testing.assert_allclose(first.T @ first / 200, np.eye(4) / 4, atol=0.1)

    def test_condition_changes_w_only(self):
        optimizees = [Quadratic(4, 3, condition=c).sample("test", 5) for c in (None, 100.0)]
        (theta, (w, y)), (other_theta, (other_w, other_y)) = optimizees
        np.testing.assert_array_equal(theta, other_theta)
        np.testing.assert_array_equal(y, other_y)
        assert np.all(w != other_w)


class TestLoss:
    def test_losses_and_derivatives_are_the_formulas(self):
        task, parameters, state = small()
        assert task.batch("train", tf.constant([0, 1])) == ()
        assert task.layout == (("parameters", (12,)),)
        np.testing.assert_array_equal(task.unflatten(parameters)[0], parameters)
        w, y = (part.numpy().astype("float64") for part in state)
        theta = parameters.numpy().reshape(3, 4).astype("float64")
        residuals = np.einsum("fij,fj->fi", w, theta) - y
        losses, gradient, next_state = task.loss_and_gradient(parameters, state, ())
        assert losses.shape == (task.functions,)
        assert gradient.shape == (task.size,)
        np.testing.assert_allclose(losses, np.sum(residuals**2, axis=1), rtol=1e-5)
        expected = 2.0 * np.einsum("fij,fi->fj", w, residuals)
        np.testing.assert_allclose(gradient, expected.ravel(), rtol=1e-4)
        assert next_state is state
        only_losses, next_state = task.loss(parameters, state, ())
        np.testing.assert_array_equal(only_losses, losses)
        assert next_state is state
        # That of automatic differentiation.
        automatic = Task.loss_and_gradient(task, parameters, state, ())[1]
        np.testing.assert_allclose(gradient, automatic, rtol=1e-5, atol=1e-5)
        vector = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
        actual = task.hessian_vector_product(parameters, state, (), tf.constant(vector.ravel()))
        expected = 2.0 * np.einsum("fij,fik,fk->fj", w, w, vector)
        np.testing.assert_allclose(actual, expected.ravel(), rtol=1e-4)


class TestSeeds:
    def test_seeds_and_splits_determine_optimizees(self):
        task = Quadratic(dimension=3, functions=2)
        first, second = (Quadratic(3, 2).sample("test", 7) for _ in range(2))
        tf.nest.map_structure(np.testing.assert_array_equal, first, second)
        numbers = [
            np.concatenate([part.numpy().ravel() for part in tf.nest.flatten(optimizee)])
            for split in SPLITS
            for seed in (0, 1, 2, 2**29 - 1)
            for optimizee in [task.sample(split, seed)]
        ]
        assert len(np.unique(numbers)) == len(numbers) * (2 * 3 * 3 + 2 * 3 + 2 * 3)

    @pytest.mark.parametrize(
        ("split", "seed", "message"),
        [
            ("train", -1, "`seed` must be .*Received: seed=-1"),
            ("train", 2**29, "`seed` must be .*Received: seed=536870912"),
            ("valid", 0, "`split` must be one of .*Received: split='valid'"),
        ],
    )
    def test_wrong_seeds_and_splits_are_refused(self, split, seed, message):
        with pytest.raises(ValueError, match=message):
            Quadratic(2, 2).sample(split, seed)


@pytest.mark.parametrize(
    "arguments",
    [
        {"dimension": 0},
        {"functions": -1},
        {"initial_scale": 0.0},
        {"initial_scale": (1.0, 0.1)},
        {"initial_scale": (0.1, 0.2, 0.3)},
        {"condition": 0.5},
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"`{name}`.* must be .*Received: "):
        Quadratic(**arguments)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
