"""Decides between a learned rule and Adam by the losses that they make.

Whoever leads makes the steps, in periods. A copy of the weights is what to go back to if a rule
does harm: it is made anew where a period has ended with losses that are lower for certain, since
weights may be ruined while losses stand still. At the end of a period of the rule there is a test
that costs no step: has the loss fallen by what Adam's steps would have promised? The promise of a
step is the product of the gradient and of Adam's update from the gradients before; where Adam
leads, losses fall by about that. A rule that is clearly behind (later on: that makes no progress),
is put to trial: Adam has as many steps from the copy (fewer, if the rule has proven before what it
can do), and whoever comes to lower losses leads from then on, with the weights that it has come to.
Where nobody is ahead for certain, the rule goes on, Adam's weights are the copy, and there are
further trials until one of both is. A good rule is seldom put to trial; a bad one is soon, from
weights that it has not ruined yet.

A rule that has lost has short trials of its own now and then, if its updates agree with Adam's.
Where Adam leads, it makes up for the steps of a rule that are lost: for a while its own are `HURRY`
times as long.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

Tensor = Any

HURRY = 2.0
"""How many times as long as usual a step of Adam's is where it makes up for some that were lost."""

# Steps of the first period, and of later ones as a part of all steps. Even numbers: of two halves.
_PERIOD, _PART = 8.0, 0.25
# A period that tells nothing yet becomes longer until it is such a part of all steps, and so long.
_LONGEST_PART, _LONGEST_FIRST = 0.5, 32.0
# By how many standard errors the fall of losses is to miss what was promised for there to be a
# trial; and to exceed it to be taken for no accident, from a rule that is trusted, or not yet.
_DOUBTS, _LIKELY, _CERTAIN = 1.5, 1.0, 3.0
# After so many steps, it is enough that losses are lower than before, but for a rule that could not
# prove more in a trial.
_PROBATION = 64.0
# A rule makes no progress to speak of if losses have fallen by less than such a part.
_STANDSTILL = 0.03
# By how many standard errors a challenger is to be better than a rule that is not trusted yet, or
# than another leader; and how much worse half-way through, to be stopped.
_SLIGHTLY_AHEAD, _AHEAD, _BEHIND = 0.5, 2.0, 0.5
# Steps of a trial of Adam's against a trusted rule, as a part of all, at most.
_TRUSTED_PART = 0.1
# How many times as long as a trial that Adam has lost the next period is.
_PATIENCE = 4.0
# Steps of trials of a rule, as a part of all; there may be one when there have been so many steps,
# and twice as many as at the last.
_TRIAL_PART, _FIRST_WAIT = 0.03, 16.0
# Harm is done where for so many steps the loss has been higher than at the copy, by so many
# standard deviations and by such a part, which is larger in the first few steps.
_HARM_STEPS, _HARM_DEVIATIONS, _HARM_PART, _EARLY = 3.0, 4.0, 0.2, 8.0
# A loss that is higher by so many standard deviations and by so many times counts as so many steps.
_GROSS_DEVIATIONS, _GROSS_PART, _GROSS_STEPS = 20.0, 2.0, 1.5
# Updates of a rule agree with Adam's if their cosine is at least so much, and they are at most so
# many times as large; and a rule does if that holds for such a part of the last dozens.
_COSINE, _TIMES, _AGREEING = 0.1, 30.0, 0.8
# What is no error at all.
_TINY = 1e-30
# Weight of a loss in the averages of the last few and of the last dozens.
_FEW, _DOZENS = 0.3, 0.05


