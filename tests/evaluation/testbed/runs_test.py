"""Tests of the testbed's runs: tuning for several lengths at once, and the cache."""

import keras
import numpy as np
import pytest

from l2l_keras import evaluation
from l2l_keras.evaluation import Baseline, Rollout
from l2l_keras.evaluation.testbed.runs import Cache, Lengths, Outcome, paces, tuned, untuned
from l2l_keras.tasks import Quadratic

LENGTHS = Lengths(steps=(2, 20), seeds=(0, 1), tuning_seeds=(3,))


@pytest.fixture(name="task", scope="module")
def task_fixture():
    task = Quadratic(dimension=2, functions=1)
    task.jit_compile = False
    return task


def test_each_length_has_its_own_learning_rate(task):
    lines = []
    sgd = Baseline("SGD", keras.optimizers.SGD, evaluation.half_decades(-3, 0))
    made = tuned(task, sgd, LENGTHS, lines.append)
    for k, steps in enumerate(LENGTHS.steps):
        alone = evaluation.tune(
            task, sgd.make, sgd.grid, steps, LENGTHS.tuning_seeds, window=LENGTHS.window(steps)
        )
        assert made.rates[k] == pytest.approx(alone.best)
        optimizer = sgd.make(alone.best)
        curves = evaluation.run(task, optimizer, steps, LENGTHS.seeds)
        np.testing.assert_allclose(made.curves[k], curves, rtol=1e-5)
        expected = evaluation.final_losses(curves, LENGTHS.window(steps))
        np.testing.assert_allclose(made.final(k), expected, rtol=1e-5)
    assert len(lines) == 7 and lines[0].startswith("SGD: learning rate 0.001: final loss ")


@pytest.mark.parametrize("grid", [(1e-5, 1e-4), (10.0, 100.0)])
def test_a_grid_goes_on_where_the_best_is_on_its_edge(task, grid):
    made = tuned(task, Baseline("SGD", keras.optimizers.SGD, grid), LENGTHS)
    assert not set(made.rates) & set(grid)
    assert made.on_edge == (False, False)


def test_a_grid_ends_somewhere(task):
    made = tuned(task, Baseline("SGD", keras.optimizers.SGD, (1e-20, 1e-19)), LENGTHS)
    assert made.on_edge == (True, True)
    assert made.rates == pytest.approx((1e-15, 1e-15), rel=1e-6)


def test_an_untuned_optimizer_runs_as_it_is(task):
    rollout = Rollout(task, keras.optimizers.Adam(0.1), 20)
    made = untuned("mine", rollout, LENGTHS)
    assert (made.name, made.rates) == ("mine", None)
    assert [curves.shape for curves in made.curves] == [(2, 3), (2, 21)]
    np.testing.assert_array_equal(made.curves[1][1:], rollout(1))
    np.testing.assert_array_equal(made.curves[0], made.curves[1][:, :3])


def test_paces_are_seconds_of_a_step_of_each_optimizer():
    now = 0.0

    class Runs:
        def __init__(self, steps, pace):
            self.steps, self.pace = steps, pace

        def __call__(self, seed, steps):
            nonlocal now
            # The first turn is slow, as if there were something to compile.
            now += steps * self.pace * (1.0 if seed else 100.0)

    rollouts = [Runs(5, 0.2), Runs(80, 3.0)]
    assert paces(rollouts, clock=lambda: now) == pytest.approx([0.2, 3.0])


def test_paces_of_rollouts_can_be_measured(task):
    seconds = paces([Rollout(task, keras.optimizers.SGD(0.1), steps) for steps in (5, 80)])
    assert len(seconds) == 2 and min(seconds) > 0.0


@pytest.fixture(name="outcome")
def outcome_fixture():
    curves = (np.ones((2, 3), "float32"), np.full((2, 21), np.inf, "float32"))
    return Outcome("Adam", (0.1, 0.2), curves, (False, True))


class TestCache:
    SETTINGS = {"problem": "mine", "grid": [0.1, 0.2]}

    def fail(self):
        pytest.fail("made again")

    def test_what_was_made_is_read(self, tmp_path, outcome):
        cache = Cache(tmp_path / "new" / "folder")
        cache.get(self.SETTINGS, lambda: outcome)
        read = cache.get(dict(reversed(self.SETTINGS.items())), self.fail)
        assert (read.name, read.rates, read.on_edge) == ("Adam", (0.1, 0.2), (False, True))
        for made, kept in zip(outcome.curves, read.curves, strict=True):
            np.testing.assert_array_equal(made, kept)

    def test_other_settings_are_another_outcome(self, tmp_path, outcome):
        cache = Cache(tmp_path)
        cache.get(self.SETTINGS, lambda: outcome)
        other = Outcome("other", None, outcome.curves)
        assert cache.get({**self.SETTINGS, "grid": [0.1]}, lambda: other).name == "other"
        assert cache.get({**self.SETTINGS, "grid": [0.1]}, self.fail).rates is None
        assert cache.get(self.SETTINGS, self.fail).name == "Adam"

    @pytest.mark.parametrize("damage", [b"", b"PK", None])
    def test_a_damaged_file_is_made_again(self, tmp_path, outcome, damage):
        cache = Cache(tmp_path)
        cache.get(self.SETTINGS, lambda: outcome)
        (file,) = tmp_path.iterdir()
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] if damage is None else damage)
        made = []
        cache.get(self.SETTINGS, lambda: made.append(1) or outcome)
        assert made
        assert cache.get(self.SETTINGS, self.fail).name == "Adam"

    def test_what_is_not_there_may_be_shipped(self, tmp_path):
        outcome = Outcome("Adam", (0.1,), (np.full((1, 3), 0.123456, "float32"),), (False,))
        Cache(tmp_path / "shipped").get(self.SETTINGS, lambda: outcome)
        cache = Cache(tmp_path / "own", tmp_path / "shipped")
        assert cache.get(self.SETTINGS, self.fail).name == "Adam"
        assert not (tmp_path / "own").exists()

    @pytest.mark.parametrize("number", [0.0, 0.123456, 98765.4, 1e-6, 1e30, np.inf, np.nan])
    def test_losses_are_kept_to_three_digits(self, tmp_path, number):
        outcome = Outcome("Adam", None, (np.full((1, 3), number, "float32"),), ())
        cache = Cache(tmp_path)
        fresh = cache.get(self.SETTINGS, lambda: outcome).curves[0]
        np.testing.assert_allclose(fresh, number, rtol=5e-4)
        np.testing.assert_array_equal(cache.get(self.SETTINGS, self.fail).curves[0], fresh)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
