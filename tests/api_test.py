"""Tests of what `import l2l_keras` gives, and of what it costs."""

import subprocess
import sys

import pytest

import l2l_keras


def test_all_public_names_resolve():
    for name in l2l_keras.__all__:
        assert getattr(l2l_keras, name) is not None
        assert name in dir(l2l_keras)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'l2l_keras' has no attribute 'nonsense'"):
        _ = l2l_keras.nonsense


def test_importing_it_imports_no_tensorflow():
    # Keras may be on TensorFlow here; from then on, whoever imports it fails.
    program = """
import sys, keras
sys.modules["tensorflow"] = None
import l2l_keras
try:
    l2l_keras.meta
except ImportError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True
    )
    assert "import of tensorflow halted" in run.stdout


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
