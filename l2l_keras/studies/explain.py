"""What a specialised rule does: its responses to gradients, its step sizes in a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from l2l_keras import parameter_groups, presets
from l2l_keras.evaluation.rollout import Rollout
from l2l_keras.evaluation.rule_response import Adam
from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.reproduction import outputs
from l2l_keras.tasks import Task

_STEPS = 100
_MOMENTS = 20
"""Times in a run at which step sizes are read."""


class Explanation(NamedTuple):
    """What a rule does.

    Attributes:
        responses: A figure of its responses to gradients; None for rules that are not tensorwise.
        steps: Numbers of steps of a run at which step sizes were read.
        sizes: Step sizes by variable; empty for rules that have none.
    """

    responses: Any
    steps: Sequence[int]
    sizes: Mapping[str, Sequence[float]]


def explain(preset: str, task: Task, steps: int) -> Explanation:
    """Shows gradients to a preset's rules, and reads their step sizes in a run of a task."""
    rule, _ = presets.load_preset(preset)
    named = {
        "specialised" if group == ".*" else group: own
        for group, own in parameter_groups.rules(rule).items()
        if own.scope == "tensor"
    }
    responses = outputs.tensorwise_rules(named | {"Adam": Adam()}, _STEPS).figure if named else None
    moments = sorted({max(1, steps * k // _MOMENTS) for k in range(1, _MOMENTS + 1)})
    optimizer = LearnedOptimizer(rule)
    sizes: dict[str, list[float]] = {}

    def read() -> None:
        for path, numbers in optimizer.diagnose().items():
            if "step size" in numbers:
                sizes.setdefault(path, []).append(numbers["step size"])

    Rollout(task, optimizer, steps).run(0, stops=dict.fromkeys(moments, read))
    return Explanation(responses, moments, sizes)
