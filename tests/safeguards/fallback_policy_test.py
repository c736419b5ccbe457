"""Tests of the policy that chooses between a rule and Adam, on simulated training runs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from l2l_keras.safeguards.fallback_policy import CATCH_UP, Decision, FallbackState, decide

SEEDS = 4
STEPS = 600


class Scenario(NamedTuple):
    """A training run whose loss is a function of the progress that steps have made.

    Attributes:
        rule: Maps progress `[SEEDS]` and the number of steps to the progress after a rule's step.
        noise: Standard deviation of losses, relative.
        floor: What losses fall to.
        products: Of the rule's update with Adam's, and of each with itself.
        promised: Progress that Adam's steps, which make 1, promise.
        damage: Damage of a step of the rule: losses do not show it, but it slows Adam down.
        flat_at: Progress at which Adam's steps promise nothing.
        outliers: Share of losses that are a hundred times too high.
    """

    rule: Callable[[Any, int], Any]
    noise: float = 0.1
    floor: float = 0.0
    products: tuple[float, ...] = (1.0, 1.0, 1.0)
    promised: float = 1.0
    damage: float = 0.0
    flat_at: float = -1.0
    outliers: float = 0.0

    def loss(self, progress):
        """Returns losses without noise."""
        worse = 2.0 * np.exp(np.minimum(80.0, -0.1 * progress))  # Than at the start.
        better = 2.0 * (1.0 + np.maximum(progress, 0.0)) ** -0.5
        return self.floor + np.where(progress < 0.0, worse, better)


UNLIKE = (0.0, 1.0, 1.0)  # Products of updates that do not resemble Adam's.
GOOD = {
    f"{pace} times as fast, noise {noise}": Scenario(lambda p, _, pace=pace: p + pace, noise)
    for pace in (2.0, 5.0)
    for noise in (0.0, 0.1, 0.3)
} | {"outliers": Scenario(lambda p, _: p + 3.0, outliers=0.02)}
BAD = {
    f"steps of {step}, noise {noise}": Scenario(
        lambda p, _, step=step: p + step, noise, products=UNLIKE
    )
    for step in (-100.0, -10.0, -1.0, 0.0, 0.1, np.nan)
    for noise in (0.02, 0.1)
}
TURNING_BAD = {
    "stops": Scenario(lambda p, _: np.minimum(100.0, p + 5.0)),
    "ruins the weights": Scenario(lambda p, t: p + 5.0 if t < 30 else np.maximum(0.0, p - 2.0)),
    # As where normalized networks get weights so large that Adam's steps do little to them.
    "damages weights while losses stand still": Scenario(lambda p, _: p, damage=0.3),
    "goes where gradients vanish": Scenario(lambda p, _: 0.0 * p + 0.5, 0.01, flat_at=0.5),
}
UNLIKE_ADAM = {
    str(products): Scenario(lambda p, _: p - 1e4, products=products)
    for products in [UNLIKE, (-1.0, 1.0, 1.0), (50.0, 2500.0, 1.0), (0.0, 0.0, 1.0)]
}
SCENARIOS = {
    **GOOD,
    **BAD,
    **TURNING_BAD,
    **UNLIKE_ADAM,
    "overpromised": Scenario(lambda p, _: p + 5.0, 0.01, promised=100.0),
    "late harm": Scenario(lambda p, t: p + (5.0 if t < 300 else -50.0)),
    "late recovery": Scenario(lambda p, t: p + (-10.0 if t < 50 else 1000.0)),
    "noise floor": Scenario(lambda p, _: 0.0 * p + 1e4, floor=1.0),
    "late stop": Scenario(lambda p, _: np.minimum(1e3, p + 50.0)),
}


@tf.function(autograph=False, reduce_retracing=True)
def decide_all(states, losses, accepted, products):
    """Decides for many runs at once."""

    def decide_one(inputs):
        state, loss, accepted, products = inputs
        state = FallbackState(*tf.unstack(state))
        state, decision = decide(state, tf.constant(True), loss, accepted, products)
        return tf.stack(state), tf.stack(decision)

    return tf.vectorized_map(decide_one, (states, losses, accepted, products))


class Run(NamedTuple):
    """What happened in a scenario: arrays `[STEPS, SEEDS]`, after each step."""

    state: FallbackState
    decision: Decision
    progress: np.ndarray
    loss: np.ndarray

    def ends_as_adam(self, steps, tolerance):
        """Whether Adam leads after so many steps, at most so much behind Adam alone."""
        last, alone = steps - 1, 2.0 * (1.0 + steps) ** -0.5
        leads = np.all(self.state.adam_leads[last] == 1.0)
        return leads and np.all(self.loss[last] <= tolerance * alone)

    def trials(self, seed=0):
        """Returns the first steps and the lengths of the trials of one run."""
        trial = np.pad(self.decision.trial[:, seed], 1)
        starts = np.flatnonzero(trial[1:] & ~trial[:-1])
        return starts, np.flatnonzero(trial[:-1] & ~trial[1:]) - starts


@pytest.fixture(scope="module", name="runs")
def fixture_runs():
    """All scenarios, side by side."""
    random = np.random.default_rng(0)
    scenarios = list(SCENARIOS.values())
    shape = (len(scenarios), SEEDS)

    def column(name):
        return np.array([getattr(scenario, name) for scenario in scenarios])[:, None]

    def losses(progress):
        return np.stack([s.loss(p) for s, p in zip(scenarios, progress, strict=True)])

    states = tf.zeros((np.prod(shape), len(FallbackState._fields)))
    weights = copy = np.zeros((2, *shape))  # Progress and damage.
    products = np.zeros((*shape, 4))
    products[..., :3] = column("products")
    history = []
    for step in range(1, STEPS + 1):
        progress, damage = weights
        observed = losses(progress) * (1.0 + column("noise") * random.normal(size=shape))
        observed *= np.where(random.random(shape) < column("outliers"), 100.0, 1.0)
        states, decision = decide_all(
            states,
            observed.ravel().astype("float32"),
            np.isfinite(observed.ravel()),
            products.reshape(-1, 4).astype("float32"),
        )
        decision = Decision(*decision.numpy().T.reshape(-1, *shape))
        slope = losses(progress + column("promised")) - losses(progress)
        slope = np.where(progress == column("flat_at"), 0.0, slope)
        products[..., 3] = np.nan_to_num(slope)
        copy = np.where(decision.save, weights, copy)
        pace = np.where(decision.catch_up, CATCH_UP, 1.0) / (1.0 + damage)
        by_rule = np.stack([s.rule(p, step) for s, p in zip(scenarios, progress, strict=True)])
        after = np.where(
            decision.adam, [progress + pace, damage], [by_rule, damage + column("damage")]
        )
        after = np.where(decision.restore, copy, after)
        weights, copy = (
            np.where(decision.swap, copy, after),
            np.where(decision.swap, after, copy),
        )
        state = states.numpy().T.reshape(-1, *shape)
        history.append((state, np.stack(decision), weights[0], losses(weights[0])))
    state, decision, progress, loss = (np.stack(part) for part in zip(*history, strict=True))
    return {
        name: Run(
            FallbackState(*state[:, :, k].swapaxes(0, 1)),
            Decision(*decision[:, :, k].swapaxes(0, 1)),
            progress[:, k],
            loss[:, k],
        )
        for k, name in enumerate(SCENARIOS)
    }


def feed(losses, accepted=True, slope=0.0):
    """Returns the state and decisions after given losses."""
    states, decisions = tf.zeros((1, len(FallbackState._fields))), []
    products = np.float32([[1.0, 1.0, 1.0, slope]])
    for loss, good in zip(losses, np.broadcast_to(accepted, len(losses)), strict=True):
        states, decision = decide_all(states, np.float32([loss]), np.array([good]), products)
        decisions.append(Decision(*decision[0].numpy().tolist()))
    return FallbackState(*states[0].numpy().tolist()), decisions


@pytest.mark.parametrize("name", GOOD)
def test_a_good_rule_makes_nearly_all_steps(runs, name):
    run = runs[name]
    assert np.all(run.state.adam_leads[-1] == 0.0)
    assert np.all(run.state.rescues[-1] == 0.0)
    assert np.mean(run.state.adam_steps[-1]) <= 0.05 * STEPS


@pytest.mark.parametrize("steps", [100, STEPS])
@pytest.mark.parametrize("name", BAD)
def test_a_rule_that_does_not_improve_is_replaced_and_adam_makes_up_for_it(runs, name, steps):
    run = runs[name]
    assert run.ends_as_adam(steps, tolerance=1.06)
    np.testing.assert_array_equal(run.state.lost_steps[steps - 1], 0.0)


@pytest.mark.parametrize("name", TURNING_BAD)
def test_a_rule_that_turns_bad_is_replaced(runs, name):
    assert runs[name].ends_as_adam(STEPS, tolerance=1.2)


def test_late_in_training_any_progress_is_enough(runs):
    run = runs["overpromised"]
    assert np.all(run.state.adam_leads[-1] == 0.0)
    np.testing.assert_array_equal(run.state.trials[128], run.state.trials[-1])


def test_a_rule_that_does_harm_late_is_replaced(runs):
    run = runs["late harm"]
    assert np.all(run.state.adam_leads[-1] == 1.0)
    assert np.all(run.loss[-1] <= 2.0 * (1.0 + 5.0 * 150) ** -0.5)


def test_a_rule_may_return(runs):
    """Once it does no harm any more, and is much faster than Adam."""
    run = runs["late recovery"]
    assert np.all(run.state.rescues[-1] >= 1.0)
    assert np.all(run.state.adam_leads[-1] == 0.0)


@pytest.mark.parametrize("name", UNLIKE_ADAM)
def test_it_does_not_return_while_its_updates_do_not_resemble_adams(runs, name):
    assert np.all(runs[name].state.rescues[-1] == 1.0)
    assert np.all(runs[name].state.trials[-1] == 0.0)


def test_at_the_noise_floor_nothing_is_lost(runs):
    run = runs["noise floor"]
    assert np.all(run.loss[-1] <= 1.05)
    assert np.all(run.state.rescues[-1] == 0.0)


def test_in_a_trial_adam_trains_as_long_as_the_rule_from_the_copy(runs):
    run = runs["steps of 0.0, noise 0.02"]
    starts, lengths = run.trials()
    assert starts.tolist() == lengths.tolist() == [8]
    adam, catch_up = run.decision.adam[:32, 0], run.decision.catch_up[:32, 0]
    assert adam.tolist() == [False] * 8 + [True] * 24
    assert catch_up.tolist() == [False] * 16 + [True] * 8 + [False] * 8
    assert run.progress[39, 0] == 40.0


def test_late_trials_are_short(runs):
    starts, lengths = runs["late stop"].trials()
    assert len(starts) >= 1
    assert np.all(lengths <= np.maximum(32, 0.05 * (starts + 1)))


@pytest.mark.parametrize(("losses", "rescues"), [((1e3,), 0.0), ((1e3, 1e3), 1.0)])
def test_a_single_loss_that_is_far_too_high_is_no_harm(losses, rescues):
    state, _ = feed([2.0, 1.9, 1.8, 1.7, *losses, 1.6, 1.5])
    assert state.rescues == rescues


def test_gradients_that_are_not_accepted_count_as_harm():
    state, decisions = feed([1.0] * 8, accepted=[True] * 3 + [False] * 5)
    assert [decision.restore for decision in decisions] == [False] * 4 + [True] + [False] * 3
    assert state.rescues == 1.0


def test_losses_may_be_negative():
    losses = -10.0 - 0.01 * np.arange(100) + 0.1 * np.random.default_rng(0).normal(size=100)
    assert feed(losses)[0].rescues == 0.0


def test_without_losses_the_rule_steps_from_a_copy():
    no, yes = ops.convert_to_tensor(False), ops.convert_to_tensor(True)
    zeros = FallbackState(*[ops.zeros(())] * len(FallbackState._fields))
    state, decision = decide(zeros, no, ops.zeros(()), yes, ops.zeros(4))
    assert [name for name, value in decision._asdict().items() if bool(value)] == ["save"]
    assert bool(decision.rule_sees) and bool(decision.adam_sees)
    assert [name for name, value in state._asdict().items() if float(value)] == ["adam_updates"]


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
