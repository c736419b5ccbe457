"""The stages of a study, each of which leaves its results in files, and is not repeated."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from l2l_keras import arguments, presets
from l2l_keras.evaluation import result_files
from l2l_keras.evaluation.compare import Trials
from l2l_keras.evaluation.results import Comparison, Result, Tuning
from l2l_keras.evaluation.tune import ALL_BASELINES, Baseline
from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.progress import Progress, prefixed
from l2l_keras.studies import plan as plans
from l2l_keras.studies.plan import Plan
from l2l_keras.studies.recipe import Recipe
from l2l_keras.studies.specialise import Specialised, specialise

SPECIALISED, GUARDED = "specialised", "specialised, with guard"
"""The specialised rule in tables."""


class Contender(NamedTuple):
    """A learned optimizer that a study compares.

    Attributes:
        preset: Its preset, by name or folder.
        schedule: How its learning rate changes; see `l2l_keras.meta.MetaModel`.
        guard: Whether it has a guard.
    """

    preset: str
    schedule: str
    guard: bool = False


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much a study does.

    Attributes:
        minutes: About how long to meta-train.
        start: The preset to specialise, by name or folder.
        seeds: Fresh test optimizees of each problem.
        tuning_seeds: Validation optimizees of each problem, for tuning.
        baselines: Names of the optimizers to compare with, of `evaluation.ALL_BASELINES`.

    Raises:
        ValueError: If a number is not positive, or a name is unknown.

    Example:
        >>> l2l_keras.studies.Settings(minutes=2, baselines=("Adam", "SGD")).seeds
        5
    """

    minutes: float = 10.0
    start: str = "general-fast"
    seeds: int = 5
    tuning_seeds: int = 2
    baselines: tuple[str, ...] = tuple(ALL_BASELINES)

    def __post_init__(self) -> None:
        arguments.positive("minutes", self.minutes)
        arguments.count("seeds", self.seeds)
        arguments.count("tuning_seeds", self.tuning_seeds)
        for name in self.baselines:
            arguments.one_of("baselines", name, tuple(ALL_BASELINES))
        if not any(len(ALL_BASELINES[name].grid) > 1 for name in self.baselines):
            raise ValueError(
                "A study needs a baseline whose learning rate is tuned. "
                f"Received: baselines={list(self.baselines)}"
            )


@dataclasses.dataclass(frozen=True)
class ProblemResults:
    """What all optimizers achieved on one problem.

    Attributes:
        comparison: Learned optimizers, and baselines tuned on the problem.
        kept: Baselines with the learning rates of the representative problem, by name; on that
            problem, those of `comparison`.
    """

    comparison: Comparison
    kept: Mapping[str, Result]


