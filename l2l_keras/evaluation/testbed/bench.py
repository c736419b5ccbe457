"""Runs learned optimizers on the problems of the testbed, next to tuned baselines."""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from l2l_keras.evaluation.report import versions
from l2l_keras.evaluation.result_files import digest
from l2l_keras.evaluation.results import Result, last_tenth
from l2l_keras.evaluation.rollout import Rollout
from l2l_keras.evaluation.scores import Score, score
from l2l_keras.evaluation.testbed.cache import Cache, Results
from l2l_keras.evaluation.testbed.problems import EMBEDDED, STORED
from l2l_keras.evaluation.tune import BASELINES, Baseline, half_decades, tune_for_lengths
from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.progress import Progress, prefixed, silent
from l2l_keras.tasks.base import Task

TUNED: dict[str, Baseline] = {
    **BASELINES,
    "AdamW": Baseline("AdamW", keras.optimizers.AdamW, half_decades(-4, 0)),
}
"""The baselines whose learning rates are tuned, by name."""

DEFAULT = "Adam, Keras' default"
"""The baseline that is not tuned."""

DEFAULT_CACHE = os.path.join("~", ".keras", "l2l_keras", "testbed")
"""Folder in which results are cached by default."""

SHIPPED = Path(__file__).parent / "baselines"
"""Results of the baselines with the default settings, which ship with the package."""

_TIMED_STEPS, _TIMED_RUNS = 50, 5


class Runs(NamedTuple):
    """The runs of every optimizer on a problem: their numbers of steps, increasing, and seeds."""

    steps: tuple[int, ...]
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]


def names(stored: bool = True) -> list[str]:
    """Returns the names of the problems.

    Args:
        stored: Whether to include those that read a data set from a folder. Defaults to True.

    Example:
        >>> len(l2l_keras.evaluation.testbed.names())
        17
    """
    return sorted([*EMBEDDED, *(STORED if stored else ())])


def problem(name: str, data_dir: str | None = None, download: bool = True) -> Task:
    """Returns one of the problems; its training split is that of validation.

    Args:
        name: One of `names()`.
        data_dir: Folder of TensorFlow Datasets, for problems that read from it. Defaults to that
            library's own.
        download: Whether such problems may download missing data. Defaults to True.

    Raises:
        ValueError: If there is no such problem.
        FileNotFoundError: If its data are missing.

    Example:
        >>> l2l_keras.evaluation.testbed.problem("diabetes_regression").size
        1441
    """
    if name not in names():
        raise ValueError(f"Unknown problem. Expected one of {names()}. Received: {name!r}")
    task = EMBEDDED[name]() if name in EMBEDDED else STORED[name](data_dir, download)
    task.name = name
    return task


def evaluate(
    learned: Mapping[str, Any],
    steps: int = 100,
    multiples: Sequence[int] = (1, 10, 100),
    problems: Sequence[str] | Mapping[str, Task] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    tuning_seeds: Sequence[int] = (0,),
    cache_dir: str | os.PathLike[str] = DEFAULT_CACHE,
    guard: bool = False,
    data_dir: str | None = None,
    download: bool = True,
    progress: Progress = silent,
) -> Iterator[Score]:
    """Compares learned optimizers, as they are, with baselines tuned for every problem.

    Args:
        learned: See `compare`.
        steps: Updates of the shortest runs. Defaults to 100.
        multiples: Lengths of runs as multiples of that, in increasing order. Defaults to 1, 10 and
            100.
        problems: Names of problems, or your own tasks by the name to show, such as the validation
            tasks of a `Mixture`. Defaults to all problems of the testbed.
        seeds: Seeds of the test optimizees and their minibatches. Defaults to three.
        tuning_seeds: Those of the validation optimizees, for tuning. Defaults to one.
        cache_dir: Folder in which results of all optimizers are cached, so that an interrupted
            comparison continues where it stopped. Your own tasks are identified by name and
            size only: use a new folder when anything else about them changes. Defaults to
            `DEFAULT_CACHE`, in `~/.keras`.
        guard: Whether learned optimizers have a guard. Defaults to False.
        data_dir: See `problem`.
        download: See `problem`.
        progress: Called with a line of text as the work goes on. Defaults to silence.

    Yields:
        Scores of every optimizer in runs of every length, problem after problem.

    Raises:
        ValueError: If an argument is not as described.
        FileNotFoundError: If the data of a problem are missing.

    Example:
        >>> rule = l2l_keras.rules.CoordinatewiseLSTM(units=(4,), seed=0)
        >>> scores = l2l_keras.evaluation.testbed.evaluate(
        ...     {"untrained": rule}, problems=["diabetes_regression"]
        ... )
        >>> print(l2l_keras.evaluation.testbed.table(list(scores)))  # doctest: +SKIP
    """
    if not multiples or list(multiples) != sorted(set(multiples)) or multiples[0] < 1:
        raise ValueError(
            f"`multiples` must be positive and in increasing order. Received: multiples={multiples}"
        )
    runs = Runs(tuple(steps * m for m in multiples), tuple(seeds), tuple(tuning_seeds))
    own = problems if isinstance(problems, Mapping) else {}
    chosen = names() if problems is None else list(problems)
    # All names are checked before hours of work.
    for name in set(chosen) - set(names()) - set(own):
        problem(name)
    cache = Cache(cache_dir, SHIPPED)
    for number, name in enumerate(chosen, start=1):
        task = own[name] if name in own else problem(name, data_dir, download)
        tell = prefixed(progress, f"{number}/{len(chosen)} {name}")
        yield from _evaluate_on(name, task, learned, runs, cache, guard, tell)


