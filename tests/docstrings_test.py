"""Runs the examples in the docstrings of all modules."""

import doctest
import importlib
import pkgutil

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


def test_all_modules_are_found():
    assert {"l2l_keras.rules.base", "l2l_keras.meta.trainer", "l2l_keras.presets"} <= {*MODULES}


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
