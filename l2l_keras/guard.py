"""The guard of a `LearnedOptimizer`: Adam at its side, in case that its rule is of no use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from l2l_keras import _backend
from l2l_keras.columns import Shape, Slot, Step, slot_like
from l2l_keras.referee import HURRY, Decision, Referee, conclude, decide

Tensor = Any
Variable = Any

_TINY = 1e-30


@keras.saving.register_keras_serializable(package="l2l_keras")
class Guard:
    """Has Adam ready to take over from a learned rule that does harm, or no good.

    The optimizer keeps Adam's moments warm and a copy of the weights to go back to, and watches the
    loss. If that rises far above what it was, the copy takes the weights' place, and Adam goes on.
    Where the loss falls more slowly than Adam's steps promise, Adam has a trial from the copy, and
    whoever comes to lower losses leads from then on: a rule that is of no use, or has stopped being
    of use, is replaced, and may return. Adam's steps are then longer until it has made up for those
    that were lost. Where training ends in a trial, the weights are the winner's. See
    `l2l_keras.referee`.

    The loss is seen where training passes it through `Optimizer.scale_loss`, as `fit` does with the
    backends TensorFlow and PyTorch. Elsewhere (JAX, mixed precision, `tf.distribute`, your own
    loops) pass it to `LearnedOptimizer.observe_loss`, or train with `l2l_keras.ObserveLoss` among
    the callbacks. Without losses there are no trials: the guard then limits how large updates are.

    A guard costs three floats for each weight, and about as much time as Adam itself. Variables of
    Keras optimizers, in groups that have one, are not guarded.

    Args:
        learning_rate: Learning rate of Adam, times that of the `LearnedOptimizer`. Defaults to
            0.001, Keras' own.
        beta_1: As of `keras.optimizers.Adam`. Defaults to 0.9.
        beta_2: As of `keras.optimizers.Adam`. Defaults to 0.999.
        epsilon: As of `keras.optimizers.Adam`. Defaults to 1e-7.
        largest_update: How many times larger than Adam's, by the norm, the rule's update of a
            variable may be while no loss is seen. Defaults to 100.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> guard = l2l_keras.Guard(learning_rate=3e-4)
        >>> optimizer = l2l_keras.LearnedOptimizer.from_preset("quadratic", guard=guard)
        >>> optimizer.guard_report["adam leads"]
        False
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        largest_update: float = 100.0,
    ) -> None:
        for argument, value, fits in (
            ("learning_rate", learning_rate, learning_rate > 0.0),
            ("beta_1", beta_1, 0.0 <= beta_1 < 1.0),
            ("beta_2", beta_2, 0.0 <= beta_2 < 1.0),
            ("epsilon", epsilon, epsilon > 0.0),
            ("largest_update", largest_update, largest_update > 0.0),
        ):
            if not fits:
                raise ValueError(
                    f"`{argument}` must be positive, and decays less than 1. Received: {value!r}"
                )
        self.learning_rate = float(learning_rate)
        self.beta_1 = float(beta_1)
        self.beta_2 = float(beta_2)
        self.epsilon = float(epsilon)
        self.largest_update = float(largest_update)

    def get_config(self) -> dict[str, float]:
        """Returns the constructor's arguments."""
        return {
            "learning_rate": self.learning_rate,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "largest_update": self.largest_update,
        }

    @classmethod
    def from_config(cls, config: dict[str, float]) -> Guard:
        """Returns a guard of the same arguments."""
        return cls(**config)


