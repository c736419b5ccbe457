"""Tests of comparisons: tuned on validation, measured on paired test runs."""

import re

import keras
import numpy as np
import pytest

from l2l_keras.evaluation import BASELINES, Baseline, compare, run, tune
from l2l_keras.evaluation.rollout import RuleRollout
from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.rules import CoordinatewiseLSTM, GlobalAveragingLSTM
from l2l_keras.schedules import SCHEDULES
from tests.evaluation.small_tasks import NoisyMean, quadratic

RULE = CoordinatewiseLSTM(units=(3,), seed=1)
BOTH = {
    "Adam": Baseline("Adam", keras.optimizers.Adam, (0.01, 0.1, 1.0)),
    "SGD": Baseline("SGD", keras.optimizers.SGD, (0.01, 0.1)),
}


def test_learning_rates_are_tuned_on_validation_and_results_are_of_tests():
    task, steps = NoisyMean(), 20
    lines = []
    comparison = compare(
        task,
        {"lstm": RULE},
        steps,
        seeds=range(3),
        tuning_seeds=[0, 1],
        baselines=BOTH,
        progress=lines.append,
    )
    assert (comparison.task, comparison.steps, comparison.window) == ("noisy_mean", 20, 2)
    assert (comparison.seeds, comparison.tuning_seeds) == ((0, 1, 2), (0, 1))
    assert [r.name for r in comparison.results] == ["lstm", "Adam", "SGD"]
    assert [r.learned for r in comparison.results] == [True, False, False]
    assert lines[0] == "comparison: at least 19 runs of 20 steps"
    assert {line.split(":")[0] for line in lines[1:]} == {"lstm", "Adam", "SGD"}
    assert all(re.search(r"\(\d+ s left\)$", line) for line in lines[1:])
    assert lines[-1].endswith("(0 s left)")
    for name, baseline in BOTH.items():
        tuning = tune(task, baseline.make, baseline.grid, steps, [0, 1])
        assert comparison[name].tuning == tuning
        assert comparison[name].learning_rate == tuning.best
        curves = run(task, baseline.make(tuning.best), steps, range(3))
        np.testing.assert_array_equal(comparison[name].curves, curves)
    curves = run(task, LearnedOptimizer(RULE, learning_rate=1.0), steps, range(3))
    np.testing.assert_array_equal(comparison["lstm"].curves, curves)
    for result in comparison.results:
        np.testing.assert_array_equal(result.curves[:, 0], comparison["lstm"].curves[:, 0])
        assert result.seconds > 0


def test_a_schedule_is_that_of_keras():
    task = NoisyMean()
    comparison = compare(
        task, {"lstm": RULE}, 20, [0, 1], baselines={}, schedules={"lstm": "cosine"}
    )
    rate = keras.optimizers.schedules.CosineDecay(1.0, 20)
    expected = run(task, LearnedOptimizer(RULE, learning_rate=rate), 20, [0, 1])
    np.testing.assert_allclose(comparison["lstm"].curves, expected, rtol=1e-5)
    constant = compare(task, {"lstm": RULE}, 20, [0, 1], baselines={})["lstm"].curves
    assert np.abs(constant[:, 2:] - expected[:, 2:]).max() > 1e-3


def test_a_schedule_is_the_same_where_a_rule_updates_each_function_on_its_own():
    rule, task = GlobalAveragingLSTM((2,), 1, seed=0), NoisyMean()
    whole = compare(task, {"rule": rule}, 5, [0], baselines={}, schedules={"rule": "cosine"})
    apart = RuleRollout(task, rule, 5, schedule=SCHEDULES["cosine"])
    np.testing.assert_allclose(whole["rule"].curves, apart(0), rtol=1e-5)


def test_a_baseline_does_not_depend_on_those_before_it():
    both = compare(NoisyMean(), {}, 4, [0], baselines=BOTH)
    alone = compare(NoisyMean(), {}, 4, [0], baselines={"SGD": BOTH["SGD"]})
    np.testing.assert_array_equal(both["SGD"].curves, alone["SGD"].curves)
    assert both["SGD"].tuning == alone["SGD"].tuning


def test_a_rule_of_scope_model_updates_each_function_on_its_own():
    rule, task = GlobalAveragingLSTM((2,), 1, seed=0), quadratic()
    comparison = compare(task, {"rule": rule}, 3, [0, 1], baselines={})
    expected = [RuleRollout(task, rule, 3)(seed) for seed in (0, 1)]
    np.testing.assert_array_equal(comparison["rule"].curves, np.concatenate(expected))
    with pytest.raises(ValueError, match="has no guard.*Received: guard=True"):
        compare(task, {"rule": rule}, 3, [0], baselines={}, guard=True)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"named as a baseline. Received: \['Adam'\]"):
        compare(NoisyMean(), {"Adam": RULE}, 2, [0], baselines=BASELINES)
    with pytest.raises(ValueError, match="at least one optimizer"):
        compare(NoisyMean(), {}, 2, [0], baselines={})
    with pytest.raises(ValueError, match="`schedule` must be one of.*linear"):
        compare(NoisyMean(), {"lstm": RULE}, 2, [0], baselines={}, schedules={"lstm": "linear"})
    with pytest.raises(ValueError, match=r"needs a learned optimizer. Received: \['Adam'\]"):
        compare(NoisyMean(), {"lstm": RULE}, 2, [0], schedules={"Adam": "cosine"})
    with pytest.raises(ValueError, match="`tuning_seeds` must hold at least one seed"):
        compare(NoisyMean(), {"lstm": RULE}, 2, [0], tuning_seeds=[])


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
