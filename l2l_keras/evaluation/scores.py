"""Scores: how optimizers compare with the best tuned baseline, on one problem and over many."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from l2l_keras.evaluation.results import Ratio, Result, geometric_mean, loss_ratio

_NOT_REACHED = 1.5
"""Share of steps that counts where the baseline's final loss is not reached."""


def share_of_steps(curves: np.ndarray, target: float, window: int) -> float | None:
    """Returns the share of a run's steps after which a loss is reached; None if it never is.

    The mean of `curves`, `[runs, steps + 1]`, over runs and `window` steps has to reach the target.
    """
    steps = curves.shape[1] - 1
    mean = curves.astype(np.float64).mean(axis=0)
    means = np.lib.stride_tricks.sliding_window_view(mean, window).mean(axis=1)
    # Means of many losses are not exact: the baseline must reach its own final loss.
    reached = np.flatnonzero(means <= target * (1.0 + 1e-9))
    return max(1, int(reached[0]) + window - 1) / steps if len(reached) else None


@dataclasses.dataclass(frozen=True)
class Score:
    """How an optimizer compares with the best tuned baseline on one problem.

    Attributes:
        problem: Name of the problem.
        optimizer: Name of the optimizer.
        steps: Updates of a run.
        baseline: Name of the tuned baseline of the lowest mean final loss.
        learning_rate: Its learning rate.
        on_edge: Whether a better one may lie beyond those tried.
        initial_loss: Mean loss before the first update.
        final_loss: Mean final loss of the optimizer.
        baseline_loss: Mean final loss of the baseline.
        ratio: Final loss to the baseline's.
        default_ratio: Final loss to that of Adam at Keras' default.
        mean_loss_ratio: Mean loss over the run to the baseline's.
        share_of_steps: Share of a run's steps after which the baseline's final loss is reached;
            None if it is not.
        share_of_seconds: The same of a run's wall time.

    Example:
        >>> ratio = l2l_keras.evaluation.testbed.Ratio(mean=0.8, low=0.7, high=0.9)
        >>> score = l2l_keras.evaluation.testbed.Score(
        ...     problem="wine_mlp", optimizer="mine", steps=100, baseline="Adam",
        ...     learning_rate=0.01, on_edge=False, initial_loss=2.0, final_loss=0.4,
        ...     baseline_loss=0.5, ratio=ratio, default_ratio=ratio, mean_loss_ratio=0.9,
        ...     share_of_steps=0.6, share_of_seconds=None,
        ... )
        >>> score.ratio.mean
        0.8
    """

    problem: str
    optimizer: str
    steps: int
    baseline: str
    learning_rate: float
    on_edge: bool
    initial_loss: float
    final_loss: float
    baseline_loss: float
    ratio: Ratio
    default_ratio: Ratio
    mean_loss_ratio: float
    share_of_steps: float | None
    share_of_seconds: float | None


def score(
    problem: str, learned: Result, best: Result, default: Result, relative_step_time: float
) -> Score:
    """Compares a learned optimizer with the best tuned baseline, and Adam at Keras' default.

    Runs have the same seeds. `relative_step_time` is relative to the best baseline's.
    """
    share = share_of_steps(learned.curves, best.mean_final, learned.window)
    mean_loss_ratio = learned.mean_loss / best.mean_loss
    return Score(
        problem=problem,
        optimizer=learned.name,
        steps=learned.steps,
        baseline=best.name,
        learning_rate=best.learning_rate,
        on_edge=best.on_edge,
        initial_loss=float(learned.curves[:, 0].astype(np.float64).mean()),
        final_loss=learned.mean_final,
        baseline_loss=best.mean_final,
        ratio=loss_ratio(learned.final, best.final),
        default_ratio=loss_ratio(learned.final, default.final),
        mean_loss_ratio=mean_loss_ratio if math.isfinite(mean_loss_ratio) else math.inf,
        share_of_steps=share,
        share_of_seconds=None if share is None else share * relative_step_time,
    )


@dataclasses.dataclass(frozen=True)
class Summary:
    """Scores of an optimizer on several problems, in runs of one length.

    Attributes:
        optimizer: Name of the optimizer.
        steps: Updates of a run.
        problems: Number of problems.
        ratio: Geometric mean over problems.
        worst_ratio: The largest ratio.
        worst_problem: The problem that has it.
        default_ratio: Geometric mean over problems.
        share_of_steps: Geometric mean, with 1.5 where the loss is not reached.
        share_of_seconds: The same of wall time.
        lower_mean_losses: Share of the problems with a `mean_loss_ratio` below 1.

    Example:
        >>> ratio = l2l_keras.evaluation.testbed.Ratio(mean=0.8, low=0.7, high=0.9)
        >>> rest = ("Adam", 0.01, False, 2.0, 0.4, 0.5, ratio, ratio, 0.9, 0.6, None)
        >>> score = l2l_keras.evaluation.testbed.Score("wine_mlp", "mine", 100, *rest)
        >>> (summary,) = l2l_keras.evaluation.testbed.summaries([score])
        >>> summary.problems, summary.worst_problem, summary.share_of_seconds
        (1, 'wine_mlp', 1.5)
    """

    optimizer: str
    steps: int
    problems: int
    ratio: float
    worst_ratio: float
    worst_problem: str
    default_ratio: float
    share_of_steps: float
    share_of_seconds: float
    lower_mean_losses: float


def summaries(scores: Sequence[Score]) -> list[Summary]:
    """Summarizes scores over problems, for each optimizer and each length of runs.

    Args:
        scores: Scores of several optimizers on several problems, in any order.

    Returns:
        A `Summary` for each optimizer and length, in the order in which they first appear.

    Example:
        >>> ratio = l2l_keras.evaluation.testbed.Ratio(mean=0.8, low=0.7, high=0.9)
        >>> rest = ("Adam", 0.01, False, 2.0, 0.4, 0.5, ratio, ratio, 0.9, 0.6, None)
        >>> score = l2l_keras.evaluation.testbed.Score("wine_mlp", "mine", 100, *rest)
        >>> [summary.optimizer for summary in l2l_keras.evaluation.testbed.summaries([score])]
        ['mine']
    """
    keys = dict.fromkeys((s.optimizer, s.steps) for s in scores)
    return [_summary([s for s in scores if (s.optimizer, s.steps) == key]) for key in keys]


def _summary(scores: Sequence[Score]) -> Summary:
    """Summarizes the scores of one optimizer in runs of one length."""
    worst = max(scores, key=lambda s: s.ratio.mean)

    def mean_share(shares: Iterable[float | None]) -> float:
        return geometric_mean([_NOT_REACHED if share is None else share for share in shares])

    return Summary(
        optimizer=worst.optimizer,
        steps=worst.steps,
        problems=len(scores),
        ratio=geometric_mean([s.ratio.mean for s in scores]),
        worst_ratio=worst.ratio.mean,
        worst_problem=worst.problem,
        default_ratio=geometric_mean([s.default_ratio.mean for s in scores]),
        share_of_steps=mean_share(s.share_of_steps for s in scores),
        share_of_seconds=mean_share(s.share_of_seconds for s in scores),
        lower_mean_losses=sum(s.mean_loss_ratio < 1.0 for s in scores) / len(scores),
    )