class FallbackState(NamedTuple):
    """What is known of a training run. All are float32 scalars, zero at first.

    Attributes:
        steps: Steps so far whose loss and gradient were as they should be.
        adam_leads: 1 if Adam leads, 0 if the rule does.
        trial: 1 in a trial, where the challenger makes the steps: the leader's weights are the
            copy.
        attempt: 1 in a period of Adam's at whose end there is a trial of the rule.
        length: Steps of the period, or of the trial.
        place: Steps of it so far.
        first: Sum of the losses of its first half, above `level`.
        second: Of its second half.
        rising: What Adam's steps promised for the first half, each times its place.
        falling: For the second half, each times the steps that were left of it.
        late: For the second half, their sum.
        leader_first: `first` of the period before the trial, for as many losses as there.
        leader_second: `second` of it.
        renewal: 1 if the copy is made anew at the start of the period.
        trust: 1 once the rule has proven what it can do, 0 before; -1 if a trial has not done so.
            Means nothing where Adam leads.
        recent: Average of the last few losses.
        last: The last loss.
        variance: Variance of losses by the differences of neighbours, in the last dozens.
        level: Average of a few losses of the weights that are the copy.
        spread: Standard deviation of losses there.
        high: For how many steps losses have been too high.
        agreeing: How often the rule's updates have agreed with Adam's, of the last dozens.
        moments: Steps that Adam's moments are made of.
        adam_steps: Steps of Adam so far.
        owed: Lost steps of the rule that Adam has not made up for yet.
        rescues: How often a rule has done harm.
        trials: Trials so far.
    """

    steps: Tensor
    adam_leads: Tensor
    trial: Tensor
    attempt: Tensor
    length: Tensor
    place: Tensor
    first: Tensor
    second: Tensor
    rising: Tensor
    falling: Tensor
    late: Tensor
    leader_first: Tensor
    leader_second: Tensor
    renewal: Tensor
    trust: Tensor
    recent: Tensor
    last: Tensor
    variance: Tensor
    level: Tensor
    spread: Tensor
    high: Tensor
    agreeing: Tensor
    moments: Tensor
    adam_steps: Tensor
    owed: Tensor
    rescues: Tensor
    trials: Tensor


class Decision(NamedTuple):
    """What is to happen in a step. All are boolean scalars.

    Attributes:
        adam: Whether the step is Adam's, not the rule's.
        hurries: Whether it is `HURRY` times as long as usual.
        trial: Whether it is part of a trial.
        back: Whether there is no step, but the copy becomes the weights again.
        copy: Whether the copy is made anew, before the step.
        swap: Whether weights and copy change places, after the step.
        forget_adam: Whether Adam's moments start anew, after the step.
        forget_rule: Whether the rule's state does.
    """

    adam: Tensor
    hurries: Tensor
    trial: Tensor
    back: Tensor
    copy: Tensor
    swap: Tensor
    forget_adam: Tensor
    forget_rule: Tensor

    @property
    def adam_sees(self) -> Tensor:
        """Whether Adam's moments take the gradient in: in a trial, only in its own."""
        return ops.logical_or(self.adam, ops.logical_not(self.trial))

    @property
    def rule_sees(self) -> Tensor:
        """Whether the rule's state does."""
        own = ops.logical_not(ops.logical_and(self.adam, self.trial))
        return ops.logical_and(own, ops.logical_not(self.back))


def decide(
    state: FallbackState, seen: Tensor, loss: Tensor, accepted: Tensor, products: Tensor
) -> tuple[FallbackState, Decision]:
    """Takes a loss into account, and decides what is to happen. Pure, in `keras.ops` only.

    Args:
        state: What is known so far.
        seen: Whether there is a loss, a boolean scalar; if not, the rule steps.
        loss: Loss of the weights, as they are before the step, on a minibatch, a float32 scalar.
        accepted: Whether the gradient is fit for a step, a boolean scalar.
        products: Of what the rule and Adam would have done in the last step: the product of their
            updates, the squares of the updates' norms, and the product of the gradient and of
            Adam's update from the gradients before, float32 `[4]`.

    Returns:
        `(state, decision)`: what is known after the step, and what is to happen in it.
    """
    seeing = _see(state, loss, accepted, products)
    no = ops.zeros_like(accepted)
    # The copy is ready, for the first loss to be seen.
    blind = Decision(no, no, no, no, ops.ones_like(no), no, no, no)
    warmer = state._replace(moments=state.moments + _number(accepted))
    parts = (ops.where(seen, a, b) for a, b in zip(seeing[1], blind, strict=True))
    return _when(seen, seeing[0], warmer), Decision(*parts)


def conclude(state: FallbackState) -> tuple[FallbackState, Tensor, Tensor]:
    """Ends a trial before its time. Pure, in `keras.ops` only.

    For where training ends in a trial: the challenger wins if it is more than half-way through and
    has come to lower losses, if not for certain. Else the leader goes on, with its own weights.

    Args:
        state: What is known.

    Returns:
        `(state, swap, forget_adam)`: what is known then, whether weights and copy are to change
        places, and whether Adam's moments are to start anew, boolean scalars.
    """
    r = state
    trial = r.trial > 0.5
    wins = _all(trial, r.place > 0.5 * r.length, r.recent < _recent_of_leader(r))
    loses = ops.logical_and(trial, ops.logical_not(wins))
    no = ops.zeros_like(trial)
    after = _when(wins, _win_trial(r), _when(loses, _lose_trial(r, no, no), r))
    forget_adam = ops.logical_and(loses, r.adam_leads < 0.5)
    moments = ops.where(forget_adam, 0.0, after.moments)
    return after._replace(moments=moments), loses, forget_adam


