"""Rules whose states are kept in one array of a model's coordinates."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from l2l_keras import _backend
from l2l_keras.rules import Tensors, TensorwiseRule, UpdateRule

Tensor = Any
Shape = tuple[int, ...]

STATE_DTYPES = ("float32", "bfloat16")
"""What the state of a rule may be kept in."""

# Of a large matrix, some elements tell how directions are aligned. At least so many of it, and
# about so many of each of its rows and columns, are looked at: in one alone there may be most of a
# gradient, such as that of the most frequent word.
_FEW, _EACH = 2**12, 8


class Storage:
    """How states are kept in arrays, in a type that need not be float32.

    Args:
        state_dtype: One of `STATE_DTYPES`. In bfloat16, an array holds the numbers' bits, as
            int16: in each turn of a loop, XLA would turn a whole array of bfloat16 into float32 and
            back.

    Attributes:
        dtype: Type of the arrays.
    """

    def __init__(self, state_dtype: str) -> None:
        self.dtype = "int16" if state_dtype == "bfloat16" else "float32"

    def numbers(self, stored: Tensor) -> Tensor:
        """Returns some of an array's columns as float32."""
        if self.dtype == "int16":
            return ops.cast(_backend.bitcast(stored, "bfloat16"), "float32")
        return stored

    def stored(self, numbers: Tensor) -> Tensor:
        """Undoes `numbers`."""
        if self.dtype == "int16":
            return _backend.bitcast(ops.cast(numbers, "bfloat16"), "int16")
        return numbers


class StoredRule(Storage):
    """A rule whose state is one array.

    Args:
        rule: The rule.
        state_dtype: See `Storage`.

    Attributes:
        rule: The rule.
        sweep: Steps through windows of the array; see `_backend.sweeper`.
    """

    def __init__(self, rule: UpdateRule, state_dtype: str) -> None:
        super().__init__(state_dtype)
        self.rule = rule
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
        return update, self.stored(ops.concatenate(state)) if state else stored


