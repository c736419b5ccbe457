"""Tests of `LearnedOptimizer`: its updates, what Keras promises around them, and saving.

All but the tests marked for TensorFlow hold on every Keras backend.
"""

import copy
import json
import pickle
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import ops

from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.rules import CoordinatewiseLSTM, UpdateRule

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf

tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="Needs TensorFlow.")

SHAPES = [(2, 3), (), (4,), (1, 2, 2)]
# float32 sums in another order.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-7}


@keras.saving.register_keras_serializable(package="l2l_keras_tests")
class GradientDescent(UpdateRule):
    """A rule whose updates need no computing by hand; it has a state or none."""

    def __init__(self, rate=0.5, rows=(), name=None):
        super().__init__(name=name)
        self.rate, self.rows = rate, tuple(rows)
        self.built = True

    @property
    def state_rows(self):
        return self.rows

    def step(self, gradient, state):
        return -self.rate * gradient, tuple(part + gradient for part in state)

    def get_config(self):
        return {"rate": self.rate, "rows": list(self.rows), "name": self.name}


def lstm(seed=0, **arguments):
    """A small rule with updates large enough to tell apart."""
    return CoordinatewiseLSTM(units=(4, 3), seed=seed, output_scale=1.0, **arguments)


def make_variables(dtype="float32"):
    return [
        keras.Variable(np.ones(shape), dtype=dtype, name=f"variable_{i}")
        for i, shape in enumerate(SHAPES)
    ]


def make_gradients(step=0, shapes=SHAPES):
    random = np.random.default_rng(step)
    return [random.normal(size=shape).astype("float32") for shape in shapes]


def tensors(gradients):
    return [None if g is None else ops.convert_to_tensor(g) for g in gradients]


def numpy(variables):
    return [np.asarray(variable) for variable in variables]


def assert_all_close(actual, expected, **tolerance):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, **(tolerance or TOLERANCE))


def assert_all_equal(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)


def train(optimizer, steps=3, dtype="float32"):
    """Returns variables after some steps on fixed gradients."""
    variables = make_variables(dtype)
    for step in range(steps):
        optimizer.apply(tensors(make_gradients(step)), variables)
    return variables


def apply(optimizer, gradients, variables):
    """Applies gradients; on JAX, where conditions cannot assign, without side effects."""
    if BACKEND != "jax":
        optimizer.apply(tensors(gradients), variables)
        return
    optimizer.build(variables)
    values, state = optimizer.stateless_apply(
        [v.value for v in optimizer.variables], tensors(gradients), [v.value for v in variables]
    )
    for variable, value in zip(variables + optimizer.variables, values + state, strict=True):
        variable.assign(value)


def slots(optimizer):
    return [v for v in optimizer.variables if v.path.endswith("_state")]


