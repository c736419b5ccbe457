"""Decides, from their losses, whether a learned rule or Adam updates the weights.

One of the two leads. While the rule leads, a copy of the weights is kept. Steps come in periods,
and after each of them:

- If losses fell clearly, compared with those at the copy, the weights become the new copy.
- If they did not, Adam has a trial: it trains from the copy for as many steps. Whichever has the
  lower losses then leads, with the weights that it has reached.
- While that is unclear because of noise, the period becomes longer, up to half of all steps.

In the first steps, losses have to fall by a part of what Adam's steps promise, which is the product
of the gradient and Adam's update. Later, any fall will do. If losses rise far above those at the
copy, there is no trial: Adam leads at once, from the copy. That is a rescue.

While Adam leads, the rule has a short trial whenever the number of steps has doubled, if the rule's
updates resemble Adam's. Steps that were lost to the rule are made up for by longer ones of Adam's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

Tensor = Any

CATCH_UP = 2.0
"""Factor of Adam's steps while they make up for lost ones."""

_FIRST_PERIOD = 8.0  # Steps. Later periods are a quarter of all steps so far.
_MEMORY = 0.4  # Averages reach back this part of a period.
_LIKELY, _CERTAIN = 0.5, 2.0  # Differences of mean losses, in standard errors.
_EARLY, _PROMISED = 64.0, 0.8  # Steps in which to fulfil this part of Adam's promise.
_STANDSTILL = 0.005  # Relative change of the loss which noise has to hide for a longer period.
_TRIAL = 0.05  # Largest part of all steps for a trial.
_NOISE, _RISE = 4.0, 0.2  # Harmful rise of losses: in standard deviations, and relative.
_COSINE, _TIMES = 0.1, 30.0  # Updates resemble Adam's: cosine at least, relative norm at most.


class FallbackState(NamedTuple):
    """State of the policy: float32 scalars, zero at first.

    Attributes:
        steps: Steps so far with a loss.
        adam_steps: Those of Adam.
        trials: Trials so far.
        rescues: Rescues so far.
        adam_leads: 1 if Adam leads, 0 if the rule does.
        trial: 1 in a trial: the challenger steps, the copy holds the leader's weights.
        position: Steps of the period or trial so far; negative while Adam waits for a period.
        length: Steps of the period or trial.
        level: Mean loss at the copy.
        mean: Exponential average of the losses.
        variance: Exponential average of their squared deviations.
        target: What `mean` is compared with: the level less Adam's promise in a period, the
            leader's mean in a trial.
        lost_steps: Steps lost to the rule that Adam has not made up for.
        adam_updates: Gradients in Adam's moments.
    """

    steps: Tensor
    adam_steps: Tensor
    trials: Tensor
    rescues: Tensor
    adam_leads: Tensor
    trial: Tensor
    position: Tensor
    length: Tensor
    level: Tensor
    mean: Tensor
    variance: Tensor
    target: Tensor
    lost_steps: Tensor
    adam_updates: Tensor


class Decision(NamedTuple):
    """What to do in a step: boolean scalars.

    Attributes:
        save: Before the step, copy the weights.
        adam: The step is Adam's, not the rule's.
        catch_up: It is `CATCH_UP` times as long.
        trial: It is part of a trial.
        restore: The copy replaces the weights, and there is no step.
        swap: After the step, exchange weights and copy.
        reset_adam: After the step, reset Adam's moments.
        reset_rule: After the step, reset the rule's state.
    """

    save: Tensor
    adam: Tensor
    catch_up: Tensor
    trial: Tensor
    restore: Tensor
    swap: Tensor
    reset_adam: Tensor
    reset_rule: Tensor

    @property
    def adam_sees(self) -> Tensor:
        """Whether Adam's moments take in the gradient."""
        return ops.logical_or(self.adam, ops.logical_not(self.trial))

    @property
    def rule_sees(self) -> Tensor:
        """Whether the rule's state takes in the gradient."""
        blind = ops.logical_or(ops.logical_and(self.adam, self.trial), self.restore)
        return ops.logical_not(blind)


