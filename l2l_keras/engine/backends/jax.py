"""JAX: state in arrays that a step takes and returns, and the whole step as one program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import keras
from keras import ops

from l2l_keras.engine.backends import boundary, windows
from l2l_keras.engine.backends.boundary import Change, Step, StepInputs
from l2l_keras.engine.backends.defaults import (  # noqa: F401
    after,
    device,
    handle,
    next_to,
    pack,
    replicated,
    unpack,
)

Tensor = Any
Variable = Any

bitcast = jax.lax.bitcast_convert_type


def compile_step(step: Step) -> Callable[[StepInputs], Tensor]:
    """Returns a compiled function that takes a step, and returns whether it counts."""

    @jax.jit
    def compute(inputs: StepInputs) -> tuple[boundary.StepResult, dict[int, Tensor]]:
        new: dict[int, Tensor] = {}

        def write(change: Change) -> list[Any]:
            parameters = inputs.parameters
            for index, update in change.updates.items():
                new[index] = parameters[index] + ops.cast(update, parameters[index].dtype)
            for index, value in change.values.items():
                new[index] = ops.cast(value, parameters[index].dtype)
            return []

        return boundary.run(step(inputs), write, after), new

    def run(inputs: StepInputs) -> Tensor:
        result, new = compute(boundary.mapped(inputs, handle, handle))
        for index, value in new.items():
            inputs.parameters[index].assign(value)
        written = zip(
            jax.tree.leaves((inputs.rule_states, inputs.slots, inputs.scalars)),
            jax.tree.leaves((result.rule_states, result.slots, result.scalars)),
            strict=True,
        )
        for variable, value in written:
            variable.assign(value)
        return result.accepted

    return run


def kernel(function: Callable[..., tuple[Any, Sequence[Tensor]]]) -> Callable[..., Any]:
    """Returns a kernel, which becomes a part of the step's program."""

    def run(state: Sequence[Tensor], *inputs: Any) -> tuple[Any, Sequence[Tensor]]:
        output, new_state = function(state, *inputs)
        return output, new_state or state

    return run


def windowed(step: windows.WindowStep) -> Callable[..., Any]:
    """Returns a step over windows; see `windows.loop`."""
    return functools.partial(windows.loop, step)


def clear(states: Sequence[Tensor], condition: Tensor) -> list[Tensor]:
    """Returns state arrays, zeroed if a condition holds."""
    return [ops.where(condition, ops.zeros_like(state), state) for state in states]


def window_length(device_name: str) -> int:
    """Returns how many elements to process at a time; see the module for TensorFlow."""
    del device_name
    return 2**11 if jax.default_backend() == "cpu" else 2**16


def sees_losses() -> bool:
    """Returns False: JAX' trainer scales losses in a function whose side effects are lost."""
    return False


def synchronize(model: keras.Model) -> None:
    """Writes the values of JAX' trainer to the model's variables; it reads them again."""
    model.jax_state_sync()
