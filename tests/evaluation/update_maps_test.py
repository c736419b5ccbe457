"""Tests of update maps, on rules whose updates are known in closed form."""

import numpy as np
import pytest

from l2l_keras.evaluation import impulse_responses, updates_after
from l2l_keras.rules import UpdateRule


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


GRADIENTS = np.array([-2.0, 0.0, 0.5], np.float32)


def test_updates_after_nothing():
    np.testing.assert_allclose(
        updates_after(Momentum(), [], GRADIENTS), 0.5 - 0.1 * GRADIENTS, rtol=1e-6
    )


def test_updates_after_a_history():
    updates = updates_after(Momentum(), [1.0, -3.0], GRADIENTS)
    before = 0.8 * (0.8 * 1.0 - 3.0)
    np.testing.assert_allclose(updates, 0.5 - 0.1 * (before + GRADIENTS), rtol=1e-6)


def test_an_impulse_fades_as_the_momentum_does_and_drift_is_left_out():
    responses = impulse_responses(Momentum(), GRADIENTS, steps=4)
    expected = -0.1 * GRADIENTS[:, None] * 0.8 ** np.arange(5)
    assert responses.shape == (3, 5)
    np.testing.assert_allclose(responses, expected, atol=1e-7)


def test_what_is_no_vector_is_refused():
    with pytest.raises(ValueError, match=r"`gradients` must be a vector. Received: shape \(\)"):
        updates_after(Momentum(), [], 1.0)
    with pytest.raises(ValueError, match=r"`history` must be a vector. Received: shape \(1, 1\)"):
        updates_after(Momentum(), [[1.0]], [1.0])
    with pytest.raises(ValueError, match="`steps` must not be negative. Received: -1"):
        impulse_responses(Momentum(), [1.0], -1)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
