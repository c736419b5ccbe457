"""Tests of the testbed as a whole, on its smallest problem, and of the baselines that ship."""

import dataclasses
import hashlib
import json
import os

import keras
import numpy as np
import pytest

from l2l_keras import evaluation
from l2l_keras.evaluation import Baseline, Rollout, testbed
from l2l_keras.evaluation.testbed.bench import (
    SHIPPED,
    Runs,
    step_times,
    tuned_results,
    untuned_results,
)
from l2l_keras.rules import MomentumLSTM
from tests.evaluation.small_tasks import quadratic

DATA_DIR = os.environ.get("L2L_KERAS_DATA_DIR")
PROBLEM = "wine_of_many_scales"


@pytest.fixture(name="folder", scope="module")
def folder_fixture(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(name="evaluate")
def evaluate_fixture(folder, monkeypatch):
    """Compares rules in runs of 5 and 10 steps on a small task, with two baselines."""
    for name, baseline in list(testbed.TUNED.items()):
        coarse = dataclasses.replace(baseline, grid=(0.01, 0.03, 0.1))
        monkeypatch.setitem(testbed.TUNED, name, coarse)
        if name not in ("Adam", "NAG"):
            monkeypatch.delitem(testbed.TUNED, name)

    def evaluate(learned, **arguments):
        """Returns the scores, and the lines of progress."""
        lines = []
        small = {"problems": {"small": quadratic(functions=1)}, "cache_dir": folder}
        small |= {"steps": 5, "multiples": (1, 2), "seeds": (0, 1), "progress": lines.append}
        return list(testbed.evaluate(learned, **small | arguments)), lines

    return evaluate


def rule(seed=0, rate=0.02):
    return MomentumLSTM(rate=rate, seed=seed)


def test_baselines_are_tuned_once(evaluate):
    scores, lines = evaluate({})
    assert not scores
    assert any("1/1 small: NAG: learning rate 0.1:" in line for line in lines)
    scores, lines = evaluate({"slow": rule(), "none": rule(rate=0.0)})
    assert not any("learning rate" in line for line in lines)
    expected = [("slow", 5), ("slow", 10), ("none", 5), ("none", 10)]
    assert [(s.optimizer, s.steps) for s in scores] == expected
    for score in scores:
        assert score.problem == "small"
        assert score.baseline in ("Adam", "NAG")
        assert score.ratio.low < score.ratio.mean < score.ratio.high
    assert scores[1].final_loss < scores[0].final_loss < scores[0].initial_loss


def test_results_of_a_rule_are_cached_by_its_weights(evaluate, folder):
    first, _ = evaluate({"a": rule(1)})
    before = len([*folder.iterdir()])
    # The same rule by another name, and one of other weights.
    again, _ = evaluate({"b": rule(1), "c": rule(2)})
    assert len([*folder.iterdir()]) == before + 1
    assert [score.final_loss for score in again[:2]] == [score.final_loss for score in first]
    assert [score.optimizer for score in again] == ["b", "b", "c", "c"]
    evaluate({"a": rule(1)}, guard=True)
    assert len([*folder.iterdir()]) == before + 2


def test_your_own_task_may_have_the_name_of_a_problem(evaluate):
    tasks = {name: quadratic(functions=1) for name in ("mine", "deep_relu")}
    scores, _ = evaluate({"rule": rule()}, problems=tasks, multiples=(1,))
    assert [(s.problem, s.steps) for s in scores] == [("mine", 5), ("deep_relu", 5)]
    assert scores[0].final_loss == scores[1].final_loss


def test_a_harmful_rule_is_guarded(evaluate):
    rules = {"uphill": rule(rate=-1.0)}
    alone, guarded = (evaluate(rules, guard=guard, steps=10)[0][-1] for guard in (False, True))
    assert not alone.default_ratio.mean < 2.0
    assert guarded.default_ratio.mean < 1.2


def test_wrong_arguments_are_found_before_the_work():
    with pytest.raises(ValueError, match="Unknown problem"):
        next(testbed.evaluate({}, problems=[PROBLEM, "nothing"], progress=pytest.fail))
    for multiples in ((), (0, 1), (2, 1), (1, 1)):
        with pytest.raises(ValueError, match="`multiples` must be positive and in increasing"):
            next(testbed.evaluate({}, multiples=multiples))


RUNS = Runs(steps=(2, 20), seeds=(0, 1), tuning_seeds=(3,))


def test_a_baseline_runs_at_the_rate_tuned_for_each_length():
    task = quadratic(functions=1)
    sgd = Baseline("SGD", keras.optimizers.SGD, evaluation.half_decades(-2, 0))
    for steps, made in zip(RUNS.steps, tuned_results(task, sgd, RUNS), strict=True):
        assert (made.name, made.steps, made.window) == ("SGD", steps, max(1, steps // 10))
        alone = evaluation.tune(task, sgd.make, sgd.grid, steps, [3], window=made.window)
        assert made.learning_rate == pytest.approx(alone.best)
        curves = evaluation.run(task, sgd.make(alone.best), steps, RUNS.seeds)
        np.testing.assert_allclose(made.curves, curves, rtol=1e-5)


def test_an_untuned_optimizer_runs_as_it_is():
    rollout = Rollout(quadratic(functions=1), keras.optimizers.Adam(0.1), 20)
    made = untuned_results("mine", rollout, RUNS)
    assert [result.curves.shape for result in made] == [(2, 3), (2, 21)]
    assert made[0].tuning is None
    np.testing.assert_array_equal(made[1].curves[1:], rollout(1))
    np.testing.assert_array_equal(made[0].curves, made[1].curves[:, :3])


def test_step_times_are_medians_of_seconds_by_optimizer():
    now = 0.0

    class TimedRollout:
        def __init__(self, steps, step_time):
            self.steps, self.step_time = steps, step_time

        def __call__(self, seed, steps):
            nonlocal now
            # The first run is slow, as if something were compiled.
            now += steps * self.step_time * (1.0 if seed else 100.0)

    rollouts = {"fast": TimedRollout(5, 0.2), "slow": TimedRollout(80, 3.0)}
    expected = {"fast": pytest.approx(0.2), "slow": pytest.approx(3.0)}
    assert step_times(rollouts, clock=lambda: now) == expected


def shipped_files():
    """Content and curves of the shipped files, by problem."""
    found = {}
    for path in sorted(SHIPPED.glob("*.npz")):
        with np.load(path) as file:
            content = json.loads(str(file["content"]))
            curves = [file[f"curves_{k}"] for k in range(len(file.files) - 1)]
        found.setdefault(content["settings"]["problem"], []).append((path, content, curves))
    return found


FILES = shipped_files()


def test_results_of_all_baselines_are_shipped():
    assert sorted(FILES) == testbed.names()
    for files in FILES.values():
        baselines = [content["settings"]["baseline"] for _, content, _ in files]
        assert sorted(baselines) == sorted([*testbed.TUNED, testbed.DEFAULT])
        for path, content, curves in files:
            text = json.dumps(content["settings"], sort_keys=True).encode()
            assert path.stem == hashlib.sha256(text).hexdigest()[:16]
            assert content["settings"]["steps"] == [100, 1000, 10000]
            assert [part.shape for part in curves] == [(3, 101), (3, 1001), (3, 10001)]


QUICK = ("diabetes_regression", PROBLEM)


@pytest.mark.parametrize(
    "problem",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FILES],
)
def test_shipped_results_are_of_the_problem_as_it_is(problem):
    """Its first losses are those of the shipped curves: else the problem has changed since."""
    if problem not in testbed.names(stored=False) and not DATA_DIR:
        pytest.skip("L2L_KERAS_DATA_DIR names no folder of data sets")
    task = testbed.problem(problem, DATA_DIR, download=False)
    assert {content["settings"]["size"] for _, content, _ in FILES[problem]} == {task.size}
    (rate, curves), *_ = (
        (content["rates"][0], curves)
        for _, content, curves in FILES[problem]
        if content["settings"]["baseline"] == "Adam"
    )
    actual = Rollout(task, keras.optimizers.Adam(rate), steps=3)(seed=1)[0]
    np.testing.assert_allclose(actual, curves[0][1, :4], rtol=0.02)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
