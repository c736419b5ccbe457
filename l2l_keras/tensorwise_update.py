"""One step of a tensorwise rule over many variables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from l2l_keras import _backend
from l2l_keras.columns import Columns, Shape, Slot, Step, Tensor, slot_like
from l2l_keras.stored_rule import StoredTensorwiseRule

# Variables of up to so many coordinates share arrays and programs, up to so many coordinates and
# variables: otherwise a step of small ones would mostly be calls of programs.
_SMALL, _LIMIT, _MOST = 2**13, 2**16, 32


class TensorwiseBlock:
    """Variables that a tensorwise rule updates together.

    They are gone through part by part: at first to see how the directions are aligned in each
    variable, and then, once the rule has decided, to update them. Small variables are a part
    together, and each of the others is one.

    Args:
        group: Name of the rule's group.
        stored_rule: The rule.
        shapes: Shape of each variable, by its place among the optimizer's variables.
        fan_ins: How many inputs a unit has in each, by the variables' places.
        axes: Axes of the device mesh over which variables are sharded, by their places; () if
            over none.
        devices: Where the variables lie, by their places.

    Attributes:
        group: Name of the rule's group.
        shapes: Shapes of the variables, by their places, part by part.
    """

    def __init__(
        self,
        group: str,
        stored_rule: StoredTensorwiseRule,
        shapes: Mapping[int, Shape],
        fan_ins: Mapping[int, int],
        axes: Mapping[int, tuple[str | None, ...]],
        devices: Mapping[int, str],
    ) -> None:
        self.group = group
        self.stored_rule = stored_rule
        self._parts = list(_divide(shapes, axes, devices))
        self.shapes = {i: shape for part in self._parts for i, shape in part.shapes.items()}
        self._axes = dict(axes)
        self._control = stored_rule.control(
            tuple(self.shapes.values()), tuple(fan_ins[index] for index in self.shapes)
        )

    @property
    def slots(self) -> list[Slot]:
        """The state of the tensors, and that of the coordinates of each part."""
        rule, dtype = self.stored_rule.rule, self.stored_rule.dtype
        tensors = (rule.tensor_rows, len(self.shapes))
        slots = [Slot("tensor_state", tensors, "float32", (None, None), next(iter(self.shapes)))]
        for part in self._parts:
            first = next(iter(part.shapes))
            axes = self._axes[first] if len(part.shapes) == 1 else ()
            slots += [slot_like("state", first, part.shape, axes, dtype)] * rule.coordinate_rows
        return slots

    def vectors(self, gradients: Mapping[int, Tensor]) -> list[Tensor]:
        """Returns the gradients of the block's variables, joined part by part."""
        return [part.join(gradients) for part in self._parts if part.has_any(gradients)]

    def update(self, step: Step, slots: Sequence[Any], ended: Any) -> tuple[list[Any], list[Any]]:
        """Takes part in a step; see `Block.update`."""
        rows = self.stored_rule.rule.matrix_rows + self.stored_rule.rule.direction_rows
        states = self._by_part(slots)
        products, matrices = [], {}
        for number, part in enumerate(self._parts):
            if not part.has_any(step.members):
                products.append(ops.zeros((rows, rows, len(part.shapes)), "float32"))
                continue
            with _backend.after([*ended, *products[-1:]]):
                seen, matrices[number] = self.stored_rule.observe(
                    states[number], *part.arrays(step), part.tensors
                )
                products.append(seen)
        members = tuple(index in step.members for index in self.shapes)
        changed = ops.logical_and(step.accepted, np.array(members))
        coefficients, new_slots = self._control(
            slots[:1], list(step.weights[self.group]), products, step.factor, changed
        )
        ended, start = [coefficients], 0
        for number, part in enumerate(self._parts):
            stop = start + len(part.shapes)
            if number in matrices:
                with _backend.after(ended):
                    # Arrays again: to keep them for that long may take a copy of the whole model.
                    updates, states[number] = self.stored_rule.update(
                        states[number],
                        *part.arrays(step),
                        matrices[number],
                        coefficients[start:stop],
                        step.accepted,
                        part.tensors,
                        members[start:stop],
                    )
                    own = zip(part.shapes, updates, strict=True)
                    ended = [step.add(i, update) for i, update in own if i in step.members]
            start = stop
        return [*new_slots, *itertools.chain(*states)], ended

    def state_of(self, slots: Sequence[Tensor], index: int) -> Tensor:
        """Returns the state of one variable's coordinates; see `Block.state_of`."""
        by_part = zip(self._parts, self._by_part(slots), strict=True)
        part, stored = next(pair for pair in by_part if index in pair[0].shapes)
        (own,) = [slice(a, b) for member, a, b in part.spans() if member == index]
        vectors = [ops.reshape(slot, (part.size,))[own] for slot in stored]
        numbers = ops.stack([self.stored_rule.numbers(vector) for vector in vectors])
        return ops.reshape(numbers, (len(vectors), *self.shapes[index]))

    def diagnose(self, slots: Sequence[Tensor], index: int) -> dict[str, Tensor]:
        """Tells what there is to see in the state of one variable; see `Block.diagnose`."""
        column = list(self.shapes).index(index)
        state = ops.convert_to_tensor(slots[0])[:, column : column + 1]
        return self.stored_rule.rule.diagnose(state)

    def _by_part(self, slots: Sequence[Any]) -> list[Sequence[Any]]:
        """Returns the slots of coordinates, part by part."""
        rows = self.stored_rule.rule.coordinate_rows
        return [slots[1 + k * rows : 1 + (k + 1) * rows] for k in range(len(self._parts))]


class _Part(Columns):
    """Variables whose states share arrays: vectors, or arrays of the shape of a single variable.

    Args:
        shapes: See `Columns`.

    Attributes:
        shape: Shape of the arrays.
        tensors: Shapes of the variables.
    """

    def __init__(self, shapes: Mapping[int, Shape]) -> None:
        super().__init__(shapes)
        self.tensors = tuple(self.shapes.values())
        self.shape = self.tensors[0] if len(self.tensors) == 1 else (self.size,)

    def has_any(self, places: Collection[int]) -> bool:
        """Returns whether there are some of these variables."""
        return not self.shapes.keys().isdisjoint(places)

    def arrays(self, step: Step) -> tuple[Tensor, Tensor]:
        """Returns the variables' gradients and values, float32, zero for those without a step."""
        values = {index: step.read(index) for index in self.shapes if index in step.members}
        if len(self.shapes) == 1:
            ((index, value),) = values.items()
            gradient = ops.reshape(step.gradients[index], self.shape)
            return gradient, ops.cast(value, "float32")
        vectors = {
            index: ops.reshape(ops.cast(value, "float32"), (-1,)) for index, value in values.items()
        }
        return self.join(step.gradients), self.join(vectors)


def _divide(
    shapes: Mapping[int, Shape],
    axes: Mapping[int, tuple[str | None, ...]],
    devices: Mapping[int, str],
) -> Iterator[_Part]:
    """Yields the parts of a block; see `TensorwiseBlock`."""
    small: dict[str, dict[int, Shape]] = {}
    # Those of one shape are neighbours: they are computed at once.
    for index, shape in sorted(shapes.items(), key=lambda item: item[1]):
        n = math.prod(shape)
        if n > _SMALL or axes[index]:
            yield _Part({index: shape})
            continue
        part = small.setdefault(devices[index], {})
        size = sum(map(math.prod, part.values()))
        if part and (size + n > _LIMIT or len(part) == _MOST):
            yield _Part(part)
            part = small[devices[index]] = {}
        part[index] = shape
    yield from map(_Part, small.values())
