"""Lets Adam take over from a learned rule that does harm, or does not improve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from l2l_keras import arguments
from l2l_keras.engine.safeguard import Conditions, Proposal, Safeguard, Shape
from l2l_keras.rules import moments
from l2l_keras.safeguards.fallback_policy import (
    CATCH_UP,
    Decision,
    FallbackState,
    conclude,
    decide,
)

Tensor = Any
Variable = Any

_TINY = 1e-30


@keras.saving.register_keras_serializable(package="l2l_keras")
class Guard:
    """Settings of the fallback to Adam: `LearnedOptimizer(rule, guard=Guard(...))`.

    The optimizer keeps Adam's moments warm and a copy of the weights, and watches the loss. If the
    loss rises far above its level, the weights are restored from the copy, and Adam continues. If
    the loss falls more slowly than Adam's steps promise, Adam gets a trial from the copy, and the
    one with the lower losses leads from then on: a rule that does not improve the loss is replaced,
    and may return. Adam's steps are longer until they have made up for lost ones. If training ends
    in a trial, the weights are the winner's. See `l2l_keras.safeguards.fallback_policy`.

    The fallback sees the losses that training passes to `Optimizer.scale_loss`, as `fit` does on
    TensorFlow and PyTorch. Elsewhere (JAX, mixed precision, `tf.distribute`, your own loops) pass
    them to `LearnedOptimizer.observe_loss`, or train with the callback `l2l_keras.ObserveLoss`.
    Without losses there are no trials: updates are then limited by `largest_update`.

    A guard costs three floats for each weight, and about as much time as Adam itself. Variables of
    Keras optimizers, in groups that have one, are not guarded.

    Args:
        learning_rate: Learning rate of Adam, times that of the `LearnedOptimizer`. Defaults to
            0.001, Keras' own.
        beta_1: As of `keras.optimizers.Adam`. Defaults to 0.9.
        beta_2: As of `keras.optimizers.Adam`. Defaults to 0.999.
        epsilon: As of `keras.optimizers.Adam`. Defaults to 1e-7.
        largest_update: Largest ratio of the norms of the rule's and of Adam's update of a variable
            while no loss is seen. Defaults to 100.

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
        self.learning_rate = arguments.positive("learning_rate", learning_rate)
        self.beta_1 = arguments.decay("beta_1", beta_1)
        self.beta_2 = arguments.decay("beta_2", beta_2)
        self.epsilon = arguments.positive("epsilon", epsilon)
        self.largest_update = arguments.positive("largest_update", largest_update)

    def __repr__(self) -> str:
        return arguments.call(self)

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


