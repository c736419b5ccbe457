"""What a study found: standings on each problem, costs, and a decision."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from l2l_keras.evaluation.results import Result
from l2l_keras.evaluation.verdict import Standing, standing
from l2l_keras.studies.break_even import BreakEven, Cost, break_even
from l2l_keras.studies.plan import Plan
from l2l_keras.studies.specialise import Specialised
from l2l_keras.studies.stages import GUARDED, SPECIALISED, ProblemResults, Settings, Stages

UNITS = ("steps", "seconds")
"""What costs are counted in; money is proportional to seconds."""


class Costs(NamedTuple):
    """What training many models costs, in one unit.

    Attributes:
        learned: With the specialised rule, until it is as low as the rival.
        once: With the rival, tuned once.
        anew: With the rival, tuned for every run.
    """

    learned: Cost
    once: Cost
    anew: Cost


class Decision(enum.Enum):
    """Whether to adopt a learned optimizer.

    Example:
        >>> l2l_keras.studies.Decision("adopt with guard")
        <Decision.WITH_GUARD: 'adopt with guard'>
    """

    ADOPT = "adopt"
    WITH_GUARD = "adopt with guard"
    PARTLY = "adopt for these problems only"
    NOT = "do not adopt"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a study says about one problem.

    Attributes:
        problem: Its name.
        learned: The specialised rule.
        rival: The best baseline, tuned on the problem.
        standing: That of the specialised rule, compared with it.
        guarded: The same with a guard.
        kept: That of the best baseline of the representative problem at its learning rate there,
            compared with the best baseline tuned on this problem.
        share: The share of its steps after which the rule reaches the rival's final loss; infinite
            if it never does.
        costs: Costs by unit.
    """

    problem: str
    learned: Result
    rival: Result
    standing: Standing
    guarded: Standing
    kept: Standing
    share: float
    costs: Mapping[str, Costs]

    @property
    def share_of_seconds(self) -> float:
        """The share of the rival's seconds after which its final loss is reached."""
        return self.share * self.learned.seconds / self.rival.seconds

    @property
    def as_soon(self) -> bool:
        """Whether the rule reaches the rival's final loss within the rival's time."""
        return self.share_of_seconds <= 1.0

    @property
    def once(self) -> dict[str, BreakEven]:
        """By unit, for how many runs the rule costs less than a rival that is tuned once."""
        return {unit: break_even(own.learned, own.once) for unit, own in self.costs.items()}

    @property
    def anew(self) -> dict[str, BreakEven]:
        """The same, if the rival is tuned anew for every run."""
        return {unit: break_even(own.learned, own.anew) for unit, own in self.costs.items()}

    @property
    def helps(self) -> bool:
        """Whether the rule is worth it.

        It is better in the same time; or no worse, and saves time in the long run or, since
        settings that were tuned elsewhere are worse, the tuning.
        """
        better = self.standing.order < 0 and self.as_soon
        saves = self.once["seconds"].lasting or self.kept.order > 0
        return better or (not self.harms and saves)

    @property
    def helps_in_steps(self) -> bool:
        """Whether the rule is clearly better after equal steps, and does not help otherwise."""
        return self.standing.order < 0 and not self.helps

    @property
    def harms(self) -> bool:
        """Whether the rule is clearly worse."""
        return self.standing.order > 0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The results of a study.

    Attributes:
        plan: The study's problems.
        settings: How much it did.
        training: The specialised rule, and what it took.
        problems: Results by problem, the representative one first.

    Example:
        >>> study = l2l_keras.study("study.py", "my_study")  # doctest: +SKIP
        >>> comparison = study.outcome.problems["wider"].comparison  # doctest: +SKIP
        >>> print(l2l_keras.evaluation.table(comparison))  # doctest: +SKIP
    """

    plan: Plan
    settings: Settings
    training: Specialised
    problems: Mapping[str, ProblemResults] = dataclasses.field(repr=False)

    @property
    def representative(self) -> str:
        """Name of the representative problem."""
        return next(iter(self.problems))

    @property
    def first_rival(self) -> Result:
        """The best baseline of the representative problem."""
        rival = self.problems[self.representative].comparison.best_baseline
        assert rival is not None  # A study has baselines.
        return rival

    def verdict(self, problem: str) -> Verdict:
        """Compares the specialised rule with the best baseline on a problem."""
        comparison = self.problems[problem].comparison
        rival, learned = comparison.best_baseline, comparison[SPECIALISED]
        assert rival is not None  # A study has baselines.
        share = share_to_reach(learned, rival.mean_final)
        own = {"steps": share * learned.steps, "seconds": share * _seconds_of_run(learned)}
        run = {"steps": float(rival.steps), "seconds": _seconds_of_run(rival)}
        training = {"steps": self.training.steps, "seconds": self.training.seconds}
        tuning = tuning_cost(rival)
        return Verdict(
            problem=problem,
            learned=learned,
            rival=rival,
            standing=standing(learned, rival),
            guarded=standing(comparison[GUARDED], rival),
            kept=standing(self.problems[problem].kept[self.first_rival.name], rival),
            share=share,
            costs={
                unit: Costs(
                    learned=Cost(training[unit], own[unit]),
                    once=Cost(tuning[unit], run[unit]),
                    anew=Cost(0.0, tuning[unit] + run[unit]),
                )
                for unit in UNITS
            },
        )

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Verdicts by problem."""
        return {problem: self.verdict(problem) for problem in self.problems}

    @property
    def decision(self) -> Decision:
        """Whether to adopt the specialised rule."""
        first, *others = self.verdicts.values()
        if not any(v.helps for v in (first, *others)):
            return Decision.NOT
        harmed = [v for v in (first, *others) if v.harms]
        if first.helps and not harmed:
            return Decision.ADOPT
        if first.helps and all(v.guarded.order <= 0 for v in harmed):
            return Decision.WITH_GUARD
        return Decision.PARTLY


def outcome(stages: Stages) -> Outcome:
    """Collects the results of all stages, which are run where they are missing."""
    problems = {name: stages.results(name) for name in stages.plan.problems}
    return Outcome(stages.plan, stages.settings, stages.specialised(), problems)


def share_to_reach(result: Result, loss: float) -> float:
    """Returns the share of a run after which a mean loss on examples held out is reached.

    Losses are interpolated between looks; infinite if it is never reached.
    """
    held_out = result.held_out
    assert held_out is not None  # All problems of a study hold examples out.
    means = held_out.metrics["loss"].mean(axis=0)
    reached = np.flatnonzero(means <= loss)
    if not len(reached):
        return math.inf
    k = int(reached[0])
    if not k:
        return 0.0
    before, after = means[k - 1], means[k]
    part = (before - loss) / (before - after) if math.isfinite(before) else 1.0
    steps = held_out.steps[k - 1] + part * (held_out.steps[k] - held_out.steps[k - 1])
    return float(steps / held_out.steps[-1])


def tuning_cost(result: Result) -> dict[str, float]:
    """Returns what the tuning of a baseline took, by unit."""
    tuning = result.tuning
    assert tuning is not None
    return {"steps": float(tuning.runs * result.steps), "seconds": tuning.seconds}


def _seconds_of_run(result: Result) -> float:
    """Returns the wall time of one run."""
    return result.seconds / len(result.curves)