class TestUpdates:
    def test_are_those_of_the_rule(self):
        rule = lstm()
        actual = numpy(train(LearnedOptimizer(rule), steps=3))
        expected = [np.ones(shape, "float32") for shape in SHAPES]
        states = [rule.initial_state(value.size) for value in expected]
        for step in range(3):
            for i, gradient in enumerate(make_gradients(step)):
                update, states[i] = rule.step(ops.convert_to_tensor(gradient.ravel()), states[i])
                expected[i] = expected[i] + ops.convert_to_numpy(update).reshape(SHAPES[i])
        assert_all_close(actual, expected)
        assert all(np.abs(value - 1.0).min() > 1e-3 for value in actual)

    def test_state_is_the_rule_s_row_by_row(self):
        rule = lstm()
        optimizer = LearnedOptimizer(rule)
        train(optimizer, steps=1)
        for slot, gradient in zip(slots(optimizer), make_gradients(), strict=True):
            _, state = rule.step(
                ops.convert_to_tensor(gradient.ravel()), rule.initial_state(gradient.size)
            )
            expected = ops.convert_to_numpy(ops.concatenate(state))
            np.testing.assert_allclose(
                numpy([slot])[0], expected.reshape(14, *gradient.shape), **TOLERANCE
            )

    def test_one_variable_at_a_time_is_the_same(self):
        batched, one_by_one = LearnedOptimizer(lstm()), LearnedOptimizer(lstm())
        expected = train(batched)
        variables = make_variables()
        one_by_one.build(variables)
        for step in range(3):
            for gradient, variable in zip(tensors(make_gradients(step)), variables, strict=True):
                one_by_one.update_step(gradient, variable, 1.0)
        assert_all_close(numpy(variables), numpy(expected))
        assert_all_close(numpy(slots(one_by_one)), numpy(slots(batched)))

    def test_learning_rate_is_their_factor(self):
        whole = numpy(train(LearnedOptimizer(lstm()), steps=1))
        half = numpy(train(LearnedOptimizer(lstm(), learning_rate=0.5), steps=1))
        assert_all_close([h - 1.0 for h in half], [0.5 * (w - 1.0) for w in whole], atol=1e-6)

    def test_learning_rate_may_follow_a_schedule(self):
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [1.0, 0.1, 0.0])
        variables = train(LearnedOptimizer(GradientDescent(), learning_rate=schedule))
        first, second, _ = (make_gradients(step) for step in range(3))
        assert_all_close(
            numpy(variables),
            [1.0 - 0.5 * (a + 0.1 * b) for a, b in zip(first, second, strict=True)],
        )

    def test_learning_rate_may_be_set(self):
        optimizer = LearnedOptimizer(GradientDescent())
        optimizer.learning_rate = 0.1
        assert_all_close(
            numpy(train(optimizer, steps=1)), [1.0 - 0.05 * g for g in make_gradients()]
        )

    @pytest.mark.parametrize("rows", [(), (2,), (1, 3)])
    def test_a_rule_may_have_any_state(self, rows):
        optimizer = LearnedOptimizer(GradientDescent(rows=rows))
        variables = train(optimizer, steps=2)
        gradients = [a + b for a, b in zip(make_gradients(0), make_gradients(1), strict=True)]
        assert_all_close(numpy(variables), [1.0 - 0.5 * g for g in gradients])
        assert_all_close(
            numpy(slots(optimizer)),
            [np.stack([g] * sum(rows) or [g])[: sum(rows)] for g in gradients],
        )

    @pytest.mark.parametrize("missing", [{1}, {0, 3}])
    def test_a_missing_gradient_leaves_variable_and_state_alone(self, missing):
        optimizer = LearnedOptimizer(lstm())
        variables = train(optimizer, steps=2)
        before = numpy(variables), numpy(slots(optimizer))
        gradients = [None if i in missing else g for i, g in enumerate(make_gradients(2))]
        with pytest.warns(UserWarning, match="Gradients do not exist"):
            optimizer.apply(tensors(gradients), variables)
        complete = LearnedOptimizer(lstm())
        after = numpy(train(complete, steps=3)), numpy(slots(complete))
        for was, now, moved in zip(
            before, (numpy(variables), numpy(slots(optimizer))), after, strict=True
        ):
            for i in range(len(SHAPES)):
                np.testing.assert_allclose(now[i], (was if i in missing else moved)[i], **TOLERANCE)
                assert i not in missing or np.array_equal(now[i], was[i])

    def test_variables_come_in_any_order_and_number(self):
        optimizer = LearnedOptimizer(lstm())
        variables = make_variables()
        optimizer.build(variables)
        pairs = list(zip(tensors(make_gradients()), variables, strict=True))
        optimizer.apply_gradients([pairs[2], pairs[0]])
        optimizer.apply_gradients([pairs[3], pairs[1]])
        assert_all_close(numpy(variables), numpy(train(LearnedOptimizer(lstm()), steps=1)))

    def test_an_unknown_variable_is_refused(self):
        optimizer = LearnedOptimizer(lstm())
        train(optimizer, steps=1)
        with pytest.raises(ValueError, match="Unknown variable"):
            optimizer.apply(tensors(make_gradients()), make_variables())

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
    def test_are_computed_in_float32(self, dtype):
        if BACKEND == "jax" and dtype == "float64":
            pytest.skip("JAX has no float64 unless told to.")
        optimizer = LearnedOptimizer(lstm())
        gradients = [ops.cast(ops.convert_to_tensor(g), dtype) for g in make_gradients()]
        variables = make_variables(dtype)
        optimizer.apply(gradients, variables)
        assert {v.dtype for v in variables} == {dtype}
        assert {v.dtype for v in slots(optimizer)} == {"float32"}

        in_float32 = LearnedOptimizer(lstm())
        expected = make_variables()
        in_float32.apply([ops.cast(g, "float32") for g in gradients], expected)
        assert_all_close(numpy(slots(optimizer)), numpy(slots(in_float32)))
        precision = {"float16": 1e-3, "bfloat16": 8e-3, "float64": 1e-6}[dtype]
        actual = [ops.convert_to_numpy(ops.cast(v, "float32")) for v in variables]
        assert_all_close(actual, numpy(expected), rtol=precision)

    def test_state_is_float32_whatever_keras_defaults_to(self):
        keras.config.set_floatx("float16")
        try:
            optimizer = LearnedOptimizer(lstm())
            optimizer.build(make_variables("float16"))
        finally:
            keras.config.set_floatx("float32")
        assert {v.dtype for v in [*slots(optimizer), *optimizer.rule.weights]} == {"float32"}

    def test_a_variable_overwritten_with_its_gradient_has_no_state(self):
        optimizer = LearnedOptimizer(lstm())
        variables = make_variables()
        variables[2].overwrite_with_gradient = True
        gradients = make_gradients()
        optimizer.apply(tensors(gradients), variables)
        assert len(slots(optimizer)) == 3
        expected = numpy(train(LearnedOptimizer(lstm()), steps=1))
        expected[2] = gradients[2]
        assert_all_close(numpy(variables), expected)

    @pytest.mark.skipif(BACKEND == "tensorflow", reason="Not offered by Keras on TensorFlow.")
    def test_may_be_stateless(self):
        optimizer = LearnedOptimizer(lstm())
        variables = make_variables()
        optimizer.build(variables)
        before = numpy(variables), numpy(optimizer.variables)
        values, state = optimizer.stateless_apply(
            [ops.copy(v.value) for v in optimizer.variables],
            tensors(make_gradients()),
            [ops.copy(v.value) for v in variables],
        )
        assert_all_equal(numpy(variables), before[0])
        assert_all_equal(numpy(optimizer.variables), before[1])
        stateful = LearnedOptimizer(lstm())
        expected = numpy(train(stateful, steps=1)) + numpy(stateful.variables)
        assert_all_close([ops.convert_to_numpy(value) for value in values + state], expected)


