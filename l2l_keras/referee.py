"""Decides between a learned rule and Adam by the losses that they make.

There are two lanes: the weights, and a copy of them. Whoever leads makes the steps, and the copy is
what to go back to if a rule does harm. Now and then there is a race: from the same weights, the
challenger has as many steps as the leader, turn by turn. If its losses are clearly lower it leads
from then on, with the weights that it has come to.

A race costs the steps of whoever loses it. How many it may cost depends on how fast the loss falls:
where a leader makes good progress, next to none; where it makes none, there is nothing to lose. A
rule is no challenger before its updates have agreed with Adam's for some time.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from keras import ops

Tensor = Any

# There may be a race after so many steps, and when there have been twice as many as at the last.
_FIRST_RACE = 16.0
# The challenger has at most so many steps, as a part of all, that the leader's loss would be lower
# by such a part if it had them; and never more than the other part.
_COST, _LARGEST_PART = 0.01, 0.35
# Steps in the first turn of each lane; the next one has twice as many.
_FIRST_TURN = 4.0
# By how many standard errors a mean loss is to be lower; and where the leader stands still.
_CLEARLY, _PROBABLY = 3.0, 1.0
# Harm is done where for so many steps the loss has been higher than at the copy, by so many
# standard deviations and by such a part, which is larger in the first few steps.
_HARM_STEPS, _HARM_DEVIATIONS, _HARM_PART, _EARLY = 3.0, 4.0, 0.2, 8.0
# At once, where a single loss is higher by so many standard deviations and by so many times.
_GROSS_DEVIATIONS, _GROSS_PART = 20.0, 2.0
# Updates of a rule agree with Adam's if their cosine is at least so much, and they are at most so
# many times as large; and a rule does if that holds for such a part of the last dozens.
_COSINE, _TIMES, _AGREEING = 0.1, 30.0, 0.8
# A new copy is made when there have been more steps by such a part, and so many.
_COPY_PART, _COPY_STEPS = 0.125, 8.0
# Weight of a loss in the averages of the last few and of the last dozens.
_FEW, _DOZENS = 0.3, 0.05


class Referee(NamedTuple):
    """What is known of a training run. All are float32 scalars, zero at first.

    Attributes:
        steps: Steps so far whose loss and gradient were as they should be.
        adam_leads: 1 if Adam leads, 0 if the rule does.
        racing: 1 in a race.
        challenging: 1 while it is the challenger's turn: the leader's weights are the copy.
        turn: Steps of a turn.
        left: Steps that are left of it.
        raced: Steps that the challenger has had in this race.
        most: Steps that it may have.
        margin: How much lower its loss is to be: what the leader has won since the last race; 0
            where that is nothing to speak of.
        next_race: Steps until when there is no further race.
        leader_sum: Sum of the leader's losses, above `level`, in the second half of its turn.
        leader_count: Number of them.
        challenger_sum: As of the leader.
        challenger_count: As of the leader.
        before: Mean loss between the last race but one and the last.
        since_sum: Sum of losses since.
        since_count: Number of them.
        recent: Average of the last few losses.
        usual: Average of the last dozens.
        variance: Variance about it.
        level: `recent` where the copy was made.
        spread: Standard deviation of losses there.
        high: For how many steps losses have been too high.
        next_copy: Steps until when there is no new copy.
        agreeing: How often the rule's updates have agreed with Adam's, of the last dozens.
        moments: Steps that Adam's moments are made of.
        adam_steps: Steps of Adam so far.
        rescues: How often a rule has done harm.
        races: Races so far.
    """

    steps: Tensor
    adam_leads: Tensor
    racing: Tensor
    challenging: Tensor
    turn: Tensor
    left: Tensor
    raced: Tensor
    most: Tensor
    margin: Tensor
    next_race: Tensor
    leader_sum: Tensor
    leader_count: Tensor
    challenger_sum: Tensor
    challenger_count: Tensor
    before: Tensor
    since_sum: Tensor
    since_count: Tensor
    recent: Tensor
    usual: Tensor
    variance: Tensor
    level: Tensor
    spread: Tensor
    high: Tensor
    next_copy: Tensor
    agreeing: Tensor
    moments: Tensor
    adam_steps: Tensor
    rescues: Tensor
    races: Tensor


class Decision(NamedTuple):
    """What is to happen in a step. All are boolean scalars.

    Attributes:
        adam: Whether the step is Adam's, not the rule's.
        race: Whether it is part of a race. Elsewhere, the rule's state and Adam's moments are kept
            warm whoever steps.
        rescue: Whether there is no step, but the copy becomes the weights again, and what is known
            of earlier gradients is forgotten.
        copy: Whether the copy is made anew, before the step.
        swap: Whether weights and copy change places, after the step.
    """

    adam: Tensor
    race: Tensor
    rescue: Tensor
    copy: Tensor
    swap: Tensor


def decide(
    referee: Referee, seen: Tensor, loss: Tensor, accepted: Tensor, products: Tensor
) -> tuple[Referee, Decision]:
    """Takes a loss into account, and decides what is to happen. Pure, in `keras.ops` only.

    Args:
        referee: What is known so far.
        seen: Whether there is a loss, a boolean scalar; if not, the rule steps.
        loss: Loss of the weights, as they are before the step, on a minibatch, a float32 scalar.
        accepted: Whether the gradient is fit for a step, a boolean scalar.
        products: Of what the rule and Adam would have done in the last step: the product of their
            updates, and the squares of the updates' norms, float32 `[3]`.

    Returns:
        `(referee, decision)`: what is known after the step, and what is to happen in it.
    """
    seeing = _see(referee, loss, accepted, products)
    no = ops.zeros_like(accepted)
    # The copy is ready, for the first loss to be seen.
    blind = Decision(adam=no, race=no, rescue=no, copy=ops.ones_like(no), swap=no)
    warmer = referee._replace(moments=referee.moments + _number(accepted))
    parts = (ops.where(seen, a, b) for a, b in zip(seeing[1], blind, strict=True))
    return _when(seen, seeing[0], warmer), Decision(*parts)


def _see(
    referee: Referee, loss: Tensor, accepted: Tensor, products: Tensor
) -> tuple[Referee, Decision]:
    """Decides where there is a loss; see `decide`."""
    good = ops.logical_and(accepted, ops.isfinite(loss))
    taken = _take(referee, ops.where(good, loss, 0.0), _agree(products))
    r = _when(good, taken, referee._replace(high=referee.high + 1.0))
    adam = ops.not_equal(r.adam_leads, r.challenging)
    rescue = ops.logical_and(ops.logical_not(adam), r.high >= _HARM_STEPS)

    idle = ops.logical_and(r.racing < 0.5, ops.logical_and(good, ops.logical_not(rescue)))
    due = ops.logical_and(idle, r.steps >= ops.maximum(r.next_race, _FIRST_RACE))
    due = ops.logical_and(due, ops.logical_or(r.adam_leads < 0.5, r.agreeing >= _AGREEING))
    r = _when(due, _begin_race(r), r)
    begins = ops.logical_and(due, r.racing > 0.5)
    healthy = ops.logical_and(r.steps >= r.next_copy, r.recent <= r.level + r.spread)
    first = r.steps < 1.5
    copy = ops.logical_and(idle, ops.logical_or(ops.logical_or(begins, first), healthy))
    r = _when(copy, _note_copy(r), r)
    # Where losses are late, the first one is that of the copy that was made without it.
    copy = ops.logical_and(copy, ops.logical_not(ops.logical_and(first, r.moments > 0.5)))

    race = r.racing > 0.5
    warmed = ops.logical_and(accepted, ops.logical_or(adam, ops.logical_not(race)))
    r = r._replace(
        left=r.left - r.racing,
        moments=r.moments + _number(warmed),
        adam_steps=r.adam_steps + _number(adam),
    )
    over = ops.logical_and(race, ops.logical_and(r.left < 0.5, ops.logical_not(rescue)))
    challenged = ops.logical_and(over, r.challenging > 0.5)
    wins, ends = _judge(r)
    ends = ops.logical_and(challenged, ends)
    wins = ops.logical_and(ends, wins)
    swap = ops.logical_and(over, ops.logical_not(wins))
    changed = _when(ends, _end_race(r, wins), _when(challenged, _next_round(r), _next_lane(r)))
    r = _when(over, changed, r)
    r = _when(rescue, _rescue(r), r)
    return r, Decision(adam, race, rescue, copy, swap)


def _agree(products: Tensor) -> Tensor:
    """Returns whether the updates of rule and Adam agree."""
    both, rule, adam = ops.unstack(products)
    cosine = both > _COSINE * ops.sqrt(rule) * ops.sqrt(adam)
    return ops.logical_and(cosine, rule <= _TIMES**2 * adam)


def _take(r: Referee, loss: Tensor, agree: Tensor) -> Referee:
    """Takes a loss into account."""
    r = r._replace(steps=r.steps + 1.0)
    few, dozens = (ops.maximum(weight, 1.0 / r.steps) for weight in (_FEW, _DOZENS))
    recent = r.recent + few * (loss - r.recent)
    part = _HARM_PART + _EARLY / (_EARLY + r.steps)
    deviations = _HARM_DEVIATIONS * ops.maximum(r.spread, ops.sqrt(r.variance))
    bound = r.level + ops.maximum(deviations, part * ops.abs(r.level))
    first = r.steps < 1.5
    gross = r.level + ops.maximum(
        _GROSS_DEVIATIONS * r.spread, (_GROSS_PART + part) * ops.abs(r.level)
    )
    high = ops.where(recent <= bound, 0.0, r.high + ops.where(loss > gross, _HARM_STEPS, 1.0))
    high = ops.where(first, 0.0, high)
    r = r._replace(
        recent=recent,
        high=high,
        before=ops.where(first, loss, r.before),
        agreeing=r.agreeing + _DOZENS * (_number(agree) - r.agreeing),
    )
    difference = loss - r.usual
    usual = r.usual + dozens * difference
    variance = r.variance + dozens * (difference * (loss - usual) - r.variance)
    # What is too high is no measure of what losses are like.
    idle = r._replace(
        usual=ops.where(high > 0.5, r.usual, usual),
        variance=ops.where(high > 0.5, r.variance, variance),
        since_sum=r.since_sum + loss,
        since_count=r.since_count + 1.0,
    )
    counts = _number(r.left <= 0.5 * r.turn)
    leader, challenger = counts * (1.0 - r.challenging), counts * r.challenging
    rise = loss - r.level
    racing = r._replace(
        leader_sum=r.leader_sum + leader * rise,
        leader_count=r.leader_count + leader,
        challenger_sum=r.challenger_sum + challenger * rise,
        challenger_count=r.challenger_count + challenger,
    )
    return _when(r.racing > 0.5, racing, idle)


def _begin_race(r: Referee) -> Referee:
    """Begins a race, if the leader's progress allows for one."""
    count = ops.maximum(r.since_count, 1.0)
    since = r.since_sum / count
    progress = ops.maximum(r.before - since, 0.0)
    # Of two means of so many losses.
    error = ops.sqrt(2.0 * r.variance / count)
    # Losses fall about as a power of the number of steps, which has doubled.
    power = progress / (math.log(2.0) * ops.abs(since) + 1e-12)
    most = r.steps * ops.minimum(_COST / (power + 1e-12), _LARGEST_PART)
    r = r._replace(
        next_race=2.0 * r.steps,
        before=since,
        since_sum=ops.zeros_like(since),
        since_count=ops.zeros_like(since),
    )
    one = ops.ones_like(since)
    race = r._replace(
        racing=one,
        turn=_FIRST_TURN * one,
        left=_FIRST_TURN * one,
        raced=0.0 * one,
        most=most,
        margin=ops.where(progress > _PROBABLY * error, progress, 0.0),
        races=r.races + 1.0,
    )
    return _when(most >= _FIRST_TURN, _without_losses(race), r)


