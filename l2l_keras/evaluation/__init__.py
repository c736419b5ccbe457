"""Comparisons of learned optimizers with tuned baselines, and reports of them."""

from l2l_keras.evaluation import testbed
from l2l_keras.evaluation.baselines import BASELINES, Baseline, half_decades
from l2l_keras.evaluation.compare import (
    Comparison,
    Result,
    Tuning,
    compare,
    default_window,
    final_losses,
    mean_and_interval,
    run,
    tune,
)
from l2l_keras.evaluation.panels import (
    Curve,
    curves_of,
    draw_curves,
    line_styles,
    log_scale,
    log_ticks,
    read_curves,
    tidy,
)
from l2l_keras.evaluation.report import (
    curves_csv,
    figure,
    finite,
    table,
    to_json,
    versions,
    write_files,
    write_report,
)
from l2l_keras.evaluation.rollout import Rollout, RuleRollout
from l2l_keras.evaluation.tensor_responses import TensorResponse, tensor_responses
from l2l_keras.evaluation.update_maps import (
    impulse_map,
    impulse_responses,
    update_map,
    updates_after,
)

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
    "curves_csv",
    "curves_of",
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
    "to_json",
    "tune",
    "update_map",
    "updates_after",
    "versions",
    "write_files",
    "write_report",
]
