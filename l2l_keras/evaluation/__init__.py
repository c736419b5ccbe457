"""Comparisons of learned optimizers with tuned baselines, and reports of them."""

from l2l_keras.evaluation.baselines import BASELINES, Baseline, half_decades
from l2l_keras.evaluation.compare import (
    Comparison,
    Result,
    Rollout,
    Tuning,
    compare,
    default_window,
    final_losses,
    mean_and_interval,
    run,
    tune,
)
from l2l_keras.evaluation.report import (
    curves_csv,
    figure,
    finite,
    table,
    to_json,
    versions,
    write_report,
)

__all__ = [
    "BASELINES",
    "Baseline",
    "Comparison",
    "Result",
    "Rollout",
    "Tuning",
    "compare",
    "curves_csv",
    "default_window",
    "figure",
    "final_losses",
    "finite",
    "half_decades",
    "mean_and_interval",
    "run",
    "table",
    "to_json",
    "tune",
    "versions",
    "write_report",
]
