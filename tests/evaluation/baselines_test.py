"""Tests of the baselines and their grids of learning rates."""

import keras
import numpy as np
import pytest

from l2l_keras.evaluation import BASELINES, half_decades


def test_baselines_are_those_of_the_paper():
    assert list(BASELINES) == ["Adam", "RMSprop", "NAG", "SGD"]
    assert all(name == baseline.name for name, baseline in BASELINES.items())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Adam", keras.optimizers.Adam()),
        ("RMSprop", keras.optimizers.RMSprop()),
        ("NAG", keras.optimizers.SGD(momentum=0.9, nesterov=True)),
        ("SGD", keras.optimizers.SGD()),
    ],
)
def test_hyper_parameters_other_than_the_rate_are_keras_defaults(name, expected):
    optimizer = BASELINES[name].make(0.25)
    assert type(optimizer) is type(expected)
    assert float(optimizer.learning_rate) == 0.25

    def others(config):
        return {k: v for k, v in config.items() if k not in ("name", "learning_rate")}

    assert others(optimizer.get_config()) == others(expected.get_config())


@pytest.mark.parametrize("name", BASELINES)
def test_make_gives_a_fresh_optimizer(name):
    make = BASELINES[name].make
    assert make(0.1) is not make(0.1)
    assert not make(0.1).built


@pytest.mark.parametrize("name", BASELINES)
def test_grids_are_half_decades_of_nine_values_or_more(name):
    grid = np.array(BASELINES[name].grid)
    assert len(grid) >= 9
    np.testing.assert_allclose(np.diff(np.log10(grid)), 0.5)
    np.testing.assert_allclose(2 * np.log10(grid), np.round(2 * np.log10(grid)), atol=1e-12)


def test_half_decades_include_both_ends():
    np.testing.assert_allclose(half_decades(-1.5, 0), [10**-1.5, 0.1, 10**-0.5, 1.0])
    assert half_decades(2, 2) == (100.0,)


@pytest.mark.parametrize("ends", [(0, -1), (0.25, 1), (0, 0.75)])
def test_half_decades_refuse_other_ends(ends):
    with pytest.raises(ValueError, match=r"multiples of 0\.5.*Received: lowest="):
        half_decades(*ends)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
