"""Blocks of rules whose state is a column of numbers for each element."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from l2l_keras.engine.backends import backend
from l2l_keras.engine.block import Block, BlockChange, RuleInputs
from l2l_keras.engine.layout import PackedLayout, Shape, StateArray, VariableInfo, divide
from l2l_keras.engine.shared import by_configuration
from l2l_keras.engine.state_dtype import StateDtype
from l2l_keras.rules import UpdateRule

Tensor = Any


def elementwise_blocks(
    group: str, rule: UpdateRule, state_dtype: str, variables: Mapping[int, VariableInfo]
) -> Iterator[Block]:
    """Yields the blocks of a rule of scope "element": parts of each device's variables."""
    yield from _sharded_blocks(group, rule, state_dtype, variables)
    for device, shapes in _by_device(variables).items():
        for part in divide(shapes):
            kernels = _kernels(rule, state_dtype, PackedLayout(part).size)
            yield PackedBlock(group, kernels, part, backend.window_length(device))


def whole_model_blocks(
    group: str, rule: UpdateRule, state_dtype: str, variables: Mapping[int, VariableInfo]
) -> Iterator[Block]:
    """Yields the blocks of a rule of scope "model": all of a device's variables are one problem."""
    yield from _sharded_blocks(group, rule, state_dtype, variables)
    for shapes in _by_device(variables).values():
        kernels = _kernels(rule, state_dtype, PackedLayout(shapes).size)
        yield WholeModelBlock(group, kernels, shapes)