class StoredTensorwiseRule(Storage):
    """A tensorwise rule, whose state of a tensor is arrays of the tensor's shape.

    The states of several small tensors may be vectors of the coordinates of all, one tensor after
    the other, as `Tensors` has them.

    What becomes of coordinates is several programs: in one, XLA would compute directions again for
    each use that is made of them, and keep a copy of the state while it does.

    Args:
        rule: The rule.
        state_dtype: See `Storage`; that of tensors is float32.

    Attributes:
        rule: The rule.
        control: Returns a program that decides how directions are weighted; see `_control`.
    """

    def __init__(self, rule: TensorwiseRule, state_dtype: str) -> None:
        super().__init__(state_dtype)
        self.rule = rule
        self.control = functools.lru_cache(maxsize=16)(self._control)
        self._matrices_program = _backend.program(self._matrices)
        self._directions_program = _backend.program(self._directions)
        self._products_program = _backend.program(self._products)
        self._advance_program = _backend.program(self._advance, assigns=True)
        self._sums_program = _backend.program(self._sums)
        self._updates_program = _backend.program(self._updates)

    def observe(
        self,
        slots: Sequence[Any],
        gradient: Tensor,
        parameters: Tensor,
        shapes: tuple[Shape, ...],
    ) -> tuple[Tensor, list[Tensor]]:
        """Computes tensors' matrix directions, and the mean products of all of their directions.

        For the products of a large matrix, some coordinates are looked at, from all over it, where
        there are no matrix directions.

        Args:
            slots: The state, arrays of one shape; see `_backend.program`.
            gradient: float32 of that shape.
            parameters: float32 of that shape.
            shapes: Those of the tensors. That of the arrays is the same if there is one only.

        Returns:
            `(products, matrices)`: float32 `[r, r, T]`, and `matrix_rows` arrays of that shape.
        """
        matrices = []
        if self.rule.matrix_rows:
            matrices = self._matrices_program(slots, gradient, shapes)
        # Next to what matrix directions cost, it costs little to look at all.
        sampled = len(shapes) == 1 and not matrices
        directions = self._directions_program(slots, gradient, parameters, sampled)
        if sampled:
            shapes = (tuple(directions[0].shape),)
        return self._products_program([], [*matrices, *directions], shapes), matrices

    def update(
        self,
        slots: Sequence[Any],
        gradient: Tensor,
        parameters: Tensor,
        matrices: Sequence[Tensor],
        coefficients: Tensor,
        accepted: Tensor,
        shapes: tuple[Shape, ...],
        members: tuple[bool, ...],
    ) -> tuple[list[Tensor], Sequence[Any]]:
        """Advances the state of tensors, and computes their updates.

        Args:
            slots: The state, arrays of one shape; see `_backend.program`.
            gradient: float32 of that shape.
            parameters: float32 of that shape.
            matrices: As returned by `observe`.
            coefficients: float32 `[T, k]`.
            accepted: Whether to step at all, a boolean scalar.
            shapes: Those of the tensors. That of the arrays is the same if there is one only.
            members: Which tensors are to be updated.

        Returns:
            `(updates, slots)`: float32 of the tensors' shapes, meaningless for others, and the
            next state.
        """
        _, slots = self._advance_program(slots, gradient, accepted, shapes, members)
        sums = self._sums_program(
            slots, gradient, parameters, matrices, coefficients, accepted, shapes
        )
        return self._updates_program([], sums, shapes), slots

    def _matrices(
        self, stored: Sequence[Tensor], gradient: Tensor, shapes: tuple[Shape, ...]
    ) -> list[Tensor]:
        """Returns the matrix directions."""
        n = math.prod(gradient.shape)
        vector, *state = [ops.reshape(array, (n,)) for array in (gradient, *stored)]
        state = [self.numbers(array) for array in state]
        matrices = self.rule.matrices(vector, state, Tensors(shapes))
        return [ops.reshape(row, gradient.shape) for row in ops.unstack(matrices)]

    def _directions(
        self, stored: Sequence[Tensor], gradient: Tensor, parameters: Tensor, sampled: bool
    ) -> list[Tensor]:
        """Returns the other directions after the next step, of some coordinates or of all."""
        arrays = [gradient, parameters, *stored]
        if sampled:
            arrays = [_sample(array) for array in arrays]
        gradient, parameters, *stored = arrays
        state = self.rule.advance(gradient, [self.numbers(array) for array in stored])
        return self.rule.directions(gradient, state, parameters)

    def _products(
        self, stored: Sequence[Tensor], directions: Sequence[Tensor], shapes: tuple[Shape, ...]
    ) -> Tensor:
        """Returns the mean products of directions."""
        del stored
        rows = ops.reshape(ops.stack(directions), (len(directions), -1))
        return Tensors(shapes).products(rows)

    def _advance(
        self,
        stored: Sequence[Tensor],
        gradient: Tensor,
        accepted: Tensor,
        shapes: tuple[Shape, ...],
        members: tuple[bool, ...],
    ) -> tuple[None, list[Tensor]]:
        """Returns nothing, and the next state."""
        if not all(members):
            sizes = Tensors(shapes).sizes
            accepted = ops.logical_and(accepted, np.repeat(members, sizes))
        new = self.rule.advance(gradient, [self.numbers(array) for array in stored])
        pairs = zip(new, stored, strict=True)
        return None, [ops.where(accepted, self.stored(array), old) for array, old in pairs]

    def _sums(
        self,
        stored: Sequence[Tensor],
        gradient: Tensor,
        parameters: Tensor,
        matrices: Sequence[Tensor],
        coefficients: Tensor,
        accepted: Tensor,
        shapes: tuple[Shape, ...],
    ) -> list[Tensor]:
        """Returns the weighted sums of each run of tensors, `[count, size]`; zeros if no step."""
        state = [self.numbers(array) for array in stored]
        directions = [*matrices, *self.rule.directions(gradient, state, parameters)]
        if len(shapes) == 1:
            # Not cut before it is a sum: then a single array is made a vector.
            weighted = zip(ops.unstack(coefficients[0]), directions, strict=False)
            sums = [ops.reshape(sum(c * d for c, d in weighted), (1, -1))]
        else:
            tensors = Tensors(shapes)
            parts = zip(*(tensors.cut(direction) for direction in directions), strict=True)
            sums, start = [], 0
            for (_, count), own in zip(tensors.runs, parts, strict=True):
                weights = ops.unstack(coefficients[start : start + count], axis=1)
                sums.append(sum(c[:, None] * d for c, d in zip(weights, own, strict=False)))
                start += count
        return [ops.where(accepted, array, 0.0) for array in sums]

    def _updates(
        self, stored: Sequence[Tensor], sums: Sequence[Tensor], shapes: tuple[Shape, ...]
    ) -> list[Tensor]:
        """Returns the updates of tensors."""
        del stored
        updates = []
        for own, (shape, count) in zip(sums, Tensors(shapes).runs, strict=True):
            refined = self.rule.refine(own, shape)
            updates += ops.unstack(ops.reshape(refined, (count, *shape)))
        return updates

    def _control(
        self, shapes: tuple[Shape, ...], fan_ins: tuple[int, ...]
    ) -> Callable[..., tuple[Tensor, list[Tensor]]]:
        """Returns a program that decides how directions are weighted.

        Args:
            shapes: Shapes of the tensors.
            fan_ins: See `Tensors`.

        Returns:
            A function of the tensors' state `[rows, T]`, alone in a list; the rule's weights; mean
            products, a list of arrays `[r, r, t]` of t tensors each; a factor of updates; and which
            tensors are to change, `[T]`. It returns coefficients `[T, k]`, and the next state
            likewise.
        """
        tensors = Tensors(shapes, fan_ins)

        def control(slots, weights, products, factor, changed):
            (state,) = slots
            with keras.StatelessScope(zip(self.rule.weights, weights, strict=True)):
                coefficients, new = self.rule.control(
                    ops.concatenate(products, axis=-1), state, tensors
                )
            return ops.transpose(factor * coefficients), [ops.where(changed, new, state)]

        return _backend.program(control, assigns=True)


