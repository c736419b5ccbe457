"""The parts of a tensorwise rule's step on stored states, compiled one by one.

In one program, XLA would compute directions again for each use of them, and would keep a copy of
the state while it does.
"""

from __future__ import annotations

import functools
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


class TensorwiseKernels:
    """The kernels of a tensorwise rule.

    They work on a *part*: arrays of the shape of one tensor, or vectors that hold the elements of
    several small tensors, one after the other, as `Tensors` has them. `shapes` are those of the
    tensors. The rule's weights are arguments of kernels; its own are never read.
    """

    def __init__(self, rule: TensorwiseRule, state_dtype: str) -> None:
        self.rule = rule
        self.dtype = StateDtype(state_dtype)
        self._weight_shapes = [tuple(weight.shape) for weight in rule.weights]
        self.control = functools.lru_cache(maxsize=16)(self._control)
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
        shapes: tuple[Shape, ...],
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns Gram matrices of all directions `[r, r, T]`, and the matrix directions."""
        matrices: list[Tensor] = []
        if self.rule.matrix_direction_count:
            matrices, _ = self._matrices_kernel(state, weights, gradient, shapes)
        directions, _ = self._directions_kernel(state, weights, gradient, parameters, shapes)
        gram, _ = self._gram_kernel([], [*matrices, *directions], shapes)
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
        shapes: tuple[Shape, ...],
        members: tuple[bool, ...],
    ) -> tuple[list[Tensor], State]:
        """Returns the updates of tensors, and the next state, given coefficients `[T, k]`.

        Updates are meaningless for tensors that are not among the `members`.
        """
        _, state = self._advance_kernel(state, weights, gradient, accepted, shapes, members)
        sums, _ = self._sums_kernel(
            state, weights, gradient, parameters, matrices, coefficients, accepted, shapes
        )
        updates, _ = self._updates_kernel([], weights, sums, shapes)
        return updates, state

    def _matrices(
        self, stored: State, weights: Weights, gradient: Tensor, shapes: tuple[Shape, ...]
    ) -> tuple[list[Tensor], State]:
        vector, *state = [ops.reshape(array, (-1,)) for array in (gradient, *stored)]
        state = [self.dtype.decode(array) for array in state]
        with self._using(weights):
            matrices = self.rule.matrices(vector, state, Tensors(shapes))
        return [ops.reshape(row, gradient.shape) for row in ops.unstack(matrices)], []

    def _directions(
        self,
        stored: State,
        weights: Weights,
        gradient: Tensor,
        parameters: Tensor,
        shapes: tuple[Shape, ...],
    ) -> tuple[list[Tensor], State]:
        """Computes the directions after the next step, of a sample of a large tensor."""
        arrays = [gradient, parameters, *stored]
        if self._sampled(shapes):
            arrays = [sample(ops.reshape(array, (-1,)), shapes[0]) for array in arrays]
        gradient, parameters, *stored = arrays
        with self._using(weights):
            state = self.rule.advance(gradient, [self.dtype.decode(array) for array in stored])
            return self.rule.directions(gradient, state, parameters), []

    def _gram(
        self, state: State, directions: Sequence[Tensor], shapes: tuple[Shape, ...]
    ) -> tuple[Tensor, State]:
        rows = ops.reshape(ops.stack(directions), (len(directions), -1))
        if self._sampled(shapes):
            return gram_matrices(rows[:, None]), []
        return Tensors(shapes).gram_matrices(rows), []

    def _advance(
        self,
        stored: State,
        weights: Weights,
        gradient: Tensor,
        accepted: Tensor,
        shapes: tuple[Shape, ...],
        members: tuple[bool, ...],
    ) -> tuple[None, State]:
        if not all(members):
            accepted = ops.logical_and(accepted, np.repeat(members, Tensors(shapes).sizes))
        with self._using(weights):
            new = self.rule.advance(gradient, [self.dtype.decode(array) for array in stored])
        pairs = zip(new, stored, strict=True)
        return None, [ops.where(accepted, self.dtype.encode(array), old) for array, old in pairs]

    def _sums(
        self,
        stored: State,
        weights: Weights,
        gradient: Tensor,
        parameters: Tensor,
        matrices: Sequence[Tensor],
        coefficients: Tensor,
        accepted: Tensor,
        shapes: tuple[Shape, ...],
    ) -> tuple[list[Tensor], State]:
        """Computes weighted sums of directions for each run of tensors; zeros if no step."""
        state = [self.dtype.decode(array) for array in stored]
        with self._using(weights):
            directions = [*matrices, *self.rule.directions(gradient, state, parameters)]
        if len(shapes) == 1:
            # Flattened after it is summed: one array to flatten instead of many.
            weighted = zip(ops.unstack(coefficients[0]), directions, strict=False)
            sums = [ops.reshape(sum(c * d for c, d in weighted), (1, -1))]
        else:
            tensors = Tensors(shapes)
            parts = zip(*(tensors.cut(direction) for direction in directions), strict=True)
            sums, start = [], 0
            for (_, count), own in zip(tensors.runs, parts, strict=True):
                factors = ops.unstack(coefficients[start : start + count], axis=1)
                sums.append(sum(c[:, None] * d for c, d in zip(factors, own, strict=False)))
                start += count
        return [ops.where(accepted, array, 0.0) for array in sums], []

    def _updates(
        self, state: State, weights: Weights, sums: Sequence[Tensor], shapes: tuple[Shape, ...]
    ) -> tuple[list[Tensor], State]:
        updates = []
        with self._using(weights):
            for own, (shape, count) in zip(sums, Tensors(shapes).runs, strict=True):
                refined = self.rule.refine(own, shape)
                updates += ops.unstack(ops.reshape(refined, (count, *shape)))
        return updates, []

    def _control(
        self, shapes: tuple[Shape, ...], fan_ins: tuple[int, ...]
    ) -> Callable[..., tuple[Tensor, State]]:
        tensors = Tensors(shapes, fan_ins)

        def control(
            state: State,
            weights: Weights,
            gram: Sequence[Tensor],
            learning_rate: Tensor,
            changed: Tensor,
        ) -> tuple[Tensor, State]:
            with self._using(weights):
                coefficients, new_state = self.rule.control(
                    ops.concatenate(gram, axis=-1), state[0], tensors
                )
            new_state = ops.where(changed, new_state, state[0])
            return ops.transpose(learning_rate * coefficients), [new_state]

        return backend.kernel(control)

    def _using(self, weights: Weights) -> keras.StatelessScope:
        """Returns a scope in which the rule has the given weights; see `UpdateRule.using`."""
        return self.rule.using(backend.unpack(weights, self._weight_shapes))

    def _sampled(self, shapes: tuple[Shape, ...]) -> bool:
        """Whether a part's Gram matrices come from a sample: that of one tensor, if large."""
        return self.rule.samples and len(shapes) == 1


@by_configuration
def shared_kernels(rule: TensorwiseRule, state_dtype: str) -> TensorwiseKernels:
    """Returns the kernels of a rule, shared by rules of one configuration."""
    return TensorwiseKernels(rule, state_dtype)
