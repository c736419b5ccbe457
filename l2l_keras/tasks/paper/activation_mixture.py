"""A layer whose activation function is drawn with the initial weights of its model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

Tensor = Any


class ActivationMixture(keras.layers.Layer):
    """Applies one of several activation functions.

    Which one is a (non-trainable) weight, so that models of different activations are one
    architecture, and one compiled program trains them all.

    Args:
        activations: Names of Keras' activation functions.
        chosen: Index of the one to apply.

    Example:
        >>> layer = ActivationMixture(["relu", "tanh"], chosen=0)
        >>> layer(np.array([[-1.0, 2.0]])).numpy()
        array([[0., 2.]], dtype=float32)
    """

    def __init__(self, activations: Sequence[str], chosen: int) -> None:
        super().__init__()
        self._functions = [keras.activations.get(name) for name in activations]
        self._shares = self.add_weight(
            shape=(len(activations),), initializer="zeros", trainable=False, name="shares"
        )
        self._shares.assign([float(k == chosen) for k in range(len(activations))])

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the chosen function of the inputs."""
        values = [function(inputs) for function in self._functions]
        return ops.tensordot(self._shares, ops.stack(values), axes=1)
