"""Which examples the optimizees of a split train on, and which are held out of their training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from l2l_keras.tasks.base import SPLITS, Nest, Split, Tensor
from l2l_keras.tasks.examples import Examples


class Part(NamedTuple):
    """A part of a data set: all examples, and the indices of those that belong to it."""

    examples: Examples
    indices: Tensor

    @property
    def total(self) -> int:
        """Number of examples in this part."""
        return int(self.indices.shape[0])

    def draw(self, count: int, seed: Tensor) -> tuple[Nest, ...]:
        """Draws examples with replacement."""
        drawn = tf.random.stateless_uniform((count,), seed, 0, self.total, tf.int32)
        return self.examples.take(tf.gather(self.indices, drawn))

    def batches(self, size: int) -> tf.data.Dataset:
        """Returns all examples in order, in minibatches."""
        return tf.data.Dataset.from_tensor_slices(self.indices).batch(size).map(self.examples.take)


class Data(NamedTuple):
    """The examples of a split: those to train on, and those held out, if there are any."""

    training: Part
    held_out: Part | None


def divide(
    dataset: Any, validation_data: Any, read: Callable[[Any], Examples]
) -> dict[Split, Data]:
    """Divides a data set into those of the splits.

    Validation and test optimizees train on the same examples, 70 % of a data set, and each of the
    two splits holds out other ones, 15 % each; or, of `validation_data`, one half each. Training
    optimizees train on three quarters of these training examples, so that the last quarter can be
    held out of their training, too, and no part of meta-training sees what others hold out.

    Args:
        dataset: What `read` takes; or a dictionary of such for each split.
        validation_data: Examples to hold out, like `dataset`; or None.
        read: Reads examples.

    Raises:
        ValueError: If there are too few examples, or one of both is a dictionary alone.
    """
    by_split = isinstance(dataset, Mapping) and set(dataset) == set(SPLITS)
    if validation_data is not None and by_split != isinstance(validation_data, Mapping):
        raise ValueError(
            "`validation_data` must be a dictionary with the keys of `dataset` if that is one, and "
            f"only then. Received: {type(validation_data).__name__}"
        )
    held_out: dict[Split, Part | None] = dict.fromkeys(SPLITS)
    if by_split:
        if validation_data is not None:
            held_out = {split: _all(read(validation_data[split])) for split in SPLITS}
        return {split: Data(_all(read(dataset[split])), held_out[split]) for split in SPLITS}
    training = _all(read(dataset))
    if training.total < 10:
        raise ValueError(f"`dataset` must hold at least 10 examples. Received: {training.total}")
    if validation_data is None:
        training, validation, test = _random_parts(training, 0.7, 0.85)
    else:
        validation, test = _random_parts(_all(read(validation_data)), 0.5)
    return {
        "train": Data(*_random_parts(training, 0.75)),
        "validation": Data(training, validation),
        "test": Data(training, test),
    }


def _all(examples: Examples) -> Part:
    return Part(examples, tf.range(examples.total))


def _random_parts(part: Part, *bounds: float) -> list[Part]:
    """Divides a part at random, at shares of its examples."""
    order = np.random.default_rng(0).permutation(part.indices)
    cuts = [int(bound * part.total) for bound in bounds]
    return [part._replace(indices=tf.constant(own)) for own in np.split(order, cuts)]
