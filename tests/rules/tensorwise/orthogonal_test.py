"""Tests of orthogonal factors and of whitened rows."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from l2l_keras.rules.tensorwise.orthogonal import matrix_shape, orthogonal_factor, whiten_rows


def factor(matrix):
    result = orthogonal_factor(ops.array(matrix.ravel()), matrix.shape)
    return ops.convert_to_numpy(result).reshape(matrix.shape)


def whitened(matrix, most=4):
    result = whiten_rows(ops.array(matrix.ravel()), matrix.shape, most)
    return ops.convert_to_numpy(result).reshape(matrix.shape)


def rms(matrix):
    return np.sqrt(np.mean(np.square(matrix.astype("float64"))))


def random_matrix(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 20), st.integers(2, 20), st.integers(0, 100))
def test_singular_vectors_stay_and_singular_values_become_equal(rows, columns, seed):
    """Except for the smallest values, which the iteration does not reach."""
    matrix = random_matrix((rows, columns), seed)
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    result = factor(matrix) / np.sqrt(max(rows, columns))
    values = np.diag(u.T @ result @ v.T)
    reached = s > 0.01 * np.linalg.norm(s)
    assert np.all((values[reached] > 0.6) & (values[reached] < 1.3))
    np.testing.assert_allclose((u * values) @ v, result, atol=2e-3)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e15])
def test_the_scale_does_not_matter(scale):
    matrix = random_matrix((8, 5))
    scaled = matrix * np.float32(scale)
    np.testing.assert_allclose(factor(scaled), factor(matrix), rtol=1e-3, atol=1e-4)
    if scale > 1e-20:  # The squares of smaller numbers vanish.
        np.testing.assert_allclose(
            whitened(scaled) / np.float32(scale), whitened(matrix), rtol=1e-3
        )


def test_zeros_stay_zero():
    assert np.all(factor(np.zeros((4, 3), "float32")) == 0.0)
    assert np.all(factor(np.zeros(4, "float32")) == 0.0)
    assert factor(np.zeros((0, 3), "float32")).shape == (0, 3)


@pytest.mark.parametrize("shape", [(7,), (3, 4)])
def test_tiny_numbers_have_finite_factors_when_compiled(shape):
    """Compilers divide by the product of two divisors, which would be zero."""
    compiled = tf.function(lambda vector: orthogonal_factor(vector, shape), jit_compile=True)
    for scale in (1e-36, 1e-38, 1e-41):
        matrix = random_matrix(shape) * np.float32(scale)
        matrix.flat[0] = 0.0
        assert np.isfinite(compiled(matrix.ravel()).numpy()).all()


def test_vectors_are_divided_by_their_rms_and_not_whitened():
    vector = random_matrix((7,))
    np.testing.assert_allclose(factor(vector), vector / rms(vector), rtol=1e-5)
    np.testing.assert_array_equal(whitened(vector), vector)


@pytest.mark.parametrize(("function", "shape"), [(factor, (9, 4)), (whitened, (9, 3))])
def test_transposes_have_transposed_results(function, shape):
    """Whitening has fewer columns than rows in a block."""
    matrix = random_matrix(shape)
    np.testing.assert_allclose(function(matrix), function(matrix.T.copy()).T, atol=1e-4)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (7, 3), (7, 9), (5,), (2, 3, 4)])
def test_several_at_once_are_as_one_by_one(shape):
    several = [random_matrix(shape, seed) * np.float32(10**seed) for seed in range(3)]
    vectors = ops.array(np.reshape(several, (3, -1)))
    factors = ops.convert_to_numpy(orthogonal_factor(vectors, shape))
    np.testing.assert_allclose(factors, [factor(one).ravel() for one in several], atol=1e-4)
    rows = ops.convert_to_numpy(whiten_rows(vectors, shape, 4))
    expected = [whitened(one).ravel() for one in several]
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-4)


def test_large_matrices_are_cut_into_blocks():
    matrix = random_matrix((300, 310))
    blocks = [factor(matrix[:150]), factor(matrix[150:])]
    np.testing.assert_allclose(factor(matrix), np.concatenate(blocks), atol=2e-3)


class TestWhitenedRows:
    @settings(max_examples=15, deadline=None)
    @given(st.integers(2, 12), st.integers(12, 40), st.floats(0.02, 1.0), st.integers(0, 100))
    def test_singular_vectors_stay_and_singular_values_become_equal(self, rows, columns, low, seed):
        """Except for values whose squares are below a few hundredths, which grow less."""
        matrix = random_matrix((rows, columns), seed)
        matrix *= np.geomspace(1.0, low, rows, dtype="float32")[:, None]
        u, s, v = np.linalg.svd(matrix, full_matrices=False)
        result = whitened(matrix, most=12)
        values = np.diag(u.T @ result @ v.T)
        np.testing.assert_allclose((u * values) @ v, result, atol=1e-3)
        values = values[s > 0.15 * np.linalg.norm(s)]
        assert values.max() < 2.0 * values.min()

    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.integers(0, 13), max_size=4), st.integers(2, 9), st.integers(0, 100))
    def test_the_rms_stays(self, shape, most, seed):
        matrix = random_matrix(tuple(shape), seed)
        result = whitened(matrix, most)
        np.testing.assert_allclose(
            np.sum(np.square(result)), np.sum(np.square(matrix)), rtol=1e-4, atol=1e-30
        )

    @pytest.mark.parametrize(
        ("rows", "sides"), [(8, (4, 4)), (6, (3, 3)), (3, (3,)), (7, (4, 3)), (11, (4, 4, 3))]
    )
    def test_blocks_are_neighbouring_rows_of_equal_rms(self, rows, sides):
        matrix = random_matrix((rows, 20))
        result = whitened(matrix)
        for side, end in zip(sides, np.cumsum(sides), strict=True):
            block = result[end - side : end]
            expected = whitened(matrix[end - side : end])
            block, expected, size = block / rms(block), expected / rms(expected), rms(block)
            np.testing.assert_allclose(block, expected, rtol=2e-3, atol=2e-3)
            assert 0.8 < size / rms(result) < 1.2

    def test_tiny_numbers_stay_tiny_and_zeros_zero_when_compiled(self):
        compiled = tf.function(lambda vector: whiten_rows(vector, (8, 5), 4), jit_compile=True)
        for scale in (0.0, 1e-18, 1e-25, 1e-41):
            matrix = random_matrix((8, 5)) * np.float32(scale)
            matrix[4:] = 0.0
            result = compiled(matrix.ravel()).numpy()
            assert np.abs(result).max() <= 4.0 * scale
            assert np.all(result[20:] == 0.0)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), (1, 1)),
        ((5,), (1, 5)),
        ((4, 6), (4, 6)),
        ((3, 3, 16, 32), (144, 32)),
        ((24, 3, 8), (24, 24)),
        ((3, 8, 24), (24, 24)),
        ((0, 4), (1, 0)),
    ],
)
def test_tensors_are_cut_into_the_most_square_matrix(shape, expected):
    assert matrix_shape(shape) == expected


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
