"""Several tasks as one task family."""

from __future__ import annotations

from collections.abc import Mapping

from l2l_keras.tasks.base import Task


class Mixture:
    """Tasks that a rule is meta-trained on side by side, and others that choose its best weights.

    What a rule has seen nothing like, it cannot be expected to be good at: a mixture over models,
    losses and data makes it general.

    Args:
        members: The tasks to train on, by name.
        validation: The tasks on which the rule is validated, by name; their validation optimizees
            are used. Defaults to the members.
        name: Name of the mixture. Defaults to `"mixture"`.

    Attributes:
        members: The tasks to train on, by name.
        validation: The tasks to validate on, by name.
        name: Name of the mixture.

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
        for argument, tasks in (("members", members), ("validation", validation)):
            if not tasks or not all(isinstance(task, Task) for task in tasks.values()):
                raise ValueError(
                    f"`{argument}` must be a dictionary of one task or more. Received: {tasks!r}"
                )
        self.members = dict(members)
        self.validation = dict(validation)
        self.name = name

    @property
    def size(self) -> int:
        """Number of parameters of the largest member."""
        return max(task.size for task in self.members.values())
