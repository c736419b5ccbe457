"""Tasks by name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from l2l_keras import user_functions
from l2l_keras.arguments import did_you_mean
from l2l_keras.tasks.base import Task
from l2l_keras.tasks.general.mixture import general
from l2l_keras.tasks.mixture import Mixture
from l2l_keras.tasks.paper.convnets import cifar_convnet, digits_convnet
from l2l_keras.tasks.paper.images import digits_mlp, mnist_mlp
from l2l_keras.tasks.paper.neural_art import NeuralArt
from l2l_keras.tasks.paper.quadratic import Quadratic

MakeTask = Callable[..., Task | Mixture]

_TASKS: dict[str, MakeTask] = {
    "cifar_convnet": cifar_convnet,
    "digits_convnet": digits_convnet,
    "digits_mlp": digits_mlp,
    "general": general,
    "mnist_mlp": mnist_mlp,
    "neural_art": NeuralArt,
    "quadratic": Quadratic,
}


def names() -> list[str]:
    """Returns the names of the tasks.

    Example:
        >>> l2l_keras.tasks.names()
        ['cifar_convnet', 'digits_convnet', 'digits_mlp', 'general', 'mnist_mlp', 'neural_art', \
        'quadratic']
    """
    return sorted(_TASKS)


def get(
    name: str, data_dir: str | None = None, download: bool = True, **options: Any
) -> Task | Mixture:
    """Returns a task by its name, or one of your own.

    Args:
        name: One of `names()`, or a function of yours that returns a `Task` or a `Mixture`:
            `"package.module:function"` or `"path/to/file.py:function"`.
        data_dir: Folder of TensorFlow Datasets, for tasks that read from it. Defaults to that
            library's own.
        download: Whether such tasks may download missing data. Defaults to True.
        **options: Arguments of the task, such as `functions` of `quadratic` or `layers` of
            `mnist_mlp`.

    Returns:
        The task, or mixture of tasks.

    Raises:
        ValueError: If there is no such task, or it does not take the options.
        FileNotFoundError: If its data is missing.
        Exception: Whatever your own function, or its file, raises.

    Example:
        >>> l2l_keras.tasks.get("quadratic").size
        1280
    """
    if ":" in name or name.endswith(".py"):
        function = user_functions.load(name)
    elif name in _TASKS:
        function = _TASKS[name]
        if "data_dir" in inspect.signature(function).parameters:
            function = functools.partial(function, data_dir=data_dir, download=download)
    else:
        raise ValueError(
            f"Unknown task. Expected one of {', '.join(names())}, module:function or "
            f"file.py:function. Received: {name!r}{did_you_mean(name, names())}"
        )
    try:
        inspect.signature(function).bind(**options)
    except TypeError as error:
        raise ValueError(f"Task {name!r} does not take these options: {error}") from error
    task = function(**options)
    if not isinstance(task, (Task, Mixture)):
        raise ValueError(
            f"{name!r} must return an l2l_keras.tasks.Task or Mixture. "
            f"Received: {type(task).__name__}"
        )
    return task
