"""Clauses about training: `fit`, custom loops, callbacks, models of several parts."""

from typing import Any

import keras
import numpy as np

from tests.contract.harness import (
    BACKEND,
    Make,
    assert_close,
    assert_equal,
    assert_moved,
    clause,
    fit,
    make_gradients,
    numpy,
    of_the_rule,
    regression_data,
    regression_model,
    rule_of,
    snapshot,
    tensors,
)


def graph_modes() -> list[dict[str, bool]]:
    """Arguments of `compile` for every way in which the backend runs a step."""
    if BACKEND == "torch":
        return [{"run_eagerly": True}, {"run_eagerly": False}]
    return [{"run_eagerly": True}, {"jit_compile": False}, {"jit_compile": True}]


@clause()
def eager_graph_and_xla_agree(make: Make) -> None:
    results = []
    for arguments in graph_modes():
        model = regression_model(make(), **arguments)
        fit(model, 4)
        results.append(snapshot(model.optimizer, model.trainable_variables))
    for result in results[1:]:
        assert_close(result, results[0])
    start = regression_model().get_weights()
    assert_moved(results[0][:2], start[:2])


@clause()
def callbacks_change_the_learning_rate(make: Make) -> None:
    model = regression_model(make())
    fit(model, 1, callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.25)])
    assert float(model.optimizer.learning_rate) == 0.25
    own = of_the_rule(model.optimizer, model.trainable_variables)
    before = numpy(own)
    fit(model, 1, callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.0)])
    assert_equal(numpy(own), before)

    model = regression_model(make(learning_rate=0.5))
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)
    fit(model, 3, callbacks=[plateau])
    assert float(model.optimizer.learning_rate) == 0.125


@clause()
def models_train_in_low_precision(make: Make) -> None:
    for policy in ("mixed_float16", "mixed_bfloat16", "bfloat16"):
        keras.config.set_dtype_policy(policy)
        try:
            model = regression_model(make(learning_rate=0.1))
            before = numpy(keras.ops.cast(w, "float32") for w in model.weights)
            losses = fit(model, 3)
        finally:
            keras.config.set_dtype_policy("float32")
        assert np.all(np.isfinite(losses))
        after = numpy(keras.ops.cast(w, "float32") for w in model.weights)
        assert not np.array_equal(after[0], before[0])
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        assert (optimizer is not model.optimizer) == (policy == "mixed_float16")
        state = optimizer.state_of(model.trainable_variables[0])
        assert keras.backend.standardize_dtype(state.dtype) == "float32"


class _Product(keras.layers.Layer):
    """A product with an array that is named as an embedding's, which rules may know it by."""

    def build(self, input_shape: tuple[int, ...]) -> None:
        self.table = self.add_weight(shape=(input_shape[-1], 2), name="embeddings")

    def call(self, x: Any) -> Any:
        return x @ self.table


@clause()
def an_embedding_is_trained_as_the_product_that_it_stands_for(make: Make) -> None:
    """A sparse gradient with repeated rows, and rows that have none."""
    tokens = np.array([[0, 2], [2, 2], [4, 0]])
    y = np.array([[1.0], [-1.0], [2.0]], "float32")
    table = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    results = []
    for layer, x in (
        (keras.layers.Embedding(5, 2), tokens),
        (_Product(), np.eye(5, dtype="float32")[tokens]),
    ):
        model = keras.Sequential(
            [keras.Input(x.shape[1:]), layer, keras.layers.GlobalAveragePooling1D()]
        )
        layer.set_weights([table])
        model.compile(make(), "mse")
        fit(model, 3, (x, y))
        results.append(snapshot(model.optimizer, model.trainable_variables))
    assert_close(*results, rtol=1e-4, atol=1e-6)


