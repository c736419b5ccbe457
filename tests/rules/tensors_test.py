"""Tests of vectors that belong to several tensors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from l2l_keras.rules import Tensors

# Neighbours of one shape too.
SHAPES = st.lists(
    st.tuples(st.lists(st.integers(0, 4), max_size=3), st.integers(1, 3)), min_size=1, max_size=4
).map(lambda runs: [shape for shape, count in runs for _ in range(count)])


@settings(deadline=None, max_examples=25)
@given(SHAPES, st.integers(1, 4), st.integers(0, 1000))
def test_products_and_combinations_are_those_of_each_tensor(shapes, rows, seed):
    tensors = Tensors(shapes)
    random = np.random.default_rng(seed)
    n = sum(tensors.sizes)
    x = random.normal(size=(rows, n)).astype("float32")
    coefficients = random.normal(size=(rows, len(tensors))).astype("float32")
    products = ops.convert_to_numpy(tensors.products(ops.array(x)))
    combined = ops.convert_to_numpy(tensors.combine(ops.array(coefficients), ops.array(x)))
    assert products.shape == (rows, rows, len(shapes))
    assert combined.shape == (n,)
    start = 0
    for k, shape in enumerate(shapes):
        size = int(np.prod(shape))
        own = x[:, start : start + size]
        expected = own @ own.T / max(size, 1)
        np.testing.assert_allclose(products[:, :, k], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            combined[start : start + size], coefficients[:, k] @ own, rtol=1e-4, atol=1e-5
        )
        start += size


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
