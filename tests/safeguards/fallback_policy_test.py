"""Tests of what decides between a rule and Adam, on simulated training runs."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from l2l_keras.safeguards.fallback_policy import HURRY, Decision, FallbackState, decide

STEPS = 1500


@tf.function(autograph=False, reduce_retracing=True)
def _decide(vector, loss, accepted, products=(1.0, 1.0, 1.0, 0.0)):
    state, decision = decide(FallbackState(*tf.unstack(vector)), True, loss, accepted, products)
    return tf.stack(state), tf.stack(decision)


class Simulation:
    """A run whose loss is a function of the progress that steps have made.

    Args:
        rule: How a step of the rule changes the progress so far, a function of it and of the number
            of steps; one of Adam adds `pace()`. An imaginary part is what losses do not show.
        noise: Standard deviation of losses, as a part of them.
        floor: What losses fall to.
        products: Of updates of the rule and of Adam, and of each with itself.
    """

    def __init__(self, rule, noise=0.1, floor=0.0, products=(1.0, 1.0, 1.0), seed=0):
        self.rule, self.noise, self.floor = rule, noise, floor
        self.products = np.array([*products, 0.0], "float32")
        self.random = np.random.default_rng(seed)
        self.progress = self.copy = 0.0
        self.vector = tf.zeros(len(FallbackState._fields))
        self.decisions = []

    def loss(self, more=0.0):
        """What the loss of the weights, after further progress, would be without noise."""
        progress = np.real(self.progress) + more
        if not np.isfinite(progress):
            return np.nan
        if progress < 0.0:  # Worse than at the start.
            return self.floor + 2.0 * np.exp(min(80.0, -0.1 * progress))
        return self.floor + 2.0 * (1.0 + progress) ** -0.5

    def pace(self):
        """What progress a step of Adam's makes."""
        return 1.0

    def run(self, steps):
        for _ in range(steps):
            loss = self.loss() * (1.0 + self.noise * self.random.normal())
            self.vector, decision = _decide(
                self.vector, np.float32(loss), np.isfinite(loss), self.products
            )
            decision = Decision(*decision.numpy().tolist())
            self.decisions.append(decision)
            if decision.copy:
                self.copy = self.progress
            # What a step of Adam's would have promised here, of which the next step knows.
            self.products[3] = self.loss(more=1.0) - self.loss()
            if decision.back:
                self.progress = self.copy
                continue
            if decision.adam:
                self.progress += self.pace() * (HURRY if decision.hurries else 1.0)
            else:
                self.progress = self.rule(self.progress, len(self.decisions))
            if decision.swap:
                self.progress, self.copy = self.copy, self.progress
        return self

    @property
    def state(self):
        return FallbackState(*self.vector.numpy().tolist())


def test_a_good_rule_keeps_nearly_all_steps():
    run = Simulation(lambda progress, _: progress + 5.0).run(STEPS)
    assert run.state.adam_leads == run.state.rescues == 0.0
    assert run.state.adam_steps <= 0.05 * STEPS
    assert run.loss() <= 1.02 * (2.0 * (1.0 + 5.0 * STEPS) ** -0.5)


@pytest.mark.parametrize("step", [-100.0, -10.0, np.nan])
def test_a_rule_that_does_harm_costs_a_few_steps(step):
    run = Simulation(lambda progress, _: progress + step).run(STEPS)
    assert run.state.adam_leads == 1.0
    assert run.loss() <= 1.05 * 2.0 * (1.0 + STEPS) ** -0.5


def test_a_rule_that_stands_still_is_replaced():
    run = Simulation(lambda progress, _: progress).run(STEPS)
    assert run.state.adam_leads == 1.0
    assert run.loss() <= 1.1 * 2.0 * (1.0 + STEPS) ** -0.5


