"""Tests of one step over many variables: windows and blocks."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from l2l_keras import _backend
from l2l_keras.batched_update import Block
from l2l_keras.rules import RNNprop
from l2l_keras.stored_rule import StoredRule
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


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
