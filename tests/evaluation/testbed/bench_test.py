"""Tests of the testbed as a whole, on its smallest problem."""

import dataclasses

import pytest

from l2l_keras.evaluation import testbed
from l2l_keras.evaluation.testbed import runs
from l2l_keras.rules import MomentumLSTM


@pytest.fixture(name="evaluate", scope="module")
def evaluate_fixture(tmp_path_factory):
    """Compares rules on one problem in runs of 10 and 20 steps, with coarse grids."""
    folder = tmp_path_factory.mktemp("cache")

    def evaluate(learned, lines, **arguments):
        with pytest.MonkeyPatch.context() as patch:
            for name in ("Adam", "AdamW", "RMSprop", "NAG", "SGD"):
                coarse = dataclasses.replace(runs.TUNED[name], grid=(0.001, 0.1))
                patch.setitem(runs.TUNED, name, coarse)
            arguments = {"problems": ["wine_of_many_scales"], "steps": 10, "multiples": (1, 2)} | (
                arguments
            )
            return list(
                testbed.evaluate(
                    learned, seeds=(0, 1), cache_dir=folder, progress=lines.append, **arguments
                )
            )

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
