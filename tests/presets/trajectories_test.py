"""Shipped presets step as they did when their trajectories were recorded."""

import keras
import numpy as np
import pytest

from tests.presets import trajectories


@pytest.mark.parametrize("preset, size", trajectories.cases())
def test_a_shipped_preset_follows_its_recorded_trajectory(preset, size):
    with np.load(trajectories.recording(keras.backend.backend())) as recorded:
        expected = recorded[f"{preset}/{size}"]
    np.testing.assert_allclose(trajectories.trajectory(preset, size), expected, rtol=0, atol=1e-6)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
