"""One step of a rule over all coordinates of many variables, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from keras import ops

from l2l_keras import _backend
from l2l_keras.columns import Columns, Shape, Slot, Step, Tensor
from l2l_keras.stored_rule import StoredRule


class Block(Columns):
    """Variables whose coordinates a rule updates together, and whose state is one array.

    The array, the slot, has a column for each of the n coordinates of the variables, one variable
    after the other. It is updated in windows of a few thousand columns: neither scratch memory nor
    the size of a graph grows with it, and a core's cache holds all that a window needs.

    Args:
        group: Name of the rule's group.
        stored_rule: The rule.
        shapes: See `Columns`.
        chunk: Largest number of coordinates in a window.

    Attributes:
        group: Name of the rule's group.
    """

    def __init__(
        self, group: str, stored_rule: StoredRule, shapes: Mapping[int, Shape], chunk: int
    ) -> None:
        super().__init__(shapes)
        self.group = group
        self.stored_rule = stored_rule
        self._rows = stored_rule.rows(self.size)
        self._chunk = max(1, self.size) if stored_rule.rule.coupled else chunk

    def vectors(self, gradients: Mapping[int, Tensor]) -> list[Tensor]:
        """Returns the gradients of the block's variables, joined."""
        return [self.join(gradients)]

    @property
    def slots(self) -> list[Slot]:
        """The state of the coordinates."""
        shape = (self._rows, self.size)
        return [Slot("state", shape, self.stored_rule.dtype, (None, None), next(iter(self.shapes)))]

    def update(self, step: Step, slots: Sequence[Any], ended: Any) -> tuple[list[Any], list[Any]]:
        """Takes part in a step.

        Args:
            step: The step.
            slots: The block's state, as `slots` says.
            ended: Calls of `step.add` that are to end first.

        Returns:
            `(slots, ended)`: the next state, and what calls of `step.add` returned.
        """
        with _backend.after(ended):
            gradient = self.join(step.gradients)
            weights = step.weights[self.group]
            update, slot = self.step(
                step.factor, weights, gradient, slots[0], step.members, step.accepted
            )
            ended = [step.add(i, part) for i, part in self.split(update, step.members)]
        return [slot], ended

    def step(
        self,
        factor: Tensor,
        weights: Sequence[Tensor],
        gradient: Tensor,
        slot: Any,
        members: Collection[int],
        accepted: Tensor,
    ) -> tuple[Tensor, Any]:
        """Computes one step of the rule for the coordinates of some variables.

        Args:
            factor: Factor of updates, a scalar.
            weights: The rule's weights.
            gradient: As returned by `join`.
            slot: The state; see `_backend.sweeper`.
            members: Places of the variables to update. Others keep their state, unless the rule is
                coupled: it takes their gradients as zero.
            accepted: Whether to step at all, a boolean scalar.

        Returns:
            `(update, slot)`: float32 `[n]`, meaningless for other variables, and the next state.
        """
        windows = self._windows(members)
        if not len(windows.start):
            return gradient, slot
        return self.stored_rule.sweep(factor, weights, gradient, slot, windows, accepted)

    def state_of(self, slots: Sequence[Tensor], index: int) -> Tensor:
        """Returns the state of one variable.

        Args:
            slots: The state.
            index: The variable's place.

        Returns:
            float32 `[rows, *shape]`.
        """
        stored = ops.reshape(ops.convert_to_tensor(slots[0]), (self._rows, self.size))
        (own,) = [slice(a, b) for member, a, b in self.spans() if member == index]
        numbers = self.stored_rule.numbers(stored[:, own])
        return ops.reshape(numbers, (self._rows, *self.shapes[index]))

    def diagnose(self, slots: Sequence[Tensor], index: int) -> dict[str, Tensor]:
        """Tells what there is to see in the state of one variable; see `UpdateRule.diagnose`.

        Args:
            slots: As in `state_of`.
            index: As in `state_of`.
        """
        state = ops.reshape(self.state_of(slots, index), (self._rows, -1))
        return self.stored_rule.rule.diagnose(state)

    def _windows(self, members: Collection[int]) -> _backend.Windows:
        """Returns windows over the columns of some variables.

        A coupled rule has one window.
        """
        if self.stored_rule.rule.coupled:
            # All of them, to which variables without a gradient bring zeros.
            members = self.shapes.keys()
        runs: list[tuple[int, int]] = []
        for index, start, stop in self.spans():
            if index not in members or start == stop:
                continue
            if runs and runs[-1][1] == start:
                start, _ = runs.pop()
            runs.append((start, stop))
        return self.windows(runs, self._chunk)


class ShardedBlock(Block):
    """A variable that is sharded over a device mesh, with a state that is sharded like it.

    The step is one over all coordinates: every device takes its own, where windows would have to be
    gathered from several.

    Args:
        group: Name of the rule's group.
        stored_rule: The rule.
        index: The variable's place among the optimizer's variables.
        shape: Its shape.
        axes: Axes of the device mesh over which its own are sharded.
    """

    def __init__(
        self,
        group: str,
        stored_rule: StoredRule,
        index: int,
        shape: Shape,
        axes: tuple[str | None, ...],
    ) -> None:
        super().__init__(group, stored_rule, {index: shape}, chunk=math.prod(shape))
        self._axes = axes

    @property
    def slots(self) -> list[Slot]:
        """The state of the coordinates, `[rows, *shape]`."""
        ((index, shape),) = self.shapes.items()
        shape = (self._rows, *shape)
        return [Slot("state", shape, self.stored_rule.dtype, (None, *self._axes), index)]

    def step(
        self,
        factor: Tensor,
        weights: Sequence[Tensor],
        gradient: Tensor,
        slot: Any,
        members: Collection[int],
        accepted: Tensor,
    ) -> tuple[Tensor, Any]:
        """Computes one step of the rule; see `Block.step`."""
        stored = ops.reshape(slot, (self._rows, self.size))
        update, new_stored = self.stored_rule.step(weights, gradient, stored)
        new_stored = ops.where(accepted, new_stored, stored)
        update = ops.where(accepted, factor * update, 0.0)
        return update, ops.reshape(new_stored, slot.shape)