class TestConstruction:
    def test_anything_but_a_rule_is_refused(self):
        with pytest.raises(ValueError, match="from_preset.*Received: rule='adam'"):
            LearnedOptimizer("adam")

    def test_building_twice_builds_once(self):
        optimizer = LearnedOptimizer(lstm())
        variables = make_variables()
        optimizer.build(variables)
        count = len(optimizer.variables)
        optimizer.build(variables)
        assert len(optimizer.variables) == count

    def test_slots_have_the_shape_of_their_variable(self):
        optimizer = LearnedOptimizer(lstm())
        optimizer.build(make_variables())
        assert [tuple(slot.shape) for slot in slots(optimizer)] == [(14, *s) for s in SHAPES]
        assert not any(v.trainable for v in optimizer.variables)

    def test_works_on_a_copy_of_the_rule(self):
        rule = lstm()
        optimizer = LearnedOptimizer(rule)
        expected = rule.get_weights()
        assert_all_equal(optimizer.rule.get_weights(), expected)
        rule.set_weights([np.zeros_like(w) for w in expected])
        assert_all_equal(optimizer.rule.get_weights(), expected)
        assert rule.trainable and len(rule.trainable_variables) == len(expected)

    def test_weights_of_the_rule_are_variables_of_the_optimizer(self):
        optimizer = LearnedOptimizer(lstm())
        identities = [id(v) for v in optimizer.variables]
        assert len(identities) == len(set(identities))
        assert {id(w) for w in optimizer.rule.weights} <= set(identities)