def decide(
    state: FallbackState, seen: Tensor, loss: Tensor, accepted: Tensor, products: Tensor
) -> tuple[FallbackState, Decision]:
    """Takes in a loss and decides on the step. Pure, in `keras.ops` only.

    Args:
        state: The state before the step.
        seen: Whether there is a loss, a boolean scalar. If not, the rule steps.
        loss: Loss of the weights before the step, on a minibatch, a float32 scalar.
        accepted: Whether the gradient is fit for a step, a boolean scalar.
        products: Inner products in the last step, float32 `[4]`: the rule's update with Adam's,
            each of them with itself, the gradient with Adam's update from the gradients before.

    Returns:
        `(state, decision)`: the state after the step, and what to do in it.
    """
    usable = _all(accepted, ops.isfinite(loss))
    seen = _all(seen, _any(usable, state.steps > 0.5))
    observed = _observe(state, ops.where(usable, loss, float("inf")), -products[3])
    after, decision = _decide_with_loss(observed, _resemble(products))

    # Losses may be late: the first is then that of the copy that was made without one.
    no = ops.zeros_like(seen)
    without_loss = Decision(_not(no), no, no, no, no, no, no, no)
    pairs = zip(decision, without_loss, strict=True)
    decision = Decision(*(ops.where(seen, a, b) for a, b in pairs))
    updates = state.adam_updates + _number(_all(accepted, decision.adam_sees))
    updates = ops.where(decision.reset_adam, 0.0, updates)
    return _where(seen, after, state)._replace(adam_updates=updates), decision


def _decide_with_loss(s: FallbackState, alike: Tensor) -> tuple[FallbackState, Decision]:
    """Decides once the loss is observed, given whether the rule's updates resemble Adam's."""
    leads, trial = s.adam_leads > 0.5, s.trial > 0.5
    adam, period = ops.not_equal(leads, trial), _not(trial)
    first = _all(s.steps < 1.5, s.adam_updates < 0.5)
    awaited = _all(period, leads, ops.equal(s.position, 0.0))
    catch_up = _all(period, leads, s.lost_steps > 0.5)

    harm = _all(s.mean > s.level + _margin(s), _any(_not(adam), trial))
    over = _all(s.position >= s.length, _not(harm))
    rules_period = _all(period, over, _not(leads))
    proven, unclear = (_all(rules_period, verdict) for verdict in _assess_rule(s))
    postponed = _all(period, over, leads, _not(alike))
    starts = _all(period, over, _not(_any(proven, unclear, postponed)))
    # Chance has to be ruled out for a proven rule to be replaced, and for a rule to return.
    needed = ops.where(_all(_not(leads), _is_full_trial(s)), _LIKELY, _CERTAIN)
    wins = _all(trial, over, _standard_errors_below_target(s) > needed)
    loses = _all(trial, _any(harm, over), _not(wins))

    decision = Decision(
        save=_any(first, proven, wins, awaited),
        adam=adam,
        catch_up=catch_up,
        trial=trial,
        restore=harm,
        swap=_all(_any(starts, loses), _not(harm)),
        reset_adam=_all(_any(starts, loses, harm), _not(leads)),
        reset_rule=_all(harm, _not(adam)),
    )
    s = s._replace(
        adam_steps=s.adam_steps + _number(adam),
        lost_steps=s.lost_steps - (CATCH_UP - 1.0) * _number(catch_up),
    )
    # At most one of these happens.
    after = _where(unclear, s._replace(length=2.0 * s.length), s)
    after = _where(awaited, s._replace(level=s.mean), after)
    after = _where(_any(proven, postponed), _begin_period(s, s.mean), after)
    after = _where(starts, _begin_trial(s), after)
    after = _where(_any(wins, loses), _end_trial(s, wins, harm), after)
    after = _where(_all(harm, period), _rescue(s), after)
    return after, decision


