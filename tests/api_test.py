"""Tests of what `import l2l_keras` gives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import l2l_keras


def test_all_public_names_resolve():
    for name in l2l_keras.__all__:
        assert getattr(l2l_keras, name) is not None
        assert name in dir(l2l_keras)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'l2l_keras' has no attribute 'nonsense'"):
        _ = l2l_keras.nonsense


def test_importing_it_registers_its_classes_with_keras():
    """So that `keras.models.load_model` finds them."""
    code = (
        "import l2l_keras, keras; names = 'LearnedOptimizer', 'TensorwiseLSTM', 'NTMBFGS'; "
        "print(all(keras.saving.get_registered_object(f'l2l_keras>{name}') for name in names))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(l2l_keras.__file__).parents[1])}
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, text=True, env=environment) == "True\n"


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
