"""Runs the tests of the optimizer on the other Keras backends, in processes of their own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).resolve().parents[1]
# Those that import nothing of TensorFlow.
TESTS = [
    "contract",
    "batched_update_test.py",
    "columns_test.py",
    "diagnostics_test.py",
    "gradient_guard_test.py",
    "guard_test.py",
    "keras_hooks_test.py",
    "optimizer_test.py",
    "parameter_groups_test.py",
    "stored_rule_test.py",
]


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_the_optimizer_on(backend):
    if backend == keras.backend.backend():
        pytest.skip("The backend of this process.")
    if not importlib.util.find_spec(backend):
        pytest.skip(f"Needs {backend}.")
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *(f"tests/{test}" for test in TESTS)],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-5000:]


def test_importing_the_package_imports_no_tensorflow():
    program = "import sys, l2l_keras; assert 'tensorflow' not in sys.modules"
    others = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]
    if not others:
        pytest.skip("Needs JAX or PyTorch.")
    for backend in others:
        environment = {**os.environ, "KERAS_BACKEND": backend}
        subprocess.run([sys.executable, "-c", program], env=environment, check=True)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
