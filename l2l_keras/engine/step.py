"""One step of all rules over the variables of a model."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

from keras import ops

from l2l_keras.engine.backends import backend
from l2l_keras.engine.backends.boundary import Change, StepInputs, StepResult
from l2l_keras.engine.block import Block, RuleInputs
from l2l_keras.engine.layout import Shape, square_norm, to_vector
from l2l_keras.engine.safeguard import Conditions, Proposal, Safeguard
from l2l_keras.engine.shared import by_configuration

Tensor = Any


class _Verdict(NamedTuple):
    """What safeguards say of a proposal: a value instead of the update, slots and observations."""

    value: Tensor | None
    slots: dict[str, list[Any]]
    observations: dict[str, Tensor]


class Engine:
    """Takes steps of rules over variables, and asks safeguards in their order.

    Variables of no block are updated by others; they count in the norm of the gradients only.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        shapes: Sequence[Shape],
        safeguards: Sequence[Safeguard],
    ) -> None:
        self._blocks = list(blocks)
        self._shapes = list(shapes)
        self._safeguards = list(safeguards)
        self._replace = {s.name: _replace_kernel(s) for s in safeguards if s.slots}

    def step(self, inputs: StepInputs) -> Generator[Change, None, StepResult]:
        """Takes a step. Pure, but for states that kernels update in place.

        Yields:
            Changes of variables, each to be written before the next is computed.

        Returns:
            The next states and scalars, and whether the step counts.
        """
        vectors = {
            index: to_vector(gradient, self._shapes[index])
            for index, gradient in inputs.gradients.items()
        }
        blocks = {number: self._blocks[number] for number in inputs.rule_states}
        yes = ops.ones((), "bool")
        conditions = Conditions(inputs.learning_rate, self._norm(blocks, vectors), yes, yes)
        scalars, plans = dict(inputs.scalars), {}
        for safeguard in self._safeguards:
            conditions, plans[safeguard.name], new = safeguard.begin(conditions, scalars)
            scalars |= new

        states = {number: list(arrays) for number, arrays in inputs.rule_states.items()}
        slots = {name: dict(own) for name, own in inputs.slots.items()}
        observations: dict[str, dict[int, Tensor]] = {s.name: {} for s in self._safeguards}
        accepted = ops.logical_and(conditions.accepted, conditions.rule_steps)
        for number, block in blocks.items():
            rule_inputs = RuleInputs(
                inputs.learning_rate,
                accepted,
                {index: vectors[index] for index in block.shapes if index in vectors},
                inputs.parameters,
                inputs.weights[block.group],
            )
            for part in block.step(rule_inputs, inputs.rule_states[number]):
                for array, value in part.state.items():
                    states[number][array] = value
                change = Change({}, {})
                for index, update in part.updates.items():
                    gradient = ops.reshape(vectors[index], update.shape)
                    verdict = self._consult(
                        Proposal(gradient, update),
                        inputs.parameters[index],
                        plans,
                        {name: own[index] for name, own in slots.items() if index in own},
                    )
                    for name, arrays in verdict.slots.items():
                        slots[name][index] = arrays
                    for name, observation in verdict.observations.items():
                        observations[name][index] = observation
                    if verdict.value is None:
                        change.updates[index] = update
                    else:
                        change.values[index] = verdict.value
                yield change
        if conditions.reset_rules is not None:
            states = {
                number: list(backend.clear(arrays, conditions.reset_rules))
                for number, arrays in states.items()
            }
        for safeguard in self._safeguards:
            scalars |= safeguard.end(scalars, observations[safeguard.name])
        return StepResult(states, slots, scalars, conditions.accepted)

    def _consult(
        self,
        proposal: Proposal,
        parameters: Any,
        plans: Mapping[str, Any],
        slots: Mapping[str, list[Any]],
    ) -> _Verdict:
        """Asks all safeguards about a proposal, given the variable's slots by safeguard."""
        verdict = _Verdict(None, {}, {})
        for safeguard in self._safeguards:
            name = safeguard.name
            if name in slots:
                (value, observation), arrays = self._replace[name](
                    slots[name], plans[name], proposal, ops.convert_to_tensor(parameters)
                )
                verdict.slots[name] = list(arrays)
                verdict = verdict._replace(value=value)
            else:
                observation = safeguard.observe(plans[name], proposal)
            if observation is not None:
                verdict.observations[name] = observation
        return verdict

    def _norm(self, blocks: Mapping[int, Block], vectors: Mapping[int, Tensor]) -> Tensor:
        """Computes the norm of all gradients together, block by block."""
        of_blocks = {index for block in blocks.values() for index in block.shapes}
        squares = [square_norm(vectors[index]) for index in vectors if index not in of_blocks]
        for block in blocks.values():
            with backend.after(squares[-1:]):
                squares += [square_norm(vector) for vector in block.packed_gradients(vectors)]
        return ops.sqrt(sum(squares))


@by_configuration
def _replace_kernel(safeguard: Safeguard) -> Callable[..., Any]:
    return backend.kernel(safeguard.replace)
