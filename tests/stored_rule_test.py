"""Tests of how states are kept."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from l2l_keras import LearnedOptimizer, stored_rule
from l2l_keras.rules import Tensors, TensorwiseLSTM
from l2l_keras.stored_rule import StoredRule, StoredTensorwiseRule
from tests.contract.harness import GradientDescent


def _observe(stored, state, gradient, parameters):
    """Returns the products of one tensor's directions, `[r, r, 1]`."""
    slots = [keras.Variable(array).value for array in state]
    products, _ = stored.observe(slots, gradient, parameters, (tuple(gradient.shape),))
    return ops.convert_to_numpy(products)


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


def test_some_of_a_large_tensor_tell_of_all():
    """Where coordinates are alike, the means over some of them are those over all, nearly."""
    rule = TensorwiseLSTM(4, seed=0)
    shape = (300, 200)
    random = np.random.default_rng(0)
    arrays = [ops.array(random.normal(size=shape), "float32") for _ in range(2)]
    gradient, parameters = arrays
    state = [ops.abs(ops.array(random.normal(size=shape), "float32")) + 0.1 for _ in range(5)]
    stored = StoredTensorwiseRule(rule, "float32")
    sampled = _observe(stored, state, gradient, parameters)[:, :, 0]

    vectors = [ops.reshape(array, (-1,)) for array in state]
    gradient, parameters = (ops.reshape(array, (-1,)) for array in arrays)
    rows = ops.stack(rule.directions(gradient, rule.advance(gradient, vectors), parameters))
    products = ops.convert_to_numpy(Tensors([shape]).products(rows))[:, :, 0]
    roots = np.sqrt(np.diag(products))
    difference = np.abs(sampled - products) / np.outer(roots, roots)
    assert 0.0 < difference.max() < 0.1


@pytest.mark.parametrize(
    "shape", [(784, 64), (784, 200), (1000, 101), (32, 32, 3, 48), (4000, 250)]
)
def test_some_of_a_large_tensor_tell_of_all_rows(shape):
    """Also where rows are unlike: most of them are of pixels that are black, or of other words."""
    rule = TensorwiseLSTM(4, seed=0)
    stored = StoredTensorwiseRule(rule, "float32")
    state = [ops.zeros(shape)] * rule.coordinate_rows
    ratios = []
    # Where a tenth of the rows has a gradient, one draw is by chance a tenth more or less.
    for seed in range(8):
        random = np.random.default_rng(seed)
        gradient = random.normal(size=shape)
        rows = gradient.reshape(-1, shape[-1])
        if shape[0] == 784:  # The borders of pictures.
            rows.reshape(28, 28, -1)[[*range(4), *range(-4, 0)]] = 0.0
            rows.reshape(28, 28, -1)[:, [*range(4), *range(-4, 0)]] = 0.0
        else:
            rows[random.permutation(len(rows))[: len(rows) * 9 // 10]] = 0.0
        array = ops.array(gradient, "float32")
        products = _observe(stored, state, array, ops.ones(shape))[:, :, 0]
        # Of the gradient over √v: 10 where there is one, in the first step.
        place = len(rule.momenta)
        relative = products[place, place] / (100.0 * np.mean(gradient != 0.0))
        usual = products[-1, -1] / (0.01 * np.mean(np.square(gradient)))
        ratios.append((relative, usual))
    np.testing.assert_allclose(np.mean(ratios, axis=0), 1.0, rtol=0.1)


@pytest.mark.parametrize("shape", [(1000, 24), (24, 1000), (500, 500), (64, 3, 90), (9000,)])
@pytest.mark.parametrize("orthogonal", [(), (0,)], ids=["some", "all"])
def test_no_row_or_column_is_overlooked(shape, orthogonal):
    """All of a gradient may be that of one word, in an embedding or in what is said of words."""
    rule = TensorwiseLSTM(4, orthogonal=orthogonal, seed=0)
    stored = StoredTensorwiseRule(rule, "float32")
    state = [ops.zeros(shape)] * rule.coordinate_rows
    momentum = rule.matrix_rows + len(rule.momenta) + 1
    for axis in (0, 1) if len(shape) > 1 else (1,):
        for place in (0, 7, 17):
            gradient = np.zeros(shape, "float32").reshape(-1, shape[-1])
            gradient[(place, slice(None)) if axis == 0 else (slice(None), place)] = 1.0
            gradient = gradient.reshape(shape)
            array = ops.array(gradient)
            (square,) = _observe(stored, state, array, ops.ones(shape))[momentum, momentum]
            ratio = square / np.mean(0.01 * gradient**2)
            assert ratio == pytest.approx(1.0, rel=1e-3 if orthogonal else 0.5), (axis, place)


@settings(deadline=None)
@given(rows=st.integers(1, 1000), columns=st.integers(1, 1000))
def test_of_each_row_and_column_about_as_much_is_looked_at(rows, columns):
    numbers = np.arange(rows * columns).reshape(rows, columns)
    seen = ops.convert_to_numpy(stored_rule._sample(numbers)).ravel()
    for places, count in ((seen // columns, rows), (seen % columns, columns)):
        of_each = np.bincount(places, minlength=count)
        assert of_each.min() >= min(4, seen.size / count)
        assert of_each.min() >= 0.4 * seen.size / count
        assert of_each.max() <= 2.5 * seen.size / count


def test_where_none_is_seen_a_gradient_is_no_reason_for_a_large_step():
    rule = TensorwiseLSTM(4, seed=0)
    variable = keras.Variable(np.zeros((2000, 101), "float32"))
    optimizer = LearnedOptimizer(rule, runaway_factor=None)
    optimizer.build([variable])
    gradient = np.zeros(variable.shape, "float32")
    gradient[-1, -1] = 1.0
    assert not ops.convert_to_numpy(stored_rule._sample(gradient)).any()
    for _ in range(3):
        optimizer.apply([ops.array(gradient)])
    moved = ops.convert_to_numpy(variable.value)
    assert 0.0 < np.abs(moved[-1, -1]) < 0.1


def test_a_rule_that_was_never_used_before_trains_in_low_precision():
    """Keras builds the optimizer where it does not track what layers consist of."""
    rule = TensorwiseLSTM(3, seed=0)
    stored_rule._shared_rule.cache_clear()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile(LearnedOptimizer(rule, learning_rate=100.0), "mse")
        # The first steps may be too large for float16, until the loss is scaled as it should be.
        losses = model.fit(np.ones((8, 3)), np.ones((8, 2)), epochs=8, verbose=0).history["loss"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
