"""The parts of a tensorwise rule's step on stored states, compiled one by one.

In one program, XLA would compute directions again for each use of them, and would keep a copy of
the state while it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from l2l_keras.engine.backends import backend
from l2l_keras.engine.shared import by_configuration
from l2l_keras.engine.state_dtype import StateDtype
from l2l_keras.rules import Tensors, TensorwiseRule
from l2l_keras.rules.tensorwise.sampling import sample
from l2l_keras.rules.tensorwise.tensors import gram_matrices

Tensor = Any
Shape = tuple[int, ...]
State = Sequence[Any]
Weights = Any
"""The rule's weights, as `backend.pack` returns them."""


class PartKernels:
    """The kernels of a tensorwise rule for a *part* of the tensors.

    They work on arrays of the shape of one tensor, or on vectors that hold the elements of several
    small tensors, one after the other, as `Tensors` has them. The rule's weights are arguments of
    kernels; its own are never read.
    """

    def __init__(self, rule: TensorwiseRule, state_dtype: str, shapes: tuple[Shape, ...]) -> None:
        self._rule = rule
        self._dtype = StateDtype(state_dtype)
        self._tensors = Tensors(shapes)
        # The Gram matrix of a large tensor comes from a sample.
        self._sampled = rule.samples and len(shapes) == 1
        self._matrices_kernel = backend.kernel(self._matrices)
        self._directions_kernel = backend.kernel(self._directions)
        self._gram_kernel = backend.kernel(self._gram)
        self._advance_kernel = backend.kernel(self._advance)
        self._sums_kernel = backend.kernel(self._sums)
        self._updates_kernel = backend.kernel(self._updates)

    def observe(
        self,
        state: State,
        weights: Weights,
        gradient: Tensor,
        parameters: Tensor,
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns Gram matrices of all directions `[r, r, T]`, and the matrix directions."""
        matrices: list[Tensor] = []
        if self._rule.matrix_direction_count:
            matrices, _ = self._matrices_kernel(state, weights, gradient)
        directions, _ = self._directions_kernel(state, weights, gradient, parameters)
        gram, _ = self._gram_kernel([], [*matrices, *directions])
        return gram, matrices

    def update(
        self,
        state: State,
        weights: Weights,
        gradient: Tensor,
        parameters: Tensor,
        matrices: Sequence[Tensor],
        coefficients: Tensor,
        accepted: Tensor,
        members: tuple[bool, ...],
    ) -> tuple[list[Tensor], State]:
        """Returns the updates of tensors, and the next state, given coefficients `[T, k]`.

        Updates are meaningless for tensors that are not among the `members`.
        """
        _, state = self._advance_kernel(state, weights, gradient, accepted, members)
        sums, _ = self._sums_kernel(
            state, weights, gradient, parameters, matrices, coefficients, accepted
        )
        updates, _ = self._updates_kernel([], weights, sums)
        return updates, state

    def _matrices(
        self, stored: State, weights: Weights, gradient: Tensor
    ) -> tuple[list[Tensor], State]:
        vector, *state = [ops.reshape(array, (-1,)) for array in (gradient, *stored)]
        state = [self._dtype.decode(array) for array in state]
        with _using(self._rule, weights):
            matrices = self._rule.matrices(vector, state, self._tensors)
        return [ops.reshape(row, gradient.shape) for row in ops.unstack(matrices)], []

    def _directions(
        self, stored: State, weights: Weights, gradient: Tensor, parameters: Tensor
    ) -> tuple[list[Tensor], State]:
        """Computes the directions after the next step, of a sample of a large tensor."""
        arrays = [gradient, parameters, *stored]
        if self._sampled:
            (shape,) = self._tensors.shapes
            arrays = [sample(ops.reshape(array, (-1,)), shape) for array in arrays]
        gradient, parameters, *stored = arrays
        with _using(self._rule, weights):
            state = self._rule.advance(gradient, [self._dtype.decode(array) for array in stored])
            return self._rule.directions(gradient, state, parameters), []

    def _gram(self, state: State, directions: Sequence[Tensor]) -> tuple[Tensor, State]:
        rows = ops.reshape(ops.stack(directions), (len(directions), -1))
        if self._sampled:
            return gram_matrices(rows[:, None]), []
        return self._tensors.gram_matrices(rows), []

    def _advance(
        self,
        stored: State,
        weights: Weights,
        gradient: Tensor,
        accepted: Tensor,
        members: tuple[bool, ...],
    ) -> tuple[None, State]:
        if not all(members):
            accepted = ops.logical_and(accepted, np.repeat(members, self._tensors.sizes))
        with _using(self._rule, weights):
            new = self._rule.advance(gradient, [self._dtype.decode(array) for array in stored])
        pairs = zip(new, stored, strict=True)
        return None, [ops.where(accepted, self._dtype.encode(array), old) for array, old in pairs]

    def _sums(
        self,
        stored: State,
        weights: Weights,
        gradient: Tensor,
        parameters: Tensor,
        matrices: Sequence[Tensor],
        coefficients: Tensor,
        accepted: Tensor,
    ) -> tuple[list[Tensor], State]:
        """Computes weighted sums of directions for each run of tensors; zeros if no step."""
        state = [self._dtype.decode(array) for array in stored]
        with _using(self._rule, weights):
            directions = [*matrices, *self._rule.directions(gradient, state, parameters)]
        if len(self._tensors) == 1:
            # Flattened after it is summed: one array to flatten instead of many.
            weighted = zip(ops.unstack(coefficients[0]), directions, strict=False)
            sums = [ops.reshape(sum(c * d for c, d in weighted), (1, -1))]
        else:
            parts = zip(*map(self._tensors.cut, directions), strict=True)
            sums, start = [], 0
            for (_, count), own in zip(self._tensors.runs, parts, strict=True):
                factors = ops.unstack(coefficients[start : start + count], axis=1)
                sums.append(sum(c[:, None] * d for c, d in zip(factors, own, strict=False)))
                start += count
        return [ops.where(accepted, array, 0.0) for array in sums], []

    def _updates(
        self, state: State, weights: Weights, sums: Sequence[Tensor]
    ) -> tuple[list[Tensor], State]:
        updates = []
        with _using(self._rule, weights):
            for own, (shape, count) in zip(sums, self._tensors.runs, strict=True):
                refined = self._rule.refine(own, shape)
                updates += ops.unstack(ops.reshape(refined, (count, *shape)))
        return updates, []


@by_configuration
def part_kernels(rule: TensorwiseRule, state_dtype: str, shapes: tuple[Shape, ...]) -> PartKernels:
    """Returns the kernels of a rule for tensors of these shapes."""
    return PartKernels(rule, state_dtype, shapes)


@by_configuration
def control_kernel(
    rule: TensorwiseRule, shapes: tuple[Shape, ...], fan_ins: tuple[int, ...]
) -> Callable[..., tuple[Tensor, State]]:
    """Returns the kernel that decides how directions of all tensors are weighted."""
    tensors = Tensors(shapes, fan_ins)

    def control(
        state: State,
        weights: Weights,
        gram: Sequence[Tensor],
        learning_rate: Tensor,
        changed: Tensor,
    ) -> tuple[Tensor, State]:
        with _using(rule, weights):
            coefficients, new_state = rule.control(
                ops.concatenate(gram, axis=-1), state[0], tensors
            )
        new_state = ops.where(changed, new_state, state[0])
        return ops.transpose(learning_rate * coefficients), [new_state]

    return backend.kernel(control)


def _using(rule: TensorwiseRule, weights: Weights) -> keras.StatelessScope:
    """Returns a scope in which the rule has the given weights; see `UpdateRule.using`."""
    return rule.using(backend.unpack(weights, [tuple(weight.shape) for weight in rule.weights]))
