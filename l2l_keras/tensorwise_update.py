"""One step of a tensorwise rule over many variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from l2l_keras import _backend
from l2l_keras.columns import Shape, Slot, Step, Tensor, slot_like
from l2l_keras.stored_rule import StoredTensorwiseRule


class TensorwiseBlock:
    """Variables that a tensorwise rule updates together.

    They are gone through one after the other: at first to see how the directions are aligned in
    each, and then, once the rule has decided, to update them.

    Args:
        group: Name of the rule's group.
        stored_rule: The rule.
        shapes: Shape of each variable, by its place among the optimizer's variables.
        axes: Axes of the device mesh over which variables are sharded, by their places; () if
            over none.

    Attributes:
        group: Name of the rule's group.
        shapes: Shapes of the variables, by their places.
    """

    def __init__(
        self,
        group: str,
        stored_rule: StoredTensorwiseRule,
        shapes: Mapping[int, Shape],
        axes: Mapping[int, tuple[str | None, ...]],
    ) -> None:
        self.group = group
        self.stored_rule = stored_rule
        self.shapes = dict(shapes)
        self._axes = dict(axes)
        self._control = stored_rule.control(tuple(self.shapes.values()))

    @property
    def slots(self) -> list[Slot]:
        """The state of the tensors, and that of the coordinates of each."""
        rule = self.stored_rule.rule
        tensors = (rule.tensor_rows, len(self.shapes))
        slots = [Slot("tensor_state", tensors, "float32", (None, None), next(iter(self.shapes)))]
        for index, shape in self.shapes.items():
            own = slot_like("state", index, shape, self._axes[index], self.stored_rule.dtype)
            slots += [own] * rule.coordinate_rows
        return slots

    def vectors(self, gradients: Mapping[int, Tensor]) -> list[Tensor]:
        """Returns the gradients of the block's variables."""
        return [gradients[index] for index in self.shapes if index in gradients]

    def update(self, step: Step, slots: Sequence[Any], ended: Any) -> tuple[list[Any], list[Any]]:
        """Takes part in a step; see `Block.update`."""
        rows = self.stored_rule.rule.matrix_rows + self.stored_rule.rule.direction_rows
        nothing = ops.zeros((rows, rows), "float32")
        tensor_slot, coordinate_slots = slots[0], self._by_variable(slots)
        products, matrices = [], {}
        for index in self.shapes:
            if index not in step.members:
                products.append(nothing)
                continue
            with _backend.after([*ended, *products[-1:]]):
                seen, matrices[index] = self.stored_rule.observe(
                    coordinate_slots[index], *self._arrays(step, index)
                )
                products.append(seen)
        changed = np.array([index in step.members for index in self.shapes])
        coefficients, new_slots = self._control(
            [tensor_slot],
            list(step.weights[self.group]),
            products,
            step.factor,
            ops.logical_and(step.accepted, changed),
        )
        ended = [coefficients]
        for number, index in enumerate(self.shapes):
            own = coordinate_slots[index]
            if index in step.members:
                with _backend.after(ended):
                    update, own = self.stored_rule.update(
                        own,
                        *self._arrays(step, index),
                        matrices[index],
                        coefficients[number],
                        step.accepted,
                    )
                    ended = [step.add(index, update)]
            new_slots = [*new_slots, *own]
        return new_slots, ended

    def state_of(self, slots: Sequence[Tensor], index: int) -> Tensor:
        """Returns the state of one variable's coordinates; see `Block.state_of`."""
        own = [ops.reshape(slot, slot.shape) for slot in self._by_variable(slots)[index]]
        return ops.stack([self.stored_rule.numbers(array) for array in own])

    def diagnose(self, slots: Sequence[Tensor], index: int) -> dict[str, Tensor]:
        """Tells what there is to see in the state of one variable; see `Block.diagnose`."""
        column = list(self.shapes).index(index)
        state = ops.convert_to_tensor(slots[0])[:, column : column + 1]
        return self.stored_rule.rule.diagnose(state)

    def _by_variable(self, slots: Sequence[Any]) -> dict[int, list[Any]]:
        """Returns the slots of coordinates, by the places of their variables."""
        rows = self.stored_rule.rule.coordinate_rows
        return {
            index: list(slots[1 + k * rows : 1 + (k + 1) * rows])
            for k, index in enumerate(self.shapes)
        }

    def _arrays(self, step: Step, index: int) -> tuple[Tensor, Tensor]:
        """Returns a variable's gradient and value, float32 of its shape."""
        gradient = ops.reshape(step.gradients[index], self.shapes[index])
        return gradient, ops.cast(step.read(index), "float32")
