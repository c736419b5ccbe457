"""Runs the examples in the docstrings of all modules."""

import doctest
import enum
import importlib
import inspect
import pkgutil
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import l2l_keras

OTHER_BACKENDS = {
    f"l2l_keras.engine.backends.{name}"
    for name in ("tensorflow", "jax", "torch")
    if name != keras.backend.backend()
}
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(l2l_keras.__path__, f"{l2l_keras.__name__}.")
    if module.name not in OTHER_BACKENDS
)
GLOBALS = {"keras": keras, "l2l_keras": l2l_keras, "np": np, "tf": tf}


@pytest.mark.parametrize("name", ["l2l_keras", *MODULES])
def test_examples_of_a_module_are_right(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # Whatever they write goes there.
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for example in doctest.DocTestFinder().find(module, extraglobs=GLOBALS):
        runner.run(example)
    assert runner.failures == 0, capsys.readouterr().out


def public_objects():
    """Yields the classes and functions that users import, by their public names."""
    namespaces = [l2l_keras, l2l_keras.evaluation.testbed]
    namespaces += [own for _, own in inspect.getmembers(l2l_keras, inspect.ismodule)]
    for namespace in namespaces:
        own = [name for name, value in vars(namespace).items() if is_defined_in(value, namespace)]
        for name in getattr(namespace, "__all__", own):
            value = getattr(namespace, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                yield f"{namespace.__name__}.{name}", value


def is_defined_in(value, module):
    """Returns whether a module defines a value itself, under a public name."""
    name = getattr(value, "__name__", "_")
    return getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")


@pytest.mark.parametrize("name, value", [pytest.param(*own, id=own[0]) for own in public_objects()])
def test_every_public_name_has_an_example(name, value):
    assert ">>>" in inspect.getdoc(value).partition("Example:\n")[2]


@pytest.mark.parametrize("name, value", [pytest.param(*own, id=own[0]) for own in public_objects()])
def test_every_public_name_describes_its_arguments(name, value):
    """In `Args:`, or as a field of a tuple or data class in `Attributes:`."""
    if inspect.isclass(value) and issubclass(value, enum.Enum | dict | Exception):
        return
    described = re.findall(r"^ +\**(\w+): ", inspect.getdoc(value), re.MULTILINE)
    assert set(inspect.signature(value).parameters) <= set(described)


def test_all_modules_are_found():
    assert {"l2l_keras.rules.base", "l2l_keras.meta.trainer", "l2l_keras.presets"} <= {*MODULES}


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
