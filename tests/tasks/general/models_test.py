"""Tests of the architectures of the general mixture."""

import numpy as np
import pytest

from l2l_keras.tasks.general import data, models


def kernels(task, seed):
    """The kernels of an optimizee, and their standard deviations relative to Glorot's."""
    weights = task.unflatten(task.sample("train", seed)[0])
    found = [w.numpy() for w in weights if len(w.shape) == 2]
    return [np.std(w) * np.sqrt(sum(w.shape) / 2.0) for w in found]


def classifier(**options):
    return models.classifier(models.mlp(48, 48, **options), data.clusters(2, 20), 32)


def test_optimizees_differ_in_their_activation():
    task = classifier()
    one_hots = {tuple(task.sample("train", seed)[1][0].numpy()) for seed in range(12)}
    assert len(one_hots) > 2
    assert all(sorted(one_hot) == [0.0] * 4 + [1.0] for one_hot in one_hots)


def test_badly_scaled_weights_are_far_from_glorot_s():
    task = classifier(init=models.badly_scaled)
    scales = [kernels(task, seed)[0] for seed in range(12)]
    assert min(scales) < 0.5 and max(scales) > 2.0


def test_the_scales_of_an_unbalanced_network_are_far_apart():
    task = classifier(unbalanced=True)
    ratios = []
    for seed in range(5):
        first, middle, last = kernels(task, seed)
        assert first * last == pytest.approx(1.0, rel=0.25)
        assert middle == pytest.approx(1.0, rel=0.1)
        ratios.append(first / last)
    assert max(ratios) > 5.0 * min(ratios)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