def conclude(state: FallbackState) -> tuple[FallbackState, Tensor, Tensor]:
    """Ends a trial early, where training ends. Pure, in `keras.ops` only.

    The challenger wins if it has lower losses and is more than half-way through the trial.

    Args:
        state: The state.

    Returns:
        `(state, swap, reset_adam)`: the state after that, and boolean scalars: whether to exchange
        weights and copy, and whether to reset Adam's moments.
    """
    s, trial = state, state.trial > 0.5
    wins = _all(trial, s.position > 0.5 * s.length, s.mean < s.target)
    loses = _all(trial, _not(wins))
    reset_adam = _all(loses, s.adam_leads < 0.5)
    after = _where(trial, _end_trial(s, wins, ops.zeros_like(trial)), s)
    updates = ops.where(reset_adam, 0.0, s.adam_updates)
    return after._replace(adam_updates=updates), loses, reset_adam


def _observe(s: FallbackState, loss: Tensor, promise: Tensor) -> FallbackState:
    """Takes a loss into the averages, and lowers the target by a part of the promise."""
    first = s.steps < 0.5
    s = s._replace(
        steps=s.steps + 1.0,
        position=s.position + 1.0,
        length=ops.maximum(s.length, _FIRST_PERIOD),
        level=ops.where(first, loss, s.level),
        mean=ops.where(first, loss, s.mean),
    )
    margin, weight = _margin(s), _weight(s)
    # However high a single loss is, it is not harm yet.
    deviation = ops.minimum(loss, s.level + 3.0 * margin) - s.mean
    variance = s.variance + weight * (ops.square(deviation) - s.variance)
    mean = s.mean + weight * deviation
    counts = _all(s.steps <= _EARLY, s.position > 1.5, s.trial < 0.5, ops.isfinite(promise))
    target = s.target - ops.where(counts, _PROMISED * promise, 0.0)
    return s._replace(
        mean=mean,
        variance=ops.where(loss <= s.level + margin, variance, s.variance),
        # The first loss alone would be too noisy.
        target=ops.where(s.steps <= 0.5 * _FIRST_PERIOD, mean, target),
    )


def _weight(s: FallbackState) -> Tensor:
    """Returns the weight of a loss in averages."""
    return 1.0 / (_MEMORY * s.length)


def _margin(s: FallbackState) -> Tensor:
    """Returns how far above the level losses may rise."""
    return ops.maximum(_NOISE * ops.sqrt(s.variance), _RISE * ops.abs(s.level))


def _standard_error(s: FallbackState) -> Tensor:
    """Returns the standard error of the difference of mean and target."""
    of_mean = _weight(s) / (2.0 - _weight(s))
    of_target = ops.where(_is_first_copy(s), 2.0 / _FIRST_PERIOD, of_mean)
    return ops.maximum(ops.sqrt(s.variance * (of_mean + of_target)), 1e-30)


def _standard_errors_below_target(s: FallbackState) -> Tensor:
    return (s.target - s.mean) / _standard_error(s)


def _is_first_copy(s: FallbackState) -> Tensor:
    return ops.equal(s.position, s.steps)


def _assess_rule(s: FallbackState) -> tuple[Tensor, Tensor]:
    """Returns whether a period of the rule has proven it, and whether it is to be longer."""
    error = _standard_error(s)
    better = _standard_errors_below_target(s)
    # A rule that has once proven itself gets more time.
    shortest = ops.where(_is_first_copy(s), 0.0, _EARLY)
    longest = ops.maximum(ops.maximum(4.0 * _FIRST_PERIOD, shortest), 0.5 * s.steps)
    noisy = _all(error > _STANDSTILL * ops.abs(s.level), s.length < longest)
    fallen = ops.minimum(better, (s.level - s.mean) / error)
    proven = fallen > ops.where(noisy, _CERTAIN, _LIKELY)
    unclear = _all(noisy, _any(s.length < shortest, better >= -_CERTAIN), _not(proven))
    return proven, unclear


