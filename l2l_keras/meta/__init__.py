"""Meta-training: how update rules are learned. Needs TensorFlow."""

from l2l_keras.meta.callbacks import Backtrack, Backup, Curriculum, KeepBest, Progress
from l2l_keras.meta.epochs import adam, epochs_within
from l2l_keras.meta.estimators import BackPropagation, Estimator, Imitation, PersistentEvolution
from l2l_keras.meta.inner_loop import InnerLoop, InnerState, Steps
from l2l_keras.meta.meta_loss import META_LOSSES, STEP_WEIGHTS
from l2l_keras.meta.trainer import MetaModel
from l2l_keras.meta.windows import RANDOM_SCALES, Windows

__all__ = [
    "META_LOSSES",
    "RANDOM_SCALES",
    "STEP_WEIGHTS",
    "BackPropagation",
    "Backtrack",
    "Backup",
    "Curriculum",
    "Estimator",
    "Imitation",
    "InnerLoop",
    "InnerState",
    "KeepBest",
    "MetaModel",
    "PersistentEvolution",
    "Progress",
    "Steps",
    "Windows",
    "adam",
    "epochs_within",
]
