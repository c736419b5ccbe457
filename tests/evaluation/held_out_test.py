"""Tests of comparisons on examples held out, and of verdicts."""

import csv

import keras
import numpy as np
import pytest
from keras import layers

from l2l_keras.evaluation import (
    ALL_BASELINES,
    Baseline,
    Comparison,
    HeldOut,
    Result,
    Rollout,
    Tuning,
    compare,
    table,
    verdict,
    write_report,
)
from l2l_keras.rules import UpdateRule
from l2l_keras.tasks import KerasTask

SGD = {"SGD": Baseline("SGD", keras.optimizers.SGD, (0.001, 0.01, 0.1))}
RATE = 0.05


class Descent(UpdateRule):
    """Gradient descent, as a learned rule."""

    state_rows = ()

    def __init__(self, rate=RATE, name=None):
        super().__init__(name=name)
        self.rate = rate
        self.built = True

    def step(self, gradient, state):
        return -self.rate * gradient, state

    def get_config(self):
        return {"rate": self.rate, "name": self.name}


def line_task(slope):
    """Fits y = x, and holds out examples of y = slope · x."""

    def model_fn():
        dense = layers.Dense(1, use_bias=False)
        model = keras.Sequential([keras.Input((1,)), dense])
        model.compile(loss="mse", metrics=["mae"])
        return model

    x = np.random.default_rng(0).normal(size=(60, 1)).astype("float32")
    held_out = (x, slope * x)
    return KerasTask(model_fn, dataset=(x, x), validation_data=held_out, batch_size=10, name="line")


class TestRuns:
    def test_looks_change_nothing_and_see_the_present_weights(self):
        task = line_task(-1.0)
        rollout = Rollout(task, keras.optimizers.Adam(0.1), steps=6)
        run = rollout.run(3, looks=[0, 2, 6])
        np.testing.assert_array_equal(run.losses, rollout(3))
        assert run.seconds > 0
        for steps, look in zip([2, 6], run.looks[1:], strict=True):
            rollout(3, steps=steps)
            assert look == pytest.approx(task.evaluate("test", rollout.parameters, ()))
        start, state = task.sample("test", 3)
        assert run.looks[0] == pytest.approx(task.evaluate("test", start, state))
        assert run.looks[0].keys() == {"loss", "mae"}

    def test_the_common_schedule_is_that_of_keras(self):
        task, steps = line_task(1.0), 8
        baseline = ALL_BASELINES["AdamW + cosine"]
        actual = baseline.rollout(task, steps)
        schedule = keras.optimizers.schedules.CosineDecay(0.03, steps)
        expected = Rollout(task, keras.optimizers.AdamW(schedule), steps)
        actual(1, learning_rate=0.01)  # An earlier run leaves nothing behind.
        np.testing.assert_allclose(actual(1, learning_rate=0.03), expected(1), rtol=1e-5)
        np.testing.assert_allclose(actual.parameters, expected.parameters, rtol=1e-5)


