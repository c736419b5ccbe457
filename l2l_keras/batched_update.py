"""One step of a rule over all coordinates of many variables, in bounded memory."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from l2l_keras import _backend
from l2l_keras.rules import UpdateRule

Tensor = Any
Shape = tuple[int, ...]

STATE_DTYPES = ("float32", "bfloat16")
"""What the state of a rule may be kept in."""

# Largest number of coordinates whose gradients are copied into one vector, 4 MB.
_LIMIT = 2**20


def stored_rule(rule: UpdateRule, state_dtype: str) -> StoredRule:
    """Returns a rule with its state in one array.

    Rules of one configuration share it, and with it the compiled programs: the next optimizer with
    the same rule, for the next similar model, need not compile again.

    Args:
        rule: The rule.
        state_dtype: One of `STATE_DTYPES`.
    """
    config = keras.saving.serialize_keras_object(rule)
    config["config"] = {key: value for key, value in config["config"].items() if key != "name"}
    return _shared_rule(type(rule), json.dumps(config, sort_keys=True), state_dtype)


@functools.lru_cache(maxsize=16)
def _shared_rule(cls: type[UpdateRule], serialised: str, state_dtype: str) -> StoredRule:
    return StoredRule(cls.from_config(json.loads(serialised)["config"]), state_dtype)


class StoredRule:
    """A rule whose state is one array, in a type that need not be float32.

    Args:
        rule: The rule.
        state_dtype: One of `STATE_DTYPES`. In bfloat16, the array holds the numbers' bits, as
            int16: in each turn of a loop, XLA would turn a whole array of bfloat16 into float32 and
            back.

    Attributes:
        rule: The rule.
        dtype: Type of the array.
        sweep: Steps through windows of it; see `_backend.sweeper`.
    """

    def __init__(self, rule: UpdateRule, state_dtype: str) -> None:
        self.rule = rule
        self.dtype = "int16" if state_dtype == "bfloat16" else "float32"
        self.sweep = _backend.sweeper(self.step)

    def rows(self, n: int) -> int:
        """Returns the rows of the array of n coordinates."""
        return sum(self.rule.state_rows_for(n))

    def step(
        self, weights: Sequence[Tensor], gradient: Tensor, stored: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Computes one step of the rule.

        Args:
            weights: The rule's weights.
            gradient: float32 `[n]`.
            stored: The state, `[rows, n]`.

        Returns:
            `(update, stored)`: float32 `[n]`, and the next state.
        """
        numbers = self.numbers(stored)
        arrays = self.rule.state_rows_for(stored.shape[1])
        ends = np.cumsum(arrays).tolist()
        state = tuple(numbers[end - rows : end] for rows, end in zip(arrays, ends, strict=True))
        update, state = self.rule.stateless_step(weights, gradient, state)
        if not state:
            return update, stored
        numbers = ops.concatenate(state)
        if self.dtype == "int16":
            return update, _backend.bitcast(ops.cast(numbers, "bfloat16"), "int16")
        return update, numbers

    def numbers(self, stored: Tensor) -> Tensor:
        """Returns some of a stored array's columns as float32."""
        if self.dtype == "int16":
            return ops.cast(_backend.bitcast(stored, "bfloat16"), "float32")
        return stored


