"""After how many runs a learned optimizer has paid for its meta-training."""

from __future__ import annotations

import math
from typing import NamedTuple


class Cost(NamedTuple):
    """What training many models with one optimizer costs, in steps, in seconds or in money.

    Attributes:
        once: What is spent before the first run: on meta-training, or on tuning.
        per_run: What each run takes to reach the same loss; infinite if it never does.
    """

    once: float
    per_run: float

    def after(self, runs: float) -> float:
        """Returns the cost of a number of runs."""
        return self.once + self.per_run * runs if runs else self.once


class BreakEven(NamedTuple):
    """The numbers of runs for which one optimizer costs no more than another.

    Attributes:
        first: The least number, 0 or more; infinite if there is none.
        last: The greatest number; infinite if there is none greater.
    """

    first: float
    last: float

    @property
    def lasting(self) -> bool:
        """Whether it costs no more for good, from some number on."""
        return math.isfinite(self.first) and math.isinf(self.last)


NEVER = BreakEven(math.inf, math.inf)


def break_even(learned: Cost, other: Cost) -> BreakEven:
    """Returns for how many runs a learned optimizer costs no more than another one.

    Args:
        learned: The cost of the learned optimizer.
        other: The cost of the other one, whose runs reach their loss.

    Example:
        >>> from l2l_keras.studies.break_even import Cost, break_even
        >>> break_even(Cost(once=600.0, per_run=4.0), Cost(once=100.0, per_run=10.0)).first
        84
    """
    extra, saved = learned.once - other.once, other.per_run - learned.per_run
    if saved > 0:
        return BreakEven(max(0, math.ceil(extra / saved)), math.inf)
    if extra > 0 or saved == -math.inf:
        return NEVER
    return BreakEven(0, math.floor(extra / saved) if saved else math.inf)