def _see(
    state: FallbackState, loss: Tensor, accepted: Tensor, products: Tensor
) -> tuple[FallbackState, Decision]:
    """Decides where there is a loss; see `decide`."""
    good = ops.logical_and(accepted, ops.isfinite(loss))
    taken = _take(state, ops.where(good, loss, 0.0), products)
    r = _when(good, taken, state._replace(high=state.high + 1.0))
    leads, trial = r.adam_leads > 0.5, r.trial > 0.5
    adam = ops.not_equal(leads, trial)
    back = ops.logical_and(r.high >= _HARM_STEPS, ops.logical_or(ops.logical_not(adam), trial))

    going_on = ops.logical_and(good, ops.logical_not(back))
    hurries = _all(going_on, leads, ops.logical_not(trial), r.owed > 0.5)
    r = r._replace(owed=r.owed - (HURRY - 1.0) * _number(hurries))
    # Where losses are late, the first one is that of the copy that was made without it.
    due = ops.where(r.steps > 1.5, r.renewal > 0.5, r.moments < 0.5)
    copy = _all(going_on, ops.logical_not(trial), r.place < 1.5, due)

    over = ops.logical_and(going_on, r.place >= r.length)
    period_over = ops.logical_and(over, ops.logical_not(trial))
    put_to_trial, longer, proven = _examine(r)
    begins = ops.logical_and(period_over, put_to_trial)
    behind, far_behind, ahead = _compare(r)
    stopped = _all(going_on, ops.equal(r.place, 0.5 * r.length), behind)
    wins = _all(trial, over, ahead)
    loses = _all(trial, ops.logical_or(stopped, over), ops.logical_not(wins))

    decision = Decision(
        adam=adam,
        hurries=hurries,
        trial=trial,
        back=back,
        copy=copy,
        swap=ops.logical_or(begins, loses),
        forget_adam=ops.logical_and(_any(begins, loses, back), ops.logical_not(leads)),
        forget_rule=ops.logical_and(back, ops.logical_not(adam)),
    )
    after = _when(ops.logical_and(period_over, longer), _lengthen(r), r)
    known = r._replace(trust=ops.where(proven, 1.0, r.trust))
    next_period = _next_period(known, proven)
    after = _when(ops.logical_and(period_over, ops.logical_not(longer)), next_period, after)
    after = _when(begins, _begin_trial(r), after)
    after = _when(wins, _win_trial(r), after)
    after = _when(ops.logical_or(loses, back), _lose_trial(r, back, far_behind), after)
    after = _when(ops.logical_and(back, ops.logical_not(trial)), _replace_rule(r), after)
    warmed = _number(ops.logical_and(accepted, decision.adam_sees))
    harm = _number(decision.forget_rule)
    return after._replace(
        moments=ops.where(decision.forget_adam, 0.0, after.moments + warmed),
        adam_steps=after.adam_steps + _number(adam),
        rescues=after.rescues + harm,
        agreeing=after.agreeing * (1.0 - harm),
    ), decision


