"""Tests that Keras still has the private parts that `l2l_keras/engine/keras_hooks.py` uses.

If one of these fails after an upgrade, that file is what to change.
"""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

from l2l_keras.engine.keras_hooks import BatchOptimizer


class Recorder(BatchOptimizer):
    """Notes what it is given."""

    def build(self, variables):
        super().build(variables)
        self.received = []

    def update_variables(self, gradients, variables, learning_rate):
        self.received.append((gradients, variables, learning_rate))


def recorded(**arguments):
    """Returns an optimizer that has seen one step with one gradient missing, and the variables."""
    optimizer = Recorder(learning_rate=0.5, **arguments)
    variables = [keras.Variable([1.0, 2.0]), keras.Variable([3.0]), keras.Variable([4.0])]
    optimizer.build(variables)
    gradients = [ops.array([3.0, 4.0]), None, ops.array([0.0])]
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply(gradients, variables)
    return optimizer, variables


def test_the_signature_is_as_overridden():
    parameters = list(inspect.signature(keras.optimizers.Optimizer._backend_update_step).parameters)
    assert parameters == ["self", "grads", "trainable_variables", "learning_rate"]


def test_apply_calls_the_batch_hook_once_with_what_is_left_to_do():
    optimizer, variables = recorded(global_clipnorm=1.0, loss_scale_factor=2.0)
    ((gradients, updated, learning_rate),) = optimizer.received
    np.testing.assert_allclose(ops.convert_to_numpy(gradients[0]), [0.6, 0.8], rtol=1e-6)
    assert len(gradients) == len(updated) == 2
    assert updated[0] is variables[0] and updated[1] is variables[2]
    assert float(ops.convert_to_numpy(learning_rate)) == 0.5


def test_weight_decay_comes_before_it():
    optimizer, variables = recorded(weight_decay=0.1)
    np.testing.assert_allclose(ops.convert_to_numpy(variables[0]), [0.95, 1.9], rtol=1e-6)
    assert optimizer.received


def test_a_variable_has_an_index():
    optimizer, variables = recorded()
    assert [optimizer.index_of(v) for v in reversed(variables)] == [2, 1, 0]
    with pytest.raises(KeyError):
        optimizer.index_of(keras.Variable([1.0]))


def test_variables_are_tracked_within_compile():
    """Where Keras does not look for them in attributes."""

    class Holder(Recorder):
        def __init__(self):
            super().__init__(learning_rate=1.0)
            own = keras.Variable([1.0], name="own")
            self.track([own])
            self.found = [own]  # Outside of `compile`, it is not counted a second time.

        @classmethod
        def from_config(cls, config):
            return cls()

    with keras.saving.custom_object_scope({"Holder": Holder}):
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile("Holder")
    for optimizer in (model.optimizer, Holder()):
        assert [v.name for v in optimizer.variables] == ["iteration", "learning_rate", "own"]


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
