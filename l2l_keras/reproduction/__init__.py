"""Reproduces the paper's figures: the stages of each, a runner for them, and the drawings."""

from l2l_keras.command_runner import CommandRunner, StageError
from l2l_keras.reproduction.figures import Figure, get, names
from l2l_keras.reproduction.reproduce import reproduce
from l2l_keras.reproduction.sizes import Pictures
from l2l_keras.reproduction.workspace import Workspace

__all__ = [
    "CommandRunner",
    "Figure",
    "Pictures",
    "StageError",
    "Workspace",
    "get",
    "names",
    "reproduce",
]