class GuardedVariables:
    """Adam's moments of variables, their copies, and what becomes of them in a step.

    Args:
        guard: The guard.
        shapes: Shape of each variable, by its place among the optimizer's variables.
        axes: Axes of the device mesh over which variables are sharded, by their places; () if
            over none.
    """

    def __init__(
        self,
        guard: Guard,
        shapes: Mapping[int, Shape],
        axes: Mapping[int, tuple[str | None, ...]],
    ) -> None:
        self._guard = guard
        self._shapes = dict(shapes)
        self._axes = dict(axes)
        self._program = _backend.program(self._step, assigns=True)

    def slots_of(self, index: int) -> list[Slot]:
        """Returns what is kept of a variable: two moments, and a copy."""
        return [
            slot_like(name, index, self._shapes[index], self._axes[index])
            for name in ("momentum", "velocity", "copy")
        ]

    def step(
        self,
        plain: Step,
        watched: Sequence[Tensor],
        slots: dict[int, list[Any]],
        access: _backend.Access,
    ) -> tuple[Step, list[Tensor], Tensor, list[Tensor]]:
        """Guards a step.

        Args:
            plain: The step as it would be.
            watched: The referee, the sum and number of losses since the last step, and the products
                of that step's updates.
            slots: What is kept of each variable; their next values take their places when the step
                adds to the variable.
            access: Access to the variables.

        Returns:
            `(step, watched, forget, products)`: the step as it is to be; the next values of the
            referee and the losses; whether the rule is to start anew; and a list, empty before the
            step, of products of updates: that of the rule's and Adam's, the squares of their norms,
            and that of the gradient and Adam's update without it, `[4]` for each variable.
        """
        referee, (total, count) = Referee(*ops.unstack(watched[0])), ops.unstack(watched[1])
        seen = count > 0.5
        loss = total / ops.maximum(count, 1.0)
        after, decision = decide(referee, seen, loss, plain.accepted, watched[2])
        conditions = ops.stack([*decision, plain.accepted, seen])
        # Adam's moments may be forgotten after the step, which makes one more of them.
        learning_rate = self._guard.learning_rate * plain.factor
        numbers = ops.stack([learning_rate, referee.moments])
        products: list[Tensor] = []

        def add(index: int, update: Tensor) -> Any:
            (value, product), slots[index] = self._program(
                slots[index],
                ops.reshape(plain.gradients[index], self._shapes[index]),
                ops.cast(access.read(index), "float32"),
                update,
                conditions,
                numbers,
            )
            products.append(product)
            return access.assign(index, value)

        accepted = ops.logical_and(plain.accepted, decision.rule_sees)
        step = plain._replace(accepted=accepted, add=add)
        return step, [ops.stack(after), ops.zeros_like(watched[1])], decision.forget_rule, products

    def finish(
        self,
        referee: Variable,
        slots: Mapping[int, Sequence[Variable]],
        variables: Mapping[int, Variable],
    ) -> None:
        """Ends a trial, if training ends in one; see `l2l_keras.referee.conclude`.

        Args:
            referee: The referee.
            slots: What is kept of each variable.
            variables: The variables themselves, by their places.
        """
        after, *decisions = conclude(Referee(*ops.unstack(ops.convert_to_tensor(referee))))
        swap, forget_adam = (bool(ops.convert_to_numpy(decision)) for decision in decisions)
        referee.assign(ops.stack(after))
        for index, (momentum, velocity, copy) in slots.items():
            if swap:
                value = ops.cast(ops.copy(variables[index]), "float32")
                variables[index].assign(ops.cast(copy, variables[index].dtype))
                copy.assign(value)
            if forget_adam:
                for moment in (momentum, velocity):
                    moment.assign(ops.zeros(moment.shape))

    def _step(
        self,
        slots: Sequence[Tensor],
        gradient: Tensor,
        parameters: Tensor,
        update: Tensor,
        conditions: Tensor,
        numbers: Tensor,
    ) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
        *decisions, accepted, seen = ops.unstack(conditions)
        decision = Decision(*decisions)
        learning_rate, moments = ops.unstack(numbers)
        guard = self._guard
        old_m, old_v, old_copy = slots
        warm = ops.logical_and(accepted, decision.adam_sees)
        m = ops.where(warm, guard.beta_1 * old_m + (1.0 - guard.beta_1) * gradient, old_m)
        v = ops.where(warm, guard.beta_2 * old_v + (1.0 - guard.beta_2) * gradient**2, old_v)
        before = _adam_update(guard, learning_rate, old_m, old_v, moments)
        own = _adam_update(guard, learning_rate, m, v, moments + ops.cast(warm, "float32"))
        pairs = ((update, own), (update, update), (own, own), (gradient, before))
        products = ops.stack([ops.sum(a * b) for a, b in pairs])
        largest = guard.largest_update * ops.sqrt(products[2])
        factor = ops.minimum(1.0, largest / (ops.sqrt(products[1]) + _TINY))
        factor = ops.where(seen, 1.0, factor)
        adam = ops.where(decision.hurries, HURRY, 1.0) * own
        step = ops.where(decision.adam, adam, factor * update)
        stepped = ops.where(accepted, parameters + step, parameters)
        new_copy = ops.where(decision.copy, parameters, old_copy)
        new = ops.where(ops.logical_or(decision.back, decision.swap), new_copy, stepped)
        new_copy = ops.where(decision.swap, stepped, new_copy)
        new_moments = [ops.where(decision.forget_adam, 0.0, moment) for moment in (m, v)]
        return (new, products), [*new_moments, new_copy]


def _adam_update(
    guard: Guard, learning_rate: Tensor, m: Tensor, v: Tensor, steps: Tensor
) -> Tensor:
    """Returns Adam's update by its moments, of so many steps, as Keras has it."""
    steps = ops.maximum(steps, 1.0)
    first, second = (
        1.0 - ops.exp(math.log(beta) * steps) if beta else 1.0
        for beta in (guard.beta_1, guard.beta_2)
    )
    return -learning_rate * ops.sqrt(second) / first * m / (ops.sqrt(v) + guard.epsilon)
