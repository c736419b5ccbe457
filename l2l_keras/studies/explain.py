"""Pictures of what a specialised rule does: its responses to gradients, its steps in a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from l2l_keras import LearnedOptimizer, parameter_groups, presets
from l2l_keras.evaluation.rollout import Rollout
from l2l_keras.evaluation.rule_response import Adam
from l2l_keras.reproduction import outputs
from l2l_keras.studies import charts
from l2l_keras.tasks import Task

_STEPS = 100
_MOMENTS = 20
"""Times in a run at which step sizes are read."""


def explain(preset: str, task: Task, steps: int, words: Mapping[str, str]) -> dict[str, Any]:
    """Draws the responses of a preset's rules to gradients, and step sizes in a run of a task."""
    rule, _ = presets.load_preset(preset)
    rules = parameter_groups.rules(rule)
    tensorwise = {name: own for name, own in rules.items() if own.scope == "tensor"}
    figures = {}
    if tensorwise:
        own = {"specialised" if name == ".*" else name: r for name, r in tensorwise.items()}
        figures["responses"] = outputs.tensorwise_rules(own | {"Adam": Adam()}, _STEPS).figure
    moments = sorted({max(1, steps * k // _MOMENTS) for k in range(1, _MOMENTS + 1)})
    optimizer = LearnedOptimizer(rule)
    sizes: dict[str, list[float]] = {}

    def read() -> None:
        for path, numbers in optimizer.diagnose().items():
            if "step size" in numbers:
                sizes.setdefault(path, []).append(numbers["step size"])

    Rollout(task, optimizer, steps).run(0, stops=dict.fromkeys(moments, read))
    if sizes:
        figures["step_sizes"] = charts.step_sizes(moments, sizes, words)
    return figures