@clause()
def nested_and_shared_layers_train_as_flat_ones(make: Make) -> None:
    x, y = regression_data()

    def build(nested: bool) -> keras.Model:
        keras.utils.set_random_seed(1)
        inputs = keras.Input((3,))
        shared = keras.layers.Dense(3, "tanh")
        head = keras.layers.Dense(1)
        if nested:
            inner_inputs = keras.Input((3,))
            inner = keras.Model(inner_inputs, shared(shared(inner_inputs)))
            outputs = keras.Sequential([keras.Input((3,)), head])(inner(inputs))
        else:
            outputs = head(shared(shared(inputs)))
        model = keras.Model(inputs, outputs)
        model.compile(make(), "mse")
        return model

    models = [build(nested=True), build(nested=False)]
    for model in models:
        fit(model, 3, (x, y))
    first, second = (snapshot(m.optimizer, m.trainable_variables) for m in models)
    assert_close(first, second)
    assert len(models[0].trainable_variables) == 4


@clause(elementwise=True)
def two_optimizers_may_share_a_model(make: Make) -> None:
    model, alone = regression_model(), regression_model()
    variables, expected = model.trainable_variables, alone.trainable_variables
    parts = [(make(), variables[:2]), (make(), variables[2:])]
    whole = make()
    for step in range(2):
        gradients = tensors(make_gradients(step, [tuple(v.shape) for v in variables]))
        for optimizer, part in parts:
            places = [i for i, v in enumerate(variables) if any(v is p for p in part)]
            optimizer.apply([gradients[i] for i in places], part)
        whole.apply(gradients, expected)
    assert_close(numpy(variables), numpy(expected))


@clause()
def frozen_layers_stay(make: Make) -> None:
    model = regression_model()
    model.layers[0].trainable = False
    model.compile(make(), "mse")
    before = model.get_weights()
    fit(model, 2)
    assert_equal(model.get_weights()[:2], before[:2])
    assert_moved(model.get_weights()[2:], before[2:])


@clause("tensorflow")
def a_custom_loop_is_fit(make: Make) -> None:
    import tensorflow as tf

    x, y = regression_data()
    fitted = regression_model(make(), run_eagerly=True)
    fit(fitted, 3)
    for jit_compile in (None, False, True):
        model, optimizer = regression_model(), make()
        optimizer.build(model.trainable_variables)

        def step(model=model, optimizer=optimizer) -> None:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x) - y) ** 2)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

        run = step if jit_compile is None else tf.function(step, jit_compile=jit_compile)
        for _ in range(3):
            run()
        assert_close(model.get_weights(), fitted.get_weights())
        assert int(optimizer.iterations) == 3


@clause("tensorflow")
def a_strategy_mirrors_rule_and_state(make: Make) -> None:
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = regression_model(make())
    fit(model, 3)
    expected = regression_model(make())
    fit(expected, 3)
    assert_close(model.get_weights(), expected.get_weights())
    kept = [v for v in model.optimizer.variables if "/state_" in v.path]
    for variable in [*kept, *rule_of(model.optimizer).weights]:
        assert isinstance(variable.value, tf.distribute.DistributedValues)


@clause("tensorflow")
def the_graph_holds_one_rule_however_many_variables_there_are(make: Make) -> None:
    import tensorflow as tf

    def operations(count: int) -> list[str]:
        variables = [keras.Variable(np.ones((2, 2))) for _ in range(count)]
        optimizer = make()
        optimizer.build(variables)
        step = tf.function(lambda: optimizer.apply([tf.ones((2, 2))] * count))
        graph = step.get_concrete_function().graph.as_graph_def()
        nodes = [node for function in graph.library.function for node in function.node_def]
        return [node.op for node in (*graph.node, *nodes)]

    one, few, many = operations(1), operations(2), operations(10)
    products = ("MatMul", "BatchMatMulV2", "Einsum")
    for product in products:
        assert few.count(product) == many.count(product)
    # A product of one tensor may be without a batch.
    assert sum(map(one.count, products)) == sum(map(many.count, products))
    assert len(many) < len(one) + 9 * 40
