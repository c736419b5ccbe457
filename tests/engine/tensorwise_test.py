"""Tests of blocks of tensorwise rules: `LearnedOptimizer` steps as `rule.step` says."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from l2l_keras import LearnedOptimizer
from l2l_keras.rules import Tensors, TensorwiseLSTM
from l2l_keras.rules.tensorwise.tensors import fan_in

SHAPES = st.lists(
    st.sampled_from([(), (3,), (1,), (2, 3), (3, 2), (2, 2, 3)]), min_size=1, max_size=7
)


@keras.saving.register_keras_serializable(package="l2l_keras_tests")
class LearnedGain(TensorwiseLSTM):
    """A rule with a weight beyond those of its LSTM, in a part of the step besides `control`."""

    def __init__(self, units=24, seed=None, name=None):
        super().__init__(units, seed=seed, name=name)
        self.gain = self.add_weight(shape=(), initializer="ones", name="gain")

    def refine(self, sums, shape):
        return self.gain * super().refine(sums, shape)


def random_rule(cls=TensorwiseLSTM, **options):
    """Returns a rule whose tensors do different things."""
    rule = cls(4, seed=0, **options)
    random = np.random.default_rng(0)
    rule.set_weights([random.normal(0.0, 0.5, w.shape) for w in rule.weights])
    return rule


def make_variables(shapes, random):
    """Returns variables by path or, without one, by number."""
    paths = (
        shapes if isinstance(shapes, dict) else {f"variable_{k}": s for k, s in enumerate(shapes)}
    )
    variables = []
    for path, shape in paths.items():
        layer, _, own = path.rpartition("/")
        with keras.name_scope(layer or "model"):
            values = random.normal(size=shape).astype("float32")
            variables.append(keras.Variable(values, name=own))
    return variables


def trained(rule, shapes, seed=0, members=None):
    """Returns variables after three steps, and the optimizer."""
    random = np.random.default_rng(seed)
    variables = make_variables(shapes, random)
    optimizer = LearnedOptimizer(rule)
    optimizer.build(variables)
    chosen = range(len(variables)) if members is None else members
    for _ in range(3):
        gradients = [ops.array(random.normal(size=v.shape), "float32") for v in variables]
        optimizer.apply([gradients[k] for k in chosen], [variables[k] for k in chosen])
    return variables, optimizer


def by_the_rule(rule, shapes, seed=0):
    """Returns values of the same variables, and states of their elements, as `rule.step` says."""
    random = np.random.default_rng(seed)
    variables = make_variables(shapes, random)
    sizes = [int(np.prod(v.shape)) for v in variables]
    tensors = Tensors([v.shape for v in variables], [fan_in(v.path, v.shape) for v in variables])
    parameters = np.concatenate([np.ravel(ops.convert_to_numpy(v)) for v in variables])
    state = rule.initial_state(len(parameters), len(variables))
    for _ in range(3):
        gradient = np.concatenate([random.normal(size=v.shape).ravel() for v in variables])
        update, state = rule.step(
            ops.array(gradient, "float32"), state, ops.convert_to_tensor(parameters), tensors
        )
        parameters = parameters + ops.convert_to_numpy(update)
    rows = np.stack([ops.convert_to_numpy(array) for array in state[:-1]])
    stops = np.cumsum(sizes)[:-1]
    return (
        [x.reshape(v.shape) for x, v in zip(np.split(parameters, stops), variables, strict=True)],
        [
            x.reshape(-1, *v.shape)
            for x, v in zip(np.split(rows, stops, axis=1), variables, strict=True)
        ],
    )


def assert_close(some, others, rtol=2e-4, atol=1e-6):
    for a, b in zip(some, others, strict=True):
        a, b = ops.convert_to_numpy(a), ops.convert_to_numpy(b)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@settings(max_examples=3, deadline=None)
@given(SHAPES, st.sampled_from([{"orthogonal": (0,)}, {"whitened_rows": 2}]), st.integers(0, 100))
def test_small_tensors_step_as_the_rule_says(shapes, options, seed):
    variables, optimizer = trained(random_rule(**options), shapes, seed)
    values, states = by_the_rule(optimizer.rule, shapes, seed)
    assert_close(variables, values)
    assert_close(map(optimizer.state_of, variables), states)


@pytest.mark.parametrize("options", [{}, {"orthogonal": (0,)}], ids=["sampled", "not sampled"])
def test_large_and_small_tensors_step_as_the_rule_says(options):
    """Gram matrices of large tensors are sampled in the same way."""
    shapes = {
        "bias": (7,),
        "embedding/embeddings": (192, 50),
        "dense/kernel": (192, 50),
        "dense_1/kernel": (20, 30, 40),
        "dense_2/kernel": (4, 5),
    }
    rule = random_rule(**options)
    variables, optimizer = trained(rule, shapes)
    values, states = by_the_rule(rule, shapes)
    assert_close(variables, values)
    assert_close(map(optimizer.state_of, variables), states)


def test_more_tensors_than_a_part_holds_step_as_the_rule_says():
    shapes = [(k % 5 + 1, 3) for k in range(40)]
    rule = random_rule()
    assert_close(trained(rule, shapes)[0], by_the_rule(rule, shapes)[0])


def test_trained_weights_count_in_every_part_of_the_step():
    rule = random_rule(LearnedGain)
    rule.gain.assign(10.0)
    shapes = [(3,), (200, 60)]
    assert_close(trained(rule, shapes)[0], by_the_rule(rule, shapes)[0])
    # Another optimizer of a rule of the same configuration shares its compiled kernels.
    other = random_rule(LearnedGain)
    other.gain.assign(0.0)
    start = make_variables(shapes, np.random.default_rng(0))
    assert_close(trained(other, shapes)[0], start)


def test_variables_without_a_gradient_stay_as_they_are():
    shapes = [(3,), (2, 2), (3,), (2, 2)]
    start, untouched = trained(random_rule(), shapes, members=[])
    variables, optimizer = trained(random_rule(), shapes, members=[0, 3])
    for k in (1, 2):
        assert_close([variables[k]], [start[k]])
        assert_close([optimizer.state_of(variables[k])], [untouched.state_of(start[k])])
    for k in (0, 3):
        assert np.any(ops.convert_to_numpy(variables[k]) != ops.convert_to_numpy(start[k]))
        assert np.any(ops.convert_to_numpy(optimizer.state_of(variables[k])))


def test_a_step_that_is_skipped_changes_nothing():
    shapes = [(3,), (3,), (2, 2)]
    variables, optimizer = trained(random_rule(), shapes)
    kept = [*variables, *map(optimizer.state_of, variables)]
    before = [np.array(ops.convert_to_numpy(v)) for v in kept]
    optimizer.apply([ops.full(shape, np.nan) for shape in shapes])
    after = [*variables, *map(optimizer.state_of, variables)]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, ops.convert_to_numpy(b))


def test_a_gradient_outside_of_the_sample_makes_no_large_step():
    variable = keras.Variable(np.zeros((2000, 101), "float32"))
    optimizer = LearnedOptimizer(TensorwiseLSTM(4, seed=0), runaway_factor=None)
    optimizer.build([variable])
    gradient = np.zeros(variable.shape, "float32")
    gradient[-1, -1] = 1.0
    for _ in range(3):
        optimizer.apply([ops.array(gradient)])
    assert 0.0 < np.abs(ops.convert_to_numpy(variable)[-1, -1]) < 0.1


def test_a_rule_that_was_never_used_before_trains_in_low_precision():
    """Keras builds the optimizer where it does not track what layers consist of."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile(LearnedOptimizer(TensorwiseLSTM(3, seed=0), learning_rate=100.0), "mse")
        # The first steps may overflow float16, until the loss is scaled as it should be.
        losses = model.fit(np.ones((8, 3)), np.ones((8, 2)), epochs=8, verbose=0).history["loss"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
