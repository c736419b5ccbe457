"""The testbed: problems that no rule was trained on, and learned optimizers against baselines.

Each problem is a Keras model with data and a minibatch size. Baselines are tuned for each problem
and each length of runs; learned optimizers are used as they are. Runs of baselines are cached,
since tuning takes hours.
"""

from l2l_keras.evaluation.results import Ratio, geometric_mean
from l2l_keras.evaluation.scores import Score, Summary, summaries
from l2l_keras.evaluation.testbed.bench import (
    DEFAULT,
    DEFAULT_CACHE,
    TUNED,
    evaluate,
    names,
    problem,
)
from l2l_keras.evaluation.testbed.report import read_scores, table, write_report

__all__ = [
    "DEFAULT",
    "DEFAULT_CACHE",
    "TUNED",
    "Ratio",
    "Score",
    "Summary",
    "evaluate",
    "geometric_mean",
    "names",
    "problem",
    "read_scores",
    "summaries",
    "table",
    "write_report",
]
