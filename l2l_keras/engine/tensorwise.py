"""Blocks of rules that decide once for each tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from l2l_keras.engine.backends import backend
from l2l_keras.engine.block import Block, BlockChange, RuleInputs
from l2l_keras.engine.layout import Axes, PackedLayout, Shape, StateArray, VariableInfo
from l2l_keras.engine.state_dtype import StateDtype
from l2l_keras.engine.tensorwise_kernels import control_kernel, part_kernels
from l2l_keras.rules import TensorwiseRule
from l2l_keras.rules.tensorwise.sampling import LARGE
from l2l_keras.rules.tensorwise.tensors import fan_in

Tensor = Any

# Small tensors share arrays and kernels, up to so many elements and tensors: the time of a step
# would otherwise go into calls of kernels.
_MOST_ELEMENTS, _MOST_TENSORS = 2**16, 32


def tensorwise_blocks(
    group: str, rule: TensorwiseRule, state_dtype: str, variables: Mapping[int, VariableInfo]
) -> Iterator[Block]:
    """Yields the one block of a rule of scope "tensor"; see `elementwise.elementwise_blocks`."""
    if variables:
        yield TensorwiseBlock(group, rule, state_dtype, variables)


class TensorwiseBlock:
    """Variables that a tensorwise rule updates together, part by part; see `Block`.

    A step goes through the parts twice: first to see how directions are aligned in each tensor,
    and, once the rule has decided, to update the tensors. Small tensors share a part; each of the
    others is one.
    """

    def __init__(
        self,
        group: str,
        rule: TensorwiseRule,
        state_dtype: str,
        variables: Mapping[int, VariableInfo],
    ) -> None:
        self.group = group
        self._rule = rule
        self._dtype = StateDtype(state_dtype)
        self._parts = list(_divide(variables))
        self._kernels = [part_kernels(rule, state_dtype, part.tensors) for part in self._parts]
        self.shapes = {i: shape for part in self._parts for i, shape in part.shapes.items()}
        fan_ins = tuple(fan_in(variables[i].path, shape) for i, shape in self.shapes.items())
        self._control = control_kernel(rule, tuple(self.shapes.values()), fan_ins)
        self.kernels = [self._control, *self._kernels]
        first = next(iter(self.shapes))
        shape = (rule.tensor_rows, len(self.shapes))
        self.state_arrays = [StateArray("tensor_state", shape, "float32", (), first)]
        for part in self._parts:
            first = next(iter(part.shapes))
            array = StateArray("state", part.shape, self._dtype.stored, part.axes, first)
            self.state_arrays += [array] * rule.element_rows

    def packed_gradients(self, gradients: Mapping[int, Tensor]) -> list[Tensor]:
        """Returns the gradients of the block's variables in one vector a part."""
        return [part.pack(gradients) for part in self._parts if part.members(gradients)]

    def step(self, inputs: RuleInputs, state: Sequence[Any]) -> Iterator[BlockChange]:
        """Takes one step of the rule; see `Block.step`."""
        weights = backend.pack(inputs.weights)
        grams, matrices = self._observe(inputs, weights, state)
        updated = np.array([index in inputs.gradients for index in self.shapes])
        coefficients, (tensor_state,) = self._control(
            state[:1],
            weights,
            grams,
            inputs.learning_rate,
            ops.logical_and(inputs.accepted, updated),
        )
        yield BlockChange({}, {0: tensor_state})
        start = 0
        for number, part in enumerate(self._parts):
            stop = start + len(part.shapes)
            if number in matrices:
                with backend.after([coefficients]):
                    # Gathered again: to keep them until now could take a copy of the whole model.
                    gradient, parameters = part.gather(inputs)
                updates, new_state = self._kernels[number].update(
                    state[self._arrays_of(number)],
                    weights,
                    gradient,
                    parameters,
                    matrices[number],
                    coefficients[start:stop],
                    inputs.accepted,
                    tuple(updated[start:stop].tolist()),
                )
                own = dict(zip(part.shapes, updates, strict=True))
                first = self._arrays_of(number).start
                yield BlockChange(
                    {index: own[index] for index in part.members(inputs.gradients)},
                    dict(enumerate(new_state, first)),
                )
            start = stop

    def state_of(self, state: Sequence[Tensor], index: int) -> Tensor:
        """Returns the state of the elements of a variable; see `Block.state_of`."""
        number = next(k for k, part in enumerate(self._parts) if index in part.shapes)
        part, stored = self._parts[number], state[self._arrays_of(number)]
        vectors = [ops.reshape(array, (part.size,))[part.span(index)] for array in stored]
        numbers = ops.stack([self._dtype.decode(vector) for vector in vectors])
        return ops.reshape(numbers, (len(vectors), *self.shapes[index]))

    def diagnose(self, state: Sequence[Tensor], index: int) -> dict[str, Tensor]:
        """Returns diagnostics of a variable; see `Block.diagnose`."""
        column = list(self.shapes).index(index)
        own = ops.convert_to_tensor(state[0])[:, column : column + 1]
        return self._rule.diagnose(own)

    def _observe(
        self, inputs: RuleInputs, weights: Any, state: Sequence[Any]
    ) -> tuple[list[Tensor], dict[int, list[Tensor]]]:
        """Returns the Gram matrices of all parts, and the matrix directions of updated ones."""
        rows = self._rule.matrix_direction_count + self._rule.direction_count
        grams: list[Tensor] = []
        matrices: dict[int, list[Tensor]] = {}
        for number, part in enumerate(self._parts):
            if not part.members(inputs.gradients):
                grams.append(ops.zeros((rows, rows, len(part.shapes)), "float32"))
                continue
            with backend.after(grams[-1:]):
                gradient, parameters = part.gather(inputs)
                gram, matrices[number] = self._kernels[number].observe(
                    state[self._arrays_of(number)], weights, gradient, parameters
                )
            grams.append(gram)
        return grams, matrices

    def _arrays_of(self, number: int) -> slice:
        """Returns which of the state arrays hold the state of a part's elements."""
        rows = self._rule.element_rows
        return slice(1 + number * rows, 1 + (number + 1) * rows)


