"""Shipped presets step as they did when their trajectories were recorded."""

import keras
import numpy as np
import pytest

from tests.presets import trajectories

FACTOR = 5.0  # Times the recorded effect of rounding.


@pytest.mark.parametrize("preset, size", trajectories.cases())
def test_a_shipped_preset_follows_its_recorded_trajectory(preset, size):
    with np.load(trajectories.recording(keras.backend.backend())) as recorded:
        expected = recorded[f"{preset}/{size}"]
        allowed = np.maximum(1e-6, FACTOR * recorded[f"{preset}/{size}/tolerance"])
    difference = np.abs(trajectories.trajectory(preset, size) - expected)
    assert (difference <= allowed).all(), difference.max(axis=1)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
