"""Tasks by name, for scripts."""

from __future__ import annotations

import importlib
import importlib.util
import pathlib
from collections.abc import Callable

from l2l_keras.tasks.base import Task
from l2l_keras.tasks.images import digits_mlp, mnist_mlp
from l2l_keras.tasks.quadratic import Quadratic

_GENERATED: dict[str, Callable[..., Task]] = {"digits_mlp": digits_mlp, "quadratic": Quadratic}
_STORED: dict[str, Callable[..., Task]] = {"mnist_mlp": mnist_mlp}


def names() -> list[str]:
    """Returns the names that `get` knows.

    Example:
        >>> l2l_keras.tasks.names()
        ['digits_mlp', 'mnist_mlp', 'quadratic']
    """
    return sorted([*_GENERATED, *_STORED])


def get(name: str, data_dir: str | None = None, download: bool = True) -> Task:
    """Returns a task by its name, or one of your own.

    Args:
        name: One of `names()`, or where to find a function without arguments that returns a
            `Task`: `"package.module:function"` or `"path/to/file.py:function"`.
        data_dir: Folder of TensorFlow Datasets, for tasks that read from it.
        download: Whether such tasks may download what is missing. Defaults to True.

    Returns:
        The task.

    Raises:
        ValueError: If there is no such task.
        FileNotFoundError: If its data are missing.

    Example:
        >>> l2l_keras.tasks.get("quadratic").size
        1280
    """
    if ":" in name:
        return _own(name)
    if name in _GENERATED:
        return _GENERATED[name]()
    if name in _STORED:
        return _STORED[name](data_dir=data_dir, download=download)
    raise ValueError(
        f"Unknown task. Expected one of {', '.join(names())}, module:function or "
        f"file.py:function. Received: {name!r}"
    )


def _own(name: str) -> Task:
    """Imports and calls `module:function` or `file.py:function`."""
    place, _, function_name = name.rpartition(":")
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(pathlib.Path(place).stem, place)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
        function = getattr(module, function_name)
    except (ImportError, FileNotFoundError, AttributeError) as error:
        raise ValueError(f"No task at {name!r}: {error}") from error
    task = function()
    if not isinstance(task, Task):
        raise ValueError(
            f"{name!r} must return an l2l_keras.tasks.Task. Received: {type(task).__name__}"
        )
    return task