def _take(r: FallbackState, loss: Tensor, products: Tensor) -> FallbackState:
    """Takes a loss into account."""
    both, rule, adam, promise = ops.unstack(products)
    agree = both > _COSINE * ops.sqrt(rule) * ops.sqrt(adam)
    agree = ops.logical_and(agree, rule <= _TIMES**2 * adam)
    r = r._replace(steps=r.steps + 1.0, place=r.place + 1.0)
    begins = r.steps < 1.5
    r = r._replace(
        length=ops.where(begins, _PERIOD, r.length), level=ops.where(begins, loss, r.level)
    )
    few, dozens = (ops.maximum(weight, 1.0 / r.steps) for weight in (_FEW, _DOZENS))
    recent = r.recent + few * (loss - r.recent)
    part = _HARM_PART + _EARLY / (_EARLY + r.steps)
    deviations = _HARM_DEVIATIONS * ops.maximum(r.spread, ops.sqrt(r.variance))
    bound = r.level + ops.maximum(deviations, part * ops.abs(r.level))
    gross = r.level + ops.maximum(
        _GROSS_DEVIATIONS * r.spread, (_GROSS_PART + part) * ops.abs(r.level)
    )
    # One loss that is too high is an accident, however long the average takes to forget it.
    harm = ops.where(loss > gross, _GROSS_STEPS, _number(loss > bound))
    high = ops.where(recent <= bound, 0.0, r.high + harm)
    high = ops.where(begins, 0.0, high)
    # Of neighbours, so that it does not matter how fast losses fall.
    variance = r.variance + dozens * (0.5 * ops.square(loss - r.last) - r.variance)
    # What is too high is no measure of what losses are like; where weights were changed for others,
    # losses are no neighbours.
    usual = ops.logical_and(high < 0.5, r.place > 1.5)
    first = _number(r.place <= 0.5 * r.length)
    second = 1.0 - first
    # What was promised for the fall from the loss before to this one.
    promised = -ops.where(ops.isfinite(promise), promise, 0.0) * _number(r.place > 1.5)
    return r._replace(
        first=r.first + first * (loss - r.level),
        second=r.second + second * (loss - r.level),
        rising=r.rising + first * promised * (r.place - 1.0),
        falling=r.falling + second * promised * (r.length + 1.0 - r.place),
        late=r.late + second * promised,
        recent=recent,
        last=loss,
        variance=ops.where(usual, variance, r.variance),
        high=high,
        agreeing=r.agreeing + _DOZENS * (_number(agree) - r.agreeing),
    )


def _examine(r: FallbackState) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what comes of a period: whether a trial, or else more of it, and whether a new copy.

    The last is for a rule that has made progress for certain.
    """
    half = 0.5 * r.length
    gain = (r.first - r.second) / half
    promised = ops.maximum((r.rising + r.falling) / half, 0.0)
    # Of two means of so many losses.
    error = ops.maximum(ops.sqrt(r.variance / (0.5 * half)), _TINY)
    trusted, suspect = r.trust > 0.5, r.trust < -0.5
    # Promises are too good where noise is low, as it is once a good rule takes small steps.
    probation = ops.logical_or(r.steps <= _PROBATION, suspect)
    progress = (gain - ops.where(probation, promised, 0.0)) / error
    below = -r.second / half / error
    both = ops.minimum(progress, below)
    proven = ops.where(trusted, below > _LIKELY, both > _CERTAIN)
    behind = gain < promised - _DOUBTS * error
    longest = ops.maximum(_LONGEST_FIRST, _LONGEST_PART * (r.steps + r.length))
    room = ops.logical_or(2.0 * r.length <= longest, ops.logical_not(trusted))
    leads = r.adam_leads > 0.5
    longer = _all(ops.logical_not(_any(proven, suspect, leads)), room)
    # Later on, losses may stand still for a while, and Adam's smaller steps be better for as long.
    patient = _all(r.steps > _PROBATION, trusted, longer)
    size = ops.abs(r.level + r.second / half)
    stands_still = ops.maximum(gain, 0.0) + error < _STANDSTILL * size
    stands_still = ops.logical_and(stands_still, ops.logical_not(patient))
    keeping_up = both > _LIKELY
    doubted = _all(_any(behind, stands_still, suspect), ops.logical_not(keeping_up))
    again = ops.logical_and(r.attempt > 0.5, r.agreeing >= _AGREEING)
    return ops.where(leads, again, doubted), longer, proven


def _compare(r: FallbackState) -> tuple[Tensor, Tensor, Tensor]:
    """Returns whether a challenger is behind, so far, or for certain, and whether it is ahead."""
    half = 0.5 * r.length
    # Of the difference of two sums of so many losses.
    error = ops.sqrt(2.0 * r.variance * half)
    # Half-way through, a challenger need not be below losses that have risen since.
    worse = ops.maximum(r.leader_first, r.leader_second)
    behind = ops.where(r.place > half, r.second - r.leader_second, r.first - worse)
    # Later on, losses that have risen may fall again: to be below them is no feat.
    lower = ops.minimum(r.leader_first, r.leader_second)
    rival = ops.where(r.steps > _PROBATION, lower, r.leader_second)
    trusted = ops.logical_or(r.adam_leads > 0.5, r.trust > 0.5)
    needed = ops.where(trusted, _AHEAD, _SLIGHTLY_AHEAD)
    ahead = rival - r.second > needed * error
    return behind > _BEHIND * error, behind > _AHEAD * error, ahead


def _next_period(r: FallbackState, proven: Tensor | bool = True) -> FallbackState:
    """Begins a period of the leader's; of a rule with a new copy only if its weights are proven."""
    leads = r.adam_leads > 0.5
    renewal = ops.logical_or(leads, proven)
    # Adam's periods are in turn for the rule to wait, and as long as its trial.
    attempt = ops.logical_and(leads, _all(r.attempt < 0.5, r.agreeing >= _AGREEING))
    wait = r.steps + _FIRST_WAIT
    own = ops.where(attempt, _TRIAL_PART * r.steps, ops.where(leads, wait, _PART * r.steps))
    return _without_losses(r)._replace(
        trial=ops.zeros_like(r.trial),
        attempt=_number(attempt),
        length=_even(ops.maximum(own, _PERIOD)),
        renewal=_number(renewal),
        level=ops.where(renewal, r.recent, r.level),
        spread=ops.where(renewal, ops.sqrt(r.variance), r.spread),
    )


