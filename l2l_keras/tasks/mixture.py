"""Several tasks as one task family."""

from __future__ import annotations

from collections.abc import Mapping

from l2l_keras.tasks.base import Task


class Mixture:
    """Training tasks of a rule, and validation tasks that choose its best weights.

    A rule generalizes to models, losses and data similar to those of its training tasks.

    Args:
        members: The training tasks, by name.
        validation: The validation tasks, by name, of which the validation optimizees are used.
            Defaults to the training tasks.
        name: Name of the mixture. Defaults to `"mixture"`.

    Raises:
        ValueError: If there are no tasks.

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
    ) -> None:
        validation = members if validation is None else validation
        for argument, tasks in {"members": members, "validation": validation}.items():
            if not tasks or not all(isinstance(task, Task) for task in tasks.values()):
                raise ValueError(
                    f"`{argument}` must be a dictionary of one task or more. Received: {tasks!r}"
                )
        self.members = dict(members)
        self.validation = dict(validation)
        self.name = name

    @property
    def size(self) -> int:
        """Number of parameters of the largest training task."""
        return max(task.size for task in self.members.values())
