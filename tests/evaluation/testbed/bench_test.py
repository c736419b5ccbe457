"""Tests of the testbed as a whole, on its smallest problem."""

import dataclasses
import hashlib
import json
import os

import keras
import numpy as np
import pytest

from l2l_keras.evaluation import Rollout, testbed
from l2l_keras.evaluation.testbed import bench, runs
from l2l_keras.rules import MomentumLSTM

DATA_DIR = os.environ.get("L2L_KERAS_DATA_DIR")


@pytest.fixture(name="evaluate", scope="module")
def evaluate_fixture(tmp_path_factory):
    """Compares rules on one problem in runs of 10 and 20 steps, with coarse grids."""
    folder = tmp_path_factory.mktemp("cache")

    def evaluate(learned, lines, **arguments):
        with pytest.MonkeyPatch.context() as patch:
            for name in ("Adam", "AdamW", "RMSprop", "NAG", "SGD"):
                coarse = dataclasses.replace(runs.TUNED[name], grid=(0.001, 0.1))
                patch.setitem(runs.TUNED, name, coarse)
            usual = {"problems": ["wine_of_many_scales"], "steps": 10, "multiples": (1, 2)}
            usual |= {"seeds": (0, 1), "cache_dir": folder}
            return list(testbed.evaluate(learned, progress=lines.append, **usual | arguments))

    return evaluate


def test_baselines_are_tuned_once(evaluate):
    lines = []
    assert evaluate({}, lines) == []
    assert any("1/1 wine_of_many_scales: RMSprop: learning rate 0.1:" in line for line in lines)
    again = []
    rules = {"small": MomentumLSTM(rate=0.01, seed=0), "none": MomentumLSTM(rate=0.0, seed=0)}
    scores = evaluate(rules, again)
    assert not any("learning rate" in line for line in again)
    assert [(s.optimizer, s.steps) for s in scores] == [
        ("small", 10),
        ("small", 20),
        ("none", 10),
        ("none", 20),
    ]
    for score in scores:
        assert score.problem == "wine_of_many_scales"
        assert score.baseline in testbed.TUNED
        assert score.ratio.mean * score.baseline_loss == pytest.approx(score.final_loss, rel=0.1)
    assert scores[1].final_loss < scores[0].final_loss < scores[0].initial_loss


def test_an_interrupted_comparison_goes_on_where_it_was(evaluate, monkeypatch):
    evaluate({}, [])  # The baselines, whatever test comes first.
    run = []
    untuned = runs.untuned

    def counted(name, *arguments):
        run.append(name)
        return untuned(name, *arguments)

    monkeypatch.setattr(bench, "untuned", counted)
    first = evaluate({"a": MomentumLSTM(rate=0.02, seed=0)}, [])
    again = evaluate(
        {"b": MomentumLSTM(rate=0.02, seed=0), "c": MomentumLSTM(rate=0.02, seed=1)}, []
    )
    assert run == ["a", "c"]  # The same rule by another name, and one of other weights.
    assert [score.final_loss for score in again[:2]] == [score.final_loss for score in first]
    assert [score.optimizer for score in again] == ["b", "b", "c", "c"]
    evaluate({"a": MomentumLSTM(rate=0.02, seed=0)}, [], guard=True)
    assert run == ["a", "c", "a"]


def test_tasks_of_ones_own_are_problems_too(evaluate, tmp_path):
    tasks = {name: testbed.problem("wine_of_many_scales") for name in ("mine", "deep_relu")}
    rule = MomentumLSTM(rate=0.01, seed=0)
    scores = evaluate({"small": rule}, [], problems=tasks, multiples=(1,), cache_dir=tmp_path)
    assert [(s.problem, s.steps) for s in scores] == [("mine", 10), ("deep_relu", 10)]
    # What has the name of a problem of the testbed is one's own nonetheless.
    assert scores[0].final_loss == scores[1].final_loss


def test_a_rule_that_does_harm_is_guarded(evaluate):
    rules = {"uphill": MomentumLSTM(rate=-1.0, seed=0)}
    alone, guarded = (evaluate(rules, [], guard=guard)[-1] for guard in (False, True))
    assert not alone.default_ratio.mean < 2.0
    assert guarded.default_ratio.mean < 1.2


def shipped():
    """The shipped outcomes' settings, learning rates and curves, by problem."""
    found = {}
    for path in sorted(bench.SHIPPED.glob("*.npz")):
        with np.load(path) as file:
            content = json.loads(str(file["content"]))
            curves = [file[f"curves_{k}"] for k in range(len(file.files) - 1)]
        found.setdefault(content["settings"]["problem"], []).append((path, content, curves))
    return found


SHIPPED = shipped()


def test_what_all_baselines_did_is_shipped():
    assert sorted(SHIPPED) == testbed.names()
    for outcomes in SHIPPED.values():
        named = [content["settings"]["baseline"] for _, content, _ in outcomes]
        assert sorted(named) == sorted([*testbed.TUNED, testbed.DEFAULT])
        for path, content, curves in outcomes:
            text = json.dumps(content["settings"], sort_keys=True).encode()
            assert path.stem == hashlib.sha256(text).hexdigest()[:16]
            assert content["settings"]["steps"] == [100, 1000, 10000]
            assert [part.shape for part in curves] == [(3, 101), (3, 1001), (3, 10001)]


QUICK = ("diabetes_regression", "wine_of_many_scales")


@pytest.mark.parametrize(
    "problem",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SHIPPED],
)
def test_what_is_shipped_is_of_the_problem_as_it_is(problem):
    """Its first losses are those of the shipped curves: else the problem has changed since."""
    if problem not in testbed.names(stored=False) and not DATA_DIR:
        pytest.skip("L2L_KERAS_DATA_DIR names no folder of data sets")
    task = testbed.problem(problem, DATA_DIR, download=False)
    assert {content["settings"]["size"] for _, content, _ in SHIPPED[problem]} == {task.size}
    _, content, curves = SHIPPED[problem][0]
    name = content["settings"]["baseline"]
    optimizer = (
        testbed.TUNED[name].make(content["rates"][0])
        if content["rates"]
        else keras.optimizers.Adam()
    )
    actual = Rollout(task, optimizer, steps=3)(seed=1)[0]
    np.testing.assert_allclose(actual, curves[0][1, :4], rtol=0.02)


@pytest.mark.parametrize("multiples", [(), (0, 1), (2, 1), (1, 1)])
def test_lengths_must_increase(evaluate, multiples):
    with pytest.raises(ValueError, match="`multiples` must be positive and in increasing order"):
        evaluate({}, [], multiples=multiples)


def test_a_wrong_name_is_found_before_the_work(evaluate):
    lines = []
    with pytest.raises(ValueError, match="Unknown problem"):
        evaluate({}, lines, problems=["wine_of_many_scales", "nothing"])
    assert not lines


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
