"""Studies: whether a learned optimizer pays for models of your own."""

from l2l_keras.studies.plan import Plan, Target, load
from l2l_keras.studies.stages import Settings, Stages

__all__ = ["Plan", "Settings", "Stages", "Target", "load"]
