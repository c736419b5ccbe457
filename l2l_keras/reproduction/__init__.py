"""The paper's figures again: which commands make each of them, and how it is drawn."""

from l2l_keras.reproduction.child import StageError
from l2l_keras.reproduction.figures import Figure, Pictures, get, names
from l2l_keras.reproduction.reproduce import reproduce
from l2l_keras.reproduction.stages import Evaluation, Training, Workshop

__all__ = [
    "Evaluation",
    "Figure",
    "Pictures",
    "StageError",
    "Training",
    "Workshop",
    "get",
    "names",
    "reproduce",
]
