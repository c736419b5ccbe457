"""What a study is about: a representative problem, and those to transfer to."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from l2l_keras import arguments, user_functions
from l2l_keras.tasks import Task

_NAME = re.compile(r"\w[\w .,+()=-]{0,59}")


@dataclasses.dataclass(frozen=True)
class Target:
    """A problem that an optimizer may be transferred to.

    Attributes:
        task: A task that holds examples out, such as an `l2l_keras.tasks.KerasTask`.
        steps: Updates of a training run. Defaults to None, for those of the plan.

    Example:
        >>> longer = l2l_keras.studies.Target(l2l_keras.tasks.digits_mlp(), steps=900)
    """

    task: Task
    steps: int | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """A small problem that represents yours, and similar ones to transfer to.

    Attributes:
        task: The representative problem: a task that holds examples out, such as an
            `l2l_keras.tasks.KerasTask`. A learned optimizer is meta-trained on it, and the
            learning rates of others are tuned on it.
        steps: Updates of a training run.
        targets: Tasks, or `Target`s, to transfer to, by name: other data, a wider or deeper model,
            another activation or batch size, longer runs. Defaults to none.

    Raises:
        ValueError: If an attribute is not as described.

    Example:
        >>> x, y = np.random.rand(200, 4).astype("float32"), np.random.rand(200)
        >>> def model_fn(units=8):
        ...     layers = [keras.layers.Dense(units, "relu"), keras.layers.Dense(1)]
        ...     model = keras.Sequential([keras.Input((4,)), *layers])
        ...     model.compile(loss="mean_squared_error")
        ...     return model
        >>> task = l2l_keras.tasks.KerasTask(model_fn, dataset=(x, y), batch_size=10, name="small")
        >>> wide = l2l_keras.tasks.KerasTask(lambda: model_fn(32), dataset=(x, y), batch_size=10)
        >>> plan = l2l_keras.studies.Plan(task, steps=100, targets={"wider": wide})
        >>> list(plan.problems)
        ['small', 'wider']
    """

    task: Task
    steps: int
    targets: Mapping[str, Task | Target] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        arguments.count("steps", self.steps)
        if self.task.name in self.targets:
            raise ValueError(
                "A target must not have the name of the representative problem. "
                f"Received: {self.task.name!r}"
            )
        for name, problem in self.problems.items():
            if not _NAME.fullmatch(name):
                raise ValueError(
                    "Names of problems are those of folders, too: letters, digits, spaces and "
                    f"_.,+()=-, at most 60. Received: {name!r}"
                )
            if not problem.task.holds_out:
                raise ValueError(
                    "A study needs problems that hold examples out, such as a KerasTask with one "
                    f"data set or `validation_data`. Received: {name!r}"
                )

    @property
    def problems(self) -> dict[str, Target]:
        """All problems by name, the representative one first."""
        problems = {self.task.name: Target(self.task)}
        for name, target in self.targets.items():
            problems[name] = target if isinstance(target, Target) else Target(target)
        return problems

    def steps_of(self, name: str) -> int:
        """Returns the updates of a training run on a problem."""
        return self.problems[name].steps or self.steps


def load(name: str) -> Plan:
    """Calls a function of yours that returns a plan.

    Args:
        name: `"path/to/study.py"`, for its function `make_plan`; `"path/to/study.py:function"` or
            `"package.module:function"`.

    Raises:
        ValueError: If there is no such function, or it returns something else.
        Exception: Whatever the function, or its file, raises.

    Example:
        >>> plan = l2l_keras.studies.load("l2l_keras.studies.template:make_plan")
        >>> plan.steps, list(plan.problems)[:3]
        (300, ['digits', 'other data', 'wider'])
    """
    name = name if ":" in name else f"{name}:make_plan"
    plan = user_functions.load(name)()
    if not isinstance(plan, Plan):
        raise ValueError(
            f"{name!r} must return an l2l_keras.studies.Plan. Received: {type(plan).__name__}"
        )
    return plan


def fingerprint(task: Task) -> str:
    """Returns a text that changes with the model, its initial weights, the data or the batches."""
    # Not of paths: Keras numbers the layers of a program.
    digest = hashlib.sha256(repr([weight.shape for weight in task.layout]).encode())
    parts: Any = [task.sample("test", 0)]
    for step in range(2):
        seed = tf.constant([0, step])
        parts += [task.batch("test", seed), task.held_out_batch("test", seed)]
    for part in tf.nest.flatten(parts):
        array = np.asarray(part)
        digest.update(repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes())
    return digest.hexdigest()[:16]