class TestBaseArguments:
    """The base class acts around the update: on gradients before, on variables after it."""

    @pytest.mark.parametrize("argument", ["clipvalue", "clipnorm", "global_clipnorm"])
    def test_clipping(self, argument):
        optimizer = LearnedOptimizer(GradientDescent(), **{argument: 0.7})
        gradients = make_gradients()
        norms = [np.linalg.norm(g) for g in gradients]
        if argument == "clipvalue":
            expected = [np.clip(g, -0.7, 0.7) for g in gradients]
        elif argument == "clipnorm":
            expected = [g * min(1, 0.7 / n) for g, n in zip(gradients, norms, strict=True)]
        else:
            expected = [g * 0.7 / np.linalg.norm(norms) for g in gradients]
        assert_all_close(numpy(train(optimizer, steps=1)), [1.0 - 0.5 * g for g in expected])

    def test_weight_decay(self):
        optimizer = LearnedOptimizer(GradientDescent(), learning_rate=0.5, weight_decay=0.2)
        expected = [0.9 - 0.25 * g for g in make_gradients()]
        assert_all_close(numpy(train(optimizer, steps=1)), expected)

    def test_loss_scale_factor(self):
        optimizer = LearnedOptimizer(lstm(), loss_scale_factor=8.0)
        variables = make_variables()
        optimizer.apply(tensors([8 * g for g in make_gradients()]), variables)
        assert_all_close(numpy(variables), numpy(train(LearnedOptimizer(lstm()), steps=1)))

    def test_gradient_accumulation(self):
        optimizer = LearnedOptimizer(lstm(), gradient_accumulation_steps=2)
        variables = make_variables()
        first, second = make_gradients(0), make_gradients(1)
        optimizer.apply(tensors(first), variables)
        assert_all_equal(numpy(variables), [np.ones(shape) for shape in SHAPES])
        assert_all_equal(numpy(slots(optimizer)), [np.zeros((14, *shape)) for shape in SHAPES])
        optimizer.apply(tensors(second), variables)

        at_once = LearnedOptimizer(lstm())
        expected = make_variables()
        mean = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
        at_once.apply(tensors(mean), expected)
        assert_all_close(numpy(variables), numpy(expected))
        assert_all_close(numpy(slots(optimizer)), numpy(slots(at_once)))

    def test_moving_average(self):
        optimizer = LearnedOptimizer(GradientDescent(), use_ema=True, ema_momentum=0.8)
        variables = train(optimizer, steps=2)
        first, second = make_gradients(0), make_gradients(1)
        expected = [1.0 - 0.5 * a - 0.2 * 0.5 * b for a, b in zip(first, second, strict=True)]
        optimizer.finalize_variable_values(variables)
        assert_all_close(numpy(variables), expected)

    def test_a_non_finite_gradient_is_skipped_under_loss_scaling(self):
        inner = LearnedOptimizer(lstm())
        optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=4.0)
        variables = make_variables()
        apply(optimizer, [4 * g for g in make_gradients(0)], variables)
        gradients = make_gradients(1)
        gradients[2][0] = np.inf
        before = numpy(variables), numpy(slots(inner))
        apply(optimizer, gradients, variables)
        assert_all_equal(numpy(variables), before[0])
        assert_all_equal(numpy(slots(inner)), before[1])
        assert_all_close(before[0], numpy(train(LearnedOptimizer(lstm()), steps=1)))


def regression_data():
    random = np.random.default_rng(0)
    x = random.normal(size=(8, 3)).astype("float32")
    return x, x @ np.array([[1.0], [-2.0], [0.5]], "float32")


def regression_model(optimizer=None, seed=0, **compile_arguments):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]
    )
    if optimizer is not None:
        model.compile(optimizer, "mse", **compile_arguments)
    return model


def fit(model, steps, data=None):
    """Trains for some steps, each on all data; returns the loss before each."""
    x, y = data or regression_data()
    history = model.fit(x, y, batch_size=len(x), epochs=steps, shuffle=False, verbose=0)
    return history.history["loss"]


