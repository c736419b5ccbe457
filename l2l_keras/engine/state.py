"""The variables that hold an optimizer's state, and the inputs of its steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
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
        self._paths: list[str] = []
        self._blocks: list[Block] = []
        self._rule_states: list[list[Variable]] = []
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

        self._paths = [info.path for info in infos]
        self._blocks = list(blocks)
        self._rule_states = [[add(array) for array in block.state_arrays] for block in blocks]
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
        self, gradients: dict[int, Tensor], parameters: dict[int, Variable], learning_rate: Any
    ) -> StepInputs:
        """Returns the inputs of a step of some variables, by index; see `StepInputs`."""
        return StepInputs(
            learning_rate=ops.cast(learning_rate, "float32"),
            gradients=gradients,
            parameters=parameters,
            weights=self._weights,
            rule_states={
                number: arrays
                for number, (block, arrays) in enumerate(self._by_block())
                if not block.shapes.keys().isdisjoint(gradients)
            },
            slots={
                name: {index: own[index] for index in gradients if index in own}
                for name, own in self.slots.items()
            },
            scalars=self.scalars,
        )

    def state_of(self, index: int) -> Tensor | None:
        """Returns a rule's state of the elements of a variable; None if no rule updates it."""
        for block, arrays in self._by_block():
            if index in block.shapes:
                return block.state_of(arrays, index)
        return None

    def diagnose(self) -> dict[str, dict[str, float]]:
        """Returns diagnostics, by rules and safeguards, of every variable that a rule updates.

        They are those of each variable by its path, numbers by name.
        """
        diagnostics = {}
        for block, arrays in self._by_block():
            for index in block.shapes:
                numbers = block.diagnose(arrays, index)
                for safeguard in self._safeguards:
                    numbers |= safeguard.diagnose(self.scalars, index)
                diagnostics[self._paths[index]] = {
                    name: float(ops.convert_to_numpy(number)) for name, number in numbers.items()
                }
        return diagnostics

    def _by_block(self) -> Iterable[tuple[Block, list[Variable]]]:
        """Returns the blocks, each with its state arrays."""
        return zip(self._blocks, self._rule_states, strict=True)


def _like(name: str, index: int, info: VariableInfo) -> StateArray:
    """Returns a state array of a variable's shape, which is sharded like it."""
    return StateArray(name, info.shape, "float32", info.axes, index)
