"""Tests of the charts of a study."""

import math

import pytest

from l2l_keras.studies import charts
from l2l_keras.studies.break_even import Cost
from l2l_keras.studies.wording import words


@pytest.mark.parametrize(
    ("once", "unit", "ends"),
    [
        (7200.0, "hours", (2.0, 3.0)),
        (700.0, "minutes", (700 / 60, 4300 / 60)),
        (5.0, "seconds", None),
    ],
)
def test_costs_are_drawn_in_a_unit_that_suits_them(once, unit, ends):
    per_run = 36.0 if ends else 0.01
    costs = {"learned": Cost(once, per_run), "never": Cost(0.0, math.inf)}
    axes = charts.break_even(costs, 100, words("en")).axes[0]
    assert axes.get_ylabel() == unit
    (drawn,) = axes.get_lines()
    assert tuple(drawn.get_ydata()[[0, -1]]) == pytest.approx(ends or (5.0, 6.0))


def test_costs_that_are_never_paid_leave_an_empty_chart():
    axes = charts.break_even({"never": Cost(1.0, math.inf)}, 10, words("en")).axes[0]
    assert not axes.get_lines()


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
