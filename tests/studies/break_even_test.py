"""Tests of break-even."""

import dataclasses
import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2l_keras.evaluation import Baseline, Rollout
from l2l_keras.evaluation.compare import Trials
from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.rules import UpdateRule
from l2l_keras.studies.break_even import NEVER, Cost, break_even
from l2l_keras.studies.outcome import share_to_reach, tuning_cost
from tests.studies.outcomes import line

amounts = st.integers(0, 1000).map(float)


@given(amounts, amounts, amounts, amounts)
def test_within_it_and_only_there_the_learned_optimizer_costs_no_more(once, run, other, other_run):
    learned, rival = Cost(once, run), Cost(other, other_run)
    first, last = break_even(learned, rival)
    for runs in (0, 1, 2, 10, 999, 5000, first, first - 1, last, last + 1):
        if 0 <= runs < math.inf:
            assert (first <= runs <= last) == (learned.after(runs) <= rival.after(runs))


def test_an_optimizer_that_never_reaches_the_loss_never_pays():
    assert break_even(Cost(0.0, math.inf), Cost(100.0, 10.0)) == NEVER
    assert not NEVER.lasting


def test_one_that_is_cheaper_at_once_may_be_dearer_later():
    paid = break_even(Cost(10.0, 3.0), Cost(100.0, 2.0))
    assert paid == (0, 90) and not paid.lasting


class Descent(UpdateRule):
    """Gradient descent, as a learned rule."""

    state_rows = ()

    def __init__(self, rate=0.1, name=None):
        super().__init__(name=name)
        self.rate = rate
        self.built = True

    def step(self, gradient, state):
        return -self.rate * gradient, state

    def get_config(self):
        return {"rate": self.rate, "name": self.name}


def test_it_is_what_training_models_one_by_one_takes():
    """Counts the steps that are really taken until losses are reached."""
    task, steps = line(), 60
    trials = Trials(task, steps, seeds=range(3), tuning_seeds=range(2))
    baseline = Baseline("SGD", keras.optimizers.SGD, (0.001, 0.003, 0.01, 0.03))
    tuning = trials.tune(baseline)
    # At a lower rate than its best one: that one's loss would be out of reach.
    rival = trials.baseline("SGD", baseline, dataclasses.replace(tuning, best=0.01))
    learned = trials.learned("learned", Descent(0.1))
    spent_on_training = 4000.0
    own = Cost(spent_on_training, share_to_reach(learned, rival.mean_final) * steps)
    first, last = break_even(own, Cost(tuning_cost(rival)["steps"], float(steps)))
    assert last == math.inf and 10 < first < 200

    target = rival.mean_final
    rollout = Rollout(task, LearnedOptimizer(Descent(0.1)), steps)

    def losses(after):
        looks = [
            rollout.run(seed, steps=after, looks=[after]).looks[0]["loss"] for seed in range(3)
        ]
        return np.mean(looks)

    taken = next(after for after in range(1, steps + 1) if losses(after) <= target)
    # Looks are ten a run: between them, losses are interpolated.
    assert own.per_run == pytest.approx(taken, abs=steps / 10)
    # The baseline's tuning, run by run; its grid was extended where the best rate was at an end.
    tuning_steps = len(rival.tuning.rates) * 2 * steps
    direct = math.ceil((spent_on_training - tuning_steps) / (steps - taken))
    assert first == pytest.approx(direct, rel=0.2)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
