"""Tests of how variables are divided, packed and cut into windows."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from l2l_keras.engine.layout import PackedLayout, divide, square_norm, to_vector

SIZES = st.lists(st.integers(0, 50), min_size=1, max_size=8)
ABOUT_A_MILLION = 2**20


@given(st.lists(st.integers(1, 10), min_size=1, max_size=20))
def test_parts_keep_the_order_and_stay_small(sizes):
    shapes = {k: (size, 100_000) for k, size in enumerate(sizes)}
    parts = list(divide(shapes))
    assert [item for part in parts for item in part.items()] == list(shapes.items())
    for part in parts:
        assert len(part) == 1 or sum(map(math.prod, part.values())) <= ABOUT_A_MILLION


def test_equal_variables_are_divided_into_equal_parts():
    shapes = dict.fromkeys(range(400), (25000,))
    assert {len(part) for part in divide(shapes)} == {40}
    assert list(divide({0: (0,), 1: ()})) == [{0: (0,), 1: ()}]
    assert list(divide({0: (0,), 1: (0,)})) == [{0: (0,), 1: (0,)}]


@given(SIZES, st.integers(1, 40), st.data())
def test_windows_update_each_element_of_the_members_once(sizes, longest, data):
    shapes = {3 * k: (size,) for k, size in enumerate(sizes)}  # Indices need not be consecutive.
    members = data.draw(st.sets(st.sampled_from(sorted(shapes))))
    layout = PackedLayout(shapes)
    windows = layout.windows(members, longest)
    updated = np.zeros(layout.size, int)
    for start, first, last in zip(windows.start, windows.first, windows.last, strict=True):
        assert 0 <= start <= first < last <= start + windows.length <= layout.size
        updated[first:last] += 1
    expected = np.concatenate([np.full(s[0], k in members, int) for k, s in shapes.items()])
    np.testing.assert_array_equal(updated, expected)
    assert windows.length <= longest


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from([(), (3,), (2, 2), (0, 3)]), min_size=1, max_size=5), st.data())
def test_what_is_packed_is_unpacked(shapes, data):
    shapes = dict(enumerate(shapes))
    members = data.draw(st.sets(st.sampled_from(sorted(shapes))))
    random = np.random.default_rng(0)
    arrays = {k: random.normal(size=shapes[k]).astype("float32") for k in members}
    layout = PackedLayout(shapes)
    packed = layout.pack({k: ops.convert_to_tensor(a.ravel()) for k, a in arrays.items()})
    assert tuple(packed.shape) == (layout.size,)
    unpacked = layout.unpack(packed, members)
    assert sorted(unpacked) == sorted(members)
    for k, array in arrays.items():
        np.testing.assert_array_equal(ops.convert_to_numpy(unpacked[k]), array)
        span = ops.convert_to_numpy(packed)[layout.span(k)]
        np.testing.assert_array_equal(span, array.ravel())


def test_a_gradient_becomes_a_float32_vector():
    vector = to_vector(ops.ones((2, 3), "float16"), (2, 3))
    assert tuple(vector.shape) == (6,)
    assert keras.backend.standardize_dtype(vector.dtype) == "float32"


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), max_size=30))
def test_square_norm(numbers):
    actual = float(ops.convert_to_numpy(square_norm(np.asarray(numbers, "float32"))))
    assert actual == pytest.approx(float(np.sum(np.square(numbers))), rel=1e-5, abs=1e-30)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e20])
def test_the_norm_is_finite_only_if_all_numbers_are(bad):
    vector = np.ones(1000, "float32")
    vector[777] = bad
    assert not np.isfinite(ops.convert_to_numpy(square_norm(vector)))


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
