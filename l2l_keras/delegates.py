"""Keras optimizers that update some groups of a `LearnedOptimizer`'s variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

Tensor = Any
Variable = Any


class Delegates:
    """Keras optimizers, each with the indices of the variables that it updates."""

    def __init__(
        self,
        members: Sequence[tuple[keras.optimizers.Optimizer, Sequence[int]]],
        variables: Sequence[Variable],
    ) -> None:
        self._members = list(members)
        for optimizer, indices in self._members:
            optimizer.build([variables[index] for index in indices])

    @property
    def variables(self) -> list[Variable]:
        """The state of the optimizers."""
        return [variable for optimizer, _ in self._members for variable in optimizer.variables]

    def step(self, gradients: Mapping[int, Tensor], parameters: Mapping[int, Variable]) -> None:
        """Takes a step of each optimizer whose variables have gradients, both given by index."""
        for optimizer, indices in self._having(gradients):
            own = [parameters[index] for index in indices]
            optimizer.apply([gradients[index] for index in indices], own)

    def step_if(
        self, accepted: Tensor, gradients: Mapping[int, Tensor], parameters: Mapping[int, Variable]
    ) -> None:
        """Takes a step of each optimizer, and undoes it if a condition does not hold.

        A condition around the step would not do: those of JAX cannot assign.
        """
        chosen = list(self._having(gradients))
        changed = [parameters[index] for _, indices in chosen for index in indices]
        changed += [variable for optimizer, _ in chosen for variable in optimizer.variables]
        before = [ops.copy(variable) for variable in changed]
        self.step(gradients, parameters)
        for variable, value in zip(changed, before, strict=True):
            variable.assign(ops.where(accepted, ops.convert_to_tensor(variable), value))

    def _having(
        self, gradients: Mapping[int, Tensor]
    ) -> Iterator[tuple[keras.optimizers.Optimizer, list[int]]]:
        """Yields optimizers with the indices of their variables that have a gradient, if any."""
        for optimizer, members in self._members:
            if indices := [index for index in gradients if index in members]:
                yield optimizer, indices
