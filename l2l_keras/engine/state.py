"""The variables that hold an optimizer's state, and the inputs of its steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras import ops

from l2l_keras.engine.backends import backend
from l2l_keras.engine.backends.boundary import StepInputs
from l2l_keras.engine.block import Block
from l2l_keras.engine.layout import StateArray, VariableInfo, layout_argument
from l2l_keras.engine.safeguard import Safeguard

Tensor = Any
Variable = Any


class OptimizerState:
    """The variables that hold weights and state of rules, and the state of safeguards.

    See `StepInputs`. A plain object: TensorFlow would wrap the dictionaries in an optimizer's own
    attributes, and could not save those whose keys are indices.
    """

    def __init__(
        self,
        weights: dict[str, list[Variable]],
        safeguards: Sequence[Safeguard],
        add_variable: Callable[..., Variable],
    ) -> None:
        self._weights = weights
        self._safeguards = list(safeguards)
        self._add_variable = add_variable
        self.rule_states: dict[int, list[Variable]] = {}
        self.slots: dict[str, dict[int, list[Variable]]] = {}
        self.scalars: dict[str, Variable] = {
            name: add_variable(shape, dtype=dtype, name=name)
            for safeguard in safeguards
            for name, (shape, dtype) in safeguard.scalars().items()
        }

    def build(
        self,
        blocks: Sequence[Block],
        infos: Sequence[VariableInfo],
        variables: Sequence[Variable],
    ) -> None:
        """Creates what depends on the variables of a model."""
        numbers = itertools.count()

        def add(array: StateArray) -> Variable:
            with backend.next_to(variables[array.reference]):
                return self._add_variable(
                    array.shape,
                    dtype=array.dtype,
                    name=f"{array.name}_{next(numbers)}",
                    **layout_argument(array),
                )

        for number, block in enumerate(blocks):
            self.rule_states[number] = [add(array) for array in block.state_arrays]
        for safeguard in self._safeguards:
            for name, columns in safeguard.tables.items():
                self.scalars[name] = self._add_variable((len(variables), columns), name=name)
        for safeguard in self._safeguards:
            if safeguard.slots:
                self.slots[safeguard.name] = {
                    index: [add(_like(name, index, infos[index])) for name in safeguard.slots]
                    for block in blocks
                    for index in block.shapes
                }

    def inputs(
        self,
        blocks: Mapping[int, Block],
        gradients: dict[int, Tensor],
        parameters: dict[int, Variable],
        learning_rate: Any,
    ) -> StepInputs:
        """Returns the inputs of a step of some blocks; see `StepInputs`."""
        return StepInputs(
            learning_rate=ops.cast(learning_rate, "float32"),
            gradients=gradients,
            parameters=parameters,
            weights=self._weights,
            rule_states={number: self.rule_states[number] for number in blocks},
            slots={
                name: {index: own[index] for index in gradients if index in own}
                for name, own in self.slots.items()
            },
            scalars=self.scalars,
        )


def _like(name: str, index: int, info: VariableInfo) -> StateArray:
    """Returns a state array of a variable's shape, which is sharded like it."""
    return StateArray(name, info.shape, "float32", info.axes, index)