def test_a_rule_that_stops_being_of_use_is_replaced():
    run = Simulation(lambda progress, _: min(100.0, progress + 5.0)).run(STEPS)
    assert run.state.adam_leads == 1.0
    assert run.loss() <= 1.1 * 2.0 * (1.0 + STEPS) ** -0.5


@pytest.mark.parametrize("step", [-100.0, -10.0, -1.0, 0.0])
def test_adam_makes_up_for_lost_steps(step):
    """It is where it would be had it made all of them, but for the last trials of the rule."""
    run = Simulation(lambda progress, _: progress + step, noise=0.02).run(100)
    assert run.state.adam_leads == 1.0
    assert run.state.owed == 0.0
    assert 90.0 <= run.progress <= 100.0


@pytest.mark.parametrize("seed", range(3))
def test_a_rule_that_is_slower_than_adam_from_the_start_is_replaced_soon(seed):
    """Though its losses fall all the time."""
    run = Simulation(lambda progress, _: progress + 0.1, noise=0.02, seed=seed).run(100)
    assert run.state.adam_leads == 1.0
    assert run.state.rescues == 0.0
    assert run.loss() <= 1.1 * 2.0 * (1.0 + 100.0) ** -0.5


@pytest.mark.parametrize("seed", range(3))
def test_a_rule_that_is_faster_at_first_and_then_ruins_the_weights_is_replaced(seed):
    """There is progress to be made from the copy, but none from where the rule has gone."""

    def rule(progress, t):
        return progress + 5.0 if t < 30 else max(0.0, progress - 2.0)

    run = Simulation(rule, seed=seed).run(STEPS)
    assert run.state.adam_leads == 1.0
    assert run.loss() <= 1.1 * 2.0 * (1.0 + STEPS) ** -0.5


@pytest.mark.parametrize("seed", range(5))
def test_weights_that_a_rule_ruins_while_losses_stand_still_are_not_kept(seed):
    """As where normalised networks get weights so large that Adam's steps do little to them."""

    class Ruining(Simulation):
        def pace(self):
            return 1.0 / (1.0 + np.imag(self.progress))

    run = Ruining(lambda progress, _: progress + 0.3j, noise=0.3, seed=seed).run(STEPS)
    assert run.state.adam_leads == 1.0
    assert run.loss() <= 1.1 * 2.0 * (1.0 + STEPS) ** -0.5


def test_a_rule_that_goes_where_there_is_no_gradient_is_replaced_soon():
    """Losses stand still, and Adam's steps promise nothing there."""

    class Saturating(Simulation):
        def loss(self, more=0.0):
            return super().loss(0.0 if self.progress == 0.5 else more)

    run = Saturating(lambda progress, _: 0.5, noise=0.01).run(300)
    assert run.state.adam_leads == 1.0
    assert run.loss() <= 1.1 * 2.0 * (1.0 + 300.0) ** -0.5


def test_late_in_training_progress_is_enough():
    """Where noise is low, Adam's steps promise more than they would do."""

    class Promising(Simulation):
        def loss(self, more=0.0):
            return super().loss(100.0 * more)

    run = Promising(lambda progress, _: progress + 5.0, noise=0.01).run(STEPS)
    early = sum(decision.trial for decision in run.decisions[:128])
    assert sum(decision.trial for decision in run.decisions) == early


def test_a_rule_that_does_harm_late_is_replaced():
    run = Simulation(lambda progress, t: progress + (5.0 if t < 500 else -50.0)).run(STEPS)
    assert run.state.rescues >= 1.0
    assert run.loss() <= 2.0 * (1.0 + 5.0 * 400) ** -0.5


def test_a_rule_may_return():
    """Once it does no harm any more; it is much faster than Adam."""
    run = Simulation(lambda progress, t: progress + (-10.0 if t < 50 else 1000.0)).run(STEPS)
    assert run.state.rescues >= 1.0
    assert run.state.adam_leads == 0.0


