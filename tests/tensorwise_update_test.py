"""Tests of steps of a tensorwise rule over many variables."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from l2l_keras import LearnedOptimizer, tensorwise_update
from l2l_keras.rules import TensorwiseLSTM

SHAPES = st.lists(
    st.sampled_from([(), (3,), (1,), (2, 3), (3, 2), (2, 2, 3)]), min_size=1, max_size=7
)


def random_rule(**options):
    """Returns a rule whose tensors do different things."""
    rule = TensorwiseLSTM(4, seed=0, **options)
    random = np.random.default_rng(0)
    rule.set_weights([random.normal(0.0, 0.5, w.shape) for w in rule.weights])
    return rule


def trained(shapes, seed=0, members=None, **options):
    """Returns variables after three steps, and the optimizer."""
    random = np.random.default_rng(seed)
    variables = [keras.Variable(random.normal(size=shape).astype("float32")) for shape in shapes]
    optimizer = LearnedOptimizer(random_rule(**options))
    optimizer.build(variables)
    chosen = range(len(shapes)) if members is None else members
    for _ in range(3):
        gradients = [ops.array(random.normal(size=shape), "float32") for shape in shapes]
        optimizer.apply([gradients[k] for k in chosen], [variables[k] for k in chosen])
    return variables, optimizer


def assert_close(some, others):
    for a, b in zip(some, others, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=2e-4, atol=1e-6
        )


@settings(max_examples=4, deadline=None)
@given(
    SHAPES,
    st.sampled_from([{"orthogonal": (0,)}, {"whitened_rows": 2}, {"weight_decay": 0.1}]),
    st.integers(0, 100),
)
def test_small_variables_are_updated_together_as_each_in_its_turn(shapes, options, seed):
    together, optimizer = trained(shapes, seed, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorwise_update, "_SMALL", -1)
        apart, other = trained(shapes, seed, **options)
    assert_close(together, apart)
    assert_close(map(optimizer.state_of, together), map(other.state_of, apart))
    slots = optimizer.rule.coordinate_rows
    assert len(other.variables) - len(optimizer.variables) == (len(shapes) - 1) * slots


def test_parts_have_bounds(monkeypatch):
    shapes = [(2, 2), (40,), (1,), (2, 2), (2, 2), (2,)]
    whole, optimizer = trained(shapes)
    # By shape: 1, 2, and three times 4 coordinates; and 40.
    for bounds, parts in (
        ({}, 1),
        ({"_SMALL": 10}, 2),
        ({"_SMALL": 10, "_MOST": 3}, 3),
        ({"_SMALL": 10, "_LIMIT": 3}, 5),
    ):
        with monkeypatch.context() as patch:
            for name, bound in bounds.items():
                patch.setattr(tensorwise_update, name, bound)
            variables, other = trained(shapes)
        assert_close(variables, whole)
        more = len(other.variables) - len(optimizer.variables)
        assert more == (parts - 1) * optimizer.rule.coordinate_rows


@pytest.mark.parametrize("small", [2**13, -1])
def test_embeddings_are_known_by_their_paths(monkeypatch, small):
    """As far as in meta-training; a kernel like it, of 192 inputs, half as far."""
    monkeypatch.setattr(tensorwise_update, "_SMALL", small)
    random = np.random.default_rng(0)
    # Their places in the block are not those in the model.
    shapes = {"bias": (7,), "embedding/embeddings": (192, 4), "dense/kernel": (192, 4)}
    start = random.normal(size=(192, 4))
    values = {"bias": random.normal(size=7), **dict.fromkeys([*shapes][1:], start)}
    gradients = {name: values[name] + 1.0 for name in shapes}
    rule = TensorwiseLSTM(4, largest_step=None, seed=0)
    rule.set_weights([0.0 * w for w in rule.get_weights()])
    variables = []
    for name in shapes:
        layer, _, own = name.rpartition("/")
        with keras.name_scope(layer or "model"):
            variables.append(keras.Variable(values[name].astype("float32"), name=own))
    LearnedOptimizer(rule).apply([ops.array(g, "float32") for g in gradients.values()], variables)
    updates = [
        ops.convert_to_numpy(v) - values[name].astype("float32")
        for name, v in zip(shapes, variables, strict=True)
    ]
    np.testing.assert_allclose(updates[1] / updates[2], 2.0 * (65 / 64) ** -0.5, rtol=1e-3)


def test_variables_without_a_gradient_stay_as_they_are():
    shapes = [(3,), (2, 2), (3,), (2, 2)]
    start, untouched = trained(shapes, members=[])
    variables, optimizer = trained(shapes, members=[0, 3])
    for k in (1, 2):
        assert_close([variables[k]], [start[k]])
        assert_close([optimizer.state_of(variables[k])], [untouched.state_of(start[k])])
    for k in (0, 3):
        assert np.any(ops.convert_to_numpy(variables[k]) != ops.convert_to_numpy(start[k]))
        assert np.any(ops.convert_to_numpy(optimizer.state_of(variables[k])))


def test_a_step_that_is_skipped_changes_nothing():
    shapes = [(3,), (3,), (2, 2)]
    variables, optimizer = trained(shapes)
    before = [ops.convert_to_numpy(v) for v in (*variables, *map(optimizer.state_of, variables))]
    gradients = [np.full(shape, np.nan, "float32") for shape in shapes]
    optimizer.apply([ops.array(gradient) for gradient in gradients])
    after = [ops.convert_to_numpy(v) for v in (*variables, *map(optimizer.state_of, variables))]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
