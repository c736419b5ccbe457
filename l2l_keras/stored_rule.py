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

# Of a tensor of more coordinates than these, some tell how its directions are aligned: the first
# few of each so many. These are of all rows: some have no gradient, those of words that are not in
# the minibatch, or of pixels that are always black. The many are a prime, so that these are of all
# columns too, but where there are a multiple of them.
_FEW, _PERIOD, _SPAN = 2**12, 101, 4


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
    """A tensorwise rule, whose state of a variable is arrays of the variable's shape.

    Args:
        rule: The rule.
        state_dtype: See `Storage`; that of tensors is float32.

    Attributes:
        rule: The rule.
        observe: `observe_tensor` as a program; see `_backend.program`.
        update: `update_tensor` as a program.
        control: Returns a program that decides how directions are weighted; see `_control`.
    """

    def __init__(self, rule: TensorwiseRule, state_dtype: str) -> None:
        super().__init__(state_dtype)
        self.rule = rule
        self.observe = _backend.program(self.observe_tensor)
        self.update = _backend.program(self.update_tensor, assigns=True)
        self.control = functools.lru_cache(maxsize=16)(self._control)

    def observe_tensor(
        self, stored: Sequence[Tensor], gradient: Tensor, parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Computes a tensor's matrix directions, and the mean products of all of its directions.

        For the products of a large tensor, some coordinates are looked at, from all over it.

        Args:
            stored: The state, arrays of one shape.
            gradient: float32 of that shape.
            parameters: float32 of that shape.

        Returns:
            `(products, matrices)`: float32 `[r, r]`, and `[matrix_rows, *shape]`.
        """
        shape = tuple(gradient.shape)
        n = math.prod(shape)
        vector, *vectors = [ops.reshape(array, (n,)) for array in (gradient, *stored)]
        numbers = [self.numbers(array) for array in vectors]
        matrices = self.rule.matrices(vector, numbers, Tensors([shape]))
        matrices = ops.reshape(matrices, (self.rule.matrix_rows, *shape))
        arrays = [_sample(array) for array in (gradient, parameters, *stored)]
        gradient, parameters, *stored = arrays
        state = self.rule.advance(gradient, [self.numbers(array) for array in stored])
        whole = [_sample(matrices[k]) for k in range(self.rule.matrix_rows)]
        rows = ops.stack([*whole, *self.rule.directions(gradient, state, parameters)])
        rows = ops.reshape(rows, (rows.shape[0], -1))
        products = ops.matmul(rows, ops.transpose(rows)) * (1.0 / max(1, rows.shape[1]))
        return products, matrices

    def update_tensor(
        self,
        stored: Sequence[Tensor],
        gradient: Tensor,
        parameters: Tensor,
        matrices: Tensor,
        coefficients: Tensor,
        accepted: Tensor,
    ) -> tuple[Tensor, list[Tensor]]:
        """Computes the update of a tensor.

        Args:
            stored: The state, arrays of one shape.
            gradient: float32 of that shape.
            parameters: float32 of that shape.
            matrices: As returned by `observe_tensor`.
            coefficients: float32 `[k]`.
            accepted: Whether to step at all, a boolean scalar.

        Returns:
            `(update, stored)`: float32 of that shape, and the next state.
        """
        state = self.rule.advance(gradient, [self.numbers(array) for array in stored])
        whole = [matrices[k] for k in range(self.rule.matrix_rows)]
        directions = [*whole, *self.rule.directions(gradient, state, parameters)]
        update = sum(c * d for c, d in zip(ops.unstack(coefficients), directions, strict=False))
        new = [
            ops.where(accepted, self.stored(array), old)
            for array, old in zip(state, stored, strict=True)
        ]
        return ops.where(accepted, update, 0.0), new

    def _control(self, shapes: tuple[Shape, ...]) -> Callable[..., tuple[Tensor, list[Tensor]]]:
        """Returns a program that decides how directions are weighted.

        Args:
            shapes: Shapes of the tensors.

        Returns:
            A function of the tensors' state `[rows, T]`, alone in a list; the rule's weights; mean
            products, an array `[r, r]` for each tensor; a factor of updates; and which tensors are
            to change, `[T]`. It returns coefficients `[T, k]`, and the next state likewise.
        """
        tensors = Tensors(shapes)

        def control(slots, weights, products, factor, changed):
            (state,) = slots
            with keras.StatelessScope(zip(self.rule.weights, weights, strict=True)):
                coefficients, new = self.rule.control(ops.stack(products, -1), state, tensors)
            return ops.transpose(factor * coefficients), [ops.where(changed, new, state)]

        return _backend.program(control, assigns=True)


def _sample(array: Tensor) -> Tensor:
    """Returns all of an array's elements as a vector, or some of them, a row for each period.

    They are not made one vector: XLA would then tell for each by division where it comes from.
    """
    n = math.prod(array.shape)
    vector = ops.reshape(array, (n,))
    span = max(_SPAN, math.ceil(_FEW * _PERIOD / max(1, n)))
    if span >= _PERIOD:
        return vector
    periods = ops.reshape(vector[: n // _PERIOD * _PERIOD], (-1, _PERIOD))
    return periods[:, :span]


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
