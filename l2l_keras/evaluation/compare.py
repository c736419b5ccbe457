"""Comparisons of learned optimizers with tuned baselines, on the same optimizees and data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from l2l_keras import arguments, parameter_groups
from l2l_keras.evaluation.results import Comparison, HeldOut, Result, Tuning
from l2l_keras.evaluation.rollout import Rollout, RuleRollout, Rules, Run, checked_seeds
from l2l_keras.evaluation.tune import ALL_BASELINES, Baseline, default_window, tune_for_lengths
from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.progress import Progress, Timer, prefixed, silent
from l2l_keras.schedules import SCHEDULES, Schedule
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
    schedules: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Compares learned optimizers, as they are, with baselines whose learning rate is tuned.

    Learning rates are tuned on optimizees of the validation split. Then every optimizer starts
    afresh on the same optimizees and minibatches of the test split. If the task holds examples out,
    the loss on these is what counts, and there are looks at them ten times in every run.

    Args:
        task: Where optimizees come from.
        learned: Update rules, or groups of them as `LearnedOptimizer` takes them, by the name to
            show.
        steps: Updates of a run, in tuning as in the comparison.
        seeds: Seeds of the test optimizees and their minibatches.
        tuning_seeds: Those of the validation optimizees. Defaults to `seeds`.
        baselines: Baselines by the name to show. Defaults to `ALL_BASELINES`.
        guard: Whether learned optimizers have a guard. Defaults to False.
        schedules: How the learning rates of learned optimizers change in a run, by their names;
            see `l2l_keras.meta.MetaModel`. Defaults to `"constant"` for all.
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
    schedules = schedules or {}
    if unknown := sorted(set(schedules) - set(learned)):
        raise ValueError(f"A schedule needs a learned optimizer. Received: {unknown}")
    if not learned and not baselines:
        raise ValueError("Expected at least one optimizer. Received: learned={}, baselines={}")
    trials = Trials(task, steps, seeds, tuning_seeds)
    total = sum(map(trials.runs_of, baselines.values())) + len(trials.seeds) * len(learned)
    progress(f"comparison: at least {total:,} runs of {steps:,} steps")
    timer = Timer(total, progress)
    results = {}
    for name, baseline in baselines.items():
        tuning = trials.tune(baseline, prefixed(timer.after(len(trials.tuning_seeds)), name))
        tell = timer.after(len(trials.seeds))
        results[name] = trials.baseline(name, baseline, tuning, tell)
    for name, rule in learned.items():
        tell = timer.after(len(trials.seeds))
        schedule = schedules.get(name, "constant")
        results[name] = trials.learned(name, rule, guard, schedule, tell)
    return trials.comparison([results[name] for name in (*learned, *baselines)])


class Trials:
    """The runs of a comparison: of each optimizer on the same optimizees and minibatches.

    Args:
        task, steps, seeds, tuning_seeds: See `compare`.

    Raises:
        ValueError: If there are no seeds.
    """

    def __init__(
        self,
        task: Task,
        steps: int,
        seeds: Sequence[int],
        tuning_seeds: Sequence[int] | None = None,
    ) -> None:
        self.task = task
        self.steps = steps
        self.seeds = checked_seeds("seeds", seeds)
        self.tuning_seeds = (
            self.seeds if tuning_seeds is None else checked_seeds("tuning_seeds", tuning_seeds)
        )
        self.window = default_window(task, steps)
        shares = range(_LOOKS + 1) if task.holds_out else ()
        self._looks = sorted({steps * k // _LOOKS for k in shares})

    def runs_of(self, baseline: Baseline) -> int:
        """Returns how many runs a baseline takes at least, tuning included."""
        tried = len(baseline.grid) if len(baseline.grid) > 1 else 0
        return len(self.seeds) + len(self.tuning_seeds) * tried

    def tune(self, baseline: Baseline, progress: Progress = silent) -> Tuning:
        """Tunes a baseline on validation optimizees, if it has several rates to choose from."""
        if len(baseline.grid) == 1:
            return Tuning(baseline.grid[0], on_edge=False, seconds=0.0)
        windows = {self.steps: self.window}
        return tune_for_lengths(self.task, baseline, windows, self.tuning_seeds, progress)[0]

    def baseline(
        self, name: str, baseline: Baseline, tuning: Tuning, progress: Progress = silent
    ) -> Result:
        """Runs a baseline at its tuned learning rate on the test optimizees."""
        rollout = baseline.rollout(self.task, self.steps)
        run = functools.partial(rollout.run, learning_rate=tuning.best)
        return self._result(name, run, progress, tuning=tuning, state_bytes=rollout.state_bytes)

    def learned(
        self,
        name: str,
        rule: Rules,
        guard: bool = False,
        schedule: str = "constant",
        progress: Progress = silent,
    ) -> Result:
        """Runs a learned optimizer on the test optimizees."""
        arguments.one_of("schedule", schedule, tuple(SCHEDULES))
        rollout = _rollout(self.task, rule, self.steps, guard, SCHEDULES[schedule])
        size = rollout.state_bytes if isinstance(rollout, Rollout) else None
        return self._result(name, rollout.run, progress, state_bytes=size)

    def comparison(self, results: Sequence[Result]) -> Comparison:
        """Puts results together, learned ones first."""
        ranked = sorted(results, key=lambda result: not result.learned)
        return Comparison(
            self.task.name, self.steps, self.seeds, self.tuning_seeds, self.window, tuple(ranked)
        )

    def _result(
        self, name: str, run: Callable[..., Run], progress: Progress, **attributes: Any
    ) -> Result:
        if self._looks:
            run = functools.partial(run, looks=self._looks)
        runs = [run(seed) for seed in self.seeds]
        held_out = HeldOut.of(self._looks, [own.looks for own in runs]) if self._looks else None
        result = Result(
            name,
            np.concatenate([own.losses for own in runs]),
            self.window,
            seconds=sum(own.seconds for own in runs),
            held_out=held_out,
            **attributes,
        )
        progress(f"{name}: test: final loss {result.mean_final:.4g}")
        return result


def _rollout(
    task: Task, rule: Rules, steps: int, guard: bool, schedule: Schedule | None
) -> Rollout | RuleRollout:
    """Returns the runs of a rule on a task's test optimizees."""
    if task.functions > 1 and any(r.scope != "element" for r in parameter_groups.only_rules(rule)):
        if guard:
            raise ValueError(
                "A rule that is not elementwise has no guard on several functions side by side. "
                f"Received: guard=True, task.functions={task.functions}"
            )
        return RuleRollout(task, rule, steps, schedule=schedule)
    return Rollout(task, LearnedOptimizer(rule, guard=guard), steps, schedule=schedule)
