"""Tests of the testbed's problems: they can be learned, and scales are as their names say."""

import os

import keras
import numpy as np
import pytest

from l2l_keras.evaluation import Rollout, testbed

DATA_DIR = os.environ.get("L2L_KERAS_DATA_DIR")
STORED = set(testbed.names()) - set(testbed.names(stored=False))
GRADUAL = {"character_lstm", "character_transformer", "cifar_residual", "series_gru"}


def make(name):
    if name in STORED and not DATA_DIR:
        pytest.skip("L2L_KERAS_DATA_DIR names no folder of data sets")
    task = testbed.problem(name, data_dir=DATA_DIR, download=False)
    task.jit_compile = False  # For few steps.
    return task


@pytest.mark.parametrize("name", testbed.names())
def test_every_problem_can_be_learned(name):
    steps, rate = (120, 0.005) if name in GRADUAL else (60, 0.003)
    task = make(name)
    assert task.name == name
    (losses,) = Rollout(task, keras.optimizers.Adam(rate), steps, "validation")(seed=0)
    assert np.isfinite(losses).all()
    assert losses[-10:].mean() < 0.97 * losses[:5].mean()


def test_the_scale_of_weights_is_far_off_but_the_function_is_the_same():
    weights = {
        scale: make(f"cancer_mlp{suffix}").sample("test", 0)[0].numpy()
        for scale, suffix in ((1.0, ""), (5.0, "_large_scale"), (0.1, "_small_scale"))
    }
    first, last = slice(0, 30 * 64), slice(-65, -1)
    for scale, scaled in weights.items():
        for part, factor in ((first, scale), (last, 1.0 / scale)):
            expected = factor * weights[1.0][part]
            np.testing.assert_allclose(scaled[part], expected, rtol=1e-5, atol=1e-6)


def test_an_unknown_problem_is_refused():
    with pytest.raises(ValueError, match=r"Unknown problem. Expected one of .*deep_relu.*'deep'"):
        testbed.problem("deep")


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
