"""Several tasks as one task family."""

from __future__ import annotations

from collections.abc import Mapping

from l2l_keras import arguments
from l2l_keras.tasks.base import Task


class Mixture:
    """Training tasks of a rule, and validation tasks that choose its best weights.

    A rule generalizes to models, losses and data similar to those of its training tasks.

    Args:
        members: The training tasks, by name.
        validation: The validation tasks, by name, of which the validation optimizees are used.
            Defaults to the training tasks.
        name: Name of the mixture. Defaults to `"mixture"`.
        validation_mean: How validation losses are averaged over optimizees: `"geometric"`
            (default), since losses of different tasks cannot be added, or `"arithmetic"`.

    Raises:
        ValueError: If there are no tasks, or `validation_mean` is not as described.

    Example:
        >>> small, large = (l2l_keras.tasks.Quadratic(dimension) for dimension in (2, 20))
        >>> mixture = l2l_keras.tasks.Mixture({"small": small, "large": large})
        >>> list(mixture.validation)
        ['small', 'large']
    """

    def __init__(
        self,
        members: Mapping[str, Task],
        validation: Mapping[str, Task] | None = None,
        name: str = "mixture",
        validation_mean: str = "geometric",
    ) -> None:
        validation = members if validation is None else validation
        for argument, tasks in {"members": members, "validation": validation}.items():
            valid = bool(tasks) and all(isinstance(task, Task) for task in tasks.values())
            arguments.check(valid, argument, "a dictionary of one task or more", tasks)
        arguments.one_of("validation_mean", validation_mean, ("arithmetic", "geometric"))
        self.members = dict(members)
        self.validation = dict(validation)
        self.name = name
        self.validation_mean = validation_mean

    def __repr__(self) -> str:
        counts = f"{len(self.members)} training and {len(self.validation)} validation tasks"
        return f"<Mixture {self.name!r} of {counts}>"

    @property
    def size(self) -> int:
        """Number of parameters of the largest training task."""
        return max(task.size for task in self.members.values())


def as_mixture(task: Task | Mixture) -> Mixture:
    """Returns a task as a mixture of one, and a mixture as it is."""
    if isinstance(task, Mixture):
        return task
    return Mixture({task.name: task}, name=task.name, validation_mean="arithmetic")
