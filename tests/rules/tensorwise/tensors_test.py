"""Tests of vectors that hold the elements of several tensors."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from l2l_keras.rules import Tensors
from l2l_keras.rules.tensorwise.tensors import fan_in

# Neighbours of one shape too.
SHAPES = st.lists(
    st.tuples(st.lists(st.integers(0, 4), max_size=3), st.integers(1, 3)), min_size=1, max_size=4
).map(lambda runs: [shape for shape, count in runs for _ in range(count)])


@settings(deadline=None, max_examples=25)
@given(SHAPES, st.integers(1, 4), st.integers(0, 1000))
def test_gram_matrices_and_combinations_are_those_of_each_tensor(shapes, rows, seed):
    tensors = Tensors(shapes)
    random = np.random.default_rng(seed)
    n = sum(tensors.sizes)
    x = random.normal(size=(rows, n)).astype("float32")
    coefficients = random.normal(size=(rows, len(tensors))).astype("float32")
    gram = ops.convert_to_numpy(tensors.gram_matrices(ops.array(x)))
    sums = tensors.combine(ops.array(coefficients), ops.array(x))
    combined = ops.convert_to_numpy(tensors.join(sums))
    assert gram.shape == (rows, rows, len(shapes))
    assert combined.shape == (n,)
    start = 0
    for k, shape in enumerate(shapes):
        size = int(np.prod(shape))
        own = x[:, start : start + size]
        expected = own @ own.T / max(size, 1)
        np.testing.assert_allclose(gram[:, :, k], expected, rtol=1e-4, atol=1e-5)
        part, expected = combined[start : start + size], coefficients[:, k] @ own
        np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-5)
        start += size


def test_fan_ins_are_those_of_layers_of_keras():
    inputs = keras.Input((12,), dtype="int32")
    embedding = keras.layers.Embedding(50, 6)
    x = keras.layers.Conv1D(4, 3)(embedding(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.LSTM(5)(x)))
    embedding.enable_lora(2)
    actual = {(v.name, tuple(v.shape)): fan_in(v.path, tuple(v.shape)) for v in model.variables}
    assert actual == {
        ("embeddings", (50, 6)): 1,
        ("lora_embeddings_a", (50, 2)): 1,
        ("lora_embeddings_b", (2, 6)): 2,
        ("kernel", (3, 6, 4)): 18,
        ("bias", (4,)): 1,
        ("kernel", (4, 20)): 4,
        ("recurrent_kernel", (5, 20)): 5,
        ("bias", (20,)): 1,
        ("kernel", (5, 2)): 5,
        ("bias", (2,)): 1,
        ("seed_generator_state", (2,)): 1,
    }


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