class Block:
    """Variables whose coordinates a rule updates together, and whose state is one array.

    The array, the slot, has a column for each of the n coordinates of the variables, one variable
    after the other. It is updated in windows of a few thousand columns: neither scratch memory nor
    the size of a graph grows with it, and a core's cache holds all that a window needs.

    Args:
        group: Name of the rule's group.
        stored_rule: The rule.
        shapes: Shape of each variable, by its place among the optimizer's variables.
        chunk: Largest number of coordinates in a window.

    Attributes:
        group: Name of the rule's group.
        shapes: Shapes of the variables, by their places.
        slot_shape: Shape of the slot, `[rows, n]`.
        slot_axes: Axes of the device mesh over which those of the slot are sharded.
    """

    slot_axes: tuple[str | None, ...] = (None, None)

    def __init__(
        self, group: str, stored_rule: StoredRule, shapes: Mapping[int, Shape], chunk: int
    ) -> None:
        self.group = group
        self.stored_rule = stored_rule
        self.shapes = dict(shapes)
        self.size = sum(map(math.prod, self.shapes.values()))
        self.slot_shape: Shape = (stored_rule.rows(self.size), self.size)
        self._chunk = max(1, self.size) if stored_rule.rule.coupled else chunk

    def join(self, gradients: Mapping[int, Tensor]) -> Tensor:
        """Joins gradients to one vector.

        Args:
            gradients: Gradients of variables as returned by `to_vector`, by their places. Those of
                other blocks are passed over.

        Returns:
            float32 `[n]`, zero for variables without a gradient.
        """
        parts = [
            gradients[index] if index in gradients else ops.zeros((stop - start,), "float32")
            for index, start, stop in self._columns()
        ]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts)

    def split(self, vector: Tensor, members: Collection[int]) -> Iterator[tuple[int, Tensor]]:
        """Yields what a vector holds for some of the variables.

        Args:
            vector: `[n]`.
            members: Places of variables. Those of other blocks are passed over.

        Yields:
            The place of a variable, and an array of its shape.
        """
        stops = [stop for _, _, stop in self._columns()]
        parts = ops.split(vector, stops[:-1]) if len(stops) > 1 else [vector]
        for (index, shape), part in zip(self.shapes.items(), parts, strict=True):
            if index in members:
                yield index, part if len(shape) == 1 else ops.reshape(part, shape)

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

    def state_of(self, slot: Tensor, index: int) -> Tensor:
        """Returns the state of one variable.

        Args:
            slot: The state.
            index: The variable's place.

        Returns:
            float32 `[rows, *shape]`.
        """
        stored = ops.reshape(ops.convert_to_tensor(slot), (self.slot_shape[0], self.size))
        (columns,) = [slice(a, b) for member, a, b in self._columns() if member == index]
        numbers = self.stored_rule.numbers(stored[:, columns])
        return ops.reshape(numbers, (self.slot_shape[0], *self.shapes[index]))

    def _columns(self) -> Iterator[tuple[int, int, int]]:
        """Yields each variable's place, its first column, and one past its last."""
        stop = 0
        for index, shape in self.shapes.items():
            start, stop = stop, stop + math.prod(shape)
            yield index, start, stop

    def _windows(self, members: Collection[int]) -> _backend.Windows:
        """Returns windows over the columns of some variables, all of one length.

        A coupled rule has one window.
        """
        if self.stored_rule.rule.coupled:
            # All of them, to which variables without a gradient bring zeros.
            members = self.shapes.keys()
        runs: list[list[int]] = []
        for index, start, stop in self._columns():
            if index not in members or start == stop:
                continue
            if runs and runs[-1][1] == start:
                runs[-1][1] = stop
            else:
                runs.append([start, stop])
        length = math.ceil(self.size / max(1, math.ceil(self.size / self._chunk)))
        first = [column for a, b in runs for column in range(a, b, length)]
        last = [min(column + length, b) for a, b in runs for column in range(a, b, length)]
        begin = [min(column, self.size - length) for column in first]
        return _backend.Windows(length, *(np.asarray(c, "int32") for c in (begin, first, last)))


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

    Attributes:
        slot_shape: Shape of the slot, `[rows, *shape]`.
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
        self.slot_shape = (self.slot_shape[0], *shape)
        self.slot_axes = (None, *axes)

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
        stored = ops.reshape(slot, (self.slot_shape[0], self.size))
        update, new_stored = self.stored_rule.step(weights, gradient, stored)
        new_stored = ops.where(accepted, new_stored, stored)
        return ops.where(accepted, factor * update, 0.0), ops.reshape(new_stored, self.slot_shape)


def divide(shapes: Mapping[int, Shape]) -> Iterator[dict[int, Shape]]:
    """Divides variables into parts of about equal size, none of which takes much memory to copy.

    Args:
        shapes: Shapes of variables, by their places.

    Yields:
        Shapes by places. A variable that is large itself is a part of its own, and is not copied.
    """
    total = max(1, sum(map(math.prod, shapes.values())))
    # Of equal sizes where that can be: they share a compiled program.
    target = math.ceil(total / math.ceil(total / _LIMIT))
    part: dict[int, Shape] = {}
    size = start = 0
    for index, shape in shapes.items():
        n = math.prod(shape)
        if part and (size + n > _LIMIT or start // target > (start - size) // target):
            yield part
            part, size = {}, 0
        part[index] = shape
        size += n
        start += n
    if part:
        yield part


def to_vector(gradient: Tensor, shape: Shape) -> Tensor:
    """Returns a gradient as a dense vector, with the repeated rows of a sparse one summed.

    The sum comes first: preprocessing is not linear.

    Args:
        gradient: Dense or sparse.
        shape: Shape of the variable, since a `tf.IndexedSlices` need not know its own.

    Returns:
        float32 `[n]`.
    """
    if hasattr(gradient, "dense_shape"):  # A `tf.IndexedSlices`, as an embedding's gradient is.
        values = ops.cast(gradient.values, "float32")
        gradient = ops.segment_sum(values, gradient.indices, num_segments=shape[0])
    gradient = ops.convert_to_tensor(gradient, dtype="float32", sparse=False)
    return gradient if len(shape) == 1 else ops.reshape(gradient, (math.prod(shape),))
