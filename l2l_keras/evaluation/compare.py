"""Comparisons of learned optimizers with tuned baselines, on the same optimizees and data."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from l2l_keras import parameter_groups
from l2l_keras.evaluation.results import Comparison, Result, Tuning
from l2l_keras.evaluation.rollout import Rollout, RuleRollout, Rules, checked_seeds
from l2l_keras.evaluation.tune import (
    BASELINES,
    Baseline,
    Progress,
    default_window,
    prefixed,
    silent,
    tune,
)
from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.tasks.base import Task


def compare(
    task: Task,
    learned: Mapping[str, Rules],
    steps: int,
    seeds: Sequence[int],
    tuning_seeds: Sequence[int] | None = None,
    baselines: Mapping[str, Baseline] = BASELINES,
    guard: bool = False,
    progress: Progress = silent,
) -> Comparison:
    """Compares learned optimizers, as they are, with baselines whose learning rate is tuned.

    Learning rates are tuned on optimizees of the validation split. Then every optimizer starts
    afresh on the same optimizees and minibatches of the test split.

    Args:
        task: Where optimizees come from.
        learned: Update rules, or groups of them as `LearnedOptimizer` takes them, by the name to
            show. Their learning rate is 1.
        steps: Updates of a run, in tuning as in the comparison.
        seeds: Seeds of the test optimizees and their minibatches.
        tuning_seeds: Those of the validation optimizees. Defaults to `seeds`.
        baselines: Baselines by the name to show. Defaults to the paper's.
        guard: Whether learned optimizers have a guard. Defaults to False.
        progress: Called with a line of text as the work goes on. Defaults to silence.

    Returns:
        The results, learned optimizers first, in the order given.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> rule = l2l_keras.rules.CoordinatewiseLSTM(units=(4,), seed=0)
        >>> comparison = l2l_keras.evaluation.compare(
        ...     l2l_keras.tasks.Quadratic(functions=16),
        ...     {"untrained": rule},
        ...     steps=10,
        ...     seeds=[0],
        ...     baselines={"Adam": l2l_keras.evaluation.BASELINES["Adam"]},
        ... )
        >>> [result.name for result in comparison.results]
        ['untrained', 'Adam']
        >>> comparison.ratio("untrained") > 1
        True

    Source: Andrychowicz et al. (2016), section 3.
    """
    if both := sorted(set(learned) & set(baselines)):
        raise ValueError(f"A learned optimizer must not be named as a baseline. Received: {both}")
    if not learned and not baselines:
        raise ValueError("Expected at least one optimizer. Received: learned={}, baselines={}")
    seeds = checked_seeds("seeds", seeds)
    tuning_seeds = seeds if tuning_seeds is None else checked_seeds("tuning_seeds", tuning_seeds)
    window = default_window(task, steps)

    def result(name: str, rollout: Rollout | RuleRollout, tuning: Tuning | None) -> Result:
        start = time.perf_counter()
        curves = np.concatenate([rollout(seed) for seed in seeds])
        outcome = Result(name, curves, window, tuning, time.perf_counter() - start)
        progress(f"{name}: test: final loss {outcome.mean_final:.4g}")
        return outcome

    results = [
        result(name, _rollout(task, rule, steps, guard), None) for name, rule in learned.items()
    ]
    for name, baseline in baselines.items():
        tell = prefixed(progress, name)
        tuning = tune(task, baseline.make, baseline.grid, steps, tuning_seeds, window, tell)
        results.append(result(name, Rollout(task, baseline.make(tuning.best), steps), tuning))
    return Comparison(task.name, steps, seeds, tuning_seeds, window, tuple(results))


def _rollout(task: Task, rule: Rules, steps: int, guard: bool) -> Rollout | RuleRollout:
    """Returns the runs of a rule on a task's test optimizees."""
    if task.functions > 1 and any(r.scope != "element" for r in parameter_groups.only_rules(rule)):
        if guard:
            raise ValueError(
                "A rule that is not elementwise has no guard on several functions side by side. "
                f"Received: guard=True, task.functions={task.functions}"
            )
        return RuleRollout(task, rule, steps)
    return Rollout(task, LearnedOptimizer(rule, guard=guard), steps)
