"""Any Keras model and data set as an optimizee."""

from __future__ import annotations

import functools
import inspect
import math
import random
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2l_keras import arguments
from l2l_keras.tasks import examples, splits
from l2l_keras.tasks.base import Nest, Split, Task, Tensor, Weight, split_seed

_DEFAULT_BATCH_SIZE = 32
"""As that of `keras.Model.fit`."""
_FEW_BATCHES = 3


class KerasTask(Task):
    """Trains a Keras model on minibatches of a data set, as `keras.Model.fit` does.

    Each optimizee is the model with fresh initial weights, as `model_fn` draws them. Its loss is
    what `fit` minimizes: `model.compute_loss` of the compiled model, with masks, sample weights,
    loss weights and the model's own losses (regularizers); dropout is active, batch normalization
    uses and updates its statistics. Constraints of variables are applied after each update.

    Args:
        model_fn: Returns a new, built and compiled model with freshly drawn weights at every call.
            Initial weights follow the seed if they come from Keras initializers, NumPy or `random`.
        loss: What to compile the models with, as `keras.Model.compile` takes it, if `model_fn`
            returns models that are not compiled. Defaults to None.
        dataset: The examples, as `fit` takes them: `(x, y)` or `(x, y, sample_weight)` of arrays or
            nested structures of arrays, a `tf.data.Dataset` of minibatches (or of single examples),
            a `keras.utils.PyDataset`, a generator or a torch `DataLoader`. Minibatches of sequences
            of different lengths are padded, if the model masks padding. Optimizees of all splits
            train on 70 % of them (in meta-training, on three quarters of these, and the last
            quarter is held out); 15 % each are held out for validation and test optimizees. Or a
            dictionary of such, with the keys `"train"`, `"validation"` and `"test"`, each for the
            optimizees of that split to train on.
        validation_data: Examples to hold out instead, like `dataset`: one half for validation and
            one for test optimizees. Defaults to None; a dictionary then holds nothing out.
        batch_size: Examples in a minibatch, which are drawn with replacement. Defaults to the
            number in the minibatches of `dataset`, or to 32.
        transform: Function of `(x, y)` applied to every minibatch, for example to scale pixels
            that are stored in a compact type. Defaults to none.
        stream: Whether to leave arrays where they are, such as on disk, and to keep what is read
            from other data sets in temporary files, rather than in memory. Defaults to False.
        class_weight: Weights of classes by label, as `fit` takes them. Defaults to None.
        steps_per_epoch: Minibatches of `dataset` to read; needed if it has no end. Defaults to all.
        same_start: Whether all optimizees are meant to start from the same weights, as in
            fine-tuning: then only their minibatches differ. Defaults to False: a warning says so
            if they do.
        jit_compile: Whether to compile the model with XLA. Best for small dense models; Keras'
            convolutions become several times slower on a CPU. Defaults to False.
        name: Name of the task. Defaults to that of `model_fn`'s module, such as the file it is in.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> x, y = np.random.rand(100, 4).astype("float32"), np.random.rand(100)
        >>> def model_fn():
        ...     model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        ...     model.compile(loss="mean_squared_error", metrics=["mean_absolute_error"])
        ...     return model
        >>> task = l2l_keras.tasks.KerasTask(model_fn, dataset=(x, y), batch_size=10)
        >>> task.size
        5
    """

    def __init__(
        self,
        model_fn: Callable[[], keras.Model],
        loss: Any = None,
        dataset: Any = None,
        batch_size: int | None = None,
        transform: Callable[[Nest, Nest], tuple[Nest, Nest]] | None = None,
        validation_data: Any = None,
        stream: bool = False,
        class_weight: Mapping[int, float] | None = None,
        steps_per_epoch: int | None = None,
        same_start: bool = False,
        jit_compile: bool = False,
        name: str | None = None,
    ) -> None:
        if batch_size is not None:
            arguments.count("batch_size", batch_size)
        self.name = name or _module_name(model_fn)
        self.jit_compile = jit_compile
        self._model_fn = model_fn
        self._transform = transform
        self._class_weight = class_weight
        self._model = self._new_model(0)
        _compile(self._model, loss)
        self._model.jit_compile = jit_compile  # Of `evaluate`; Keras' default is to use XLA.
        self.constrained = any(v.constraint for v in self._model.trainable_variables)
        if not self.layout:
            raise ValueError("`model_fn` must return a model with trainable variables.")
        if not same_start:
            self._warn_of_same_starts()
        if stream and jit_compile:
            raise ValueError("XLA cannot stream. Received: stream=True, jit_compile=True")
        read = functools.partial(
            examples.read,
            steps=steps_per_epoch,
            stream=stream,
            loss_of=self._loss_of,
        )
        self._data = splits.divide(dataset, validation_data, read)
        self.holds_out = all(data.held_out for data in self._data.values())
        source = self._data["train"].training.examples
        self._batch_size = batch_size or source.batch_size or _DEFAULT_BATCH_SIZE
        self._warn_of_few_examples()
        # Keras builds what a loss keeps at its first use, which must not be in a graph.
        self._compute_loss(self.batch("train", tf.constant([0, 0])), training=True)

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
        state = tuple(tf.convert_to_tensor(v.value) for v in model.non_trainable_variables)
        return _flat(variables), state

    def batch(self, split: Split, seed: Tensor) -> Nest:
        """Draws `batch_size` examples with replacement; see `Task.batch`."""
        drawn = self._transformed(self._data[split].training.draw(self._batch_size, seed))
        return drawn if self._class_weight is None else _weigh(drawn, self._class_weight)

    def held_out_batch(self, split: Split, seed: Tensor) -> Nest:
        """Draws `batch_size` examples with replacement; see `Task.held_out_batch`."""
        return self._transformed(self._held_out(split).draw(self._batch_size, seed))

    def loss(self, parameters: Tensor, state: Nest, batch: Nest) -> tuple[Tensor, Nest]:
        """Computes the model's training loss; see `Task.loss`."""
        with self._with_values(parameters, state) as scope:
            loss = self._compute_loss(batch, training=True)
        new_state = tuple(
            old if (new := scope.get_current_value(variable)) is None else tf.convert_to_tensor(new)
            for variable, old in zip(self._model.non_trainable_variables, state, strict=True)
        )
        return tf.reshape(tf.cast(loss, "float32"), (1,)), new_state

    def held_out_loss(self, parameters: Tensor, state: Nest, batch: Nest) -> Tensor:
        """Computes the model's loss as `evaluate` of Keras does; see `Task.held_out_loss`."""
        with self._with_values(parameters, state):
            loss = self._compute_loss(batch, training=False)
        return tf.reshape(tf.cast(loss, "float32"), (1,))

    def evaluate(self, split: Split, parameters: Tensor, state: Nest) -> dict[str, float]:
        """Evaluates the model with `keras.Model.evaluate`; see `Task.evaluate`."""
        variables = [*self._model.trainable_variables, *self._model.non_trainable_variables]
        for variable, value in zip(variables, [*self.unflatten(parameters), *state], strict=True):
            variable.assign(value)
        batches = (
            self._held_out(split)
            .batches(self._batch_size)
            .map(lambda *batch: self._transformed(batch))
        )
        return self._model.evaluate(batches, verbose=0, return_dict=True)

    def constrain(self, parameters: Tensor) -> Tensor:
        """Applies the constraints of the model's variables; see `Task.constrain`."""
        variables = self._model.trainable_variables
        parts = [
            part if variable.constraint is None else variable.constraint(part)
            for part, variable in zip(self.unflatten(parameters), variables, strict=True)
        ]
        return tf.concat([tf.reshape(part, [-1]) for part in parts], axis=0)

    def _held_out(self, split: Split) -> splits.Part:
        """Returns the examples that a split holds out."""
        held_out = self._data[split].held_out
        if held_out is None:
            raise ValueError(
                "A dictionary of data sets holds no examples out: pass `validation_data`. "
                "Received: validation_data=None"
            )
        return held_out

    def _transformed(self, batch: Nest) -> Nest:
        """Applies the task's transformation, if there is one, to a minibatch."""
        if self._transform is None:
            return batch
        x, y, *weights = batch
        return (*self._transform(x, y), *weights)

    def _with_values(self, parameters: Tensor, state: Nest) -> keras.StatelessScope:
        """Returns a scope in which the model's variables have the values of an optimizee."""
        trainable, others = self._model.trainable_variables, self._model.non_trainable_variables
        values = [
            tf.cast(part, variable.dtype)
            for part, variable in zip(self.unflatten(parameters), trainable, strict=True)
        ]
        mapping = [*zip(trainable, values, strict=True), *zip(others, state, strict=True)]
        return keras.StatelessScope(state_mapping=mapping, collect_losses=True)

    def _compute_loss(self, batch: Nest, training: bool) -> Tensor:
        """Computes the loss of the model with its present weights."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        compute_loss = self._model.compute_loss
        # Models may override it as it was before it had this argument.
        takes_training = "training" in inspect.signature(compute_loss).parameters
        return compute_loss(
            x=x,
            y=y,
            y_pred=self._model(x, training=training),
            sample_weight=sample_weight,
            **({"training": training} if takes_training else {}),
        )

    def _loss_of(self, batch: Nest) -> float:
        """Computes the loss of a minibatch of arrays, without dropout."""
        batch = self._transformed(tf.nest.map_structure(tf.convert_to_tensor, batch))
        return float(self._compute_loss(batch, training=False))

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

    def _warn_of_same_starts(self) -> None:
        """Warns if fresh optimizees coincide."""
        other, _ = self.sample("train", 1)
        if bool(tf.reduce_all(_flat(self._model.trainable_variables) == other)):
            warnings.warn(
                "All optimizees start from the same weights: `model_fn` returns the same model "
                "twice, sets a seed (`keras.utils.set_random_seed`, `seed=`), loads weights, or "
                "draws none. Results are then those of one network. Pass `same_start=True` if "
                "that is meant.",
                stacklevel=3,
            )

    def _warn_of_few_examples(self) -> None:
        """Warns if the examples of a split are but a few minibatches."""
        parts = {
            f"{words} {split} optimizees": part
            for split, data in self._data.items()
            for words, part in (("for", data.training), ("held out of", data.held_out))
            if part is not None
        }
        words, smallest = min(parts.items(), key=lambda item: item[1].total)
        if smallest.total < _FEW_BATCHES * self._batch_size:
            warnings.warn(
                f"Only {smallest.total} examples {words}, and {self._batch_size} in a minibatch: "
                "they are soon memorized, or tell little.",
                stacklevel=3,
            )


def _module_name(function: Callable) -> str:
    """Returns the last part of the name of a function's module, which may be a path."""
    module = function.__module__ if inspect.isroutine(function) else "keras_task"
    return re.split(r"[./\\]", module.removesuffix(".py"))[-1]