def _note_copy(r: Referee) -> Referee:
    """Notes what losses are like where the copy is made."""
    return r._replace(
        level=r.recent,
        spread=ops.sqrt(r.variance),
        next_copy=r.steps + ops.maximum(_COPY_STEPS, _COPY_PART * r.steps),
    )


def _judge(r: Referee) -> tuple[Tensor, Tensor]:
    """Returns whether the challenger is ahead, and whether the race ends."""
    counts = (ops.maximum(count, 1.0) for count in (r.leader_count, r.challenger_count))
    leader_count, challenger_count = counts
    gain = r.leader_sum / leader_count - r.challenger_sum / challenger_count
    error = r.spread * ops.sqrt(1.0 / leader_count + 1.0 / challenger_count)
    last = r.raced + 3.0 * r.turn > r.most
    # Where the leader stands still, there is little to lose by a wrong decision.
    still = ops.logical_and(last, r.margin <= 0.0)
    ahead = gain > ops.maximum(ops.where(still, _PROBABLY, _CLEARLY) * error, r.margin)
    return ahead, ops.logical_or(ops.logical_or(ahead, gain < -_CLEARLY * error), last)


def _next_lane(r: Referee) -> Referee:
    """It is the challenger's turn."""
    return _from_copy(r)._replace(challenging=ops.ones_like(r.turn), left=r.turn)


