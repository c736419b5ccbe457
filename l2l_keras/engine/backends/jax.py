"""JAX: state in arrays that a step takes and returns, and the whole step as one program."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import keras
from keras import ops

from l2l_keras.engine.backends import boundary, windows
from l2l_keras.engine.backends.boundary import Change, Step, StepInputs

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


def pack(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Returns the tensors as they are."""
    return tensors


def unpack(packed: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> Sequence[Tensor]:
    """Returns the tensors as they are."""
    del shapes
    return packed


def clear(states: Sequence[Tensor], condition: Tensor) -> list[Tensor]:
    """Returns state arrays, zeroed if a condition holds."""
    return [ops.where(condition, ops.zeros_like(state), state) for state in states]


def after(tensors: Sequence[Any]) -> contextlib.AbstractContextManager[Any]:
    """Returns a scope without effect: XLA schedules the program so that it needs little memory."""
    del tensors
    return contextlib.nullcontext()


def window_length(device: str) -> int:
    """Returns how many elements to process at a time; see the module for TensorFlow."""
    del device
    return 2**11 if jax.default_backend() == "cpu" else 2**16


def handle(variable: Variable) -> Tensor:
    """Returns the value of a variable."""
    return variable.value


def device(variable: Variable) -> str:
    """Returns the device on which a variable was placed."""
    return str(getattr(variable.value, "device", ""))


def next_to(variable: Variable) -> contextlib.AbstractContextManager[Any]:
    """Returns a scope without effect: layouts place variables."""
    del variable
    return contextlib.nullcontext()


def replicated() -> bool:
    """Returns False: JAX distributes tensors, not steps."""
    return False


def sees_losses() -> bool:
    """Returns False: JAX' trainer scales losses in a function whose side effects are lost."""
    return False


def synchronize(model: keras.Model) -> None:
    """Writes the values of JAX' trainer to the model's variables; it reads them again."""
    model.jax_state_sync()
