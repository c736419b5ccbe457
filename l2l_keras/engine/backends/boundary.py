"""What the boundaries of all backends share: the values of a step, and how it is run to its end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

Tensor = Any
Variable = Any


class StepInputs(NamedTuple):
    """What a step is computed from.

    The boundary gets variables, and passes what it reads of them to the step: values of `weights`
    and `scalars`, and handles of `parameters`, `rule_states` and `slots` (see `backends`).

    Attributes:
        learning_rate: Factor of updates, a scalar.
        gradients: Dense or sparse gradients, by index of the variable.
        parameters: The variables to update, by index.
        weights: Weights of each group's rule, by name of the group.
        rule_states: State arrays of each block of variables, by number of the block.
        slots: State arrays of each safeguard for each variable: `slots[safeguard][index]`.
        scalars: State that belongs to no single variable, by name.
    """

    learning_rate: Tensor
    gradients: dict[int, Tensor]
    parameters: dict[int, Any]
    weights: dict[str, list[Any]]
    rule_states: dict[int, list[Any]]
    slots: dict[str, dict[int, list[Any]]]
    scalars: dict[str, Any]


class Change(NamedTuple):
    """New values of some variables: parts of a step's result that are ready to be written.

    Attributes:
        updates: What to add to variables, by index.
        values: What to assign to variables, by index.
    """

    updates: dict[int, Tensor]
    values: dict[int, Tensor]


class StepResult(NamedTuple):
    """What a step ends with.

    Attributes:
        rule_states: Next state arrays, as in `StepInputs`.
        slots: As in `StepInputs`.
        scalars: Next values, by name.
        accepted: Whether the step counts, a boolean scalar.
    """

    rule_states: dict[int, list[Any]]
    slots: dict[str, dict[int, list[Any]]]
    scalars: dict[str, Tensor]
    accepted: Tensor


Step = Callable[[StepInputs], Generator[Change, None, StepResult]]
"""A pure step: a generator of changes, each of which can be written before the next is computed."""


def mapped(
    inputs: StepInputs, read: Callable[[Variable], Any], handle: Callable[[Variable], Any]
) -> StepInputs:
    """Returns a step's inputs with what is read of variables, and handles, in their place."""
    return inputs._replace(
        parameters=_map(handle, inputs.parameters),
        weights=_map(read, inputs.weights),
        rule_states=_map(handle, inputs.rule_states),
        slots=_map(handle, inputs.slots),
        scalars=_map(read, inputs.scalars),
    )


def run(
    changes: Generator[Change, None, StepResult],
    write: Callable[[Change], list[Any]],
    after: Callable[[list[Any]], contextlib.AbstractContextManager[Any]],
) -> StepResult:
    """Runs a step to its end, and writes each change before the next one is computed.

    So no more than one change takes up memory at a time, however large the model. `write` returns
    the operations that write a change, and `after` a scope of what starts after them.
    """
    written: list[Any] = []
    while True:
        with after(written):
            try:
                change = next(changes)
            except StopIteration as end:
                return end.value
        written = write(change)


def _map(function: Callable[[Any], Any], nest: Any) -> Any:
    """Maps the leaves of dictionaries and lists."""
    if isinstance(nest, Mapping):
        return {key: _map(function, value) for key, value in nest.items()}
    if isinstance(nest, list):
        return [_map(function, value) for value in nest]
    return function(nest)
