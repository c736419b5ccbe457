"""Tests of Keras models as optimizees."""

import random
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from l2l_keras.meta import InnerLoop, MetaModel
from l2l_keras.rules import RNNprop
from l2l_keras.tasks import KerasTask

SPLITS = ("train", "validation", "test")
KEY = tf.constant([3, 4])


def stripes(count=200, size=6):
    """Noisy images of horizontal (0) and vertical (1) stripes, and their kinds."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, count).astype("int32")
    rows = np.arange(size)[:, None] % 2 * np.ones((1, size))
    images = np.where(labels[:, None, None], rows.T, rows)
    images = images + generator.normal(size=images.shape) * 0.5
    return images[..., None].astype("float32"), labels


def convnet():
    """A network with everything that has a state: batch normalisation and dropout."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, strides=2),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def smooth_convnet():
    """A network with second derivatives."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, activation="tanh"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def conv_task(**arguments):
    return KerasTask(convnet, cross_entropy(), stripes(), batch_size=16, **arguments)


def linear(inputs=1):
    return keras.Sequential([keras.Input((inputs,)), layers.Dense(1)])


def numbered(count=100):
    """Examples whose x is their index and y twice that."""
    index = np.arange(count, dtype="float32")[:, None]
    return index, 2 * index


def collect(task, split, batches=60):
    """All the examples that come up in many minibatches."""
    found = [task.batch(split, tf.constant([0, step])) for step in range(batches)]
    return np.concatenate([tf.nest.flatten(x)[0].numpy().ravel() for x, _ in found])


class TestModelWithState:
    def test_parameters_are_all_trainable_weights_as_one_vector(self):
        task = conv_task()
        parameters, state = task.sample("train", 0)
        # Kernel, bias, γ and β of three channels, and a dense layer of 12 inputs.
        assert task.size == 9 * 3 + 3 + 3 + 3 + 12 * 2 + 2 == convnet().count_params() - 6
        assert parameters.shape == (task.size,)
        assert parameters.dtype == tf.float32
        assert sorted(tuple(part.shape) for part in state) == [(2,), (3,), (3,)]

    def test_the_layout_is_that_of_the_models_variables(self):
        task = conv_task()
        shapes = [(3, 3, 1, 3), (3,), (3,), (3,), (12, 2), (2,)]
        assert [weight.shape for weight in task.layout] == shapes
        # As the optimizer of a model sees them, but for the numbers that Keras counts up.
        own, expected = (
            [re.sub(r"_\d+", "", path) for path in paths]
            for paths in (
                [weight.path for weight in task.layout],
                [v.path for v in convnet().trainable_variables],
            )
        )
        assert own == expected
        assert [path.split("/")[-1] for path in own] == [
            *("kernel", "bias", "gamma", "beta", "kernel", "bias")
        ]

    def test_unflatten_gives_the_arrays_of_the_layout(self):
        task = conv_task()
        vector = tf.range(float(task.size))
        arrays = task.unflatten(vector)
        assert [tuple(array.shape) for array in arrays] == [w.shape for w in task.layout]
        np.testing.assert_array_equal(np.concatenate([np.ravel(a) for a in arrays]), vector)
        # In the order of the parameters: γ is one at first, biases and β are zero.
        _, bias, gamma, beta, _, last_bias = task.unflatten(task.sample("train", 0)[0])
        np.testing.assert_array_equal(gamma, np.ones(3))
        for part in (bias, beta, last_bias):
            assert not np.any(part)

    def test_the_loss_is_finite_and_moves_the_state_on(self):
        task = conv_task()
        parameters, state = task.sample("train", 0)
        losses, next_state = task.loss(parameters, state, task.batch("train", KEY))
        assert losses.shape == (1,)
        # A network that knows nothing of two kinds has a loss near log 2.
        assert 0.3 < losses[0] < 2.0
        assert len(next_state) == len(state)
        for before, after in zip(state, next_state, strict=True):
            assert after.shape == before.shape
            assert after.dtype == before.dtype
            assert not np.array_equal(before, after)

    def test_moving_averages_are_those_of_batch_normalisation(self):
        def model_fn():
            return keras.Sequential(
                [keras.Input((1,)), layers.BatchNormalization(momentum=0.9), layers.Dense(1)]
            )

        task = KerasTask(model_fn, "mean_squared_error", numbered(), batch_size=8)
        parameters, (mean, variance) = task.sample("train", 0)
        x, y = task.batch("train", KEY)
        _, (next_mean, next_variance) = task.loss(parameters, (mean, variance), (x, y))
        np.testing.assert_allclose(next_mean, [0.1 * x.numpy().mean()], rtol=1e-5)
        np.testing.assert_allclose(next_variance, [0.9 + 0.1 * x.numpy().var()], rtol=1e-5)

    def test_dropout_is_active_and_drops_others_at_every_step(self):
        def model_fn():
            return keras.Sequential(
                [keras.Input((50,)), layers.Dropout(0.5), layers.Dense(1, use_bias=False)]
            )

        data = (np.ones((20, 50), "float32"), np.zeros((20, 1), "float32"))
        task = KerasTask(model_fn, lambda y, p: p, data, batch_size=1)
        parameters, state = task.sample("train", 0)
        losses = []
        for _ in range(3):
            loss, state = task.loss(parameters, state, task.batch("train", KEY))
            losses.append(float(loss[0]))
        assert len(set(losses)) == 3

    def test_the_loss_is_pure(self):
        task = conv_task()
        parameters, state = task.sample("train", 0)
        batch = task.batch("train", KEY)
        first, second = (task.loss(parameters, state, batch) for _ in range(2))
        for a, b in zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True):
            np.testing.assert_array_equal(a, b)


class TestLossAndGradient:
    def test_it_is_that_of_the_keras_model(self):
        """With convolution, batch normalisation in training, and a regulariser."""

        def model_fn():
            return keras.Sequential(
                [
                    keras.Input((6, 6, 1)),
                    layers.Conv2D(3, 3, kernel_regularizer=keras.regularizers.L2(0.1)),
                    layers.BatchNormalization(),
                    layers.Activation("relu"),
                    layers.Flatten(),
                    layers.Dense(2),
                ]
            )

        task = KerasTask(model_fn, cross_entropy(), stripes(), batch_size=16)
        parameters, state = task.sample("train", 5)
        x, y = task.batch("train", KEY)
        losses, gradient, next_state = task.loss_and_gradient(parameters, state, (x, y))

        model = model_fn()
        start = 0
        for variable in model.trainable_variables:
            stop = start + int(np.prod(variable.shape))
            variable.assign(tf.reshape(parameters[start:stop], variable.shape))
            start = stop
        assert start == task.size
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
    def test_losses_of_all_kinds_are_averaged_over_the_minibatch(self, loss):
        task = KerasTask(linear, loss, numbered(), batch_size=8)
        x, y = task.batch("train", KEY)
        losses, _ = task.loss(tf.constant([3.0, 0.5]), (), (x, y))
        expected = np.mean((3.0 * x.numpy() + 0.5 - y.numpy()) ** 2)
        np.testing.assert_allclose(losses, [expected], rtol=1e-5)

    def test_regularisers_are_counted(self):
        def model_fn():
            kernel_regularizer = keras.regularizers.L2(0.5)
            return keras.Sequential(
                [keras.Input((1,)), layers.Dense(1, kernel_regularizer=kernel_regularizer)]
            )

        task = KerasTask(model_fn, "mean_squared_error", numbered(), batch_size=8)
        losses, gradient, _ = task.loss_and_gradient(
            tf.constant([2.0, 0.0]), (), task.batch("train", KEY)
        )
        # y = 2 x is learned perfectly; what is left is 0.5 · 2².
        np.testing.assert_allclose(losses, [2.0], rtol=1e-6)
        np.testing.assert_allclose(gradient, [2.0, 0.0], rtol=1e-6, atol=1e-6)

    def test_variables_of_other_types_are_optimised_in_float32(self):
        def model_fn():
            return keras.Sequential([keras.Input((1,)), layers.Dense(1, dtype="float64")])

        task = KerasTask(model_fn, "mean_squared_error", numbered(), batch_size=8)
        parameters, state = task.sample("train", 0)
        losses, gradient, _ = task.loss_and_gradient(parameters, state, task.batch("train", KEY))
        assert {parameters.dtype, losses.dtype, gradient.dtype} == {tf.float32}


class TestHessianVectorProduct:
    def test_it_is_the_difference_of_gradients(self):
        """Not with batch normalisation: `tf.nn.moments` has no right second derivative."""
        task = KerasTask(smooth_convnet, cross_entropy(), stripes(), batch_size=16)
        parameters, state = task.sample("train", 0)
        batch = task.batch("train", KEY)
        vector = tf.random.stateless_normal(parameters.shape, KEY)
        step = 1e-3 / tf.norm(vector)

        def gradient(direction):
            return task.loss_and_gradient(parameters + direction * step * vector, state, batch)[1]

        expected = (gradient(1.0) - gradient(-1.0)) / (2.0 * step)
        actual = task.hessian_vector_product(parameters, state, batch, vector)
        assert np.linalg.norm(actual - expected) < 0.03 * np.linalg.norm(expected)

    def test_that_of_a_linear_model_is_the_formula(self):
        task = KerasTask(linear, "mean_squared_error", numbered(), batch_size=20)
        parameters, state = task.sample("train", 0)
        x, y = task.batch("train", KEY)
        design = np.concatenate([x, np.ones_like(x)], axis=1)
        vector = np.array([0.5, -2.0], "float32")
        expected = 2.0 * design.T @ (design @ vector) / len(x)
        actual = task.hessian_vector_product(parameters, state, (x, y), tf.constant(vector))
        np.testing.assert_allclose(actual, expected, rtol=1e-4)


class TestSample:
    def test_the_same_seed_gives_the_same_optimizee(self):
        # Two tasks, and draws in between: only the seed counts.
        first = tf.nest.flatten(conv_task().sample("validation", 3))
        task = conv_task()
        task.sample("train", 0)
        second = tf.nest.flatten(task.sample("validation", 3))
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_splits_and_seeds_differ_in_weights_and_in_dropout(self):
        task = conv_task()
        samples = [task.sample(split, seed) for split in SPLITS for seed in (0, 1)]
        kernels = {tuple(parameters[:27].numpy()) for parameters, _ in samples}
        dropout = {
            tuple(part.numpy()) for _, state in samples for part in state if part.shape == (2,)
        }
        assert len(kernels) == len(dropout) == 6

    def test_weights_are_as_the_initializers_draw_them(self):
        # Glorot's: uniform with a variance of 2 / (fan in + fan out).
        def model_fn():
            return keras.Sequential([keras.Input((30,)), layers.Dense(30)])

        data = (np.zeros((10, 30), "float32"), np.zeros((10, 30), "float32"))
        parameters, _ = KerasTask(model_fn, "mse", data, batch_size=1).sample("train", 0)
        kernel, bias = parameters[:900].numpy(), parameters[900:].numpy()
        assert kernel.std() == pytest.approx((2 / 60) ** 0.5, rel=0.1)
        np.testing.assert_array_equal(bias, np.zeros(30))

    def test_the_users_random_generators_are_left_alone(self):
        task = conv_task()
        states = random.getstate(), np.random.get_state()[1].tolist()
        task.sample("train", 0)
        assert (random.getstate(), np.random.get_state()[1].tolist()) == states


class TestData:
    def test_examples_of_the_splits_never_mix(self):
        task = KerasTask(linear, "mean_squared_error", numbered(), batch_size=16)
        seen = {split: set(collect(task, split)) for split in SPLITS}
        assert [len(seen[split]) for split in SPLITS] == [80, 10, 10]
        # Disjoint, and nothing is left out.
        assert set.union(*seen.values()) == set(range(100))
        # Drawn at random: the last examples may be of another kind than the first.
        assert seen["train"] != set(range(80))

    def test_x_and_y_stay_together(self):
        task = KerasTask(linear, "mean_squared_error", numbered(), batch_size=16)
        for split in SPLITS:
            x, y = task.batch(split, KEY)
            assert x.shape == y.shape == (16, 1)
            np.testing.assert_array_equal(y, 2 * x)

    def test_a_batch_follows_from_its_seed(self):
        task = KerasTask(linear, "mean_squared_error", numbered(), batch_size=16)
        first, second = (task.batch("train", KEY)[0].numpy() for _ in range(2))
        np.testing.assert_array_equal(first, second)
        others = {tuple(task.batch("train", (3, step))[0].numpy().ravel()) for step in range(5)}
        assert len(others) == 5

    def test_a_dictionary_of_splits_is_taken_as_it_is(self):
        x, y = numbered()
        data = {
            "train": (x[:7], y[:7]),
            "validation": tf.data.Dataset.from_tensor_slices((x[50:60], y[50:60])),
            "test": (x[90:], y[90:]),
        }
        task = KerasTask(linear, "mean_squared_error", data, batch_size=16)
        assert set(collect(task, "train")) == set(range(7))
        assert set(collect(task, "validation")) == set(range(50, 60))
        assert set(collect(task, "test")) == set(range(90, 100))

    def test_a_tf_data_dataset_is_the_same_as_its_arrays(self):
        from_arrays = KerasTask(linear, "mean_squared_error", numbered(), batch_size=16)
        dataset = tf.data.Dataset.from_tensor_slices(numbered())
        from_dataset = KerasTask(linear, "mean_squared_error", dataset, batch_size=16)
        for split in SPLITS:
            for a, b in zip(
                from_arrays.batch(split, KEY), from_dataset.batch(split, KEY), strict=True
            ):
                np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("kind", ["dictionary", "tuple", "tf.data"])
    def test_a_model_may_have_several_inputs(self, kind):
        def model_fn():
            a, b = keras.Input((1,), name="a"), keras.Input((2,), name="b")
            inputs = (a, b) if kind == "tuple" else {"a": a, "b": b}
            outputs = layers.Dense(1, use_bias=False)(layers.Concatenate()([a, b]))
            return keras.Model(inputs, outputs)

        first, y = numbered()
        second = np.concatenate([10 * first, 100 * first], axis=1)
        x = (first, second) if kind == "tuple" else {"a": first, "b": second}
        dataset = tf.data.Dataset.from_tensor_slices((x, y)) if kind == "tf.data" else (x, y)
        task = KerasTask(model_fn, "mean_absolute_error", dataset, batch_size=8)
        batch = task.batch("train", KEY)
        index = tf.nest.flatten(batch[0])[0].numpy()
        # 4 · a + b · (0.3, 0.02) - y = (4 + 3 + 2 - 2) · a: every input arrives where it belongs.
        losses, _ = task.loss(tf.constant([4.0, 0.3, 0.02]), (), batch)
        np.testing.assert_allclose(losses, [7 * index.mean()], rtol=1e-5)

    def test_transform_sees_every_minibatch(self):
        x = np.arange(100, dtype="uint8")[:, None]
        task = KerasTask(
            linear,
            "mean_squared_error",
            (x, x),
            batch_size=16,
            transform=lambda x, y: (tf.cast(x, "float32") / 100.0, tf.cast(y, "float32")),
        )
        scaled, y = task.batch("train", KEY)
        assert scaled.dtype == tf.float32
        np.testing.assert_allclose(scaled, y / 100.0)

    def test_data_are_no_constant_of_a_graph(self):
        """Nor do they make the graph any larger: they would be copied with it."""

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
    def test_a_convolutional_network_of_ones_own_meta_trains(self, model_fn, second):
        """Convolution, batch normalisation and dropout: the rule gets better at training them."""
        rule = RNNprop(units=(8,), seed=0)
        task = KerasTask(model_fn, cross_entropy(), stripes(), batch_size=16, name="stripes")
        meta_model = MetaModel(rule, task, horizon=20, unroll=10, second_derivatives=second)
        meta_model.compile(keras.optimizers.Adam(2e-2, global_clipnorm=1.0))
        validation = tf.data.Dataset.range(5)
        untrained = meta_model.evaluate(validation, return_dict=True, verbose=0)
        before = rule.get_weights()
        history = meta_model.fit(epochs=1, windows=40, validation_episodes=5, verbose=0).history

        assert np.isfinite(history["loss"]).all()
        assert history["skipped"] == [0]
        for weights, start in zip(rule.get_weights(), before, strict=True):
            assert not np.array_equal(weights, start)
        # An untrained rule leaves the network where it is, near the loss of chance, log 2.
        assert untrained["final_loss"] > 0.5
        assert history["val_final_loss"][-1] < 0.5 * untrained["final_loss"]

    def test_the_state_goes_through_the_inner_loop(self):
        task = conv_task()
        loop = InnerLoop(RNNprop(units=(2,), seed=0), task)
        _, inner = loop.start(*task.sample("train", 0), task.batch("train", KEY))
        states = [inner.task_state]
        for _ in range(2):
            _, inner = loop.step(inner, task.batch("train", KEY))
            states.append(inner.task_state)
        for parts in zip(*states, strict=True):
            assert len({tuple(part.numpy().ravel()) for part in parts}) == 3


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"batch_size": 0}, "`batch_size` must be positive. Received: 0"),
            (
                {"model_fn": lambda: keras.Sequential([layers.Dense(1)])},
                "must return a built keras.Model.* Received: <Sequential",
            ),
            ({"model_fn": lambda: None}, "must return a built keras.Model.* Received: None"),
            (
                {"model_fn": lambda: keras.Sequential([keras.Input((1,)), layers.Flatten()])},
                "trainable variables",
            ),
            ({"dataset": numbered()[0]}, r"must be \(x, y\).* Received: ndarray"),
            ({"dataset": numbered() * 2}, r"must be \(x, y\).* Received: tuple"),
            (
                {"dataset": {"train": numbered(), "test": numbered()}},
                r"must be \(x, y\).* Received: dict",
            ),
            (
                {"dataset": tf.data.Dataset.from_tensor_slices(numbered()[0])},
                r"must be \(x, y\).* Received: ndarray",
            ),
            (
                {"dataset": tf.data.Dataset.from_tensor_slices(numbered()).take(0)},
                "must not be empty",
            ),
            (
                {"dataset": (numbered(30)[0], numbered(40)[1])},
                "the same number of examples everywhere. Received: {",
            ),
            ({"dataset": numbered(9)}, "at least 10 examples. Received: 9"),
            ({"loss": "nonsense"}, "nonsense"),
        ],
    )
    def test_wrong_arguments_are_refused(self, arguments, message):
        valid = {"model_fn": linear, "loss": "mse", "dataset": numbered(), "batch_size": 4}
        with pytest.raises(ValueError, match=message):
            KerasTask(**{**valid, **arguments})

    def test_an_architecture_that_changes_is_refused(self):
        widths = iter((1, 2))

        def model_fn():
            return keras.Sequential([keras.Input((1,)), layers.Dense(next(widths))])

        task = KerasTask(model_fn, "mse", numbered(), batch_size=4)
        with pytest.raises(ValueError, match="the same architecture.*Received: .*2"):
            task.sample("train", 0)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
