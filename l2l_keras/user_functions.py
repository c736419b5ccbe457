"""Functions in users' own files and modules."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any

from l2l_keras.arguments import did_you_mean


def load(name: str) -> Callable[..., Any]:
    """Imports a function by `module:function` or `file.py:function`.

    Raises:
        ValueError: If there is no such module, file or function.
        Exception: Whatever the module or file raises.
    """
    source, _, function_name = name.rpartition(":") if ":" in name else (name, "", "")
    module = _import_file(source) if source.endswith(".py") else _import_module(source)
    if not hasattr(module, function_name):
        functions = [
            key
            for key, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and key[0] != "_"
        ]
        raise ValueError(
            f"Expected {source}:function, with one of its functions: "
            f"{', '.join(functions) or 'it has none'}. "
            f"Received: {name!r}{did_you_mean(function_name, functions)}"
        )
    return getattr(module, function_name)


def _import_module(name: str) -> types.ModuleType:
    """Imports a module by its name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):  # It imports another one that is missing.
            raise
        raise ValueError(f"Expected a module that exists. Received: {name!r} ({error})") from error


def _import_file(path: str) -> types.ModuleType:
    """Imports a file under a unique module name."""
    if not pathlib.Path(path).is_file():
        raise ValueError(f"Expected a Python file that exists. Received: {path!r}")
    name = f"{__name__}:{pathlib.Path(path).resolve()}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader  # Its name ends with ".py".
    module = importlib.util.module_from_spec(spec)
    # Data classes look up their module while it is being imported.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
