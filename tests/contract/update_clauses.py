"""Clauses about single steps: what `apply` does to variables and state."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.contract.harness import (
    BACKEND,
    SHAPES,
    Make,
    apply,
    assert_close,
    assert_equal,
    assert_follows_the_rule,
    assert_moved,
    by_the_rule,
    clause,
    make_gradients,
    make_variables,
    numpy,
    rule_of,
    snapshot,
    states,
    tensors,
    tolerance,
    train,
)


@clause(arithmetic=True)
def updates_and_states_are_the_rule_s(make: Make) -> None:
    optimizer = make()
    variables = train(optimizer, steps=3)
    assert_follows_the_rule(optimizer, variables, [make_gradients(step) for step in range(3)])
    assert_moved(numpy(variables), [np.ones(shape) for shape in SHAPES])


@clause()
def variables_may_be_empty(make: Make) -> None:
    for shapes in ([(2,), (0, 3), ()], [(0, 3)]):
        optimizer, variables = make(), make_variables(shapes=shapes)
        steps = [make_gradients(step, shapes) for step in range(2)]
        for gradients in steps:
            optimizer.apply(tensors(gradients), variables)
        assert_follows_the_rule(optimizer, variables, steps)
        assert optimizer.skipped_steps == 0


@clause(elementwise=True, arithmetic=True)
def one_variable_at_a_time_is_the_same(make: Make) -> None:
    batched, one_by_one = make(), make()
    expected = train(batched)
    variables = make_variables()
    one_by_one.build(variables)
    for step in range(3):
        for gradient, variable in zip(tensors(make_gradients(step)), variables, strict=True):
            one_by_one.update_step(gradient, variable, 1.0)
    assert_close(snapshot(one_by_one, variables), snapshot(batched, expected))


@clause()
def the_learning_rate_is_a_factor_of_updates(make: Make) -> None:
    whole = numpy(train(make(), steps=1))
    for optimizer in (make(learning_rate=0.5), make(learning_rate=lambda: 0.5)):
        half = numpy(train(optimizer, steps=1))
        assert_close([h - 1.0 for h in half], [0.5 * (w - 1.0) for w in whole])
    optimizer = make()
    optimizer.learning_rate = 0.5
    assert_equal(numpy(train(optimizer, steps=1)), half)


@clause()
def the_learning_rate_follows_a_schedule(make: Make) -> None:
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [1.0, 0.1, 0.0])
    optimizer = make(learning_rate=schedule)
    gradients = [make_gradients(step) for step in range(3)]
    first, _ = by_the_rule(rule_of(optimizer), gradients[:1])
    second, _ = by_the_rule(rule_of(optimizer), gradients[:2])
    expected = [f + 0.1 * (s - f) for f, s in zip(first, second, strict=True)]
    assert_close(numpy(train(optimizer, steps=3)), expected, **tolerance(optimizer))


@clause()
def weight_decay_is_taken_off_before_the_update(make: Make) -> None:
    optimizer = make(learning_rate=0.5, weight_decay=0.2)
    optimizer.exclude_from_weight_decay(var_names=["variable_2"])
    gradients = make_gradients()
    decayed = [np.full_like(g, 1.0 if i == 2 else 0.9) for i, g in enumerate(gradients)]
    expected, _ = by_the_rule(rule_of(optimizer), [gradients], decayed, rate=0.5)
    assert_close(numpy(train(optimizer, steps=1)), expected)


@clause()
def gradients_are_clipped_before_the_rule_sees_them(make: Make) -> None:
    gradients = make_gradients()
    norms = [np.linalg.norm(g) for g in gradients]
    whole = np.linalg.norm(norms)
    clipped = {
        "clipvalue": [np.clip(g, -0.7, 0.7) for g in gradients],
        "clipnorm": [g * min(1, 0.7 / max(n, 0.1)) for g, n in zip(gradients, norms, strict=True)],
        "global_clipnorm": [g * 0.7 / whole for g in gradients],
    }
    for argument, expected in clipped.items():
        optimizer = make(**{argument: 0.7})
        variables = train(optimizer, steps=1)
        assert_follows_the_rule(optimizer, variables, [expected])


@clause()
def a_moving_average_is_kept_and_put_in_place(make: Make) -> None:
    first, second = numpy(train(make(), steps=1)), numpy(train(make(), steps=2))
    optimizer = make(use_ema=True, ema_momentum=0.8)
    variables = train(optimizer, steps=2)
    assert_close(numpy(variables), second)
    optimizer.finalize_variable_values(variables)
    expected = [0.8 * f + 0.2 * s for f, s in zip(first, second, strict=True)]
    assert_close(numpy(variables), expected)
    optimizer = make(use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=2)
    assert_close(numpy(train(optimizer, steps=2)), expected)


@clause()
def gradients_are_accumulated(make: Make) -> None:
    optimizer = make(gradient_accumulation_steps=2)
    variables = make_variables()
    first, second = make_gradients(0), make_gradients(1)
    optimizer.build(variables)
    before = snapshot(optimizer, variables)
    apply(optimizer, first, variables)
    assert_equal(snapshot(optimizer, variables), before)
    apply(optimizer, second, variables)
    mean = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    assert_follows_the_rule(optimizer, variables, [mean])


@clause()
def a_loss_scale_is_taken_out_first(make: Make) -> None:
    variables = make_variables()
    optimizer = make(loss_scale_factor=8.0)
    optimizer.apply(tensors([8 * g for g in make_gradients()]), variables)
    other = make()
    assert_close(snapshot(optimizer, variables), snapshot(other, train(other, steps=1)))


@clause()
def loss_scaling_skips_non_finite_steps(make: Make) -> None:
    inner = make()
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=4.0)
    variables = make_variables()
    apply(optimizer, [4 * g for g in make_gradients(0)], variables)
    gradients = make_gradients(1)
    gradients[2][0] = np.inf
    before = snapshot(inner, variables)
    apply(optimizer, gradients, variables)
    assert_equal(snapshot(inner, variables), before)
    assert inner.skipped_steps == 0  # Keras counted it, and halved its scale.
    other = make()
    assert_close(before, snapshot(other, train(other, steps=1)))


@clause()
def non_finite_gradients_change_nothing(make: Make) -> None:
    for bad in (np.nan, np.inf, -np.inf, 1e38):  # The last one's square is not finite.
        optimizer = make()
        variables = train(optimizer, steps=1)
        before = snapshot(optimizer, variables)
        gradients = make_gradients(1)
        gradients[2][1] = bad
        optimizer.apply(tensors(gradients), variables)
        assert_equal(snapshot(optimizer, variables), before)
        assert optimizer.skipped_steps == 1
        # And the next step is as if nothing had been.
        optimizer.apply(tensors(make_gradients(1)), variables)
        other = make()
        assert_close(snapshot(optimizer, variables), snapshot(other, train(other, steps=2)))
        assert optimizer.skipped_steps == 1


@clause()
def runaway_gradients_are_skipped_until_they_prove_usual(make: Make) -> None:
    optimizer = make(runaway_factor=100.0)
    variables = train(optimizer, steps=1)
    before = snapshot(optimizer, variables)
    large = [1e4 * g for g in make_gradients(1)]
    optimizer.apply(tensors(large), variables)
    optimizer.apply(tensors(large), variables)
    assert_equal(snapshot(optimizer, variables), before)
    assert optimizer.skipped_steps == 2
    optimizer.apply(tensors(large), variables)  # The norm that is usual grew tenfold, twice.
    assert optimizer.skipped_steps == 2
    assert not np.array_equal(numpy(variables)[0], before[0])

    tolerant = make(runaway_factor=None)
    variables = train(tolerant, steps=1)
    tolerant.apply(tensors(large), variables)
    assert tolerant.skipped_steps == 0


@clause(elementwise=True)
def a_missing_gradient_leaves_variable_and_state_alone(make: Make) -> None:
    for missing in ({1}, {0, 3}):
        optimizer = make()
        variables = train(optimizer, steps=2)
        before = numpy(variables), states(optimizer, variables)
        gradients = [None if i in missing else g for i, g in enumerate(make_gradients(2))]
        with pytest.warns(UserWarning, match="Gradients do not exist"):
            optimizer.apply(tensors(gradients), variables)
        complete = make()
        moved = train(complete, steps=3)
        after = numpy(moved), states(complete, moved)
        now = numpy(variables), states(optimizer, variables)
        for was, is_now, full in zip(before, now, after, strict=True):
            for i in range(len(SHAPES)):
                if i in missing:
                    np.testing.assert_array_equal(is_now[i], was[i])
                else:
                    assert_close([is_now[i]], [full[i]])


@clause(elementwise=True)
def variables_come_in_any_order_and_number(make: Make) -> None:
    # Of one shape: a gradient of another variable fits, and gives other values.
    shapes = [(2, 3)] * 4
    gradients = tensors(make_gradients(shapes=shapes))
    optimizer, variables = make(), make_variables(shapes=shapes)
    optimizer.build(variables)
    pairs = list(zip(gradients, variables, strict=True))
    optimizer.apply_gradients([pairs[2], pairs[0]])
    optimizer.apply_gradients([pairs[3], pairs[1]])
    other, others = make(), make_variables(shapes=shapes)
    other.apply(gradients, others)
    assert_close(snapshot(optimizer, variables), snapshot(other, others))


@clause()
def an_unknown_variable_is_refused(make: Make) -> None:
    optimizer = make()
    train(optimizer, steps=1)
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply(tensors(make_gradients()), make_variables())


@clause()
def building_twice_builds_once(make: Make) -> None:
    optimizer = make()
    variables = make_variables()
    optimizer.build(variables)
    identities = [id(v) for v in optimizer.variables]
    optimizer.build(variables)
    assert [id(v) for v in optimizer.variables] == identities
    assert len(set(identities)) == len(identities)


@clause()
def nothing_of_the_optimizer_is_trainable(make: Make) -> None:
    optimizer = make()
    train(optimizer, steps=1)
    assert not any(v.trainable for v in optimizer.variables)
    assert {id(w) for w in rule_of(optimizer).weights} <= {id(v) for v in optimizer.variables}


@clause()
def steps_are_computed_in_float32(make: Make) -> None:
    precision = {"float16": 1e-3, "bfloat16": 8e-3, "float64": 1e-6}
    for dtype in ("float16", "bfloat16", "float64"):
        if BACKEND == "jax" and dtype == "float64":
            continue  # JAX has no float64 unless told to.
        optimizer = make()
        gradients = [ops.cast(ops.convert_to_tensor(g), dtype) for g in make_gradients()]
        variables = make_variables(dtype)
        optimizer.apply(gradients, variables)
        assert {v.dtype for v in variables} == {dtype}
        in_float32 = numpy(ops.cast(g, "float32") for g in gradients)
        values, rule_states = by_the_rule(rule_of(optimizer), [in_float32])
        state = optimizer.state_of(variables[0])
        assert keras.backend.standardize_dtype(state.dtype) == "float32"
        assert_close(numpy([state]), rule_states[:1], **tolerance(optimizer))
        actual = numpy(ops.cast(v, "float32") for v in variables)
        assert_close(actual, values, rtol=precision[dtype])


@clause()
def the_state_is_float32_whatever_keras_defaults_to(make: Make) -> None:
    keras.config.set_floatx("float16")
    try:
        optimizer = make()
        variables = make_variables("float16")
        optimizer.build(variables)
    finally:
        keras.config.set_floatx("float32")
    kept = [optimizer.state_of(variables[0]), *rule_of(optimizer).weights]
    assert {keras.backend.standardize_dtype(v.dtype) for v in kept} == {"float32"}


@clause(elementwise=True)
def a_variable_overwritten_with_its_gradient_has_no_state(make: Make) -> None:
    optimizer, other = make(), make()
    variables, gradients = make_variables(), make_gradients()
    variables[2].overwrite_with_gradient = True
    optimizer.apply(tensors(gradients), variables)
    with pytest.raises(ValueError, match="No rule updates the variable"):
        optimizer.state_of(variables[2])
    expected = numpy(train(other, steps=1))
    expected[2] = gradients[2]
    assert_close(numpy(variables), expected)


@clause()
def a_constraint_holds_after_the_update(make: Make) -> None:
    layer = keras.layers.Dense(3, kernel_constraint=keras.constraints.UnitNorm())
    layer.build((None, 2))
    make().apply(tensors(make_gradients(0, [(2, 3), (3,)])), layer.trainable_variables)
    assert_close([np.linalg.norm(numpy([layer.kernel])[0], axis=0)], [np.ones(3)])


@clause(arithmetic=True)
def states_in_bfloat16_follow_those_in_float32(make: Make) -> None:
    """Within 3 % of how far the variables have moved, after ten steps."""
    shapes = [(40, 30), (30,)]
    results = []
    for dtype in ("float32", "bfloat16"):
        optimizer, variables = make(state_dtype=dtype), make_variables(shapes=shapes)
        for step in range(10):
            optimizer.apply(tensors(make_gradients(step, shapes)), variables)
        results.append(np.concatenate([v.ravel() for v in numpy(variables)]))
        sizes = {v.dtype for v in optimizer.variables if "/state_" in v.path}
        assert sizes == {"float32" if dtype == "float32" else "int16"}
    moved = np.linalg.norm(results[0] - 1.0)
    assert moved > 0.1
    assert np.linalg.norm(results[1] - results[0]) < 0.03 * moved


@clause("jax", "torch")
def a_step_may_be_stateless(make: Make) -> None:
    optimizer, stateful = make(), make()
    variables = make_variables()
    optimizer.build(variables)
    before = numpy(variables), numpy(optimizer.variables)
    values, state = optimizer.stateless_apply(
        [ops.copy(v.value) for v in optimizer.variables],
        tensors(make_gradients()),
        [ops.copy(v.value) for v in variables],
    )
    assert_equal(numpy(variables), before[0])
    assert_equal(numpy(optimizer.variables), before[1])
    expected = numpy(train(stateful, steps=1)) + numpy(stateful.variables)
    assert_close(numpy(values + state), expected)


@clause("tensorflow")
def tf_variables_are_variables(make: Make) -> None:
    import tensorflow as tf

    optimizer, other = make(), make()
    variables = [tf.Variable(np.ones(shape, "float32")) for shape in SHAPES]
    for step in range(2):
        pairs = zip(tensors(make_gradients(step)), variables, strict=True)
        optimizer.apply_gradients(pairs)
    assert_close(snapshot(optimizer, variables), snapshot(other, train(other, steps=2)))


@clause("tensorflow")
def repeated_rows_of_a_sparse_gradient_are_summed_first(make: Make) -> None:
    import tensorflow as tf

    values = np.array([[1.0, -2.0], [3.0, 0.5], [-0.9, 2.0]], "float32")
    indices = np.array([1, 3, 1])
    dense = np.zeros((5, 2), "float32")
    np.add.at(dense, indices, values)
    updated = []
    for gradient in (
        tf.IndexedSlices(tf.constant(values), tf.constant(indices)),
        tf.IndexedSlices(tf.constant(values), tf.constant(indices), tf.constant((5, 2))),
        tf.constant(dense),
    ):
        optimizer, variable = make(), keras.Variable(np.ones((5, 2)))
        optimizer.apply([gradient], [variable])
        optimizer.update_step(gradient, variable, 1.0)
        updated.append(snapshot(optimizer, [variable]))
    assert_close(updated[0], updated[2])
    assert_close(updated[1], updated[2])