class TestComparisons:
    def test_what_is_held_out_counts(self):
        """On examples of the opposite, the best optimizer is the slowest."""
        comparison = compare(line_task(-1.0), {"descent": Descent()}, 20, [0, 1, 2], baselines=SGD)
        learned, sgd = comparison.results
        assert sgd.learning_rate < 0.001  # Beyond the grid: the slowest rate tried.
        assert learned.held_out.steps == (*range(0, 20, 2), 20)
        assert learned.final_training.mean() < sgd.final_training.mean()
        np.testing.assert_array_equal(learned.final, learned.held_out.metrics["loss"][:, -1])
        assert comparison.best_baseline is sgd
        assert comparison.ratio("descent") == pytest.approx(
            np.exp(np.mean(np.log(learned.final / sgd.final)))
        )
        text = verdict(comparison, "descent")
        assert text.startswith("Do not use descent on line: its loss on examples held out is ")
        assert "It memorizes" in text
        assert table(comparison).splitlines()[-1] == text

    def test_the_same_examples_give_the_opposite_verdict(self):
        comparison = compare(line_task(1.0), {"descent": Descent(0.2)}, 20, [0, 1], baselines={})
        assert comparison.best_baseline is None
        default = {"Adam (default)": ALL_BASELINES["Adam (default)"]}
        comparison = compare(
            line_task(1.0), {"descent": Descent(0.2)}, 20, [0, 1, 2], None, default
        )
        adam = comparison["Adam (default)"]
        assert (adam.learning_rate, adam.learned, adam.on_edge) == (1e-3, False, False)
        assert verdict(comparison, "descent").startswith("Use descent on line")

    def test_reports_hold_all_looks(self, tmp_path):
        comparison = compare(line_task(-1.0), {"descent": Descent()}, 10, [0, 1], baselines=SGD)
        header = table(comparison).splitlines()[0]
        for name in ("held-out loss", "best look", "mae", "training loss", "at equal time"):
            assert name in header
        paths = write_report(comparison, tmp_path, {})
        assert "held_out.csv" in [path.name for path in paths]
        with (tmp_path / "held_out.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 2 * 2 * 11
        losses = comparison["SGD"].held_out.metrics["mae"].mean(axis=0)
        own = [r for r in rows if (r["metric"], r["optimizer"]) == ("mae", "SGD")]
        np.testing.assert_allclose([float(r["mean"]) for r in own], losses, rtol=1e-5)
        assert [int(r["step"]) for r in own] == list(range(11))


def made(name, losses, seconds, tuning=None, training=1.0):
    """A result whose losses on examples held out fall straight from 10, `[runs]` at the end."""
    final = np.asarray(losses, float)
    looks = np.linspace(np.full_like(final, 10.0), final, 5, axis=1)
    held_out = HeldOut((0, 5, 10, 15, 20), {"loss": looks})
    curves = np.full((len(final), 21), training, np.float32)
    return Result(name, curves, 2, tuning, seconds, held_out)


def against_adam(losses, seconds=2.0, training=1.0, adam=(1.0, 1.1, 1.05)):
    results = (
        made("mine", losses, seconds, training=training),
        made("Adam", adam, 1.0, Tuning(0.01, False)),
    )
    return Comparison("task", 20, (0, 1, 2), (0,), 2, results)


class TestVerdicts:
    @pytest.mark.parametrize(
        ("losses", "arguments", "start", "end"),
        [
            ([0.5, 0.56, 0.52], {"seconds": 1.01}, "Use mine on task: ", "the same time, too."),
            ([0.5, 0.56, 0.52], {}, "Use mine on task if steps are scarce, not ", "5.26 to 1.05)."),
            ([0.9, 1.2, 1.0], {}, "Use mine on task only to save the tuning", "2 times as long."),
            ([2.0, 2.3, 2.1], {}, "Do not use mine on task", "the best baseline."),
            # Not clearly worse, but most likely.
            ([0.9, 1.9, 1.2], {}, "Do not use mine on task", "the best baseline."),
            (
                [2.0, 2.3, 2.1],
                {"training": 0.5},
                "Do not use mine",
                "at the examples held out 2.13.",
            ),
            ([np.inf, 0.1, 0.1], {}, "Do not use mine on task: its loss on examples", "baseline."),
        ],
    )
    def test_they_follow_from_intervals_and_times(self, losses, arguments, start, end):
        text = verdict(against_adam(losses, **arguments), "mine")
        assert text.startswith(start) and text.endswith(end)

    def test_they_say_what_decided(self):
        text = verdict(against_adam([2.0, 2.2, 2.1]), "mine")
        assert "2 times that (2 to 2) of Adam, the best baseline" in text

    def test_losses_that_are_not_positive_are_subtracted(self):
        comparison = against_adam([-2.0, -2.1, -2.2], adam=(-1.0, -1.1, -1.2), seconds=1.0)
        text = verdict(comparison, "mine")
        assert text.startswith("Use mine")
        assert "is 1 below that (-1 to -1) of Adam" in text
        assert verdict(against_adam([-0.5], adam=[-1.0]), "mine").startswith("Do not use")

    def test_losses_at_equal_time_are_interpolated(self):
        comparison = against_adam([2.0, 2.0, 2.0], seconds=4.0, adam=(1.0, 1.0, 1.0))
        mine, adam = comparison.results
        assert comparison.fastest is adam
        assert comparison.loss_at_equal_time(adam) == 1.0
        # After a quarter of the steps.
        assert comparison.loss_at_equal_time(mine) == pytest.approx(8.0)
        np.testing.assert_array_equal(mine.held_out.best, [2.0, 2.0, 2.0])


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
