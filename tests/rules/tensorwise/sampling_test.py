"""Tests of samples of a large tensor's elements."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from l2l_keras.rules import Tensors
from l2l_keras.rules.tensorwise.sampling import LARGE, sample


def mean_square(array):
    """The mean of an array's squares, by the Gram matrix of one direction."""
    row = ops.array(array.reshape(1, -1), "float32")
    return ops.convert_to_numpy(Tensors([array.shape]).gram_matrices(row, sampled=True))[0, 0, 0]


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 1000), columns=st.integers(1, 1000))
def test_every_row_and_column_is_sampled_about_as_often(rows, columns):
    seen = ops.convert_to_numpy(sample(np.arange(rows * columns), (rows, columns))).ravel()
    assert seen.size == rows * columns or rows * columns > LARGE
    assert seen.size >= min(rows * columns, LARGE / 4)
    for indices, count in ((seen // columns, rows), (seen % columns, columns)):
        of_each = np.bincount(indices, minlength=count)
        assert of_each.min() >= min(4, seen.size / count)
        assert of_each.min() >= 0.4 * seen.size / count
        assert of_each.max() <= 2.5 * seen.size / count


@pytest.mark.parametrize("shape", [(1000, 24), (24, 1000), (500, 500), (64, 3, 90), (9000,)])
def test_a_gradient_in_one_row_or_column_is_seen(shape):
    """That of a single word, in an embedding or in the kernel after a bag of words."""
    for axis in (0, 1) if len(shape) > 1 else (1,):
        for index in (0, 7, 17):
            gradient = np.zeros((math.prod(shape[:-1]), shape[-1]))
            np.moveaxis(gradient, axis, 0)[index] = 1.0
            ratio = mean_square(gradient.reshape(shape)) / np.mean(gradient**2)
            assert ratio == pytest.approx(1.0, rel=0.5), (axis, index)


@pytest.mark.parametrize(
    "shape", [(784, 64), (784, 200), (1000, 101), (32, 32, 3, 48), (4000, 250)]
)
def test_samples_represent_tensors_with_unlike_rows(shape):
    """Most rows are of pixels that are black, or of words that do not occur."""
    ratios = []
    # Where a tenth of the rows has a gradient, one sample may be off by a tenth.
    for seed in range(8):
        random = np.random.default_rng(seed)
        gradient = random.normal(size=shape)
        rows = gradient.reshape(-1, shape[-1])
        if shape[0] == 784:  # The borders of pictures.
            rows.reshape(28, 28, -1)[[*range(4), *range(-4, 0)]] = 0.0
            rows.reshape(28, 28, -1)[:, [*range(4), *range(-4, 0)]] = 0.0
        else:
            rows[random.permutation(len(rows))[: len(rows) * 9 // 10]] = 0.0
        for array in (gradient, gradient != 0.0):
            ratios.append(mean_square(array) / np.mean(np.square(array.astype("float64"))))
    np.testing.assert_allclose(np.reshape(ratios, (-1, 2)).mean(axis=0), 1.0, rtol=0.1)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
