"""Meta-training: how update rules are learned. Needs TensorFlow."""

from l2l_keras.meta.callbacks import Backup, Curriculum, KeepBest, Progress
from l2l_keras.meta.episode import RANDOM_SCALES
from l2l_keras.meta.estimators import Imitation, PersistentEvolution, Truncated
from l2l_keras.meta.inner_loop import InnerLoop
from l2l_keras.meta.meta_loss import META_LOSSES, STEP_WEIGHTS
from l2l_keras.meta.trainer import MetaModel

__all__ = [
    "META_LOSSES",
    "RANDOM_SCALES",
    "STEP_WEIGHTS",
    "Backup",
    "Curriculum",
    "Imitation",
    "InnerLoop",
    "KeepBest",
    "MetaModel",
    "PersistentEvolution",
    "Progress",
    "Truncated",
]
