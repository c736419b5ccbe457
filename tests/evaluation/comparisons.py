"""Hand-made comparisons, for tests of reports and figures."""

import numpy as np

from l2l_keras.evaluation import Comparison, Result, Tuning

INSIDE = Tuning(0.1, False, (0.01, 0.1, 1.0), (2.0, 1.0, np.inf))
EDGE = Tuning(1.0, True, (0.01, 0.1, 1.0), (3.0, 2.0, 1.0))


def make_result(name, rate_of_decay, tuning, runs=5):
    generator = np.random.default_rng(0)
    curves = np.exp(generator.normal(0, 0.1, (runs, 1)) - rate_of_decay * np.arange(11))
    return Result(name, curves.astype(np.float32), window=3, tuning=tuning, seconds=1.25)


def make_comparison(*results):
    return Comparison("digits", 10, tuple(range(5)), (0,), 3, results)


def learned_and_baselines():
    """A learned optimizer, which is best, Adam, and SGD with a rate on the edge of its grid."""
    return make_comparison(
        make_result("lstm", 0.3, None),
        make_result("Adam", 0.2, INSIDE),
        make_result("SGD", 0.1, EDGE),
    )


def diverged():
    """One run, in which one optimizer had losses that are not a number, and another infinite."""
    nan = make_result("lstm", 0.3, None, runs=1)
    nan.curves[:, 4:] = np.nan
    inf = make_result("SGD", 0.3, Tuning(0.1, True, (0.1, 1.0), (np.inf, np.inf)), runs=1)
    inf.curves[:, 4:] = np.inf
    return make_comparison(nan, inf)