class ElementwiseKernels:
    """The step of a rule on a stored state.

    The rule's weights are arguments of kernels; its own are never read.
    """

    def __init__(self, rule: UpdateRule, state_dtype: str) -> None:
        self.rule = rule
        self.dtype = StateDtype(state_dtype)
        self.sweep = backend.windowed(self.step)

    def step(
        self, weights: Sequence[Tensor], gradient: Tensor, stored: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the update `[n]`, and the next stored state `[rows, n]`."""
        numbers = self.dtype.decode(stored)
        rows = self.rule.state_rows_for(stored.shape[1])
        stops = np.cumsum(rows).tolist()
        state = tuple(numbers[stop - own : stop] for own, stop in zip(rows, stops, strict=True))
        with self.rule.using(weights):
            update, state = self.rule.step(gradient, state)
        return update, self.dtype.encode(ops.concatenate(state)) if state else stored


class PackedBlock:
    """Variables whose elements are packed into one vector, and their state into one array.

    The array has a column for each element. It is updated in windows of a few thousand columns:
    neither scratch memory nor the size of a graph grows with the block, and a core's cache holds
    all that a window needs. See `Block`.
    """

    def __init__(
        self,
        group: str,
        kernels: ElementwiseKernels,
        shapes: Mapping[int, Shape],
        window_length: int,
    ) -> None:
        self.group = group
        self.shapes = dict(shapes)
        self.kernels = [kernels]
        self._kernels = kernels
        self._layout = PackedLayout(shapes)
        self._window_length = window_length
        self._rows = sum(kernels.rule.state_rows_for(self._layout.size))
        shape, reference = (self._rows, self._layout.size), next(iter(self.shapes))
        self.state_arrays = [StateArray("state", shape, kernels.dtype.stored, (), reference)]

    def packed_gradients(self, gradients: Mapping[int, Tensor]) -> list[Tensor]:
        """Returns the gradients of the block's variables as one vector."""
        return [self._layout.pack(gradients)]

    def step(self, inputs: RuleInputs, state: Sequence[Any]) -> Iterator[BlockChange]:
        """Takes one step of the rule; see `Block.step`."""
        updated = self._updated(inputs.gradients)
        windows = self._layout.windows(updated, self._window_length)
        if not len(windows.start):
            return
        vector = self._layout.pack(inputs.gradients)
        update, (new_state,) = self._kernels.sweep(
            state, inputs.learning_rate, inputs.weights, vector, windows, inputs.accepted
        )
        yield BlockChange(self._layout.unpack(update, inputs.gradients), {0: new_state})

    def state_of(self, state: Sequence[Tensor], index: int) -> Tensor:
        """Returns the state of the elements of a variable; see `Block.state_of`."""
        stored = ops.reshape(ops.convert_to_tensor(state[0]), (self._rows, self._layout.size))
        numbers = self._kernels.dtype.decode(stored[:, self._layout.span(index)])
        return ops.reshape(numbers, (self._rows, *self.shapes[index]))

    def diagnose(self, state: Sequence[Tensor], index: int) -> dict[str, Tensor]:
        """Returns diagnostics of a variable; see `Block.diagnose`."""
        own = ops.reshape(self.state_of(state, index), (self._rows, -1))
        return self._kernels.rule.diagnose(own)

    def _updated(self, gradients: Mapping[int, Tensor]) -> Sequence[int]:
        """Returns the indices of the variables whose state changes."""
        return [index for index in self.shapes if index in gradients]


class WholeModelBlock(PackedBlock):
    """Variables that are one problem: all of their elements take part in every step.

    A variable without a gradient takes part with a gradient of zero, and is not updated itself.
    """

    def __init__(
        self, group: str, kernels: ElementwiseKernels, shapes: Mapping[int, Shape]
    ) -> None:
        super().__init__(group, kernels, shapes, max(1, PackedLayout(shapes).size))

    def _updated(self, gradients: Mapping[int, Tensor]) -> Sequence[int]:
        """Returns all indices."""
        return list(self.shapes)


class ShardedBlock(PackedBlock):
    """A variable that is sharded over a device mesh, with a state that is sharded like it.

    A step covers all elements at once: each device computes its own, where windows would have to be
    gathered from several.
    """

    def __init__(
        self, group: str, kernels: ElementwiseKernels, index: int, variable: VariableInfo
    ) -> None:
        super().__init__(group, kernels, {index: variable.shape}, window_length=1)
        shape, axes = (self._rows, *variable.shape), (None, *variable.axes)
        self.state_arrays = [StateArray("state", shape, kernels.dtype.stored, axes, index)]

    def step(self, inputs: RuleInputs, state: Sequence[Any]) -> Iterator[BlockChange]:
        """Takes one step of the rule; see `Block.step`."""
        stored = ops.reshape(state[0], (self._rows, self._layout.size))
        vector = self._layout.pack(inputs.gradients)
        update, new_stored = self._kernels.step(inputs.weights, vector, stored)
        new_stored = ops.where(inputs.accepted, new_stored, stored)
        update = ops.where(inputs.accepted, inputs.learning_rate * update, 0.0)
        new_state = ops.reshape(new_stored, state[0].shape)
        yield BlockChange(self._layout.unpack(update, inputs.gradients), {0: new_state})


@by_configuration
def _kernels(rule: UpdateRule, state_dtype: str, size: int) -> ElementwiseKernels:
    """Returns the kernels of blocks of one size."""
    del size
    return ElementwiseKernels(rule, state_dtype)


def _sharded_blocks(
    group: str, rule: UpdateRule, state_dtype: str, variables: Mapping[int, VariableInfo]
) -> Iterator[Block]:
    """Yields a block for each sharded variable."""
    for index, variable in variables.items():
        if variable.axes:
            kernels = _kernels(rule, state_dtype, math.prod(variable.shape))
            yield ShardedBlock(group, kernels, index, variable)


def _by_device(variables: Mapping[int, VariableInfo]) -> dict[str, dict[int, Shape]]:
    """Returns the shapes of the variables that are not sharded, by device and index."""
    shapes: dict[str, dict[int, Shape]] = {}
    for index, variable in variables.items():
        if not variable.axes:
            shapes.setdefault(variable.device, {})[index] = variable.shape
    return shapes
