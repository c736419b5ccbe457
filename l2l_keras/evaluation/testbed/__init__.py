"""The testbed: problems that no rule was trained on, and learned optimizers against baselines.

Each problem is a Keras model with data and a minibatch size. Baselines are tuned for each of them
and each length of runs; learned optimizers are used as they are. What baselines did is kept in a
cache, since tuning takes hours.
"""

from l2l_keras.evaluation.testbed.bench import DEFAULT_CACHE, evaluate, names, problem
from l2l_keras.evaluation.testbed.report import (
    figure,
    read_scores,
    summaries,
    table,
    to_json,
    write_report,
)
from l2l_keras.evaluation.testbed.runs import DEFAULT, TUNED
from l2l_keras.evaluation.testbed.scores import Ratio, Score, Summary, geometric_mean

__all__ = [
    "DEFAULT",
    "DEFAULT_CACHE",
    "TUNED",
    "Ratio",
    "Score",
    "Summary",
    "evaluate",
    "figure",
    "geometric_mean",
    "names",
    "problem",
    "read_scores",
    "summaries",
    "table",
    "to_json",
    "write_report",
]
