"""Tests of responses of rules, most of them known in closed form."""

import keras
import numpy as np
import pytest

from l2l_keras.evaluation.rule_response import (
    Adam,
    impulse_responses,
    tensor_responses,
    updates_after,
)
from l2l_keras.rules import TensorwiseLSTM, UpdateRule


class Momentum(UpdateRule):
    """Momentum with a drift: u_t = -0.1 m_t + 0.5, m_t = 0.8 m_{t-1} + g_t."""

    @property
    def state_rows(self):
        return (1,)

    def step(self, gradient, state):
        momentum = 0.8 * state[0][0] + gradient
        return -0.1 * momentum + 0.5, (momentum[None],)

    def get_config(self):
        return {}


class CoupledMomentum(Momentum):
    """Momentum that refuses to see more than a single weight."""

    scope = "model"

    def step(self, gradient, state):
        assert gradient.shape == (1,)
        return super().step(gradient, state)


GRADIENTS = np.array([-2.0, 0.0, 0.5], np.float32)
RULES = pytest.mark.parametrize("rule", [Momentum(), CoupledMomentum()], ids=["element", "model"])


@RULES
@pytest.mark.parametrize(("history", "momentum"), [([], 0.0), ([1.0, -3.0], 0.8 * (0.8 - 3.0))])
def test_updates_after_a_history(rule, history, momentum):
    updates = updates_after(rule, history, GRADIENTS)
    np.testing.assert_allclose(updates, 0.5 - 0.1 * (momentum + GRADIENTS), rtol=1e-6)


@RULES
def test_an_impulse_fades_as_the_momentum_does_without_the_drift(rule):
    responses = impulse_responses(rule, GRADIENTS, steps=4)
    expected = -0.1 * GRADIENTS[:, None] * 0.8 ** np.arange(5)
    assert responses.shape == (3, 5)
    np.testing.assert_allclose(responses, expected, atol=1e-7)


def test_adam_is_that_of_keras():
    variable, adam = keras.Variable(np.zeros(3)), keras.optimizers.Adam()
    history = [0.5, -1.0, 0.0]
    for gradient in history:
        adam.apply([keras.ops.full((3,), gradient)], [variable])
    before = variable.numpy()
    adam.apply([keras.ops.array(GRADIENTS)], [variable])
    expected = variable.numpy() - before
    np.testing.assert_allclose(updates_after(Adam(), history, GRADIENTS), expected, rtol=1e-3)


class TestTensorResponses:
    def test_an_untrained_rule_responds_as_adam(self):
        rule = TensorwiseLSTM(4, seed=0, momenta=((0.9, 0.999),), fan_in_exponent=0.0)
        *weights, kernel, bias = rule.get_weights()
        rule.set_weights([*weights, 0.0 * kernel, bias])
        responses, again = (tensor_responses(rule, steps=25, side=6) for _ in range(2))
        for name, response in responses.items():
            np.testing.assert_array_equal(response, again[name])
            np.testing.assert_allclose(response.step_sizes, 3e-3 * np.exp(-1.0), rtol=1e-5)
        same = responses["the same gradient in each step"]
        np.testing.assert_allclose(same.sizes, same.step_sizes, rtol=1e-3)
        assert same.cosines.min() > 0.7  # The sign of the gradient, not the gradient.
        noisy = responses["the same plus three times as much noise"]
        assert noisy.sizes[-1] < 0.6 * same.sizes[-1]
        alternating = responses["one gradient and its opposite in turn"]
        assert alternating.sizes[-1] < 0.1 * same.sizes[-1]

    def test_adam_follows_a_gradient_by_its_sign(self):
        same = tensor_responses(Adam(), steps=5)["the same gradient in each step"]
        np.testing.assert_allclose(same.sizes, 1e-3, rtol=1e-4)
        np.testing.assert_array_equal(same.step_sizes, 1e-3)
        # Of a normal variable and its sign: √(2/π).
        np.testing.assert_allclose(same.cosines, np.sqrt(2.0 / np.pi), atol=0.02)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
