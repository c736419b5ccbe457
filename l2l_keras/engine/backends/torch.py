"""PyTorch: state in tensors that are updated in place, and no compilation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from keras import ops

from l2l_keras.engine.backends import boundary
from l2l_keras.engine.backends.boundary import Change, Step, StepInputs
from l2l_keras.engine.backends.defaults import (  # noqa: F401
    after,
    device,
    handle,
    next_to,
    pack,
    replicated,
    synchronize,
    unpack,
)
from l2l_keras.engine.backends.windows import Windows, WindowStep

Tensor = Any
Variable = Any


def compile_step(step: Step) -> Callable[[StepInputs], Tensor]:
    """Returns a function that takes a step, and returns whether it counts."""

    @torch.no_grad()
    def run(variables: StepInputs) -> Tensor:
        inputs = boundary.mapped(variables, handle, handle)

        def write(change: Change) -> list[Any]:
            for index, update in change.updates.items():
                inputs.parameters[index].add_(update)
            for index, value in change.values.items():
                inputs.parameters[index].copy_(value)
            return []

        result = boundary.run(step(inputs), write, after)
        for name, value in result.scalars.items():
            variables.scalars[name].assign(value)
        return result.accepted

    return run


def kernel(function: Callable[..., tuple[Any, Sequence[Tensor]]]) -> Callable[..., Any]:
    """Returns a kernel that copies the next state into its state arrays."""

    def run(state: Sequence[Tensor], *inputs: Any) -> tuple[Any, Sequence[Tensor]]:
        output, new_state = function(state, *inputs)
        if new_state:
            for array, value in zip(state, new_state, strict=True):
                array.copy_(value)
        return output, state

    return run


def windowed(step: WindowStep) -> Callable[..., Any]:
    """Returns a step over windows, whose state is updated in place; see `windows.loop`."""

    def run(
        state: Sequence[Tensor],
        factor: Tensor,
        weights: Sequence[Tensor],
        gradient: Tensor,
        windows: Windows,
        accepted: Tensor,
    ) -> tuple[Tensor, Sequence[Tensor]]:
        vector = ops.zeros_like(gradient)
        if accepted:
            (own,) = state
            # Without compilation, windows may differ in length.
            for first, last in zip(windows.first.tolist(), windows.last.tolist(), strict=True):
                update, own[:, first:last] = step(weights, gradient[first:last], own[:, first:last])
                vector[first:last] = factor * update
        return vector, state

    return run


def clear(states: Sequence[Tensor], condition: Tensor) -> Sequence[Tensor]:
    """Zeroes state arrays if a condition holds."""
    if condition:
        for state in states:
            state.zero_()
    return states


def bitcast(tensor: Tensor, dtype: str) -> Tensor:
    """Returns the bits of a tensor as another type of the same width."""
    return tensor.view(getattr(torch, dtype))


def window_length(device_name: str) -> int:
    """Returns how many elements to process at a time: without compilation, fewer calls count."""
    return 2**13 if device_name == "cpu" else 2**16


def sees_losses() -> bool:
    """Returns True: the trainer scales the loss of the very weights that the step updates."""
    return True
