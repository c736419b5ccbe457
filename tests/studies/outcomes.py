"""Hand-made results of studies, and a small problem."""

import keras
import numpy as np

from l2l_keras.evaluation import Comparison, HeldOut, Result, Tuning
from l2l_keras.studies import Outcome, Plan, Settings
from l2l_keras.studies.specialise import Specialised
from l2l_keras.studies.stages import GUARDED, SPECIALISED, ProblemResults
from l2l_keras.tasks import KerasTask

STEPS, RUNS, SEEDS = 100, 3, range(3)
LOOKS = tuple(range(0, STEPS + 1, 10))


def line(slope=1.0, name="line", batch_size=10):
    """Fits y = slope · x."""

    def model_fn():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(loss="mse", metrics=["mae"])
        return model

    x = np.random.default_rng(0).normal(size=(200, 1)).astype("float32")
    return KerasTask(model_fn, dataset=(x, slope * x), batch_size=batch_size, name=name)


def result(name, final, seconds_of_run=1.0, tuning=None, training=None):
    """Losses that fall from 1 as a line; final ones of runs differ by some per cent."""
    spread = np.array([0.98, 1.0, 1.02])[:, None]
    shares = np.array(LOOKS) / STEPS
    falling = 1.0 - shares + final * spread * np.where(shares > 0.0, shares, 1e-30)
    last = final if training is None else training
    curves = np.linspace(1.0, min(last, 1e30), STEPS + 1)
    return Result(
        name,
        np.tile(curves, (RUNS, 1)).astype("float32"),
        window=1,
        tuning=tuning,
        seconds=RUNS * seconds_of_run,
        held_out=HeldOut(LOOKS, {"loss": falling, "mae": 2.0 * falling}),
        state_bytes=16,
    )


def tuned(name, final, rate=0.1, kept=False, **options):
    """A baseline, whose tuning took ten runs."""
    cost = (0, 0.0) if kept else (10, 10.0)
    own = Tuning(rate, False, (0.01, 0.1, 1.0), (2.0, 1.0, 3.0), *cost)
    return result(name, final, tuning=own, **options)


def problem(name, learned, guarded=None, rival=0.2, kept=None, **options):
    """Results of a problem, given final losses."""
    baselines = [tuned("Adam", rival), tuned("SGD", 2 * rival)]
    results = (
        result(SPECIALISED, learned, **options),
        result(GUARDED, learned if guarded is None else guarded),
        result("general-fast", 1.1 * learned),
        result("general-fast, cosine", 1.05 * learned),
        *baselines,
    )
    comparison = Comparison(name, STEPS, tuple(SEEDS), (0,), 1, results)
    own = {"Adam": tuned("Adam", rival if kept is None else kept, kept=True), "SGD": baselines[1]}
    return ProblemResults(comparison, own)


def outcome(*problems, seconds=100.0, steps=1000, preset="folder/specialised/preset"):
    """A study of problems, of which the first is representative."""
    names = [own.comparison.task for own in problems]
    plan = Plan(line(name=names[0]), STEPS, {name: line(name=name) for name in names[1:]})
    training = Specialised(preset, seconds, steps)
    settings = Settings(seeds=RUNS, tuning_seeds=1)
    return Outcome(plan, settings, training, dict(zip(names, problems, strict=True)))
