"""Tests of the step of tensorwise rules."""

import keras
import numpy as np
import pytest
from keras import ops

from l2l_keras.rules import Tensors, TensorwiseLSTM


class WithGain(TensorwiseLSTM):
    """A subclass with a trained weight in `refine`."""

    def __init__(self, gain, **kwargs):
        super().__init__(**kwargs)
        self.factor = self.add_weight((), keras.initializers.Constant(gain))

    def refine(self, sums, shape):
        return self.factor * super().refine(sums, shape)


class Unsampled(TensorwiseLSTM):
    """A rule whose Gram matrices are means over all elements."""

    samples = False


def updates(rule, shape, steps=1):
    """Updates of one tensor by random gradients, `[steps, n]`."""
    random = np.random.default_rng(0)
    state = rule.initial_state(int(np.prod(shape)))
    parameters = ops.array(0.05 * random.normal(size=state[0].shape), "float32")
    taken = []
    for _ in range(steps):
        gradient = ops.array(random.normal(size=state[0].shape), "float32")
        update, state = rule.step(gradient, state, parameters, Tensors([shape]))
        taken.append(ops.convert_to_numpy(update))
    return np.array(taken)


def test_a_trained_weight_in_refine_scales_the_update():
    plain = updates(TensorwiseLSTM(4, seed=0), (6, 5))
    rule = WithGain(10.0, units=4, seed=0)
    np.testing.assert_allclose(updates(rule, (6, 5)), 10.0 * plain, rtol=1e-5)
    weights = [ops.array(3.0) if w is rule.factor else w.value for w in rule.weights]
    with rule.using(weights):
        np.testing.assert_allclose(updates(rule, (6, 5)), 3.0 * plain, rtol=1e-5)


def test_sampled_gram_matrices_change_a_step_little():
    """By less than 2 % of its length, for a 512×512 matrix of independent elements."""
    rules = TensorwiseLSTM(4, seed=0), Unsampled(4, seed=0)
    sampled, full = (updates(rule, (512, 512), steps=3) for rule in rules)
    difference = np.linalg.norm(sampled - full, axis=1) / np.linalg.norm(full, axis=1)
    assert difference.max() < 0.02
    assert difference.min() > 0.0


def test_small_tensors_and_matrix_directions_are_not_sampled():
    np.testing.assert_array_equal(
        updates(TensorwiseLSTM(4, seed=0), (64, 128)), updates(Unsampled(4, seed=0), (64, 128))
    )
    assert not TensorwiseLSTM(4, orthogonal=(0,)).samples


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
