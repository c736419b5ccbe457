"""Tests of one step over many variables: windows, blocks, stored states."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from l2l_keras import _backend, batched_update
from l2l_keras.batched_update import Block, StoredRule, divide, to_vector
from l2l_keras.rules import RNNprop
from tests.contract.harness import GradientDescent

SIZES = st.lists(st.integers(0, 50), min_size=1, max_size=8)


def shapes_of(sizes):
    return {3 * k: (size,) for k, size in enumerate(sizes)}  # Places need not be consecutive.


@given(SIZES, st.integers(1, 40), st.data())
def test_windows_update_each_column_of_the_members_once(sizes, chunk, data):
    shapes = shapes_of(sizes)
    members = data.draw(st.sets(st.sampled_from(sorted(shapes))))
    block = Block("", StoredRule(GradientDescent(), "float32"), shapes, chunk)
    windows = block._windows(members)
    updated = np.zeros(block.size, int)
    for start, first, last in zip(windows.start, windows.first, windows.last, strict=True):
        assert 0 <= start <= first < last <= start + windows.length <= block.size
        updated[first:last] += 1
    expected = np.concatenate([np.full(s[0], k in members, int) for k, s in shapes.items()])
    np.testing.assert_array_equal(updated, expected)
    assert windows.length <= chunk


@settings(deadline=None, max_examples=15)
@given(SIZES, st.data())
def test_a_step_in_windows_is_one_of_everything_at_once(sizes, data):
    shapes = shapes_of(sizes)
    members = sorted(data.draw(st.sets(st.sampled_from(sorted(shapes)), min_size=1)))
    rule = RNNprop((3,), seed=0)
    random = np.random.default_rng(0)
    n = sum(sizes)
    gradient = ops.convert_to_tensor(random.normal(size=n).astype("float32"))
    state = random.uniform(0.1, 1.0, (sum(rule.state_rows), n)).astype("float32")
    results = []
    for chunk in (7, 1000):
        block = Block("", StoredRule(rule, "float32"), shapes, chunk)
        slot = keras.Variable(state.copy(), trainable=False)
        value = _backend.native(slot) if keras.backend.backend() == "tensorflow" else slot.value
        weights = [ops.convert_to_tensor(w) for w in rule.weights]
        factor, accepted = ops.convert_to_tensor(0.5), ops.convert_to_tensor(True)
        update, new = block.step(factor, weights, gradient, value, members, accepted)
        parts = [ops.convert_to_numpy(part) for _, part in block.split(update, members)]
        results.append([*parts, np.array(ops.convert_to_numpy(new))])
    for windowed, whole in zip(*results, strict=True):
        np.testing.assert_allclose(windowed, whole, rtol=1e-5, atol=1e-6)
    columns = np.concatenate([np.full(s, 3 * k in members) for k, s in enumerate(sizes)])
    new_state = results[0][-1]
    np.testing.assert_array_equal(new_state[:, ~columns], state[:, ~columns])
    assert np.all(new_state[:, columns] != state[:, columns])


@given(st.lists(st.integers(1, 10), min_size=1, max_size=20))
def test_division_keeps_order_and_stays_small(sizes):
    limit = batched_update._LIMIT // 10
    shapes = {k: (size, limit) for k, size in enumerate(sizes)}
    parts = list(divide(shapes))
    assert {k: s for part in parts for k, s in part.items()} == shapes
    assert [k for part in parts for k in part] == list(shapes)
    for part in parts:
        size = sum(map(math.prod, part.values()))
        assert size <= batched_update._LIMIT or len(part) == 1


def test_equal_variables_are_divided_into_equal_parts():
    shapes = dict.fromkeys(range(400), (25000,))
    assert {len(part) for part in divide(shapes)} == {40}
    assert list(divide({0: (0,), 1: ()})) == [{0: (0,), 1: ()}]
    assert list(divide({0: (0,), 1: (0,)})) == [{0: (0,), 1: (0,)}]


def test_bits_of_bfloat16_come_back():
    stored = StoredRule(GradientDescent(rows=(1,)), "bfloat16")
    assert stored.dtype == "int16"
    state = ops.zeros((1, 3), "int16")
    gradient = ops.array([1.0, -0.1, 3e38])
    _, state = stored.step([], gradient, state)
    expected = ops.cast(ops.cast(gradient, "bfloat16"), "float32")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(stored.numbers(state))[0], ops.convert_to_numpy(expected)
    )


def test_a_gradient_becomes_a_float32_vector():
    vector = to_vector(ops.ones((2, 3), "float16"), (2, 3))
    assert tuple(vector.shape) == (6,)
    assert keras.backend.standardize_dtype(vector.dtype) == "float32"


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
