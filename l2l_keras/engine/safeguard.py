"""The interface of safeguards, which watch the steps of rules and may change them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Tensor = Any
Shape = tuple[int, ...]


class Conditions(NamedTuple):
    """Under which conditions a step is taken. All are scalars.

    Attributes:
        learning_rate: Factor of updates.
        gradient_norm: Norm of all gradients together.
        accepted: Whether the step counts.
        rule_steps: Whether the rules' state takes the gradients in.
        reset_rules: Whether the rules' state is zeroed after the step.
    """

    learning_rate: Tensor
    gradient_norm: Tensor
    accepted: Tensor
    rule_steps: Tensor
    reset_rules: Tensor | None = None


class Proposal(NamedTuple):
    """What a rule proposes for one variable.

    Attributes:
        gradient: The variable's gradient, float32.
        update: What the rule would add to the variable, float32.
    """

    gradient: Tensor
    update: Tensor


class Safeguard:
    """Watches steps and may change them. All methods are pure, of static shapes.

    A step asks each safeguard in turn to `begin`, to `observe` (or, if it has `slots`, to
    `replace`) what rules propose for each variable, and to `end`. The plan that `begin` returns is
    passed on to `observe` and `replace`. By default, nothing happens.

    Attributes:
        name: A name that no other safeguard has.
        slots: Names of the arrays, of a variable's shape, that the safeguard keeps for each
            variable. A safeguard with slots replaces what is written to variables, and has a
            `get_config`, by which optimizers share what is compiled for that.
        tables: Columns of the scalars that have a row for each variable, by name.
    """

    name: str = ""
    slots: tuple[str, ...] = ()
    tables: Mapping[str, int] = {}

    def scalars(self) -> Mapping[str, tuple[Shape, str]]:
        """Returns shape and type of the state that belongs to no single variable, by name."""
        return {}

    def begin(
        self, conditions: Conditions, scalars: Mapping[str, Tensor]
    ) -> tuple[Conditions, Any, Mapping[str, Tensor]]:
        """Sets the conditions of a step.

        Args:
            conditions: What the safeguards before have decided.
            scalars: The present values of all safeguards' scalars.

        Returns:
            `(conditions, plan, scalars)`: new conditions, a nest of tensors or None, and new values
            of some scalars.
        """
        del scalars
        return conditions, None, {}

    def observe(self, plan: Any, proposal: Proposal) -> Tensor | None:
        """Returns an observation of what is proposed for one variable, or None."""
        del plan, proposal
        return None

    def replace(
        self, slots: Sequence[Tensor], plan: Any, proposal: Proposal, parameters: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Sequence[Tensor]]:
        """Replaces what is proposed for one variable.

        Args:
            slots: The variable's arrays, as `self.slots` names them.
            plan: As returned by `begin`.
            proposal: The proposal.
            parameters: The variable's present value.

        Returns:
            `((value, observation), slots)`: the variable's new value, what was observed, and the
            next arrays.
        """
        raise NotImplementedError

    def end(
        self, scalars: Mapping[str, Tensor], observations: Mapping[int, Tensor]
    ) -> Mapping[str, Tensor]:
        """Returns new values of some scalars at the end of a step.

        Args:
            scalars: As returned by the methods before.
            observations: What was observed, by index of the variable.
        """
        del scalars, observations
        return {}

    def diagnose(self, scalars: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
        """Returns diagnostics of a variable, scalars by name."""
        del scalars, index
        return {}
