"""Comparisons of learned optimizers with tuned baselines, on the same optimizees and data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from l2l_keras import parameter_groups
from l2l_keras.evaluation.results import Comparison, HeldOut, Result, Tuning
from l2l_keras.evaluation.rollout import Rollout, RuleRollout, Rules, Run, checked_seeds
from l2l_keras.evaluation.tune import ALL_BASELINES, Baseline, default_window, tune_for_lengths
from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.progress import Progress, Timer, prefixed, silent
from l2l_keras.tasks.base import Task

_LOOKS = 10
"""Looks at examples held out in every run, besides one at its start."""


def compare(
    task: Task,
    learned: Mapping[str, Rules],
    steps: int,
    seeds: Sequence[int],
    tuning_seeds: Sequence[int] | None = None,
    baselines: Mapping[str, Baseline] = ALL_BASELINES,
    guard: bool = False,
    progress: Progress = silent,
) -> Comparison:
    """Compares learned optimizers, as they are, with baselines whose learning rate is tuned.

    Learning rates are tuned on optimizees of the validation split. Then every optimizer starts
    afresh on the same optimizees and minibatches of the test split. If the task holds examples out,
    the loss on these is what counts, and there are looks at them ten times in every run.

    Args:
        task: Where optimizees come from.
        learned: Update rules, or groups of them as `LearnedOptimizer` takes them, by the name to
            show. Their learning rate is 1.
        steps: Updates of a run, in tuning as in the comparison.
        seeds: Seeds of the test optimizees and their minibatches.
        tuning_seeds: Those of the validation optimizees. Defaults to `seeds`.
        baselines: Baselines by the name to show. Defaults to `ALL_BASELINES`.
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
    tried = sum(len(baseline.grid) for baseline in baselines.values() if len(baseline.grid) > 1)
    total = len(seeds) * (len(learned) + len(baselines)) + len(tuning_seeds) * tried
    progress(f"comparison: at least {total:,} runs of {steps:,} steps")
    timer = Timer(total, progress)
    looks = sorted({steps * k // _LOOKS for k in range(_LOOKS + 1)}) if task.holds_out else []

    def result(name: str, run: Callable[..., Run], tuning: Tuning | None) -> Result:
        if looks:
            run = functools.partial(run, looks=looks)
        runs = [run(seed) for seed in seeds]
        outcome = Result(
            name,
            np.concatenate([own.losses for own in runs]),
            window,
            tuning,
            sum(own.seconds for own in runs),
            HeldOut.of(looks, [own.looks for own in runs]) if looks else None,
        )
        timer.after(len(seeds))(f"{name}: test: final loss {outcome.mean_final:.4g}")
        return outcome

    results = {}
    for name, baseline in baselines.items():
        tell = prefixed(timer.after(len(tuning_seeds)), name)
        if len(baseline.grid) > 1:
            windows = {steps: window}
            (tuning,) = tune_for_lengths(task, baseline, windows, tuning_seeds, tell)
        else:
            tuning = Tuning(baseline.grid[0], on_edge=False)
        run = functools.partial(baseline.rollout(task, steps).run, learning_rate=tuning.best)
        results[name] = result(name, run, tuning)
    for name, rule in learned.items():
        results[name] = result(name, _rollout(task, rule, steps, guard).run, None)
    in_order = tuple(results[name] for name in (*learned, *baselines))
    return Comparison(task.name, steps, seeds, tuning_seeds, window, in_order)


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