def _sample(array: Tensor) -> Tensor:
    """Returns all of an array's elements as a vector, or some of them, a row for each period.

    They are not made one vector: XLA would then tell for each by division where it comes from.
    """
    n = math.prod(array.shape)
    vector = ops.reshape(array, (n,))
    span, period = _span_and_period(array.shape)
    if span == period:
        return vector
    # From the middle of what is left over, so that neither the first row nor the last falls short.
    start = n % period // 2
    periods = ops.reshape(vector[start : start + n // period * period], (-1, period))
    return periods[:, :span]


def _span_and_period(shape: Shape) -> tuple[int, int]:
    """Returns how many neighbours of how many elements of an array are looked at.

    Of each row of a matrix they are two spans, a span further along than of the row before, so
    that all columns have their turn.
    """
    rows, columns = math.prod(shape[:-1]), math.prod(shape[-1:])
    fewer = min(rows * columns / _FEW, rows / _EACH, columns / _EACH)
    if fewer < 2.0:
        return 1, 1
    span = math.ceil(columns / fewer / 2.0)
    return span, (columns + span) // 2


def stored_rule(rule: UpdateRule, state_dtype: str) -> StoredRule | StoredTensorwiseRule:
    """Returns a rule with its state as the optimizer keeps it.

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
def _shared_rule(
    cls: type[UpdateRule], serialised: str, state_dtype: str
) -> StoredRule | StoredTensorwiseRule:
    rule = cls.from_config(json.loads(serialised)["config"])
    if isinstance(rule, TensorwiseRule):
        return StoredTensorwiseRule(rule, state_dtype)
    return StoredRule(rule, state_dtype)
