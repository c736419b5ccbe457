"""Tests of the preprocessing of gradients."""

import numpy as np
import pytest
from keras import ops

from l2l_keras.rules.elementwise.preprocessing import log_sign


@pytest.mark.parametrize(
    ("gradient", "features"),
    [
        (1.0, (0.0, 1.0)),
        (-1.0, (0.0, -1.0)),
        (np.exp(5.0), (0.5, 1.0)),
        (-np.exp(-5.0), (-0.5, -1.0)),
        (0.999 * np.exp(-10.0), (-1.0, 0.999)),
        (-np.exp(-12.0), (-1.0, -np.exp(-2.0))),
        (0.0, (-1.0, 0.0)),
    ],
)
def test_log_sign_has_the_values_of_the_paper(gradient, features):
    actual = np.asarray(log_sign(ops.array([gradient], "float32")))
    np.testing.assert_allclose(actual[:, 0], features, rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
