"""Tests of the examples that a `KerasTask` holds out."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from l2l_keras.tasks import KerasTask
from l2l_keras.tasks.base import SPLITS

COUNT = 200
X = np.arange(COUNT, dtype="float32")[:, None]


def linear():
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1)])
    model.compile(loss="mse", metrics=["mae"])
    return model


def numbered_task(dataset=None, **arguments):
    """A task whose examples are numbers."""
    return KerasTask(linear, dataset=dataset or (X, X), batch_size=8, **arguments)


def seen(draw, split):
    """All examples of many minibatches."""
    batches = [draw(split, tf.constant([0, step])) for step in range(300)]
    return set(np.concatenate([np.ravel(x) for x, *_ in batches]).astype(int).tolist())


def parts_of(task):
    """The examples that each split trains on, and those that it holds out."""
    training = {split: seen(task.batch, split) for split in SPLITS}
    return training, {split: seen(task.held_out_batch, split) for split in SPLITS}


class TestSplits:
    def test_no_split_trains_on_what_any_split_of_evaluation_holds_out(self):
        training, held_out = parts_of(numbered_task())
        assert [len(held_out[split]) for split in SPLITS] == [35, 30, 30]
        assert training["validation"] == training["test"] == training["train"] | held_out["train"]
        assert len(training["test"]) == 140
        assert not training["train"] & held_out["train"]
        assert not held_out["validation"] & held_out["test"]
        rest = training["test"] | held_out["validation"] | held_out["test"]
        assert rest == set(range(COUNT))
        assert training["test"] != set(range(140))

    def test_validation_data_are_held_out_instead(self):
        task = numbered_task((X[:100], X[:100]), validation_data=(X[100:], X[100:]))
        training, held_out = parts_of(task)
        assert training["test"] == training["validation"] == set(range(100))
        assert held_out["train"] < set(range(100))
        assert len(held_out["validation"]) == len(held_out["test"]) == 50
        assert held_out["validation"] | held_out["test"] == set(range(100, 200))

    def test_splits_may_be_given(self):
        rows = {split: X[60 * k : 60 * k + 60] for k, split in enumerate(SPLITS)}
        data = {split: (x[:30], x[:30]) for split, x in rows.items()}
        held = {split: (x[30:], x[30:]) for split, x in rows.items()}
        training, held_out = parts_of(numbered_task(data, validation_data=held))
        for split in SPLITS:
            assert training[split] == set(data[split][0].ravel())
            assert held_out[split] == set(held[split][0].ravel())
        task = numbered_task(data)
        assert not task.holds_out
        with pytest.raises(ValueError, match="pass `validation_data`"):
            task.held_out_batch("test", (0, 0))
        with pytest.raises(ValueError, match="must be a dictionary.*Received: tuple"):
            numbered_task(data, validation_data=(X, X))

    def test_few_examples_draw_a_warning(self):
        with pytest.warns(UserWarning, match="Only 3 examples held out of validation .* 8 in a"):
            numbered_task((X[:20], X[:20]))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            numbered_task()


class TestStreaming:
    def test_arrays_are_drawn_where_they_are(self, tmp_path):
        path = tmp_path / "x.npy"
        np.save(path, X)
        array = np.load(path, mmap_mode="r+")
        task = numbered_task((array, array), stream=True)
        drawn = task.batch("test", (0, 0))[0]
        assert drawn.shape == (8, 1)
        np.testing.assert_array_equal(drawn, numbered_task().batch("test", (0, 0))[0])
        array[:] = -1.0
        np.testing.assert_array_equal(task.batch("test", (0, 0))[0], np.full((8, 1), -1.0))

    def test_what_cannot_be_streamed_is_refused(self):
        with pytest.raises(ValueError, match="XLA cannot stream"):
            numbered_task(stream=True, jit_compile=True)
        words = tf.data.Dataset.from_tensor_slices((["a", "b"] * 10, [0.0] * 20)).batch(5)
        with pytest.raises(ValueError, match="`stream` needs numbers"):
            KerasTask(linear, dataset=words, stream=True)


class TestInference:
    def model(self):
        model = keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(8, "tanh", kernel_regularizer="l2"),
                layers.BatchNormalization(),
                layers.Dropout(0.5),
                layers.Dense(3, "softmax"),
            ]
        )
        model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def test_loss_and_metrics_are_those_of_evaluate(self):
        random = np.random.default_rng(0)
        x = random.normal(size=(100, 4)).astype("float32")
        y = random.integers(0, 3, 100)
        weights = random.uniform(0.5, 2.0, 100).astype("float32")
        data = (x, y, weights)
        task = KerasTask(self.model, dataset=data, validation_data=data, batch_size=50)
        parameters, state = task.sample("test", 0)
        # Not as at the start: the averages of batch normalization count.
        _, state = task.loss(parameters, state, task.batch("test", (0, 0)))
        results = task.evaluate("test", parameters, state)

        model = self.model()
        for variable, value in zip(
            [*model.trainable_variables, *model.non_trainable_variables],
            [*task.unflatten(parameters), *state],
            strict=True,
        ):
            variable.assign(value)
        rows = np.random.default_rng(0).permutation(100)[50:]
        expected = model.evaluate(x[rows], y[rows], 50, 0, weights[rows], return_dict=True)
        assert results.keys() == {"loss", "accuracy"} == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(results[name], value, rtol=1e-6)

    def test_minibatches_have_that_loss_on_average_and_change_nothing(self):
        random = np.random.default_rng(0)
        data = (random.normal(size=(100, 4)).astype("float32"), random.integers(0, 3, 100))
        task = KerasTask(self.model, dataset=data, validation_data=data, batch_size=500)
        parameters, state = task.sample("test", 0)
        batch = task.held_out_batch("test", (0, 0))
        loss = task.held_out_loss(parameters, state, batch)
        assert loss.shape == (1,)
        np.testing.assert_array_equal(loss, task.held_out_loss(parameters, state, batch))
        whole = task.evaluate("test", parameters, state)["loss"]
        np.testing.assert_allclose(loss, [whole], rtol=0.05)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
