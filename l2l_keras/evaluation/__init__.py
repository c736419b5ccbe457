"""Comparisons of learned optimizers with tuned baselines, and reports of them."""

from l2l_keras.evaluation import testbed
from l2l_keras.evaluation.compare import compare
from l2l_keras.evaluation.plots import (
    Curve,
    draw_curves,
    figure,
    line_styles,
    log_scale,
    log_ticks,
    tidy,
)
from l2l_keras.evaluation.report import (
    finite,
    read_curves,
    table,
    versions,
    write_files,
    write_report,
)
from l2l_keras.evaluation.results import (
    Comparison,
    Result,
    Tuning,
    final_losses,
    mean_and_interval,
)
from l2l_keras.evaluation.rollout import Rollout, RuleRollout, run
from l2l_keras.evaluation.rule_response import (
    TensorResponse,
    impulse_map,
    impulse_responses,
    tensor_responses,
    update_map,
    updates_after,
)
from l2l_keras.evaluation.tune import BASELINES, Baseline, default_window, half_decades, tune

__all__ = [
    "BASELINES",
    "Baseline",
    "Comparison",
    "Curve",
    "Result",
    "Rollout",
    "RuleRollout",
    "TensorResponse",
    "Tuning",
    "compare",
    "default_window",
    "draw_curves",
    "figure",
    "final_losses",
    "finite",
    "half_decades",
    "impulse_map",
    "impulse_responses",
    "line_styles",
    "log_scale",
    "log_ticks",
    "mean_and_interval",
    "read_curves",
    "run",
    "table",
    "tensor_responses",
    "testbed",
    "tidy",
    "tune",
    "update_map",
    "updates_after",
    "versions",
    "write_files",
    "write_report",
]
