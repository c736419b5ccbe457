"""Studies: whether a learned optimizer pays for models of your own."""

from l2l_keras.studies.outcome import Decision, Outcome
from l2l_keras.studies.plan import Plan, Target, load
from l2l_keras.studies.recipe import Recipe
from l2l_keras.studies.run import Study, run_stage, study
from l2l_keras.studies.stages import Settings

__all__ = [
    "Decision",
    "Outcome",
    "Plan",
    "Recipe",
    "Settings",
    "Study",
    "Target",
    "load",
    "run_stage",
    "study",
]
