"""Tests of the order and lengths of episodes."""

import numpy as np
import pytest

from l2l_keras.meta import schedule


@pytest.mark.parametrize("count", [1, 3, 4])
def test_members_take_turns_in_random_orders(count):
    turns = np.array([schedule.member(0, turn, count) for turn in range(20 * count)])
    cycles = turns.reshape(20, count)
    np.testing.assert_array_equal(np.sort(cycles), [range(count)] * 20)
    assert len(np.unique(cycles, axis=0)) > (1 if count > 1 else 0)
    other = [schedule.member(1, turn, count) for turn in range(20 * count)]
    assert count == 1 or np.any(turns != other)


def test_horizons_are_uniform_over_logarithms():
    """In whole windows, the same ones for the same seed."""
    horizons = np.array([schedule.horizon(0, number, 5, 80, 5) for number in range(2000)])
    assert np.all(horizons % 5 == 0)
    assert (horizons.min(), horizons.max()) == (5, 80)
    # log(17 / 1) from one to sixteen windows, log(4 / 1) of it below four.
    assert np.mean(horizons < 20) == pytest.approx(np.log(4) / np.log(17), abs=0.03)
    assert schedule.horizon(0, 7, 5, 80, 5) == horizons[7]
    # A curriculum shortens them.
    assert {schedule.horizon(0, number, 5, 5, 5) for number in range(20)} == {5}
    assert schedule.mean_horizon(5, 80) == pytest.approx(
        np.exp(np.random.default_rng(0).uniform(np.log(5), np.log(80), 10**5)).mean(), rel=0.01
    )


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