def _lengthen(r: FallbackState) -> FallbackState:
    """Makes a period twice as long: what was all of it is its first half."""
    zero = ops.zeros_like(r.place)
    return r._replace(
        length=2.0 * r.length,
        first=r.first + r.second,
        second=zero,
        rising=r.rising + r.length * r.late - r.falling,
        falling=zero,
        late=zero,
    )


def _begin_trial(r: FallbackState) -> FallbackState:
    """It is the challenger's turn, from the copy: for as long, or less where a rule is trusted."""
    most = ops.maximum(_even(_TRUSTED_PART * r.steps), _LONGEST_FIRST)
    trusted = _all(r.adam_leads < 0.5, r.trust > 0.5, r.length > most)
    length = ops.where(trusted, most, r.length)
    return _without_losses(r)._replace(
        trial=ops.ones_like(r.trial),
        length=length,
        leader_first=r.first * length / r.length,
        leader_second=r.second * length / r.length,
        recent=r.level,
        trials=r.trials + 1.0,
    )


def _lose_trial(r: FallbackState, back: Tensor, far_behind: Tensor) -> FallbackState:
    """The leader goes on, with its own weights; its next period is far longer than the trial.

    If that is a rule that is ahead, but not for certain, Adam's weights are the copy then.
    """
    certain = ops.logical_or(back, far_behind)
    trust = ops.where(ops.logical_or(certain, r.trust > 0.5), 1.0, -1.0)
    known = r._replace(recent=_recent_of_leader(r), level=r.recent, trust=trust)
    after = _next_period(known, certain)
    longer = ops.maximum(after.length, _PATIENCE * r.length)
    leads = r.adam_leads > 0.5
    return after._replace(
        length=ops.where(leads, after.length, longer),
        owed=ops.where(leads, r.owed + r.place, 0.0),
    )


def _recent_of_leader(r: FallbackState) -> Tensor:
    """Returns what the losses of the leader were before the trial."""
    return r.level + r.leader_second / (0.5 * r.length)


def _win_trial(r: FallbackState) -> FallbackState:
    """The challenger leads. If that is Adam, a period of the rule's, no shorter, was in vain."""
    waits = ops.ones_like(r.attempt)
    owed = ops.where(r.adam_leads > 0.5, 0.0, r.length)
    return _next_period(
        r._replace(adam_leads=1.0 - r.adam_leads, attempt=waits, trust=waits, owed=owed)
    )


def _replace_rule(r: FallbackState) -> FallbackState:
    """Adam leads, from the copy."""
    return _next_period(
        r._replace(
            adam_leads=ops.ones_like(r.adam_leads),
            attempt=ops.ones_like(r.attempt),
            owed=r.place,
            recent=r.level,
        )
    )


def _without_losses(r: FallbackState) -> FallbackState:
    """Begins to count."""
    zero = ops.zeros_like(r.place)
    return r._replace(
        place=zero, first=zero, second=zero, rising=zero, falling=zero, late=zero, high=zero
    )


def _even(number: Tensor) -> Tensor:
    return 2.0 * ops.floor(0.5 * number)


def _number(condition: Tensor) -> Tensor:
    return ops.cast(condition, "float32")


def _all(*conditions: Tensor) -> Tensor:
    return ops.all(ops.stack(conditions))


def _any(*conditions: Tensor) -> Tensor:
    return ops.any(ops.stack(conditions))


def _when(condition: Tensor, then: FallbackState, otherwise: FallbackState) -> FallbackState:
    return FallbackState(
        *(ops.where(condition, a, b) for a, b in zip(then, otherwise, strict=True))
    )