def _evaluate_on(
    problem_name: str,
    task: Task,
    learned: Mapping[str, Any],
    runs: Runs,
    cache: Cache,
    guard: bool,
    progress: Progress,
) -> Iterator[Score]:
    """Yields the scores of learned optimizers on one problem."""
    longest = runs.steps[-1]
    common = {"problem": problem_name, "size": task.size, "steps": runs.steps, "seeds": runs.seeds}

    # The shipped results of baselines are found by these settings.
    def baseline_results(name: str, grid: Sequence[float], make: Callable[[], Results]) -> Results:
        own = {"baseline": name, "grid": grid, "tuning_seeds": runs.tuning_seeds}
        return cache.get(name, {**common, **own}, make)

    tuned = []
    for name, baseline in TUNED.items():
        make = functools.partial(tuned_results, task, baseline, runs, prefixed(progress, name))
        tuned.append(baseline_results(name, baseline.grid, make))
    default = baseline_results(
        DEFAULT,
        (),
        lambda: untuned_results(DEFAULT, Rollout(task, keras.optimizers.Adam(), longest), runs),
    )
    if not learned:
        return
    results, rollouts = {}, {}
    for name, rule in learned.items():
        optimizer = LearnedOptimizer(rule, guard=guard)
        own = {"learned": digest(optimizer), "version": versions()["l2l_keras"]}
        rollouts[name] = Rollout(task, optimizer, longest)
        make = functools.partial(untuned_results, name, rollouts[name], runs)
        results[name] = cache.get(name, {**common, **own}, make)
    best = [min(of_length, key=lambda r: r.mean_final) for of_length in zip(*tuned, strict=True)]
    for name in sorted({rival.name for rival in best}):
        rollouts[name] = TUNED[name].rollout(task, longest)
    seconds = step_times(rollouts)
    for name in learned:
        for result, rival, standard in zip(results[name], best, default, strict=True):
            relative_time = seconds[name] / seconds[rival.name]
            scored = score(problem_name, result, rival, standard, relative_time)
            ratio = f"{scored.ratio.mean:.3f} of {rival.name}'s final loss"
            progress(f"{name}: {scored.steps} steps: {ratio}")
            yield scored


def untuned_results(name: str, rollout: Rollout, runs: Runs) -> Results:
    """Runs an optimizer as it is on test optimizees."""
    curves = np.concatenate([rollout(seed) for seed in runs.seeds])
    return tuple(Result(name, curves[:, : n + 1], last_tenth(n)) for n in runs.steps)


def tuned_results(
    task: Task, baseline: Baseline, runs: Runs, progress: Progress = silent
) -> Results:
    """Tunes a baseline for runs of each length, and runs it on test optimizees."""
    windows = {steps: last_tenth(steps) for steps in runs.steps}
    tunings = tune_for_lengths(task, baseline, windows, runs.tuning_seeds, progress=progress)
    rollout = baseline.rollout(task, runs.steps[-1])
    return tuple(
        Result(
            baseline.name,
            np.concatenate([rollout(seed, tuning.best, steps) for seed in runs.seeds]),
            windows[steps],
            tuning,
        )
        for tuning, steps in zip(tunings, runs.steps, strict=True)
    )


def step_times(
    rollouts: Mapping[str, Rollout], clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Measures the seconds of a step by name: medians over short runs, in turns."""
    steps = min(_TIMED_STEPS, *(rollout.steps for rollout in rollouts.values()))
    seconds: dict[str, list[float]] = {name: [] for name in rollouts}
    for seed in range(_TIMED_RUNS):
        for name, rollout in rollouts.items():
            start = clock()
            rollout(seed, steps=steps)
            seconds[name].append((clock() - start) / steps)
    return {name: statistics.median(own) for name, own in seconds.items()}
