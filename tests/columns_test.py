"""Tests of how variables are divided and joined."""

import math

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from l2l_keras import columns
from l2l_keras.columns import divide, to_vector


@given(st.lists(st.integers(1, 10), min_size=1, max_size=20))
def test_division_keeps_order_and_stays_small(sizes):
    limit = columns._LIMIT // 10
    shapes = {k: (size, limit) for k, size in enumerate(sizes)}
    parts = list(divide(shapes))
    assert {k: s for part in parts for k, s in part.items()} == shapes
    assert [k for part in parts for k in part] == list(shapes)
    for part in parts:
        size = sum(map(math.prod, part.values()))
        assert size <= columns._LIMIT or len(part) == 1


def test_equal_variables_are_divided_into_equal_parts():
    shapes = dict.fromkeys(range(400), (25000,))
    assert {len(part) for part in divide(shapes)} == {40}
    assert list(divide({0: (0,), 1: ()})) == [{0: (0,), 1: ()}]
    assert list(divide({0: (0,), 1: (0,)})) == [{0: (0,), 1: (0,)}]


def test_a_gradient_becomes_a_float32_vector():
    vector = to_vector(ops.ones((2, 3), "float16"), (2, 3))
    assert tuple(vector.shape) == (6,)
    assert keras.backend.standardize_dtype(vector.dtype) == "float32"


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