def _next_round(r: Referee) -> Referee:
    """It is the leader's turn again, twice as long."""
    return _from_copy(_without_losses(r))._replace(
        challenging=ops.zeros_like(r.turn),
        raced=r.raced + r.turn,
        turn=2.0 * r.turn,
        left=2.0 * r.turn,
    )


def _end_race(r: Referee, challenger_wins: Tensor) -> Referee:
    """The winner leads."""
    wins = _number(challenger_wins)
    zero = ops.zeros_like(r.turn)
    won = r._replace(adam_leads=wins + (1.0 - 2.0 * wins) * r.adam_leads)
    return won._replace(racing=zero, challenging=zero, high=zero, next_copy=zero)


def _rescue(r: Referee) -> Referee:
    """Adam leads, from the copy."""
    zero = ops.zeros_like(r.turn)
    return _from_copy(r)._replace(
        adam_leads=zero + 1.0,
        racing=zero,
        challenging=zero,
        next_race=2.0 * r.steps + _FIRST_RACE,
        before=r.level,
        since_sum=zero,
        since_count=zero,
        agreeing=zero,
        moments=zero,
        rescues=r.rescues + 1.0,
    )


def _from_copy(r: Referee) -> Referee:
    """Losses are taken to be what they were at the copy."""
    return r._replace(recent=r.level, high=ops.zeros_like(r.high))


def _without_losses(r: Referee) -> Referee:
    """Forgets the losses of both lanes."""
    zero = ops.zeros_like(r.turn)
    return r._replace(
        leader_sum=zero,
        leader_count=zero,
        challenger_sum=zero,
        challenger_count=zero,
    )


def _number(condition: Tensor) -> Tensor:
    return ops.cast(condition, "float32")


def _when(condition: Tensor, then: Referee, otherwise: Referee) -> Referee:
    return Referee(*(ops.where(condition, a, b) for a, b in zip(then, otherwise, strict=True)))
