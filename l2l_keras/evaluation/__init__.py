"""Comparisons of learned optimizers with tuned baselines, and reports of them."""

from l2l_keras.evaluation import testbed
from l2l_keras.evaluation.compare import compare
from l2l_keras.evaluation.plots import Curve, figure
from l2l_keras.evaluation.report import read_curves, table, write_report
from l2l_keras.evaluation.results import Comparison, HeldOut, Result, Tuning, mean_and_interval
from l2l_keras.evaluation.rollout import Rollout, run
from l2l_keras.evaluation.tune import ALL_BASELINES, BASELINES, Baseline, half_decades, tune
from l2l_keras.evaluation.verdict import verdict

__all__ = [
    "BASELINES",
    "ALL_BASELINES",
    "Baseline",
    "Comparison",
    "Curve",
    "HeldOut",
    "Result",
    "Rollout",
    "Tuning",
    "compare",
    "figure",
    "half_decades",
    "mean_and_interval",
    "read_curves",
    "run",
    "table",
    "testbed",
    "tune",
    "verdict",
    "write_report",
]
