"""Tests of blocks of elementwise rules, and of how their states are stored."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from l2l_keras.engine.backends import backend
from l2l_keras.engine.block import RuleInputs
from l2l_keras.engine.elementwise import ElementwiseKernels, PackedBlock
from l2l_keras.rules import RNNprop
from tests.contract.harness import GradientDescent

SIZES = st.lists(st.integers(0, 50), min_size=1, max_size=8)


def step(block, rule, gradients, state):
    """Returns the updates of one step, and the next state."""
    variable = keras.Variable(state, trainable=False)
    inputs = RuleInputs(
        learning_rate=ops.convert_to_tensor(0.5),
        accepted=ops.convert_to_tensor(True),
        gradients={k: ops.convert_to_tensor(g) for k, g in gradients.items()},
        parameters={},
        weights=[ops.convert_to_tensor(w) for w in rule.weights],
    )
    updates, new_state = {}, state
    for change in block.step(inputs, [backend.handle(variable)]):
        updates |= {k: ops.convert_to_numpy(update) for k, update in change.updates.items()}
        new_state = np.array(ops.convert_to_numpy(ops.convert_to_tensor(change.state[0])))
    return updates, new_state


@settings(deadline=None, max_examples=6)
@given(SIZES, st.data())
def test_a_step_in_windows_equals_one_of_everything_at_once(sizes, data):
    shapes = {3 * k: (size,) for k, size in enumerate(sizes)}
    members = sorted(data.draw(st.sets(st.sampled_from(sorted(shapes)), min_size=1)))
    rule = RNNprop((3,), seed=0)
    kernels = ElementwiseKernels(rule, "float32")
    random = np.random.default_rng(0)
    gradients = {k: random.normal(size=shapes[k]).astype("float32") for k in members}
    state = random.uniform(0.1, 1.0, (sum(rule.state_rows), sum(sizes))).astype("float32")
    windowed, whole = (
        step(PackedBlock("", kernels, shapes, length), rule, gradients, state)
        for length in (7, 1000)
    )
    assert windowed[0].keys() == whole[0].keys()
    for k, update in whole[0].items():
        np.testing.assert_allclose(windowed[0][k], update, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(windowed[1], whole[1], rtol=1e-5, atol=1e-6)
    columns = np.concatenate([np.full(s, 3 * k in members) for k, s in enumerate(sizes)])
    np.testing.assert_array_equal(windowed[1][:, ~columns], state[:, ~columns])
    assert np.all(windowed[1][:, columns] != state[:, columns])


def test_bits_of_bfloat16_come_back():
    kernels = ElementwiseKernels(GradientDescent(rows=(1,)), "bfloat16")
    gradient = ops.array([1.0, -0.1, 3e38])
    _, stored = kernels.step([], gradient, ops.zeros((1, 3), "int16"))
    assert keras.backend.standardize_dtype(stored.dtype) == "int16"
    expected = ops.cast(ops.cast(gradient, "bfloat16"), "float32")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(kernels.dtype.decode(stored))[0], ops.convert_to_numpy(expected)
    )


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
