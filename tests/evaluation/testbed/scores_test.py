"""Tests of the testbed's scores, by hand-made losses."""

import math

import numpy as np
import pytest

from l2l_keras.evaluation.testbed.runs import Outcome
from l2l_keras.evaluation.testbed.scores import (
    best_of,
    geometric_mean,
    ratio_of,
    score,
    share_of_steps,
    summarise,
)


def line(start, end, steps=20, seeds=3):
    """Losses that fall in a straight line, the same for all seeds."""
    return np.tile(np.linspace(start, end, steps + 1, dtype="float32"), (seeds, 1))


def outcome(name, curves, rate=0.1):
    return Outcome(name, None if rate is None else (rate,), (curves,), (False,))


def test_half_the_loss_in_half_the_steps():
    best = outcome("Adam", line(4.0, 2.0))
    learned = outcome("mine", np.concatenate([line(4.0, 2.0, 10), line(2.0, 1.0, 9)], axis=1), None)
    result = score("problem", learned, best, outcome("default", line(4.0, 3.0)), k=0, pace=3.0)
    assert (result.steps, result.baseline, result.learning_rate) == (20, "Adam", 0.1)
    # A final loss is the mean of two.
    assert result.baseline_loss == pytest.approx(2.05)
    assert result.ratio.mean == pytest.approx(np.mean([1.0, 1.0 + 1 / 9]) / 2.05)
    assert result.ratio.low == pytest.approx(result.ratio.high)
    assert result.default_ratio.mean == pytest.approx(np.mean([1.0, 1.0 + 1 / 9]) / 3.025)
    # Its mean over two steps is below 2.05 for the first time after the eleventh.
    assert result.share_of_steps == pytest.approx(0.55)
    assert result.share_of_seconds == pytest.approx(1.65)
    assert result.area_ratio == pytest.approx(learned.curves[0][0, 1:].sum() / 59.0)


def test_a_baseline_reaches_its_own_loss_at_the_end():
    curves = np.exp(np.random.default_rng(0).normal(size=(3, 1001))) + line(90.0, 1.0, 1000)
    best = outcome("Adam", curves.astype("float32"))
    result = score("problem", best, best, best, k=0, pace=1.0)
    assert result.ratio == (1.0, 1.0, 1.0)
    assert result.share_of_steps > 0.95


def test_what_is_not_reached_is_none():
    assert share_of_steps(line(4.0, 2.0), target=1.0) is None
    assert share_of_steps(np.full((1, 11), np.nan), target=1.0) is None
    # A single lucky minibatch is not enough.
    curves = line(4.0, 4.0)
    curves[:, 5] = 0.0
    assert share_of_steps(curves, target=1.0) is None


def test_what_is_reached_before_it_is_lost_counts():
    curves = line(4.0, 0.0)
    curves[:, 15:] = np.nan
    assert share_of_steps(curves, target=2.1) == pytest.approx(0.5, abs=0.051)


def test_a_run_that_is_not_finite_is_infinitely_bad():
    best = outcome("Adam", line(4.0, 2.0))
    curves = line(4.0, 2.0)
    curves[1, 10:] = np.nan
    result = score("problem", outcome("mine", curves, None), best, best, k=0, pace=1.0)
    assert result.ratio.mean == result.area_ratio == math.inf
    assert result.share_of_steps is None
    summary = summarise([result])
    assert summary.ratio == summary.worst_ratio == math.inf
    assert summary.share_of_steps == 1.5
    assert summary.smaller_areas == 0.0


def test_the_interval_is_that_of_paired_ratios():
    losses = np.array([1.0, 10.0, 100.0])
    ratio = ratio_of(losses, 2.0 * losses)
    assert ratio == pytest.approx((0.5, 0.5, 0.5))
    wide = ratio_of(losses, np.full(3, 10.0))
    assert wide.mean == pytest.approx(1.0)
    assert wide.low == pytest.approx(1.0 / wide.high)
    assert math.isnan(ratio_of(losses[:1], losses[:1]).low)
    assert ratio_of(np.zeros(2), np.ones(2)).mean == 0.0


def test_a_summary_is_over_problems():
    best = outcome("Adam", line(4.0, 2.0))
    scores = [
        score(name, outcome("mine", factor * line(4.0, 2.0), None), best, best, k=0, pace=2.0)
        for name, factor in (("easy", 0.25), ("hard", 2.0), ("fair", 1.0))
    ]
    summary = summarise(scores)
    assert (summary.optimizer, summary.steps, summary.problems) == ("mine", 20, 3)
    assert summary.ratio == pytest.approx(0.5 ** (1 / 3))
    assert (summary.worst_ratio, summary.worst_problem) == (pytest.approx(2.0), "hard")
    assert summary.smaller_areas == pytest.approx(1 / 3)
    shares = [scores[0].share_of_steps, 1.5, scores[2].share_of_steps]
    assert summary.share_of_steps == pytest.approx(geometric_mean(shares))
    assert summary.share_of_seconds == pytest.approx(
        geometric_mean([2 * shares[0], 1.5, 2 * shares[2]])
    )


def test_the_best_baseline_is_that_of_the_lowest_mean_final_loss():
    failed = outcome("failed", np.full((3, 21), np.nan, "float32"))
    baselines = [failed, outcome("good", line(4.0, 1.0)), outcome("fair", line(4.0, 2.0))]
    assert best_of(baselines, 0).name == "good"


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
