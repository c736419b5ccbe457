"""Tests of decisions."""

import math

import pytest

from l2l_keras.studies import Decision
from tests.studies.outcomes import outcome, problem

BETTER, AS_GOOD, WORSE = 0.1, 0.2, 0.4


def decide(*problems, **options):
    return outcome(*problems, **options).decision


class TestDecision:
    def test_better_everywhere_is_adopted(self):
        assert decide(problem("small", BETTER), problem("wide", BETTER)) is Decision.ADOPT

    def test_worse_on_the_representative_problem_is_not(self):
        assert decide(problem("small", WORSE)) is Decision.NOT
        assert decide(problem("small", WORSE), problem("wide", WORSE)) is Decision.NOT

    def test_worse_on_another_problem_is_adopted_in_part(self):
        assert decide(problem("small", BETTER), problem("wide", WORSE)) is Decision.PARTLY

    def test_a_failure_that_a_guard_prevents_is_adopted_with_one(self):
        failed = problem("wide", math.inf, guarded=AS_GOOD)
        assert decide(problem("small", BETTER), failed) is Decision.WITH_GUARD

    def test_a_failure_that_a_guard_does_not_prevent_is_adopted_in_part(self):
        failed = problem("wide", math.inf, guarded=WORSE)
        assert decide(problem("small", BETTER), failed) is Decision.PARTLY

    def test_as_good_but_slower_is_not_adopted(self):
        slow = problem("small", AS_GOOD, seconds_of_run=5.0)
        assert decide(slow) is Decision.NOT

    def test_better_but_later_is_not_adopted(self):
        slow = problem("small", 0.15, seconds_of_run=5.0)
        assert decide(slow) is Decision.NOT

    def test_as_good_where_settings_from_elsewhere_are_worse_saves_the_tuning(self):
        slow = {"seconds_of_run": 5.0}
        others = problem("wide", AS_GOOD, kept=WORSE, **slow)
        assert decide(problem("small", AS_GOOD, **slow), others) is Decision.PARTLY

    def test_only_elsewhere_better_is_adopted_there(self):
        own = outcome(problem("small", WORSE), problem("wide", BETTER))
        assert own.decision is Decision.PARTLY
        assert [name for name, v in own.verdicts.items() if v.helps] == ["wide"]


def test_costs_are_counted_in_steps_and_seconds():
    # Half of the steps to the rival's loss, at half a second a run.
    own = outcome(problem("small", 0.0, rival=0.5, seconds_of_run=0.5), seconds=100.0, steps=1000)
    verdict = own.verdict("small")
    assert verdict.as_soon
    # (100 - 10) / (1 - 0.25) and 100 / (11 - 0.25) runs; (1000 - 1000) / 50 and 1000 / (1100 - 50).
    assert verdict.once["seconds"] == (120, math.inf)
    assert verdict.anew["seconds"] == (10, math.inf)
    assert verdict.once["steps"] == (0, math.inf)
    assert verdict.anew["steps"] == (1, math.inf)


def test_a_loss_that_is_never_reached_never_pays():
    verdict = outcome(problem("small", WORSE)).verdict("small")
    assert not verdict.as_soon and verdict.harms and not verdict.helps
    assert not verdict.once["seconds"].lasting and not verdict.anew["steps"].lasting


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