def _weigh(batch: Nest, class_weight: Mapping[int, float]) -> Nest:
    """Returns a minibatch with sample weights from the weights of classes, as in `fit`."""
    if len(batch) != 2 or tf.nest.is_nested(batch[1]):
        raise ValueError(
            "`class_weight` needs one array of labels, and no sample weights. Received: "
            f"class_weight={class_weight}, minibatches of {len(batch)} parts"
        )
    x, y = batch
    labels = y
    if y.shape.rank > 1:
        labels = y[..., 0] if y.shape[-1] == 1 else tf.argmax(y, axis=-1)
    labels = tf.round(tf.cast(labels, "float32"))
    weights = tf.ones_like(labels)
    for label, weight in class_weight.items():
        weights = tf.where(labels == float(label), float(weight), weights)
    return x, y, weights


def _flat(variables: Sequence[keras.Variable]) -> Tensor:
    """Returns the values of variables as one vector, float32 `[n]`."""
    return tf.concat([tf.cast(tf.reshape(v.value, [-1]), "float32") for v in variables], axis=0)


def _compile(model: keras.Model, loss: Any) -> None:
    """Compiles a model that is not compiled, and checks that it can be trained on its loss."""
    if model.compiled and loss is not None:
        raise ValueError(
            "`loss` is for models that are not compiled. Received: a compiled model, and "
            f"loss={loss!r}"
        )
    if type(model).train_step is not keras.Model.train_step:
        raise ValueError(
            "A model with a `train_step` of its own is trained in a way that cannot be seen from "
            "outside: override `compute_loss` instead. "
            f"Received: {type(model).__name__}.train_step"
        )
    if not model.compiled:
        model.compile(loss=loss)