@pytest.mark.parametrize(
    "products", [(0.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (50.0, 2500.0, 1.0), (0.0, 0.0, 1.0)]
)
def test_it_does_not_while_its_updates_disagree_with_adams(products):
    """It would harm at once."""
    run = Simulation(lambda progress, t: progress - 1e4, products=products).run(STEPS)
    assert run.state.rescues == 1.0
    assert run.state.trials == 0.0


def test_where_nobody_makes_progress_nothing_is_lost():
    """At the noise floor, races are long and change nothing for the worse."""
    run = Simulation(lambda progress, _: 1e4, floor=1.0).run(STEPS)
    assert run.loss() <= 1.03
    assert run.state.rescues == 0.0


def test_in_a_trial_adam_has_as_many_steps_from_where_the_period_began():
    run = Simulation(lambda progress, _: progress, noise=0.01).run(40)
    kinds = [(decision.trial, decision.adam) for decision in run.decisions]
    length = kinds.index((True, True))
    assert length in (8, 16, 32)
    assert kinds[: 2 * length] == [(False, False)] * length + [(True, True)] * length
    hurries = [decision.hurries for decision in run.decisions]
    assert hurries[2 * length :] == [True] * min(length, 40 - 2 * length) + [False] * (
        40 - 3 * length
    )
    assert run.progress == 40


@pytest.mark.parametrize(("losses", "rescues"), [((1e3,), 0.0), ((1e3, 1e3), 1.0)])
def test_one_loss_that_is_far_too_high_is_an_accident(losses, rescues):
    vector = tf.zeros(len(FallbackState._fields))
    for loss in [2.0, 1.9, 1.8, 1.7, *losses, 1.6, 1.5]:
        vector, _ = _decide(vector, np.float32(loss), True)
    assert FallbackState(*vector.numpy().tolist()).rescues == rescues


@pytest.mark.parametrize(
    ("second_half", "adam_leads"), [(0.8, False), (1.3, True)], ids=["fallen", "risen"]
)
def test_half_way_a_challenger_need_not_be_below_losses_that_have_risen_since(
    second_half, adam_leads
):
    promise = (1.0, 1.0, 1.0, -1.0)  # Of Adam's, which makes a trial of the first period's end.
    vector = tf.zeros(len(FallbackState._fields))
    for loss in [*[0.9] * 4, *[second_half] * 4, *[1.0] * 4, *[0.7] * 4]:
        vector, _ = _decide(vector, np.float32(loss), True, promise)
    state = FallbackState(*vector.numpy().tolist())
    assert state.trials == 1.0
    assert (state.adam_leads > 0.5) == adam_leads


def test_a_trial_against_a_rule_that_was_good_is_a_tenth_of_all_steps_at_most():
    run = Simulation(lambda progress, _: min(1e4, progress + 50.0)).run(STEPS)
    trials = np.array([decision.trial and decision.adam for decision in run.decisions])
    (begins,) = np.nonzero(trials[1:] & ~trials[:-1])
    late = [step for step in begins if step > 400]
    assert late
    for step in late:
        length = np.argmin(np.append(trials[step + 1 :], False))
        assert length <= 0.1 * (step + 1)


def test_gradients_that_are_not_accepted_count_as_harm():
    vector, rescued = tf.zeros(len(FallbackState._fields)), []
    for step in range(8):
        vector, decision = _decide(vector, np.float32(1.0), step < 3)
        rescued.append(bool(decision.numpy()[Decision._fields.index("back")]))
    assert rescued == [False] * 5 + [True] + [False] * 2


def test_losses_below_zero_are_losses():
    """What counts are differences."""
    vector = tf.zeros(len(FallbackState._fields))
    random = np.random.default_rng(0)
    for step in range(200):
        loss = -10.0 - 0.01 * step + 0.1 * random.normal()
        vector, _ = _decide(vector, np.float32(loss), True)
    state = FallbackState(*ops.convert_to_numpy(vector).tolist())
    assert state.rescues == 0.0


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
