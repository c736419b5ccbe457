"""Runs learned optimizers on the problems of the testbed, next to tuned baselines."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from l2l_keras.evaluation.compare import Progress
from l2l_keras.evaluation.report import versions
from l2l_keras.evaluation.rollout import Rollout
from l2l_keras.evaluation.testbed.problems import EMBEDDED, STORED
from l2l_keras.evaluation.testbed.runs import (
    DEFAULT,
    TUNED,
    Cache,
    Lengths,
    Outcome,
    paces,
    tuned,
    untuned,
)
from l2l_keras.evaluation.testbed.scores import Score, best_of, score
from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.tasks.base import Task

DEFAULT_CACHE = os.path.join("~", ".keras", "l2l_keras", "testbed")
"""Where what optimizers did is kept, unless another folder is named."""

SHIPPED = Path(__file__).parent / "baselines"
"""Where what baselines did with the default settings is kept, for whoever does not want to wait."""


def names(stored: bool = True) -> list[str]:
    """Returns the names of the problems.

    Args:
        stored: Whether to name those too that read a data set from a folder. Defaults to True.

    Example:
        >>> len(l2l_keras.evaluation.testbed.names())
        17
    """
    return sorted([*EMBEDDED, *(STORED if stored else ())])


def problem(name: str, data_dir: str | None = None, download: bool = True) -> Task:
    """Returns one of the problems.

    Args:
        name: One of `names()`.
        data_dir: Folder of TensorFlow Datasets, for problems that read from it.
        download: Whether such problems may download what is missing. Defaults to True.

    Returns:
        The task. Its training split is that of validation: it is not to be trained on.

    Raises:
        ValueError: If there is no such problem.
        FileNotFoundError: If its data are missing.

    Example:
        >>> l2l_keras.evaluation.testbed.problem("diabetes_regression").size
        1441
    """
    if name in EMBEDDED:
        task = EMBEDDED[name]()
    elif name in STORED:
        task = STORED[name](data_dir=data_dir, download=download)
    else:
        raise ValueError(f"Unknown problem. Expected one of {names()}. Received: {name!r}")
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
    progress: Progress = lambda line: None,
) -> Iterator[Score]:
    """Compares learned optimizers, as they are, with baselines tuned for every problem.

    Args:
        learned: Update rules, or groups of them as `LearnedOptimizer` takes them, by the name to
            show. Their learning rate is 1.
        steps: Updates of the shortest runs. Defaults to 100.
        multiples: Lengths of runs as multiples of that, in increasing order. Defaults to 1, 10 and
            100.
        problems: Names of problems, or tasks of one's own by the name to show, such as those that a
            `Mixture` is validated on. Defaults to all problems of the testbed.
        seeds: Seeds of the test optimizees and their minibatches. Defaults to three.
        tuning_seeds: Seeds of the validation optimizees on which learning rates are tuned. Defaults
            to one.
        cache_dir: Folder in which is kept what baselines and learned optimizers did, so that an
            interrupted comparison goes on where it was. Of tasks of one's own it knows the name
            and the size only: what else may change needs a new folder. Defaults to one in
            `~/.keras`.
        guard: Whether learned optimizers have a guard. Defaults to False.
        data_dir: Folder of TensorFlow Datasets, for problems that read from it.
        download: Whether such problems may download what is missing. Defaults to True.
        progress: Called with a line of text as the work goes on. Defaults to nothing.

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
            f"`multiples` must be positive and in increasing order. Received: {multiples}"
        )
    lengths = Lengths(
        tuple(steps * multiple for multiple in multiples), tuple(seeds), tuple(tuning_seeds)
    )
    own = problems if isinstance(problems, Mapping) else {}
    chosen = names() if problems is None else list(problems)
    # All of them first: a name that is wrong shall not be found after hours.
    for name in set(chosen) - set(names()) - set(own):
        problem(name)
    cache = Cache(cache_dir, SHIPPED)
    for number, name in enumerate(chosen):
        task = own[name] if name in own else problem(name, data_dir, download)
        told = functools.partial(_tell, progress, f"{number + 1}/{len(chosen)} {name}")
        yield from _scores(name, task, learned, lengths, cache, guard, told)


def _scores(
    problem_name: str,
    task: Task,
    learned: Mapping[str, Any],
    lengths: Lengths,
    cache: Cache,
    guard: bool,
    progress: Progress,
) -> Iterator[Score]:
    """Yields the scores of every optimizer on one problem."""
    longest = lengths.steps[-1]
    common = {
        "problem": problem_name,
        "size": task.size,
        "steps": lengths.steps,
        "seeds": lengths.seeds,
    }

    def kept_baseline(name: str, grid: Sequence[float], make: Callable[[], Outcome]) -> Outcome:
        own = {"baseline": name, "grid": list(grid), "tuning_seeds": lengths.tuning_seeds}
        return cache.get({**common, **own}, make)

    baselines = [
        kept_baseline(
            name, baseline.grid, functools.partial(tuned, task, baseline, lengths, progress)
        )
        for name, baseline in TUNED.items()
    ]
    default = kept_baseline(
        DEFAULT,
        [],
        lambda: untuned(DEFAULT, Rollout(task, keras.optimizers.Adam(), longest), lengths),
    )
    rollouts, outcomes = {}, []
    for name, rule in learned.items():
        optimizer = LearnedOptimizer(rule, guard=guard)
        own = {"learned": _identity(optimizer), "version": versions()["l2l_keras"]}
        rollouts[name] = Rollout(task, optimizer, longest)
        make = functools.partial(untuned, name, rollouts[name], lengths)
        outcomes.append(dataclasses.replace(cache.get({**common, **own}, make), name=name))
    best = [best_of(baselines, k) for k in range(len(lengths.steps))]
    if not learned:
        return
    pace = _paces(task, rollouts, {outcome.name for outcome in best})
    for outcome in outcomes:
        for k, rival in enumerate(best):
            relative_pace = pace[outcome.name] / pace[rival.name]
            result = score(problem_name, outcome, rival, default, k, relative_pace)
            progress(
                f"{outcome.name}: {result.steps} steps: {result.ratio.mean:.3f} of "
                f"{rival.name}'s final loss"
            )
            yield result


def _identity(optimizer: LearnedOptimizer) -> str:
    """Returns a digest of all that an optimizer is, but for names, which count what there is."""

    def nameless(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: nameless(part) for key, part in value.items() if key != "name"}

    text = json.dumps(nameless(optimizer.get_config()), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _paces(task: Task, learned: Mapping[str, Rollout], baselines: set[str]) -> dict[str, float]:
    """Measures the seconds of a step of optimizers, by name."""
    steps = next(iter(learned.values())).steps
    rivals = {
        name: Rollout(task, TUNED[name].make(TUNED[name].grid[0]), steps)
        for name in sorted(baselines)
    }
    rollouts = {**learned, **rivals}
    return dict(zip(rollouts, paces(list(rollouts.values())), strict=True))


def _tell(progress: Progress, prefix: str, line: str) -> None:
    progress(f"{prefix}: {line}")
