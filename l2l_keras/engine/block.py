"""The interface of a block: variables that one rule updates together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from l2l_keras.engine.layout import Shape, StateArray

Tensor = Any


class RuleInputs(NamedTuple):
    """What the step of a block is computed from.

    Attributes:
        learning_rate: Factor of updates, a scalar.
        accepted: Whether to step at all, a boolean scalar.
        gradients: Gradients of the variables to update, vectors by index.
        parameters: Values of these variables, by index.
        weights: The rule's weights.
    """

    learning_rate: Tensor
    accepted: Tensor
    gradients: Mapping[int, Tensor]
    parameters: Mapping[int, Tensor]
    weights: Sequence[Tensor]


class BlockChange(NamedTuple):
    """A part of the result of a block's step.

    Attributes:
        updates: Updates of some variables, by index.
        state: Next values of some of the state arrays, by number.
    """

    updates: dict[int, Tensor]
    state: dict[int, Any]


class Block(Protocol):
    """Variables that one rule updates together.

    Attributes:
        group: Name of the rule's group.
        shapes: Shapes of the variables, by index.
        state_arrays: The arrays that hold the rule's state.
        kernels: What it has compiled, and may share with blocks of other optimizers.
    """

    group: str
    shapes: dict[int, Shape]
    state_arrays: list[StateArray]
    kernels: list[Any]

    def packed_gradients(self, gradients: Mapping[int, Tensor]) -> list[Tensor]:
        """Returns the gradients of the block's variables in vectors."""

    def step(self, inputs: RuleInputs, state: Sequence[Any]) -> Iterator[BlockChange]:
        """Takes one step of the rule, from the state arrays, and yields its results in parts."""

    def state_of(self, state: Sequence[Tensor], index: int) -> Tensor:
        """Returns the state of the elements of a variable, float32 `[rows, *shape]`."""

    def diagnose(self, state: Sequence[Tensor], index: int) -> dict[str, Tensor]:
        """Returns diagnostics of a variable; see `UpdateRule.diagnose`."""