class TestTraining:
    def test_fit_descends(self):
        losses = fit(regression_model(LearnedOptimizer(GradientDescent(0.1))), 10)
        assert losses[-1] < 0.5 * losses[0]

    @pytest.mark.skipif(BACKEND == "torch", reason="torch.compile is Keras's to test.")
    def test_eager_graph_and_xla_agree(self):
        weights = []
        for arguments in ({"run_eagerly": True}, {"jit_compile": False}, {"jit_compile": True}):
            model = regression_model(LearnedOptimizer(lstm()), **arguments)
            fit(model, 4)
            weights.append(model.get_weights() + numpy(slots(model.optimizer)))
        assert_all_close(weights[1], weights[0], rtol=1e-5, atol=1e-6)
        assert_all_close(weights[2], weights[0], rtol=1e-5, atol=1e-6)
        assert np.abs(weights[0][0] - regression_model().get_weights()[0]).max() > 1e-3

    @pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
    def test_fit_in_low_precision(self, policy):
        keras.config.set_dtype_policy(policy)
        try:
            model = regression_model(LearnedOptimizer(GradientDescent(0.1, rows=(1,))))
            losses = fit(model, 10)
        finally:
            keras.config.set_dtype_policy("float32")
        assert losses[-1] < 0.5 * losses[0]
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        assert isinstance(optimizer, LearnedOptimizer)
        assert {v.dtype for v in slots(optimizer)} == {"float32"}

    def test_an_embedding_is_trained_as_the_product_that_it_stands_for(self):
        """A sparse gradient with repeated rows, and rows that have none."""
        tokens = np.array([[0, 2], [2, 2], [4, 0]])
        y = np.array([[1.0], [-1.0], [2.0]], "float32")
        table = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
        weights = []
        for layer, x in (
            (keras.layers.Embedding(5, 2), tokens),
            (keras.layers.Dense(2, use_bias=False), np.eye(5, dtype="float32")[tokens]),
        ):
            model = keras.Sequential(
                [keras.Input(x.shape[1:]), layer, keras.layers.GlobalAveragePooling1D()]
            )
            layer.set_weights([table])
            model.compile(LearnedOptimizer(lstm()), "mse")
            fit(model, 3, (x, y))
            weights.append(model.get_weights() + numpy(slots(model.optimizer)))
        assert_all_close(*weights, rtol=1e-4, atol=1e-6)
        assert np.abs(weights[0][0] - table).min() > 1e-4  # Rows without gradient move, too.


