"""Tests of what scores say, by hand-made losses."""

import math

import numpy as np
import pytest

from l2l_keras.evaluation import Result, Tuning
from l2l_keras.evaluation.results import geometric_mean, last_tenth
from l2l_keras.evaluation.scores import score, share_of_steps, summaries


def line(start, end, steps=20, seeds=3):
    """Losses that fall in a straight line, the same for all seeds."""
    return np.tile(np.linspace(start, end, steps + 1, dtype="float32"), (seeds, 1))


def result(name, curves, tuning=Tuning(0.1, on_edge=False)):  # noqa: B008
    return Result(name, curves, last_tenth(curves.shape[1] - 1), tuning)


class TestScore:
    def test_half_the_loss_in_half_the_steps(self):
        best = result("Adam", line(4.0, 2.0))
        curves = np.concatenate([line(4.0, 2.0, 10), line(2.0, 1.0, 9)], axis=1)
        default = result("default", line(4.0, 3.0))
        scored = score("problem", result("mine", curves, None), best, default, 3.0)
        assert (scored.steps, scored.baseline, scored.learning_rate) == (20, "Adam", 0.1)
        # A final loss is the mean of two.
        final = np.mean([1.0, 1.0 + 1 / 9])
        assert scored.baseline_loss == pytest.approx(2.05)
        assert scored.final_loss == pytest.approx(final)
        assert scored.ratio.mean == pytest.approx(final / 2.05)
        assert scored.ratio.low == pytest.approx(scored.ratio.high)
        assert scored.default_ratio.mean == pytest.approx(final / 3.025)
        # Its mean over two steps is below 2.05 for the first time after the eleventh.
        assert scored.share_of_steps == pytest.approx(0.55)
        assert scored.share_of_seconds == pytest.approx(1.65)
        assert scored.mean_loss_ratio == pytest.approx(curves[0, 1:].sum() / 59.0)

    def test_a_baseline_reaches_its_own_loss_at_the_end(self):
        curves = np.exp(np.random.default_rng(0).normal(size=(3, 1001))) + line(90.0, 1.0, 1000)
        best = result("Adam", curves.astype("float32"))
        scored = score("problem", best, best, best, 1.0)
        assert scored.ratio == (1.0, 1.0, 1.0)
        assert scored.share_of_steps > 0.95

    def test_a_run_that_is_not_finite_counts_as_infinite(self):
        best = result("Adam", line(4.0, 2.0))
        curves = line(4.0, 2.0)
        curves[1, 10:] = np.nan
        scored = score("problem", result("mine", curves, None), best, best, 1.0)
        assert scored.ratio.mean == scored.mean_loss_ratio == math.inf
        assert scored.share_of_steps is None
        (summary,) = summaries([scored])
        assert summary.ratio == summary.worst_ratio == math.inf
        assert summary.share_of_steps == 1.5
        assert summary.lower_mean_losses == 0.0

    def test_a_summary_is_over_problems(self):
        best = result("Adam", line(4.0, 2.0))
        scores = [
            score(name, result("mine", factor * line(4.0, 2.0), None), best, best, 2.0)
            for name, factor in (("easy", 0.25), ("hard", 2.0), ("fair", 1.0))
        ]
        (summary,) = summaries(scores)
        assert (summary.optimizer, summary.steps, summary.problems) == ("mine", 20, 3)
        assert summary.ratio == pytest.approx(0.5 ** (1 / 3))
        assert (summary.worst_ratio, summary.worst_problem) == (pytest.approx(2.0), "hard")
        assert summary.lower_mean_losses == pytest.approx(1 / 3)
        shares = [scores[0].share_of_steps, 1.5, scores[2].share_of_steps]
        assert summary.share_of_steps == pytest.approx(geometric_mean(shares))
        seconds = [2 * shares[0], 1.5, 2 * shares[2]]
        assert summary.share_of_seconds == pytest.approx(geometric_mean(seconds))


def test_a_loss_that_is_not_reached_has_no_share_of_steps():
    assert share_of_steps(line(4.0, 2.0), target=1.0, window=2) is None
    assert share_of_steps(np.full((1, 11), np.nan), target=1.0, window=1) is None
    # A single lucky minibatch is not enough.
    curves = line(4.0, 4.0)
    curves[:, 5] = 0.0
    assert share_of_steps(curves, target=1.0, window=2) is None
    # A loss that is reached before divergence counts.
    curves = line(4.0, 0.0)
    curves[:, 15:] = np.nan
    assert share_of_steps(curves, target=2.1, window=2) == pytest.approx(0.5, abs=0.051)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
