"""Any Keras model and data set as an optimizee."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2l_keras import arguments
from l2l_keras.tasks.base import SPLITS, Nest, Split, Task, Tensor, Weight, split_seed


class KerasTask(Task):
    """Trains a Keras model on minibatches of a data set.

    Each optimizee is the model with fresh initial weights, as `model_fn` draws them. Its loss is
    the training loss: dropout is active, batch normalization uses and updates its statistics, and
    the model's own losses (regularizers) are added.

    Args:
        model_fn: Returns a new, built model with freshly drawn weights at every call. Initial
            weights follow the seed if they come from Keras initializers, NumPy or `random`.
        loss: A Keras loss, its name, or a function of `(y_true, y_pred)`.
        dataset: The examples, `(x, y)`: arrays or nested structures of arrays, examples on the
            first axis; or a `tf.data.Dataset` of single examples, which is read into memory. Or a
            dictionary of such, with the keys `"train"`, `"validation"` and `"test"`. Otherwise,
            the three splits get random 80, 10 and 10 % of the examples.
        batch_size: Examples in a minibatch. Defaults to 128.
        transform: Function of `(x, y)` applied to every minibatch, for example to scale pixels
            that are stored in a compact type. Defaults to none.
        jit_compile: Whether to compile the model with XLA. Best for small dense models; Keras'
            convolutions become several times slower on a CPU. Defaults to False.
        name: Name of the task. Defaults to `"keras_task"`.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> x, y = np.random.rand(100, 4).astype("float32"), np.random.rand(100, 1)
        >>> def model_fn():
        ...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> task = l2l_keras.tasks.KerasTask(model_fn, "mean_squared_error", (x, y), batch_size=10)
        >>> task.size
        5
    """

    def __init__(
        self,
        model_fn: Callable[[], keras.Model],
        loss: str | keras.losses.Loss | Callable[[Tensor, Tensor], Tensor],
        dataset: Any,
        batch_size: int = 128,
        transform: Callable[[Nest, Nest], tuple[Nest, Nest]] | None = None,
        jit_compile: bool = False,
        name: str = "keras_task",
    ) -> None:
        arguments.count("batch_size", batch_size)
        self.name = name
        self.jit_compile = jit_compile
        self._model_fn = model_fn
        self._model = self._new_model(0)
        if not self.layout:
            raise ValueError("`model_fn` must return a model with trainable variables.")
        self._loss = keras.losses.get(loss)
        self._batch_size = batch_size
        self._transform = transform
        self._data = _splits(dataset)

    @property
    def size(self) -> int:
        """Number of the model's trainable parameters."""
        return sum(math.prod(weight.shape) for weight in self.layout)

    @property
    def layout(self) -> tuple[Weight, ...]:
        """The model's trainable variables."""
        return tuple(Weight(v.path, tuple(v.shape)) for v in self._model.trainable_variables)

    def sample(self, split: Split, seed: int) -> tuple[Tensor, Nest]:
        """Draws fresh weights and the model's other variables; see `Task.sample`."""
        model = self._new_model(split_seed(split, seed))
        variables = model.trainable_variables
        shapes = [tuple(v.shape) for v in variables]
        if shapes != (expected := [weight.shape for weight in self.layout]):
            raise ValueError(
                "`model_fn` must return the same architecture at every call. Expected variables "
                f"of shapes {expected}. Received: {shapes}"
            )
        parameters = [tf.cast(tf.reshape(v.value, [-1]), "float32") for v in variables]
        state = tuple(tf.convert_to_tensor(v.value) for v in model.non_trainable_variables)
        return tf.concat(parameters, axis=0), state

    def batch(self, split: Split, seed: Tensor) -> Nest:
        """Draws `batch_size` examples with replacement; see `Task.batch`."""
        data = self._data[split]
        count = tf.nest.flatten(data)[0].shape[0]
        indices = tf.random.stateless_uniform((self._batch_size,), seed, 0, count, tf.int32)
        x, y = tf.nest.map_structure(lambda array: tf.gather(array, indices), data)
        return self._transform(x, y) if self._transform else (x, y)

    def loss(self, parameters: Tensor, state: Nest, batch: Nest) -> tuple[Tensor, Nest]:
        """Computes the model's training loss; see `Task.loss`."""
        x, y = batch
        variables = zip(self.unflatten(parameters), self._model.trainable_variables, strict=True)
        weights = [tf.cast(part, variable.dtype) for part, variable in variables]
        prediction, state, extra_losses = self._model.stateless_call(
            weights, list(state), x, training=True, return_losses=True
        )
        loss = tf.reduce_mean(tf.cast(self._loss(y, prediction), "float32"))
        loss = tf.add_n([loss, *(tf.cast(extra, "float32") for extra in extra_losses)])
        return tf.reshape(loss, (1,)), tuple(state)

    def _new_model(self, seed: int) -> keras.Model:
        """Calls `model_fn` with seeded random generators, and restores them."""
        python_state, numpy_state = random.getstate(), np.random.get_state()
        try:
            random.seed(seed)
            np.random.seed(seed)
            model = self._model_fn()
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
        if not isinstance(model, keras.Model) or not model.built:
            raise ValueError(
                "`model_fn` must return a built keras.Model: give it an Input, or call it once. "
                f"Received: {model!r}"
            )
        return model


def _splits(dataset: Any) -> dict[Split, Nest]:
    """Returns the examples of each split as tensors."""
    if isinstance(dataset, Mapping) and set(dataset) == set(SPLITS):
        return {split: _examples(dataset[split]) for split in SPLITS}
    data = _examples(dataset)
    count = tf.nest.flatten(data)[0].shape[0]
    if count < 10:
        raise ValueError(f"`dataset` must hold at least 10 examples. Received: {count}")
    order = np.random.default_rng(0).permutation(count)
    bounds = np.split(order, [int(0.8 * count), int(0.9 * count)])
    return {
        split: tf.nest.map_structure(lambda array, i=indices: tf.gather(array, i), data)
        for split, indices in zip(SPLITS, bounds, strict=True)
    }


def _examples(dataset: Any) -> tuple[Nest, Nest]:
    """Returns `(x, y)` as nested structures of tensors, examples on the first axis."""
    if isinstance(dataset, tf.data.Dataset):
        rows = list(dataset.as_numpy_iterator())
        if not rows:
            raise ValueError("`dataset` must not be empty.")
        dataset = tf.nest.map_structure(lambda *arrays: np.stack(arrays), *rows)
    if not isinstance(dataset, (tuple, list)) or len(dataset) != 2:
        raise ValueError(
            "`dataset` must be (x, y), a tf.data.Dataset of such examples, or a dictionary of "
            f"such with the keys {SPLITS}. Received: {type(dataset).__name__}"
        )
    # On the host: a data set may exceed an accelerator's memory.
    with tf.device("CPU"):
        x, y = (tf.nest.map_structure(tf.convert_to_tensor, part) for part in dataset)
    counts = {int(array.shape[0]) for array in tf.nest.flatten((x, y))}
    if len(counts) != 1:
        raise ValueError(
            f"`dataset` must have the same number of examples everywhere. Received: {counts}"
        )
    return x, y