@tensorflow_only
class TestTensorFlow:
    @pytest.mark.parametrize("jit_compile", [None, False, True], ids=["eager", "graph", "xla"])
    def test_a_custom_loop_is_fit(self, jit_compile):
        x, y = regression_data()
        model = regression_model()
        optimizer = LearnedOptimizer(lstm())
        optimizer.build(model.trainable_variables)

        def step():
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x) - y) ** 2)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

        if jit_compile is not None:
            step = tf.function(step, jit_compile=jit_compile)
        for _ in range(3):
            step()
        fitted = regression_model(LearnedOptimizer(lstm()), run_eagerly=True)
        fit(fitted, 3)
        assert_all_close(model.get_weights(), fitted.get_weights(), rtol=1e-5, atol=1e-6)
        assert int(optimizer.iterations) == 3

    @pytest.mark.parametrize("dense_shape", [None, (5, 2)])
    def test_repeated_rows_of_a_sparse_gradient_are_summed(self, dense_shape):
        values = np.array([[1.0, -2.0], [3.0, 0.5], [-0.9, 2.0]], "float32")
        indices = np.array([1, 3, 1])
        dense = np.zeros((5, 2), "float32")
        np.add.at(dense, indices, values)
        shape = None if dense_shape is None else tf.constant(dense_shape)
        updated = []
        for gradient in (tf.IndexedSlices(values, indices, shape), tf.constant(dense)):
            optimizer, variable = LearnedOptimizer(lstm()), keras.Variable(np.ones((5, 2)))
            optimizer.build([variable])
            optimizer.update_step(gradient, variable, 1.0)
            updated.append(numpy([variable, *slots(optimizer)]))
        assert_all_close(*updated)

    def test_the_graph_holds_one_lstm_however_many_variables_there_are(self):
        def operations(count):
            variables = [keras.Variable(np.ones((2, 2))) for _ in range(count)]
            optimizer = LearnedOptimizer(lstm())
            optimizer.build(variables)
            step = tf.function(lambda: optimizer.apply([tf.ones((2, 2))] * count))
            graph = step.get_concrete_function().graph.as_graph_def()
            # The rule is a compiled function of its own.
            nodes = [node for function in graph.library.function for node in function.node_def]
            return [node.op for node in (*graph.node, *nodes)]

        few, many = operations(1), operations(10)
        assert few.count("MatMul") == many.count("MatMul") == 3
        assert len(many) < len(few) + 9 * 40

    def test_a_strategy_mirrors_rule_and_state(self):
        strategy = tf.distribute.MirroredStrategy(["CPU:0"])
        with strategy.scope():
            model = regression_model(LearnedOptimizer(lstm()))
        fit(model, 3)
        expected = regression_model(LearnedOptimizer(lstm()))
        fit(expected, 3)
        assert_all_close(model.get_weights(), expected.get_weights(), rtol=1e-5, atol=1e-6)
        mirrored = model.optimizer.rule.weights + slots(model.optimizer)
        assert all(isinstance(v.value, tf.distribute.DistributedValues) for v in mirrored)

    def test_two_replicas_take_the_step_of_one(self):
        # In a process of its own: TensorFlow splits a CPU only before its first use.
        program = """
import keras, numpy as np, tensorflow as tf
from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.rules import CoordinatewiseLSTM

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
results = []
for shares in ({"CPU:0": 1.0}, {"CPU:0": 0.25, "CPU:1": 0.75}):
    strategy = tf.distribute.MirroredStrategy(list(shares))
    with strategy.scope():
        variables = [keras.Variable(np.ones((5, 2))), keras.Variable(np.ones(3))]
        rule = CoordinatewiseLSTM(units=(3,), output_scale=1.0, seed=0)
        optimizer = LearnedOptimizer(rule)
        optimizer.build(variables)

    def replica():
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        share = tf.constant(list(shares.values()))[index]
        rows = share * [[1.0, -2.0], [3.0, 0.5], [-0.9, 2.0]]
        sparse = tf.IndexedSlices(rows, tf.constant([1, 3, 1]), tf.constant([5, 2]))
        optimizer.apply([sparse, share * [1.0, 2.0, -3.0]], variables)

    step = tf.function(lambda: strategy.run(replica))
    for _ in range(2):
        step()
    results.append([])
    for v in variables + optimizer.variables:
        copies = [np.asarray(copy) for copy in v.value.values]
        assert len(copies) == len(shares), v.path
        for copy in copies:
            np.testing.assert_array_equal(copy, copies[0], v.path)
        results[-1].append(copies[0])
assert not np.allclose(results[0][0], 1.0)
for one, two in zip(*results, strict=True):
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
"""
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr

    def test_takes_tf_variables(self):
        variables = [tf.Variable(np.ones(shape, "float32")) for shape in SHAPES]
        optimizer = LearnedOptimizer(lstm())
        optimizer.apply_gradients(zip(tensors(make_gradients()), variables, strict=True))
        assert_all_close(numpy(variables), numpy(train(LearnedOptimizer(lstm()), steps=1)))

    def test_a_checkpoint_holds_rule_and_state(self, tmp_path):
        optimizer = LearnedOptimizer(lstm())
        variables = train(optimizer, steps=2)
        path = tf.train.Checkpoint(optimizer=optimizer, v=variables).save(tmp_path / "checkpoint")

        resumed, resumed_variables = LearnedOptimizer(lstm(seed=9)), make_variables()
        resumed.build(resumed_variables)
        status = tf.train.Checkpoint(optimizer=resumed, v=resumed_variables).restore(path)
        status.assert_consumed()
        assert_all_equal(resumed.rule.get_weights(), lstm().get_weights())
        for some, others in ((optimizer, variables), (resumed, resumed_variables)):
            some.apply(tensors(make_gradients(2)), others)
        assert_all_equal(numpy(resumed_variables), numpy(variables))
        assert_all_equal(numpy(resumed.variables), numpy(optimizer.variables))


