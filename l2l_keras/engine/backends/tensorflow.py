"""TensorFlow: state in `tf.Variable`s, steps in a `tf.function`, kernels as programs of XLA."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from l2l_keras.engine.backends import boundary, windows
from l2l_keras.engine.backends.boundary import Change, Step, StepInputs
from l2l_keras.engine.backends.defaults import synchronize  # noqa: F401

Tensor = Any
Variable = Any

after = tf.control_dependencies
bitcast = tf.bitcast


def compile_step(step: Step) -> Callable[[StepInputs], Tensor]:
    """Returns a compiled function that takes a step, and returns whether it counts."""

    # Not one program of XLA, which takes more than ten milliseconds to compile each of the copies
    # from and to a variable: eight seconds for 400 of them.
    @tf.function(autograph=False)
    def run(variables: StepInputs) -> Tensor:
        def write(change: Change) -> list[Any]:
            parameters = variables.parameters
            added = [
                parameters[index].assign_add(tf.cast(update, parameters[index].dtype))
                for index, update in change.updates.items()
            ]
            assigned = [
                parameters[index].assign(tf.cast(value, parameters[index].dtype))
                for index, value in change.values.items()
            ]
            return added + assigned

        inputs = boundary.mapped(variables, tf.convert_to_tensor, lambda variable: variable)
        result = boundary.run(step(inputs), write, after)
        for name, value in result.scalars.items():
            variables.scalars[name].assign(value)
        return result.accepted

    return lambda inputs: run(boundary.mapped(inputs, handle, handle))


def kernel(function: Callable[..., tuple[Any, Sequence[Tensor]]]) -> Callable[..., Any]:
    """Compiles a kernel with XLA, which reads and assigns its state itself, in place."""

    # Handles as arguments: states of one size share the program. A variable as an argument would
    # have to outlive it.
    @tf.function(jit_compile=True, autograph=False)
    def program(specs: Any, handles: list[Any], *inputs: Any) -> Any:
        state = [
            tf.ensure_shape(tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype), shape)
            for (shape, dtype), handle in zip(specs, handles, strict=True)
        ]
        output, new_state = function(state, *inputs)
        if new_state:
            for handle, value in zip(handles, new_state, strict=True):
                tf.raw_ops.AssignVariableOp(resource=handle, value=value)
        return output

    def run(state: Sequence[Any], *inputs: Any) -> tuple[Any, Sequence[Any]]:
        specs = tuple((tuple(array.shape), array.dtype) for array in state)
        return program(specs, [array.handle for array in state], *inputs), state

    return run


def windowed(step: windows.WindowStep) -> Callable[..., Any]:
    """Compiles a step over windows; see `windows.loop`."""
    return kernel(functools.partial(windows.loop, step))


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Returns tensors as one vector: each argument of a program costs a microsecond a call."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)


def unpack(packed: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Returns the tensors in a vector that `pack` returned, given their shapes."""
    parts = tf.split(packed, [math.prod(shape) for shape in shapes])
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]


def clear(states: Sequence[Any], condition: Tensor) -> Sequence[Any]:
    """Zeroes state arrays if a condition holds."""

    def assign_zeros() -> None:
        for state in states:
            state.assign(tf.zeros(state.shape, state.dtype))

    tf.cond(condition, assign_zeros, lambda: None)
    return states


def window_length(device_name: str) -> int:
    """Returns how many elements to process at a time on a device.

    A processor takes as many as stay in a core's cache with all that a rule computes for them; an
    accelerator as many as fill it, since each launch costs it several microseconds.
    """
    del device_name
    return 2**16 if tf.config.list_logical_devices("GPU") else 2**11


def handle(variable: Variable) -> Variable:
    """Returns the `tf.Variable` in a Keras variable."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def device(variable: Variable) -> str:
    """Returns the device on which a variable was placed."""
    return handle(variable).device


def next_to(variable: Variable) -> contextlib.AbstractContextManager[Any]:
    """Returns a scope that places new variables on the device of `variable`, as Keras does."""
    return tf.distribute.get_strategy().extended.colocate_vars_with(handle(variable))


def replicated() -> bool:
    """Returns whether a `tf.distribute` strategy is in force."""
    return tf.distribute.has_strategy()


def sees_losses() -> bool:
    """Returns whether losses can be recorded: not where they are traced apart from the step."""
    return not tf.distribute.has_strategy()


def run_on_replicas(
    run: Callable[[StepInputs], Tensor],
    inputs: StepInputs,
    delegate: Callable[[dict[int, Tensor], dict[int, Variable]], None],
) -> None:
    """Takes a step on every replica's copies of variables, with the sum of all gradients.

    Then, if the step counts, calls `delegate` on every replica with its gradients and parameters.
    """
    indices = list(inputs.gradients)

    def merged(
        strategy: Any, gradients: list[Tensor], sums: list[Tensor], learning_rate: Tensor
    ) -> None:
        def update(anchor: Variable, inputs: StepInputs) -> Tensor:
            del anchor
            return run(inputs)

        reduced = inputs._replace(
            gradients=dict(zip(indices, sums, strict=True)), learning_rate=learning_rate
        )
        # Each device updates its own copies. They are arguments, since a trace for one device would
        # capture the copies of that device.
        reduced = boundary.mapped(reduced, handle, handle)
        anchor = next(iter(reduced.scalars.values()))
        accepted = strategy.extended.update(anchor, update, args=(reduced,), group=False)

        def apply(gradients: list[Tensor]) -> None:
            delegate(dict(zip(indices, gradients, strict=True)), inputs.parameters)

        # Here, since the code of a single replica cannot wait for the others in a condition.
        tf.cond(
            accepted[0],
            lambda: strategy.extended.call_for_each_replica(apply, args=(gradients,)),
            lambda: None,
        )

    context = tf.distribute.get_replica_context()
    gradients = list(inputs.gradients.values())
    sums = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    context.merge_call(merged, args=(gradients, sums, inputs.learning_rate))