class Stages:
    """Runs the stages of a study, or reads what they have left.

    Args:
        plan: The study.
        settings: How much to do.
        folder: Where results are kept.
        progress: Takes a line of text as the work goes on.
    """

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.plan = plan
        self.settings = settings
        self._folder = folder
        self._progress = progress
        self._baselines = {name: ALL_BASELINES[name] for name in settings.baselines}
        self._trials = functools.cache(self._make_trials)

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Names of the stages: groups that follow each other, of stages that may run at once."""
        return ("tune", "specialise"), tuple(f"run {problem}" for problem in self.plan.problems)

    def run(self, stage: str) -> None:
        """Runs a stage by its name."""
        if stage == "tune":
            self.tuned(self.plan.task.name)
        elif stage == "specialise":
            self.specialised()
        else:
            self.results(stage.removeprefix("run "))

    def specialised(self) -> Specialised:
        """Returns the specialised rule."""
        settings = self.settings
        return specialise(
            self.plan.task,
            self.plan.steps,
            settings.start,
            settings.minutes,
            self._folder / "specialised",
            {"task": plans.fingerprint(self.plan.task)},
            prefixed(self._progress, "specialise"),
        )

    @property
    def start(self) -> str:
        """The name of the preset that is specialised, in tables."""
        return Path(self.settings.start).name

    def contenders(self) -> dict[str, Contender]:
        """Returns the learned optimizers that the study compares, by the name to show."""
        own, start = str(self.specialised().preset), self.settings.start
        falling = Recipe().schedule
        return {
            SPECIALISED: Contender(own, falling),
            GUARDED: Contender(own, falling, guard=True),
            self.start: Contender(start, "constant"),
            # What the schedule alone achieves.
            f"{self.start}, {falling}": Contender(start, falling),
        }

    def results(self, problem: str) -> ProblemResults:
        """Returns what all optimizers achieve on a problem."""
        trials, _ = self._trials(problem)
        tuned = self.tuned(problem)
        representative = problem == self.plan.task.name
        kept = tuned if representative else self._with_kept_rates(problem, tuned)
        learned = self._learned(problem)
        return ProblemResults(trials.comparison([*learned, *tuned.values()]), kept)

    def tuned(self, problem: str) -> dict[str, Result]:
        """Returns what baselines achieve with learning rates tuned on a problem."""

        def make(name: str, baseline: Baseline, tell: Progress) -> Result:
            trials, _ = self._trials(problem)
            tuning = trials.tune(baseline, prefixed(tell, name))
            return trials.baseline(name, baseline, tuning, tell)

        return {
            name: self._stored(problem, name, {}, functools.partial(make, name, baseline))
            for name, baseline in self._baselines.items()
        }

    def _with_kept_rates(self, problem: str, tuned: Mapping[str, Result]) -> dict[str, Result]:
        """Returns what baselines achieve with the learning rates of the representative problem."""

        def make(name: str, tuning: Tuning, tell: Progress) -> Result:
            trials, _ = self._trials(problem)
            return trials.baseline(name, self._baselines[name], tuning, prefixed(tell, "rate kept"))

        kept = {}
        for name, result in self.tuned(self.plan.task.name).items():
            if tuned[name].learning_rate == result.learning_rate:
                kept[name] = tuned[name]
            else:
                tuning = Tuning(result.learning_rate, on_edge=False, seconds=0.0)
                own = functools.partial(make, name, tuning)
                record = {"learning_rate": tuning.best}
                kept[name] = self._stored(problem, f"{name}, rate kept", record, own)
        return kept

    def _learned(self, problem: str) -> list[Result]:
        """Returns what learned optimizers achieve."""
        results = []
        for name, own in self.contenders().items():
            rule, _ = presets.load_preset(own.preset)
            optimizer = LearnedOptimizer(rule, guard=own.guard)
            record = {"learned": result_files.digest(optimizer), "schedule": own.schedule}

            def make(
                tell: Progress, name: str = name, rule: Any = rule, own: Contender = own
            ) -> Result:
                trials, _ = self._trials(problem)
                return trials.learned(name, rule, own.guard, own.schedule, tell)

            results.append(self._stored(problem, name, record, make))
        return results

    def _stored(
        self,
        problem: str,
        name: str,
        record: Mapping[str, Any],
        make: Callable[[Progress], Result],
    ) -> Result:
        """Reads a result, or makes and writes it."""
        _, own = self._trials(problem)
        record = {**own, **record}
        path = self._folder / "runs" / problem / f"{name}.npz"
        result = result_files.load(path, record)
        if result is None:
            result = make(prefixed(self._progress, problem))
            result_files.save(result, path, record)
        return result

    def _make_trials(self, problem: str) -> tuple[Trials, dict[str, Any]]:
        """Returns the runs of a problem, and what their results depend on."""
        task, steps = self.plan.problems[problem].task, self.plan.steps_of(problem)
        settings = self.settings
        trials = Trials(task, steps, range(settings.seeds), range(settings.tuning_seeds))
        record = {
            "task": plans.fingerprint(task),
            "steps": steps,
            "seeds": settings.seeds,
            "tuning_seeds": settings.tuning_seeds,
        }
        return trials, record
