"""Tests of Keras models as optimizees."""

import itertools
import math
import random
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from l2l_keras.meta import BackPropagation, MetaModel, Windows
from l2l_keras.rules import RNNprop
from l2l_keras.tasks import KerasTask
from l2l_keras.tasks.base import SPLITS

KEY = tf.constant([3, 4])
from_slices = tf.data.Dataset.from_tensor_slices


def stripes(count=200, size=6):
    """Noisy images of horizontal (0) and vertical (1) stripes, and their labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, count).astype("int32")
    rows = np.arange(size)[:, None] % 2 * np.ones((1, size))
    images = np.where(labels[:, None, None], rows.T, rows)
    images = images + generator.normal(size=images.shape) * 0.5
    return images[..., None].astype("float32"), labels


def sequential(shape, *model_layers):
    return keras.Sequential([keras.Input(shape), *model_layers])


def convnet():
    """A network with everything that has a state: batch normalization and dropout."""
    return sequential(
        (6, 6, 1),
        layers.Conv2D(3, 3, strides=2),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.Dropout(0.25),
        layers.Flatten(),
        layers.Dense(2),
    )


def smooth_convnet():
    """A network with second derivatives, which `tf.nn.moments` lacks."""
    convolution = layers.Conv2D(3, 3, activation="tanh")
    last = (layers.MaxPooling2D(2), layers.Dropout(0.25), layers.Flatten(), layers.Dense(2))
    return sequential((6, 6, 1), convolution, *last)


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def conv_task(model_fn=convnet):
    return KerasTask(model_fn, cross_entropy(), stripes(), batch_size=16)


def linear():
    return sequential((1,), layers.Dense(1))


def numbered(count=100):
    """Examples whose x is their index and y twice that."""
    index = np.arange(count, dtype="float32")[:, None]
    return index, 2 * index


def numbered_task(model_fn=linear, loss="mean_squared_error", batch_size=8):
    return KerasTask(model_fn, loss, numbered(), batch_size=batch_size)


def collect(task, split, batches=60):
    """All examples of many minibatches."""
    found = [task.batch(split, tf.constant([0, step])) for step in range(batches)]
    return np.concatenate([tf.nest.flatten(x)[0].numpy().ravel() for x, _ in found])


def assert_equal(first, second):
    for a, b in zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True):
        np.testing.assert_array_equal(a, b)


class TestModelWithState:
    def test_parameters_are_the_trainable_variables_as_one_vector(self):
        task = conv_task()
        parameters, state = task.sample("train", 0)
        shapes = [(3, 3, 1, 3), (3,), (3,), (3,), (12, 2), (2,)]
        assert task.size == convnet().count_params() - 6 == sum(map(math.prod, shapes))
        assert (parameters.shape, parameters.dtype) == ((task.size,), tf.float32)
        assert sorted(tuple(part.shape) for part in state) == [(2,), (3,), (3,)]
        assert [weight.shape for weight in task.layout] == shapes
        # Without the numbers that Keras counts up.
        own = [re.sub(r"_\d+", "", weight.path) for weight in task.layout]
        assert own == [re.sub(r"_\d+", "", v.path) for v in convnet().trainable_variables]
        arrays = task.unflatten(parameters)
        assert [tuple(array.shape) for array in arrays] == shapes
        np.testing.assert_array_equal(np.concatenate([np.ravel(a) for a in arrays]), parameters)
        # Initially, γ is one; biases and β are zero.
        _, bias, gamma, beta, _, last_bias = arrays
        np.testing.assert_array_equal(gamma, np.ones(3))
        assert not any(np.any(part) for part in (bias, beta, last_bias))

    def test_the_loss_is_pure_and_returns_the_next_state(self):
        task = conv_task()
        parameters, state = task.sample("train", 0)
        batch = task.batch("train", KEY)
        losses, next_state = task.loss(parameters, state, batch)
        assert losses.shape == (1,)
        # Close to log 2, the loss of chance.
        assert 0.3 < losses[0] < 2.0
        for before, after in zip(state, next_state, strict=True):
            assert (after.shape, after.dtype) == (before.shape, before.dtype)
            assert not np.array_equal(before, after)
        assert_equal(task.loss(parameters, state, batch), (losses, next_state))
        # Other units are dropped in the next step.
        assert task.loss(parameters, next_state, batch)[0] != losses


class TestLossAndGradient:
    def test_they_are_those_of_the_keras_model(self):
        """With convolution, batch normalization in training, and a regularizer."""

        def model_fn():
            return sequential(
                (6, 6, 1),
                layers.Conv2D(3, 3, kernel_regularizer=keras.regularizers.L2(0.1)),
                layers.BatchNormalization(),
                layers.Activation("relu"),
                layers.Flatten(),
                layers.Dense(2),
            )

        task = conv_task(model_fn)
        parameters, state = task.sample("train", 5)
        x, y = task.batch("train", KEY)
        losses, gradient, next_state = task.loss_and_gradient(parameters, state, (x, y))

        model = model_fn()
        for variable, value in zip(
            model.trainable_variables, task.unflatten(parameters), strict=True
        ):
            variable.assign(value)
        with tf.GradientTape() as tape:
            loss = cross_entropy()(y, model(x, training=True)) + sum(model.losses)
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        np.testing.assert_allclose(losses, [loss], rtol=1e-5)
        expected = np.concatenate([g.numpy().ravel() for g in gradients])
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
        for part, variable in zip(next_state, model.non_trainable_variables, strict=True):
            np.testing.assert_allclose(part, variable.value, rtol=1e-5)

    @pytest.mark.parametrize(
        "loss",
        ["mean_squared_error", keras.losses.MeanSquaredError(), lambda y, p: (y - p) ** 2],
        ids=["name", "object", "function"],
    )
    def test_losses_are_averaged_over_the_minibatch(self, loss):
        task = numbered_task(loss=loss)
        x, y = task.batch("train", KEY)
        losses, _ = task.loss(tf.constant([3.0, 0.5]), (), (x, y))
        expected = np.mean((3.0 * x.numpy() + 0.5 - y.numpy()) ** 2)
        np.testing.assert_allclose(losses, [expected], rtol=1e-5)

    def test_parameters_are_float32_for_variables_of_other_types(self):
        task = numbered_task(lambda: sequential((1,), layers.Dense(1, dtype="float64")))
        parameters, state = task.sample("train", 0)
        losses, gradient, _ = task.loss_and_gradient(parameters, state, task.batch("train", KEY))
        assert {parameters.dtype, losses.dtype, gradient.dtype} == {tf.float32}

    def test_hessian_vector_products_agree_with_differences_of_gradients(self):
        task = conv_task(smooth_convnet)
        parameters, state = task.sample("train", 0)
        batch = task.batch("train", KEY)
        vector = tf.random.stateless_normal(parameters.shape, KEY)
        step = 1e-3 / tf.norm(vector)
        ahead, behind = (
            task.loss_and_gradient(parameters + sign * step * vector, state, batch)[1]
            for sign in (1.0, -1.0)
        )
        expected = (ahead - behind) / (2.0 * step)
        actual = task.hessian_vector_product(parameters, state, batch, vector)
        assert np.linalg.norm(actual - expected) < 0.03 * np.linalg.norm(expected)


class TestSample:
    def test_splits_and_seeds_decide_weights_and_dropout(self):
        draws = [*itertools.product(SPLITS, (0, 1))]
        samples, again = (
            [task.sample(*draw) for draw in draws] for task in (conv_task(), conv_task())
        )
        assert_equal(samples, again)
        kernels = {tuple(parameters[:27].numpy()) for parameters, _ in samples}
        dropout = {
            tuple(part.numpy()) for _, state in samples for part in state if part.shape == (2,)
        }
        assert len(kernels) == len(dropout) == 6

    def test_global_random_states_are_unchanged(self):
        task = conv_task()
        states = random.getstate(), np.random.get_state()[1].tolist()
        task.sample("train", 0)
        assert (random.getstate(), np.random.get_state()[1].tolist()) == states


class TestData:
    def test_batches_keep_x_with_y_and_follow_from_their_seed(self):
        task = numbered_task(batch_size=16)
        for split in SPLITS:
            x, y = task.batch(split, KEY)
            assert x.shape == y.shape == (16, 1)
            np.testing.assert_array_equal(y, 2 * x)
            assert_equal(task.batch(split, KEY), (x, y))
        others = {tuple(task.batch("train", (3, step))[0].numpy().ravel()) for step in range(5)}
        assert len(others) == 5

    def test_a_dictionary_of_splits_is_used_as_it_is(self):
        x, y = numbered()
        data = {
            "train": (x[:7], y[:7]),
            "validation": from_slices((x[50:60], y[50:60])),
            "test": (x[90:], y[90:]),
        }
        task = KerasTask(linear, "mean_squared_error", data, batch_size=16)
        expected = {"train": range(7), "validation": range(50, 60), "test": range(90, 100)}
        for split, indices in expected.items():
            assert set(collect(task, split)) == set(indices)

    @pytest.mark.parametrize("structure", ["dictionary", "tuple", "tf.data"])
    def test_a_model_may_have_several_inputs(self, structure):
        def model_fn():
            a, b = keras.Input((1,), name="a"), keras.Input((2,), name="b")
            inputs = (a, b) if structure == "tuple" else {"a": a, "b": b}
            outputs = layers.Dense(1, use_bias=False)(layers.Concatenate()([a, b]))
            return keras.Model(inputs, outputs)

        first, y = numbered()
        second = np.concatenate([10 * first, 100 * first], axis=1)
        x = (first, second) if structure == "tuple" else {"a": first, "b": second}
        dataset = from_slices((x, y)) if structure == "tf.data" else (x, y)
        task = KerasTask(model_fn, "mean_absolute_error", dataset, batch_size=8)
        batch = task.batch("train", KEY)
        index = tf.nest.flatten(batch[0])[0].numpy()
        # 4 · a + b · (0.3, 0.02) - y = (4 + 3 + 2 - 2) · a.
        losses, _ = task.loss(tf.constant([4.0, 0.3, 0.02]), (), batch)
        np.testing.assert_allclose(losses, [7 * index.mean()], rtol=1e-5)

    def test_graphs_do_not_contain_the_data(self):
        def graph_bytes(count):
            data = (np.zeros((count, 1), "float32"), np.zeros((count, 1), "float32"))
            task = KerasTask(linear, "mean_squared_error", data, batch_size=4)
            parameters, state = task.sample("train", 0)

            @tf.function(autograph=False)
            def batch_and_loss(key):
                return [
                    task.loss_and_gradient(parameters, state, task.batch(split, key))
                    for split in SPLITS
                ]

            graph = batch_and_loss.get_concrete_function(tf.TensorSpec((2,), tf.int32)).graph
            return graph.as_graph_def(add_shapes=False).ByteSize()

        # 4 MB of examples in a graph of less than 100 kB.
        small, large = graph_bytes(2_000), graph_bytes(500_000)
        assert large < 100_000
        assert abs(large - small) < 1_000


class TestMetaTraining:
    @pytest.mark.parametrize(
        ("model_fn", "second"), [(convnet, False), (smooth_convnet, True)], ids=["first", "second"]
    )
    def test_a_rule_learns_to_train_a_convolutional_network(self, model_fn, second):
        """With convolution, batch normalization and dropout."""
        rule = RNNprop(units=(8,), seed=0)
        task = conv_task(model_fn)
        meta_model = MetaModel(rule, task, 20, BackPropagation(second), Windows(unroll=10))
        meta_model.compile(keras.optimizers.Adam(2e-2, global_clipnorm=1.0))
        validation = tf.data.Dataset.range(5)
        untrained = meta_model.evaluate(validation, return_dict=True, verbose=0)
        before = rule.get_weights()
        history = meta_model.fit(epochs=1, windows=40, validation_episodes=5, verbose=0).history

        assert np.isfinite(history["loss"]).all()
        assert history["skipped"] == [0]
        for weights, start in zip(rule.get_weights(), before, strict=True):
            assert not np.array_equal(weights, start)
        # The updates of an untrained rule are small: the loss stays near that of chance, log 2.
        assert untrained["final_loss"] > 0.5
        assert history["val_final_loss"][-1] < 0.5 * untrained["final_loss"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be positive. Received: batch_size=0"),
        (
            {"model_fn": lambda: keras.Sequential([layers.Dense(1)])},
            "must return a built keras.Model.* Received: <Sequential",
        ),
        ({"model_fn": lambda: None}, "must return a built keras.Model.* Received: None"),
        ({"model_fn": lambda: sequential((1,), layers.Flatten())}, "trainable variables"),
        ({"dataset": numbered()[0]}, r"must be \(x, y\).* Received: ndarray"),
        ({"dataset": None}, r"must be \(x, y\).* Received: NoneType"),
        ({"dataset": from_slices(numbered()).repeat()}, "without an end needs `steps_per_epoch`"),
        ({"dataset": numbered() * 2}, r"must be \(x, y\).* Received: tuple"),
        ({"dataset": {"train": numbered()}}, r"must be \(x, y\).* Received: dict"),
        ({"dataset": from_slices(numbered()).take(0)}, "must not be empty"),
        ({"dataset": (numbered(30)[0], numbered(40)[1])}, "the same number .*Received: .*30"),
        ({"dataset": numbered(9)}, "at least 10 examples. Received: 9"),
        ({"loss": "nonsense"}, "nonsense"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    valid = {"model_fn": linear, "loss": "mse", "dataset": numbered(), "batch_size": 4}
    with pytest.raises(ValueError, match=message):
        KerasTask(**{**valid, **arguments})


def shared():
    return shared.model


def seeded():
    keras.utils.set_random_seed(1)
    return linear()


def loaded():
    model = linear()
    model.set_weights([np.ones((1, 1)), np.ones(1)])
    return model


@pytest.mark.parametrize("model_fn", [shared, seeded, loaded])
def test_optimizees_that_coincide_draw_a_warning(model_fn):
    shared.model = linear()
    with pytest.warns(UserWarning, match="All optimizees start from the same weights.*same_start"):
        KerasTask(model_fn, "mse", numbered(), 4)
    shared.model = linear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        KerasTask(model_fn, "mse", numbered(), 4, same_start=True)
        KerasTask(linear, "mse", numbered(), 4)


def test_a_train_step_of_its_own_is_refused():
    class Custom(keras.Sequential):
        def train_step(self, data):
            return {}

    with pytest.raises(ValueError, match="override `compute_loss` instead.*Custom.train_step"):
        KerasTask(lambda: Custom([keras.Input((1,)), layers.Dense(1)]), "mse", numbered())


def test_a_loss_for_a_compiled_model_is_refused():
    def model_fn():
        model = linear()
        model.compile(loss="mse")
        return model

    with pytest.raises(
        ValueError, match="not compiled. Received: a compiled model, and loss='mae'"
    ):
        KerasTask(model_fn, "mae", numbered())


def test_an_architecture_that_changes_is_refused():
    widths = iter((1, 1, 2))
    task = numbered_task(lambda: sequential((1,), layers.Dense(next(widths))))
    with pytest.raises(ValueError, match="the same architecture.*Received: .*2"):
        task.sample("train", 0)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