class AdamFallback(Safeguard):
    """Follows the losses, and writes Adam's steps or a copy's values where it must."""

    name = "adam_fallback"
    slots = ("momentum", "velocity", "copy")

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def get_config(self) -> dict[str, float]:
        """Returns the settings, by which optimizers share a compiled `replace`."""
        return self._guard.get_config()

    def scalars(self) -> Mapping[str, tuple[Shape, str]]:
        """Returns the policy's state, the losses since the last step, and products of updates."""
        return {
            "fallback": ((len(FallbackState._fields),), "float32"),
            "losses": ((2,), "float32"),  # Sum and number.
            "products": ((4,), "float32"),
        }

    def add_loss(self, losses: Tensor, loss: Tensor) -> Tensor:
        """Returns sum and number of the losses since the last step, with another loss added."""
        loss = ops.stop_gradient(ops.convert_to_tensor(loss, dtype="float32"))
        return losses + ops.stack([loss, ops.ones_like(loss)])

    def report(self, fallback: Tensor) -> dict[str, int | bool]:
        """Returns what the policy has done so far, from its state."""
        state = FallbackState(*ops.convert_to_numpy(fallback).tolist())
        return {
            "steps": int(state.steps),
            "adam steps": int(state.adam_steps),
            "trials": int(state.trials),
            "rescues": int(state.rescues),
            "adam leads": state.adam_leads > 0.5,
        }

    def begin(
        self, conditions: Conditions, scalars: Mapping[str, Tensor]
    ) -> tuple[Conditions, Any, Mapping[str, Tensor]]:
        """Decides who steps; see `Safeguard.begin`."""
        state = FallbackState(*ops.unstack(scalars["fallback"]))
        total, count = ops.unstack(scalars["losses"])
        seen = count > 0.5
        loss = total / ops.maximum(count, 1.0)
        accepted = conditions.accepted
        after, decision = decide(state, seen, loss, accepted, scalars["products"])
        # Moments may be reset after the step, which adds one more gradient to them.
        learning_rate = self._guard.learning_rate * conditions.learning_rate
        plan = (
            ops.stack([*decision, accepted, seen]),
            ops.stack([learning_rate, state.adam_updates]),
        )
        conditions = conditions._replace(
            rule_steps=decision.rule_sees, reset_rules=decision.reset_rule
        )
        losses = ops.zeros_like(scalars["losses"])
        return conditions, plan, {"fallback": ops.stack(after), "losses": losses}

    def replace(
        self, slots: Sequence[Tensor], plan: Any, proposal: Proposal, parameters: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Sequence[Tensor]]:
        """Returns the value after the step of the rule or of Adam; see `Safeguard.replace`.

        What is observed are products of updates: of the rule's and Adam's, the squares of their
        norms, and of the gradient and Adam's update without it, float32 `[4]`.
        """
        *decisions, accepted, seen = ops.unstack(plan[0])
        decision = Decision(*decisions)
        learning_rate, steps = ops.unstack(plan[1])
        guard, gradient, update = self._guard, proposal.gradient, proposal.update
        parameters = ops.cast(parameters, "float32")
        old_m, old_v, old_copy = slots
        warm = ops.logical_and(accepted, decision.adam_sees)
        m = ops.where(warm, guard.beta_1 * old_m + (1.0 - guard.beta_1) * gradient, old_m)
        v = ops.where(warm, guard.beta_2 * old_v + (1.0 - guard.beta_2) * gradient**2, old_v)
        before = self._adam_update(learning_rate, old_m, old_v, steps)
        own = self._adam_update(learning_rate, m, v, steps + ops.cast(warm, "float32"))
        pairs = ((update, own), (update, update), (own, own), (gradient, before))
        products = ops.stack([ops.sum(a * b) for a, b in pairs])
        largest = guard.largest_update * ops.sqrt(products[2])
        factor = ops.minimum(1.0, largest / (ops.sqrt(products[1]) + _TINY))
        factor = ops.where(seen, 1.0, factor)
        adam = ops.where(decision.catch_up, CATCH_UP, 1.0) * own
        step = ops.where(decision.adam, adam, factor * update)
        stepped = ops.where(accepted, parameters + step, parameters)
        new_copy = ops.where(decision.save, parameters, old_copy)
        new = ops.where(ops.logical_or(decision.restore, decision.swap), new_copy, stepped)
        new_copy = ops.where(decision.swap, stepped, new_copy)
        new_moments = [ops.where(decision.reset_adam, 0.0, moment) for moment in (m, v)]
        return (new, products), [*new_moments, new_copy]

    def end(
        self, scalars: Mapping[str, Tensor], observations: Mapping[int, Tensor]
    ) -> Mapping[str, Tensor]:
        """Returns the products of the updates of all variables together."""
        return {"products": sum(observations.values(), ops.zeros_like(scalars["products"]))}

    def conclude(
        self,
        fallback: Variable,
        slots: Mapping[int, Sequence[Variable]],
        variables: Mapping[int, Variable],
    ) -> None:
        """Ends a trial, if training ends in one; see `fallback_policy.conclude`."""
        after, *decisions = conclude(FallbackState(*ops.unstack(ops.convert_to_tensor(fallback))))
        swap, reset_adam = (bool(ops.convert_to_numpy(decision)) for decision in decisions)
        fallback.assign(ops.stack(after))
        for index, (momentum, velocity, copy) in slots.items():
            if swap:
                value = ops.cast(ops.copy(variables[index]), "float32")
                variables[index].assign(ops.cast(copy, variables[index].dtype))
                copy.assign(value)
            if reset_adam:
                for moment in (momentum, velocity):
                    moment.assign(ops.zeros(moment.shape))

    def _adam_update(self, learning_rate: Tensor, m: Tensor, v: Tensor, steps: Tensor) -> Tensor:
        """Returns Adam's update from moments of so many steps, as Keras computes it."""
        steps = ops.maximum(steps, 1.0)
        first, second = (
            moments.bias_correction(beta, steps)
            for beta in (self._guard.beta_1, self._guard.beta_2)
        )
        scale = learning_rate * ops.sqrt(second) / first
        return -scale * m / (ops.sqrt(v) + self._guard.epsilon)