class _Part(PackedLayout):
    """Tensors whose states share arrays: vectors, or arrays of the shape of a single tensor."""

    def __init__(self, shapes: Mapping[int, Shape], axes: Axes = ()) -> None:
        super().__init__(shapes)
        self.tensors = tuple(self.shapes.values())
        self.shape = self.tensors[0] if len(self.tensors) == 1 else (self.size,)
        self.axes = axes

    def members(self, gradients: Mapping[int, Tensor]) -> list[int]:
        """Returns the indices of its tensors that have a gradient."""
        return [index for index in self.shapes if index in gradients]

    def gather(self, inputs: RuleInputs) -> tuple[Tensor, Tensor]:
        """Returns gradients and parameters, float32, zero for tensors without a gradient."""
        values = {
            index: ops.cast(ops.convert_to_tensor(inputs.parameters[index]), "float32")
            for index in self.members(inputs.gradients)
        }
        if len(self.shapes) == 1:
            ((index, value),) = values.items()
            return ops.reshape(inputs.gradients[index], self.shape), value
        vectors = {index: ops.reshape(value, (-1,)) for index, value in values.items()}
        return self.pack(inputs.gradients), self.pack(vectors)


def _divide(variables: Mapping[int, VariableInfo]) -> Iterator[_Part]:
    """Yields the parts of a block."""
    small: dict[str, dict[int, Shape]] = {}
    # Tensors of one shape become neighbours: they are computed at once.
    for index, variable in sorted(variables.items(), key=lambda item: item[1].shape):
        n = math.prod(variable.shape)
        if n > LARGE or variable.axes:
            yield _Part({index: variable.shape}, variable.axes)
            continue
        part = small.setdefault(variable.device, {})
        size = sum(map(math.prod, part.values()))
        if part and (size + n > _MOST_ELEMENTS or len(part) == _MOST_TENSORS):
            yield _Part(part)
            part = small[variable.device] = {}
        part[index] = variable.shape
    yield from map(_Part, small.values())