class TestSaving:
    @pytest.mark.parametrize(
        "arguments",
        [{}, {"gradient_accumulation_steps": 2, "use_ema": True, "clipnorm": 0.5}],
        ids=["plain", "all"],
    )
    @pytest.mark.parametrize("loss_scaling", [False, True], ids=["", "loss_scaling"])
    def test_a_saved_model_resumes_bit_for_bit(self, tmp_path, arguments, loss_scaling):
        def train_on(model):
            # Not `fit`: on JAX, Keras cannot `fit` with `use_ema` a second time, Adam neither.
            for _ in range(3):
                model.train_on_batch(*regression_data())

        optimizer = LearnedOptimizer(lstm(), **arguments)
        if loss_scaling:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        model = regression_model(optimizer)
        train_on(model)
        model.save(tmp_path / "model.keras")
        saved = model.get_weights()
        with warnings.catch_warnings():
            # All that Keras does when it cannot load the state is to warn.
            warnings.simplefilter("error", UserWarning)
            loaded = keras.models.load_model(tmp_path / "model.keras")
        assert_all_equal(numpy(loaded.optimizer.variables), numpy(model.optimizer.variables))
        train_on(loaded)
        train_on(model)
        assert_all_equal(loaded.get_weights(), model.get_weights())
        assert_all_equal(numpy(loaded.optimizer.variables), numpy(model.optimizer.variables))
        assert not np.array_equal(saved[0], model.get_weights()[0])

    def test_weights_are_loaded_into_another_rule(self, tmp_path):
        model = regression_model(LearnedOptimizer(lstm()))
        fit(model, 2)
        model.save_weights(tmp_path / "model.weights.h5")
        rule = lstm(seed=9)
        other = regression_model(LearnedOptimizer(rule), seed=1)
        other.optimizer.build(other.trainable_variables)
        other.load_weights(tmp_path / "model.weights.h5")
        assert_all_equal(other.optimizer.rule.get_weights(), lstm().get_weights())
        assert_all_equal(rule.get_weights(), lstm(seed=9).get_weights())
        assert fit(other, 2) == fit(model, 2)

    @pytest.mark.parametrize(
        "duplicate",
        [
            lambda config: json.loads(json.dumps(config)),
            lambda config: pickle.loads(pickle.dumps(config)),
            copy.deepcopy,
        ],
        ids=["json", "pickle", "deepcopy"],
    )
    def test_a_configuration_gives_the_same_optimizer(self, duplicate):
        arguments = {
            "learning_rate": 0.25,
            "weight_decay": 0.1,
            "clipnorm": 2.0,
            "clipvalue": None,
            "global_clipnorm": None,
            "use_ema": True,
            "ema_momentum": 0.9,
            "ema_overwrite_frequency": 3,
            "loss_scale_factor": 2.0,
            "gradient_accumulation_steps": 2,
            "name": "mine",
        }
        rule = lstm()
        rule.set_weights([w + 0.1 for w in rule.get_weights()])
        optimizer = LearnedOptimizer(rule, **arguments)
        config = duplicate(optimizer.get_config())
        assert {key: config[key] for key in arguments} == arguments
        untouched = copy.deepcopy(config)
        other = LearnedOptimizer.from_config(config)
        assert config == untouched == other.get_config()
        assert_all_equal(other.rule.get_weights(), rule.get_weights())
        assert_all_equal(numpy(train(other)), numpy(train(optimizer)))

    def test_keras_finds_the_class_by_its_registered_name(self):
        schedule = keras.optimizers.schedules.CosineDecay(1.0, 10)
        config = keras.optimizers.serialize(LearnedOptimizer(lstm(), schedule))
        assert config["registered_name"] == "l2l_keras>LearnedOptimizer"
        optimizer = keras.optimizers.deserialize(config)
        assert isinstance(optimizer, LearnedOptimizer)
        assert_all_equal(optimizer.rule.get_weights(), lstm().get_weights())
        assert optimizer.get_config()["learning_rate"]["class_name"] == "CosineDecay"

    def test_weights_of_another_rule_are_refused(self):
        config = LearnedOptimizer(lstm()).get_config()
        config["rule"]["config"]["units"] = [4, 4]
        with pytest.raises(ValueError, match="must be 2.. numbers. Received: 2.. numbers"):
            LearnedOptimizer.from_config(config)

    def test_a_preset_gives_the_same_updates(self, tmp_path):
        rule = lstm()
        rule.set_weights([w + 0.1 for w in rule.get_weights()])
        LearnedOptimizer(rule).save_to_preset(tmp_path / "mine")
        optimizer = LearnedOptimizer.from_preset(tmp_path / "mine", learning_rate=0.5, name="x")
        expected = LearnedOptimizer(rule, learning_rate=0.5)
        assert_all_equal(numpy(train(optimizer)), numpy(train(expected)))
        assert optimizer.name == "x"

    def test_a_preset_has_a_card(self, tmp_path):
        optimizer = LearnedOptimizer(lstm())
        optimizer.save_to_preset(tmp_path / "mine")
        assert json.loads((tmp_path / "mine" / "card.json").read_text()) == {"name": "mine"}
        optimizer.save_to_preset(tmp_path / "mine", {"task": "quadratic"})
        assert json.loads((tmp_path / "mine" / "card.json").read_text()) == {"task": "quadratic"}


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