def _is_full_trial(s: FallbackState) -> Tensor:
    """Returns whether Adam's trial is as long as the rule's period; not if the rule was proven."""
    return s.length >= s.lost_steps


def _resemble(products: Tensor) -> Tensor:
    """Returns whether the rule's update resembles Adam's."""
    both, rule, adam, _ = ops.unstack(products)
    direction = both > _COSINE * ops.sqrt(rule) * ops.sqrt(adam)
    return _all(direction, rule <= _TIMES**2 * adam)


def _begin_period(s: FallbackState, level: Tensor) -> FallbackState:
    """Begins a period of the leader; Adam first waits for as many steps as there have been."""
    leads = s.adam_leads > 0.5
    length = ops.floor(s.steps * ops.where(leads, _TRIAL, 0.25))
    return s._replace(
        trial=ops.zeros_like(s.trial),
        position=ops.where(leads, -s.steps, 0.0),
        length=ops.maximum(length, _FIRST_PERIOD),
        level=level,
        target=level,
    )


def _begin_trial(s: FallbackState) -> FallbackState:
    """Begins a trial, as long as the period or shorter."""
    longest = ops.maximum(4.0 * _FIRST_PERIOD, ops.floor(_TRIAL * s.steps))
    repeated = _not(ops.isfinite(s.target))
    return s._replace(
        trials=s.trials + 1.0,
        trial=ops.ones_like(s.trial),
        position=ops.zeros_like(s.position),
        length=ops.where(repeated, s.position, ops.minimum(s.position, longest)),
        mean=s.level,
        target=s.mean,
        lost_steps=ops.where(s.adam_leads > 0.5, s.lost_steps, s.position),
    )


def _end_trial(s: FallbackState, wins: Tensor, harm: Tensor) -> FallbackState:
    """Ends a trial: the challenger has won, has lost, or has done harm and is discarded."""
    adam_leads = ops.where(wins, 1.0 - s.adam_leads, s.adam_leads)
    lost_steps = s.lost_steps + ops.where(s.adam_leads > 0.5, s.position, 0.0)
    after = _begin_period(
        s._replace(
            adam_leads=adam_leads,
            mean=ops.where(wins, s.mean, s.target),
            lost_steps=lost_steps * adam_leads,
        ),
        level=ops.where(harm, s.target, s.mean),
    )
    # A rule that goes on has a long period. If it never was proven, and Adam not clearly behind,
    # that ends in a trial.
    resumes = _all(s.adam_leads < 0.5, adam_leads < 0.5)
    close = _all(_standard_errors_below_target(s) >= -_CERTAIN, _not(harm))
    unclear = _all(resumes, close, _is_full_trial(s))
    return after._replace(
        length=ops.where(resumes, s.steps, after.length),
        target=ops.where(unclear, -float("inf"), after.target),
    )


def _rescue(s: FallbackState) -> FallbackState:
    """Lets Adam lead, from the copy."""
    changed = s._replace(
        rescues=s.rescues + 1.0,
        adam_leads=ops.ones_like(s.adam_leads),
        mean=s.level,
        lost_steps=s.position,
    )
    return _begin_period(changed, s.level)


def _where(condition: Tensor, then: FallbackState, otherwise: FallbackState) -> FallbackState:
    pairs = zip(then, otherwise, strict=True)
    return FallbackState(*(ops.where(condition, a, b) for a, b in pairs))


def _all(*conditions: Tensor) -> Tensor:
    return ops.all(ops.stack(conditions))


def _any(*conditions: Tensor) -> Tensor:
    return ops.any(ops.stack(conditions))


def _not(condition: Tensor) -> Tensor:
    return ops.logical_not(condition)


def _number(condition: Tensor) -> Tensor:
    return ops.cast(condition, "float32")
