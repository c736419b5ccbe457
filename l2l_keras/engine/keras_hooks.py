"""The private parts of Keras that cannot be avoided; nothing else in the package uses any.

`tests/keras_hooks_test.py` fails when Keras changes one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

Tensor = Any
Variable = Any


class BatchOptimizer(keras.optimizers.Optimizer):
    """An optimizer that is given all gradients of a step at once, rather than one by one.

    A subclass implements `update_variables`.
    """

    def update_variables(
        self, gradients: Sequence[Tensor], variables: Sequence[Variable], learning_rate: Any
    ) -> None:
        """Updates variables, given their clipped and unscaled gradients.

        Args:
            gradients: Gradients, of this replica only under a `tf.distribute` strategy.
            variables: Variables that the optimizer was built with, none of them twice.
            learning_rate: A scalar.
        """
        raise NotImplementedError

    # The one place where all gradients and variables are at hand *after* clipping, unscaling,
    # weight decay, accumulation and the filter for missing gradients, none of which is to be
    # written a second time. The public `update_step` sees one variable only: a graph would hold
    # one LSTM for every variable. Keras' own optimizers for TensorFlow and PyTorch override it.
    def _backend_update_step(
        self, grads: Sequence[Tensor], trainable_variables: Sequence[Variable], learning_rate: Any
    ) -> None:
        self.update_variables(grads, trainable_variables, learning_rate)

    def track(self, variables: Sequence[Variable]) -> None:
        """Counts variables among those of the optimizer.

        Keras does so with variables that it finds in an attribute's list, but not within
        `Model.compile`, where a name becomes an optimizer.
        """
        for variable in variables:
            self._track_variable(variable)

    def index_of(self, variable: Variable) -> int:
        """Returns the index of a variable among those that the optimizer was built with.

        On TensorFlow, it may be a `tf.Variable` or a replica's part of one.
        """
        # Private by its name only: the example in the documentation of `keras.optimizers.Optimizer`
        # tells subclasses to use it, and there is no other way from a variable to its state.
        return self._get_variable_index(variable)
